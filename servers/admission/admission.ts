/** Connection → let in, with its peer, or refused: what all servers have in common. */

import process from "node:process";
import { UcredError } from "../../core/errors.ts";
import type { OptionNames } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Policy } from "../../core/policy/policy.ts";
import { stackOf, textOf, visible } from "../../core/text.ts";
import { closeSocket, fdOf, type UnixSocket } from "../../identity/fd.ts";
import { isClosed, isSpent } from "../../identity/hangup.ts";
import { identifyAt } from "../../identity/identify.ts";
import { definePolicy } from "../../policy/define.ts";
import { foundSocketOf } from "../../system/accepted_sockets.ts";
import { ownUid } from "../../system/accounts.ts";
import { type AuditLog, cut } from "./audit.ts";
import {
  type EndReason,
  hasSubscribers,
  publish,
  type RefusalReason,
  type ServerEvent,
} from "./events.ts";
import { type Limits, UserLimits } from "./limits.ts";
import { RefusalWarnings } from "./warnings.ts";

/** Who may connect. */
export interface AdmissionOptions {
  /**
   * Who may do what. Without, root and the server's own user may do everything, and nobody else
   * anything; `"anyone"` lets everybody in.
   */
  readonly policy?: Policy | "anyone" | undefined;
  /**
   * Whether peers are pinned, for `peer.process`, `drift()` and the like; it takes a descriptor for
   * each. By default where the policy asks for facts that need it.
   */
  readonly pin?: boolean | undefined;
  /** How many connections there may be. */
  readonly limits?: Limits | undefined;
  /** Where to write what happens. */
  readonly audit?: AuditLog | undefined;
}

/** The options of {@link AdmissionOptions}. */
export const ADMISSION_OPTIONS: OptionNames<AdmissionOptions> = {
  policy: true,
  pin: true,
  limits: true,
  audit: true,
};

/** What a server has seen. */
export interface ServerStats {
  /** Connections that are open now. */
  readonly open: number;
  /** Connections that were let in. */
  readonly accepted: number;
  /** Connections that were refused: by the policy, by a limit, or since the peer was not known. */
  readonly refused: {
    readonly policy: number;
    readonly limits: number;
    readonly unidentified: number;
  };
  /** Requests that were allowed. */
  readonly allowed: number;
  /** Requests that were denied. */
  readonly denied: number;
  /** Connections and requests whose handler threw. */
  readonly failed: number;
  /** Lines that the audit log could not write. */
  readonly unaudited: number;
}

/** A connection that was let in. */
export interface Admitted {
  readonly id: number;
  readonly peer: Peer;
  /** What the policy says of the connection, without an action. */
  readonly decision: Decision;
  readonly since: number;
  readonly socket: UnixSocket;
  /** Whether we may close it. */
  readonly isOurs: boolean;
  /** Where it stands among those that are open; −1 once it is not. */
  at: number;
  /** Why the server ends it, if it does; see `ClosedEvent`. */
  why: EndReason | undefined;
}

/** A connection that was refused. */
export interface RefusedConnection {
  /** Why. */
  readonly why: RefusalReason;
  /** `undefined` if it is not known. */
  readonly peer: Peer | undefined;
  /** The policy's, if it was asked. */
  readonly decision: Decision | undefined;
}

/**
 * Refused connections of an HTTP server that wait for their 403, beside those that were accepted. Beyond
 * a limit they are closed without a response, so that denied users cost no more than that.
 */
const REFUSED_LIMITS: Limits = { connections: 64, connectionsPerUser: 8, acceptsPerSecond: 64 };

const OWN_USER_AND_ROOT = {
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: true },
    { name: "the server's own user", when: { sameUser: true }, allow: true },
  ],
} as const;

const ANYONE = { version: 1, rules: [{ name: "anyone", allow: true }] } as const;

/** Lets connections in, and decides what they may do. */
export class Admission {
  /** Where the server listens, for events; set by the server. */
  server = "";
  readonly policy: Policy;
  readonly #pin: boolean | undefined;
  readonly #limits: UserLimits;
  /** What counts as open. Not a Set: V8 takes ten times as long to delete from one. */
  readonly #open: Admitted[] = [];
  /** Connections that were refused, and wait for a response that says so. */
  readonly #refusals: UserLimits;
  readonly #warnings = new RefusalWarnings();
  readonly #audit: AuditLog | undefined;
  /** Whether it is enough that some action could be allowed. */
  readonly #isPerAction: boolean;
  #accepted = 0;
  readonly #refused = { policy: 0, limits: 0, unidentified: 0 };
  #allowed = 0;
  #denied = 0;
  #failed = 0;

