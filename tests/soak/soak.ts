/** `npm run soak`: crowds of clients against servers and modes of the guard, while everything around them changes. */

import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { compileProgram } from "../support/compile.ts";
import { residentMemory } from "../support/leak.ts";
import { removeSafeFolders, safeFolder } from "../support/safe_folder.ts";
import { accepts, type Kind, KINDS, type Upstream } from "./kinds.ts";

const RUNTIMES: { readonly [runtime: string]: readonly string[] } = {
  node: ["node", "--disable-warning=ExperimentalWarning"],
  deno: ["deno", "run", "--no-prompt", "-A"],
  bun: ["bun"],
};

const listed = ({ name, omits }: Kind) =>
  omits === undefined ? name : `${name} (not on ${omits.join(" or ")})`;

const HELP = `Usage: npm run soak -- [options]

Starts the servers below, most of them guards, on Node, Deno and Bun, one after the other. Crowds of
clients of several users connect, behave well and badly, and die, while the policy is replaced by good
and bad ones, descriptors run out, the disk of the audit log is full, signals arrive, the upstream
restarts, and the server restarts. Needs root, a C compiler and prlimit; the mode dbus needs dbus-daemon.

  --minutes N   run for about N minutes, divided among the servers (default: 10)
  --only NAME   run only this runtime or server; repeatable
  --seed N      the seed of the clients and events (default: at random)
  --help        print this help

Runtimes: ${Object.keys(RUNTIMES).join(", ")}
Servers: ${KINDS.map(listed).join(", ")}

The exit code is 1 if something was wrong.
`;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    only: { type: "string", multiple: true, default: [] },
    seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 31)) },
    help: { type: "boolean", default: false },
  },
});
const minutes = Number(values.minutes);
const names = [...Object.keys(RUNTIMES), ...KINDS.map(({ name }) => name)];
const unknown = values.only.find((name) => !names.includes(name));
if (values.help || !(minutes > 0) || unknown !== undefined) {
  if (unknown !== undefined) console.error(`There is no runtime or server "${unknown}"`);
  console.log(HELP);
  process.exit(values.help ? 0 : 2);
}
if (process.getuid?.() !== 0) {
  console.error("npm run soak needs root: its clients have several users");
  process.exit(2);
}

/** A generator of numbers below `limit`, with a seed: xorshift32. */
function numbersFrom(seed: number): (limit: number) => number {
  let state = seed | 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}

const random = numbersFrom(Number(values.seed));
const crowdProgram = compileProgram(new URL("crowd.c", import.meta.url));
const cli = fileURLToPath(new URL("../../cli/main.ts", import.meta.url));
const serverScript = fileURLToPath(new URL("server.ts", import.meta.url));

/** Users that a rule allows, that no rule matches, that a rule denies, and that one of two policies allows. */
const [ALLOWED, UNKNOWN, DENIED, CHANGING] = [4001, 4002, 4003, 4004];

/** Growth of a server after its warm-up that is not a leak, in bytes: heaps of the runtimes vary. */
const MAX_GROWTH_BYTES = 96 << 20;

/** Clients of one crowd, and those that are connected at the same time. */
const [CROWD, CONCURRENT] = [200, 40];

interface Counts {
  readonly wrong: number;
  readonly stuck: number;
  readonly starved: number;
  readonly behaviours: {
    readonly [behaviour: string]: { served: number; refused: number; failed: number };
  };
}

/** Totals by name, over all servers. */
const totals = new Map<string, number>();
const add = (name: string, count: number) => totals.set(name, (totals.get(name) ?? 0) + count);
const problems: string[] = [];

/** One server or guard on one runtime. */
class Subject {
  readonly label: string;
  readonly #runtime: readonly string[];
  readonly #kind: Kind;
  readonly #folder = safeFolder();
  readonly #path = join(this.#folder, "s.sock");
  readonly #policy = join(this.#folder, "policy.yaml");
  /** A file system with few blocks, for the audit log. */
  readonly #disk = join(this.#folder, "disk");
  #upstream: Upstream | undefined;
  #child!: ChildProcess;
  #log = "";
  #descriptors = 0;
  #memory = 0;
  /** Whether the policy allows the changing user. */
  #isWide = false;

  constructor(runtime: string, kind: Kind) {
    this.label = `${runtime} ${kind.name}`;
    this.#runtime = RUNTIMES[runtime]!;
    this.#kind = kind;
  }

