/**
 * Admission control that all servers share: identifies a connection, applies the policy and the limits, and
 * counts it.
 */

import process from "node:process";
import { UcredError } from "../../core/errors.ts";
import type { OptionNames } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import type { Attributes, Decision } from "../../core/policy/decide/decision.ts";
import { show } from "../../core/policy/document/shape.ts";
import type { Policy } from "../../core/policy/policy.ts";
import {
  type LoggedAttributes,
  mayTest,
  testedAttributes,
} from "../../core/policy/tested_attributes.ts";
import { stackOf, textOf, visible } from "../../core/text.ts";
import { closeSocket, fdOf, type UnixSocket } from "../../identity/fd.ts";
import { isClosed, isDrained } from "../../identity/hangup.ts";
import { identifyAccepted } from "../../identity/identify.ts";
import { AcceptedPeer } from "../../identity/peer.ts";
import { definePolicy } from "../../policy/define.ts";
import { foundSocketOf } from "../../system/accepted_sockets.ts";
import { ownUid } from "../../system/accounts.ts";
import { type AuditLog, truncate } from "./audit.ts";
import {
  type EndReason,
  hasSubscribers,
  publish,
  type RefusalReason,
  type ServerEvent,
} from "./events.ts";
import { type LimitName, type Limits, UserLimits } from "./limits.ts";
import { RefusalWarnings } from "./warnings.ts";

/** Where a server enforces its policy: for each connection, or for each action. */
export type DecideAt = "connection" | "action";

/** Options that decide who may connect. */
export interface AdmissionOptions {
  /**
   * The policy that decides connections and actions. Without one, root and the server's own user may do
   * everything and all others are rejected. `"anyone"` accepts every peer.
   */
  readonly policy?: Policy | "anyone" | undefined;
  /**
   * Whether to pin each peer, which `peer.process` and `drift()` need. A pin holds one descriptor for each
   * connection. By default peers are pinned if the policy has conditions that need it.
   */
  readonly pin?: boolean | undefined;
  /** Limits on the number and rate of connections. */
  readonly limits?: Limits | undefined;
  /** The audit log that records the server's events. */
  readonly audit?: AuditLog | undefined;
}

/** The option names of {@link AdmissionOptions}. */
export const ADMISSION_OPTIONS: OptionNames<AdmissionOptions> = {
  policy: true,
  pin: true,
  limits: true,
  audit: true,
};

/** Counters of a server. */
export interface ServerStats {
  /** Connections that are open. */
  readonly open: number;
  /** Connections that were accepted. */
  readonly accepted: number;
  /**
   * Connections that were refused: by the policy, by a limit, or because the peer could not be identified.
   */
  readonly refused: {
    readonly policy: number;
    readonly limits: number;
    readonly unidentified: number;
  };
  /** Connections that were refused by each limit. */
  readonly refusedByLimit: { readonly [name in LimitName]: number };
  /** Requests that were allowed. */
  readonly allowed: number;
  /** Requests that were denied. */
  readonly denied: number;
  /** Errors of handlers, and of policies that decided requests. */
  readonly failed: number;
  /** Lines that the audit log dropped. */
  readonly auditDropped: number;
}

/** An accepted connection. */
export interface Admitted {
  readonly id: number;
  readonly peer: Peer;
  /** The policy's decision about the connection itself, without an action. */
  readonly decision: Decision;
  readonly since: number;
  readonly socket: UnixSocket;
  /** Whether the server may close it, once its peer has hung up. */
  readonly mayClose: boolean;
  /** Its index in the array of open connections; −1 after it was removed. */
  index: number;
  /** Why the server ended it; `undefined` if the peer or a handler did. See `ClosedEvent`. */
  why: EndReason | undefined;
}

