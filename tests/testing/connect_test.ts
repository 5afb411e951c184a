/** `ucred/testing`: connections of fake peers to servers of `ucred/net`, compared with real sockets. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { connect as connectTo, createServer as createPlainServer, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { test } from "node:test";
import { definePolicy, identify, peerCredentials, type Policy, UcredError } from "../../mod.ts";
import { createGuard } from "../../guard/mod.ts";
import { createServer as createUcredHttpServer } from "../../servers/http.ts";
import { createServer, type NetServer, type NetServerOptions } from "../../servers/net.ts";
import { asUser, fakePeer } from "../../testing/mod.ts";
import type { AuditLog, ServerEvent } from "../../servers/audit.ts";
import { temporaryFolder } from "../support/compile.ts";
import { needs, testWith, until } from "../support/suite.ts";

const policy = definePolicy({
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: "full" },
    { name: "the backup", when: { exe: "/usr/bin/restic" }, allow: "read" },
  ],
});

const root = fakePeer({ uid: 0, gid: 0, groups: [] });
const stranger = fakePeer({ uid: 1000, gid: 1000, groups: [] });

async function textOf(stream: Duplex): Promise<string> {
  let text = "";
  for await (const chunk of stream.setEncoding("utf8")) text += chunk;
  return text;
}

function recorder(events: ServerEvent[]): AuditLog {
  return {
    dropped: 0,
    error: undefined,
    write: (event) => void events.push(event),
    reopen: () => {},
    close: () => Promise.resolve(),
  };
}

test("asUser().connect() reaches the handler only as a peer that the policy allows", async () => {
  const handled: number[] = [];
  const server = createServer(
    { policy, refusalMessage: ({ why, decision }) => `${why}: ${decision?.reason}` },
    (socket, peer, { grants }) => {
      handled.push(peer.uid);
      socket.end(`uid ${peer.uid}: ${grants}`);
    },
  );
  assert.equal(await textOf(asUser(server, root).connect()), "uid 0: full");
  const backup = fakePeer({ uid: 34, process: { exe: "/usr/bin/restic" } });
  assert.equal(await textOf(asUser(server, backup).connect()), "uid 34: read");
  const denied = [
    stranger,
    fakePeer({ uid: 34 }), // its exe is unknown
    fakePeer({ uid: 34, process: { exe: "/usr/bin/restic2" } }),
  ];
  for (const peer of denied) {
    assert.match(await textOf(asUser(server, peer).connect()), /^policy: No rule matches/);
  }
  assert.deepEqual(handled, [0, 34]);
  const { accepted, refused } = server.stats();
  assert.deepEqual([accepted, refused.policy], [2, 3]);
});

test("asUser().connect() without a policy reaches the handler only as root and our own user", async () => {
  const server = createServer((socket, { uid }) => void socket.end(`${uid}`));
  assert.equal(await textOf(asUser(server, root).connect()), "0");
  const own = process.getuid!();
  assert.equal(await textOf(asUser(server, fakePeer({ uid: own })).connect()), `${own}`);
  assert.equal(await textOf(asUser(server, fakePeer({ uid: 4321 })).connect()), "");
});

test("asUser().connect() is refused if the policy fails, or the process has ended", async () => {
  const fail = () => assert.fail("no database");
  const failing: Policy = { needsPin: false, admits: fail, decide: fail };
  const handled: string[] = [];
  const server = createServer({ policy: failing }, () => void handled.push("failing"));
  assert.equal(await textOf(asUser(server, root).connect()), "");
  const ended = fakePeer({ uid: 34, process: { exe: "/usr/bin/restic" } });
  ended.end();
  const other = createServer({ policy }, () => void handled.push("ended"));
  assert.equal(await textOf(asUser(other, ended).connect()), "");
  assert.deepEqual(handled, []);
  assert.equal(server.stats().refused.unidentified, 1);
});

test("asUser().connect() closes the connection when the handler throws or rejects", async () => {
  const events: ServerEvent[] = [];
  const audit = recorder(events);
  for (const handler of [() => assert.fail("a"), () => Promise.reject(new Error("b"))]) {
    const server = createServer({ policy: "anyone", audit }, handler);
    assert.equal(await textOf(asUser(server, stranger).connect()), "");
    assert.equal(server.stats().failed, 1);
  }
  const types = events.map(({ type }) => type);
  assert.deepEqual(types.filter((type) => type === "failed").length, 2);
  assert.ok(events.every(({ server }) => server === "ucred/testing"));
});

test("asUser().connect() counts towards the limits, and the end of a connection frees its place", async () => {
  const limits = { connectionsPerUser: 2, connections: 3 };
  const options: NetServerOptions = { policy: "anyone", limits, refusalMessage: ({ why }) => why };
  const server = createServer(options, (socket) => void socket.resume());
  const clients = [stranger, stranger].map((peer) => asUser(server, peer).connect());
  const message = await textOf(asUser(server, stranger).connect());
  assert.equal(message, "connectionsPerUser");
  clients.push(asUser(server, root).connect());
  assert.equal(await textOf(asUser(server, fakePeer({ uid: 5 })).connect()), "connections");
  assert.equal(server.stats().open, 3);
  clients[0]!.destroy();
  await once(clients[0]!, "close");
  const again = asUser(server, stranger).connect().resume();
  again.end();
  await once(again, "close");
  assert.equal(server.stats().accepted, 4);
  for (const client of clients) client.destroy();
  await until(() => server.stats().open === 0);
});

test("close() of a server cuts off connections of fake peers after its timeout", async () => {
  const server = createServer({ policy: "anyone" }, (socket) => void socket.resume());
  server.listen(join(temporaryFolder(), "s"));
  await once(server, "listening");
  const client = asUser(server, stranger).connect().resume();
  const closed = once(client, "close");
  await server.close({ timeout: 0 });
  await closed;
  assert.equal(server.stats().open, 0);
});

test("asUser().connect() pins the peer only if the server does, and the peer closes with its connection", async () => {
  const pinned: (string | undefined)[] = [];
  const peers: { close(): void; readonly alive: boolean | undefined }[] = [];
  const serve = (options: NetServerOptions) =>
    createServer(options, (socket, peer) => {
      pinned.push(peer.process.exe);
      peers.push(peer);
      socket.end();
    });
  const peer = fakePeer({ uid: 0, process: { exe: "/bin/a" } });
  for (const pin of [false, true]) {
    const client = asUser(serve({ policy: "anyone", pin }), peer).connect().resume();
    await once(client, "close");
  }
  assert.deepEqual(pinned, [undefined, "/bin/a"]);
  assert.deepEqual(peers.map(({ alive }) => alive), [undefined, undefined]);
  assert.equal(peer.alive, true);
});

test("the socket of a fake peer has no descriptor, so its credentials cannot be read", async () => {
  const errors: unknown[] = [];
  const server = createServer({ policy: "anyone" }, (socket) => {
    for (const read of [peerCredentials, identify]) {
      try {
        read(socket);
      } catch (error) {
        errors.push(error);
      }
    }
    socket.end();
  });
  await textOf(asUser(server, root).connect());
  assert.equal(errors.length, 2);
  for (const error of errors) {
    assert.ok(error instanceof TypeError || error instanceof UcredError, String(error));
  }
});

test("asUser().connect() rejects other servers, and peers that fakePeer() has not made", async () => {
  const onlyNet = /only a server of createServer\(\) of ucred\/net accepts/;
  const guard = await createGuard({ mode: "stream", upstream: "/none" });
  const others = [createPlainServer(), createHttpServer(), createUcredHttpServer(), guard];
  for (const other of others) {
    assert.throws(() => asUser(other as NetServer, root), onlyNet);
  }
  const server = createServer({ policy: "anyone" });
  assert.throws(() => asUser(server, { ...root }), /requires a peer of fakePeer\(\)/);
  assert.throws(() => asUser(server, { uid: 0 } as never), /requires a peer of fakePeer\(\)/);
  assert.equal(server.stats().accepted, 0);
});

/** What a client does. Returns what it has received. */
type Dialogue = (client: Duplex) => Promise<string>;

