/** `ucred/net`: admission, refusal messages, and errors that must not stop the server. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { connect, createServer as createPlainServer, type Socket } from "node:net";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { definePolicy, type Peer, type Policy } from "../../mod.ts";
import {
  createServer,
  type NetServer,
  type NetServerOptions,
  type ServerStats,
} from "../../servers/net.ts";
import { freshPath } from "../support/peers.ts";
import { needs, runtime, testWith, until } from "../support/suite.ts";
import {
  crowd,
  listening,
  openDescriptors,
  ServerProcess,
  visit,
  visitAs,
  Visitor,
} from "../support/servers.ts";

const here = [needs.linux, needs.cc];
const asRoot = [...here, needs.root];

type Handler = NonNullable<Parameters<typeof createServer>[1]>;

const greet: Handler = (socket, peer) => void socket.resume().end(`welcome, ${peer.uid}`);

/** Runs a callback while a server listens with mode 0666. */
async function served<T>(
  options: NetServerOptions,
  run: (path: string, server: NetServer) => Promise<T>,
  handler: Handler | null = greet,
): Promise<T> {
  const path = freshPath();
  const server = createServer(options, handler ?? undefined);
  await listening(server, { path, mode: 0o666 });
  try {
    return await run(path, server);
  } finally {
    await server.close({ timeout: 0 });
  }
}

const rules = (...list: Parameters<typeof definePolicy>[0]["rules"]): Policy =>
  definePolicy({ version: 1, rules: list });

testWith(
  asRoot,
  "createServer() accepts only root when root runs it without a policy",
  async () => {
    await served({}, async (path, server) => {
      assert.equal(await visitAs(0, path), "welcome, 0");
      for (const uid of [1, 1000, 65534]) assert.equal(await visitAs(uid, path), "");
      const { accepted, refused } = server.stats();
      assert.deepEqual([accepted, refused.policy], [1, 3]);
    });
  },
);

testWith(
  asRoot,
  "createServer() accepts only its own user and root when a user runs it",
  async () => {
    const path = "\0" + freshPath();
    const server = await ServerProcess.listening({ uid: 4321, gid: 4321, listen: { path } });
    assert.equal(await visitAs(4321, path), "4321\n");
    assert.equal(await visitAs(0, path), "0\n");
    for (const uid of [1, 4320, 4322, 65534]) assert.equal(await visitAs(uid, path), "");
    await server.kill();
  },
);

testWith(asRoot, 'createServer() accepts everybody with policy "anyone"', async () => {
  await served({ policy: "anyone" }, async (path) => {
    for (const uid of [0, 1, 65534]) assert.equal(await visitAs(uid, path), `welcome, ${uid}`);
  });
});

test("createServer() throws when the policy is not a Policy", () => {
  for (const policy of ["everyone", null, {}, () => true, { version: 1, rules: [] }]) {
    assert.throws(() => createServer({ policy: policy as never }), TypeError);
  }
});

testWith(asRoot, "createServer() identifies each of many concurrent users", async () => {
  const policy = rules({
    name: "some",
    when: { uid: ["1000-1009", 1020, "1030-1039"] },
    allow: true,
  });
  const options = {
    policy,
    refusalMessage: ({ peer }: { peer: Peer | undefined }) => `no, ${peer?.uid}`,
  };
  await served(options, async (path, server) => {
    const uids = Array.from({ length: 50 }, (_, at) => 995 + at);
    const texts = await Promise.all(uids.map((uid) => visitAs(uid, path)));
    const isLetIn = (uid: number) =>
      uid >= 1000 && uid < 1010 || uid === 1020 || uid >= 1030 && uid < 1040;
    assert.deepEqual(texts, uids.map((uid) => isLetIn(uid) ? `welcome, ${uid}` : `no, ${uid}`));
    const { accepted, refused } = server.stats();
    assert.deepEqual([accepted, refused.policy], [21, 29]);
  });
});

testWith(
  asRoot,
  'createServer() accepts peers with any allowed action, with decideAt: "action"',
  async () => {
    const policy = rules(
      { name: "readers", when: { uid: 1000 }, actions: "read", allow: true },
      { name: "root", when: { uid: 0 }, allow: true },
      { name: "nobody", when: { uid: 1001 }, actions: "read", deny: true },
    );
    const ask = (socket: Socket, peer: Peer) => {
      const may = (action: string) => policy.decide(peer, { action }).allowed;
      socket.end(["read", "write"].filter(may).join());
    };
    await served({ policy, decideAt: "action" }, async (path) => {
      assert.equal(await visitAs(0, path), "read,write");
      assert.equal(await visitAs(1000, path), "read");
      assert.equal(await visitAs(1001, path), "");
    }, ask);
    await served({ policy }, async (path) => {
      assert.equal(await visitAs(0, path), "read,write");
      assert.equal(await visitAs(1000, path), "");
    }, ask);
  },
);

