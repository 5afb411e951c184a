/**
 * A privileged helper: the members of a group may run the commands that a policy lists, as root.
 *
 *     node examples/privileged-helper/server.ts /run/helper.sock policy.yaml
 *     ucred run --socket /run/helper.sock -- /usr/bin/id -u
 */

import process from "node:process";
import { type CommandRecord, createHelper, sudoVocabulary } from "../../interop/sudoers/mod.ts"; // "ucred/sudoers"
import { loadPolicy } from "../../policy/mod.ts"; // "ucred/policy"
import { createServer } from "../../servers/net.ts"; // "ucred/net"

const [path, file] = process.argv.slice(2);
if (path === undefined || file === undefined) throw new Error("server.ts SOCKET POLICY");
const policy = loadPolicy(file, { vocabularies: [sudoVocabulary] });
// Arguments can contain escape sequences for terminals: the log has printable ASCII only
const escape = (text: string) => `\\u${text.charCodeAt(0).toString(16).padStart(4, "0")}`;
const line = (record: CommandRecord) => JSON.stringify(record).replace(/[\x7f-\uffff]/g, escape);
const helper = createHelper({
  policy,
  timeLimitSeconds: 600,
  report: (record) => console.log(line(record)),
});
const server = createServer({ policy, decideAt: "action", pin: true }, helper);
server.listen({ path, mode: 0o666 }, () => console.log("listening"));
process.once("SIGTERM", () => void server.close({ timeout: 0 }).then(() => process.exit(0)));
