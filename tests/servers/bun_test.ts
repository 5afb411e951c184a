/** `ucred/bun`: admission, handlers, and errors that must not stop the server. */

import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import { test } from "node:test";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { definePolicy } from "../../mod.ts";
import {
  type BunHandlers,
  type BunListenOptions,
  type BunServer,
  type BunSocket,
  listen,
} from "../../servers/bun.ts";
import { freshPath } from "../support/peers.ts";
import { needs, testWith, until } from "../support/suite.ts";
import { crowd, openDescriptors, visit, visitAs, Visitor } from "../support/servers.ts";

const here = [needs.bun, needs.linux, needs.cc];
const asRoot = [...here, needs.root];

const greet: BunHandlers = { open: (socket, { uid }) => void socket.end(`welcome, ${uid}`) };

/** Runs a callback while a server listens with mode 0666. */
async function served(
  options: Omit<BunListenOptions, "path" | "systemd" | "socket">,
  run: (path: string, server: BunServer) => Promise<void>,
  socket: BunHandlers = greet,
): Promise<void> {
  const path = freshPath();
  const server = await listen({ ...options, path, mode: 0o666, socket } as BunListenOptions);
  assert.equal(server.path, path);
  try {
    await run(path, server);
  } finally {
    await server.close({ timeout: 0 });
  }
  assert.deepEqual([server.stats().open, readdirSync(dirname(path))], [0, []]);
}

test("listen() of ucred/bun rejects on other runtimes and when an option is wrong", async () => {
  const options = { path: freshPath(), socket: greet };
  if (!needs.bun.met) return await assert.rejects(listen(options), TypeError);
  await assert.rejects(listen({ ...options, policy: "everyone" as never }), TypeError);
  await assert.rejects(listen({ ...options, limits: { connections: 0 } }), RangeError);
  await assert.rejects(listen({ ...options, path: "" }), TypeError);
  await assert.rejects(listen({ ...options, path: "/nowhere/s" }), { code: "ERR_UCRED_LISTEN" });
});

testWith(
  asRoot,
  "listen() of ucred/bun accepts only root and its own user without a policy",
  async () => {
    await served({}, async (path, server) => {
      assert.equal(await visitAs(0, path), "welcome, 0");
      for (const uid of [1, 1000, 65534]) assert.equal(await visitAs(uid, path), "");
      assert.deepEqual(server.stats().refused, { policy: 3, limits: 0, unidentified: 0 });
    });
  },
);

testWith(asRoot, "listen() of ucred/bun identifies each of many concurrent users", async () => {
  const policy = definePolicy({
    version: 1,
    rules: [{ name: "some", when: { uid: "1000-1019" }, allow: true }],
  });
  await served({ policy }, async (path, server) => {
    const uids = Array.from({ length: 40 }, (_, at) => 990 + at);
    const texts = await Promise.all(uids.map((uid) => visitAs(uid, path)));
    assert.deepEqual(
      texts,
      uids.map((uid) => uid >= 1000 && uid <= 1019 ? `welcome, ${uid}` : ""),
    );
    assert.deepEqual([server.stats().accepted, server.stats().refused.policy], [20, 20]);
    await until(() => server.stats().open === 0);
  });
});

testWith(asRoot, "listen() of ucred/bun calls no handler for refused connections", async () => {
  const heard: string[] = [];
  const handlers = Object.fromEntries(
    ["open", "data", "drain", "end", "timeout", "close", "error"].map((name) => [
      name,
      (socket: BunSocket) => {
        heard.push(name);
        if (name === "open") socket.end("welcome");
      },
    ]),
  ) as BunHandlers;
  await served({}, async (path, server) => {
    assert.equal(await visitAs(1000, path, "--send", "hello"), "");
    assert.equal(await visitAs(1000, path), "");
    await until(() => server.stats().refused.policy === 2);
    assert.deepEqual(heard, []);
    assert.equal(await visitAs(0, path), "welcome");
    await until(() => server.stats().open === 0);
    assert.equal(heard[0], "open");
    assert.equal(heard.at(-1), "close");
  }, handlers);
});

testWith(
  [needs.bun],
  "listen() of ucred/bun passes events to the handlers, which can send data",
  async () => {
    const events: string[] = [];
    await served({}, async (path, server) => {
      const socket = connect({ path, allowHalfOpen: true });
      let text = "";
      socket.setEncoding("utf8").on("data", (part) => text += part);
      socket.write("one");
      await until(() => text === "got one");
      socket.end("two");
      await new Promise((resolve) => socket.once("close", resolve));
      assert.equal(text, "got onegot twobye");
      await until(() => server.stats().open === 0);
      assert.deepEqual(events, ["open", "data", "data", "end", "close"]);
    }, {
      open: () => void events.push("open"),
      data: (socket, data) => {
        events.push("data");
        socket.write(`got ${new TextDecoder().decode(data)}`);
      },
      end: (socket) => {
        events.push("end");
        socket.end("bye");
      },
      close: () => void events.push("close"),
    });
  },
);

