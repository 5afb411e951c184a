/** A server or guard of the soak run, and what changes around it. */

import { Buffer } from "node:buffer";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { compileLibrary } from "../support/compile.ts";
import { residentMemory } from "../support/leak.ts";
import { safeFolder } from "../support/safe_folder.ts";
import { type Period, readAudit } from "./audit.ts";
import {
  ALLOWED,
  CHANGING,
  type Counts,
  type CrowdOptions,
  DENIED,
  endSockets,
  FLOODING,
  MAX_FILES,
  MAX_WAIT_MS,
  Patient,
  program,
  rangeOf,
  runCrowd,
  startSockets,
} from "./clients.ts";
import { accepts, type Kind, type Upstream } from "./kinds.ts";
import { add, leftOut, problems, totals } from "./tally.ts";

/** The commands that start a script. */
export const RUNTIMES: { readonly [runtime: string]: readonly string[] } = {
  node: ["node", "--disable-warning=ExperimentalWarning"],
  deno: ["deno", "run", "--no-prompt", "-A"],
  bun: ["bun"],
};

/** What changes around a server. */
export const EVENTS = [
  "good policy",
  "bad policy",
  "few descriptors",
  "full disk",
  "upstream restart",
  "signals",
  "clock",
  "flood",
  "socket activation",
  "restart",
  "SIGKILL",
  "nothing",
] as const;
/** One of them. */
export type Event = typeof EVENTS[number];

/** The library of clock.c, once it is compiled. */
let clockLibrary: string | undefined;
const cli = fileURLToPath(new URL("../../cli/main.ts", import.meta.url));
const serverScript = fileURLToPath(new URL("server.ts", import.meta.url));

/**
 * Descriptors that a server may open after its warm-up and keep: those of its runtime, and idle connections to the
 * upstream. A leak of one for each client is ten times as much after each crowd.
 */
const MAX_MORE_DESCRIPTORS = 16;

/**
 * Growth of a server after its warm-up that may be a leak, in bytes. Less growth is that of heaps and pools,
 * which depends on when a runtime collects garbage.
 */
const MAX_GROWTH_BYTES = 96 << 20;

/** Crowds after which the memory must have stopped growing, if it has grown by that much. */
const MAX_GROWING_CROWDS = 12;

/** Growth between two crowds that is none. */
const SAME_BYTES = 1 << 20;

/** The shortest timeout of the servers is ten seconds. A client that took half of it must be served. */
const MAX_PATIENT_MS = 5000;

/** Seconds by which the clock is ahead: hours, days, beyond January 2038, before the server was started. */
const JUMPS = [3600, 86_400, 20 * 31_557_600, -3600, -86_400, -10 * 31_557_600, 0] as const;

/** Events that not all servers have. A short run has them on those that do. */
const SCARCE: readonly Event[] = ["few descriptors", "upstream restart"];

/** What each event does. */
type Events = { [event in Event]?: () => Promise<void> };

/** Signals that end no server. */
const SIGNALS = ["SIGSTOP", "SIGCHLD", "SIGPIPE", "SIGURG", "SIGWINCH"] as const;

/** The least number of events of each server. */
const MIN_EVENTS = 2;

/** Characters of a server's log that are shown with a problem. */
const MAX_SHOWN_CHARACTERS = 1500;

/** Writes a file until the disk is full. */
function fillDisk(file: string): void {
  const fd = openSync(file, "w");
  try {
    for (let size = 1 << 16; size > 0; size >>= 1) {
      try {
        while (writeSync(fd, Buffer.alloc(size)) > 0);
      } catch {
        // less than that is free
      }
    }
  } finally {
    closeSync(fd);
  }
}