/** A refused connection. */
export interface RefusedConnection {
  /** Why the connection was refused. */
  readonly why: RefusalReason;
  /** The peer; `undefined` if it could not be identified. */
  readonly peer: Peer | undefined;
  /** The policy's decision; `undefined` if the connection was refused for another reason. */
  readonly decision: Decision | undefined;
}

/**
 * Limits on refused connections of an HTTP server that wait for their 403 response. They are separate from
 * the limits on accepted connections. Beyond them, connections are closed without a response, so that
 * denied users cost a bounded amount of memory.
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

/** Accepts or refuses the connections of one server, and decides their actions. */
export class Admission {
  /** The socket's path, as it appears in events. The server sets it. */
  server = "";
  readonly policy: Policy;
  /** Called for each decision of the policy about an action by {@link Admission.decide}. */
  onDecided: ((admitted: Admitted, action: string, decision: Decision) => void) | undefined;
  readonly #pin: boolean | undefined;
  readonly #limits: UserLimits;
  /** Connections that count as open, as an array: V8 takes ten times as long to delete from a Set. */
  readonly #open: Admitted[] = [];
  /** Limits on the refused connections that wait for a response. */
  readonly #refusals: UserLimits;
  readonly #warnings = new RefusalWarnings();
  readonly #audit: AuditLog | undefined;
  /** Whether a connection is accepted if the policy could allow at least one action. */
  readonly #decidesActions: boolean;
  #accepted = 0;
  readonly #refused = { policy: 0, limits: 0, unidentified: 0 };
  readonly #refusedByLimit = { connections: 0, connectionsPerUser: 0, acceptsPerSecond: 0 };
  #allowed = 0;
  #denied = 0;
  #failed = 0;

  /**
   * @param decideAt With "action", a connection is accepted if the policy could allow at least one action.
   * @throws {TypeError} If `policy` is not a policy, or `decideAt` is unknown.
   */
  constructor(options: AdmissionOptions, decideAt: DecideAt = "connection") {
    const { policy, pin, limits, audit } = options;
    if (decideAt !== "connection" && decideAt !== "action") {
      throw new TypeError(`decideAt must be "connection" or "action", not ${show(decideAt)}`);
    }
    this.policy = policyOf(policy);
    this.#pin = pin;
    this.#limits = new UserLimits(limits, ownUid, (uid) => this.#closeDead(uid));
    this.#refusals = new UserLimits(REFUSED_LIMITS, ownUid);
    this.#audit = audit;
    this.#decidesActions = decideAt === "action";
  }

  /**
   * Identifies a connection, applies the policy, and counts the connection. Any error refuses it.
   *
   * @param socket A connection that was just accepted.
   * @param mayClose Whether the server may close it once its peer has hung up and a limit is reached. If
   * not, it counts until its owner closes it.
   * @param fd The connection's descriptor, if the caller has found it.
   */
  admit(socket: UnixSocket, mayClose = true, fd?: number): Admitted | RefusedConnection {
    let peer: Peer;
    try {
      peer = identifyAccepted(fd ?? fdOf(socket), socket, this.pins());
    } catch (error) {
      return this.#refuse("unidentified", undefined, undefined, errorOf(error));
    }
    return this.admitPeer(peer, socket, mayClose);
  }

