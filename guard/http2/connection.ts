/** One client of a guard that speaks HTTP/2 with prior knowledge, and its sessions with the upstream. */

import type { Buffer } from "node:buffer";
import type { ClientHttp2Session, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { nodeHttp2 } from "../../adapters/builtins.ts";
import { isHungUp } from "../../identity/hangup.ts";
import type { Admitted } from "../../servers/admission/admission.ts";
import { type IdentityFields, peerFields } from "../headers.ts";
import { MAX_HEAD_BYTES } from "../http/message.ts";
import type { HttpShared } from "../http/shared.ts";
import { ERROR_CODE, Exchange, type Owner, reset } from "./exchange.ts";
import { ResetBudget, type UserStreams } from "./limits.ts";

/** Open streams of one connection. RFC 9113, 6.5.2, recommends at least 100. */
const MAX_STREAMS = 100;

/** How long a connection without streams stays open. */
const IDLE_TIMEOUT_MS = 300_000;

/** How long a client may take to close its connection after GOAWAY. */
const CLOSE_TIMEOUT_MS = 5000;

/** How long the upstream may take to send its SETTINGS. */
const SETTINGS_TIMEOUT_MS = 10_000;

/** Connections to the upstream: one for new streams, and one whose last streams end after GOAWAY. */
const MAX_UPSTREAM_SESSIONS = 2;

/** By default, `node:http2` throws in this process if a field that allows a single value is repeated. */
const COMMON = { strictSingleValueFields: false };

/** A client's connection. Its streams are decided one by one. */
export class Http2Connection implements Owner {
  readonly admitted: Admitted;
  hasRequested = true;
  readonly shared: HttpShared;
  readonly identity: IdentityFields;
  readonly #socket: Socket;
  readonly #streams: UserStreams;
  readonly #session: ServerHttp2Session;
  readonly #resets = new ResetBudget();
  readonly #exchanges = new Set<Exchange>();
  /** The session for the next stream. */
  #upstream: Promise<ClientHttp2Session> | undefined;
  readonly #upstreams = new Set<ClientHttp2Session>();
  /** When the connection is closed although its client has not closed it, by `performance.now()`. */
  #deadline = performance.now() + IDLE_TIMEOUT_MS;
  #isClosing = false;

  /** @param bytes What was read from the socket: the preface, and possibly more. */
  constructor(
    socket: Socket,
    admitted: Admitted,
    bytes: Buffer,
    shared: HttpShared & { readonly streams: UserStreams },
  ) {
    this.#socket = socket;
    this.admitted = admitted;
    this.shared = shared;
    this.#streams = shared.streams;
    this.identity = peerFields(admitted.peer);
    // Node reads these bytes in one piece, because the socket is paused, at the next tick. Bun reads them
    // once the socket flows.
    socket.pause();
    this.#session = nodeHttp2().performServerHandshake(socket, {
      ...COMMON,
      settings: { maxConcurrentStreams: MAX_STREAMS, maxHeaderListSize: MAX_HEAD_BYTES },
    });
    socket.unshift(bytes);
    socket.resume();
    this.#session.on("error", () => {}) // "close" follows
      // Parameters have types, since those of Deno for this event have none.
      .on("stream", (stream: ServerHttp2Stream, _: unknown, flags: number, raw: string[]) => {
        this.attempt(() => this.#onStream(stream, flags, raw));
      })
      .once("close", () => this.#end());
    socket.once("end", () => this.attempt(() => this.#onHalfClose()))
      .once("close", () => this.#end());
  }

  attempt(work: () => unknown): void {
    try {
      work();
    } catch (error) { // an account lookup, or an error of ours
      this.shared.admission.failed(this.admitted, error);
      this.#socket.destroy();
    }
  }

  /** Accepts no more streams, and closes the connection after the last one. */
  shutDown(): void {
    this.#isClosing = true;
    this.#deadline = performance.now() + CLOSE_TIMEOUT_MS;
    if (!this.#session.destroyed) this.#session.close();
  }

  /** Enforces the timeouts, and notices hang-ups that the runtime does not report. */
  sweep(now: number): void {
    if (isHungUp(this.#socket)) return void this.#socket.destroy();
    for (const exchange of this.#exchanges) this.attempt(() => exchange.checkBody());
    // Node closes the socket of an ended session once the client has read everything.
    if (this.#session.destroyed && !this.#isClosing) this.shutDown();
    if (this.#exchanges.size > 0 || now <= this.#deadline) return;
    if (this.#isClosing) this.#socket.destroy();
    else this.shutDown();
  }

  upstream(): Promise<ClientHttp2Session> {
    if (this.#upstream !== undefined) return this.#upstream;
    const leave = () => {
      if (this.#upstream === attempt) this.#upstream = undefined; // the next stream needs a new session
    };
    const attempt: Promise<ClientHttp2Session> = this.#connect(leave);
    attempt.catch(leave);
    return this.#upstream = attempt;
  }

  #onStream(stream: ServerHttp2Stream, flags: number, raw: readonly string[]): void {
    stream.on("error", () => {}); // "close" follows
    const { uid } = this.admitted.peer;
    const streams = this.#streams;
    if (stream.destroyed || !streams.acquire(uid)) {
      this.#countReset();
      return reset(stream, ERROR_CODE.refusedStream);
    }
    const exchange = new Exchange(this, stream, flags);
    this.#exchanges.add(exchange);
    stream.once("close", () => {
      streams.release(uid);
      this.#exchanges.delete(exchange);
      this.#deadline = performance.now() + (this.#isClosing ? CLOSE_TIMEOUT_MS : IDLE_TIMEOUT_MS);
      if (!exchange.isAnswered) this.#countReset();
    });
    exchange.start(raw);
  }

  /** The client sends no more frames, but may still read. */
  #onHalfClose(): void {
    if (isHungUp(this.#socket)) return void this.#socket.destroy();
    this.shutDown();
    for (const exchange of this.#exchanges) exchange.onClientEnd();
  }

  #countReset(): void {
    if (this.#resets.spend(performance.now()) || this.#session.destroyed) return;
    this.admitted.why ??= "resets";
    this.#session.destroy(undefined, ERROR_CODE.enhanceYourCalm);
  }

  /** @param leave Called when the session accepts no more streams. */
  async #connect(leave: () => void): Promise<ClientHttp2Session> {
    const { peer } = this.admitted;
    const socket = await this.shared.upstream.connect({ socket: this.#socket, peer });
    if (this.#socket.destroyed) {
      socket.destroy();
      throw new Error("the client has hung up");
    }
    if (this.#upstreams.size >= MAX_UPSTREAM_SESSIONS) {
      const [oldest] = this.#upstreams;
      oldest!.destroy();
    }
    const session = nodeHttp2().connect("http://localhost", {
      ...COMMON,
      createConnection: () => socket,
      settings: { enablePush: false, maxHeaderListSize: MAX_HEAD_BYTES },
    });
    this.#upstreams.add(session);
    session.on("goaway", leave).once("close", () => {
      this.#upstreams.delete(session);
      socket.destroy();
      leave();
    });
    // Node does not end the session, because the socket is still open for writing.
    socket.once("end", () => {
      this.attempt(() => {
        for (const exchange of this.#exchanges) exchange.onServerEnd(session);
        session.close();
      });
    });
    // An upstream without HTTP/2 would read requests as something else. It sends no SETTINGS.
    return await new Promise((resolve, reject) => {
      let why = "it closed the connection";
      const fail = () => reject(new Error(`it does not answer with HTTP/2: ${why}`));
      const timer = setTimeout(() => {
        why = "it sent no SETTINGS in time";
        session.destroy();
      }, SETTINGS_TIMEOUT_MS);
      session.once("remoteSettings", () => {
        clearTimeout(timer);
        resolve(session);
      }).on("error", ({ message }) => why = message).once("close", () => {
        clearTimeout(timer);
        fail();
      });
    });
  }

  /** Closes everything that belongs to the client. */
  #end(): void {
    for (const session of this.#upstreams) session.destroy();
    this.#socket.destroy();
  }
}
