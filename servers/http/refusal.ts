/**
 * A refused peer of an HTTP server → 403 as the response to its first request, and then the end.
 *
 * No HTTP parser and no handler ever sees the connection: the bytes up to the end of the first header
 * are discarded, and one response is written.
 */

import type { Socket } from "node:net";
import { clearTimeout, setTimeout } from "node:timers";
import { headersOf, type Problem } from "./problem.ts";

/** How long a refused connection may take to send its first request, and to read the response, in ms. */
const REFUSED_TIMEOUT_MS = 2000;

/** In bytes, of the request line and the headers: as node:http has it. */
const MAX_HEADER = 16384;

const END = "\r\n\r\n";

/** Finds the end of the first request's header. */
export class FirstRequest {
  #text = "";

  /** Takes what was received. "more", or how to go on. */
  add(bytes: Uint8Array): "more" | "answer" | "too long" {
    // Bytes as characters: what is not ASCII is of no interest here.
    for (const byte of bytes) {
      this.#text += String.fromCharCode(byte);
      if (this.#text.endsWith(END)) return "answer";
      if (this.#text.length >= MAX_HEADER) return "too long";
    }
    return "more";
  }

  /** The whole response to it. */
  response(problem: Problem): string {
    const fields = Object.entries({ ...headersOf(problem), connection: "close" });
    const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join("");
    const body = this.#text.startsWith("HEAD ") ? "" : problem.body;
    return `HTTP/1.1 ${problem.status} ${problem.title}\r\n${head}\r\n${body}`;
  }
}

/** Answers the first request that a socket of node:net brings, and closes it. */
export function refuseSocket(socket: Socket, problem: Problem): void {
  const request = new FirstRequest();
  let isAnswered = false;
  let timer = setTimeout(() => socket.destroy(), REFUSED_TIMEOUT_MS);
  socket.once("close", () => clearTimeout(timer));
  const onData = (bytes: Uint8Array) => {
    const found = request.add(bytes);
    if (found === "more") return;
    if (found === "too long") return void socket.destroy();
    clearTimeout(timer);
    timer = setTimeout(() => socket.destroy(), REFUSED_TIMEOUT_MS);
    isAnswered = true;
    socket.off("data", onData);
    // What else comes is discarded: a reset could overtake the response.
    socket.resume().end(request.response(problem));
  };
  socket.on("data", onData).once("end", () => isAnswered || socket.destroySoon());
}

const REFUSAL = Symbol("ucred.refusal");

/**
 * Has the requests of a connection answered by its server, which finds the answer by {@link refusalOf}:
 * in Bun, whose http.Server reads the connection by itself.
 */
export function refuseRequests(socket: Socket, problem: Problem): void {
  (socket as { [REFUSAL]?: Problem })[REFUSAL] = problem;
  const timer = setTimeout(() => socket.destroy(), REFUSED_TIMEOUT_MS);
  socket.once("close", () => clearTimeout(timer));
}

/** What the requests of a refused connection are answered with. */
export function refusalOf(socket: object): Problem | undefined {
  return (socket as { [REFUSAL]?: Problem })[REFUSAL];
}

/** What is used of a `Deno.UnixConn`. */
export interface DenoStream {
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
}

/**
 * {@link refuseSocket} for a connection of Deno.listen.
 *
 * @param close Closes it, which ends what is pending. Called in any case, perhaps more than once.
 */
export async function refuseStream(
  stream: DenoStream,
  problem: Problem,
  close: () => void,
): Promise<void> {
  const request = new FirstRequest();
  const buffer = new Uint8Array(4096);
  let timer = setTimeout(close, REFUSED_TIMEOUT_MS);
  try {
    for (let found = "more"; found !== "answer";) {
      const length = await stream.read(buffer);
      if (length === null) return;
      found = request.add(buffer.subarray(0, length));
      if (found === "too long") return;
    }
    clearTimeout(timer);
    timer = setTimeout(close, REFUSED_TIMEOUT_MS);
    const bytes = new TextEncoder().encode(request.response(problem));
    for (let sent = 0; sent < bytes.length;) sent += await stream.write(bytes.subarray(sent));
    await stream.closeWrite();
    while (await stream.read(buffer) !== null);
  } catch {
    // the peer has left, or the time is over
  } finally {
    clearTimeout(timer);
    close();
  }
}