/** Pairs of a handler and a client, with sockets as on a network. */
const DIALOGUES: readonly (readonly [
  name: string,
  options: NetServerOptions,
  handler: (socket: Socket) => void,
  dialogue: Dialogue,
])[] = [
  ["lines", {}, (socket) => {
    createInterface({ input: socket }).on("line", (line) => socket.write(`${line.length}\n`))
      .on("close", () => socket.end("bye\n"));
  }, async (client) => {
    client.write("a\nbc\nlong");
    client.end("er\n");
    return await textOf(client);
  }],
  ["a response after the end of the request", { allowHalfOpen: true }, (socket) => {
    let bytes = 0;
    socket.on("data", (chunk) => bytes += chunk.length).once(
      "end",
      () => setTimeout(() => socket.end(`${bytes}`), 1),
    );
  }, async (client) => {
    client.end("x".repeat(300_000));
    return await textOf(client);
  }],
  ["more than fits into the buffers", {}, (socket) => {
    socket.end("y".repeat(1 << 20));
  }, async (client) => {
    const text = await textOf(client);
    return `${text.length}`;
  }],
  ["an echo", {}, (socket) => void socket.pipe(socket), async (client) => {
    client.end("echo");
    return await textOf(client);
  }],
  ["a paused socket", { pauseOnConnect: true }, (socket) => {
    socket.on("data", (chunk) => socket.end(`got ${chunk}`));
    setTimeout(() => socket.resume(), 1);
  }, async (client) => {
    client.write("later");
    return await textOf(client);
  }],
  ["a timeout", {}, (socket) => {
    socket.setTimeout(1, () => socket.end("timeout")).setNoDelay().setKeepAlive(true);
    socket.ref().unref().ref();
  }, textOf],
  ["a handler that destroys the socket", {}, (socket) => void socket.destroy(), textOf],
  ["destroySoon()", {}, (socket) => {
    socket.write("soon");
    socket.destroySoon();
  }, textOf],
];

