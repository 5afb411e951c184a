/** A privileged helper: runs commands as other users for the peers that a policy allows. */

import type { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync } from "node:fs";
import type { Socket } from "node:net";
import { hostname } from "node:os";
import process from "node:process";
import { type OptionNames, requireOptions } from "../../../core/options.ts";
import type { Peer } from "../../../core/peer.ts";
import type { Policy } from "../../../core/policy/policy.ts";
import { textOf } from "../../../core/text.ts";
import { MAX_TIMER_MS } from "../../../core/timers.ts";
import { closeAllOnExec } from "../../../system/close_on_exec.ts";
import { environmentOf } from "./environment.ts";
import { type Executable, openExecutable } from "./executable.ts";
import { encodeFrame, FRAME, type Frame, FrameDecoder, frameParts } from "./frames.ts";
import { type CommandRequest, FORWARDED_SIGNALS, readCommandRequest } from "./request.ts";
import { findTargetUser, type TargetUser } from "./target_user.ts";

/** A command that the policy allows, before it runs. */
export interface AllowedCommand {
  /** Its absolute path, as requested. */
  readonly command: string;
  /** Its arguments, without the name. */
  readonly args: readonly string[];
  /** The target user. */
  readonly user: string;
  /** The client. */
  readonly peer: Peer;
  /** `peer.key`: an approval for this key is for this process, and for no other one. */
  readonly key: string;
}

/** Limits of each command: setrlimit(2). */
export interface CommandLimits {
  /** RLIMIT_CPU, in seconds. */
  readonly cpu?: number | undefined;
  /** RLIMIT_AS, in bytes. */
  readonly as?: number | undefined;
  /** RLIMIT_FSIZE, in bytes. */
  readonly fsize?: number | undefined;
  /** RLIMIT_NOFILE, a number of descriptors. */
  readonly nofile?: number | undefined;
  /** RLIMIT_NPROC, a number of processes of the target user. */
  readonly nproc?: number | undefined;
}

/** What happened to a request. */
export interface CommandRecord {
  /** The pid of the client; `undefined` if it has none in our pid namespace. */
  readonly pid: number | undefined;
  /** The effective uid of the client. */
  readonly uid: number;
  /** `peer.key`. */
  readonly key: string | undefined;
  /** The requested command; `undefined` if the request could not be read. */
  readonly command: string | undefined;
  /** Its arguments; empty if the request could not be read. */
  readonly args: readonly string[];
  /** The target user; `undefined` if the request could not be read. */
  readonly user: string | undefined;
  /** Whether the command ran. */
  readonly ran: boolean;
  /** The rule that decided. */
  readonly rule: string | undefined;
  /** Why the command did not run, or why the helper ended it. */
  readonly reason: string | undefined;
  /** The exit code; `null` if it did not run, or a signal ended it. */
  readonly code: number | null;
  /** The signal that ended it. */
  readonly signal: string | null;
  /** From the request to the end. */
  readonly milliseconds: number;
}

/** Options of {@link createHelper}. */
export interface HelperOptions {
  /** A policy with `about: sudo`. A policy that allows an action outside the vocabulary denies each command. */
  readonly policy: Policy;
  /** The working directory of commands, an absolute path. Default: "/". */
  readonly cwd?: string | undefined;
  /** Default: no core files, and the limits of the helper. */
  readonly limits?: CommandLimits | undefined;
  /** Commands are killed after this number of seconds. Default: 3600. */
  readonly timeLimitSeconds?: number | undefined;
  /**
   * Runs after the policy allows a command. Only `true` lets it run. The server must pin its peers
   * (`pin: true`): a peer without a key is refused.
   */
  readonly approve?: ((command: AllowedCommand) => boolean | Promise<boolean>) | undefined;
  /** Receives one record for each request, after the command has ended or was refused. */
  readonly report?: ((record: CommandRecord) => void) | undefined;
}

const OPTIONS: OptionNames<HelperOptions> = {
  policy: true,
  cwd: true,
  limits: true,
  timeLimitSeconds: true,
  approve: true,
  report: true,
};

const LIMITS: OptionNames<CommandLimits> = {
  cpu: true,
  as: true,
  fsize: true,
  nofile: true,
  nproc: true,
};

/** The longest delay of setTimeout(), in seconds. */
const MAX_TIME_LIMIT_SECONDS = Math.floor(MAX_TIMER_MS / 1000);

/** A client that sends no request is disconnected. */
const REQUEST_TIMEOUT_MS = 10_000;

/** The descriptor of the executable file in the child: the first one after stdin, stdout and stderr. */
const CHILD_FD = 3;

/**
 * Creates the connection handler of a privileged helper, for `createServer()` of `ucred/net`.
 *
 * The helper runs as root. The policy decides about action `run` with the attributes of the vocabulary
 * `sudo`. A command is executed without a shell, by a descriptor of the file that was checked, in a session
 * of its own, with a new environment and with no_new_privs. It is killed when its client disconnects.
 *
 * An argument that is empty or has white space is refused: the attribute `arguments` is one text, in which it
 * could not be distinguished from other arguments.
 *
 * @throws {TypeError} If an option is unknown or has the wrong type.
 */
