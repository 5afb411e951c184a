/**
 * A server that accepts root and one other user. Deno, Bun and Node run it without a build.
 *
 * Usage: server.ts SOCKET UID. It prints one line of JSON when it listens, and one per connection. It
 * ends when its stdin ends.
 */

import { chmodSync } from "node:fs";
import { createServer } from "node:net";
import process from "node:process";
import { identify, type Peer, UcredError } from "../../mod.ts"; // "ucred" in your own program

const [path = "", allowedUid = ""] = process.argv.slice(2);

/** Returns why this peer is accepted; `undefined` if it is rejected. */
function reasonToAllow({ uid, ambiguous }: Peer): string | undefined {
  if (uid === 0) return "root";
  // An ambiguous uid stands for every user that our user namespace does not map.
  if (uid === Number(allowedUid) && !ambiguous.includes("uid")) return "allowed user";
  return undefined;
}

const server = createServer((socket) => {
  socket.on("error", () => {}); // a peer may hang up before it has read the response
  try {
    const peer = identify(socket);
    const reason = reasonToAllow(peer);
    socket.end(reason === undefined ? "no\n" : "welcome\n");
    print({ peer, allowed: reason !== undefined, reason });
  } catch (error) {
    socket.destroy(); // a peer that cannot be identified is rejected
    print({ error: error instanceof UcredError ? `${error.message}. ${error.hint}` : `${error}` });
  }
});

server.listen(path, () => {
  // By default only the server's own user can connect. With this mode every user can, so that the
  // check above also has users to reject.
  chmodSync(path, 0o666);
  const { deno, bun, node } = process.versions as { [name: string]: string | undefined };
  print({ version: deno ?? bun ?? node });
});

process.stdin.resume().on("end", () => process.exit());

function print(line: unknown): void {
  console.log(JSON.stringify(line));
}
