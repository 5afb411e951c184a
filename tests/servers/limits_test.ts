/** Limits for each user: against a model, and with real users that try to lock out others. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { test } from "node:test";
import fc from "../support/properties.ts";
import { type Limits, UserLimits } from "../../servers/admission/limits.ts";
import { listen as listenByBun } from "../../servers/bun.ts";
import { withPeers } from "../../servers/deno.ts";
import { createServer as createHttpServer, serve } from "../../servers/http.ts";
import { createServer, type NetServer, type ServerStats } from "../../servers/net.ts";
import { auditLog } from "../../servers/audit.ts";
import { freshPath } from "../support/peers.ts";
import { cases, type Need, needs, testWith, until } from "../support/suite.ts";
import { listening, visitAs, Visitor } from "../support/servers.ts";

const asRoot = [needs.linux, needs.cc, needs.root];

type AllLimits = { readonly [name in keyof Limits]-?: number };

/** The uid that shares the reserve with root. */
const OWN = 1001;

/** A simple model: it keeps every accept, and counts all of them each time. */
class Model {
  readonly #limits: AllLimits;
  readonly #open: number[] = [];
  /** Tokens of each uid, in eighths, at a time in eighths of a second. */
  readonly #buckets = new Map<number, { eighths: number; at: number }>();

  constructor(limits: AllLimits) {
    this.#limits = limits;
  }

  take(uid: number, now: number): string | undefined {
    const { connections, connectionsPerUser, acceptsPerSecond, acceptBurst } = this.#limits;
    const full = acceptBurst * 8;
    const { eighths, at } = this.#buckets.get(uid) ?? { eighths: full, at: now };
    const filled = Math.min(full, eighths + (now - at) * acceptsPerSecond);
    const isTooFast = filled < 8;
    this.#buckets.set(uid, { eighths: isTooFast ? filled : filled - 8, at: now });
    if (isTooFast) return "acceptsPerSecond";
    if (this.#open.filter((one) => one === uid).length >= connectionsPerUser) {
      return "connectionsPerUser";
    }
    const isKept = uid === 0 || uid === OWN;
    if (this.#open.length >= (isKept ? connections : connections - Math.floor(connections / 16))) {
      return "connections";
    }
    this.#open.push(uid);
    return undefined;
  }

  give(uid: number): void {
    const at = this.#open.indexOf(uid);
    if (at >= 0) this.#open.splice(at, 1);
  }

  get open(): number {
    return this.#open.length;
  }
}

const small = fc.integer({ min: 1, max: 6 });
const large = fc.integer({ min: 1, max: 40 }); // large enough for a reserve of one or two
const steps = fc.array(
  fc.record({
    isEnd: fc.boolean(),
    uid: fc.constantFrom(0, 1000, 1001, 65534, 4294967294),
    later: fc.constantFrom(0, 0, 0, 1, 3, 8, 100), // eighths of a second are exact in binary
  }),
  { maxLength: 120 },
);

test("UserLimits agrees with a model for random sequences", () => {
  fc.assert(
    fc.property(large, large, small, small, steps, (all, each, rate, burst, list) => {
      const limits = {
        connections: all,
        connectionsPerUser: each,
        acceptsPerSecond: rate,
        acceptBurst: burst,
      };
      const model = new Model(limits);
      const real = new UserLimits(limits, () => OWN);
      let now = 0;
      for (const { isEnd, uid, later } of list) {
        now += later;
        if (isEnd) {
          model.give(uid);
          real.release(uid);
        } else assert.equal(real.acquire(uid, now * 125), model.take(uid, now));
        assert.equal(real.open, model.open);
        assert.ok(real.open <= all);
      }
    }),
    { numRuns: cases(1000) },
  );
});

