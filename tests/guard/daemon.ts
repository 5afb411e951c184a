/** A server that talks to Docker's clients as its daemon does: just enough for a few commands. */

import { Behind, type End, type Message } from "../support/guard.ts";

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
function frame(stream: 1 | 2, text: string): string {
  const bytes = Buffer.from(text);
  const head = Buffer.alloc(8);
  head[0] = stream;
  head.writeUInt32BE(bytes.length, 4);
  return Buffer.concat([head, bytes]).toString("latin1");
}

export class FakeDaemon {
  readonly requests: string[] = [];
  /** Their targets as they were sent: with the version and the query. */
  readonly targets: string[] = [];
  /** As the guard has told them. */
  readonly uids: string[] = [];
  readonly path: string;
  /** What the next exec runs: "tac" sends its input back in reverse, "false" fails. */
  #command = "";

  private constructor(path: string) {
    this.path = path;
  }

  static async start(): Promise<FakeDaemon> {
    const behind: Behind = await Behind.start((end) => daemon.#serve(end));
    const daemon = new FakeDaemon(behind.path);
    return daemon;
  }

  async #serve(end: End): Promise<void> {
    while (true) {
      const message = await end.message();
      const [method, url] = message.first.split(" ");
      const line = `${method} ${url!.replace(/^\/v1\.\d+/, "").replace(/\?.*/, "")}`;
      this.requests.push(line);
      this.targets.push(url!);
      this.uids.push(message.header("x-ucred-uid"));
      if (message.header("upgrade") !== "") return await this.#hijack(end);
      const { status = "200 OK", type = "application/json", body } = this.#answer(line, message);
      const head =
        `HTTP/1.1 ${status}\r\nApi-Version: 1.48\r\nOstype: linux\r\nContent-Type: ${type}\r\n`;
      end.send(`${head}Content-Length: ${body.length}\r\n\r\n${method === "HEAD" ? "" : body}`);
    }
  }

  #answer(line: string, message: Message): { status?: string; type?: string; body: string } {
    const json = (data: unknown) => ({ body: JSON.stringify(data) });
    if (line.endsWith("/_ping")) return { type: "text/plain", body: "OK" };
    if (line === "GET /version") {
      return json({ Version: "99.9.9", ApiVersion: "1.48", MinAPIVersion: "1.24" });
    }
    if (line === "GET /events") {
      return json({ Type: "container", Action: "start", Actor: { ID: "f1" }, timeNano: 1 });
    }
    if (line === "GET /info") return json({ ServerVersion: "99.9.9" });
    if (line === "GET /containers/json") {
      return json([{ ...CONTAINER, State: "running", Created: 1, Status: "Up" }]);
    }
    if (line.endsWith("/logs")) {
      const type = "application/vnd.docker.multiplexed-stream";
      return { type, body: frame(1, "line 1\n") + frame(1, "line 2\n") };
    }
    if (line.startsWith("GET /containers/")) return json(CONTAINER);
    if (line.endsWith("/exec")) {
      this.#command = JSON.parse(message.body).Cmd[0];
      return { ...json({ Id: "e1" }), status: "201 Created" };
    }
    if (line === "GET /exec/e1/json") {
      const ExitCode = this.#command === "false" ? 3 : 0;
      return json({ ID: "e1", Running: false, ExitCode, Pid: 1 });
    }
    return { ...json({ message: `no such endpoint: ${line}` }), status: "404 Not Found" };
  }

  async #hijack(end: End): Promise<void> {
    end.send(
      "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n" +
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    );
    if (this.#command === "tac") {
      const text = await end.rest(); // until the client has closed its half
      end.send(frame(2, "to stderr\n")).send(frame(1, [...text].reverse().join("")));
    }
    end.end();
  }
}
