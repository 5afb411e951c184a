/** One application on each kind of HTTP server, and clients that send bytes as any user. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { channel } from "node:diagnostics_channel";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { connect } from "node:net";
import { Readable, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Decision, definePolicy, type Peer, type Policy } from "../../mod.ts";
import {
  type CloseOptions,
  createServer,
  decisionOf,
  type HttpServer,
  type HttpServerOptions,
  peerOf,
  type RequestLike,
  serve,
  type ServeOptions,
  type ServerStats,
} from "../../servers/http.ts";
import { CHANNELS, type ServerEvent } from "../../servers/audit.ts";
import { freshPath } from "./peers.ts";
import { compileProgram } from "./compile.ts";
import { endAfterEach, type Need, needs, testWith } from "./suite.ts";

/** A request, as the application receives it. */
export interface Ask {
  readonly method: string;
  /** The path and query. */
  readonly url: string;
  readonly peer: Peer;
  readonly decision: Decision;
  readonly signal: AbortSignal;
  /** The argument for `peerOf()`. */
  readonly request: RequestLike;
  header(name: string): string | undefined;
  body(): AsyncIterable<Uint8Array>;
}

export interface Answer {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  readonly body?: string | AsyncIterable<Uint8Array>;
}

export type App = (ask: Ask) => Answer | Promise<Answer>;

/** Options of both kinds of server. */
export interface Options extends Pick<HttpServerOptions, "policy" | "pin" | "limits"> {
  readonly revalidate?: boolean;
  readonly headersTimeout?: number;
  readonly keepAliveTimeout?: number;
  /** For `serve()` only. */
  readonly notify?: boolean;
}

export interface RunningServer {
  readonly path: string;
  stats(): ServerStats;
  close(options?: CloseOptions): Promise<void>;
}

/** A kind of server. */
export interface Kind {
  readonly name: string;
  readonly needs: readonly Need[];
  start(options: Options, app: App): Promise<RunningServer>;
}

const onNode: Kind = {
  name: "createServer()",
  needs: [],
  start: async ({ notify: _, ...options }, app) => {
    // The default interval of the check for slow headers is 30 s.
    const interval = options.headersTimeout && { connectionsCheckingInterval: 20 };
    const server = createServer({ ...options, ...interval }, byNode(app));
    const path = freshPath();
    server.listen({ path, mode: 0o666 });
    await once(server, "listening");
    return running(server, path);
  },
};

/** Registers a started server of `createServer()`, which is closed after the test. */
export function running(server: HttpServer, path: string): RunningServer {
  return started({
    path,
    stats: () => server.stats(),
    close: (options: CloseOptions = {}) => server.close(options),
  });
}

function byNode(app: App) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const controller = new AbortController();
    response.on("close", () => response.writableFinished || controller.abort());
    const { method = "", url = "", headers } = request;
    const { status = 200, headers: fields = {}, body = "" } = await app({
      method,
      url,
      request,
      peer: peerOf(request),
      decision: decisionOf(request),
      signal: controller.signal,
      header: (name) => headers[name]?.toString(),
      body: () => request,
    });
    response.writeHead(status, fields);
    if (typeof body === "string") return void response.end(body);
    await pipeline(Readable.from(body), response).catch(() => {}); // the client may hang up
  };
}

const byServe = (engine: "node:http" | "deno", list: readonly Need[]): Kind => ({
  name: `serve() by ${engine}`,
  needs: list,
  start: async (options, app) => {
    const path = freshPath();
    const where = { path, mode: 0o666, engine, ...options };
    const server = await serve({ ...where, fetch: byFetch(app) });
    assert.equal(server.engine, engine);
    return started(server);
  },
});

function byFetch(app: App): ServeOptions["fetch"] {
  return async (request, { peer, decision }) => {
    const { pathname, search } = new URL(request.url);
    assert.ok(request.url.split("?", 1)[0]!.endsWith(pathname), "a URL that `new URL()` keeps");
    if (request.url.startsWith("http:")) { // Elysia assumes a host of at least four characters
      assert.equal(request.url.indexOf("/", 11), request.url.indexOf("/", 7));
    }
    const { status = 200, headers, body = "" } = await app({
      method: request.method,
      url: pathname + search,
      request,
      peer,
      decision,
      signal: request.signal,
      header: (name) => request.headers.get(name) ?? undefined,
      body: () => request.body ?? (async function* () {})(),
    });
    return new Response(typeof body === "string" ? body : streamOf(body), {
      status,
      ...(headers && { headers }),
    });
  };
}