const nobody = definePolicy({ version: 1, rules: [{ name: "nobody", deny: "Go away" }] });

testWith(here, "createServer() sends refusalMessage to refused clients", async () => {
  for (
    const [refusalMessage, expected] of [
      ["no entry\n", "no entry\n"],
      [({ decision }) => `${decision?.reason}\n`, 'Rule "nobody" denies it: Go away\n'],
      [({ why, peer }) => `${why} ${peer?.uid}`, `policy ${process.getuid!()}`],
      [() => 42 as unknown as string, "42"],
      [undefined, ""],
      ["", ""],
    ] satisfies [NetServerOptions["refusalMessage"], string][]
  ) {
    await served({ policy: nobody, refusalMessage }, async (path, server) => {
      assert.equal(await visit(path), expected);
      // Unread data of the peer must not prevent the message from arriving.
      assert.equal(await visit(path, "--send", "x".repeat(60_000)), expected);
      assert.equal(server.stats().refused.policy, 2);
    });
  }
});

testWith(here, "createServer() refuses the connection when refusalMessage throws", async () => {
  const warned = warning();
  const refusalMessage = () => {
    throw new Error("no words");
  };
  await served({ policy: nobody, refusalMessage }, async (path, server) => {
    assert.equal(await visit(path), "");
    assert.equal(server.stats().refused.policy, 1);
    assert.match(await warned, /^refusalMessage\(\) of the server at .* failed: Error: no words$/);
  });
});

testWith(
  here,
  "createServer() closes a refused connection when its client does not read",
  async () => {
    await served({ policy: nobody, refusalMessage: "x".repeat(1 << 22) }, async (path) => {
      assert.match(await visit(path, "--deaf", "1"), /^x+$/);
    });
  },
);

/** Resolves to the next process warning of the library. */
function warning(): Promise<string> {
  return new Promise((resolve) => {
    const listen = (warning: Error) => {
      if (warning.name !== "UcredWarning" || warning.message.startsWith("Refused ")) return;
      process.off("warning", listen);
      resolve(warning.message);
    };
    process.on("warning", listen);
  });
}

const thrown: { readonly [name: string]: unknown } = {
  "an error": new Error("broken"),
  "undefined": undefined,
  "a symbol": Symbol("broken"),
  "what has no text": Object.create(null),
  "what throws when it is printed": {
    toString() {
      throw new Error("broken, too");
    },
  },
  "an error without a stack": Object.assign(new Error("broken"), { stack: undefined }),
};

for (const [name, error] of Object.entries(thrown)) {
  testWith(
    here,
    `createServer() closes only one connection when its handler throws ${name}`,
    async () => {
      const failing: Handler[] = [
        () => {
          throw error;
        },
        () => Promise.reject(error),
        async () => {
          await sleep(1);
          throw error;
        },
      ];
      for (const fail of failing) {
        let isBroken = false;
        const handler: Handler = (socket, peer, decision) => {
          if (isBroken) return fail(socket, peer, decision);
          return void socket.resume().write("hello");
        };
        await served({}, async (path, server) => {
          const other = await Visitor.at(path);
          await until(() => server.stats().open === 1);
          isBroken = true;
          const warned = warning();
          assert.equal(await visit(path), "");
          assert.match(await warned, /^A handler or policy of the server at .* failed: /);
          await until(() => server.stats().open === 1);
          isBroken = false;
          const third = await Visitor.at(path);
          await until(() => server.stats().open === 2);
          assert.deepEqual(
            { ...server.stats() },
            {
              open: 2,
              accepted: 3,
              refused: { policy: 0, limits: 0, unidentified: 0 },
              allowed: 0,
              denied: 0,
              failed: 1,
              refusedByLimit: { connections: 0, connectionsPerUser: 0, acceptsPerSecond: 0 },
              auditDropped: 0,
            },
          );
          for (const visitor of [other, third]) await visitor.leave();
          await until(() => server.stats().open === 0);
        }, handler);
      }
    },
  );
}

