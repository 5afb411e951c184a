/** A privileged helper: runs commands as other users for the peers that a policy allows. */

import { type Buffer, isUtf8 } from "node:buffer";
import { closeSync } from "node:fs";
import type { Socket } from "node:net";
import { hostname } from "node:os";
import type { Readable } from "node:stream";
import { type OptionNames, requireOptions } from "../../../core/options.ts";
import type { Peer } from "../../../core/peer.ts";
import { attributesIn } from "../../../core/policy/decide/attributes.ts";
import type { CheckedRule } from "../../../core/policy/document/check.ts";
import { findSource, type Policy } from "../../../core/policy/policy.ts";
import { textOf } from "../../../core/text.ts";
import { MAX_TIMER_MS } from "../../../core/timers.ts";
import { warn } from "../../../servers/admission/admission.ts";
import { CommandProcess } from "./command_process.ts";
import { environmentOf } from "./environment.ts";
import { digestsOf, type Executable, openExecutable, pathProblem } from "./executable.ts";
import { encodeFrame, FRAME, type Frame, FrameDecoder, frameParts } from "./frames.ts";
import {
  type CommandRequest,
  FORWARDED_SIGNALS,
  readCommandRequest,
  readTerminalSize,
} from "./request.ts";
import { findTargetGroup, findTargetUser, type TargetUser } from "./target_user.ts";
import { DIGESTS, sudoVocabulary } from "../vocabulary.ts";

