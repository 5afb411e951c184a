/** Writes to an audit log under RLIMIT_FSIZE, and prints the result. */

import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Peer } from "../../mod.ts";
import { auditLog } from "../../servers/admission/audit.ts";

const audit = auditLog({ file: process.argv[2] });
const peer = { pid: 1, uid: 1000, gid: 1000, ambiguous: [] } as unknown as Peer;
const decision = {
  allowed: true,
  rule: "a",
  grants: [],
  reason: "since",
  unknown: [],
  message: undefined,
};
for (let connection = 0; connection < 100; connection++) {
  const action = `GET /${"x".repeat(connection * 7)}`;
  audit.write({ type: "decided", server: "/s", connection, peer, action, decision });
  await sleep(1);
}
const { message } = audit.error!;
await audit.close();
console.log(JSON.stringify({ dropped: audit.dropped, error: message }));
