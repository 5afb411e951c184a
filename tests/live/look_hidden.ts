/** A server with a /proc that may hide its peer: prints one line of JSON about it, pinned. */

import { createServer } from "node:net";
import { chmodSync } from "node:fs";
import process from "node:process";
import { procVisibility } from "../../system/hidepid.ts";
import { identify, UcredError } from "../../mod.ts";

const path = process.argv[2]!;
const server = createServer((socket) => {
  const peer = identify(socket, { pin: true });
  const facts = { ...peer.process.facts, key: peer.facts.key };
  const reasons = Object.entries(facts).map(([name, fact]) => [
    name,
    fact.state === "unknown"
      ? `${fact.reason.code} ${fact.reason.message}. ${fact.reason.hint}`
      : "",
  ]);
  let drift = "none";
  try {
    peer.drift();
  } catch (error) {
    if (!(error instanceof UcredError)) throw error;
    drift = `${error.code} ${error.hint}`;
  }
  const { uid, alive, pinned } = peer;
  const { mode, isHiddenFromUs } = procVisibility()!;
  const reading = { uid, alive, pinned, drift, hiding: isHiddenFromUs ? mode : undefined };
  console.log(JSON.stringify({ ...reading, reasons: Object.fromEntries(reasons) }));
  socket.on("error", () => {}).resume();
});
server.listen(path, () => {
  chmodSync(path, 0o777);
  console.log('"ready"');
});
process.stdin.resume().on("end", () => process.exit());