function streamOf(chunks: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
  const iterator = chunks[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { value, done } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(new Uint8Array(value));
    },
    async cancel() {
      await iterator.return?.();
    },
  });
}

/** `serve()` on Deno's own engine, which behaves differently in places. */
export const onDeno: Kind = byServe("deno", [needs.deno]);

/** Every kind of HTTP server. */
export const KINDS: readonly Kind[] = [onNode, byServe("node:http", []), onDeno];

const here = [needs.linux, needs.cc, needs.root, needs.native];

/** Tests each kind of server, with real users. */
export function testEach(name: string, run: (kind: Kind) => Promise<void>): void {
  for (const kind of KINDS) {
    testWith([...here, ...kind.needs], `${kind.name} ${name}`, () => run(kind));
  }
}

/** Runs a test with real users. */
export function testHere(name: string, run: () => Promise<void>, ...more: readonly Need[]): void {
  testWith([...here, ...more], name, run);
}

/** Tests each engine of `serve()`, with real users. */
export function testServe(name: string, run: (kind: Kind) => Promise<void>): void {
  for (const kind of KINDS.filter(({ name }) => name.startsWith("serve()"))) {
    testHere(`${kind.name} ${name}`, () => run(kind), ...kind.needs);
  }
}

/**
 * Root may do everything; 1001 may read all but `/secret`, and post to `/in`; 1002 may only get `/open`. All others
 * are refused.
 */
export const policy: Policy = definePolicy({
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: "full" },
    {
      name: "no secrets",
      when: { uid: 1001 },
      actions: "* /secret",
      deny: 'Ask "root" for it: é',
    },
    { name: "reader", when: { uid: 1001 }, actions: ["GET /**", "HEAD /**"], allow: "read" },
    { name: "writer", when: { uid: 1001 }, actions: "POST /in", allow: "write" },
    { name: "looker", when: { uid: 1002 }, actions: "GET /open", allow: "look" },
  ],
});

/** Responds with the peer, the rule and the URL of the request, as JSON. */
export const whoAsks: App = ({ peer, decision, url }) => ({
  body: JSON.stringify({ uid: peer.uid, pid: peer.pid, rule: decision.rule, url }),
});

