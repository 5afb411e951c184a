/** Each call fails: of connecting as the peer, of running commands, and of everything that reads a peer. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { lstatSync } from "node:fs";
import { connect as connectTo } from "node:net";
import process from "node:process";
import { connect } from "../../client/mod.ts";
import { UcredError } from "../../core/errors.ts";
import { identify, type Peer } from "../../mod.ts";
import { receive } from "../../servers/datagram.ts";
import { createServer } from "../../servers/net.ts";
import { isBound, listeningSockets } from "../../system/unix_sockets.ts";
import { failEachCall, hidesOwnership } from "../support/failing_calls.ts";
import { freshPath, startActor, startScript } from "../support/peers.ts";
import { privileged, startHelper } from "../support/privileged_helper.ts";
import { descriptorsClosed, listening, openDescriptors } from "../support/servers.ts";
import { needs, soak, testWith, until } from "../support/suite.ts";
import type { AsPeerReport } from "./as_peer.ts";

const here = [needs.linux, needs.cc, needs.root, needs.native];

testWith(
  here,
  "PeerConnector.connect() connects as the client, refuses or ends the process, if a call fails",
  async () => {
    const script = startScript([], "faults/as_peer.ts", freshPath());
    const { wrong, faults, connected, refused, ended } = await script.json<AsPeerReport>();
    assert.deepEqual(wrong, []);
    assert.ok(faults > soak(10, 400) && refused > 0 && ended > 0, JSON.stringify({ connected }));
  },
);

/** Fails each call of an operation. `check` receives its result if it succeeds in spite of the fault. */
async function failing<T>(
  operation: () => T | Promise<T>,
  check: (result: T) => void,
  step?: number,
): Promise<void> {
  check(await operation());
  let baseline = openDescriptors();
  let outcome: { readonly value: T } | { readonly error: unknown };
  const faults = await failEachCall({
    ...(step !== undefined && { step }),
    run: async () => {
      try {
        outcome = { value: await operation() };
      } catch (error) {
        outcome = { error };
      }
    },
    verify: async (fault) => {
      if ("value" in outcome) check(outcome.value);
      else assertClear(outcome.error);
      if (hidesOwnership(fault)) baseline += 2; // a pidfd and another file, or two epolls
      await descriptorsClosed(baseline);
      check(await operation());
    },
  });
  assert.ok(faults.length > 0);
}

function assertClear(error: unknown): void {
  assert.ok(error instanceof UcredError, String(error));
  assert.match(error.message, /^Cannot .+[^.]$/);
  assert.ok(error.hint !== "");
}

/** Facts that are unknown, and therefore `undefined`, or as they are without a fault. */
function assertKnownOrUnknown(found: object, right: object): void {
  for (const [name, value] of Object.entries(found)) {
    if (value === undefined) continue;
    assert.deepEqual(value, (right as { [name: string]: unknown })[name], name);
  }
}

testWith(here, "identify() reports a fact as unknown, or throws, if a call fails", async () => {
  const [, actor] = await startActor([], (socket) => socket);
  let socket: Parameters<typeof identify>[0];
  const path = freshPath();
  const server = createServer(
    { policy: "anyone" },
    (accepted) => void (socket = accepted.resume()),
  );
  await listening(server, { path });
  const client = connectTo(path);
  await until(() => socket !== undefined);
  const look = () => {
    const peer: Peer = identify(socket, { pin: true });
    try {
      const { uid, gid, pid, groups, label, user, groupNames } = peer;
      const { exe, startTime, unit, cgroup, container, namespaces } = peer.process;
      return {
        ...{ uid, gid, pid, groups, label, user, groupNames },
        ...{ exe, startTime, unit, cgroup, container, namespaces },
      };
    } finally {
      peer.close();
    }
  };
  const right = look();
  assert.deepEqual([right.uid, right.pid], [0, process.pid]);
  await failing(look, (found) => assertKnownOrUnknown(found, right));
  client.destroy();
  actor.hangUp();
  await server.close({ timeout: 0 });
});

testWith(
  here,
  "connect() of ucred/client verifies the server, or throws, if a call fails",
  async () => {
    const path = freshPath();
    const server = createServer({ policy: "anyone" }, (socket) => void socket.end("welcome"));
    await listening(server, { path });
    for (const [uid, isExpected] of [[0, true], [4001, false]] as const) {
      const talk = async () => {
        const socket = await connect({ path, expect: { uid } });
        let text = ""; // the server refuses the client if a call of its own fails
        socket.on("data", (bytes) => text += bytes);
        await once(socket, "close");
        return text;
      };
      if (isExpected) await failing(talk, (text) => assert.match(text, /^(welcome)?$/));
      else {
        const refused = () =>
          talk().then(() => "accepted", (error) => {
            assertClear(error);
            return "refused";
          });
        await failing(refused, (text) => assert.equal(text, "refused"));
      }
    }
    await server.close({ timeout: 0 });
  },
);

testWith(here, "receive() of ucred/datagram throws, if a call of starting fails", async () => {
  const path = freshPath();
  // On Deno and Bun it checks each descriptor number of the process.
  await failing(() => receive(path).close(), () => {}, 23);
});

testWith(
  here,
  "listeningSockets() and isBound() never report a socket as free, if a call fails",
  async () => {
    const path = freshPath();
    const server = createServer({}, () => {});
    await listening(server, { path });
    const file = lstatSync(path, { bigint: true });
    const list = () => listeningSockets().some(({ isBoundTo }) => isBoundTo?.(file));
    await failing(list, (isListed) => assert.equal(isListed, true));
    await failing(() => isBound(path), (bound) => assert.notEqual(bound, false));
    await server.close();
  },
);

for (const terminal of [undefined, { columns: 80, rows: 24 }]) {
  const what = terminal === undefined ? "pipes" : "a terminal";
  testWith(
    [...here, ...privileged],
    `createHelper() runs a command on ${what} as its user, or refuses, if a call fails`,
    async () => {
      const { run } = await startHelper();
      const id = () =>
        run("/usr/bin/id", ["-u"], { user: "daemon", ...(terminal && { terminal }) });
      await failing(id, ({ code, out }) => {
        if (code === 0) assert.equal(out.trim(), "1");
        else assert.equal(out, "");
      }, soak(97, 11)); // it queries the session of each process of the system
    },
  );
}
