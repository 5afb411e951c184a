/** Tests that a guard keeps nothing of connections that have ended. */

import { connect } from "node:net";
import { assertFreed, collectorFlags } from "../support/leak.ts";
import { needs, soak, until } from "../support/suite.ts";
import { Behind, type End, Guard, testGuard } from "../support/guard.ts";

/** The number of a client → closes its connection. */
const leave = new Map<string, () => void>();

/** Answers, upgrades or echoes, and half-closes when the guard does. */
async function serveAny(end: End): Promise<void> {
  end.socket.on("end", () => end.socket.end());
  const first = await end.bytes(1);
  if (first === "x") return void end.send("x");
  const head = await end.until("\r\n\r\n");
  const [, unanswered] = /\/slow\/(\d+)/.exec(head) ?? [];
  if (unanswered !== undefined) leave.get(unanswered)!();
  else if (head.includes("/refused")) {
    end.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  } else if (head.includes("Upgrade: x")) {
    end.send("HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhi").end();
  } else end.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

const upgradeTo = (path: string) =>
  `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n`;

/** What clients send, and when they close the connection. */
const CLIENTS = {
  http: {
    "short": ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "after the answer"],
    "early": ["GET /slow/ID HTTP/1.1\r\nHost: x\r\n\r\n", "before the answer"],
    "upgraded": [upgradeTo("/up"), "after the answer"],
    "refused": [upgradeTo("/refused"), "after the answer"],
    "silent": ["", "at once"],
  },
  stream: { "short": ["x", "after the answer"], "silent": ["", "at once"] },
} as const;

/** Connections of each round that end in one way. */
const CONNECTIONS = soak(150, 3000);

function visit(path: string, text: string, leaves: string): Promise<void> {
  return new Promise((resolve) => {
    const id = `${leave.size}`;
    const socket = connect(path);
    leave.set(id, () => socket.destroy());
    socket.on("error", () => {}).once("close", () => resolve()).once("connect", () => {
      if (leaves === "at once") socket.destroy();
      else socket.write(text.replace("ID", id));
    }).on("data", () => socket.end());
  });
}

type Client = readonly [text: string, leaves: string];

for (const [mode, clients] of Object.entries(CLIENTS)) {
  const ways = Object.entries<Client>(clients);
  // `npm test` looks for a leak of all ways together, and `npm run test:soak` of each way.
  const tests = needs.soak.met ? ways.map((way) => [way]) : [ways];
  for (const round of tests) {
    const what = round.map(([name]) => name).join(", ");
    testGuard(`guard --mode ${mode} frees the memory of ${what} connections`, async () => {
      const behind = await Behind.start(serveAny);
      const flags = collectorFlags;
      const guard = await Guard.start({ upstream: behind.path, mode: mode as "http", flags });
      const idle = guard.sockets();
      const visitMany = async () => {
        const visits = round.flatMap(([, client]) => Array<Client>(CONNECTIONS).fill(client));
        const some = async () => {
          for (let next = visits.pop(); next; next = visits.pop()) await visit(guard.path, ...next);
        };
        await Promise.all(Array.from({ length: 16 }, some));
      };
      await assertFreed({
        pid: guard.child.pid!,
        round: visitMany,
        times: CONNECTIONS,
        used: () => guard.bytesInUse(),
        maxHeap: 400,
        maxResident: 2000,
      });
      await until(() => guard.sockets() <= idle + 1); // their descriptors are closed
    });
  }
}