/** Yields a number of megabytes, which contain bytes that look like a request. */
export function* many(count: number): Iterable<Buffer> {
  const megabyte = Buffer.alloc(1 << 20, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  for (let at = 0; at < count; at++) yield megabyte;
}

const servers = new Set<RunningServer>();
const wires = new Set<Wire>();
const watches = new Set<Disposable>();

function started(server: RunningServer): RunningServer {
  servers.add(server);
  return server;
}

// Closes what a test has left open, so that the runner can end.
endAfterEach(async () => {
  for (const wire of wires) wire.destroy();
  wires.clear();
  for (const watch of watches) watch[Symbol.dispose]();
  const all = [...servers];
  servers.clear();
  await Promise.all(all.map((server) => server.close({ timeout: 0 }).catch(() => {})));
});

export interface Response {
  readonly status: number;
  readonly headers: { readonly [name: string]: string };
  readonly body: string;
}

/** The path of the compiled relay.c. */
export const relay: string = here.every(({ met }) => met)
  ? compileProgram(new URL("relay.c", import.meta.url))
  : "";

/** A client connection with bytes that the test chooses. */
export class Wire {
  readonly #input: Writable;
  readonly #output: Readable;
  /** The client process of `Wire.as()`. */
  readonly child: ChildProcess | undefined;
  #buffer: Buffer = Buffer.alloc(0);
  #isOver = false;
  readonly #over: Promise<void>;
  #wake = () => {};

  private constructor(input: Writable, output: Readable, child?: ChildProcess) {
    this.#input = input.on("error", () => {});
    this.#output = output.on("error", () => {});
    this.child = child;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#over = promise;
    const end = () => {
      this.#isOver = true;
      resolve();
      this.#wake();
    };
    output.on("end", end).on("close", end).on("data", (bytes: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, bytes]);
      this.#wake();
    });
    wires.add(this);
  }

  /** Connects from this process. */
  static async open(path: string): Promise<Wire> {
    const socket = connect({ path, allowHalfOpen: true });
    const wire = new Wire(socket, socket);
    await once(socket, "connect");
    return wire;
  }

  /** Connects as another user, through relay.c. */
  static as(uid: number, path: string, ...options: readonly string[]): Wire {
    const args = ["--uid", String(uid), ...options, path];
    const child = spawn(relay, args, { stdio: ["pipe", "pipe", "inherit"] });
    return new Wire(child.stdin!, child.stdout!, child);
  }

  /** Sends text as bytes, one for each character. */
  send(text: string): this {
    this.#input.write(Buffer.from(text, "latin1"));
    return this;
  }

  /** Sends with back-pressure. Returns whether everything was sent. */
  async sendAll(chunks: Iterable<Uint8Array>): Promise<boolean> {
    try {
      for (const chunk of chunks) {
        if (this.#isOver || this.#input.destroyed) return false;
        if (!this.#input.write(chunk)) {
          await Promise.race([once(this.#input, "drain"), this.#over]);
        }
      }
      return !this.#isOver;
    } catch {
      return false;
    }
  }

  /** Shuts down the sending side. */
  end(): this {
    this.#input.end();
    return this;
  }

  /** Stops reading until `resume()`. */
  pause(): this {
    this.#output.pause();
    return this;
  }

  resume(): this {
    this.#output.resume();
    return this;
  }

  destroy(): void {
    this.child?.kill("SIGKILL");
    this.#input.destroy();
    this.#output.destroy();
  }

  /** Returns all data until the server closes the connection. */
  async rest(): Promise<string> {
    while (!this.#isOver) await this.#more();
    return this.#take(this.#buffer.length);
  }

  /** Returns the next response. Rejects if the connection ends first. */
  async response(method = "GET"): Promise<Response> {
    const head = await this.until("\r\n\r\n");
    const [first = "", ...lines] = head.trimEnd().split("\r\n");
    const found = /^HTTP\/1\.[01] (\d{3})/.exec(first);
    assert.ok(found, `no status line: ${JSON.stringify(first)}`);
    const status = Number(found[1]);
    const headers: { [name: string]: string } = {};
    for (const line of lines) {
      const colon = line.indexOf(":");
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const isEmpty = method === "HEAD" || status < 200 || status === 204 || status === 304;
    return { status, headers, body: isEmpty ? "" : await this.#body(headers) };
  }

  /** Sends a request and returns the response. */
  get(target: string, method = "GET"): Promise<Response> {
    return this.send(`${method} ${target} HTTP/1.1\r\nHost: x\r\n\r\n`).response(method);
  }

  /** Returns the data up to and including this text. */
  async until(text: string): Promise<string> {
    let at: number;
    while ((at = this.#buffer.indexOf(text, 0, "latin1")) === -1) {
      await this.#moreOrFail(`before ${JSON.stringify(text)}`);
    }
    return this.#take(at + text.length);
  }

  async #body(headers: Response["headers"]): Promise<string> {
    const length = headers["content-length"];
    if (length !== undefined) {
      while (this.#buffer.length < Number(length)) await this.#moreOrFail("in a body");
      return this.#take(Number(length));
    }
    if (headers["transfer-encoding"] !== "chunked") return this.rest();
    let body = "";
    while (true) {
      const size = parseInt(await this.until("\r\n"), 16);
      while (this.#buffer.length < size + 2) await this.#moreOrFail("in a chunk");
      body += this.#take(size);
      assert.equal(this.#take(2), "\r\n");
      if (size === 0) return body;
    }
  }

  #take(length: number): string {
    const text = this.#buffer.toString("latin1", 0, length);
    this.#buffer = this.#buffer.subarray(length);
    return text;
  }

  async #moreOrFail(where: string): Promise<void> {
    if (this.#isOver) {
      throw new Error(`The connection ended ${where}: ${JSON.stringify(this.#take(500))}`);
    }
    await this.#more();
  }

  #more(): Promise<void> {
    return new Promise((resolve) => this.#wake = resolve);
  }
}

/** Sends a request on a new connection. Returns all data until the server closes it. */
export async function exchange(path: string, bytes: string): Promise<string> {
  const wire = await Wire.open(path);
  try {
    return await wire.send(bytes).rest();
  } finally {
    wire.destroy();
    wires.delete(wire);
  }
}

/** Collects the events of a server from now on. */
export function eventsOf({ path }: RunningServer): ServerEvent[] & Disposable {
  const events: ServerEvent[] = [];
  const note = (event: unknown) => {
    if ((event as ServerEvent).server === path) events.push(event as ServerEvent);
  };
  for (const name of Object.values(CHANNELS)) channel(name).subscribe(note);
  const watch = Object.assign(events, {
    [Symbol.dispose]: () => {
      watches.delete(watch);
      for (const name of Object.values(CHANNELS)) channel(name).unsubscribe(note);
    },
  });
  watches.add(watch); // a leaked subscriber would affect other tests
  return watch;
}

/** Reads a complete body. */
export async function readBody(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks).toString("latin1");
}
