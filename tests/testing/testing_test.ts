/** `ucred/testing`: fake peers, requests as a fake peer, and assertions about policies. */

import assert from "node:assert/strict";
import { AssertionError } from "node:assert";
import { readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { inspect } from "node:util";
import { Hono } from "hono";
import { definePolicy, type Policy, UcredError } from "../../mod.ts";
import { auditLog } from "../../servers/audit.ts";
import { type PeerEnv, requirePeer } from "../../servers/hono.ts";
import { decisionOf, peerOf, serve } from "../../servers/http.ts";
import { parsePolicy } from "../../policy/mod.ts";
import {
  asUser,
  expectPolicy,
  type FakeFacts,
  type FakePeer,
  fakePeer,
} from "../../testing/mod.ts";
import type { ServerEvent } from "../../servers/admission/events.ts";
import { temporaryFolder } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";

const code = (expected: string) => (error: unknown) =>
  error instanceof UcredError && error.code === expected;

const ALL: FakeFacts = {
  ...{ uid: 1000, gid: 100, groups: [27, 100, 27, 5], pid: 42, label: "unconfined", user: "ann" },
  groupNames: { 27: "sudo" },
  process: { exe: "/usr/bin/curl", unit: null, exeSha256: "00", cmdline: ["curl"] },
};

test("fakePeer() returns the given facts with the source test", () => {
  const peer = fakePeer(ALL);
  const { pid, uid, gid, groups, label, user, groupNames, ambiguous, pinned } = peer;
  assert.deepEqual({ pid, uid, gid, label, user }, {
    ...{ pid: 42, uid: 1000, gid: 100, label: "unconfined", user: "ann" },
  });
  assert.deepEqual([groups, groupNames], [[5, 27, 100], [null, "sudo", null]]);
  assert.deepEqual([ambiguous, pinned, peer.alive], [[], "connect", true]);
  for (const [name, fact] of Object.entries(peer.facts)) {
    assert.ok(fact.state === "known" && fact.source === "test", name);
  }
  assert.deepEqual(peer.process.facts.exe, {
    ...{ state: "known", value: "/usr/bin/curl", source: "test" },
  });
  assert.deepEqual(peer.process.facts.unit, { state: "none", source: "test" });
  assert.equal(peer.process.unit, undefined);
});

test("fakePeer() makes every other fact unknown, with the reason", () => {
  const peer = fakePeer({ uid: 0 });
  for (const name of ["pid", "gid", "groups", "label", "user", "groupNames"] as const) {
    const fact = peer.facts[name];
    assert.ok(fact.state === "unknown", name);
    assert.match(fact.reason.message, /: the fake peer does not set it$/);
    if (name !== "gid") assert.equal(peer[name], undefined, name);
  }
  assert.deepEqual([peer.gid, peer.ambiguous], [2 ** 32 - 1, ["gid"]]);
  const facts = Object.entries(peer.process.facts);
  assert.ok(facts.length > 15);
  for (const [name, { state }] of facts) assert.equal(state, "unknown", name);
  assert.throws(() => peer.live(), code("ERR_UCRED_UNSUPPORTED"));
  assert.throws(() => peer.drift(), code("ERR_UCRED_UNSUPPORTED"));
  assert.throws(() => fakePeer({ uid: 0, gid: 0 }).drift(), code("ERR_UCRED_UNSUPPORTED"));
});

test("fakePeer() with null makes a fact none", () => {
  const { facts } = fakePeer({ uid: 0, pid: null, label: null, user: null });
  for (const name of ["pid", "label", "user"] as const) {
    assert.deepEqual(facts[name], { state: "none", source: "test" });
  }
});

test("fakePeer() copies the facts, and peers are frozen", () => {
  const groups = [27];
  const process = { exe: "/bin/a" };
  const peer = fakePeer({ uid: 1, gid: 1, groups, process });
  groups.push(0);
  process.exe = "/bin/b";
  assert.deepEqual([peer.groups, peer.process.exe], [[1, 27], "/bin/a"]);
  assert.throws(() => Object.assign(peer, { uid: 0 }), TypeError);
});

for (
  const [facts, error] of [
    [{ uid: -1 }, RangeError],
    [{ uid: 2 ** 32 - 1 }, RangeError],
    [{ uid: "0" }, RangeError],
    [{}, RangeError],
    [undefined, TypeError],
    [{ uid: 0, gid: 1.5 }, RangeError],
    [{ uid: 0, groups: [NaN] }, RangeError],
    [{ uid: 0, groups: 27 }, TypeError],
    [{ uid: 0, pid: 0 }, RangeError],
    [{ uid: 0, group: 27 }, TypeError],
    [{ uid: 0, process: { ex: "/bin/a" } }, TypeError],
  ] as const
) {
  test(`fakePeer(${JSON.stringify(facts)}) throws a ${error.name}`, () => {
    assert.throws(() => fakePeer(facts as unknown as FakeFacts), error);
  });
}

test("FakePeer.end() ends the process of the peer", () => {
  const peer = fakePeer(ALL);
  const { signal } = peer;
  assert.equal(signal!.aborted, false);
  peer.end();
  assert.ok(signal!.aborted && code("ERR_UCRED_PEER_GONE")(signal!.reason));
  assert.ok(fakeAfterEnd().signal!.aborted);
  assert.deepEqual([peer.alive, peer.live(), peer.uid], [false, { alive: false }, 1000]);
  assert.deepEqual(peer.drift(), [{ fact: "alive", then: true, now: false }]);
  const { exe } = peer.process.facts;
  assert.ok(exe.state === "unknown" && exe.reason.code === "ERR_UCRED_PEER_GONE");
});

function fakeAfterEnd(): FakePeer {
  const peer = fakePeer(ALL);
  peer.end();
  return peer;
}

test("FakePeer.change() changes live() and drift(), and not the facts as of connect", () => {
  const peer = fakePeer(ALL);
  assert.deepEqual(peer.drift(), []);
  peer.change({ uid: 0 });
  peer.change({ gid: 0 });
  assert.deepEqual([peer.uid, peer.gid, peer.groups], [1000, 100, [5, 27, 100]]);
  assert.deepEqual(peer.drift(), [
    { fact: "uid", then: 1000, now: 0 },
    { fact: "gid", then: 100, now: 0 },
    { fact: "groups", then: [5, 27, 100], now: [0, 5, 27] },
  ]);
  const live = peer.live();
  assert.ok(live.alive && live.euid === 0 && live.fsgid === 0 && live.source === "test");
  peer.change({ uid: 1000, gid: 100, groups: [5, 27] });
  assert.deepEqual(peer.drift(), []);
  assert.throws(() => peer.change({ uid: -1 }), RangeError);
  assert.throws(() => peer.change({ pid: 1 } as object), TypeError);
});

test("FakePeer.close() makes the process unreadable, and ends the watch", () => {
  const peer = fakePeer(ALL);
  const { signal } = peer;
  peer.close();
  peer.close();
  peer.end();
  assert.deepEqual([peer.alive, signal!.aborted, peer.user], [undefined, false, "ann"]);
  assert.throws(() => peer.live(), code("ERR_UCRED_NO_FD"));
  assert.throws(() => peer.drift(), code("ERR_UCRED_NO_FD"));
  assert.equal(peer.process.facts.exe.state, "unknown");
  const unwatched = fakePeer(ALL);
  unwatched[Symbol.dispose]();
  assert.equal(unwatched.signal, undefined);
});

test("FakePeer.toJSON() has the source test, and omits the arguments unless they were read", () => {
  const json = JSON.parse(JSON.stringify(fakePeer(ALL)));
  assert.deepEqual([json.source, json.uid, json.process.exe], ["test", 1000, "/usr/bin/curl"]);
  assert.ok(!("cmdline" in json.process) && !("exeSha256" in json.process));
  assert.match(json.process.unknown.comm, /does not set it/);
  const { process } = fakePeer(ALL);
  assert.deepEqual(process.cmdline, ["curl"]);
  assert.deepEqual(process.toJSON().cmdline, ["curl"]);
  assert.match(inspect(fakePeer(ALL)), /^FakePeer \{/);
});

test("two fake peers have different keys", () => {
  assert.notEqual(fakePeer({ uid: 0 }).key, fakePeer({ uid: 0 }).key);
});

const accounts = { uid: () => undefined, gid: (name: string) => name === "sudo" ? 27 : undefined };
const text = `
version: 1
rules:
  - { name: no deletes, actions: "DELETE /**", deny: nothing is deleted here }
  - { name: root, when: { uid: 0 }, allow: full }
  - { name: backup, when: { exe: /usr/bin/restic }, actions: "GET /data/**", allow: read }
  - { name: sudo, when: { group: sudo }, actions: "GET /**", allow: read }
`;
const policy = parsePolicy(text, { accounts });

const greeting = {
  policy,
  fetch: (request: Request, { peer, decision }: { peer: unknown; decision: unknown }) => {
    assert.deepEqual([peerOf(request), decisionOf(request)], [peer, decision]);
    return new Response(`${request.method} ${request.url} ${peerOf(request).uid}`);
  },
};

const root = fakePeer({ uid: 0, gid: 0, groups: [] });
const backup = fakePeer({ ...ALL, groups: [], process: { exe: "/usr/bin/restic" } });

test("asUser() sends requests that the policy allows to the handler", async () => {
  const response = await asUser(greeting, backup).fetch("/data/a?b=c");
  assert.equal(await response.text(), "GET http://localhost/data/a?b=c 1000");
  const request = new Request("http://example.org/x", { method: "POST", body: "text" });
  const echo = (request: Request) => request.text().then((text) => new Response(text));
  const answer = await asUser({ policy, fetch: echo }, root).fetch(request);
  assert.equal(await answer.text(), "text");
});

test("asUser() answers a denied request as the server does, and calls no handler", async () => {
  const fetch = () => assert.fail("the handler must not run");
  const deleted = await asUser({ policy, fetch }, root).fetch("/data/a", { method: "DELETE" });
  assert.deepEqual([deleted.status, deleted.headers.get("content-type")], [
    ...[403, "application/problem+json"],
  ]);
  assert.equal((await deleted.json()).detail, "nothing is deleted here");
  const strangers: [FakeFacts, string][] = [
    [{ uid: 33, gid: 33, groups: [], process: { exe: "/bin/sh" } }, "/data/a"],
    [{ uid: 33, gid: 33, groups: [] }, "/data/a"], // exe is unknown
    [{ uid: 33 }, "/data/a"], // every fact is unknown
    [{ uid: 33, gid: 33, groups: [], process: { exe: null } }, "/data/a"],
    [{ ...ALL, groups: [], process: { exe: "/usr/bin/restic" } }, "/users"],
    [{ ...ALL, groups: [], process: { exe: "/usr/bin/restic" } }, "/data/../users"],
    [{ ...ALL, groups: [], process: { exe: "/usr/bin/restic" } }, "/data/%2e%2e/users"],
  ];
  for (const [facts, path] of strangers) {
    const { status } = await asUser({ policy, fetch }, fakePeer(facts)).fetch(path);
    assert.equal(status, 403, JSON.stringify([facts, path]));
  }
  const allowed = asUser({ policy, fetch }, root);
  for (const path of ["/a%2fb", "/a#b", "/%zz", "/a/..;/b"]) {
    assert.equal((await allowed.fetch(path)).status, 400, path);
  }
  assert.equal((await allowed.fetch(`/${"a".repeat(9000)}`)).status, 414);
  assert.equal((await allowed.fetch("/", { headers: { host: "a/b?" } })).status, 400);
});

test("asUser() refuses again on the next request after a refused connection", async () => {
  const stranger = fakePeer({ uid: 33, gid: 33, groups: [], process: { exe: "/bin/sh" } });
  const never = definePolicy({
    version: 1,
    rules: [{ name: "root", when: { uid: 0 }, allow: true }],
  });
  const connection = asUser({ policy: never, fetch: () => assert.fail() }, stranger);
  assert.deepEqual([(await connection.fetch("/")).status, (await connection.fetch("/")).status], [
    ...[403, 403],
  ]);
  assert.equal(stranger.process.exe, "/bin/sh"); // the server closes only its own peer
});

test("asUser() without a policy allows only root and our own user, as serve() does", async () => {
  const app = { fetch: () => new Response("") };
  const own = process.getuid!();
  const other = own === 1234 ? 1235 : 1234;
  for (const [uid, status] of [[0, 200], [own, 200], [other, 403]] as const) {
    assert.equal((await asUser(app, fakePeer({ uid })).fetch("/")).status, status);
    assert.equal((await asUser(app.fetch, fakePeer({ uid })).fetch("/")).status, status);
  }
});

test("asUser() pins the peer only if the server would", async () => {
  const states = async (options: { policy: Policy | "anyone"; pin?: boolean }) => {
    let pinned: unknown;
    const fetch = (request: Request) => {
      pinned = [peerOf(request).pinned, peerOf(request).process.exe];
      return new Response("");
    };
    await asUser({ ...options, fetch }, fakePeer({ ...ALL, uid: 0 })).fetch("/");
    return pinned;
  };
  assert.deepEqual(await states({ policy: "anyone" }), [undefined, undefined]);
  assert.deepEqual(await states({ policy: "anyone", pin: true }), ["connect", "/usr/bin/curl"]);
  assert.deepEqual(await states({ policy }), ["connect", "/usr/bin/curl"]); // it tests exe
  assert.deepEqual(await states({ policy, pin: false }), [undefined, undefined]);
});

test("asUser() with revalidate denies a peer that has changed or ended, or may have", async () => {
  const app = { policy: "anyone", revalidate: true, fetch: () => new Response("") } as const;
  const peer = fakePeer(ALL);
  const connection = asUser(app, peer);
  assert.equal((await connection.fetch("/")).status, 200);
  peer.change({ uid: 0 });
  assert.equal((await connection.fetch("/")).status, 403);
  assert.equal((await asUser(app, fakeAfterEnd()).fetch("/")).status, 403);
  assert.equal((await asUser(app, fakePeer({ uid: 0 })).fetch("/")).status, 403); // gid is unknown

  const ending = fakePeer(ALL);
  const signals: AbortSignal[] = [];
  const fetch = ({ signal }: Request) => {
    signals.push(signal);
    return new Response("");
  };
  await asUser({ ...app, fetch }, ending).fetch("/");
  assert.equal(signals[0]!.aborted, false);
  ending.end();
  assert.equal(signals[0]!.aborted, true);
});

test("asUser() passes the attributes of the request to a policy about http", async () => {
  const about = parsePolicy(`
version: 1
about: http
rules:
  - { name: one host, where: { host: example.org, query: { dry: { every: "yes", empty: false } } }, allow: true }
`);
  const connection = asUser({ policy: about, fetch: () => new Response("") }, root);
  const status = async (url: string, host?: string) =>
    (await connection.fetch(new Request(url, host === undefined ? {} : { headers: { host } })))
      .status;
  assert.equal(await status("http://example.org/?dry=yes"), 200);
  assert.equal(await status("http://example.org/?dry=no"), 403);
  assert.equal(await status("http://localhost/?dry=yes"), 403);
  assert.equal(
    (await connection.fetch("/?dry=yes", { headers: { host: "example.org" } })).status,
    200,
  );
});

test("asUser() answers 500 if the handler or the policy fails", async () => {
  const failing: Policy = {
    needsPin: false,
    admits: () => true,
    decide: (_, options) => {
      if (options?.action !== undefined) throw new Error("no database");
      return { allowed: true, rule: "r", reason: "", grants: [], unknown: [], message: undefined };
    },
  };
  const events: ServerEvent[] = [];
  const audit = recorder(events);
  const fetch = (): Response => {
    throw new Error("broken");
  };
  assert.equal((await asUser({ policy: "anyone", fetch, audit }, root).fetch("/")).status, 500);
  const app = { policy: failing, fetch: () => new Response(""), audit };
  assert.equal((await asUser(app, root).fetch("/")).status, 500);
  const failed = events.filter(({ type }) => type === "failed");
  assert.equal(failed.length, 2);
  const undecided: Policy = { ...failing, admits: () => assert.fail("no database") };
  await assert.rejects(
    asUser({ ...app, policy: undecided }, root).fetch("/"),
    (error) => code("ERR_UCRED_REFUSED")(error),
  );
});

function recorder(events: ServerEvent[]) {
  return {
    dropped: 0,
    error: undefined,
    write: (event: ServerEvent) => void events.push(event),
    reopen: () => {},
    close: () => Promise.resolve(),
  };
}

test("asUser() serves an application of Hono with requirePeer()", async () => {
  const hono = new Hono<PeerEnv>();
  hono.use("/admin/*", requirePeer(policy));
  hono.get("/admin/users", (context) => context.text(`uid ${context.get("peer").uid}`));
  const app = { policy: "anyone", fetch: hono.fetch } as const;
  const allowed = await asUser(app, fakePeer(ALL)).fetch("/admin/users");
  assert.equal(await allowed.text(), "uid 1000");
  const denied = await asUser(app, fakePeer({ uid: 33, gid: 33, groups: [] })).fetch(
    "/admin/users",
  );
  assert.equal(denied.status, 403);
  assert.equal((await asUser(hono, root).fetch("/nothing")).status, 404);
});

test("asUser() writes audit records that show fake peers", async () => {
  const file = join(temporaryFolder(), "audit.log");
  const audit = auditLog({ file });
  await asUser({ ...greeting, audit }, root).fetch("/");
  await asUser({ ...greeting, audit }, fakePeer({ uid: 33, gid: 33, groups: [] })).fetch("/");
  await audit.close();
  const records = readFileSync(file, "utf8").trim().split("\n").map((line) => JSON.parse(line));
  const found = records.map(({ event, allowed }) => [event, allowed]);
  assert.deepEqual(found, [["accepted", undefined], ["decided", true], ["refused", undefined]]);
  for (const { peer, server } of records) {
    assert.deepEqual([peer.source, server], ["test", "ucred/testing"]);
  }
});

test("asUser() rejects other applications, options, peers and paths", async () => {
  const app = { fetch: () => new Response("") };
  assert.throws(() => asUser({ ...app, polcy: policy } as never, root), /no option "polcy"/);
  assert.throws(() => asUser({ path: "app.sock" } as never, root), TypeError);
  assert.throws(() => asUser(undefined as never, root), TypeError);
  assert.throws(() => asUser({ ...app, policy: {} as Policy }, root), TypeError);
  assert.throws(() => asUser(app, new Proxy(root, {})), /requires a peer of fakePeer/);
  assert.throws(() => asUser(app, { ...root }), /requires a peer of fakePeer\(\)/);
  assert.throws(() => asUser(app, { uid: 0 } as never), /requires a peer of fakePeer\(\)/);
  await assert.rejects(asUser(app, root).fetch("status"), TypeError);
  await assert.rejects(asUser(app, root).fetch("http://localhost/"), TypeError);
});

test("asUser() uses the policy of an application that is an instance of a class", async () => {
  class App {
    readonly policy = policy;
    readonly #text = "secret";
    fetch(): Response {
      return new Response(this.#text);
    }
  }
  assert.equal(await (await asUser(new App(), root).fetch("/")).text(), "secret");
  assert.equal((await asUser(new App(), fakePeer({ uid: 33 })).fetch("/")).status, 403);
});

test("expectPolicy() returns if the decision is the expected one, otherwise throws the explanation", () => {
  expectPolicy(policy).allows(root, "POST /x").denies(root, "DELETE /x").denies(backup);
  const thrown = (run: () => unknown) => {
    try {
      run();
    } catch (error) {
      assert.ok(error instanceof AssertionError);
      return error.message;
    }
    return assert.fail("it must throw");
  };
  const denied = thrown(() =>
    expectPolicy(policy).allows({ uid: 33, gid: 33, groups: [] }, "GET /data/a")
  );
  assert.match(
    denied,
    /^The policy denies "GET \/data\/a" of uid 33\nno deletes +deny +other action/,
  );
  assert.match(denied, /exe.*: unknown/);
  assert.match(denied, /\nDenied: /);
  const allowed = thrown(() => expectPolicy(policy).denies(root, "GET /"));
  assert.match(allowed, /^The policy allows "GET \/" of uid 0\n[^]*\nAllowed: /);
  const about = parsePolicy(
    "version: 1\nabout: http\nrules: [{ name: a, where: { host: a }, allow: true }]",
  );
  expectPolicy(about).allows(root, "GET /", { host: "a" }).denies(root, "GET /", { host: "b" })
    .denies(root, "GET /");
  const plain: Policy = {
    needsPin: false,
    admits: () => true,
    decide: (peer) => policy.decide(peer),
  };
  assert.match(thrown(() => expectPolicy(plain).denies(root)), /the connection of uid 0\n/);
  assert.throws(() => expectPolicy({} as Policy), TypeError);
});

testWith([needs.linux], "asUser() answers each request as serve() does", async () => {
  const [uid, gid] = [process.getuid!(), process.getgid!()];
  const rules = parsePolicy(`
version: 1
about: http
rules:
  - { name: no secrets, actions: "GET /secrets/**", deny: secret }
  - { name: dry, where: { query: { dry: { every: "yes", empty: false } } }, allow: true }
  - { name: by host, where: { host: example.org }, allow: true }
  - { name: own, when: { uid: ${uid} }, actions: ["GET /**", "OPTIONS /**"], allow: true }
`);
  const app = {
    policy: rules,
    fetch: ({ method, url }: Request) => new Response(`${method} ${new URL(url).pathname}`),
  };
  const path = join(temporaryFolder(), "app.sock");
  const server = await serve({ path, ...app });
  try {
    const fake = asUser(app, fakePeer({ uid, gid }));
    const targets = [
      ...["/", "/a?b=c", "/a/../secrets/x", "/secrets/%61", "/secrets%2fa", "//secrets/a"],
      ...["/%2e/secrets/a", "/a;b", "/..;/a", "/a\\b", "/%zz", "/%2573", "/a/%2e%2e/%2e%2e/b"],
      `/${"a".repeat(9000)}`,
    ];
    const requests: readonly (readonly [method: string, target: string, host?: string])[] = [
      ...targets.map((target) => ["GET", target] as const),
      ...[["POST", "/a"], ["POST", "/a?dry=yes"], ["POST", "/a?dry=yes&dry=no"]] as const,
      ...[["POST", "/a", "example.org"], ["POST", "/a", "example.org:80"]] as const,
      ...[["POST", "/a", "x/a?"], ["GET", "/a", "a"], ["DELETE", "/secrets/a"]] as const,
    ];
    for (const [method, target, host = "localhost"] of requests) {
      const real = await requestRaw(path, method, target, host);
      const answer = await fake.fetch(target, { method, headers: { host } });
      assert.deepEqual([answer.status, await answer.text()], real, `${method} ${target} ${host}`);
    }
  } finally {
    await server.close();
  }
});

/** Sends a request with this target, and returns the status and the body. */
async function requestRaw(
  socketPath: string,
  method: string,
  target: string,
  host: string,
): Promise<[number, string]> {
  const socket = createConnection(socketPath);
  socket.end(`${method} ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  let text = "";
  for await (const bytes of socket.setEncoding("latin1")) text += bytes;
  const [head, body = ""] = text.split(/\r\n\r\n([^]*)/);
  const isChunked = /^transfer-encoding: *chunked/im.test(head!);
  return [Number(head!.split(" ")[1]), isChunked ? body.split("\r\n")[1]! : body];
}

test("a policy denies a fake peer whose fact is not set, has changed, or cannot be read", () => {
  const rules = parsePolicy(`
version: 1
rules:
  - { name: gid, when: { gid: 99 }, deny: "no" }
  - { name: unchanged, when: { unchanged: true }, actions: unchanged, allow: true }
  - { name: label, when: { label: trusted }, actions: label, allow: true }
  - { name: unit, when: { unit: a.service }, actions: unit, allow: true }
`);
  const facts = { uid: 5, gid: 5, groups: [], label: "trusted", process: { unit: "a.service" } };
  const actions = ["unchanged", "label", "unit"];
  for (const action of actions) expectPolicy(rules).allows(fakePeer(facts), action);
  const { gid: _, ...withoutGid } = facts;
  for (const action of actions) expectPolicy(rules).denies(fakePeer(withoutGid), action);
  for (const action of actions) expectPolicy(rules).denies(fakePeer({ uid: 5, gid: 5 }), action);
  expectPolicy(rules).denies(fakePeer({ ...facts, label: null }), "label");
  const [changed, ended, closed] = [fakePeer(facts), fakePeer(facts), fakePeer(facts)];
  changed.change({ groups: [7] });
  ended.end();
  closed.close();
  expectPolicy(rules).denies(changed, "unchanged");
  for (const peer of [ended, closed]) {
    expectPolicy(rules).denies(peer, "unchanged").denies(peer, "unit");
  }
});
