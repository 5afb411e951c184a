/** Tests of a guard whose upstream accepts too slowly: its backlog is full. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { freshPath } from "../support/peers.ts";
import { Wire } from "../support/http.ts";
import { until } from "../support/suite.ts";
import { End, Guard, policyFile, testGuard, tool, USERS } from "../support/guard.ts";

/** Accepts nothing until a line is written to it; then one connection after the other. */
const SLOW = `
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen(0)
print("listening", flush=True)
sys.stdin.readline()
while True:
    connection, _ = server.accept()
    connection.settimeout(5)
    request = b""
    try:
        while b"\\r\\n\\r\\n" not in request:
            part = connection.recv(65536)
            if not part: break
            request += part
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
    except OSError: pass
    connection.close()
    uid = [line for line in request.decode("latin1").split("\\r\\n") if line.lower().startswith("x-ucred-uid")]
    print(uid[0].split()[1] if uid else "none", flush=True)
`;

class SlowServer implements Disposable {
  readonly path: string = freshPath("up.sock");
  readonly #child = spawn("python3", ["-c", SLOW, this.path], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  #text = "";

  constructor() {
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => this.#text += text);
  }

  /** What it has printed, line by line. */
  get lines(): string[] {
    return this.#text.split("\n").slice(0, -1);
  }

  accept(): void {
    this.#child.stdin.write("\n");
  }

  [Symbol.dispose](): void {
    this.#child.kill("SIGKILL");
  }
}

const REQUEST = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

async function start(mode: "http" | "stream"): Promise<{ slow: SlowServer; guard: Guard }> {
  const slow = new SlowServer();
  await until(() => slow.lines.length > 0);
  const policy = policyFile("version: 1\nrules: [{ name: all, allow: true }]\n");
  return { slow, guard: await Guard.start({ upstream: slow.path, mode, policy }) };
}

for (const mode of ["http", "stream"] as const) {
  testGuard(`guard --mode ${mode} stops connecting for clients that have hung up`, async () => {
    const { slow, guard } = await start(mode);
    using _ = slow;
    const idle = guard.sockets();
    const clients = await Promise.all(Array.from({ length: 100 }, () => End.open(guard.path)));
    if (mode === "http") { for (const client of clients) client.send(REQUEST); }
    await until(() => guard.sockets() >= idle + 100);
    for (const client of clients) client.destroy();
    // The guard closes their connections, but for one that waits to be accepted.
    await until(() => guard.sockets() <= idle + 2);
    slow.accept();
    for (let served = 0; served < 50;) { // Bun has one second of patience with a full backlog
      const wire = Wire.as(USERS.two, guard.path).send(REQUEST);
      served += await wire.until("ok").then(() => 1, () => 0);
      wire.destroy();
    }
    const vain = slow.lines.length - 1 - 50;
    assert.ok(vain < 20, `${vain} connections for nobody`);
  }, tool("python3"));
}

testGuard(
  "guard --mode http lets users take turns while the upstream's backlog is full",
  async () => {
    const { slow, guard } = await start("http");
    using _ = slow;
    const idle = guard.sockets();
    const clients = await Promise.all(Array.from({ length: 150 }, () => End.open(guard.path)));
    for (const client of clients) client.send(REQUEST);
    const other = Wire.as(USERS.two, guard.path).send(REQUEST);
    await until(() => guard.sockets() >= idle + 151);
    slow.accept();
    assert.match(await other.until("ok"), /200 OK/);
    const position = slow.lines.indexOf(String(USERS.two));
    assert.ok(position < 75, `after ${position} of another user`);
    for (const client of clients) client.destroy();
  },
  tool("python3"),
);
