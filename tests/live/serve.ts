/** A server in its own namespaces: prints "ready", then one line of JSON per connection. */

import { createServer } from "node:net";
import { chmodSync } from "node:fs";
import process from "node:process";
import { identify } from "../../mod.ts";

const path = process.argv[2]!;
const server = createServer((socket) => {
  const peer = identify(socket, { pin: process.argv[3] === "pin" });
  const states = Object.entries(peer.facts).map(([name, fact]) => [name, fact.state]);
  const live = peer.pinned && peer.live();
  console.log(JSON.stringify({ ...peer, states: Object.fromEntries(states), live }));
  socket.on("error", () => {}).resume();
});
server.listen(path, () => {
  chmodSync(path, 0o777);
  console.log('"ready"');
});
process.stdin.resume().on("end", () => process.exit());
