/** One connection to the upstream. It sends requests one by one, and parses the responses. */

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { endOfHead, MAX_HEAD_BYTES, type Response, ResponseParser } from "./message.ts";

/** Receives the response to a request. */
export interface Receiver {
  /**
   * Receives the head, and later parts of the body.
   *
   * @param response The head with the first call, `undefined` with further ones.
   */
  onResponse(
    response: Response | undefined,
    parts: readonly Buffer[],
    isEnd: boolean,
    trailers: readonly string[],
  ): void;
  /** Receives a 101 and the bytes after it. The socket is the receiver's from now on. */
  onSwitch(response: Response, socket: Socket, bytes: Buffer): void;
  /** Receives an error. The connection is closed. @param isReset Whether the upstream has sent nothing. */
  onFailure(error: Error, isReset: boolean): void;
  /** The upstream reads again. */
  onDrain(): void;
  /** Does some work for the connection. An error ends the connection only. */
  attempt(work: () => void): void;
}

/** A connection to the upstream. */
export class UpstreamConnection {
  readonly #socket: Socket;
  readonly #receiver: Receiver;
  readonly #parser = new ResponseParser();
  /** The first part of a head that is still incomplete. */
  #pending: Buffer | undefined;
  /** Whether a response is expected. */
  #isBusy = false;
  #isOpen = true;
  #hasBytes = false;
  #error: Error | undefined;
  readonly #onData = (bytes: Buffer) => this.#receiver.attempt(() => this.#receive(bytes));
  readonly #onEnd = () => this.#receiver.attempt(() => this.#end());
  readonly #onClose = () => {
    const error = this.#error ?? new Error("it closed the connection before it had answered");
    this.#receiver.attempt(() => this.#fail(error));
  };
  readonly #onDrain = () => this.#receiver.attempt(() => this.#receiver.onDrain());

  constructor(socket: Socket, receiver: Receiver) {
    this.#socket = socket;
    this.#receiver = receiver;
    socket.on("data", this.#onData).on("end", this.#onEnd).on("close", this.#onClose)
      .on("drain", this.#onDrain).on("error", (error) => this.#error ??= error);
  }

  /** Whether it can send a request. */
  get isFree(): boolean {
    return this.#isOpen && !this.#isBusy;
  }

  /** Whether the connection is open. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Sends the start of a request. Returns `false` if no more should be sent until `onDrain()`. */
  begin(bytes: string | Buffer, isHead: boolean): boolean {
    this.#isBusy = true;
    this.#hasBytes = false;
    this.#parser.reset();
    this.#parser.isHead = isHead;
    return this.write(bytes);
  }

  /** Sends more of a request. */
  write(bytes: string | Buffer): boolean {
    return typeof bytes === "string"
      ? this.#socket.write(bytes, "latin1")
      : this.#socket.write(bytes);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Closes the connection. The receiver is not notified. */
  destroy(): void {
    if (!this.#isOpen) return;
    this.#leave();
    this.#socket.destroy();
  }

  #leave(): void {
    this.#isOpen = this.#isBusy = false;
    this.#pending = undefined;
    this.#parser.close();
    this.#socket.off("data", this.#onData).off("end", this.#onEnd).off("close", this.#onClose)
      .off("drain", this.#onDrain);
  }

  #fail(error: Error): void {
    const isBusy = this.#isBusy;
    this.destroy();
    if (isBusy) this.#receiver.onFailure(error, !this.#hasBytes);
  }

  #end(): void {
    const parser = this.#parser;
    if (this.#isBusy && parser.response?.framing === "close") {
      parser.finish();
      if (parser.isComplete && parser.error === undefined) {
        this.destroy();
        return this.#receiver.onResponse(undefined, [], true, []);
      }
    }
    this.#onClose();
  }

  #receive(bytes: Buffer): void {
    // Without a request, the bytes would be read as the response to the next one.
    if (!this.#isBusy) return this.destroy();
    this.#hasBytes = true;
    const parser = this.#parser;
    let rest = bytes;
    while (true) {
      const isFirst = parser.response === undefined;
      let used: number;
      if (isFirst) {
        const searched = this.#pending?.length ?? 0;
        if (this.#pending !== undefined) rest = Buffer.concat([this.#pending, rest]);
        const end = endOfHead(rest, searched);
        if ((end === -1 ? rest.length : end) > MAX_HEAD_BYTES) {
          return this.#fail(new Error("the head of its response is too long"));
        }
        if (end === -1) {
          if (searched === 0 && rest.length > 0 && !parser.canStart(rest)) {
            return this.#fail(new Error("it does not answer with HTTP"));
          }
          return void (this.#pending = rest);
        }
        this.#pending = undefined;
        used = parser.parseHead(rest, end);
      } else used = parser.parseBody(rest);
      if (parser.error !== undefined) {
        return this.#fail(new Error(`its response is malformed: ${parser.error}`));
      }
      const { response, parts, isComplete, trailers } = parser;
      const { status, isReusable } = response!;
      rest = rest.subarray(used);
      if (status === 101) {
        const socket = this.#socket;
        this.#leave();
        return this.#receiver.onSwitch(response!, socket, rest);
      }
      if (status < 200) { // an interim response is not forwarded
        parser.reset();
        if (rest.length === 0) return;
        continue;
      }
      const hasSurplus = isComplete && rest.length > 0;
      if (hasSurplus && isFirst) return this.#fail(new Error("bytes follow its response"));
      if (isComplete) {
        this.#isBusy = false;
        if (hasSurplus || !isReusable) this.destroy();
      }
      return this.#receiver.onResponse(isFirst ? response : undefined, parts, isComplete, trailers);
    }
  }
}
