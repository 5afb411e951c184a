/** A server without privileges: prints one line of JSON about each peer, pinned. */

import { createServer } from "node:net";
import { chmodSync } from "node:fs";
import process from "node:process";
import { identify } from "../../mod.ts";

const path = process.argv[2]!;
const server = createServer((socket) => {
  const peer = identify(socket, { pin: true });
  const facts = { ...peer.process.facts, key: peer.facts.key };
  const states = Object.entries(facts).map(([name, fact]) => [
    name,
    fact.state === "unknown" ? fact.reason.code : fact.state,
  ]);
  const { alive, pinned } = peer;
  const [live, drift] = [peer.live(), peer.drift()];
  console.log(
    JSON.stringify({
      uid: peer.uid,
      pinned,
      alive,
      live,
      drift,
      states: Object.fromEntries(states),
    }),
  );
  socket.on("error", () => {}).resume();
});
server.listen(path, () => {
  chmodSync(path, 0o777);
  console.log('"ready"');
});
process.stdin.resume().on("end", () => process.exit());