/** The target of a link; `undefined` if it no longer exists. */
function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** One server or guard on one runtime. */
export class Subject {
  readonly label: string;
  readonly #runtimeName: string;
  readonly #runtime: readonly string[];
  readonly #kind: Kind;
  readonly #random: (limit: number) => number;
  readonly #selected: (event: Event) => boolean;
  readonly #folder = safeFolder();
  readonly #path = join(this.#folder, "s.sock");
  readonly #policy = join(this.#folder, "policy.yaml");
  /** A file system with few blocks, for the audit log. */
  readonly #disk = join(this.#folder, "disk");
  readonly #audit = join(this.#disk, "audit.log");
  #upstream: Upstream | undefined;
  #child!: ChildProcess;
  #log = "";
  #descriptors = 0;
  #memory = 0;
  /** The largest growth of the memory, in bytes. */
  #growth = 0;
  /** The file that clock.c reads. */
  readonly #clock = join(this.#folder, "clock");
  readonly #periods: Period[] = [];
  /** The sockets program, while it holds the server's socket. */
  #manager: ChildProcess | undefined;
  /** A client that has sent half of its request. */
  #stalled: Patient | undefined;
  /** Clients that were served since the audit log was read last. */
  #served = 0;
  /** Whether lines of the audit log may be lost since it was read last: the disk was full, or the server has ended. */
  #mayLose = false;
  readonly #done = new Map<string, number>();
  /** Whether the policy allows the changing user. */
  #isWide = false;

  /** @param selected The events that may happen. */
  constructor(
    runtime: string,
    kind: Kind,
    random: (limit: number) => number,
    selected: (event: Event) => boolean,
  ) {
    this.label = `${runtime} ${kind.name}`;
    this.#runtimeName = runtime;
    this.#runtime = RUNTIMES[runtime]!;
    this.#kind = kind;
    this.#random = random;
    this.#selected = selected;
  }

