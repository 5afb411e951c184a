/** Heads of requests: every route has one action, and every spelling of a path one reading. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type DockerRequest,
  dockerVocabulary,
  isRefusal,
  readBody,
  readRequest,
  type Refusal,
  writeRequest,
} from "../../../interop/docker/mod.ts";
import { ROUTES } from "../../../interop/docker/routes.ts";
import fc from "../../support/properties.ts";
import { cases } from "../../support/suite.ts";
import { exampleOf, QUERY, SPELLINGS } from "./support.ts";

const none = () => undefined;

const read = (method: string, target: string, type?: string): DockerRequest | Refusal =>
  readRequest({ method, target, header: (name) => name === "content-type" ? type : undefined });

function accepted(method: string, target: string, type?: string): DockerRequest {
  const request = read(method, target, type);
  if (isRefusal(request)) assert.fail(`${method} ${target}: ${request.message}`);
  return request;
}

function statusOf(method: string, target: string, type?: string): number | undefined {
  const request = read(method, target, type);
  return isRefusal(request) ? request.status : undefined;
}

/** The target that is forwarded for a request. */
function forwarded(request: DockerRequest, targets?: readonly string[]): string {
  const findings = { attributes: {}, references: [], dangers: [], labelNames: [] };
  const written = writeRequest({ request, body: undefined, ...findings }, { targets });
  if (isRefusal(written)) assert.fail(written.message);
  return written.target;
}

test("readRequest() finds the action of each route, with and without a version", () => {
  assert.ok(ROUTES.length > 110);
  for (const { method, path, action, body, stream } of ROUTES) {
    assert.ok(Object.hasOwn(dockerVocabulary.actions, action), action);
    for (const version of ["", "/v1.24", "/v1.46", "/v1.56"]) {
      const target = `${version}${exampleOf(path)}${QUERY[path] ?? ""}`;
      const request = accepted(method, target);
      assert.equal(request.action, action, target);
      assert.equal(request.route, path);
      assert.equal(request.body, body);
      if (!/logs|stats/.test(action)) assert.equal(request.stream, stream);
      assert.equal(request.version, version === "" ? undefined : version.slice(2));
    }
    for (const other of ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"]) {
      const request = read(other, exampleOf(path) + (QUERY[path] ?? ""));
      if (isRefusal(request)) continue;
      const isRoute = ROUTES.some((route) =>
        route.method === other && route.path === request.route
      );
      assert.ok(isRoute, `${other} ${path}`);
    }
  }
});

/** Routes → actions that the words of the path do not give. */
const OTHER_ACTIONS: readonly (readonly [line: RegExp, action: string])[] = [
  [/^(HEAD|GET) \/_ping$/, "system.ping"],
  [/^GET \/debug\/.*$/, "system.debug"],
  [/^GET \/system\/df$/, "system.df"],
  [/^(GET|POST) \/(version|info|events|auth)$/, "system.$2"],
  [/^POST \/containers\/\{container\}\/unpause$/, "container.pause"],
  [/^GET \/containers\/\{container\}\/attach\/ws$/, "container.attach"],
  [/^(GET|HEAD) \/containers\/\{container\}\/archive$/, "container.archive.read"],
  [/^PUT \/containers\/\{container\}\/archive$/, "container.archive.write"],
  [/^\w+ \/containers\/\{container\}\/checkpoints.*$/, "container.checkpoint"],
  [/^POST \/commit$/, "container.commit"],
  [/^GET \/images\/(\{image\}\/)?get$/, "image.export"],
  [/^POST \/images\/create$/, "image.pull"],
  [/^GET \/images\/\{image\}\/attestations$/, "image.inspect"],
  [/^GET \/distribution\/\{image\}\/json$/, "image.distribution"],
  [/^POST \/build$/, "build"],
  [/^POST \/build\/(prune|cancel)$/, "build.$1"],
  [/^POST \/(session|grpc)$/, "build.session"],
  [/^PUT \/volumes\/\{volume\}$/, "volume.update"],
  [/^GET \/plugins\/privileges$/, "plugin.list"],
  [/^(POST|DELETE) \/plugins\/.*$/, "plugin.write"],
  [/^(POST|DELETE) \/(swarm|services|nodes|secrets|configs)\/.*$/, "swarm.write"],
  [/^GET \/swarm$/, "swarm.inspect"],
  [/^GET \/swarm\/unlockkey$/, "swarm.unlockkey"],
];

