/**
 * Responds to the first request of a refused connection with 403, and closes the connection.
 *
 * The connection reaches no HTTP parser and no handler: the bytes up to the end of the first header are
 * discarded, and one response is written.
 */

import type { Socket } from "node:net";
import { clearTimeout, setTimeout } from "node:timers";
import { headersOf, type Problem } from "./problem.ts";

/** How long a refused connection may take to send its first request, and then to read the response. */
const REFUSED_TIMEOUT_MS = 2000;

/** Maximum size of the request line and headers, as in node:http. */
const MAX_HEADER_BYTES = 16384;

const END = "\r\n\r\n";
const HEAD = "HEAD ";

/** Finds the end of the first request's headers. The cost of each byte is constant. */
export class FirstRequest {
  /** How many bytes were added. */
  #count = 0;
  /** How many characters of END the last bytes match. */
  #matched = 0;
  /** The first characters, as many as "HEAD " has. */
  #start = "";

  /** Adds received bytes. Returns "answer" at the end of the headers. */
  add(bytes: Uint8Array): "more" | "answer" | "too long" {
    for (const byte of bytes) {
      // Each byte becomes one character; only ASCII matters here.
      if (this.#count++ < HEAD.length) this.#start += String.fromCharCode(byte);
      if (byte === END.charCodeAt(this.#matched)) this.#matched++;
      else this.#matched = byte === END.charCodeAt(0) ? 1 : 0;
      if (this.#matched === END.length) return "answer";
      if (this.#count >= MAX_HEADER_BYTES) return "too long";
    }
    return "more";
  }

  /** Returns the complete response to the request. */
  response(problem: Problem): string {
    const fields = Object.entries({ ...headersOf(problem), connection: "close" });
    const head = fields.map(([name, value]) => `${name}: ${value}\r\n`).join("");
    const body = this.#start === HEAD ? "" : problem.body;
    return `HTTP/1.1 ${problem.status} ${problem.title}\r\n${head}\r\n${body}`;
  }
}

/** Responds to the first request of a node:net socket, and closes it. */
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
    // Further data is discarded: a reset could overtake the response.
    socket.resume().end(request.response(problem));
  };
  socket.on("data", onData).once("end", () => isAnswered || socket.destroySoon());
}

const REFUSAL = Symbol("ucred.refusal");

/**
 * Sets the response to all requests of a refused connection, which {@link refusalOf} returns.
 * Needed on Bun, where http.Server reads connections natively.
 */
export function refuseRequests(socket: Socket, problem: Problem): void {
  (socket as { [REFUSAL]?: Problem })[REFUSAL] = problem;
  const timer = setTimeout(() => socket.destroy(), REFUSED_TIMEOUT_MS);
  socket.once("close", () => clearTimeout(timer));
}

/** Returns the response to the requests of a refused connection. */
export function refusalOf(socket: object): Problem | undefined {
  return (socket as { [REFUSAL]?: Problem })[REFUSAL];
}

/** The members of `Deno.UnixConn` that are used here. */
export interface DenoStream {
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
}

/**
 * Responds to the first request of a connection of Deno.listen, and closes it, like {@link refuseSocket}.
 *
 * @param close Closes the connection, which ends pending reads and writes. May be called more than once.
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
    // the peer has hung up, or the timeout is over
  } finally {
    clearTimeout(timer);
    close();
  }
}