const FAILING: { readonly [how: string]: () => unknown } = {
  "throws": () => {
    throw new Error("broken");
  },
  "throws what has no text": () => {
    throw Object.create(null);
  },
  "rejects": async () => {
    await sleep(1);
    throw new Error("broken");
  },
};

for (const [how, fail] of Object.entries(FAILING)) {
  for (const name of ["open", "data", "end", "close"] as const) {
    testWith(
      here,
      `listen() of ucred/bun closes only one connection when its "${name}" handler ${how}`,
      async () => {
        let isBroken = false;
        const handlers: BunHandlers = {
          open: (socket) => void (isBroken && name === "close" && socket.end()),
          [name]: (socket: BunSocket) => {
            if (isBroken) return fail();
            if (name === "end") socket.end();
            return undefined;
          },
        };
        await served({}, async (path, server) => {
          const other = await Visitor.at(path);
          await until(() => server.stats().open === 1);
          isBroken = true;
          if (name === "end") {
            const socket = connect({ path, allowHalfOpen: true }).on("error", () => {}).resume();
            const closed = new Promise((resolve) => socket.once("close", resolve));
            socket.end();
            await closed;
          } else assert.equal(await visit(path, "--send", "hello"), "");
          await until(() => server.stats().failed === 1 && server.stats().open === 1);
          isBroken = false;
          const third = await Visitor.at(path);
          await until(() => server.stats().open === 2);
          for (const visitor of [other, third]) await visitor.leave();
          await until(() => server.stats().open === 0);
        }, handlers);
      },
    );
  }
}

testWith(
  here,
  "listen() of ucred/bun continues when peers hang up at once or are killed",
  async () => {
    const before = openDescriptors();
    await served({ limits: { connectionsPerUser: 4096 } }, async (path, server) => {
      const counts = await Promise.all([1, 2, 3].map(() => crowd(path, 300)));
      assert.deepEqual(counts, [300, 300, 300]);
      const visitors = await Promise.all(Array.from({ length: 10 }, () => Visitor.at(path)));
      for (const { child } of visitors) child.process.kill("SIGKILL");
      await until(() => server.stats().open === 0 && server.stats().accepted === 910);
      assert.equal(server.stats().failed, 0);
    }, { open: (socket) => void socket.write("x".repeat(1000)) });
    await until(() => openDescriptors() <= before + 1);
  },
);

testWith(asRoot, "listen() of ucred/bun limits the connections of each user", async () => {
  await served({ policy: "anyone", limits: { connectionsPerUser: 2 } }, async (path, server) => {
    const stay = () => Visitor.at(path, ["--uid", "1000"]);
    const held = [await stay(), await stay()];
    await until(() => server.stats().open === 2);
    assert.equal(await visitAs(1000, path), "");
    assert.equal(await visitAs(1001, path), "welcome, 1001");
    assert.equal(server.stats().refused.limits, 1);
    for (const visitor of held) await visitor.leave();
  }, {
    open: (socket, { uid }) => void (uid === 1001 && socket.end("welcome, 1001")),
  });
});

testWith(here, "close() of ucred/bun waits for connections, then cuts them off", async () => {
  const path = freshPath();
  const socket: BunHandlers = { open: (socket) => void socket.write("hello") };
  const server = await listen({ path, socket });
  const visitors = [await Visitor.at(path), await Visitor.at(path)];
  await until(() => server.stats().open === 2);
  let isClosed = false;
  const closing = server.close({ timeout: 3_600_000 }).then(() => isClosed = true);
  assert.equal(existsSync(path), false);
  assert.equal(await visit(path), "ENOENT");
  await visitors[0]!.leave();
  await until(() => server.stats().open === 1);
  assert.equal(isClosed, false);
  await server.close({ timeout: 1 });
  assert.equal(await visitors[1]!.text(), "hello");
  await closing;
  assert.equal(server.stats().open, 0);
  const again = await listen({ path, socket: greet });
  assert.equal(await visit(path), `welcome, ${process.getuid!()}`);
  await again.close();
});

testWith(
  here,
  "listen() of ucred/bun rejects when another server listens at the path",
  async () => {
    await served({}, async (path) => {
      await assert.rejects(listen({ path, socket: greet }), {
        code: "ERR_UCRED_LISTEN",
        errno: 98,
      });
      assert.equal(await visit(path), `welcome, ${process.getuid!()}`);
    });
  },
);

testWith(
  [needs.bun],
  "close() accepts timeouts beyond setTimeout's maximum, and rejects invalid ones",
  async () => {
    let heard = 0;
    await served({}, async (path, server) => {
      const socket = connect(path).on("error", () => {}).resume();
      await until(() => heard === 1);
      for (const timeout of [-1, NaN, "5"]) {
        await assert.rejects(server.close({ timeout: timeout as number }), RangeError);
      }
      let isOver = false;
      const closing = server.close({ timeout: 2 ** 40 }).then(() => isOver = true);
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.equal(isOver, false);
      socket.end();
      await closing;
    }, { open: () => void heard++ });
  },
);
