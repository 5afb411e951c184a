/** Docker mode: in each spelling of each route, the engine receives the canonical path or nothing. */

import assert from "node:assert/strict";
import { isRefusal, readRequest, writeRequest } from "../../interop/docker/mod.ts";
import { ROUTES } from "../../interop/docker/routes.ts";
import { exampleOf, QUERY, SPELLINGS } from "../interop/docker/support.ts";
import { ALICE, type DockerClient, DockerGuard, testDocker } from "../support/docker_users.ts";
import { needs, soak } from "../support/suite.ts";

/** The canonical form of a request line; `undefined` if it has none. */
function canonical(line: string): string | undefined {
  const [method = "", target = ""] = line.split(" ");
  const request = readRequest({ method, target, header: () => undefined });
  if (isRefusal(request)) return undefined;
  const findings = { attributes: {}, references: [], dangers: [], labelNames: [] };
  const written = writeRequest({ request, body: undefined, ...findings });
  return isRefusal(written) ? undefined : `${method} ${written.target}`;
}

testDocker("guard forwards the canonical path of each route, however it is written", async () => {
  const guard = await DockerGuard.start();
  const { received } = guard.engine;
  let client: DockerClient | undefined;
  const ask = async (line: string) => {
    client ??= await guard.as(0);
    const { status } = await client.ask(line);
    if (status === 400) { // it closes the connection
      client.end.end();
      client = undefined;
    }
    return status;
  };
  // Routes whose response does not end by itself are read as the others are.
  const routes = ROUTES.filter(({ stream }) => stream === "none");
  let forwarded = 0;
  for (const [at, { method, path }] of routes.entries()) {
    const query = QUERY[path] ?? "";
    const some = Array.from(
      { length: soak(2, SPELLINGS.length) },
      (_, index) => SPELLINGS[(at * 2 + index) % SPELLINGS.length]!,
    );
    for (const spell of [(path: string) => path, ...some]) {
      const line = `${method} ${spell(exampleOf(path))}${query}`;
      if (/[^\x21-\x7e ]|^\S+ (?!\/)/.test(line)) continue; // no request target of HTTP
      const before = received.length;
      await ask(line);
      const expected = canonical(line);
      // The guard asks for a name of its own, to answer as the engine does about what does not exist.
      const heard = received.slice(before).map(({ line }) => line)
        .filter((line) => !line.includes("/ucredabsent"));
      for (const each of heard) assert.equal(canonical(each), each, line);
      if (expected === undefined) assert.deepEqual(heard, [], line);
      else forwarded += heard.length;
    }
  }
  assert.ok(forwarded > routes.length / 2, `${forwarded}`);
}, needs.oneRuntime);

/** Bodies without which a request cannot be read. */
const BODIES: { readonly [action: string]: object } = {
  ...{ "container.create": { Image: "a" }, "network.create": { Name: "n" } },
  ...{ "network.connect": { Container: "c" }, "network.disconnect": { Container: "c" } },
};

testDocker("guard forwards no request to a user who may do something else", async () => {
  const guard = await DockerGuard.start(`
version: 1
about: docker
rules: [{ name: other, when: { uid: ${ALICE} }, actions: image.search, allow: true }]
`);
  const { engine } = guard;
  engine.add("the-container.1");
  engine.volumes.set("the-volume.1", { id: "the-volume.1", name: "the-volume.1", labels: {} });
  const alice = await guard.as(ALICE);
  for (const { method, path, action } of ROUTES) {
    if (action === "image.search" || action === "system.ping") continue;
    const line = `${method} ${exampleOf(path)}${QUERY[path] ?? ""}`;
    const { status, body } = await alice.ask(line, BODIES[action]);
    assert.ok(status === 403 || (status === 404 && path.includes("{")), `${line}: ${body}`);
  }
  const heard = engine.received.map(({ line }) => line);
  assert.deepEqual(heard.filter((line) => !/^GET .*ucredabsent/.test(line)), []);
}, needs.oneRuntime);
