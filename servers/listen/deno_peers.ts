/**
 * `withPeers()`: finds the descriptor of each connection of `Deno.listen`, identifies its peer and applies
 * the policy.
 */

import { clearInterval, setInterval } from "node:timers";
import { setTimeout } from "node:timers/promises";
import { UcredError } from "../../core/errors.ts";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { UnixSocket } from "../../identity/fd.ts";
import { checkSupport } from "../../identity/support.ts";
import {
  DescriptorFinder,
  type FoundSocket,
  foundSocketOf,
} from "../../system/accepted_sockets.ts";
import {
  Admission,
  ADMISSION_OPTIONS,
  type AdmissionOptions,
  type Admitted,
  type DecideAt,
  isAdmitted,
  type RefusedConnection,
  type ServerStats,
} from "../admission/admission.ts";
import { attachAdmission } from "../admission/attach.ts";

/** The members of `Deno.UnixConn` that are used here. */
export interface DenoConnection {
  /** Closes the connection. */
  close(): void;
}

/** The members of a `Deno.listen({ transport: "unix" })` listener that are used here. */
export interface DenoListener<C extends DenoConnection> {
  /** The listener's address. */
  readonly addr: { readonly transport: string };
  /** Accepts the next connection. */
  accept(): Promise<C>;
  /** Stops listening. */
  close(): void;
}

/** Options of {@link withPeers}. */
export interface WithPeersOptions extends AdmissionOptions {
  /** Whether the policy is enforced for the connection or by the caller for each action; see `ucred/net`. */
  readonly decideAt?: DecideAt | undefined;
}

const WITH_PEERS_OPTIONS: OptionNames<WithPeersOptions> = { ...ADMISSION_OPTIONS, decideAt: true };

/** An accepted connection. */
export interface PeerConnection<C> {
  /** The connection. The caller closes it. */
  readonly conn: C;
  /** The peer. */
  readonly peer: Peer;
  /** The policy's decision about the connection itself, without an action. */
  readonly decision: Decision;
}

/** An async iterator over accepted connections. Its `close()` closes the listener. */
export interface PeerListener<C> extends AsyncIterableIterator<PeerConnection<C>, undefined> {
  /** Returns the listener's counters. */
  stats(): ServerStats;
  /** Stops listening; open connections stay open. */
  close(): void;
  /** {@link PeerListener.close}, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * Identifies each connection of a Unix listener, and yields those that the policy allows.
 *
 * Nothing else in the process may accept on this listener, or on another one that was bound to the same
 * path: their connections would look alike. A connection counts as open until `conn.close()`, or for up
 * to a second after its streams have closed it.
 *
 * @experimental Deno does not expose the descriptor of a connection, so it is searched for among those of the
 * process. If a future Deno accepts connections in another way, they are refused.
 * @param listener The listener. It is closed when the iteration ends.
 * @throws {TypeError} If `listener` is not a Unix listener, or an option is unknown.
 * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` on systems other than Linux; `ERR_UCRED_LISTEN` if
 * `withPeers()` already has the listener, or another listener of the process is bound to the same path.
 */
export function withPeers<C extends DenoConnection>(
  listener: DenoListener<C>,
  options: WithPeersOptions = {},
): PeerListener<C> {
  requireOptions("withPeers()", options, WITH_PEERS_OPTIONS);
  const { transport, path } = listener.addr as { transport: string; path?: unknown };
  if (transport !== "unix" || typeof path !== "string") {
    throw new TypeError(
      'withPeers() requires a listener of Deno.listen({ transport: "unix", path })',
    );
  }
  checkSupport();
  const admission = new Admission(options, options.decideAt);
  admission.server = path;
  if (listenersInUse.has(listener)) {
    const message = `Cannot accept at ${
      JSON.stringify(path)
    }: withPeers() has this listener already`;
    throw new UcredError("ERR_UCRED_LISTEN", message, { hint: "Call withPeers() once" });
  }
  const peers = new Peers(listener, new DescriptorFinder(path), admission);
  listenersInUse.add(listener);
  return peers;
}

/** Listeners in use: two finders on one listener could confuse each other's connections. */
const listenersInUse = new WeakSet<object>();

/**
 * Responds to a refused connection and then calls `close`, which may be called more than once. Returns
 * `false` if it does not respond.
 */
export type AnswerRefused<C> = (conn: C, refused: RefusedConnection, close: () => void) => boolean;

function closeConnection(conn: DenoConnection): void {
  try {
    conn.close();
  } catch {
    // already closed
  }
}

/** How often to look for connections that streams have closed. */
const SWEEP_MS = 1000;

/** How long to wait after accept(2) has failed, as it does without free descriptors. */
const ACCEPT_RETRY_MS = 50;

/** Implements {@link withPeers} with an admission and a descriptor finder of the caller. */
export class Peers<C extends DenoConnection> implements PeerListener<C> {
  readonly #listener: DenoListener<C>;
  readonly #finder: DescriptorFinder;
  readonly #admission: Admission;
  #sweeper: ReturnType<typeof setInterval> | undefined;
  /** Pending calls of `next()`, and the promise of the last one. */
  #calls = 0;
  #last: Promise<unknown> = Promise.resolve();
  #isClosed = false;
  readonly #answer: AnswerRefused<C>;

