/**
 * A server with a low limit on descriptors, in a separate process. Prints one line of JSON: the
 * results of identify() at the limit, and afterwards.
 */

import { closeSync, openSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import process from "node:process";
import { identify, peerCredentials, UcredError } from "../../mod.ts";

const path = process.argv[2]!;
const accepted: Socket[] = [];
const server = createServer((socket) => void accepted.push(socket.on("error", () => {})));
await new Promise<void>((resolve) => server.listen(path, resolve));

/** Connects once more, and returns the server's end. */
async function accept(): Promise<Socket> {
  const before = accepted.length;
  const client = connect(path).on("error", () => {});
  while (accepted.length === before) await new Promise((resolve) => setTimeout(resolve, 1));
  const socket = accepted.at(-1)!;
  socket.once("close", () => client.destroy());
  return socket;
}

const code = (run: () => unknown) => {
  try {
    run();
    return "ok";
  } catch (error) {
    return error instanceof UcredError ? `${error.code} ${error.errno}` : String(error);
  }
};

const [socket, watched] = [await accept(), await accept()];
const peer = identify(watched, { pin: true });
peer.process.toJSON(); // the first call loads modules

const filled: number[] = [];
try {
  for (;;) filled.push(openSync("/dev/null", "r"));
} catch {
  // the limit
}
const { uid } = peerCredentials(socket);
const starved = identify(socket, { pin: true });
const { pinned } = starved.facts;
const during = {
  uid,
  same: starved.uid === uid,
  pinned: pinned.state === "unknown"
    ? `${pinned.reason.code} ${pinned.reason.errno}`
    : pinned.state,
  alive: peer.alive,
  live: code(() => peer.live()),
  drift: code(() => peer.drift()),
  signal: code(() => peer.signal),
  exe: peer.process.facts.exe.state,
  comm: peer.process.facts.comm.state,
};
for (const fd of filled) closeSync(fd);
const next = identify(await accept(), { pin: true });
const after = { pinned: next.pinned, signal: code(() => peer.signal), comm: peer.process.comm };

// Connections that are watched and closed: the pin of each stays open for a while, for its signal.
let flood = 0;
for (let i = 0; i < 400; i++) {
  const socket = await accept();
  const { pinned, signal } = identify(socket, { pin: true });
  if (pinned === "connect" && signal?.aborted === false) flood++;
  await new Promise((resolve) => socket.once("close", resolve).destroy());
}
console.log(JSON.stringify({ during, after, flood }));
process.exit();