export function createHelper(options: HelperOptions): (socket: Socket, peer: Peer) => void {
  requireOptions("createHelper()", options, OPTIONS);
  const { limits = {}, timeLimitSeconds = 3600, cwd = "/" } = options;
  requireOptions("limits of createHelper()", limits, LIMITS);
  if (typeof options.policy?.decide !== "function") {
    throw new TypeError("policy of createHelper() must be a policy");
  }
  if (!cwd.startsWith("/")) throw new TypeError("cwd of createHelper() must be an absolute path");
  if (!(timeLimitSeconds > 0 && timeLimitSeconds <= MAX_TIME_LIMIT_SECONDS)) {
    const range = `a number above 0, at most ${MAX_TIME_LIMIT_SECONDS}`;
    throw new TypeError(`timeLimitSeconds of createHelper() must be ${range}`);
  }
  const flags = ["--core=0"];
  for (const [name, value] of Object.entries(limits)) {
    if (value === undefined) continue;
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new TypeError(`limits.${name} of createHelper() must be an integer of at least 0`);
    }
    flags.push(`--${name}=${value}`);
  }
  const settings = { ...options, cwd, timeLimitSeconds, flags };
  return (socket, peer) => void new Run(socket, peer, settings);
}

type Settings = HelperOptions & {
  readonly cwd: string;
  readonly timeLimitSeconds: number;
  readonly flags: readonly string[];
};

/** One connection: one request, and at most one command. */
class Run {
  readonly #socket: Socket;
  readonly #peer: Peer;
  readonly #settings: Settings;
  readonly #decoder = new FrameDecoder();
  readonly #startedAt = performance.now();
  #timer: ReturnType<typeof setTimeout>;
  #request: CommandRequest | undefined;
  #child: ChildProcess | undefined;
  #rule: string | undefined;
  #reason: string | undefined;
  /** Whether a `stdin` frame is not written yet, or stdin has ended. */
  #isStdinBusy = false;
  #isReported = false;

