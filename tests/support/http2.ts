/** HTTP/2 clients that tests control frame by frame, and upstreams of `node:http2`. */

import { Buffer } from "node:buffer";
import { once } from "node:events";
import http2 from "node:http2";
import { connect, createServer, type Server, type Socket } from "node:net";
import { peerCredentials } from "../../mod.ts";
import { freshPath } from "./peers.ts";
import { endAfterEach, until } from "./suite.ts";

/** Types and flags of frames: RFC 9113, 6. */
export const DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4;
export const PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9;
export const END_STREAM = 1, END_HEADERS = 4;

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export function frame(
  type: number,
  flags = 0,
  stream = 0,
  payload: Uint8Array = Buffer.alloc(0),
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Unsigned 32-bit numbers. */
export function words(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => bytes.writeUInt32BE(value, 4 * index));
  return bytes;
}

export type FieldList = readonly (readonly [name: string, value: string])[];

/** Encodes fields as literals without indexing: RFC 7541, 6.2.2. */
export function hpack(fields: FieldList): Buffer {
  const text = (value: string) => [lengthOf(value.length), Buffer.from(value, "latin1")];
  return Buffer.concat(fields.flatMap(([name, value]) => [
    Buffer.from([0]),
    ...text(name),
    ...text(value),
  ]));
}

function lengthOf(length: number): Buffer {
  if (length < 127) return Buffer.from([length]);
  const bytes = [127];
  for (length -= 127; length >= 128; length >>= 7) bytes.push(length % 128 | 128);
  return Buffer.from([...bytes, length]);
}

/** The pseudo-headers of a request. */
export function pseudo(path: string, method = "POST"): FieldList {
  return [[":method", method], [":scheme", "http"], [":path", path], [":authority", "localhost"]];
}

const open = new Set<{ destroy(): void }>();
const servers = new Set<Server>();

endAfterEach(() => {
  open.forEach((each) => each.destroy());
  servers.forEach((server) => server.close());
  open.clear();
  servers.clear();
});

/** A client that sends single frames. */
export class FrameClient {
  readonly socket: Socket;
  readonly frames: Frame[] = [];
  isClosed = false;
  #rest: Buffer = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.socket = socket.on("error", () => {}).on("close", () => this.isClosed = true)
      .on("end", () => this.isClosed = true)
      .on("data", (bytes: Buffer) => this.#receive(bytes));
    open.add(socket);
  }

  /** Connects, and sends the preface and SETTINGS, which are empty by default. */
  static async open(path: string, settings: Uint8Array = Buffer.alloc(0)): Promise<FrameClient> {
    const socket = connect({ path, allowHalfOpen: true });
    await once(socket, "connect");
    const client = new FrameClient(socket);
    client.send(PREFACE, frame(SETTINGS, 0, 0, settings));
    return client;
  }

  send(...frames: readonly Buffer[]): this {
    if (!this.isClosed) this.socket.write(Buffer.concat(frames));
    return this;
  }

  /** Sends the header section of a request. */
  request(stream: number, fields: FieldList, flags = END_HEADERS): this {
    return this.send(frame(HEADERS, flags, stream, hpack(fields)));
  }

  /** Waits for a frame of a type on a stream. */
  async until(type: number, stream = 0): Promise<Frame> {
    let found: Frame | undefined;
    await until(() => {
      found = this.find(type, stream);
      if (found === undefined && this.isClosed) throw new Error(`closed before frame ${type}`);
      return found;
    });
    return found!;
  }

  find(type: number, stream = 0): Frame | undefined {
    return this.frames.find((each) => each.type === type && each.stream === stream);
  }

  #receive(bytes: Buffer): void {
    let rest = Buffer.concat([this.#rest, bytes]);
    while (rest.length >= 9) {
      const length = rest.readUIntBE(0, 3);
      if (rest.length < 9 + length) break;
      const payload = Buffer.from(rest.subarray(9, 9 + length));
      const stream = rest.readUInt32BE(5);
      this.frames.push({ type: rest[3]!, flags: rest[4]!, stream, payload });
      rest = rest.subarray(9 + length);
    }
    this.#rest = Buffer.from(rest);
  }
}

/** Connects as a client of `node:http2`. */
export function connectHttp2(path: string): http2.ClientHttp2Session {
  const session = http2.connect("http://localhost", { createConnection: () => connect(path) });
  open.add(session);
  return session.on("error", () => {});
}

/** A response. */
export interface Received {
  readonly headers: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader;
  readonly body: string;
  readonly trailers: { readonly [name: string]: unknown } | undefined;
  /** The code of RST_STREAM; 0 if the stream has ended. */
  readonly code: number;
  /** Whether the response is complete. */
  readonly isWhole: boolean;
}

/** Sends a request, and waits for the end of the stream. */
export async function ask(
  session: http2.ClientHttp2Session,
  headers: http2.OutgoingHttpHeaders,
  body = "",
  trailers?: http2.OutgoingHttpHeaders,
): Promise<Received> {
  const stream = session.request({ ":method": "POST", ...headers }, {
    endStream: false,
    waitForTrailers: trailers !== undefined,
  });
  stream.on("wantTrailers", () => stream.sendTrailers(trailers!));
  stream.end(body);
  return await received(stream);
}

/** Waits for the end of a stream. */
export async function received(stream: http2.ClientHttp2Stream): Promise<Received> {
  let body = "", isWhole = false;
  let headers: Received["headers"] = {};
  let trailers: Received["trailers"];
  stream.on("error", () => {}).on("response", (found) => headers = found)
    .on("trailers", (found) => trailers = Object.fromEntries(Object.entries(found)))
    .setEncoding("utf8").on("data", (part: string) => body += part)
    .on("end", () => isWhole = !stream.destroyed && !stream.rstCode);
  await new Promise((resolve) => stream.once("close", resolve));
  return { headers, body, trailers, code: stream.rstCode ?? 0, isWhole };
}

/** An HTTP/2 server behind the guard. */
export class Http2Upstream {
  readonly path: string = freshPath("up.sock");
  /** Header sections of the requests, as received. */
  readonly requests: (readonly string[])[] = [];
  readonly sessions: http2.ServerHttp2Session[] = [];
  readonly sockets: Socket[] = [];
  /** The uid of each connection's peer. */
  readonly uids: number[] = [];

  /** @param serve Handles each stream. */
  static async start(
    serve: (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void,
  ): Promise<Http2Upstream> {
    const upstream = new Http2Upstream();
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      open.add(socket.on("error", () => {}));
      upstream.uids.push(peerCredentials(socket).uid);
      const session = http2.performServerHandshake(socket);
      upstream.sessions.push(session);
      upstream.sockets.push(socket);
      session.on("error", () => {}).on("stream", (stream, headers, _flags, raw) => {
        stream.on("error", () => {});
        upstream.requests.push(raw);
        if (!stream.destroyed) serve(stream, headers);
      });
    });
    servers.add(server);
    await new Promise<void>((resolve) => server.listen(upstream.path, resolve));
    return upstream;
  }

  /** All values of a field of the last request. */
  last(name: string): readonly string[] {
    const raw = this.requests.at(-1) ?? [];
    return raw.filter((_, index) => index % 2 === 1 && raw[index - 1] === name);
  }
}

/** Answers a request with its body and a trailer. */
export function echo(stream: http2.ServerHttp2Stream): void {
  stream.respond({ ":status": 200 }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "x-end": "yes" }));
  stream.pipe(stream);
}

/** Resets a stream. `close()` alone would send END_STREAM first. */
export function reset(stream: http2.Http2Stream, code: number): void {
  stream.end = () => stream;
  stream.close(code);
}
