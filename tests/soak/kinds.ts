/** The servers and guard modes of the soak run, with what their clients send and receive. */

import { Buffer } from "node:buffer";
import { chmodSync, rmSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { encodeFrame, FRAME } from "../../interop/sudoers/helper/frames.ts";
import { identify } from "../../mod.ts";
import { startDaemon } from "../interop/dbus/daemon.ts";
import { FakeEngine } from "../support/fake_engine.ts";
import { messageOf } from "../guard/dbus_wire.ts";

/** A server behind a guard. */
export interface Upstream {
  readonly path: string;
  close(): unknown;
}

export interface Kind {
  readonly name: string;
  /** The arguments of `ucred guard`; `undefined` for a server of server.ts. */
  readonly guard?: readonly string[];
  /** Whether a connection stays open after a failed request, so that a client waits for its limit. */
  readonly staysOpen?: boolean;
  /** The runtimes that do not support it. */
  readonly omits?: readonly string[];
  /** The program that its upstream needs. */
  readonly program?: string;
  /** Whether it hangs up on a client that stops in the middle of its request, after ten seconds or a little more. */
  readonly hasTimeout?: boolean;
  /** Fields that are added to the policy (`about`), and to its rule that allows (`rule`). */
  readonly about?: string;
  readonly rule?: string;
  /** The value of `allow`. */
  readonly allow?: string;
  /** What a client sends. */
  readonly request: string;
  /** What only a served client receives; "%u" stands for its uid. */
  readonly served: string;
  /** What a client receives whose connection stays open although its request is denied. */
  readonly denied?: string;
  /** Starts the server behind the guard in a folder. */
  upstream?(folder: string): Promise<Upstream>;
}

/** Listens at a path that was used before. */
async function listening(server: Server, folder: string): Promise<Upstream> {
  const path = join(folder, "up.sock");
  rmSync(path, { force: true });
  const open = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    open.add(socket.on("error", () => {}).once("close", () => open.delete(socket)));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  chmodSync(path, 0o777);
  const close = () => {
    server.close();
    for (const socket of open) socket.destroy();
  };
  return { path, close };
}

const web = (folder: string) =>
  listening(
    createHttpServer((request, response) => {
      request.resume().once("end", () => response.end(`uid ${request.headers["x-ucred-uid"]}`));
    }),
    folder,
  );

const REQUEST = "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/** A frame of HTTP/2: RFC 9113, section 4.1. */
function frameOf(type: number, flags: number, stream: number, content: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(content.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, content]);
}

/** GET, http, "/" of the static table, and :authority "x" as a literal: RFC 7541. */
const FIELDS = Buffer.from([0x82, 0x86, 0x84, 0x41, 1, "x".charCodeAt(0)]);
const HTTP2 = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  frameOf(4, 0, 0, Buffer.alloc(0)),
  frameOf(1, 0x5, 1, FIELDS),
]).toString("latin1");

/** A message of JSON-RPC on a line, as the stdio transport of MCP has it. */
const call = (id: number, tool: string) =>
  `${JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params: { name: tool } })}\n`;

/** Answers a line. Only calls of the tool "read" may arrive: no client has the uid of the other answers. */
function answerOf(line: string, uid: number): { id?: unknown; text: string } {
  try {
    const { id, params } = JSON.parse(line);
    return { id, text: params.name === "read" ? `uid ${uid}` : "uid -1" };
  } catch {
    return { text: "uid -1" };
  }
}

function answerCalls(socket: Socket): void {
  const { uid } = identify(socket);
  const lines = createInterface({ input: socket }).on("error", () => {});
  lines.on("line", (line) => {
    const { id, text } = answerOf(line, uid);
    socket.write(`${JSON.stringify({ jsonrpc: "2.0", id, result: { text } })}\n`);
  });
  lines.on("close", () => socket.end());
}

/** All kinds. */
export const KINDS: readonly Kind[] = [
  { name: "net", request: "hello\n", served: "uid %u\n" },
  { name: "http", hasTimeout: true, request: REQUEST, served: "uid %u\n" },
  { name: "native", omits: ["node"], request: "hello\n", served: "uid %u\n" }, // Deno.listen, Bun.listen
  {
    name: "helper",
    about: "about: sudo",
    rule: "actions: run, where: { command: /usr/bin/id, runasUser: daemon },",
    allow: "NOPASSWD",
    request: encodeFrame(
      FRAME.request,
      JSON.stringify({ command: "/usr/bin/id", args: ["-u"], user: "daemon", variables: {} }),
    ).toString("latin1"),
    served: "1\n",
  },
  {
    name: "stream",
    guard: ["--mode", "stream", "--as-peer"],
    request: "hello\n",
    served: "uid %u\n",
    upstream: (folder) =>
      listening(
        createServer((socket) => void socket.resume().end(`uid ${identify(socket).uid}\n`)),
        folder,
      ),
  },
  {
    name: "guard-http",
    guard: ["--mode", "http"],
    hasTimeout: true,
    request: REQUEST,
    served: "uid %u",
    upstream: web,
  },
  {
    name: "guard-http2",
    guard: ["--mode", "http", "--http2"],
    staysOpen: true,
    omits: ["deno"], // its HTTP/2 can end the process
    request: HTTP2,
    served: "uid %u",
    denied: '"title":',
    upstream: async (folder) => {
      const { createServer: createHttp2Server } = await import("node:http2");
      const server = createHttp2Server((request, response) => {
        response.end(`uid ${request.headers["x-ucred-uid"]}`);
      });
      return await listening(server as unknown as Server, folder);
    },
  },
  {
    name: "docker",
    guard: ["--mode", "docker"],
    about: "about: docker",
    hasTimeout: true,
    request: "GET /v1.48/containers/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    served: "HTTP/1.1 200",
    async upstream(folder) {
      const engine = await FakeEngine.start();
      return await listening(
        createServer((client) => {
          const server = connect(engine.path).on("error", () => client.destroy());
          client.on("close", () => server.destroy());
          client.pipe(server).pipe(client);
        }),
        folder,
      );
    },
  },
  {
    name: "mcp",
    guard: ["--mode", "mcp", "--as-peer"],
    about: "about: mcp",
    rule: "actions: tools/call read,",
    request: call(1, "delete") + call(2, "read"),
    served: "uid %u",
    denied: '"id":2,"error"',
    upstream: (folder) => listening(createServer(answerCalls), folder),
  },
  {
    name: "dbus",
    guard: ["--mode", "dbus"],
    program: "dbus-daemon",
    about: "about: dbus",
    rule: 'actions: "**",',
    request: `\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n${
      messageOf({
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
        destination: "org.freedesktop.DBus",
      }).toString("latin1")
    }`,
    served: ":1.",
    denied: "org.freedesktop.DBus.Error",
    async upstream(folder) {
      const path = join(folder, "bus.sock");
      rmSync(path, { force: true });
      const daemon = await startDaemon(path);
      return { path, close: () => daemon.end() };
    },
  },
];

/** Returns whether a server accepts connections at a path. */
export function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => resolve(true));
    socket.on("error", () => resolve(false)).on("connect", () => socket.destroy());
  });
}