  /**
   * @param isPerAction Whether the server decides each action, so that a connection of which some
   * action could be allowed is let in.
   * @throws {TypeError} If the policy is none.
   */
  constructor(options: AdmissionOptions, isPerAction: boolean) {
    const { policy, pin, limits, audit } = options;
    this.policy = policyOf(policy);
    this.#pin = pin;
    this.#limits = new UserLimits(limits, ownUid, (uid) => this.#reap(uid));
    this.#refusals = new UserLimits(REFUSED_LIMITS, ownUid);
    this.#audit = audit;
    this.#isPerAction = isPerAction;
  }

  /**
   * Identifies a connection, asks the policy, and counts it. Whatever goes wrong refuses it.
   *
   * @param socket Just accepted.
   * @param isOurs Whether it may be closed, by the way that its runtime has for that, when its peer has
   * left and a limit is reached; otherwise it counts until whoever has it has closed it.
   * @param fd Its descriptor, if that is known.
   */
  admit(socket: UnixSocket, isOurs = true, fd?: number): Admitted | RefusedConnection {
    let peer: Peer | undefined;
    try {
      peer = identifyAt(fd ?? fdOf(socket), socket, this.#pins());
      if (!this.policy.admits(peer)) return this.#refuse("policy", peer, this.policy.decide(peer));
      const decision = this.policy.decide(peer);
      if (!this.#isPerAction && !decision.allowed) return this.#refuse("policy", peer, decision);
      const since = performance.now();
      const limit = this.#limits.acquire(peer.uid, since);
      if (limit !== undefined) return this.#refuse(limit, peer, decision);
      const id = ++this.#accepted;
      if (this.#hasListeners("accepted")) {
        this.emit({ type: "accepted", server: this.server, connection: id, peer, decision });
      }
      const at = this.#open.length;
      const admitted = { id, peer, decision, since, socket, isOurs, at, why: undefined };
      this.#open.push(admitted);
      return admitted;
    } catch (error) {
      // Also what an account lookup or a policy of another make throws: nobody is let in by an error.
      return this.#refuse("unidentified", peer, undefined, errorOf(error));
    }
  }

  /**
   * Room to answer a connection that the policy has refused.
   *
   * @returns What gives the room back; `undefined` if the connection is to be closed at once.
   */
  roomToAnswer({ why, peer }: RefusedConnection): (() => void) | undefined {
    if (why !== "policy" || peer === undefined) return undefined;
    const { uid } = peer;
    if (this.#refusals.acquire(uid) !== undefined) return undefined;
    return () => this.#refusals.release(uid);
  }

  /** Refuses a connection whose peer could not be told. */
  unidentified(error: unknown): RefusedConnection {
    return this.#refuse("unidentified", undefined, undefined, errorOf(error));
  }

  /** Decides one request of a connection that was let in. */
  decide(admitted: Admitted, action: string): Decision {
    return this.#record(admitted, action, this.policy.decide(admitted.peer, { action }));
  }

  /** Denies a request that the policy need not be asked about. */
  deny(admitted: Admitted, action: string, reason: string): Decision {
    const rest = { rule: undefined, grants: [], unknown: [], message: reason };
    return this.#record(admitted, action, { allowed: false, reason, ...rest });
  }

  #record({ id, peer }: Admitted, action: string, decision: Decision): Decision {
    if (decision.allowed) this.#allowed++;
    else this.#denied++;
    if (this.#hasListeners("decided")) {
      const { server } = this;
      this.emit({ type: "decided", server, connection: id, peer, action, decision });
    }
    return decision;
  }

  /** A connection that was let in has ended. */
  ended(admitted: Admitted): void {
    this.#uncount(admitted);
    const { id, peer, since, why } = admitted;
    if (this.#hasListeners("closed")) {
      const milliseconds = performance.now() - since;
      this.emit({ type: "closed", server: this.server, connection: id, peer, milliseconds, why });
    }
  }

  /** The author's handler threw. Told as a process warning if nobody watches failures. */
  failed({ id, peer }: Admitted, error: unknown): void {
    this.#failed++;
    const { server } = this;
    if (!hasSubscribers("failed")) warn(`A handler of the server at ${server} failed`, error);
    this.emit({ type: "failed", server, connection: id, peer, error });
  }

  /** The connections that count as open, as of now. */
  open(): readonly Admitted[] {
    return [...this.#open];
  }

  /** Closes all that are open. */
  cut(): void {
    for (const { socket } of this.open()) closeSocket(socket);
  }

  stats(): ServerStats {
    return {
      open: this.#limits.open,
      accepted: this.#accepted,
      refused: { ...this.#refused },
      allowed: this.#allowed,
      denied: this.#denied,
      failed: this.#failed,
      unaudited: this.#audit?.dropped ?? 0,
    };
  }

  #uncount(admitted: Admitted): void {
    const { at } = admitted;
    if (at === -1) return;
    const last = this.#open.pop()!;
    if (last !== admitted) this.#open[last.at = at] = last;
    admitted.at = -1;
    this.#limits.release(admitted.peer.uid);
  }

  /** What is counted is what has a descriptor: of a peer that has left, too, until it is given back. */
  #reap(uid: number | undefined): void {
    for (const admitted of this.open()) {
      if (uid !== undefined && admitted.peer.uid !== uid) continue;
      const { socket, isOurs } = admitted;
      if (isOurs && isSpent(socket)) closeSocket(socket);
      if (!isClosed(socket)) continue;
      foundSocketOf(socket as object)?.close(); // of a stream of Deno's, nobody else says so
      this.#uncount(admitted);
    }
  }

  #pins(): boolean {
    // A policy that follows its file may ask for more from one connection to the next.
    return this.#pin ?? this.policy.needsPin;
  }

  #refuse(
    why: RefusalReason,
    peer: Peer | undefined,
    decision: Decision | undefined,
    error?: UcredError,
  ): RefusedConnection {
    if (why === "policy" || why === "unidentified") this.#refused[why]++;
    else this.#refused.limits++;
    if (this.#hasListeners("refused")) {
      this.emit({ type: "refused", server: this.server, why, peer, decision, error });
    } else {
      const reason = why === "policy"
        ? decision?.reason ?? "The policy does not allow it"
        : error?.message ?? `The limit "${why}" is reached`;
      this.#warnings.add(this.server, peer, reason);
    }
    peer?.close();
    return { why, peer, decision };
  }

