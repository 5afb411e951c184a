/** The policies in examples/docker: their tests pass, they have no findings, and requests meet their rules. */

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { isRefusal, readBody, readRequest } from "../../interop/docker/mod.ts";
import { lint, type RulePolicy, runTests } from "../../policy/mod.ts";
import { policyFolder, readyPolicy } from "../support/docker_policies.ts";

const names = readdirSync(policyFolder).filter((name) =>
  name.endsWith(".yaml") && name !== "accounts.yaml"
);

test("there are policies for classic, monitoring, prometheus, traefik, dozzle, ci, agent, developers", () => {
  assert.deepEqual(names.toSorted(), [
    ...["agent.yaml", "ci.yaml", "classic.yaml", "developers.yaml", "dozzle.yaml"],
    ...["monitoring.yaml", "prometheus.yaml", "traefik.yaml"],
  ]);
});

for (const name of names) {
  test(`examples/docker/${name}: at least ten tests pass, each rule has one, and lint finds nothing`, () => {
    const policy = readyPolicy(name);
    const report = runTests(policy);
    assert.ok(report.passed, String(report));
    assert.ok(report.results.length >= 10);
    assert.deepEqual(report.uncovered, []);
    assert.deepEqual(lint(policy).filter(({ level }) => level !== "note"), []);
  });
}

/** The decision about a request, as the guard makes it without looking up objects. */
function isAllowed(policy: RulePolicy, peer: object, line: string, body?: unknown): boolean {
  const [method = "", target = ""] = line.split(" ");
  const header = (name: string) =>
    body !== undefined && name === "content-type" ? "application/json" : undefined;
  const request = readRequest({ method, target, header });
  if (isRefusal(request)) assert.fail(request.message);
  const bytes = new TextEncoder().encode(body === undefined ? "" : JSON.stringify(body));
  const judged = readBody(request, bytes);
  if (isRefusal(judged)) return false;
  return policy.decide(peer, { action: request.action, attributes: judged.attributes }).allowed;
}

test("developers.yaml allows contained containers, and folders of /srv/shared to the own user", () => {
  const policy = readyPolicy("developers.yaml");
  const developer = { uid: 1000, gid: 1000, groups: [1000, 971] };
  const creates = (HostConfig: object, User?: string) =>
    isAllowed(policy, developer, "POST /v1.46/containers/create", { Image: "a", User, HostConfig });
  const contained = { CapDrop: ["ALL"], SecurityOpt: ["no-new-privileges"] };
  assert.ok(creates({}));
  assert.ok(creates({ ...contained, Binds: ["/srv/shared:/data"] }, "1000:1000"));
  const mount = { Type: "bind", Source: "/srv/shared/a", Target: "/a" };
  assert.ok(creates({ ...contained, Mounts: [mount] }, "1000:1000"));
  assert.equal(creates({ ...contained, Binds: ["/srv/shared:/data"] }, "0"), false);
  assert.equal(creates({ ...contained, Binds: ["/srv/shared:/data"] }, "root"), false);
  assert.equal(creates({ ...contained, Binds: ["/srv/shared:/data"] }), false);
  assert.equal(creates({ ...contained, Binds: ["/srv/shared/../../etc:/e"] }, "1000"), false);
  assert.equal(creates({ ...contained, Binds: ["/srv/sharedx:/e"] }, "1000"), false);
  assert.equal(creates({ ...contained, Binds: ["/srv/shared:/d:rshared"] }, "1000"), false);
  assert.equal(creates({ Binds: ["/srv/shared:/data"] }, "1000:1000"), false);
  assert.equal(creates({ PidMode: "host" }), false);
});

test("agent.yaml allows builds and containers of the agent's images, and nothing around them", () => {
  const policy = readyPolicy("agent.yaml");
  const agent = { uid: 2000, gid: 2000, groups: [2000] };
  const decide = (line: string, body?: unknown) => isAllowed(policy, agent, line, body);
  assert.ok(decide("POST /v1.46/build?t=agent/app&networkmode=default"));
  assert.equal(decide("POST /v1.46/build?t=alpine"), false);
  assert.equal(decide("POST /v1.46/build?t=agent/app&networkmode=host"), false);
  assert.equal(decide("POST /v1.46/build?t=agent/app&version=2"), false);
  assert.equal(decide("POST /v1.46/build?t=agent/app&remote=http://x/"), false);
  assert.ok(decide("POST /images/create?fromImage=alpine&tag=3"));
  assert.equal(decide("POST /images/create?fromImage=evil.example/library/alpine"), false);
  assert.ok(decide("POST /containers/create", { Image: "agent/app" }));
  assert.equal(decide("POST /containers/create", { Image: "0123456789ab" }), false);
  const host = { Image: "agent/app", HostConfig: { Binds: ["/:/h"] } };
  assert.equal(decide("POST /containers/create", host), false);
  assert.equal(decide("POST /containers/web/stop"), false); // until the owner is known
});
