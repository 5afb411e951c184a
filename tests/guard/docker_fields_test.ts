/** Docker mode: under developers.yaml, each field that reaches the host is denied, and harmless ones pass. */

import assert from "node:assert/strict";
import { DANGEROUS, DANGEROUS_REQUESTS, HARMLESS } from "../interop/docker/fields.ts";
import { readyPolicy } from "../support/docker_policies.ts";
import { type DockerClient, DockerGuard, testDocker } from "../support/docker_users.ts";
import { needs, sample } from "../support/suite.ts";

/** The gid of developers, and a user with this group. */
const DEVELOPER = 971;

async function start(): Promise<{ guard: DockerGuard; developer: DockerClient }> {
  const guard = await DockerGuard.start(undefined, undefined, {
    policy: readyPolicy("developers.yaml"),
  });
  return { guard, developer: await guard.as(DEVELOPER) };
}

const CREATE = "POST /v1.46/containers/create";

testDocker(
  "guard denies each field of a new container that reaches the host, and names it",
  async () => {
    const { guard, developer } = await start();
    for (const [HostConfig, danger] of sample(DANGEROUS)) {
      const status = await developer.status(CREATE, { Image: "alpine", HostConfig });
      const [why, fields = ""] = status.split(" not allowed: ");
      assert.equal(why, "403 ucred: container.create is", JSON.stringify(HostConfig));
      assert.ok(fields.split(", ").includes(danger), `${danger}: ${status}`);
    }
    assert.deepEqual(guard.engine.received, []);
  },
  needs.oneRuntime,
);

testDocker(
  "guard denies each field of other requests that reaches the host, and names it",
  async () => {
    const { guard, developer } = await start();
    await developer.create("mine");
    const before = guard.engine.received.length;
    for (const [line, body, danger] of DANGEROUS_REQUESTS) {
      const status = await developer.status(line, body);
      assert.match(status, /^403 ucred: [a-z.]+ is not allowed: /, line);
      assert.ok(status.includes(danger), `${line}: ${status}`);
    }
    const heard = guard.engine.received.slice(before).map(({ line }) => line);
    assert.deepEqual(heard.filter((line) => line !== "GET /containers/mine/json"), []);
  },
  needs.oneRuntime,
);

testDocker("guard forwards each harmless field of a new container", async () => {
  const { developer } = await start();
  // Folders of the host need the folder itself.
  const fields = HARMLESS.filter((fields) => !/"\/srv/.test(JSON.stringify(fields)));
  for (const each of sample(fields)) {
    const status = await developer.status(CREATE, { Image: "alpine", ...each });
    assert.equal(status, "201", JSON.stringify(each));
  }
}, needs.oneRuntime);

testDocker("guard denies a field that it does not know, unless it is empty", async () => {
  const { guard, developer } = await start();
  for (const value of [true, 1, "x", [0], { a: null }, "0", -1]) {
    const status = await developer.status(CREATE, {
      Image: "alpine",
      HostConfig: { Gadget: value },
    });
    assert.equal(status, '400 ucred: The field "HostConfig.Gadget" is not known');
  }
  assert.deepEqual(guard.engine.received, []);
  for (const value of [null, false, 0, "", [], {}]) {
    const body = { Image: "alpine", HostConfig: { Gadget: value, Memory: 1 } };
    assert.equal(await developer.status(CREATE, body), "201");
  }
  for (const { body } of guard.engine.received) {
    assert.deepEqual(JSON.parse(body).HostConfig, { Memory: 1 });
  }
}, needs.oneRuntime);