test("UserLimits has default limits", () => {
  const limits = new UserLimits({}, () => 5000);
  for (let uid = 1; uid <= 7; uid++) {
    for (let times = 0; times < 256; times++) assert.equal(limits.acquire(uid), undefined);
    assert.equal(limits.acquire(uid), "connectionsPerUser");
  }
  for (let times = 0; times < 128; times++) assert.equal(limits.acquire(8), undefined);
  for (let uid = 8; uid < 20; uid++) assert.equal(limits.acquire(uid), "connections");
  assert.equal(limits.open, 2048 - 128);
  // One sixteenth is reserved.
  for (let times = 0; times < 64; times++) {
    for (const uid of [0, 5000]) assert.equal(limits.acquire(uid), undefined);
  }
  for (const uid of [0, 9, 5000]) assert.equal(limits.acquire(uid), "connections");
  assert.equal(limits.open, 2048);
});

test("UserLimits reserves nothing for root without a limit on all connections", () => {
  const limits = new UserLimits({ connections: Infinity, connectionsPerUser: Infinity });
  for (let times = 0; times < 5000; times++) assert.equal(limits.acquire(1), undefined);
  assert.equal(limits.open, 5000);
});

test("UserLimits keeps the rate of a fast user while many others connect", () => {
  const limits = new UserLimits({ acceptsPerSecond: 1, acceptBurst: 2 });
  assert.deepEqual([1, 2, 3].map(() => limits.acquire(1, 0)), [
    undefined,
    undefined,
    "acceptsPerSecond",
  ]);
  for (let uid = 2; uid < 10_000; uid++) {
    limits.acquire(uid, 0);
    limits.release(uid);
  }
  assert.equal(limits.acquire(1, 999), "acceptsPerSecond");
  assert.equal(limits.acquire(1, 1000), undefined);
});

test("UserLimits releases closed connections before it refuses one", () => {
  let ended = 0;
  const of: (number | undefined)[] = [];
  const reap = (uid: number | undefined) => {
    of.push(uid);
    for (; ended > 0; ended--) limits.release(1);
  };
  const limits: UserLimits = new UserLimits(
    { connectionsPerUser: 2, connections: 3 },
    undefined,
    reap,
  );
  assert.deepEqual([limits.acquire(1, 0), limits.acquire(1, 0)], [undefined, undefined]);
  assert.equal(limits.acquire(1, 1), "connectionsPerUser");
  ended = 1;
  assert.equal(limits.acquire(1, 1000), undefined);
  assert.equal(limits.acquire(1, 2000), "connectionsPerUser");
  assert.equal(limits.open, 2);
  assert.deepEqual(of, [1, 1, 1]);
  // The limit on all connections counts all users; the limit of one user does not block another.
  assert.equal(limits.acquire(2, 2001), undefined);
  assert.equal(limits.acquire(3, 2002), "connections");
  assert.equal(limits.acquire(1, 3000), "connectionsPerUser");
  ended = 1;
  assert.equal(limits.acquire(3, 3001), undefined);
  assert.deepEqual(of, [1, 1, 1, undefined, 1, undefined]);
});

test("createServer() throws when a limit is out of range or unknown", () => {
  for (const name of ["connections", "connectionsPerUser", "acceptsPerSecond", "acceptBurst"]) {
    for (const limit of [0, -1, NaN, "5", null]) {
      assert.throws(() => createServer({ limits: { [name]: limit } }), RangeError);
    }
    createServer({ limits: { [name]: undefined } });
    if (name === "acceptBurst") continue;
    createServer({ limits: { [name]: Infinity } });
  }
  assert.throws(() => createServer({ limits: { connectionPerUser: 5 } as Limits }), TypeError);
  assert.throws(() => createServer({ limits: { acceptBurst: 5 } }), TypeError); // it requires acceptsPerSecond
  createServer({ limits: { acceptBurst: 5, acceptsPerSecond: 1 } });
});

