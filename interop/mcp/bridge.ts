/** Connects an MCP client that uses standard streams to a server at a Unix socket. */

import { once } from "node:events";
import type { Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { VerifyingClient } from "../../client/mod.ts";
import { isObject, ownField } from "./arguments.ts";
import { CODE, type Message, messageOf, type RequestId } from "./judge.ts";
import { eventsOf } from "./server_sent_events.ts";

/** The streams of the client. */
export interface ClientStreams {
  /** Receives the client's messages, one on each line. */
  readonly input: Readable;
  /** Sends messages to the client. */
  readonly output: Writable;
}

/**
 * Forwards bytes between a client and a server that has one message on each line, until the server half-closes
 * or closes the connection. The end of the input half-closes it.
 *
 * @returns Whether the input had ended before.
 */
export async function bridgeLines(socket: Socket, streams: ClientStreams): Promise<boolean> {
  const { input, output } = streams;
  let hasEnded = false;
  input.once("end", () => hasEnded = true);
  socket.on("error", () => {}); // "close" follows
  // The server sends no more: requests would get no response.
  socket.once("end", () => socket.destroy());
  const closed = new Promise((resolve) => socket.once("close", resolve));
  input.pipe(socket);
  socket.pipe(output, { end: false });
  await closed;
  input.unpipe(socket);
  return hasEnded;
}

/** Maximum requests that wait for their responses. While so many wait, no further message is read. */
const MAX_OPEN = 64;

/** The pause before the stream of the server's own messages is opened again. */
const RETRY_MS = 1000;

/** How long the request that ends the session may take. */
const END_TIMEOUT_MS = 1000;

/** The server does not know the session, for example because it has ended. */
export class SessionLost extends Error {}

/** Options of {@link bridgeHttp}. */
export interface HttpBridgeOptions extends ClientStreams {
  /** The client of the server's socket. */
  readonly client: VerifyingClient;
  /** The path of the server: "/mcp". */
  readonly path: string;
  /** Ends the bridge. */
  readonly signal: AbortSignal;
}

/**
 * Forwards messages between a client and a server with Streamable HTTP, until the input ends and all requests
 * have their responses.
 *
 * @throws {SessionLost} If the server no longer knows the session.
 */
export async function bridgeHttp(options: HttpBridgeOptions): Promise<void> {
  await new HttpBridge(options).run();
}

class HttpBridge {
  readonly #options: HttpBridgeOptions;
  readonly #url: string;
  readonly #headers = new Headers({
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
  });
  readonly #open = new Set<Promise<void>>();
  readonly #ending = new AbortController();
  readonly #signal: AbortSignal;
  #failure: Error | undefined;

  constructor(options: HttpBridgeOptions) {
    this.#options = options;
    this.#url = `http://localhost${options.path}`;
    this.#signal = AbortSignal.any([options.signal, this.#ending.signal]);
  }

  async run(): Promise<void> {
    const { input, signal } = this.#options;
    const stop = () => void input.destroy();
    this.#signal.addEventListener("abort", stop);
    if (this.#signal.aborted) stop();
    try {
      for await (const line of linesOf(input)) {
        if (line.trim() !== "") await this.#forward(line);
        if (this.#failure !== undefined) throw this.#failure;
      }
      await Promise.all(this.#open);
    } catch (error) {
      if (!signal.aborted) throw this.#failure ?? error;
    } finally {
      this.#signal.removeEventListener("abort", stop);
      this.#ending.abort();
      await this.#endSession();
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Sends a message of the client. Waits for the response only if later messages depend on it. */
  async #forward(line: string): Promise<void> {
    const message = messageOf(parsed(line));
    const sent = this.#send(line, message);
    if (message.kind !== "request" || message.method === "initialize") {
      await sent;
      const isReady = message.kind === "notification" &&
        message.method === "notifications/initialized";
      if (isReady) void this.#listen();
      return;
    }
    this.#open.add(sent);
    void sent.finally(() => this.#open.delete(sent));
    if (this.#open.size >= MAX_OPEN) await Promise.race(this.#open);
  }

  /** Sends a message, and writes what the server responds. Each request gets a response. Never rejects. */
  async #send(line: string, message: Message): Promise<void> {
    const id = message.kind === "request" ? message.id : undefined;
    let isAnswered = false;
    try {
      const response = await this.#options.client.fetch(this.#url, {
        method: "POST",
        headers: this.#headers,
        body: line,
        signal: this.#signal,
      });
      const session = response.headers.get("mcp-session-id");
      if (session !== null && response.ok) this.#headers.set("mcp-session-id", session);
      for await (const text of messagesIn(response)) {
        const value = parsed(text);
        if (!response.ok) {
          const error = ownField(value, "error");
          throw new Error(`the server answers ${response.status}${reasonOf(error)}`);
        }
        isAnswered ||= id !== undefined && ownField(value, "id") === id;
        if (isAnswered) this.#learn(message, value);
        await this.#write(text);
      }
      if (!response.ok) throw new Error(`the server answers ${response.status}`);
      if (id !== undefined && !isAnswered) throw new Error("the server sends no response");
    } catch (error) {
      if (this.#signal.aborted) return;
      const { message: why } = error as Error;
      if (id !== undefined && !isAnswered) await this.#writeError(id, why);
      const isLost = /^the server answers 404/.test(why) && this.#headers.has("mcp-session-id");
      if (isLost) this.#end(new SessionLost("the server does not know the session"));
    }
  }

  #end(error: Error): void {
    this.#failure ??= error;
    this.#ending.abort();
  }

  /** Takes the version of the protocol from the response to `initialize`. */
  #learn(message: Message, response: unknown): void {
    if (message.kind !== "request" || message.method !== "initialize") return;
    const version = ownField(ownField(response, "result"), "protocolVersion");
    if (typeof version === "string" && /^[\w.-]+$/.test(version)) {
      this.#headers.set("mcp-protocol-version", version);
    }
  }

  /** Writes the messages that the server sends by itself, while it has a stream for them. */
  async #listen(): Promise<void> {
    const headers = new Headers(this.#headers);
    headers.set("accept", "text/event-stream");
    headers.delete("content-type");
    while (!this.#signal.aborted) {
      try {
        const response = await this.#options.client.fetch(this.#url, {
          headers,
          signal: this.#signal,
        });
        if (!response.ok) return void await response.body?.cancel();
        for await (const text of messagesIn(response)) await this.#write(text);
      } catch {
        // The connection was lost, or the bridge ends.
      }
      await sleep(RETRY_MS, undefined, { signal: this.#signal }).catch(() => {});
    }
  }

  async #endSession(): Promise<void> {
    const { client } = this.#options;
    const isKnown = this.#headers.has("mcp-session-id") && this.#failure === undefined;
    try {
      if (isKnown) {
        const signal = AbortSignal.timeout(END_TIMEOUT_MS);
        const response = await client.fetch(this.#url, {
          method: "DELETE",
          headers: this.#headers,
          signal,
        });
        await response.body?.cancel();
      }
    } catch {
      // The server ends the session by itself.
    } finally {
      client.close();
    }
  }

  async #writeError(id: RequestId, why: string): Promise<void> {
    const error = { code: CODE.internalError, message: `Cannot forward the request: ${why}` };
    await this.#write(JSON.stringify({ jsonrpc: "2.0", id, error }));
  }

  async #write(text: string): Promise<void> {
    const { output } = this.#options;
    // Line ends occur in JSON only between values.
    if (output.write(`${text.replaceAll(/[\r\n]+/g, " ")}\n`) || output.destroyed) return;
    await once(output, "drain", { signal: this.#signal }).catch(() => {});
  }
}

function reasonOf(error: unknown): string {
  const message = ownField(error, "message");
  return typeof message === "string" ? `: ${message}` : "";
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The messages in a response: its body, or those in a stream of events. */
async function* messagesIn(response: Response): AsyncGenerator<string> {
  const type = response.headers.get("content-type") ?? "";
  if (type.startsWith("text/event-stream") && response.body !== null) {
    for await (const data of eventsOf(response.body)) if (data !== "") yield data;
    return;
  }
  const text = await response.text();
  const value = parsed(text);
  if (Array.isArray(value)) yield* value.map((each) => JSON.stringify(each));
  else if (isObject(value)) yield text;
}

/** Splits a stream at its newlines. A JSON text may have other line ends in its strings. */
async function* linesOf(input: Readable): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let parts: string[] = [];
  for await (const chunk of input) {
    const [first = "", ...others] = decoder.decode(chunk as Uint8Array, { stream: true }).split(
      "\n",
    );
    parts.push(first);
    for (const other of others) {
      yield parts.join("");
      parts = [other];
    }
  }
  yield parts.join("");
}