  /** @param answer Responds to refused connections. By default they are closed. */
  constructor(
    listener: DenoListener<C>,
    finder: DescriptorFinder,
    admission: Admission,
    answer: AnswerRefused<C> = () => false,
  ) {
    this.#listener = listener;
    this.#finder = finder;
    this.#admission = admission;
    this.#answer = answer;
  }

  next(): Promise<IteratorResult<PeerConnection<C>, undefined>> {
    // Accepts run one at a time, so that the new descriptor belongs to the last accept.
    const next = this.#calls++ === 0 ? this.#next() : this.#last.then(() => this.#next());
    this.#last = next;
    return next;
  }

  return(): Promise<IteratorResult<PeerConnection<C>, undefined>> {
    this.close();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  stats(): ServerStats {
    return this.#admission.stats();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#listener.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Returns the next accepted connection. Must not be called while another call is pending.
   *
   * @returns `undefined` once the listener is closed.
   */
  async accept(): Promise<{ readonly conn: C; readonly admitted: Admitted } | undefined> {
    while (!this.#isClosed) {
      let conn: C;
      try {
        conn = await this.#listener.accept();
      } catch (error) {
        if (isClosing(error)) break;
        await setTimeout(ACCEPT_RETRY_MS);
        continue;
      }
      const answer = this.#admit(conn);
      if (isAdmitted(answer)) return { conn, admitted: answer };
    }
    this.#isClosed = true;
    return undefined;
  }

  async #next(): Promise<IteratorResult<PeerConnection<C>, undefined>> {
    let accepted: { readonly conn: C; readonly admitted: Admitted } | undefined;
    try {
      accepted = await this.accept();
    } finally {
      this.#calls--;
    }
    if (accepted === undefined) return { done: true, value: undefined };
    const { conn, admitted: { peer, decision } } = accepted;
    const found = foundSocketOf(conn)!;
    const close = conn.close;
    conn.close = () => {
      found.close();
      close.call(conn);
    };
    // Deno reports no event when its streams close a connection.
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
    return { done: false, value: { conn, peer, decision } };
  }

  /** Runs synchronously after accept(), before another connection can be accepted. */
  #admit(conn: C): Admitted | RefusedConnection {
    let found: FoundSocket;
    try {
      found = this.#finder.find(conn);
    } catch (error) {
      conn.close();
      return this.#admission.unidentified(error);
    }
    const answer = this.#admission.admit(conn as unknown as UnixSocket, false, found.fd);
    if (!isAdmitted(answer)) {
      const close = () => {
        found.close();
        closeConnection(conn);
      };
      if (!this.#answer(conn, answer, close)) close();
      return answer;
    }
    attachAdmission(conn, answer);
    found.once("close", () => this.#admission.ended(answer));
    return answer;
  }

  #sweep(): void {
    const open = this.#admission.open();
    for (const { socket } of open) {
      const found = foundSocketOf(socket as unknown as C)!;
      if (!found.isOpen()) found.close();
    }
    if (open.length > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }
}

/** Returns whether accept() failed because the listener was closed. */
function isClosing(error: unknown): boolean {
  return error instanceof Error && /^(BadResource|Interrupted)$/.test(error.name);
}
