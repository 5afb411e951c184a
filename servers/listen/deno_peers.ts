/** Deno.listen: each connection is found, identified and asked about before anybody gets it. */

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
  isAdmitted,
  type RefusedConnection,
  type ServerStats,
} from "../admission/admission.ts";
import { attachAdmission } from "../admission/attach.ts";

/** A `Deno.UnixConn`, as far as it matters here. */
export interface DenoConnection {
  /** Ends it. */
  close(): void;
}

/** A listener of `Deno.listen({ transport: "unix" })`, as far as it matters here. */
export interface DenoListener<C extends DenoConnection> {
  /** Where it listens. */
  readonly addr: { readonly transport: string };
  /** The next connection. */
  accept(): Promise<C>;
  /** Listens no longer. */
  close(): void;
}

/** Who may connect. */
export interface WithPeersOptions extends AdmissionOptions {
  /** Whether who handles the connection decides each action; see `ucred/net`. */
  readonly perAction?: boolean | undefined;
}

const WITH_PEERS_OPTIONS: OptionNames<WithPeersOptions> = { ...ADMISSION_OPTIONS, perAction: true };

/** A connection that was let in. */
export interface PeerConnection<C> {
  /** Close it when you are done. */
  readonly conn: C;
  /** Who it is. */
  readonly peer: Peer;
  /** What the policy says of the connection, without an action. */
  readonly decision: Decision;
}

/** Connections that were let in, one after the other. Its `close()` closes the listener. */
export interface PeerListener<C> extends AsyncIterableIterator<PeerConnection<C>, undefined> {
  /** What it has seen. */
  stats(): ServerStats;
  /** Listens no longer; connections that are open stay so. */
  close(): void;
  /** {@link PeerListener.close}, for `using`. */
  [Symbol.dispose](): void;
}

/**
 * Identifies each connection of a Unix listener, and lets in whom the policy lets in.
 *
 * From now on nothing else in the process may accept on this listener, or on another one that was bound
 * to the same path: a connection of that one could be taken for one of this one. A connection
 * counts as open until `conn.close()`, or for up to a second after its streams have closed it.
 *
 * @param listener Is closed when the iteration ends.
 * @throws {TypeError} If it is no Unix listener, or there is no option of a name.
 * @throws {UcredError} `ERR_UCRED_UNSUPPORTED` on other systems than Linux; `ERR_UCRED_LISTEN` if the
 * listener was given before, or another one in the process is bound to the same path.
 */
export function withPeers<C extends DenoConnection>(
  listener: DenoListener<C>,
  options: WithPeersOptions = {},
): PeerListener<C> {
  requireOptions("withPeers()", options, WITH_PEERS_OPTIONS);
  const { transport, path } = listener.addr as { transport: string; path?: unknown };
  if (transport !== "unix" || typeof path !== "string") {
    throw new TypeError('withPeers() takes a listener of Deno.listen({ transport: "unix", path })');
  }
  checkSupport();
  const admission = new Admission(options, options.perAction ?? false);
  admission.server = path;
  if (taken.has(listener)) {
    const message = `Cannot accept at ${
      JSON.stringify(path)
    }: withPeers() has this listener already`;
    throw new UcredError("ERR_UCRED_LISTEN", message, { hint: "Call withPeers() once" });
  }
  const peers = new Peers(listener, new DescriptorFinder(path), admission);
  taken.add(listener);
  return peers;
}

/** Two that accept on one listener could mistake each other's connections. */
const taken = new WeakSet<object>();

/**
 * Answers a refused connection, and then closes it by `close`, which may be called more than once; or
 * returns `false`.
 */
export type AnswerRefused<C> = (conn: C, refused: RefusedConnection, close: () => void) => boolean;

function closeConnection(conn: DenoConnection): void {
  try {
    conn.close();
  } catch {
    // it is closed already
  }
}

/** How often is looked for connections that were closed behind our back, in ms. */
const SWEEP = 1000;

/** How long to wait when accept(2) fails, as it does when descriptors have run out, in ms. */
const ACCEPT_RETRY_MS = 50;

/** {@link withPeers}, with an admission and an acceptor of the caller's. */
export class Peers<C extends DenoConnection> implements PeerListener<C> {
  readonly #listener: DenoListener<C>;
  readonly #acceptor: DescriptorFinder;
  readonly #admission: Admission;
  #sweeper: ReturnType<typeof setInterval> | undefined;
  /** Calls of `next()` that have no answer yet, and the last of them. */
  #calls = 0;
  #last: Promise<unknown> = Promise.resolve();
  #isClosed = false;
  readonly #answer: AnswerRefused<C>;

  /** @param answer What becomes of refused connections: by default they are closed. */
  constructor(
    listener: DenoListener<C>,
    acceptor: DescriptorFinder,
    admission: Admission,
    answer: AnswerRefused<C> = () => false,
  ) {
    this.#listener = listener;
    this.#acceptor = acceptor;
    this.#admission = admission;
    this.#answer = answer;
  }

  next(): Promise<IteratorResult<PeerConnection<C>, undefined>> {
    // One accept at a time: what is found after it is what it accepted.
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
   * The next connection that is let in; not before the last call has ended.
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
    const claim = foundSocketOf(conn)!;
    const close = conn.close;
    conn.close = () => {
      claim.close();
      close.call(conn);
    };
    // Deno's streams close a connection without a word.
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP).unref();
    return { done: false, value: { conn, peer, decision } };
  }

  /** Synchronously after accept: until then nothing else can have been accepted. */
  #admit(conn: C): Admitted | RefusedConnection {
    let claim: FoundSocket;
    try {
      claim = this.#acceptor.find(conn);
    } catch (error) {
      conn.close();
      return this.#admission.unidentified(error);
    }
    const answer = this.#admission.admit(conn as unknown as UnixSocket, false, claim.fd);
    if (!isAdmitted(answer)) {
      const close = () => {
        claim.close();
        closeConnection(conn);
      };
      if (!this.#answer(conn, answer, close)) close();
      return answer;
    }
    attachAdmission(conn, answer);
    claim.once("close", () => this.#admission.ended(answer));
    return answer;
  }

  #sweep(): void {
    const open = this.#admission.open();
    for (const { socket } of open) {
      const claim = foundSocketOf(socket as unknown as C)!;
      if (!claim.isOpen()) claim.close();
    }
    if (open.length > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }
}

/** Whether accept() failed since the listener was closed. */
function isClosing(error: unknown): boolean {
  return error instanceof Error && /^(BadResource|Interrupted)$/.test(error.name);
}