testWith(here, "createServer() closes only one connection when a listener throws", async () => {
  await served({}, async (path, server) => {
    server.on("connection", (socket) => {
      if (server.stats().accepted === 1) throw new Error("broken");
      socket.end("hello");
    });
    const warned = warning();
    assert.equal(await visit(path), "");
    assert.match(await warned, /failed: Error: broken$/);
    assert.equal(await visit(path), "hello");
    assert.equal(server.stats().failed, 1);
  }, null);
});

testWith(here, "createServer() emits connection events without a handler", async () => {
  await served({}, async (path, server) => {
    server.on("connection", (socket) => void socket.end("hello"));
    assert.equal(await visit(path), "hello");
  }, null);
});

testWith(here, "createServer() continues when peers hang up at once or are killed", async () => {
  const talk = (socket: Socket) => {
    const write = () => {
      while (!socket.destroyed && socket.write("x".repeat(10_000)));
    };
    socket.on("drain", write).resume();
    write();
  };
  const limits = { connections: 4000, connectionsPerUser: 4000 };
  await served({ limits }, async (path, server) => {
    const counts = await Promise.all([1, 2, 3].map(() => crowd(path, 500)));
    assert.deepEqual(counts, [500, 500, 500]);
    const visitors = await Promise.all(Array.from({ length: 20 }, () => Visitor.at(path)));
    for (const { child } of visitors) child.process.kill("SIGKILL");
    await until(() => server.stats().open === 0 && server.stats().accepted === 1520);
    const { accepted, failed, refused } = server.stats();
    assert.deepEqual([accepted, failed, refused.policy], [1520, 0, 0]);
    const last = await Visitor.at(path);
    await until(() => server.stats().open === 1);
    await last.leave();
  }, talk);
});

testWith(
  here,
  "createServer() accepts and counts connections when its audit log throws",
  async () => {
    const audit = {
      dropped: 0,
      error: undefined,
      write() {
        throw Object.create(null);
      },
      reopen() {},
      close: () => Promise.resolve(),
    };
    await served({ audit, limits: { connections: 1 } }, async (path, server) => {
      for (let times = 0; times < 3; times++) {
        assert.equal(await visit(path), `welcome, ${process.getuid!()}`);
        await until(() => server.stats().open === 0);
      }
    });
    await served({ audit, policy: nobody }, async (path, server) => {
      assert.equal(await visit(path), "");
      assert.equal(server.stats().refused.policy, 1);
    });
  },
);

testWith(
  here,
  "createServer() keeps the decision of each server when two accept the same connection",
  async () => {
    const own = process.getuid!();
    const allow = (grant: string) => rules({ name: grant, when: { uid: own }, allow: grant });
    const heard: string[] = [];
    const hear = (name: string): Handler => (socket, _, { grants }) => {
      heard.push(`${name}: ${grants}`);
      socket.end();
    };
    const second = createServer({ policy: allow("full") }, hear("second"));
    await served({ policy: allow("read") }, async (path, first) => {
      first.prependListener("connection", (socket) => second.emit("connection", socket));
      await visit(path);
      await until(() => first.stats().open + second.stats().open === 0);
      assert.deepEqual(heard, ["second: full", "first: read"]);
    }, hear("first"));
  },
);

testWith(
  here,
  "createServer() refuses connections when the policy throws or returns nonsense",
  async () => {
    const policies: { readonly [name: string]: object } = {
      "admits() throws": {
        admits() {
          throw new Error("broken");
        },
        decide: () => ({ allowed: true }),
      },
      "decide() throws": {
        admits: () => true,
        decide() {
          throw new Error("broken");
        },
      },
      "decide() throws what has no text": {
        admits: () => true,
        decide() {
          throw Object.create(null);
        },
      },
      "needsPin throws": {
        get needsPin() {
          throw new Error("broken");
        },
        admits: () => true,
        decide: () => ({ allowed: true }),
      },
      "no admits()": { decide: () => ({ allowed: true }) },
      "no answer": { admits: () => true, decide: () => undefined },
    };
    for (const [name, policy] of Object.entries(policies)) {
      await served({ policy: policy as Policy }, async (path, server) => {
        assert.equal(await visit(path), "", name);
        const { accepted, open, refused } = server.stats();
        assert.deepEqual([accepted, open, refused.unidentified], [0, 0, 1], name);
      });
    }
  },
);