test("each route has the action of its words", () => {
  for (const { method, path, action } of ROUTES) {
    const line = `${method} ${path}`;
    const found = OTHER_ACTIONS.find(([pattern]) => pattern.test(line));
    if (found !== undefined) {
      assert.equal(line.replace(...found), action, line);
      continue;
    }
    // GET /networks/{network} reads one object, and GET /networks all of them.
    const [, kinds = "", target, verb = ""] = /^\w+ \/(\w+?)(\/\{\w+\})?(?:\/(\w+))?$/.exec(line) ??
      [];
    const acts: { readonly [words: string]: string } = {
      ...{ "GET ": target === undefined ? "list" : "inspect", "DELETE ": "remove" },
      "GET json": target === undefined ? "list" : "inspect",
    };
    const act = acts[`${method} ${verb}`] ?? verb;
    assert.equal(action, `${kinds.replace(/s$/, "")}.${act}`, line);
  }
});

test("each action of the vocabulary is one of a route, or is decided beside one", () => {
  const others = ["image.import", "container.join", "volume.use", "podman.read"];
  const actions = new Set([...ROUTES.map(({ action }) => action), ...others]);
  assert.deepEqual([...actions].sort(), Object.keys(dockerVocabulary.actions).sort());
});

test("readRequest() reads each spelling of each route as the same action, or rejects it", () => {
  assert.ok(SPELLINGS.length >= 40);
  for (const { method, path, action } of ROUTES) {
    const example = exampleOf(path);
    const canonical = forwarded(accepted(method, example + (QUERY[path] ?? "")));
    for (const spell of SPELLINGS) {
      const target = spell(example) + (QUERY[path] ?? "");
      const request = read(method, target);
      if (isRefusal(request)) {
        assert.ok(request.status === 400 || request.status === 404, `${target}: ${request.status}`);
        continue;
      }
      const sent = forwarded(request).replace(/^\/v1\.\d+/, "");
      const isGreedy = request.targets.length > 0 && request.route !== path;
      if (isGreedy) continue; // the name of another route: /networks/PRUNE
      assert.equal(request.action, action, target);
      // Another name of the same kind is another object, and the same route.
      if (request.targets.length === 0) assert.equal(sent, canonical);
    }
  }
});