  /** Applies the policy to an identified connection, and counts the connection. Any error refuses it. */
  admitPeer(peer: Peer, socket: UnixSocket, mayClose: boolean): Admitted | RefusedConnection {
    try {
      if (!this.policy.admits(peer)) return this.#refuse("policy", peer, this.policy.decide(peer));
      const decision = this.policy.decide(peer);
      if (!this.#decidesActions && !decision.allowed) return this.#refuse("policy", peer, decision);
      const since = performance.now();
      const limit = this.#limits.acquire(peer.uid, since);
      if (limit !== undefined) return this.#refuse(limit, peer, decision);
      const id = ++this.#accepted;
      if (this.#hasListeners("accepted")) {
        this.emit({ type: "accepted", server: this.server, connection: id, peer, decision });
      }
      const index = this.#open.length;
      const admitted = { id, peer, decision, since, socket, mayClose, index, why: undefined };
      this.#open.push(admitted);
      return admitted;
    } catch (error) {
      // Any error refuses the connection, including one from an account lookup or a custom policy.
      return this.#refuse("unidentified", peer, undefined, errorOf(error));
    }
  }

  /**
   * Reserves room for the response to a connection that the policy refused.
   *
   * @returns A function that releases the room; `undefined` if the connection must be closed without a
   * response.
   */
  roomToAnswer({ why, peer }: RefusedConnection): (() => void) | undefined {
    if (why !== "policy" || peer === undefined) return undefined;
    const { uid } = peer;
    if (this.#refusals.acquire(uid) !== undefined) return undefined;
    return () => this.#refusals.release(uid);
  }

  /** Refuses a connection because its peer could not be identified. */
  unidentified(error: unknown): RefusedConnection {
    return this.#refuse("unidentified", undefined, undefined, errorOf(error));
  }

  /**
   * Decides one action of an accepted connection.
   *
   * @param logged Attributes that the audit log has beside those that the policy tested.
   */
  decide(
    admitted: Admitted,
    action: string,
    attributes?: Attributes,
    logged?: LoggedAttributes,
  ): Decision {
    const decision = this.policy.decide(admitted.peer, { action, attributes });
    this.onDecided?.(admitted, action, decision);
    return this.record(admitted, action, decision, attributes, logged);
  }

  /** Whether the policy may test attributes of a vocabulary. A reload can change it. */
  mayTest(vocabulary: string): boolean {
    return mayTest(this.policy, vocabulary);
  }

  /** Denies an action without a decision of the policy. */
  deny(admitted: Admitted, action: string, reason: string): Decision {
    return this.record(admitted, action, decisionWithout(false, reason));
  }

  /**
   * Counts a decision, and records it.
   *
   * @param logged Attributes that the audit log has beside those that the policy tested.
   */
  record(
    { id, peer }: Admitted,
    action: string,
    decision: Decision,
    attributes?: Attributes,
    logged?: LoggedAttributes,
  ): Decision {
    if (decision.allowed) this.#allowed++;
    else this.#denied++;
    if (this.#hasListeners("decided")) {
      const { server } = this;
      const tested = attributes && testedAttributes(this.policy, decision, attributes);
      const head = { type: "decided", server, connection: id, peer, action } as const;
      const all = logged === undefined ? tested : { ...logged, ...tested };
      this.emit({ ...head, attributes: all, decision });
    }
    return decision;
  }

  /** Records the end of an accepted connection. */
  ended(admitted: Admitted): void {
    this.#uncount(admitted);
    const { id, peer, since, why } = admitted;
    AcceptedPeer.endReading(peer);
    if (this.#hasListeners("closed")) {
      const milliseconds = performance.now() - since;
      this.emit({ type: "closed", server: this.server, connection: id, peer, milliseconds, why });
    }
  }

  /** Records an error of a handler or policy. Emits a process warning if the channel has no subscriber. */
  failed({ id, peer }: Admitted, error: unknown): void {
    this.#failed++;
    const { server } = this;
    if (!hasSubscribers("failed")) {
      warn(`A handler or policy of the server at ${server} failed`, error);
    }
    this.emit({ type: "failed", server, connection: id, peer, error });
  }

  /** Returns a copy of the list of connections that count as open. */
  open(): readonly Admitted[] {
    return [...this.#open];
  }

  /** Closes all open connections. */
  closeAll(): void {
    for (const { socket } of this.open()) closeSocket(socket);
  }

  stats(): ServerStats {
    return {
      open: this.#limits.open,
      accepted: this.#accepted,
      refused: { ...this.#refused },
      refusedByLimit: { ...this.#refusedByLimit },
      allowed: this.#allowed,
      denied: this.#denied,
      failed: this.#failed,
      auditDropped: this.#audit?.dropped ?? 0,
    };
  }

  #uncount(admitted: Admitted): void {
    const { index } = admitted;
    if (index === -1) return;
    const last = this.#open.pop()!;
    if (last !== admitted) this.#open[last.index = index] = last;
    admitted.index = -1;
    this.#limits.release(admitted.peer.uid);
  }

  /**
   * Closes connections that have hung up, before their "close" event arrives. Every open descriptor
   * counts, also after its peer has hung up.
   */
  #closeDead(uid: number | undefined): void {
    for (const admitted of this.open()) {
      if (uid !== undefined && admitted.peer.uid !== uid) continue;
      const { socket, mayClose } = admitted;
      if (mayClose && isDrained(socket)) closeSocket(socket);
      if (!isClosed(socket)) continue;
      foundSocketOf(socket as object)?.close(); // Deno reports no "close" for a connection that its streams have closed
      this.#uncount(admitted);
    }
  }

  /** Whether the peer of the next connection is pinned. */
  pins(): boolean {
    // `needsPin` can change between two connections when the policy is reloaded.
    return this.#pin ?? this.policy.needsPin;
  }

  #refuse(
    why: RefusalReason,
    peer: Peer | undefined,
    decision: Decision | undefined,
    error?: UcredError,
  ): RefusedConnection {
    if (why === "policy" || why === "unidentified") this.#refused[why]++;
    else {
      this.#refused.limits++;
      this.#refusedByLimit[why]++;
    }
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

  /**
   * Returns a promise that resolves once the audit log has written most of the lines of a peer's user;
   * `undefined` if few lines wait.
   */
  drained(admitted: Admitted | undefined): Promise<void> | undefined {
    return admitted === undefined ? undefined : this.#audit?.drained?.(admitted.peer.uid);
  }

  #hasListeners(type: ServerEvent["type"]): boolean {
    return this.#audit !== undefined || hasSubscribers(type);
  }

  emit(event: ServerEvent): void {
    try {
      this.#audit?.write(event);
    } catch (error) { // an error of a custom audit log must not affect admission
      warn(`The audit log of the server at ${this.server} failed`, error);
    }
    publish(event);
  }
}

/** Makes a decision that no rule has made. */
export function decisionWithout(allowed: boolean, reason: string): Decision {
  const message = allowed ? undefined : reason;
  return { allowed, reason, rule: undefined, grants: [], unknown: [], message };
}

/** Returns whether a connection was accepted. */
export function isAdmitted(answer: Admitted | RefusedConnection): answer is Admitted {
  return "id" in answer;
}

function policyOf(policy: Policy | "anyone" | undefined): Policy {
  if (policy === undefined) return definePolicy(OWN_USER_AND_ROOT);
  if (policy === "anyone") return definePolicy(ANYONE);
  if (typeof policy === "object" && typeof policy?.decide === "function") return policy;
  throw new TypeError('policy must be a Policy from definePolicy() or "ucred/policy", or "anyone"');
}

function errorOf(error: unknown): UcredError {
  if (error instanceof UcredError) return error;
  const message = `Cannot decide a connection: ${textOf(error)}`;
  const hint = "Fix the policy or its account lookup";
  return new UcredError("ERR_UCRED_POLICY", message, { hint, cause: error });
}

/** Emits a process warning. `what` is followed by the error's message. */
export function warn(what: string, error: unknown): void {
  const frames = stackOf(error).split("\n").filter((line) => /^\s+at /.test(line));
  // A client can influence the text, and an audit log may share stderr. Indented frames and escaped
  // characters keep a line from looking like a log record.
  const detail = frames.map((line) => `    ${visible(line.trim())}`).join("\n");
  const message = visible(`${what}: ${truncate(textOf(error))}`);
  process.emitWarning(message, { type: "UcredWarning", detail });
}