testWith([needs.linux], "connections of fake peers transfer what sockets transfer", async () => {
  const uid = process.getuid!();
  for (const [name, options, handler, dialogue] of DIALOGUES) {
    const events = [[], []] as const satisfies readonly string[][];
    const received: string[] = [];
    for (const [at, isFake] of [false, true].entries()) {
      const log: string[] = events[at]!;
      const server = createServer(options, (socket) => {
        for (const event of ["close", "finish", "timeout"]) {
          if (name !== "destroySoon()") socket.once(event, () => log.push(event));
        }
        handler(socket);
      });
      let client: Duplex;
      if (isFake) client = asUser(server, fakePeer({ uid })).connect();
      else {
        const path = join(temporaryFolder(), "s");
        server.listen(path);
        await once(server, "listening");
        client = connectTo(path);
      }
      client.on("error", () => {});
      received.push(await dialogue(client));
      client.destroy();
      await until(() => server.stats().accepted === 1 && server.stats().open === 0);
      if (!isFake) await server.close({});
    }
    assert.equal(received[1], received[0], name);
    assert.deepEqual(new Set(events[1]), new Set(events[0]), name);
  }
});

test("a connection of a fake peer fails as a socket does when the other end has closed", async () => {
  const errors: Promise<NodeJS.ErrnoException[]>[] = [];
  const server = createServer({ policy: "anyone", allowHalfOpen: true }, (socket) => {
    socket.resume().once("end", () => void socket.write("to no one"));
    errors.push(once(socket, "error"));
  });
  const client = asUser(server, stranger).connect();
  client.destroy();
  const [error] = (await errors[0])!;
  assert.equal(error!.code, "EPIPE");
});

test("a connection of a fake peer copies what is written, and counts it", async () => {
  let serverSide: Socket | undefined;
  const server = createServer({ policy: "anyone" }, (socket) => {
    serverSide = socket.resume();
  });
  const client = asUser(server, stranger).connect();
  const bytes = new Uint8Array([1, 2, 3]);
  client.write(bytes);
  client.write(new Uint8Array());
  bytes.fill(9);
  client.end();
  const found: Uint8Array[] = [];
  for await (const chunk of serverSide!) found.push(chunk);
  assert.deepEqual(found.flatMap((chunk) => [...chunk]), [1, 2, 3]);
  assert.equal(serverSide!.bytesRead, 3);
});