/** Runs a callback while a server has limits. Returns the refusals of its audit log. */
async function limited(
  limits: Limits,
  run: (path: string, server: NetServer) => Promise<void>,
): Promise<string[]> {
  const path = freshPath();
  const file = freshPath("audit.log");
  const audit = auditLog({ file, onlyDenied: true });
  const server = createServer({ policy: "anyone", limits, audit }, (socket, peer) => {
    socket.resume().write(`welcome, ${peer.uid}`);
    socket.once("end", () => socket.end());
    if (peer.gid === 7) socket.end();
  });
  await listening(server, { path, mode: 0o666 });
  try {
    await run(path, server);
  } finally {
    await server.close({ timeout: 0 });
    await audit.close();
  }
  const lines = readFileSync(file, "utf8").split("\n").filter((line) => line !== "");
  return lines.map((line) => {
    const { why, peer } = JSON.parse(line) as { why: string; peer: { uid: number } };
    return `${why} ${peer.uid}`;
  });
}

/** A client that stays connected. */
const stay = (uid: number, path: string) =>
  Visitor.at(path, ["--uid", `${uid}`, "--gid", `${uid}`]);

/** Returns whether a client is accepted. */
const call = async (uid: number, path: string): Promise<boolean> =>
  await visitAs(uid, path, "--gid", "7") === `welcome, ${uid}`;

testWith(
  asRoot,
  "createServer() refuses a user at connectionsPerUser, and serves others",
  async () => {
    const refused = await limited({ connectionsPerUser: 2 }, async (path, server) => {
      const held = [await stay(1000, path), await stay(1000, path)];
      await until(() => server.stats().open === 2);
      assert.equal(await call(1000, path), false);
      for (const uid of [0, 1001, 1002, 65534]) assert.equal(await call(uid, path), true);
      assert.equal(await call(1000, path), false);
      await held[0]!.leave();
      await until(() => server.stats().open === 1);
      assert.equal(await call(1000, path), true);
      const { refused, accepted } = server.stats();
      assert.deepEqual([refused, accepted], [{ policy: 0, limits: 2, unidentified: 0 }, 7]);
      await held[1]!.leave();
    });
    assert.deepEqual(refused, ["connectionsPerUser 1000", "connectionsPerUser 1000"]);
  },
);

testWith(
  asRoot,
  "createServer() refuses connections at the limit until one is closed",
  async () => {
    const refused = await limited({ connections: 3 }, async (path, server) => {
      const held = [await stay(1000, path), await stay(1001, path), await stay(1002, path)];
      await until(() => server.stats().open === 3);
      assert.equal(await call(1003, path), false);
      assert.equal(await call(1000, path), false);
      held[1]!.child.process.kill("SIGKILL");
      await until(() => server.stats().open === 2);
      assert.equal(await call(1003, path), true);
      for (const visitor of held) await visitor.leave();
    });
    assert.deepEqual(refused, ["connections 1003", "connections 1000"]);
  },
);

testWith(
  asRoot,
  "createServer() refuses a user beyond acceptsPerSecond, and serves others",
  async () => {
    const limits = { acceptsPerSecond: 0.001, acceptBurst: 3 };
    const refused = await limited(limits, async (path, server) => {
      const calls = [];
      for (let times = 0; times < 6; times++) calls.push(await call(1000, path));
      assert.deepEqual(calls, [true, true, true, false, false, false]);
      assert.equal(await call(1001, path), true);
      assert.equal(server.stats().refused.limits, 3);
    });
    assert.deepEqual(refused, Array(3).fill("acceptsPerSecond 1000"));
  },
);

testWith(
  asRoot,
  "createServer() serves other users while one connects as fast as possible",
  async () => {
    const refused = await limited({ connectionsPerUser: 8 }, async (path, server) => {
      const held = await Promise.all(Array.from({ length: 30 }, () => stay(1000, path)));
      await until(() => server.stats().accepted + server.stats().refused.limits === 30);
      let isOver = false;
      const attack = Promise.all([1, 2, 3].map(async () => {
        while (!isOver) assert.equal(await call(1000, path), false);
      }));
      for (let times = 0; times < 20; times++) assert.equal(await call(1001, path), true);
      isOver = true;
      await attack;
      await until(() => server.stats().open === 8); // the last connection may still be closing
      assert.equal(server.stats().accepted, 28);
      for (const visitor of held) visitor.child.process.kill("SIGKILL");
    });
    assert.ok(refused.length >= 22);
    assert.ok(refused.every((line) => line === "connectionsPerUser 1000"));
  },
);

