/**
 * A server that lets in root and one more user. Runs unbuilt on Deno, Bun and Node alike.
 *
 * Usage: server.ts SOCKET UID. Prints one line of JSON when it listens and one per connection, and
 * ends when its standard input does.
 */

import { chmodSync } from "node:fs";
import { createServer } from "node:net";
import process from "node:process";
import { identify, type Peer, UcredError } from "../../mod.ts"; // "ucred", in a program of yours

const [path = "", allowedUid = ""] = process.argv.slice(2);

/** Why this peer may come in, or undefined. */
function reasonToAllow({ uid, ambiguous }: Peer): string | undefined {
  if (uid === 0) return "root";
  // In some containers one number stands for many users: it proves nothing.
  if (uid === Number(allowedUid) && !ambiguous.includes("uid")) return "allowed user";
  return undefined;
}

const server = createServer((socket) => {
  socket.on("error", () => {}); // a peer may leave before it has read its answer
  try {
    const peer = identify(socket);
    const reason = reasonToAllow(peer);
    socket.end(reason === undefined ? "no\n" : "welcome\n");
    print({ peer, allowed: reason !== undefined, reason });
  } catch (error) {
    socket.destroy(); // whoever cannot be identified does not come in
    print({ error: error instanceof UcredError ? `${error.message}. ${error.hint}` : `${error}` });
  }
});

server.listen(path, () => {
  // By default only the server's own user may connect. Here everyone may knock, so that the table
  // has somebody to refuse; it is the check above that decides.
  chmodSync(path, 0o666);
  const { deno, bun, node } = process.versions as { [name: string]: string | undefined };
  print({ version: deno ?? bun ?? node });
});

process.stdin.resume().on("end", () => process.exit());

function print(line: unknown): void {
  console.log(JSON.stringify(line));
}
