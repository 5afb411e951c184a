/**
 * A process that a test kills: `killed.ts WHAT FOLDER`. It prints a line for each thing that it has done, and
 * at last "done". It can be started again in the same folder.
 */

import { once } from "node:events";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Ledger } from "../../guard/docker/ledger.ts";
import type { Peer } from "../../mod.ts";
import { watchPolicy } from "../../policy/mod.ts";
import { auditLog } from "../../servers/audit.ts";
import { createServer } from "../../servers/net.ts";
import { until } from "../support/suite.ts";

const [what = "", folder = ""] = process.argv.slice(2);
const at = (name: string) => join(folder, name);
const print = (line: unknown) => console.log(String(line));

/** Numbers that no earlier process has used in this folder. */
const first = Date.now() * 1000;

/** The numbers of rotations and entries. */
const [ROTATIONS, LINES] = [3, 4];

const idOf = (number: number) => number.toString(16).padStart(64, "0");

const tasks: { readonly [what: string]: () => unknown } = {
  /** Starts and closes a server. */
  async server() {
    const audit = auditLog({ file: at("audit.log") });
    const server = createServer({ audit }, (socket) => void socket.end("welcome\n"));
    server.listen({ path: at("s"), mode: 0o666 });
    await once(server, "listening");
    print("listening");
    if (existsSync(at("stay"))) await once(process, "SIGTERM");
    await server.close({ timeout: 0 });
    await audit.close();
  },
  /** Prints the number of each line of an audit log once the file has it, and rotates the log. */
  async audit() {
    const audit = auditLog({ file: at("audit.log") });
    const peer = { pid: 1, uid: 1000, gid: 1000, ambiguous: [] } as unknown as Peer;
    const decision = {
      ...{ allowed: true, rule: "a", grants: [], reason: "since", unknown: [] },
      message: undefined,
    };
    for (let rotation = 0; rotation < ROTATIONS; rotation++) {
      for (let line = 0; line < LINES; line++) {
        const connection = first + rotation * LINES + line;
        audit.write({ type: "decided", server: "/s", connection, peer, action: "a", decision });
        await until(() => readFileSync(at("audit.log"), "utf8").includes(`${connection},`));
        print(connection);
      }
      renameSync(at("audit.log"), at(`audit.log.${first}.${rotation}`)); // as logrotate(8) does
      audit.reopen();
      await until(() => existsSync(at("audit.log")));
    }
    await audit.close();
  },
  /** Prints each entry of a `--state` file once it was added, and rewrites the file. */
  ledger() {
    for (let rewrite = 0; rewrite < ROTATIONS; rewrite++) {
      const ledger = new Ledger(at("state.jsonl"), print);
      for (let entry = 0; entry < LINES; entry++) {
        const number = first + rewrite * LINES + entry;
        ledger.addContainer(idOf(number), 1000);
        print(number);
      }
      ledger.close();
    }
  },
  /** Replaces a policy, and reloads it. */
  policy() {
    using policy = watchPolicy(at("policy.yaml"));
    for (let uid = 1; uid <= LINES; uid++) {
      const text = `version: 1\nrules: [{ name: one, when: { uid: ${uid} }, allow: true }]\n`;
      writeFileSync(at("policy.new"), text, { mode: 0o600 });
      renameSync(at("policy.new"), at("policy.yaml"));
      if (!policy.reload() || !policy.decide({ uid }).allowed) throw new Error("not reloaded");
      print(uid);
    }
  },
};

await tasks[what]!();
print("done");
process.exit();