  async run(until: number): Promise<void> {
    const events = this.#events();
    if (Object.keys(events).length === 0) return;
    mkdirSync(this.#disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", this.#disk]);
    writeFileSync(this.#clock, Buffer.alloc(8));
    this.#writePolicy();
    this.#upstream = await this.#kind.upstream?.(this.#folder);
    let rounds = 0;
    try {
      await this.#start();
      await this.#crowd("warm-up", {});
      await this.#crowd("warm-up", {});
      await this.#crowd("warm-up", { isCalm: true });
      await this.#settle(true);
      while (rounds < MIN_EVENTS || performance.now() < until) {
        const name = this.#nextEvent(events);
        await events[name]!();
        await this.#crowd(`after ${name}`, { isCalm: true });
        await this.#settle(false);
        await this.#checkAudit(name);
        if (this.#hasEnded()) throw new Error(`the server has ended after ${name}`);
        rounds++;
      }
      await this.#requireTimeout();
    } catch (error) {
      this.#complain((error as Error).message);
    } finally {
      this.#stalled?.destroy();
      await this.end();
    }
    const sizes = [this.#memory, this.#growth].map((bytes) => bytes >> 20);
    console.log(
      `${this.label}: ${rounds} events, ${this.#descriptors} descriptors, ` +
        `${sizes[0]} MiB, grown by at most ${sizes[1]} MiB`,
    );
  }

  /** Ends what this server has started. */
  async end(): Promise<void> {
    this.#manager?.kill();
    this.#child?.kill("SIGKILL");
    execFileSync("umount", ["-l", this.#disk]);
    await this.#upstream?.close();
  }

  /** Requires that the server hangs up on a client that stalled while the clock jumped. */
  async #requireTimeout(): Promise<void> {
    if (this.#stalled === undefined) return;
    const { outcome, milliseconds } = await this.#stalled.ended;
    if (outcome !== "closed" || milliseconds < MAX_PATIENT_MS) {
      this.#complain(`half of a request: ${outcome} after ${Math.round(milliseconds)} ms`);
    }
    add("clients, stalled: refused", 1);
  }

  /** Chooses the event that this server has had least often, and then that this runtime has had least often. */
  #nextEvent(events: Events): Event {
    const often = (name: Event) =>
      (this.#done.get(name) ?? 0) * 1e6 + (totals.get(`event: ${this.#runtimeName}, ${name}`) ?? 0);
    const all = Object.keys(events) as Event[];
    const least = Math.min(...all.map(often));
    const rarest = all.filter((name) => often(name) === least);
    const name = rarest.find((event) => SCARCE.includes(event)) ??
      rarest[this.#random(rarest.length)]!;
    this.#done.set(name, (this.#done.get(name) ?? 0) + 1);
    add(`event: ${this.#runtimeName}, ${name}`, 1);
    return name;
  }

  #require(isRight: boolean, problem: string): void {
    if (!isRight) this.#complain(problem);
  }

  #complain(what: string): void {
    problems.push(`${this.label}: ${what}`);
    console.error(`${this.label}: ${what}\n${this.#log.slice(-MAX_SHOWN_CHARACTERS)}`);
  }

  #hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** What changes around the server. Crowds connect meanwhile. */
  #events(): Events {
    const { name, upstream } = this.#kind;
    const isDeno = this.#runtimeName === "deno";
    const events: Events = {
      "good policy": async () => {
        const crowd = this.#crowd("a new policy", {});
        await this.#changePolicy();
        await crowd;
      },
      "bad policy": async () => {
        const crowd = this.#crowd("a bad policy", {});
        await this.#breakPolicy();
        await crowd;
        await this.#crowd("a bad policy", { isCalm: true }); // the previous policy stays in force
        this.#writePolicy();
        await this.#reload("the new policy is in force");
      },
      "full disk": async () => {
        this.#mayLose = true;
        const filler = join(this.#disk, "filler");
        fillDisk(filler);
        await this.#crowd("a full disk", {});
        await this.#crowd("a full disk", { isCalm: true });
        rmSync(filler);
      },
      "signals": async () => {
        const crowd = this.#crowd("signals", {});
        for (let times = 0; times < 20; times++) {
          this.#child.kill("SIGHUP");
          await sleep(this.#random(20));
          this.#child.kill(SIGNALS[this.#random(SIGNALS.length)]!);
          await sleep(this.#random(20));
          this.#child.kill("SIGCONT");
        }
        await crowd;
      },
      "clock": () => this.#jumps(),
      "flood": async () => {
        const args = ["flood", this.#path, `${FLOODING}`, "2000"];
        const flood = await startSockets(args);
        await this.#crowd("a flood of another user", {});
        await this.#crowd("a flood of another user", { isCalm: true });
        await endSockets(flood);
      },
      "restart": () => this.#restarts("SIGTERM"),
      "SIGKILL": () => this.#restarts("SIGKILL"),
      "nothing": () => this.#crowd("clients that misbehave", {}),
    };
    if (isDeno && name !== "http") {
      leftOut.add(
        "few descriptors on deno, but for http: it accepts nothing more once accept(2) fails",
      );
    } else {
      events["few descriptors"] = async () => {
        const pid = `--pid=${this.#child.pid}`;
        const limit = readdirSync(`/proc/${this.#child.pid}/fd`).length + this.#random(12);
        execFileSync("prlimit", [pid, `--nofile=${limit}:`]);
        this.#mayLose = true;
        await this.#crowd("few descriptors", { isFaulty: true });
        execFileSync("prlimit", [pid, `--nofile=${MAX_FILES}:`]);
      };
    }
    if (upstream !== undefined) {
      events["upstream restart"] = async () => {
        const crowd = this.#crowd("an upstream restart", { isFaulty: true });
        await this.#upstream!.close();
        this.#upstream = await upstream(this.#folder);
        await crowd;
      };
    }
    if (isDeno && name === "native") {
      leftOut.add("socket activation of deno native: Deno.listen takes no descriptor");
    } else events["socket activation"] = () => this.#activation();
    const chosen = EVENTS.filter((event) => event in events && this.#selected(event));
    return Object.fromEntries(chosen.map((event) => [event, events[event]!]));
  }

  async #restarts(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const crowd = this.#crowd(signal, { isFaulty: true });
    await this.#stop(signal);
    await this.#start();
    await crowd;
    await this.#settle(true);
  }

  /** The socket of a service manager accepts connections before the server runs, and while it restarts. */
  async #activation(): Promise<void> {
    await this.#stop("SIGTERM");
    this.#manager = await startSockets(["listen", this.#path]);
    const early = this.#crowd("before a start by socket activation", {
      isCalm: true,
      mustConnect: true,
    });
    await this.#start();
    await early;
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const crowd = this.#crowd("a restart by socket activation", {
        isFaulty: true,
        mustConnect: true,
      });
      await this.#stop(signal);
      await this.#start();
      await crowd;
    }
    await this.#crowd("socket activation", { isCalm: true, mustConnect: true });
    await this.#stop("SIGTERM");
    await endSockets(this.#manager);
    this.#manager = undefined;
    await this.#start();
    await this.#settle(true);
  }

  /** The wall clock jumps while clients connect, and while others are in the middle of their request. */
  async #jumps(): Promise<void> {
    const patient = Array.from({ length: 3 }, () => new Patient(this.#path, this.#kind));
    if (this.#kind.hasTimeout === true) this.#stalled ??= new Patient(this.#path, this.#kind);
    const crowd = this.#crowd("a jump of the clock", {});
    for (let times = 0; times < 5; times++) {
      this.#jump(JUMPS[this.#random(JUMPS.length)]!);
      await sleep(this.#random(50));
    }
    await this.#changePolicy();
    for (const client of patient) client.finish();
    for (const client of patient) {
      const { outcome, milliseconds } = await client.ended;
      const isSoon = milliseconds < MAX_PATIENT_MS;
      if (outcome === "waits" || (outcome === "closed" && isSoon)) {
        this.#complain(`${outcome} ${Math.round(milliseconds)} ms after it had connected, clock`);
      }
      add(`clients, patient: ${outcome === "served" ? outcome : "refused"}`, 1);
      this.#served += Number(outcome === "served");
    }
    await crowd;
  }

  /** Changes the wall clock of the server, while it runs. */
  #jump(ahead: number): void {
    const now = Date.now();
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(BigInt(ahead));
    const fd = openSync(this.#clock, "r+");
    writeSync(fd, bytes, 0, 8, 0);
    closeSync(fd);
    const last = this.#periods.at(-1);
    if (last !== undefined) last.to = Date.now();
    this.#periods.push({ ahead, from: now, to: Infinity });
  }

  #writePolicy(): void {
    const { about = "", rule = "", allow = "true" } = this.#kind;
    const uids = [0, FLOODING, rangeOf(ALLOWED), ...(this.#isWide ? [rangeOf(CHANGING)] : [])];
    this.#replacePolicy(`version: 1
${about}
rules:
  - { name: denied, when: { uid: ${rangeOf(DENIED)} }, deny: true }
  - { name: program, when: { exe: /nonexistent }, deny: true }
  - { name: allowed, when: { uid: [${uids}], unchanged: true }, ${rule} allow: ${allow} }
`);
  }

  async #changePolicy(): Promise<void> {
    this.#isWide = !this.#isWide;
    await this.#breakPolicy();
    this.#writePolicy();
    await this.#reload("the new policy is in force");
  }

  /** Writes a bad policy. A report of an older reload can no longer follow once the server has reported it. */
  async #breakPolicy(): Promise<void> {
    this.#replacePolicy("version: 1\nrules: [{ name: all, alow: true }]\n");
    await this.#reload("cannot be used");
  }

  #replacePolicy(text: string): void {
    writeFileSync(`${this.#policy}.new`, text, { mode: 0o600 });
    renameSync(`${this.#policy}.new`, this.#policy);
  }

  async #reload(message: string): Promise<void> {
    this.#log = this.#log.slice(-MAX_SHOWN_CHARACTERS); // so that `from` stays right
    const from = this.#log.length;
    this.#child.kill("SIGHUP");
    await this.#waitFor(() => this.#log.includes(message, from), `no "${message}"`);
  }

  async #waitFor(condition: () => unknown, problem: string | (() => string)): Promise<void> {
    const deadline = performance.now() + MAX_WAIT_MS;
    while (!await condition()) {
      if (performance.now() > deadline) {
        const what = typeof problem === "string" ? problem : problem();
        throw new Error(`after ${MAX_WAIT_MS} ms: ${what}`);
      }
      await sleep(10);
    }
  }

  async #start(): Promise<void> {
    const { guard, name } = this.#kind;
    const listen = this.#manager === undefined
      ? ["--listen", this.#path, "--socket-mode", "0666"]
      : ["--systemd"];
    const args = guard === undefined
      ? [serverScript, name, this.#path, this.#policy, this.#audit]
      : [
        ...[cli, "guard", ...guard, "--upstream", this.#upstream!.path, "--policy", this.#policy],
        ...[...listen, "--audit", this.#audit],
      ];
    const activate = this.#manager === undefined
      ? []
      : [program("sockets"), "activate", `${this.#manager.pid}`];
    const command = ["prlimit", `--nofile=${MAX_FILES}:`, ...activate, ...this.#runtime, ...args];
    this.#log = "";
    this.#jump(this.#periods.at(-1)?.ahead ?? 0);
    this.#child = spawn(command[0]!, command.slice(1), {
      stdio: ["ignore", "ignore", "pipe"],
      env: {
        ...{ ...process.env, NO_COLOR: "1", SOAK_CLOCK: this.#clock },
        LD_PRELOAD: clockLibrary ??= compileLibrary(new URL("clock.c", import.meta.url)),
      },
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
    this.#mayLose = true;
    this.#stalled?.destroy();
    this.#stalled = undefined;
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
    const most = this.#descriptors + MAX_MORE_DESCRIPTORS;
    await this.#waitFor(
      () => descriptors() <= most,
      () => `${descriptors()} descriptors instead of ${this.#descriptors}`,
    );
    await this.#requireMemory();
  }

  /** Fails if the memory goes on growing, crowd after crowd, once it has grown by much. */
  async #requireMemory(): Promise<void> {
    const grown: number[] = [];
    while (true) {
      const memory = residentMemory(this.#child.pid!);
      const before = grown.at(-1);
      grown.push(memory);
      this.#growth = Math.max(this.#growth, memory - this.#memory);
      if (memory - this.#memory <= MAX_GROWTH_BYTES) return;
      if (before !== undefined && memory - before <= SAME_BYTES) {
        this.#memory = memory;
        return;
      }
      if (grown.length > MAX_GROWING_CROWDS) {
        const sizes = [this.#memory, ...grown].map((bytes) => bytes >> 20);
        throw new Error(`the memory grows: ${sizes.join(", ")} MiB`);
      }
      await this.#crowd("growing memory", {});
    }
  }

  /** Rotates the audit log, and requires that its lines are complete and right. */
  async #checkAudit(event: Event): Promise<void> {
    const old = `${this.#audit}.1`;
    renameSync(this.#audit, old);
    this.#child.kill("SIGHUP");
    await this.#waitFor(() => existsSync(this.#audit), "the audit log is not opened again");
    const folder = `/proc/${this.#child.pid}/fd`;
    const isOpen = () => readdirSync(folder).some((fd) => linkOf(join(folder, fd)) === old);
    await this.#waitFor(() => !isOpen(), "the old audit log stays open");
    const [served, mayLose] = [this.#served, this.#mayLose];
    [this.#served, this.#mayLose] = [0, false];
    const { accepted, dropped, partial, current, problem } = readAudit(old, this.#periods);
    rmSync(old);
    const isComplete = mayLose || dropped > 0 || accepted >= served;
    this.#require(problem === undefined, `audit log after ${event}: ${problem}`);
    this.#require(isComplete, `audit log after ${event}: ${accepted} of ${served} clients`);
    this.#require(partial === 0 || mayLose, `audit log after ${event}: ${partial} partial lines`);
    this.#require(current > 0, `audit log after ${event}: no line has the time now`);
    this.#require(dropped > 0 || event !== "full disk", "the disk was not full");
  }

  /** Lets a crowd connect. */
  async #crowd(when: string, how: Omit<CrowdOptions, "isWide">): Promise<void> {
    const seed = this.#random(2 ** 31);
    let counts: Counts;
    try {
      counts = await runCrowd(this.#path, this.#kind, seed, { ...how, isWide: this.#isWide });
    } catch (error) {
      return this.#complain(`the crowd has failed, ${when}: ${(error as Error).message}`);
    }
    let unconnected = 0;
    for (const [behaviour, { served, refused, failed }] of Object.entries(counts.behaviours)) {
      add(`clients, ${behaviour}: served`, served);
      add(`clients, ${behaviour}: refused`, refused);
      add(`clients, ${behaviour}: not connected`, failed);
      this.#served += served;
      unconnected += failed;
    }
    const { isFaulty = false, mustConnect = !isFaulty } = how;
    const mayWait = isFaulty && this.#kind.staysOpen === true;
    this.#require(counts.wrong === 0, `${counts.wrong} wrong answers, ${when}`);
    this.#require(counts.stuck === 0 || mayWait, `${counts.stuck} stuck clients, ${when}`);
    this.#require(counts.starved === 0 || isFaulty, `${counts.starved} starved clients, ${when}`);
    this.#require(
      unconnected === 0 || !mustConnect,
      `${unconnected} clients could not connect, ${when}`,
    );
  }
}