test("readRequest() forwards what it has read, for any path", () => {
  const segment = fc.constantFrom(
    ...["containers", "json", "a", "start", "exec", "v1.46", "images", "..", ".", "", "%2e", "%2F"],
    ...["libpod", "volumes", "create", "x%20y", "%252e", "networks", "archive", "checkpoints", "é"],
  );
  const method = fc.constantFrom("GET", "POST", "DELETE", "PUT", "HEAD");
  fc.assert(
    fc.property(method, fc.array(segment, { maxLength: 6 }), (method, segments) => {
      const request = read(method, `/${segments.join("/")}`);
      if (isRefusal(request)) return;
      const target = forwarded(request);
      assert.doesNotMatch(target, /\/\/|\/\.{1,2}(\/|$)|[\\;#]/);
      const again = accepted(method, target);
      assert.deepEqual(again, request);
    }),
    { numRuns: cases(3000) },
  );
});

test("readRequest() takes the longest suffix, and a target may contain slashes", () => {
  const rows: [string, string, string][] = [
    ["POST /containers/a/start/exec", "container.exec", "a/start"],
    ["GET /containers/x/start/json", "container.inspect", "x/start"],
    ["GET /containers/json/json", "container.inspect", "json"],
    ["GET /containers/a/attach/ws", "container.attach", "a"],
    ["DELETE /containers/a/checkpoints/b", "container.checkpoint", "a"],
    ["GET /volumes/events", "volume.inspect", "events"],
    ["GET /volumes/version", "volume.inspect", "version"],
    ["GET /networks/prune", "network.inspect", "prune"],
    ["GET /images/get/json", "image.inspect", "get"],
    ["DELETE /images/a/b/json", "image.remove", "a/b/json"],
    ["GET /images/docker.io%2Flibrary%2Falpine/json", "image.inspect", "docker.io/library/alpine"],
    ["DELETE /containers/a/checkpoints/b/checkpoints/c", "container.checkpoint", "a/checkpoints/b"],
    ["DELETE /containers/checkpoints/b", "container.remove", "checkpoints/b"],
    [`GET /volumes/${"v".repeat(1024)}`, "volume.inspect", "v".repeat(1024)],
  ];
  for (const [line, action, name] of rows) {
    const [method = "", target = ""] = line.split(" ");
    const request = accepted(method, target);
    assert.equal(request.action, action, line);
    assert.equal(request.targets[0]?.name, name);
  }
  assert.equal(statusOf("GET", `/volumes/${"v".repeat(1025)}`), 400);
});

test("readRequest() accepts an encoded slash in names of images and plugins only", () => {
  for (
    const target of [
      "/containers%2Fjson",
      "/containers/a%2Fjson",
      "/containers/a%2Fb/json",
      "/images/a%2Fjson",
      "/images%2Fa/json",
      "/v1.46%2Finfo",
    ]
  ) assert.ok([400, 404].includes(statusOf("GET", target)!), target);
  assert.equal(forwarded(accepted("GET", "/images/a%2Fb%3A1/json")), "/images/a/b:1/json");
});

test("writeRequest() replaces the targets by ids", () => {
  const id = "0123456789ab".repeat(5) + "0123";
  const start = accepted("POST", "/v1.46/containers/web/start");
  assert.equal(forwarded(start, [id]), `/v1.46/containers/${id}/start`);
  const checkpoint = accepted("DELETE", "/containers/web/checkpoints/one");
  assert.equal(forwarded(checkpoint, [id]), `/containers/${id}/checkpoints/one`);
  const commit = accepted("POST", "/commit?container=web&repo=a");
  assert.deepEqual(commit.targets, [{ kind: "container", name: "web" }]);
  assert.equal(forwarded(commit, [id]), `/commit?container=${id}&repo=a`);
  assert.equal(statusOf("POST", "/commit?repo=a"), 400);
});

test("readRequest() reads flags by Go's table, and writes them as 1 and 0", () => {
  const flagOf = (value: string) =>
    accepted("DELETE", `/containers/a?force=${value}`).query.get("force")?.[0];
  for (const value of ["", "0", "no", "false", "none", "NO", "False", "%20none+"]) {
    assert.equal(flagOf(value), "0", value);
  }
  for (const value of ["1", "true", "yes", "off", "null", "00", "n", "f", "undefined"]) {
    assert.equal(flagOf(value), "1", value);
  }
  // The classic builder removes containers unless rm is false, and an empty value is not false.
  assert.equal(accepted("POST", "/build?rm=").query.has("rm"), false);
  assert.equal(accepted("POST", "/build?rm=no").query.get("rm")?.[0], "0");
});

test("readRequest() rejects repeated parameters, and unknown ones where something is removed", () => {
  for (
    const target of [
      "/containers/a?force=1&force=0",
      "/containers/a?force=1&%66orce=0",
      "/containers/a?Force=1",
      "/containers/a?force=1;v=1",
      "/containers/a?force=%zz",
      "/containers/a?only=mine",
    ]
  ) assert.equal(statusOf("DELETE", target), 400, target);
  assert.equal(statusOf("POST", "/containers/prune?filter=x"), 400);
  for (const t of ["1e3", "1x", "x1", "--1", "1".repeat(19), "+"]) {
    assert.equal(statusOf("POST", `/containers/a/stop?t=${t}`), 400, t);
  }
  for (const t of ["", "-1", "1".repeat(18)]) {
    assert.equal(accepted("POST", `/containers/a/stop?t=${t}`).query.get("t")?.[0], t);
  }
  for (
    const target of [
      ...["/containers/create?name=a%00", "/build?t=a%00", "/build?buildargs=%7B", "/build?t=#"],
      ...["/build?t=a;b", "/containers/create?name=a&name=a"],
    ]
  ) assert.equal(statusOf("POST", target), 400, target);
  assert.equal(
    forwarded(accepted("POST", "/build?buildargs=&labels=%20%7B%7D")),
    "/build?buildargs=&labels=%7B%7D",
  );
  const empty = accepted("GET", "/containers/json?&all&&constructor=1&limit=");
  assert.equal(forwarded(empty), "/containers/json?all=0&limit=");
  const list = accepted("GET", "/containers/json?all=1&hash=7&hash=8");
  assert.equal(forwarded(list), "/containers/json?all=1");
  const build = accepted("POST", "/build?t=a&t=b");
  assert.equal(forwarded(build), "/build?t=a&t=b");
});

test("readRequest() reads filters of both forms as lists, and rejects ambiguous ones", () => {
  const filters = (text: string) => `/containers/json?filters=${encodeURIComponent(text)}`;
  for (const text of ['{"label":["a=b"]}', '{"label":{"a=b":true}}']) {
    const request = accepted("GET", filters(text));
    assert.equal(request.query.get("filters")?.[0], '{"label":["a=b"]}');
    const judged = readBody(request, new Uint8Array());
    if (isRefusal(judged)) assert.fail();
    const written = writeRequest(judged, { filters: { label: ["own"] } });
    if (isRefusal(written)) assert.fail();
    assert.equal(written.target, filters('{"label":["a=b","own"]}'));
  }
  for (
    const [text, written] of [["", ""], ["null", "{}"], ['{"a":{},"b":[]}', '{"a":[],"b":[]}']]
  ) {
    const request = accepted("GET", filters(text!));
    assert.equal(request.query.get("filters")?.[0], written);
  }
  for (
    const text of [
      '{"label":{"a":false}}',
      '{"label":{"a":true,"b":1}}',
      '{"label":["a",null]}',
      '{"label":null}',
      '{"label":["a"],"label":["b"]}',
      '["label"]',
      '{"label":"a"}',
      "{",
      '{"label":[1]}',
    ]
  ) assert.equal(statusOf("GET", filters(text)), 400, text);
});

test("readRequest() rejects forms, gRPC, other types, and coded bodies", () => {
  const target = "/v1.46/images/create?fromImage=alpine";
  for (
    const type of [
      "application/x-www-form-urlencoded",
      "Application/X-WWW-Form-Urlencoded; charset=utf-8",
      "multipart/form-data; boundary=x",
      "application/grpc",
      "application/json, application/x-www-form-urlencoded",
      " application/x-www-form-urlencoded",
      "\tmultipart/mixed",
    ]
  ) assert.equal(statusOf("POST", target, type), 415, type);
  for (
    const type of ["text/plain", "application/jsonp", "application/x-tar", "application/json;x=1"]
  ) {
    assert.equal(statusOf("POST", "/containers/create", type), 415, type);
  }
  for (const type of ["application/json", 'application/JSON; charset="utf-8"']) {
    assert.equal(accepted("POST", "/containers/create", type).isJson, true, type);
  }
  assert.equal(accepted("POST", "/containers/create").isJson, false);
  // A route without a body discards it, so its type has no effect.
  assert.equal(accepted("POST", "/containers/a/stop", "text/plain").isJson, false);
  assert.equal(
    accepted("PUT", "/containers/a/archive", "application/x-tar").maxBodyBytes,
    Infinity,
  );
  assert.equal(accepted("POST", "/images/create?fromSrc=-").maxBodyBytes, Infinity);
  assert.equal(accepted("POST", "/containers/create").maxBodyBytes, 1 << 20);
  const header = (name: string) => name === "content-encoding" ? "gzip" : undefined;
  const coded = readRequest({ method: "POST", target: "/build", header });
  assert.equal(isRefusal(coded) && coded.status, 415);
});

test("readRequest() tells the builds and imports apart by their parameters", () => {
  const rows: [string, string, string][] = [
    ["/build", "build", "tar"],
    ["/build?version=1", "build", "tar"],
    ["/build?version=2", "build.session", "tar"],
    ["/build?session=x", "build.session", "tar"],
    ["/build?outputs=%5B%5D", "build.session", "tar"],
    ["/images/create?fromImage=a", "image.pull", "none"],
    ["/images/create?fromSrc=-", "image.import", "raw"],
    ["/images/create?fromSrc=http://x/", "image.import", "none"],
    ["/session", "build.session", "none"],
    ["/grpc", "build.session", "none"],
  ];
  for (const [target, action, body] of rows) {
    const request = accepted("POST", target);
    assert.deepEqual([request.action, request.body], [action, body], target);
  }
  assert.equal(statusOf("POST", "/build?version=3"), 400);
  assert.equal(statusOf("POST", "/images/create?fromSrc=-&fromImage=a"), 400);
  const empty = accepted("POST", "/images/create");
  assert.ok(isRefusal(readBody(empty, new Uint8Array())));
});

test("readRequest() gives podman's own API one action for reads, and none for writes", () => {
  const ping = accepted("HEAD", "/libpod/_ping?a=1");
  assert.deepEqual(ping, {
    ...{ method: "HEAD", action: "podman.read", version: undefined, route: "/libpod/_ping" },
    ...{ targets: [], query: new Map([["a", ["1"]]]), body: "none", isJson: false },
    ...{ maxBodyBytes: 1 << 20, stream: "unbounded" },
  });
  for (
    const target of [
      "/v5.0.0/libpod/info",
      "/v5.0.0-dev/libpod/containers/json?all=true",
      "/libpod/_ping",
    ]
  ) {
    const request = accepted("GET", target);
    assert.equal(request.action, "podman.read");
    assert.equal(forwarded(request), target);
  }
  for (
    const line of [
      "POST /v5.0.0/libpod/containers/create",
      "POST /v5.0.0/libpod/play/kube",
      "DELETE /v5.0.0/libpod/containers/a",
      "GET /libpod/info",
      "HEAD /v5.0.0/libpod/info",
      "GET /v5.0.0/containers/json",
      "GET /v5.0.0/libpod/..%2Fcontainers/json",
      "GET /v5.0.0/libpod/{container}",
      "PUT /libpod/_ping",
      "POST /libpod/_ping",
      "GET /v5.0.0/libpod/info?a=1&a=2",
      "GET /v5.0.0/libpod/images/a%2Fb/json",
      "GET /v5/libpod/info",
      "GET /v05.0.0/libpod/info",
    ]
  ) {
    const [method = "", target = ""] = line.split(" ");
    assert.ok(isRefusal(readRequest({ method, target, header: none })), line);
  }
});

test("readRequest() finds which responses end by themselves", () => {
  const streamOf = (line: string) => {
    const [method = "", target = ""] = line.split(" ");
    return accepted(method, target).stream;
  };
  assert.equal(streamOf("GET /containers/a/logs"), "none");
  assert.equal(streamOf("GET /containers/a/logs?follow=1"), "unbounded");
  for (const kind of ["services", "tasks"]) {
    assert.equal(streamOf(`GET /${kind}/a/logs`), "none");
    assert.equal(streamOf(`GET /${kind}/a/logs?follow=1`), "unbounded");
  }
  assert.equal(streamOf("GET /containers/a/stats"), "unbounded");
  assert.equal(streamOf("GET /containers/a/stats?stream=false"), "none");
  assert.equal(streamOf("GET /events"), "unbounded");
  assert.equal(streamOf("POST /containers/a/attach"), "upgrade");
  assert.equal(streamOf("POST /exec/abc/start"), "upgrade");
});