/** A command that the policy allows, before it runs. */
export interface AllowedCommand {
  /** Its absolute path, as requested. */
  readonly command: string;
  /** Its arguments, without the name. */
  readonly args: readonly string[];
  /** The target user. */
  readonly user: string;
  /** The requested group; `undefined` without a request. */
  readonly group: string | undefined;
  /** The grants of the rule. Without `NOPASSWD`, sudo(8) would require the password of the user. */
  readonly grants: readonly string[];
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

/** One entry of the log of commands. */
export interface CommandRecord {
  /**
   * `refused`: the command does not run. `started`: it starts after `report` has returned. `ended`: it has ended,
   * or could not be started. Each request has either `refused` or `started`, and `started` is followed by
   * `ended`, unless the helper itself is killed.
   */
  readonly event: "refused" | "started" | "ended";
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
  /** The requested group; `undefined` without a request. */
  readonly group: string | undefined;
  /** The rule that decided. */
  readonly rule: string | undefined;
  /** Why the command does not run, or why the helper ended it. */
  readonly reason: string | undefined;
  /** The exit code; `null` if the command has not ended, or a signal ended it. */
  readonly code: number | null;
  /** The signal that ended it. */
  readonly signal: string | null;
  /** The time since the connection. */
  readonly milliseconds: number;
}

/** Options of {@link createHelper}. */
export interface HelperOptions {
  /**
   * A policy with `about: sudo`, or a watched or shadowed one. The grants `NOEXEC`, `INTERCEPT`, `LOG_INPUT`,
   * `LOG_OUTPUT` and `MAIL`, and grants that sudo does not have, deny the command: the helper does not implement
   * them.
   */
  readonly policy: Policy;
  /** The working directory of commands, an absolute path. Default: "/". */
  readonly cwd?: string | undefined;
  /** Default: no core files, and the limits of the helper. */
  readonly limits?: CommandLimits | undefined;
  /** Commands are killed after this number of seconds. Default: 3600. */
  readonly timeLimitSeconds?: number | undefined;
  /**
   * Called after the policy allows a command. The command runs only if the result is `true`. Without this function,
   * the helper refuses commands of rules without the grant `NOPASSWD`. The server must pin its peers (`pin: true`): a
   * peer without a key is refused.
   */
  readonly approve?: ((command: AllowedCommand) => boolean | Promise<boolean>) | undefined;
  /**
   * Receives a record when a command is refused, when it starts and when it has ended. A command does not start
   * if this function throws or rejects.
   */
  readonly report?: ((record: CommandRecord) => unknown) | undefined;
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

/** How long a client may take to send its request, and then, if it is refused, to read the reason. */
const REQUEST_TIMEOUT_MS = 60_000;

/** Maximum length of a reason for the client. */
const MAX_REASON_LENGTH = 1000;

/** Grants of sudo that forbid nothing. All other grants deny the command. */
const PERMISSIONS: ReadonlySet<string> = new Set(["NOPASSWD", "SETENV", "FOLLOW", "NOMAIL"]);

/** The attributes about a requested group. */
const GROUP_ATTRIBUTES = ["runasGroup", "runasGroupIsOwn"] as const;

/** Maximum `accepted` frames that wait for a client which does not read. */
const MAX_WAITING_FRAMES = 64;

/** An argument that a policy cannot distinguish from several arguments: it sees them joined by spaces. */
const AMBIGUOUS = /^$|\s/;

/**
 * Creates the connection handler of a privileged helper, for `createServer()` of `ucred/net`.
 *
 * The helper runs as root. The policy decides about action `run` with the attributes of the vocabulary
 * `sudo`. A command is executed without a shell, by a descriptor of the file that was checked, in a session
 * of its own, with a new environment and with no_new_privs. It is killed when its client disconnects, or the
 * process of a pinned client ends.
 *
 * The attribute `arguments` is one text, joined by spaces. If an argument is empty or has white space, this text is
 * ambiguous, and the attribute is unknown. Then only a rule without a condition on `arguments` allows the command.
 *
 * @throws {TypeError} If an option is unknown or has the wrong type, or the policy is not about sudo.
 */
export function createHelper(options: HelperOptions): (socket: Socket, peer: Peer) => void {
  requireOptions("createHelper()", options, OPTIONS);
  const { limits = {}, timeLimitSeconds = 3600, cwd = "/" } = options;
  requireOptions("limits of createHelper()", limits, LIMITS);
  if (sudoRulesOf(options.policy) === undefined) {
    throw new TypeError("policy of createHelper() must be a policy of rules with `about: sudo`");
  }
  if (!cwd.startsWith("/")) throw new TypeError("cwd of createHelper() must be an absolute path");
  if (!(timeLimitSeconds > 0 && timeLimitSeconds <= MAX_TIME_LIMIT_SECONDS)) {
    const range = `a number above 0, at most ${MAX_TIME_LIMIT_SECONDS}`;
    throw new TypeError(`timeLimitSeconds of createHelper() must be ${range}`);
  }
  const flags: string[] = [];
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

/**
 * Returns the rules of a policy with `about: sudo`; `undefined` for another policy, which could allow the action
 * `run` without a condition on the command.
 */
function sudoRulesOf(
  policy: Policy & { readonly current?: Policy },
): readonly CheckedRule[] | undefined {
  const checked = findSource(policy)?.checked;
  if (checked !== undefined) {
    return checked.vocabulary?.name === sudoVocabulary.name ? checked.rules : undefined;
  }
  return policy.current && sudoRulesOf(policy.current); // watched or shadowed
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
  #command: CommandProcess | undefined;
  #rule: string | undefined;
  #grants: readonly string[] = [];
  #reason: string | undefined;
  /** Whether a `stdin` frame is not written yet, or stdin has ended. */
  #isStdinBusy = false;
  /** `accepted` frames that were not sent yet. */
  #waitingFrames = 0;
  #isStarted = false;
  #isOver = false;

  constructor(socket: Socket, peer: Peer, settings: Settings) {
    this.#socket = socket;
    this.#peer = peer;
    this.#settings = settings;
    this.#timer = setTimeout(() => this.#end("no request was sent"), REQUEST_TIMEOUT_MS);
    socket.on("error", () => {}); // "close" follows
    // The end of stdin is a frame, so a client that shuts down its side of the socket is gone.
    socket.once("end", () => this.#disconnect("the client disconnected"));
    socket.once("close", () => this.#disconnect("the client disconnected"));
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
  }

  #read(chunk: Buffer): void {
    if (this.#isOver) return;
    try {
      for (const frame of this.#decoder.decode(chunk)) {
        if (this.#isOver) return;
        this.#take(frame);
      }
    } catch (error) {
      this.#end(reasonOf(error));
    }
  }

  #take({ type, content }: Frame): void {
    if (this.#request === undefined) {
      if (type !== FRAME.request) throw new Error("the first frame is not a request");
      if (!isUtf8(content)) throw new Error("the request is not UTF-8");
      const request = readCommandRequest(content.toString());
      if (typeof request === "string") throw new Error(request);
      this.#request = request;
      clearTimeout(this.#timer);
      this.#start(request).catch((error) => this.#end(reasonOf(error)));
      return;
    }
    const command = this.#command;
    if (command === undefined) throw new Error("a frame was sent before the command started");
    switch (type) {
      case FRAME.stdin:
        // Without another frame in between, the helper holds at most one frame of stdin.
        if (this.#isStdinBusy || this.#waitingFrames === MAX_WAITING_FRAMES) {
          throw new Error("a stdin frame was sent too early");
        }
        this.#isStdinBusy = true;
        command.write(content, () => {
          this.#isStdinBusy = false;
          this.#waitingFrames++;
          this.#send(FRAME.accepted, "", () => this.#waitingFrames--);
        });
        return;
      case FRAME.stdinEnd:
        this.#isStdinBusy = true;
        command.input.end();
        return;
      case FRAME.signal: {
        const name = FORWARDED_SIGNALS.find((signal) => signal === content.toString());
        if (name === undefined) throw new Error("the signal cannot be forwarded");
        command.signal(name);
        return;
      }
      case FRAME.resize: {
        const size = readTerminalSize(content.toString());
        if (typeof size === "string") throw new Error(size);
        command.resize(size);
        return;
      }
      default:
        throw new Error("the frame has an unknown type");
    }
  }

  async #start(request: CommandRequest): Promise<void> {
    const [user, gid] = await Promise.all([
      findTargetUser(request.user),
      request.group === undefined ? undefined : findTargetGroup(request.group),
    ]);
    if (user === undefined) throw new Error("the target user cannot be looked up");
    if (request.group !== undefined && gid === undefined) {
      throw new Error("the target group cannot be looked up");
    }
    if (this.#isOver) return;
    const file = openExecutable(request.command);
    if (typeof file === "string") {
      // Clients that may not run it receive no other reason: it would report which files exist in any folder.
      if (pathProblem(request.command) === undefined) {
        this.#decide({ command: request.command, fd: undefined }, request, user, gid);
      }
      throw new Error(`the command cannot be executed: ${file}`);
    }
    try {
      this.#decide(file, request, user, gid);
      await this.#approve(file, request, user, gid);
      if (this.#isOver) return;
      await this.#reportStart();
      if (this.#isOver) return this.#report(null, null);
      try {
        this.#spawn(file, request, user, gid ?? user.gid);
      } catch (error) {
        this.#end(reasonOf(error));
        if (this.#command === undefined) this.#report(null, null);
      }
    } finally {
      closeSync(file.fd);
    }
  }

  /** Throws unless the policy allows the command. */
  #decide(
    { command, fd }: { readonly command: string; readonly fd: number | undefined },
    request: CommandRequest,
    user: TargetUser,
    gid: number | undefined,
  ): void {
    const { policy } = this.#settings;
    const rules = sudoRulesOf(policy);
    if (rules === undefined) throw new Error("the policy is not about sudo"); // it was reloaded
    const attributes = {
      ...attributesOf(command, request, user, gid),
      ...(fd !== undefined && digestsOf(fd, DIGESTS.filter((name) => isTested(rules, name)))),
    };
    const decision = policy.decide(this.#peer, { action: "run", attributes });
    this.#rule = decision.rule;
    if (decision.allowed !== true) throw new Error("the policy denies the command");
    this.#grants = decision.grants;
    const tested = rules.filter(({ name }) => name === decision.rule);
    // As in sudo(8), a rule that does not mention groups allows only those of the target user.
    if (
      request.group !== undefined && !attributes.runasGroupIsOwn &&
      !GROUP_ATTRIBUTES.some((name) => isTested(tested, name))
    ) {
      throw new Error("the target user is not in the group, and the rule has no condition on it");
    }
    const other = decision.grants.find((grant) => !PERMISSIONS.has(grant));
    if (other !== undefined) throw new Error(`the helper does not implement the grant ${other}`);
  }

  /** Throws unless the command is approved for the process that connected. */
  async #approve(
    file: Executable,
    request: CommandRequest,
    user: TargetUser,
    gid: number | undefined,
  ) {
    const { args, group } = request;
    const { approve } = this.#settings;
    const grants = this.#grants;
    if (approve === undefined) {
      if (grants.includes("NOPASSWD")) return;
      throw new Error("the rule requires an approval: it has no grant NOPASSWD");
    }
    const peer = this.#peer;
    const { key } = peer;
    if (key === undefined) throw new Error("the process of the client is not pinned");
    const { command } = file;
    const about: AllowedCommand = { command, args, user: user.name, group, grants, peer, key };
    if (await approve(about) !== true) throw new Error("the command was not approved");
    if (peer.alive !== true) throw new Error("the process of the client has ended");
    // The policy may have been reloaded meanwhile.
    this.#decide(file, request, user, gid);
    if (String(this.#grants) !== String(grants)) throw new Error("the grants have changed");
  }

  #spawn(file: Executable, request: CommandRequest, user: TargetUser, gid: number): void {
    const { cwd, flags, timeLimitSeconds } = this.#settings;
    const { args, terminal } = request;
    const { signal, alive } = this.#peer;
    const hasEnded = "the process of the client has ended";
    if (signal !== undefined && alive !== true) throw new Error(hasEnded);
    // Another process may hold the connection open after the client has ended.
    signal?.addEventListener("abort", () => this.#disconnect(hasEnded));
    const command = new CommandProcess({
      fd: file.fd,
      args,
      uid: user.uid,
      gid,
      gids: user.gids, // the groups that the policy decided about
      environment: environmentOf(user, request.variables, terminal !== undefined),
      cwd,
      limits: flags,
      terminal,
    });
    this.#command = command;
    this.#forward(command.output, FRAME.stdout);
    if (command.errors !== undefined) this.#forward(command.errors, FRAME.stderr);
    command.ended.then(
      ({ code, signal }) => this.#finish(code, signal),
      (error) => this.#finish(null, null, reasonOf(error)),
    );
    this.#timer = setTimeout(() => this.#end("the time limit has passed"), timeLimitSeconds * 1000);
    this.#send(FRAME.started);
  }

  #forward(output: Readable, type: number): void {
    output.on("data", (bytes: Buffer) => {
      let hasRoom = true;
      for (const part of frameParts(bytes)) hasRoom = this.#send(type, part);
      if (hasRoom || this.#socket.destroyed) return;
      output.pause();
      this.#socket.once("drain", () => output.resume());
    });
  }

  #send(type: number, content: string | Uint8Array = "", sent: () => void = () => {}): boolean {
    if (!this.#socket.writable) return true;
    return this.#socket.write(encodeFrame(type, content), () => sent());
  }

  /** Ends the request, and sends the reason. */
  #end(reason: string): void {
    if (this.#isOver) return;
    this.#stop(reason);
    this.#close(FRAME.refused, reason.slice(0, MAX_REASON_LENGTH));
    const timer = setTimeout(() => this.#socket.destroy(), REQUEST_TIMEOUT_MS);
    this.#socket.once("close", () => clearTimeout(timer));
  }

  /** Ends the request of a client that has ended. */
  #disconnect(reason: string): void {
    if (!this.#isOver) this.#stop(reason);
    this.#socket.destroy();
  }

  #stop(reason: string): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#reason = reason;
    if (this.#command !== undefined) this.#command.stop(); // its end is reported
    else if (!this.#isStarted) this.#report(null, null);
  }

  /** The command has ended, or could not be started: then there is a reason. */
  #finish(code: number | null, signal: string | null, reason?: string): void {
    if (reason !== undefined) this.#end(reason);
    clearTimeout(this.#timer);
    this.#report(code, signal);
    if (this.#isOver) return;
    this.#isOver = true;
    this.#close(FRAME.exit, JSON.stringify({ code, signal }));
  }

  /** Sends the last frame. */
  #close(type: number, content: string): void {
    if (this.#socket.writable) this.#socket.end(encodeFrame(type, content));
  }

  async #reportStart(): Promise<void> {
    this.#isStarted = true;
    try {
      await this.#settings.report?.(this.#record("started"));
    } catch (error) {
      this.#isStarted = false;
      warn("report() of the helper failed", error);
      throw new Error("the command cannot be logged");
    }
  }

  /** Reports that the command has ended or was refused. */
  async #report(code: number | null, signal: string | null): Promise<void> {
    try {
      const event = this.#isStarted ? "ended" : "refused";
      await this.#settings.report?.(this.#record(event, code, signal));
    } catch (error) {
      warn("report() of the helper failed", error);
    }
  }

  #record(event: CommandRecord["event"], code: number | null = null, signal: string | null = null) {
    const { pid, uid, key } = this.#peer;
    const request = this.#request;
    return {
      event,
      pid,
      uid,
      key,
      command: request?.command,
      args: request?.args ?? [],
      user: request?.user,
      group: request?.group,
      rule: this.#rule,
      reason: this.#reason,
      code,
      signal,
      milliseconds: Math.round(performance.now() - this.#startedAt),
    };
  }
}

/** Whether a rule has a condition on an attribute. */
function isTested(rules: readonly CheckedRule[], attribute: string): boolean {
  return rules.some(({ where }) => attributesIn(where).some(({ name }) => name === attribute));
}

/** The message of an error, without the name of its class. */
function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : textOf(error);
}

/** The attributes of a request, in the vocabulary `sudo`. */
function attributesOf(
  command: string,
  { args, group }: CommandRequest,
  user: TargetUser,
  gid: number | undefined,
) {
  return {
    command,
    ...(!args.some((arg) => AMBIGUOUS.test(arg)) && {
      arguments: args.length === 0 ? null : args.join(" "),
    }),
    runasUser: user.name,
    runasUid: user.uid,
    ...(user.groups !== undefined && { runasGroups: user.groups }),
    runasGroup: group ?? null,
    runasGroupIsOwn: gid !== undefined && user.gids.includes(gid),
    host: hostname().split(".", 1)[0]!.toLowerCase(),
  };
}
