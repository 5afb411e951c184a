/**
 * A server of ucred/deno. The argument is its path. On "fill" it uses up its descriptors, on "free" it
 * closes them again, and on "stats" it prints its counters.
 */

import { closeSync, openSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { withPeers } from "../../servers/deno.ts";

const say = (answer: unknown) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const fillers: number[] = [];
process.on("SIGUSR2", () => {}); // installing a handler needs descriptors, without which Deno 2.9.5 panics

const peers = withPeers(Deno.listen({ transport: "unix", path: process.argv[2]! }));
createInterface({ input: process.stdin }).on("line", (order) => {
  // Deferred: Deno needs a descriptor for each read of its input.
  if (order === "fill") setTimeout(fill, 50);
  if (order === "free") say({ freed: fillers.splice(0).map(closeSync).length > 0 });
  if (order === "stats") say(peers.stats());
}).on("close", () => process.exit());
say({ listening: true });

function fill(): void {
  try {
    for (;;) fillers.push(openSync("/dev/null", "r"));
  } catch {
    say({ filled: true });
  }
}

for await (const { conn, peer } of peers) {
  await conn.write(new TextEncoder().encode(`welcome, ${peer.uid}`)).catch(() => {});
  conn.close();
}
