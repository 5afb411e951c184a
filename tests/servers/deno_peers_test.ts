/** `withPeers()`: admission, identification of each connection, and refusal in case of doubt. */

import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { closeSync, openSync } from "node:fs";
import { test } from "node:test";
import { openedSystem } from "../../adapters/select.ts";
import { foundSocketOf } from "../../system/accepted_sockets.ts";
import { definePolicy, identify, type Peer } from "../../mod.ts";
import { CHANNELS } from "../../servers/audit.ts";
import { type PeerListener, withPeers, type WithPeersOptions } from "../../servers/deno.ts";
import { Child, freshPath, pidfds } from "../support/peers.ts";
import { needs, runtimeCommand, testWith, until } from "../support/suite.ts";
import { crowd, openDescriptors, visit, visitAs, Visitor } from "../support/servers.ts";

const here = [needs.deno, needs.linux, needs.cc];
const asRoot = [...here, needs.root];

type Handler = (conn: Deno.UnixConn, peer: Peer) => unknown;

const say = async (conn: Deno.UnixConn, text: string): Promise<void> => {
  await conn.write(new TextEncoder().encode(text)).catch(() => {}); // the client may have hung up
  conn.close();
};

const greet: Handler = (conn, { uid }) => say(conn, `welcome, ${uid}`);

/** Runs a callback while connections are handled. */
async function served(
  options: WithPeersOptions,
  run: (path: string, peers: PeerListener<Deno.UnixConn>) => Promise<void>,
  handler: Handler = greet,
): Promise<void> {
  const path = freshPath();
  const listener = Deno.listen({ transport: "unix", path });
  Deno.chmodSync(path, 0o666);
  const peers = withPeers(listener, options);
  const done = (async () => {
    for await (const { conn, peer } of peers) void handler(conn, peer);
  })();
  try {
    await run(path, peers);
  } finally {
    peers.close();
    await done;
  }
}

testWith(asRoot, "withPeers() accepts only root and its own user without a policy", async () => {
  await served({}, async (path, peers) => {
    assert.equal(await visitAs(0, path), "welcome, 0");
    for (const uid of [1, 1000, 65534]) assert.equal(await visitAs(uid, path), "");
    assert.deepEqual(peers.stats().refused, { policy: 3, limits: 0, unidentified: 0 });
  });
});

testWith(asRoot, "withPeers() identifies each of many concurrent users", async () => {
  const policy = definePolicy({
    version: 1,
    rules: [{ name: "some", when: { uid: "1000-1019" }, allow: true }],
  });
  await served({ policy }, async (path, peers) => {
    const uids = Array.from({ length: 40 }, (_, at) => 990 + at);
    const texts = await Promise.all(uids.map((uid) => visitAs(uid, path)));
    assert.deepEqual(
      texts,
      uids.map((uid) => uid >= 1000 && uid <= 1019 ? `welcome, ${uid}` : ""),
    );
    assert.deepEqual([peers.stats().accepted, peers.stats().refused.policy], [20, 20]);
    await until(() => peers.stats().open === 0);
  });
});

testWith(
  asRoot,
  "withPeers() identifies each peer while other descriptors open and close",
  async () => {
    const files: number[] = [];
    const juggle = () => {
      for (let times = 0; times < 5; times++) files.push(openSync("/dev/null", "r"));
      while (files.length > 12) closeSync(files.splice(files.length * Math.random() | 0, 1)[0]!);
    };
    const other = Deno.listen({ transport: "unix", path: freshPath() });
    const ticker = setInterval(juggle, 1);
    const limits = { connectionsPerUser: 1000 }; // the crowd's connections count until they are closed
    await served({ policy: "anyone", limits }, async (path, peers) => {
      const crowds = Promise.all([crowd(path, 200), crowd(path, 200)]);
      for (let round = 0; round < 5; round++) {
        const uids = Array.from({ length: 20 }, (_, at) => 2000 + round * 20 + at);
        const clients = uids.map(() => Deno.connect({ transport: "unix", path: other.addr.path }));
        const texts = await Promise.all(uids.map((uid) => visitAs(uid, path)));
        assert.deepEqual(texts, uids.map((uid) => `welcome, ${uid}`));
        for (const client of await Promise.all(clients)) client.close();
      }
      assert.deepEqual(await crowds, [200, 200]);
      await until(() => peers.stats().accepted === 500);
      assert.deepEqual(peers.stats().refused, { policy: 0, limits: 0, unidentified: 0 });
      await until(() => peers.stats().open === 0);
    }, (conn, peer) => {
      juggle();
      return greet(conn, peer);
    });
    clearInterval(ticker);
    for (const fd of files) closeSync(fd);
    other.close();
  },
);