  constructor(socket: Socket, peer: Peer, settings: Settings) {
    this.#socket = socket;
    this.#peer = peer;
    this.#settings = settings;
    this.#timer = setTimeout(() => this.#refuse("no request was sent"), REQUEST_TIMEOUT_MS);
    socket.on("error", () => {}); // "close" follows
    // Clients end stdin by a frame. A client that shuts down its side of the socket is gone.
    socket.once("end", () => this.#end("the client disconnected"));
    socket.once("close", () => this.#end("the client disconnected"));
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
  }

  #read(chunk: Buffer): void {
    if (this.#isReported || this.#socket.destroyed) return;
    try {
      for (const frame of this.#decoder.decode(chunk)) this.#take(frame);
    } catch (error) {
      this.#refuse(textOf(error));
    }
  }

  #take({ type, content }: Frame): void {
    if (this.#request === undefined) {
      if (type !== FRAME.request) throw new Error("the first frame is not a request");
      const request = readCommandRequest(content.toString());
      if (typeof request === "string") throw new Error(request);
      this.#request = request;
      clearTimeout(this.#timer);
      this.#start(request).catch((error) => this.#refuse(textOf(error)));
      return;
    }
    const child = this.#child;
    if (child === undefined) throw new Error("a frame was sent before the command started");
    switch (type) {
      case FRAME.stdin: {
        if (this.#isStdinBusy) throw new Error("a stdin frame was sent too early");
        this.#isStdinBusy = true;
        // Without another frame in between, the helper holds at most one frame of stdin.
        child.stdin!.write(content, () => {
          this.#isStdinBusy = false;
          this.#send(FRAME.accepted);
        });
        return;
      }
      case FRAME.stdinEnd:
        this.#isStdinBusy = true;
        child.stdin!.end();
        return;
      case FRAME.signal: {
        const name = FORWARDED_SIGNALS.find((signal) => signal === content.toString());
        if (name === undefined) throw new Error("the signal cannot be forwarded");
        this.#kill(name);
        return;
      }
      default:
        throw new Error("the frame has an unknown type");
    }
  }

  async #start(request: CommandRequest): Promise<void> {
    const { policy, approve } = this.#settings;
    const user = await findTargetUser(request.user);
    if (user === undefined) throw new Error("the target user cannot be looked up");
    if (this.#socket.destroyed || this.#isReported) return;
    const file = openExecutable(request.command);
    if (typeof file === "string") throw new Error(`the command cannot be executed: ${file}`);
    try {
      // A policy without the vocabulary `sudo` could allow each action, whatever the command.
      if (policy.decide(this.#peer, { action: "no action of sudo" }).allowed) {
        throw new Error("the policy is not about sudo");
      }
      const { command } = file;
      const attributes = attributesOf(command, request, user);
      const decision = policy.decide(this.#peer, { action: "run", attributes });
      this.#rule = decision.rule;
      if (decision.allowed !== true) throw new Error("the policy denies the command");
      if (approve !== undefined) {
        const { key } = this.#peer;
        if (key === undefined) throw new Error("the process of the client is not pinned");
        const { args } = request;
        const approved = await approve({ command, args, user: user.name, peer: this.#peer, key });
        if (approved !== true) throw new Error("the command was not approved");
      }
      if (this.#socket.destroyed || this.#isReported) return;
      this.#spawn(file, request, user);
    } finally {
      closeSync(file.fd);
    }
  }

  #spawn(file: Executable, request: CommandRequest, user: TargetUser): void {
    const { cwd, flags, timeLimitSeconds } = this.#settings;
    const environment = environmentOf(user, request.variables);
    closeAllOnExec(); // a command of another user must not inherit descriptors of root
    const child = spawn("/usr/bin/prlimit", [
      ...flags,
      "--",
      // Deno 2.9.5 adds a variable to the environment that spawn() takes.
      "/usr/bin/env",
      "-i",
      ...Object.entries(environment).map(([name, value]) => `${name}=${value}`),
      "/usr/bin/setpriv",
      `--reuid=${user.uid}`,
      `--regid=${user.gid}`,
      `--groups=${user.gids.join(",")}`, // the groups that the policy decided about
      "--inh-caps=-all",
      "--no-new-privs",
      "--pdeathsig=KILL",
      "--",
      `/proc/self/fd/${CHILD_FD}`,
      ...request.args,
    ], {
      cwd,
      env: environment,
      detached: true, // setsid(2): a process group that can be killed, and no terminal of the helper
      stdio: ["pipe", "pipe", "pipe", file.fd],
    });
    this.#child = child;
    child.stdin!.on("error", () => {}); // the command closed its stdin; the write's callback reports
    this.#forward(child.stdout!, FRAME.stdout);
    this.#forward(child.stderr!, FRAME.stderr);
    child.once("error", (error) => {
      this.#end(textOf(error));
      this.#report(null, null); // "close" does not follow each "error"
    });
    // Processes that the command left in its group are killed: they could keep its output open.
    child.once("exit", () => this.#kill("SIGKILL"));
    child.once("close", (code, signal) => this.#finish(code, signal));
    this.#timer = setTimeout(() => this.#end("the time limit has passed"), timeLimitSeconds * 1000);
    this.#send(FRAME.started);
  }

  #forward(output: NonNullable<ChildProcess["stdout"]>, type: number): void {
    output.on("error", () => {});
    output.on("data", (bytes: Buffer) => {
      let hasRoom = true;
      for (const part of frameParts(bytes)) hasRoom = this.#send(type, part);
      if (hasRoom || this.#socket.destroyed) return;
      output.pause();
      this.#socket.once("drain", () => output.resume());
    });
  }

  #send(type: number, content?: string | Uint8Array): boolean {
    return this.#socket.writable ? this.#socket.write(encodeFrame(type, content)) : true;
  }

  #kill(signal: NodeJS.Signals): void {
    const pid = this.#child?.pid;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // ESRCH: the group has ended.
    }
  }

  /** Ends the command and the connection. */
  #end(reason: string): void {
    clearTimeout(this.#timer);
    this.#reason ??= reason;
    const child = this.#child;
    if (child === undefined) this.#report(null, null);
    else if (child.exitCode === null && child.signalCode === null) this.#kill("SIGKILL");
    // A process that left the group may hold the output open: the helper no longer reads it.
    child?.stdout?.destroy();
    child?.stderr?.destroy();
    this.#socket.destroy();
  }

  #refuse(reason: string): void {
    if (this.#child !== undefined) return this.#end(reason);
    if (this.#isReported) return;
    clearTimeout(this.#timer);
    this.#reason = reason;
    this.#report(null, null);
    if (this.#socket.writable) this.#socket.end(encodeFrame(FRAME.refused, reason.slice(0, 1000)));
    const timer = setTimeout(() => this.#socket.destroy(), REQUEST_TIMEOUT_MS);
    this.#socket.once("close", () => clearTimeout(timer));
  }

  #finish(code: number | null, signal: string | null): void {
    clearTimeout(this.#timer);
    this.#report(code, signal);
    if (this.#socket.writable) {
      this.#socket.end(encodeFrame(FRAME.exit, JSON.stringify({ code, signal })));
    }
  }

  #report(code: number | null, signal: string | null): void {
    if (this.#isReported) return;
    this.#isReported = true;
    const { pid, uid, key } = this.#peer;
    this.#settings.report?.({
      pid,
      uid,
      key,
      command: this.#request?.command,
      args: this.#request?.args ?? [],
      user: this.#request?.user,
      ran: this.#child !== undefined,
      rule: this.#rule,
      reason: this.#reason,
      code,
      signal,
      milliseconds: Math.round(performance.now() - this.#startedAt),
    });
  }
}

/** The attributes of a request, in the vocabulary `sudo`. */
function attributesOf(command: string, { args }: CommandRequest, user: TargetUser) {
  return {
    command,
    arguments: args.length === 0 ? null : args.join(" "),
    runasUser: user.name,
    runasUid: user.uid,
    ...(user.groups !== undefined && { runasGroups: user.groups }),
    runasGroup: null, // clients cannot request a group
    runasGroupIsOwn: false,
    host: hostname().split(".", 1)[0]!.toLowerCase(),
  };
}