// ── peers that have hung up ──

interface Held {
  stats(): ServerStats;
  /** Lets the handlers continue. */
  close(): Promise<unknown>;
}

/** Servers with handlers that keep each connection open and read nothing. */
const HOLDERS: {
  readonly [api: string]: { readonly needs?: readonly Need[]; start(path: string): Promise<Held> };
} = {
  "ucred/net": {
    start: async (path) => {
      const server = createServer(HELD, (socket) => void socket.pause());
      await listening(server, path);
      return { stats: () => server.stats(), close: () => server.close({ timeout: 0 }) };
    },
  },
  "ucred/http createServer()": {
    start: async (path) => {
      const server = createHttpServer(HELD, () => {});
      await new Promise<void>((resolve) => server.listen({ path }, resolve));
      return { stats: () => server.stats(), close: () => server.close({ timeout: 0 }) };
    },
  },
  "ucred/http serve()": {
    start: async (path) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const server = await serve({
        ...HELD,
        path,
        fetch: () => promise.then(() => new Response("")),
      });
      const close = () => {
        resolve();
        return server.close({ timeout: 0 });
      };
      return { stats: () => server.stats(), close };
    },
  },
  "ucred/deno": {
    needs: [needs.deno],
    start: (path) => {
      const peers = withPeers(Deno.listen({ transport: "unix", path }), HELD);
      const conns: Deno.UnixConn[] = [];
      const done = (async () => {
        for await (const { conn } of peers) conns.push(conn);
      })();
      const close = () => {
        for (const conn of conns) conn.close(); // throws if one was already closed
        peers.close();
        return done;
      };
      return Promise.resolve({ stats: () => peers.stats(), close });
    },
  },
  "ucred/bun": {
    needs: [needs.bun],
    start: async (path) => {
      const open = (socket: unknown) => void (socket as { pause(): void }).pause();
      const server = await listenByBun({ ...HELD, path, socket: { open } });
      return { stats: () => server.stats(), close: () => server.close({ timeout: 0 }) };
    },
  },
};

/** Counts the kernel's accepted connections at a path. */
function connectionsAt(path: string): number {
  const folder = `${dirname(path)}/`;
  const lines = readFileSync("/proc/net/unix", "utf8").split("\n").filter((line) =>
    line.includes(folder)
  );
  // Flag of listening sockets: __SO_ACCEPTCON, <linux/net.h>.
  return lines.filter((line) => line.split(" ")[3] !== "00010000").length;
}

const HELD = { limits: { connectionsPerUser: 4 } };

for (const [api, holder] of Object.entries(HOLDERS)) {
  testWith(
    [needs.linux, needs.cc, ...holder.needs ?? []],
    `${api} keeps the limit on a user's descriptors when peers leave unread data`,
    async () => {
      const path = freshPath();
      const server = await holder.start(path);
      const body = "x".repeat(100_000); // more than a runtime reads ahead
      const head = `POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${
        body.length * 2
      }\r\n\r\n`;
      const counts: number[] = [];
      for (let times = 1; times <= 24; times++) {
        const visitor = await Visitor.at(path, times % 3 === 0 ? [] : ["--send", head + body]);
        const { child } = visitor;
        await until(() => server.stats().accepted + server.stats().refused.limits === times);
        child.process.kill("SIGKILL");
        const { process } = child;
        await until(() => process.exitCode !== null || process.signalCode !== null);
        counts.push(connectionsAt(path));
      }
      assert.ok(server.stats().accepted >= 4, `${server.stats().accepted} were accepted`);
      assert.ok(Math.max(...counts) <= 4, `${counts} descriptors`);
      await server.close();
      await until(() => server.stats().open === 0);
      await until(() => connectionsAt(path) === 0);
    },
  );
}