const pins: PinCase[] = [
  { name: "a rule needs it", rule: { exe: "/**" }, pin: undefined, isLetIn: true, isPinned: true },
  { name: "pin is set", rule: { uid: "0-65535" }, pin: true, isLetIn: true, isPinned: true },
  {
    name: "nothing needs it",
    rule: { uid: "0-65535" },
    pin: undefined,
    isLetIn: true,
    isPinned: false,
  },
  { name: "pin is off", rule: { exe: "/**" }, pin: false, isLetIn: false, isPinned: false },
];

interface PinCase {
  readonly name: string;
  readonly rule: { readonly exe?: string; readonly uid?: string };
  readonly pin: boolean | undefined;
  readonly isLetIn: boolean;
  readonly isPinned: boolean;
}

for (const { name, rule, pin, isLetIn, isPinned } of pins) {
  testWith(
    [...here, needs.native],
    `createServer() ${isPinned ? "pins" : "does not pin"} peers when ${name}`,
    async () => {
      const policy = rules({ name: "it", when: rule, allow: true });
      const before = openDescriptors();
      await served({ policy, pin }, async (path, server) => {
        for (let times = 0; times < 20; times++) {
          assert.equal(await visit(path), isLetIn ? `${isPinned}` : "");
        }
        await until(() => server.stats().open === 0);
      }, (socket, peer) => void socket.end(`${peer.pinned !== undefined}`));
      await until(() => openDescriptors() <= before);
    },
  );
}

testWith(
  [...here, needs.native],
  "createServer() denies a rule that needs a pin when descriptors have run out",
  async () => {
    const path = freshPath();
    const policy = {
      version: 1,
      rules: [
        { name: "by path", when: { exe: "/**" }, allow: true },
        { name: "not by path", when: { not: { exe: "/nowhere" } }, allow: true },
      ],
    } as const;
    const prefix = ["bash", "-c", 'ulimit -n 256 && exec "$@"', "-"];
    const server = await ServerProcess.listening({ policy, listen: { path } }, prefix);
    assert.equal(await visit(path), `${process.getuid!()}\n`);
    while ((await server.command<ServerStats>({ stats: true })).open > 0);
    assert.deepEqual(await server.command({ fill: 1 }), { filled: true });
    assert.equal(await visit(path), "");
    assert.deepEqual(await server.command({ fill: 0 }), { filled: true });
    const { refused, accepted } = await server.command<ServerStats>({ stats: true });
    assert.deepEqual([accepted, refused.policy], [1, 1]);
    // Deno 2.9.5 stops accepting on a socket once accept(2) has failed without free descriptors.
    if (runtime !== "deno") assert.equal(await visit(path), `${process.getuid!()}\n`);
    await server.kill();
  },
);

testWith(asRoot, "stats() is consistent after connections have ended in every way", async () => {
  const policy = rules({ name: "below 1100", when: { uid: "0-1099" }, allow: true });
  const limits = { connectionsPerUser: 2 };
  await served({ policy, limits }, async (path, server) => {
    const held = [
      await Visitor.at(path, ["--uid", "1000"]),
      await Visitor.at(path, ["--uid", "1000"]),
    ];
    await until(() => server.stats().open === 2);
    assert.equal(await visitAs(1000, path), ""); // one too many
    assert.equal(await visitAs(1100, path), ""); // by the policy
    assert.equal(await visitAs(1099, path), ""); // its handler throws
    await until(() => server.stats().open === 2);
    const { open, accepted, refused, failed } = server.stats();
    assert.deepEqual({ open, accepted, refused, failed }, {
      open: 2,
      accepted: 3,
      refused: { policy: 1, limits: 1, unidentified: 0 },
      failed: 1,
    });
    await held[0]!.leave();
    held[1]!.child.process.kill("SIGKILL");
    await until(() => server.stats().open === 0);
  }, (socket, peer) => {
    if (peer.uid === 1099) throw new Error("broken");
    socket.resume();
  });
});

testWith(here, "close() waits for connections, and accepts no new ones", async () => {
  const path = freshPath();
  const server = createServer({}, (socket) => void socket.resume());
  await listening(server, path);
  const visitor = await Visitor.at(path);
  await until(() => server.stats().open === 1);
  let isClosed = false;
  const closing = server.close({ timeout: 3_600_000 }).then(() => isClosed = true);
  assert.equal(await visit(path), "ENOENT");
  assert.deepEqual([isClosed, server.stats().open], [false, 1]);
  await visitor.leave();
  await closing;
  assert.deepEqual([server.stats().open, server.stats().accepted], [0, 1]);
});

