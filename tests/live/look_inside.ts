/** A server in its own pid namespace: prints "ready", then one line of JSON about each peer. */

import { chmodSync } from "node:fs";
import { connect, createServer } from "node:net";
import process from "node:process";
import { fdOf } from "../../identity/fd.ts";
import { identify, UcredError } from "../../mod.ts";

/** Returns the result of a call, or the code of its error. */
function outcome<T>(call: () => T): T | string {
  try {
    return call();
  } catch (error) {
    if (error instanceof UcredError) return error.code;
    throw error;
  }
}

const path = process.argv[2]!;
const server = createServer((socket) => {
  const peer = identify(fdOf(socket), { pin: true });
  const { pid, pinned, alive, key } = peer;
  const { exe } = peer.process.facts;
  console.log(JSON.stringify({
    ...{ ours: process.pid, pid, pinned, alive, hasKey: key !== undefined },
    exe: exe.state === "known" ? exe.value : exe.state === "unknown" ? exe.reason.code : null,
    live: outcome(() => peer.live().alive),
    drift: outcome(() => peer.drift()),
  }));
  socket.on("error", () => {}).resume();
});
server.listen(path, () => {
  chmodSync(path, 0o777);
  console.log('"ready"');
});
// "connect" makes the server its own client.
process.stdin.setEncoding("utf8").on("data", () => void connect(path).on("error", () => {}));
process.stdin.on("end", () => process.exit());