testWith(
  asRoot,
  "withPeers() identifies each peer while the program duplicates descriptors of connections",
  async () => {
    const copies: number[] = [];
    const { fcntl, close } = openedSystem().libc.linux!;
    await served({ policy: "anyone" }, async (path, peers) => {
      for (let times = 0; times < 30; times++) {
        for (const uid of [0, 1001, 1002]) {
          assert.equal(await visitAs(uid, path), `welcome, ${uid}`);
        }
      }
      assert.deepEqual(peers.stats().refused, { policy: 0, limits: 0, unidentified: 0 });
    }, (conn, peer) => {
      const { fd } = foundSocketOf(conn)!;
      for (let times = 0; times < 3; times++) copies.push(fcntl(fd, 0, 0)); // F_DUPFD
      for (const copy of copies.splice(0, copies.length - 20)) close(copy);
      return greet(conn, peer);
    });
    copies.forEach(close);
  },
);

testWith(here, "withPeers() refuses a connection when its descriptor cannot be found", async () => {
  const path = freshPath();
  const listener = Deno.listen({ transport: "unix", path });
  const elsewhere = {
    addr: { transport: "unix", path: `${path}-elsewhere` },
    accept: () => listener.accept(),
    close: () => listener.close(),
  };
  const peers = withPeers(elsewhere, { policy: "anyone" });
  const next = peers.next();
  assert.equal(await visit(path), "");
  assert.equal(await visit(path), "");
  assert.deepEqual(peers.stats().refused, { policy: 0, limits: 0, unidentified: 2 });
  peers.close();
  assert.deepEqual(await next, { done: true, value: undefined });
});

testWith(
  here,
  "identify() accepts a connection of withPeers(), and no other of Deno.listen",
  async () => {
    await served({}, async (path) => {
      assert.equal(await visit(path), `${Deno.uid()}`);
    }, (conn) => say(conn, `${identify(conn as never).uid}`));
    const path = freshPath();
    const listener = Deno.listen({ transport: "unix", path });
    const visitor = visit(path);
    const conn = await listener.accept();
    assert.throws(() => identify(conn as never), { code: "ERR_UCRED_NO_FD" });
    conn.close();
    await visitor;
    listener.close();
  },
);

testWith(
  here,
  "withPeers() counts a connection as open until it is closed in any way",
  async () => {
    const conns: Deno.UnixConn[] = [];
    const before = openDescriptors();
    await served({ limits: { connections: 3 } }, async (path, peers) => {
      const visitors = [await Visitor.at(path), await Visitor.at(path), await Visitor.at(path)];
      await until(() => conns.length === 3);
      assert.equal(await visit(path), "");
      assert.deepEqual([peers.stats().open, peers.stats().refused.limits], [3, 1]);
      conns[0]!.close();
      assert.equal(peers.stats().open, 2);
      assert.throws(() => conns[0]!.close());
      assert.equal(peers.stats().open, 2);
      // Its streams close it without an event.
      const closing = conns[1]!.readable.pipeTo(conns[1]!.writable);
      await visitors[1]!.leave();
      await closing;
      await until(() => peers.stats().open === 1);
      await visitors[2]!.leave();
      conns[2]!.close();
      assert.equal(peers.stats().open, 0);
      await visitors[0]!.text();
    }, (conn) => void conns.push(conn));
    await until(() => openDescriptors() <= before);
  },
);

testWith(
  [...here, needs.peerPidfd],
  "withPeers() releases connections that streams have closed when a limit is reached",
  async () => {
    const before = pidfds();
    const held: Peer[] = []; // prevents garbage collection
    let [left, closed] = [0, 0];
    const count = () => void closed++;
    subscribe(CHANNELS.closed, count);
    try {
      const options = { pin: true, limits: { connectionsPerUser: 3 } };
      await served(options, async (path, peers) => {
        for (let times = 0; times < 12; times++) {
          const visitor = await Visitor.at(path);
          await until(() => held.length === times + 1);
          await visitor.leave();
          await until(() => left === times + 1);
        }
        await until(() => peers.stats().open === 0);
        await until(() => closed === 12 && pidfds() <= before);
      }, (conn, peer) => {
        held.push(peer);
        return conn.readable.pipeTo(conn.writable).then(() => left++);
      });
    } finally {
      unsubscribe(CHANNELS.closed, count);
    }
  },
);

