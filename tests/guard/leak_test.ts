/** Tests that a guard keeps nothing of connections that have ended. */

import assert from "node:assert/strict";
import { connect } from "node:net";
import { until } from "../support/suite.ts";
import { Behind, type End, Guard, testGuard } from "../support/guard.ts";

/** Answers, upgrades, or echoes, and ends when the guard does. */
async function serveAny(end: End): Promise<void> {
  end.socket.on("end", () => end.socket.end());
  const first = await end.bytes(1);
  if (first === "x") return void end.send("x");
  const head = await end.until("\r\n\r\n");
  if (head.includes("/slow")) return; // never answered
  if (head.includes("/refused")) {
    end.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  } else if (head.includes("Upgrade: x")) {
    end.send("HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhi").end();
  } else end.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

const upgradeTo = (path: string) =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n`;

/** What clients send, and when they leave: after an answer, or without one. */
const CLIENTS = {
  http: {
    "short": ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", true],
    "early": ["GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", false],
    "upgraded": [upgradeTo("/up"), true],
    "refused": [upgradeTo("/refused"), true],
    "silent": ["", false],
  },
  stream: { "short": ["x", true], "silent": ["", false] },
} as const;

function visit(path: string, text: string, waits: boolean): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.on("error", () => {}).once("close", () => resolve()).once("connect", () => {
      if (text !== "") socket.write(text, () => waits || socket.destroy());
      else socket.destroy();
    }).on("data", () => socket.end());
  });
}

for (const [mode, clients] of Object.entries(CLIENTS)) {
  for (const [what, [text, waits]] of Object.entries(clients)) {
    testGuard(`guard --mode ${mode} frees the memory of ${what} connections`, async () => {
      const behind = await Behind.start(serveAny);
      const flags = "--max-old-space-size=48";
      const env = { DENO_V8_FLAGS: flags, NODE_OPTIONS: flags };
      const guard = await Guard.start({ upstream: behind.path, mode: mode as "http", env });
      const idle = guard.sockets();
      const visitMany = async (count: number) => {
        const some = async () => {
          while (count-- > 0) await visit(guard.path, text, waits);
        };
        await Promise.all(Array.from({ length: 16 }, some));
      };
      const sizes = [guard.memory()];
      // The heap grows to its limit at first; a leak makes every round grow.
      do {
        await visitMany(1500);
        sizes.push(guard.memory());
        assert.ok(sizes.length < 10, `each 1500 connections keep memory: ${sizes} MiB`);
      } while (sizes.at(-1)! - sizes.at(-2)! > 3);
      await until(() => guard.sockets() <= idle + 1); // their descriptors are closed
    });
  }
}
