/** A server that talks to Docker's clients as its daemon does: just enough for a few commands. */

import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { afterEach } from "node:test";
import { freshPath } from "../live/harness.ts";

const daemons = new Set<Server>();
afterEach(() => {
  daemons.forEach((server) => server.close().closeAllConnections());
  daemons.clear();
});

const CONTAINER = {
  Id: "f".repeat(64),
  Name: "/fake",
  Names: ["/fake"],
  Image: "image",
  Command: "sleep",
  Ports: [],
  State: { Status: "running", Running: true },
  Config: { Tty: false },
  HostConfig: { LogConfig: { Type: "json-file" } },
};

/** A part of output, as Docker multiplexes it: 1 is stdout, 2 is stderr. */
function frame(stream: 1 | 2, text: string | Uint8Array): Buffer {
  const bytes = Buffer.from(text as string);
  const head = Buffer.alloc(8);
  head[0] = stream;
  head.writeUInt32BE(bytes.length, 4);
  return Buffer.concat([head, bytes]);
}

export class FakeDaemon {
  readonly path: string = freshPath("docker.sock");
  readonly requests: string[] = [];
  /** As the guard has told them. */
  readonly uids: string[] = [];
  /** What the next exec runs: "tac" sends its input back in reverse, "false" fails. */
  #command = "";

  static async start(): Promise<FakeDaemon> {
    const daemon = new FakeDaemon();
    const server = createServer((request, response) => daemon.#answer(request, response));
    server.on("upgrade", (request, socket, head) => daemon.#hijack(request, socket, head));
    daemons.add(server);
    await new Promise<void>((resolve) => server.listen(daemon.path, resolve));
    return daemon;
  }

  #note({ method, url = "", headers }: IncomingMessage): string {
    const line = `${method} ${url.replace(/^\/v1\.\d+/, "").replace(/\?.*/, "")}`;
    this.requests.push(line);
    this.uids.push(String(headers["x-ucred-uid"]));
    return line;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const line = this.#note(request);
    let text = "";
    for await (const part of request) text += part;
    const json = (data: unknown, status = 200) => {
      response.writeHead(status, { "content-type": "application/json", "api-version": "1.48" });
      response.end(JSON.stringify(data));
    };
    if (line.endsWith("/_ping")) {
      response.writeHead(200, { "api-version": "1.48", "ostype": "linux" }).end("OK");
    } else if (line === "GET /version") {
      json({
        Version: "99.9.9",
        ApiVersion: "1.48",
        MinAPIVersion: "1.24",
        Os: "linux",
        Arch: "amd64",
      });
    } else if (line === "GET /info") json({ ServerVersion: "99.9.9" });
    else if (line === "GET /containers/json") {
      json([{ ...CONTAINER, State: "running", Created: 1, Status: "Up" }]);
    } else if (line.endsWith("/logs")) {
      response.writeHead(200, { "content-type": "application/vnd.docker.multiplexed-stream" });
      response.write(frame(1, "line 1\n"));
      response.end(frame(1, "line 2\n"));
    } else if (line.startsWith("GET /containers/")) json(CONTAINER);
    else if (line.endsWith("/exec")) {
      this.#command = JSON.parse(text).Cmd[0];
      json({ Id: "e1" }, 201);
    } else if (line === "GET /exec/e1/json") {
      json({ ID: "e1", Running: false, ExitCode: this.#command === "false" ? 3 : 0, Pid: 1 });
    } else json({ message: `no such endpoint: ${line}` }, 404);
  }

  async #hijack(request: IncomingMessage, socket: Duplex, head: Uint8Array): Promise<void> {
    this.#note(request);
    socket.on("error", () => {});
    for await (const _ of request) { /* the options of exec */ }
    if (head.length > 0) socket.unshift(head);
    socket.write(
      "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n" +
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    );
    if (this.#command === "tac") {
      let text = "";
      socket.on("data", (part) => text += part);
      await once(socket, "end"); // the client has closed its half
      socket.write(frame(2, "to stderr\n"));
      socket.write(frame(1, [...text].reverse().join("")));
    }
    socket.end();
  }
}