  async run(until: number): Promise<void> {
    mkdirSync(this.#disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", this.#disk]);
    this.#writePolicy();
    this.#upstream = await this.#kind.upstream?.(this.#folder);
    let rounds = 0;
    try {
      await this.#start();
      await this.#crowd("warm-up", { most: 2 * CROWD });
      await this.#crowd("warm-up", { isCalm: true });
      await this.#settle(true);
      const events = Object.entries(this.#events());
      while (rounds < 2 || performance.now() < until) {
        const [name, event] = events[random(events.length)]!;
        add(`event: ${name}`, 1);
        await event();
        await this.#crowd(`after ${name}`, { isCalm: true });
        await this.#settle(false);
        if (this.#hasEnded()) throw new Error(`the server has ended after ${name}`);
        rounds++;
      }
    } catch (error) {
      this.#complain((error as Error).message);
    } finally {
      this.#child?.kill("SIGKILL");
      await this.#upstream?.close();
      execFileSync("umount", ["-l", this.#disk]);
    }
    console.log(
      `${this.label}: ${rounds} events, ${this.#descriptors} descriptors, ${
        this.#memory >> 20
      } MiB`,
    );
  }

  #complain(what: string): void {
    problems.push(`${this.label}: ${what}`);
    console.error(`${this.label}: ${what}\n${this.#log.slice(-1500)}`);
  }

  #hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** What changes around the server. Crowds connect meanwhile. */
  #events(): { readonly [name: string]: () => Promise<void> } {
    return {
      "good policy": async () => {
        const crowd = this.#crowd("a new policy", {});
        this.#isWide = !this.#isWide;
        this.#writePolicy();
        await this.#reload("the new policy is in force");
        await crowd;
      },
      "bad policy": async () => {
        const crowd = this.#crowd("a bad policy", {});
        this.#replacePolicy("version: 1\nrules: [{ name: all, alow: true }]\n");
        await this.#reload("cannot be used");
        await crowd;
        await this.#crowd("a bad policy", { isCalm: true }); // the previous policy stays in force
        this.#writePolicy();
        await this.#reload("the new policy is in force");
      },
      "few descriptors": async () => {
        // Deno 2.9.5 accepts nothing more on a socket of node:net once accept(2) has failed.
        if (this.#runtime[0] === "deno" && this.#kind.name !== "http") return;
        const pid = `--pid=${this.#child.pid}`;
        const limit = readdirSync(`/proc/${this.#child.pid}/fd`).length + random(12);
        execFileSync("prlimit", [pid, `--nofile=${limit}:`]);
        await this.#crowd("few descriptors", { isFaulty: true });
        execFileSync("prlimit", [pid, "--nofile=4096:"]);
      },
      "full disk": async () => {
        writeFileSync(join(this.#disk, "filler"), Buffer.alloc(1 << 16).subarray(0, this.#room()));
        await this.#crowd("a full disk", {});
        rmSync(join(this.#disk, "filler"));
        rmSync(join(this.#disk, "audit.log"), { force: true });
        this.#child.kill("SIGHUP");
      },
      "upstream restart": async () => {
        if (this.#upstream === undefined) return;
        const crowd = this.#crowd("an upstream restart", { isFaulty: true });
        await this.#upstream.close();
        this.#upstream = await this.#kind.upstream!(this.#folder);
        await crowd;
      },
      "SIGHUP": async () => {
        const crowd = this.#crowd("SIGHUP", {});
        for (let times = 0; times < 20; times++) {
          this.#child.kill("SIGHUP");
          await sleep(random(20));
        }
        await crowd;
      },
      "restart": async () => {
        const crowd = this.#crowd("a restart", { isFaulty: true });
        await this.#stop("SIGTERM");
        await this.#start();
        await crowd;
        await this.#settle(true);
      },
      "SIGKILL": async () => {
        const crowd = this.#crowd("SIGKILL", { isFaulty: true });
        await this.#stop("SIGKILL");
        await this.#start();
        await crowd;
        await this.#settle(true);
      },
      "nothing": () => this.#crowd("clients that misbehave", {}),
    };
  }

  #room(): number {
    const free = execFileSync("stat", ["--file-system", "--format=%a %S", this.#disk], {
      encoding: "utf8",
    });
    const [blocks = 0, size = 0] = free.split(" ").map(Number);
    return Math.min(blocks * size, 1 << 16);
  }

  #writePolicy(): void {
    const { about = "", rule = "", allow = "true" } = this.#kind;
    const users = [ALLOWED, ...(this.#isWide ? [CHANGING] : [])];
    this.#replacePolicy(`version: 1
${about}
rules:
  - { name: denied, when: { uid: ${DENIED} }, deny: true }
  - { name: program, when: { exe: /nonexistent }, deny: true }
  - { name: allowed, when: { uid: [${users}], unchanged: true }, ${rule} allow: ${allow} }
`);
  }

  #replacePolicy(text: string): void {
    writeFileSync(`${this.#policy}.new`, text, { mode: 0o600 });
    renameSync(`${this.#policy}.new`, this.#policy);
  }

  async #reload(message: string): Promise<void> {
    const from = this.#log.length;
    this.#child.kill("SIGHUP");
    await this.#waitFor(() => this.#log.includes(message, from), `no "${message}"`);
  }

  async #waitFor(condition: () => unknown, problem: string): Promise<void> {
    const deadline = performance.now() + 60_000;
    while (!await condition()) {
      if (performance.now() > deadline) throw new Error(`after a minute: ${problem}`);
      await sleep(10);
    }
  }

  async #start(): Promise<void> {
    const audit = join(this.#disk, "audit.log");
    const { guard, name } = this.#kind;
    const args = guard === undefined ? [serverScript, name, this.#path, this.#policy, audit] : [
      ...[cli, "guard", ...guard, "--upstream", this.#upstream!.path, "--policy", this.#policy],
      ...["--listen", this.#path, "--socket-mode", "0666", "--audit", audit],
    ];
    const [command, ...flags] = this.#runtime;
    rmSync(audit, { force: true });
    this.#log = "";
    this.#child = spawn(command!, [...flags, ...args], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, NO_COLOR: "1" },
    });
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#log = (this.#log + text).slice(-1_000_000);
    });
    await this.#waitFor(
      () => this.#hasEnded() || this.#log.includes("listening at "),
      "the server does not listen",
    );
    if (this.#hasEnded() || !await accepts(this.#path)) throw new Error("the server cannot start");
  }

  async #stop(signal: NodeJS.Signals): Promise<void> {
    const ended = once(this.#child, "close");
    this.#child.kill(signal);
    await ended;
  }

  /**
   * Waits until the server has as few descriptors as after its warm-up, and checks its memory.
   *
   * @param isFirst Whether the server has just started.
   */
  async #settle(isFirst: boolean): Promise<void> {
    const folder = `/proc/${this.#child.pid}/fd`;
    const descriptors = () => readdirSync(folder).length;
    if (isFirst) {
      await sleep(500);
      this.#descriptors = descriptors();
      this.#memory = residentMemory(this.#child.pid!);
      return;
    }
    // A runtime may open a few descriptors of its own later.
    const most = this.#descriptors + 8;
    await this.#waitFor(
      () => descriptors() <= most,
      `${descriptors()} descriptors instead of ${this.#descriptors}`,
    );
    const growth = residentMemory(this.#child.pid!) - this.#memory;
    if (growth > MAX_GROWTH_BYTES) throw new Error(`the memory has grown by ${growth >> 20} MiB`);
  }

  /**
   * Lets a crowd connect.
   *
   * @param isCalm All clients behave well, and each allowed one must be served.
   * @param isFaulty Clients need not be served, since the server or its upstream may be absent.
   */
  async #crowd(
    when: string,
    how: { readonly isCalm?: boolean; readonly isFaulty?: boolean; readonly most?: number },
  ): Promise<void> {
    const { isCalm = false, isFaulty = false, most = isCalm ? CROWD / 4 : CROWD } = how;
    const changing = isCalm ? (this.#isWide ? "yes" : "no") : "any";
    const { stdout } = await promisify(execFile)(crowdProgram, [
      this.#path,
      Buffer.from(this.#kind.request, "latin1").toString("hex"),
      this.#kind.served,
      this.#kind.denied ?? "",
      `${random(2 ** 31)}`,
      `${most}`,
      `${isCalm ? CONCURRENT / 4 : CONCURRENT}`,
      isCalm ? "1" : "0",
      ...[`${ALLOWED}:yes`, `${UNKNOWN}:no`, `${DENIED}:no`, `${CHANGING}:${changing}`],
    ]);
    const counts = JSON.parse(stdout) as Counts;
    for (const [behaviour, { served, refused, failed }] of Object.entries(counts.behaviours)) {
      add(`${behaviour}: served`, served);
      add(`${behaviour}: refused`, refused);
      add(`${behaviour}: not connected`, failed);
    }
    if (counts.wrong > 0) this.#complain(`${counts.wrong} wrong answers, ${when}`);
    const mayWait = isFaulty && this.#kind.staysOpen === true;
    if (counts.stuck > 0 && !mayWait) this.#complain(`${counts.stuck} stuck clients, ${when}`);
    if (counts.starved > 0 && !isFaulty) {
      this.#complain(`${counts.starved} starved clients, ${when}`);
    }
  }
}

const isSelected = (list: readonly string[], name: string) =>
  values.only.every((only) => !list.includes(only)) || values.only.includes(name);
const kindNames = KINDS.map(({ name }) => name);
const subjects = Object.keys(RUNTIMES).filter((name) => isSelected(Object.keys(RUNTIMES), name))
  .flatMap((runtime) =>
    KINDS.filter(({ name, omits }) =>
      isSelected(kindNames, name) && omits?.includes(runtime) !== true
    ).map((kind) => new Subject(runtime, kind))
  );

console.log(`seed ${values.seed}, ${subjects.length} servers`);
const start = performance.now();
for (const [index, subject] of subjects.entries()) {
  // The time that is left is divided among the servers that are left.
  const now = performance.now();
  const left = start + minutes * 60_000 - now;
  await subject.run(now + left / (subjects.length - index));
}
removeSafeFolders();

for (const [name, count] of [...totals].toSorted()) {
  if (count > 0) console.log(`  ${name}: ${count}`);
}
const clients = [...totals].filter(([name]) => !name.startsWith("event")).reduce(
  (sum, [, count]) => sum + count,
  0,
);
console.log(`${clients} clients, ${problems.length} problems, seed ${values.seed}`);
for (const problem of problems) console.log(`  ${problem}`);
process.exit(problems.length === 0 ? 0 : 1);