testWith(
  here,
  "close() of withPeers() ends the iteration, and leaves connections open",
  async () => {
    const conns: Deno.UnixConn[] = [];
    let path = "";
    let visitor: Visitor | undefined;
    await served({}, async (where, peers) => {
      path = where;
      visitor = await Visitor.at(where);
      await until(() => conns.length === 1);
      peers.close();
      peers.close();
      assert.deepEqual(await peers.next(), { done: true, value: undefined });
    }, (conn) => void conns.push(conn));
    assert.match(await visit(path), /ENOENT|ECONNREFUSED/);
    await say(conns[0]!, "goodbye");
    assert.equal(await visitor!.text(), "goodbye");
  },
);

testWith(here, "withPeers() closes the listener when the loop is left", async () => {
  const path = freshPath();
  const peers = withPeers(Deno.listen({ transport: "unix", path }));
  const visitor = visit(path);
  await assert.rejects(async () => {
    for await (const { conn } of peers) {
      conn.close();
      throw new Error("broken");
    }
  }, /broken/);
  await visitor;
  assert.match(await visit(path), /ENOENT|ECONNREFUSED/);
});

testWith(here, "withPeers() continues after descriptors had run out", async () => {
  const path = freshPath();
  const script = new URL("deno_starved.ts", import.meta.url).pathname;
  const limit = ["-c", 'ulimit -n 200 && exec "$@"', "-"];
  const child = new Child("bash", [...limit, ...runtimeCommand(), script, path]);
  assert.deepEqual(await child.json(), { listening: true });
  const command = (order: string) => {
    child.process.stdin!.write(`${order}\n`);
    return child.json<Record<string, unknown>>();
  };
  assert.equal(await visit(path), `welcome, ${Deno.uid()}`);
  assert.deepEqual(await command("fill"), { filled: true });
  const visitors = [await Visitor.at(path), await Visitor.at(path)];
  assert.deepEqual(await command("free"), { freed: true });
  for (const visitor of visitors) assert.equal(await visitor.text(), `welcome, ${Deno.uid()}`);
  assert.equal(await visit(path), `welcome, ${Deno.uid()}`);
  assert.deepEqual((await command("stats"))["accepted"], 4);
  await child.end();
});

testWith(here, "withPeers() throws when another listener has the same address", async () => {
  const path = freshPath();
  const former = Deno.listen({ transport: "unix", path });
  await served({}, async () => {
    const peers = withPeers(former, { policy: "anyone" });
    const next = peers.next();
    Deno.renameSync(path, `${path}-moved`);
    const latter = Deno.listen({ transport: "unix", path });
    assert.throws(() => withPeers(latter, { policy: "anyone" }), { code: "ERR_UCRED_LISTEN" });
    latter.close();
    const visitor = await Visitor.at(`${path}-moved`);
    const { value } = await next;
    assert.equal(value!.peer.uid, Deno.uid());
    await say(value!.conn, "welcome");
    assert.equal(await visitor.text(), "welcome");
    peers.close();
  });
});

testWith(
  here,
  "withPeers() throws when it already has the listener",
  () => {
    const listener = Deno.listen({ transport: "unix", path: freshPath() });
    assert.throws(() => withPeers(listener, { limits: { connections: 0 } }), RangeError); // the listener is not in use
    const peers = withPeers(listener);
    assert.throws(() => withPeers(listener), { code: "ERR_UCRED_LISTEN" });
    peers.close();
  },
);

test("withPeers() throws without a Unix listener", () => {
  const listener = (addr: object) =>
    ({ addr, accept: () => Promise.reject(), close() {} }) as never;
  for (const addr of [{ transport: "tcp", port: 1 }, { transport: "unix" }, {}]) {
    assert.throws(() => withPeers(listener(addr)), TypeError);
  }
});

testWith(
  [needs.deno],
  "withPeers() throws when the policy is wrong, and leaves the listener open",
  () => {
    const listener = Deno.listen({ transport: "unix", path: freshPath() });
    assert.throws(() => withPeers(listener, { policy: "everyone" as never }), TypeError);
    assert.throws(() => withPeers(listener, { limits: { connections: 0 } }), RangeError);
    listener.close();
  },
);
