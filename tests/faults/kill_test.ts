/** SIGKILL at the system calls of a start, of a rotation, and of files that must survive a crash. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Ledger } from "../../guard/docker/ledger.ts";
import { loadPolicy } from "../../policy/mod.ts";
import { compileCache } from "../support/compile.ts";
import { tool } from "../support/guard.ts";
import { Child } from "../support/peers.ts";
import { removeSafeFolders, safeFolder, safeFolders } from "../support/safe_folder.ts";
import { visitAs } from "../support/servers.ts";
import { endAfterEach, needs, runtimeCommand, soak, testWith } from "../support/suite.ts";

endAfterEach(removeSafeFolders);

const script = fileURLToPath(new URL("killed.ts", import.meta.url));

/** The words that start strace(1) in front of a command. */
function strace(log: string, ...inject: readonly string[]): string[] {
  const options = inject.flatMap((fault) => ["-e", `inject=${fault}`]);
  return ["strace", "-f", "-y", "-qq", "-o", log, "-e", "trace=%file,%desc,%network", ...options];
}

/** Runs a process until it ends. Returns the lines that it has printed. */
async function linesOf(prefix: readonly string[], what: string, folder: string): Promise<string[]> {
  const [command, ...args] = [...prefix, ...runtimeCommand(), script, what, folder];
  const child = spawn(command!, args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NODE_COMPILE_CACHE: compileCache },
  });
  let [out, errors] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => out += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => errors += text);
  await once(child, "close");
  const lines = out.split("\n").slice(0, -1);
  if (prefix.length === 0) assert.equal(lines.at(-1), "done", errors);
  return lines;
}

/** A system call of a process: its name, and its place among the calls of this name in its thread. */
interface Place {
  readonly call: string;
  readonly at: number;
}

/** Returns the system calls that concern a folder, in order and without duplicates. */
function placesIn(log: string, folder: string): Place[] {
  const counts = new Map<string, number>();
  const places = new Map<string, Place>();
  for (const line of log.split("\n")) {
    const [, thread, call] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    if (call === undefined) continue;
    const key = `${thread} ${call}`;
    const at = (counts.get(key) ?? 0) + 1;
    counts.set(key, at);
    if (line.includes(folder)) places.set(`${call} ${at}`, { call, at });
  }
  return [...places.values()];
}

/** Selects some elements of a list, evenly. */
function some<T>(list: readonly T[], most: number): readonly T[] {
  const step = Math.max(1, list.length / most);
  return list.filter((_, index) => Math.floor(index % step) === 0).slice(0, most);
}

interface Task {
  readonly name: string;
  readonly what: string;
  /** Prepares the folder. */
  readonly prepare: (folder: string) => void;
  /** Checks the folder after a process was killed that has printed some lines. */
  readonly verify: (folder: string, printed: readonly string[]) => unknown;
}

/** Returns the numbers of all lines of the audit logs in a folder. */
function auditedIn(folder: string): ReadonlySet<string> {
  const files = readdirSync(folder).filter((name) => name.startsWith("audit.log"));
  const lines = files.flatMap((name) => readFileSync(join(folder, name), "utf8").split("\n"));
  return new Set(
    lines.filter((line) => line !== "").map((line) => String(JSON.parse(line).connection)),
  );
}

const isNumber = (line: string) => /^\d+$/.test(line);

const TASKS: readonly Task[] = [
  {
    name: "a server starts again in the same place",
    what: "server",
    prepare: () => {},
    async verify(folder) {
      writeFileSync(join(folder, "stay"), "");
      const [command, ...args] = runtimeCommand();
      const next = new Child(command, [...args, script, "server", folder]);
      assert.equal(await next.line(), "listening");
      assert.equal(await visitAs(0, join(folder, "s")), "welcome\n");
      assert.equal(await visitAs(4001, join(folder, "s")), "");
      next.process.kill();
      assert.equal(await next.line(), "done");
      rmSync(join(folder, "stay"));
    },
  },
  {
    name: "auditLog() loses no line that was written, and its next lines are complete",
    what: "audit",
    prepare: () => {},
    async verify(folder, printed) {
      const next = await linesOf([], "audit", folder);
      const audited = auditedIn(folder);
      for (const line of [...printed, ...next].filter(isNumber)) {
        assert.ok(audited.has(line), `line ${line} is lost`);
      }
    },
  },
  {
    name: "the state of the Docker guard has each owner that was added",
    what: "ledger",
    prepare: () => {},
    verify(folder, printed) {
      const ledger = new Ledger(join(folder, "state.jsonl"), () => {});
      for (const line of printed.filter(isNumber)) {
        const id = Number(line).toString(16).padStart(64, "0");
        assert.equal(ledger.containers.get(id), 1000, `entry ${line} is lost`);
      }
      ledger.close();
    },
  },
  {
    name: "a policy that was replaced can be loaded",
    what: "policy",
    prepare: (folder) =>
      writeFileSync(join(folder, "policy.yaml"), "version: 1\nrules: []\n", { mode: 0o600 }),
    verify(folder, printed) {
      const uid = Number(printed.filter(isNumber).at(-1) ?? 0);
      const policy = loadPolicy(join(folder, "policy.yaml"));
      const allowed = [uid, uid + 1].filter((each) => policy.decide({ uid: each }).allowed);
      assert.ok(uid === 0 || allowed.length === 1);
    },
  },
];

for (const { name, what, prepare, verify } of TASKS) {
  testWith(
    [
      needs.linux,
      needs.cc,
      needs.root,
      needs.native,
      needs.oneRuntime,
      tool("strace"),
      safeFolders,
    ],
    `${name}, after SIGKILL at a system call`,
    async () => {
      const folder = safeFolder();
      const log = join(safeFolder(), "log");
      prepare(folder);
      const complete = await linesOf(strace(log), what, folder);
      assert.equal(complete.at(-1), "done");
      const places = placesIn(readFileSync(log, "utf8"), folder);
      assert.ok(places.length > 10, `${places.length} system calls`);
      let killed = 0;
      for (const { call, at } of some(places, soak(4, 25))) {
        const printed = await linesOf(strace(log, `${call}:signal=KILL:when=${at}`), what, folder);
        if (printed.at(-1) !== "done") killed++; // otherwise another thread has made the call
        try {
          await verify(folder, printed);
        } catch (error) {
          (error as Error).message += ` [killed at ${call}, call ${at}]`;
          throw error;
        }
      }
      assert.ok(killed > 0);
    },
  );
}