testWith(here, "close() cuts off the remaining connections after its timeout", async () => {
  for (const timeout of [0, 20]) {
    const path = freshPath();
    const server = createServer({}, (socket) => void socket.resume().write("hello"));
    await listening(server, path);
    const visitors = [await Visitor.at(path), await Visitor.at(path)];
    await until(() => server.stats().open === 2);
    await server.close({ timeout });
    assert.equal(server.stats().open, 0);
    for (const visitor of visitors) assert.equal(await visitor.text(), "hello");
  }
});

testWith(
  [needs.linux],
  "close() leaves nothing behind when the server is still starting",
  async () => {
    const path = freshPath();
    const server = createServer({}).listen(path);
    await server.close({});
    assert.equal(existsSync(path), false);
    assert.equal(server.address(), null);
    await listening(server, path); // and it can start again
    assert.equal(server.address(), path);
    await new Promise((resolve) => server.close(resolve));
  },
);

test("close() throws when the timeout is out of range", async () => {
  for (const timeout of [-1, NaN, "1" as unknown as number]) {
    await assert.rejects(createServer({}).close({ timeout }), RangeError);
  }
});

test("listen() throws when its arguments do not describe a Unix socket", () => {
  for (
    const where of [
      0,
      8080,
      "",
      "8080",
      { port: 8080 },
      { fd: 3 },
      { port: 0, path: "x" },
      {},
      null,
    ]
  ) {
    if (where === "8080" || where === "") continue; // paths, the latter refused once it listens
    assert.throws(() => createServer({}).listen(where as never), TypeError);
  }
  const both = { path: "x", systemd: true } as never;
  assert.throws(() => createServer({}).listen(both), TypeError);
});

testWith([needs.linux], "listen() emits an error when called twice", async () => {
  const server = createServer({});
  await listening(server, freshPath());
  assert.throws(() => server.listen(freshPath()), { code: "ERR_UCRED_LISTEN" });
  await server.close({});
});

testWith([needs.linux], "createServer() can respond to a half-closed peer", async () => {
  await served({ allowHalfOpen: true }, async (path) => {
    const socket = connect({ path, allowHalfOpen: true });
    socket.end("question");
    assert.equal(await everything(socket), "answer to question");
  }, async (socket) => void socket.end(`answer to ${await everything(socket)}`));
});

testWith(here, "createServer() identifies peers that have hung up before accept(2)", async () => {
  for (
    const [when, admitted] of [[{ sameUser: true }, 30], [{ exe: "/**" }, 0]] as const
  ) {
    const path = freshPath();
    const policy = { version: 1, rules: [{ name: "it", when, allow: true }] } as const;
    const server = await ServerProcess.listening({ policy, listen: { path } });
    // process.kill(), since Deno's child.kill() sends only one signal.
    process.kill(server.child.process.pid!, "SIGSTOP");
    assert.equal(await crowd(path, 30), 30);
    process.kill(server.child.process.pid!, "SIGCONT");
    let stats: ServerStats;
    do stats = await server.command<ServerStats>({ stats: true }); while (
      stats.open > 0 || stats.accepted + stats.refused.policy < 30
    );
    assert.deepEqual([stats.accepted, stats.refused.policy], [admitted, 30 - admitted]);
    await server.kill();
  }
});

testWith(
  [needs.linux],
  "createServer() refuses connections that are not Unix sockets",
  async () => {
    const server = createServer({ policy: "anyone" }, () => assert.fail("it was served"));
    const tcp = createPlainServer((socket) => void server.emit("connection", socket));
    await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
    const { port } = tcp.address() as { port: number };
    const socket = connect({ port, host: "127.0.0.1" }).on("error", () => {}).resume();
    await new Promise((resolve) => socket.once("close", resolve));
    assert.deepEqual(server.stats().refused, { policy: 0, limits: 0, unidentified: 1 });
    assert.equal(server.stats().accepted, 0);
    tcp.close();
  },
);

/** Returns what a socket receives until the other side ends; our side stays open. */
function everything(socket: Socket): Promise<string> {
  let text = "";
  socket.setEncoding("utf8").on("data", (part) => text += part);
  return new Promise((resolve) => socket.once("end", () => resolve(text)));
}
