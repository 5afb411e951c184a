/**
 * A server of ucred/deno that uses up its descriptors when it is told to "fill", and gives them back
 * upon "free". Its argument is the path; it says what it has done, and on "stats" what it has seen.
 */

import { closeSync, openSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { withPeers } from "../../servers/deno.ts";

const say = (answer: unknown) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const fillers: number[] = [];
process.on("SIGUSR2", () => {}); // takes Deno 2.9.5 some descriptors, for want of which it panics

const peers = withPeers(Deno.listen({ transport: "unix", path: process.argv[2]! }));
createInterface({ input: process.stdin }).on("line", (order) => {
  // Later: Deno takes a descriptor for each read of its input, and is to have the next one by then.
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