  /** Resolves once the audit log has taken what a peer's user did; `undefined` if it has. */
  drained(admitted: Admitted | undefined): Promise<void> | undefined {
    return admitted === undefined ? undefined : this.#audit?.drained?.(admitted.peer.uid);
  }

  #hasListeners(type: ServerEvent["type"]): boolean {
    return this.#audit !== undefined || hasSubscribers(type);
  }

  emit(event: ServerEvent): void {
    try {
      this.#audit?.write(event);
    } catch (error) { // one of the author's own make: it must not decide who gets in
      warn(`The audit log of the server at ${this.server} failed`, error);
    }
    publish(event);
  }
}

/** Whether a connection was let in. */
export function isAdmitted(answer: Admitted | RefusedConnection): answer is Admitted {
  return "id" in answer;
}

function policyOf(policy: Policy | "anyone" | undefined): Policy {
  if (policy === undefined) return definePolicy(OWN_USER_AND_ROOT);
  if (policy === "anyone") return definePolicy(ANYONE);
  if (typeof policy === "object" && typeof policy?.decide === "function") return policy;
  throw new TypeError('policy is one of definePolicy() or "ucred/policy", or "anyone"');
}

function errorOf(error: unknown): UcredError {
  if (error instanceof UcredError) return error;
  const message = `Cannot decide about a connection: ${textOf(error)}`;
  const hint = "Correct the policy, or the account lookup that it uses";
  return new UcredError("ERR_UCRED_POLICY", message, { hint, cause: error });
}

/** Tells the program of what went wrong, and ends nothing. `what` is continued by the error. */
export function warn(what: string, error: unknown): void {
  const frames = stackOf(error).split("\n").filter((line) => /^\s+at /.test(line));
  // A client may have had a say in the text, and an audit log may share stderr: no line begins as its.
  const detail = frames.map((line) => `    ${visible(line.trim())}`).join("\n");
  const message = visible(`${what}: ${cut(textOf(error))}`);
  process.emitWarning(message, { type: "UcredWarning", detail });
}
