/** The search for descriptors of accepted connections, compared with those that node:net shows. */

import assert from "node:assert/strict";
import { closeSync, openSync, renameSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { test } from "node:test";
import { openedSystem } from "../../adapters/select.ts";
import {
  countSeen,
  DescriptorFinder,
  type FoundSocket,
  foundSocketOf,
  isBoundHere,
} from "../../system/accepted_sockets.ts";
import { fdOf } from "../../identity/fd.ts";
import { serve } from "../../servers/http.ts";
import { freshPath } from "../support/peers.ts";
import { needs, runtime, testWith, until } from "../support/suite.ts";
import { crowd, visitAs } from "../support/servers.ts";

const here = [needs.linux, needs.native];

const oneByOne = {
  name: "a node:net that reports each connection before it accepts the next, unlike Deno's",
  met: runtime !== "deno",
};

const listen = async (path: string, onConnection: (socket: Socket) => void): Promise<Server> => {
  const server = createServer({ allowHalfOpen: false }, (socket) => {
    socket.on("error", () => {}).resume();
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return server;
};

const dial = (path: string): Promise<Socket> =>
  new Promise((resolve) => {
    const socket = connect(path, () => resolve(socket)).on("error", () => {}).resume();
  });

const end = (server: Server) => new Promise((resolve) => server.close(resolve));

for (const path of ["a path", "an abstract name"]) {
  testWith(
    [...here, needs.cc, oneByOne],
    `find() finds each connection, at ${path}`,
    async () => {
      const where = path === "a path" ? freshPath() : `\0${freshPath()}`;
      let [right, wrong] = [0, 0];
      const files: number[] = [];
      const server = await listen(where, (socket) => {
        const found = finder.find(socket);
        if (found.fd === fdOf(socket) && found.isOpen() && foundSocketOf(socket) === found) right++;
        else wrong++;
        socket.once("close", () => found.close());
        if (right % 3 === 0) socket.end();
        // Other descriptors open and close meanwhile, below and above.
        if (right % 2 === 0) files.push(openSync("/dev/null", "r"));
        else if (files.length > 0) closeSync(files.splice(right % files.length, 1)[0]!);
      });
      const finder = new DescriptorFinder(where);
      const counts = await Promise.all([1, 2, 3, 4].map(() => crowd(where, 150)));
      assert.deepEqual(counts, [150, 150, 150, 150]);
      await until(() => right + wrong === 600);
      assert.deepEqual([right, wrong], [600, 0]);
      for (const fd of files) closeSync(fd);
      await end(server);
    },
  );
}

testWith(
  here,
  "find() finds the connection that was accepted last, with any number of open ones",
  async () => {
    const path = freshPath();
    const foundSockets: [Socket, FoundSocket][] = [];
    const server = await listen(path, (socket) => {
      foundSockets.push([socket, finder.find(socket)]);
    });
    const finder = new DescriptorFinder(path);
    const clients: Socket[] = [];
    for (let times = 0; times < 200; times++) {
      clients.push(await dial(path));
      // One in the middle ends, which the finder does not notice.
      if (times % 5 === 4) clients.splice(clients.length >> 1, 1)[0]!.destroy();
    }
    await until(() => foundSockets.length === 200);
    for (const [socket, found] of foundSockets) {
      if (!socket.destroyed) assert.equal(found.fd, fdOf(socket));
    }
    const open = foundSockets.filter(([socket]) => !socket.destroyed).map(([, { fd }]) => fd);
    assert.equal(new Set(open).size, open.length);
    for (const client of clients) client.destroy();
    await end(server);
  },
);

testWith(here, "find() ignores connections that are older than the finder", async () => {
  const path = freshPath();
  const seen: Socket[] = [];
  const server = await listen(path, (socket) => void seen.push(socket));
  const before = await Promise.all([dial(path), dial(path)]);
  await until(() => seen.length === 2);
  const finder = new DescriptorFinder(path);
  assert.throws(() => finder.find({}), { code: "ERR_UCRED_NO_FD" });
  const after = await dial(path);
  await until(() => seen.length === 3);
  assert.equal(finder.find(seen[2]!).fd, fdOf(seen[2]!));
  assert.throws(() => finder.find({}), { code: "ERR_UCRED_NO_FD" }); // once
  for (const socket of [...before, after]) socket.destroy();
  await end(server);
});

testWith(
  here,
  "find() ignores connections of other addresses, and the clients' ends",
  async () => {
    const [path, other] = [freshPath(), freshPath()];
    const server = await listen(path, () => {});
    let count = 0;
    const another = await listen(other, () => count++);
    const finder = new DescriptorFinder(path);
    const client = await dial(other);
    await until(() => count === 1);
    assert.throws(() => finder.find({}), { code: "ERR_UCRED_NO_FD" });
    // A path with the same beginning.
    const longer = await listen(`${path}2`, () => count++);
    const client2 = await dial(`${path}2`);
    await until(() => count === 2);
    assert.throws(() => finder.find({}), { code: "ERR_UCRED_NO_FD" });
    for (const each of [client, client2]) each.destroy();
    await Promise.all([server, another, longer].map(end));
  },
);

/** Duplicates a descriptor at the lowest free number from `least` on. */
function duplicate(fd: number, least: number): number {
  const copy = openedSystem().libc.linux!.fcntl(fd, 0, least); // F_DUPFD
  assert.ok(copy >= least);
  return copy;
}

const closeDuplicate = (fd: number) => openedSystem().libc.linux!.close(fd);

testWith(
  here,
  "find() ignores duplicates of known connections",
  async () => {
    const path = freshPath();
    const accepted: Socket[] = [];
    const server = await listen(path, (socket) => void accepted.push(socket));
    const finder = new DescriptorFinder(path);
    const first = await dial(path);
    await until(() => accepted.length === 1);
    const { fd } = finder.find(accepted[0]!);
    assert.equal(fd, fdOf(accepted[0]!));
    // The number that the search tries first, the one that it tries last, and one far above all others.
    const duplicates = [0, 0, 0, 300, 800].map((least) => duplicate(fd, least));
    assert.throws(() => finder.find({}), { code: "ERR_UCRED_NO_FD" });
    const clients = [first];
    for (let times = 2; times <= 10; times++) {
      clients.push(await dial(path));
      await until(() => accepted.length === times);
      assert.equal(finder.find(accepted.at(-1)!).fd, fdOf(accepted.at(-1)!));
      if (times === 5) accepted[0]!.destroy(); // its duplicates are still open
    }
    assert.throws(() => finder.find({}), { code: "ERR_UCRED_NO_FD" });
    assert.throws(() => new DescriptorFinder(path).find({}), { code: "ERR_UCRED_NO_FD" });
    duplicates.forEach(closeDuplicate);
    for (const client of clients) client.destroy();
    await end(server);
  },
);

testWith(here, "find() remembers a bounded number of closed connections", async () => {
  const path = freshPath();
  let onAccept = (_: Socket) => {};
  const server = await listen(path, (socket) => onAccept(socket));
  const finder = new DescriptorFinder(path);
  let copy: number | undefined;
  let most = 0;
  for (let times = 0; times < 3000; times++) {
    const accepted = new Promise<Socket>((resolve) => onAccept = resolve);
    const client = connect(path).on("error", () => {});
    const socket = await accepted;
    const found = finder.find(socket);
    assert.equal(found.fd, fdOf(socket));
    copy ??= duplicate(found.fd, 1500); // of the first connection, which stays open
    client.destroy();
    socket.destroy();
    found.close();
    most = Math.max(most, countSeen());
  }
  assert.ok(most < 2600, `${most}`); // Linux has a table of 2048 descriptors then
  assert.throws(() => finder.find({}), { code: "ERR_UCRED_NO_FD" });
  closeDuplicate(copy!);
  await end(server);
});

testWith(
  here,
  "find() ignores connections that another finder of the thread has found",
  async () => {
    const path = freshPath();
    const seen: Socket[] = [];
    const server = await listen(path, (socket) => void seen.push(socket));
    const [one, two] = [new DescriptorFinder(path), new DescriptorFinder(path)];
    const client = await dial(path);
    await until(() => seen.length === 1);
    assert.equal(one.find(seen[0]!).fd, fdOf(seen[0]!));
    assert.throws(() => two.find({}), { code: "ERR_UCRED_NO_FD" });
    client.destroy();
    await end(server);
  },
);

testWith(
  here,
  "DescriptorFinder() throws when two sockets of the process listen at its address",
  async () => {
    const path = freshPath();
    const one = await listen(path, () => {});
    const finder = new DescriptorFinder(path); // one listener is accepted
    renameSync(path, `${path}-moved`); // the bound address stays the same
    const two = await listen(path, () => {});
    assert.throws(() => new DescriptorFinder(path), { code: "ERR_UCRED_LISTEN" });
    await end(two);
    assert.doesNotThrow(() => new DescriptorFinder(path));
    assert.throws(() => finder.find({}), { code: "ERR_UCRED_NO_FD" });
    await end(one);
  },
);

testWith(
  here,
  "isBoundHere() returns true until the last listener and connection are closed",
  async () => {
    for (const path of [freshPath(), `\0${freshPath()}`]) {
      assert.equal(isBoundHere(path), false);
      let accepted: Socket | undefined;
      const server = await listen(path, (socket) => accepted = socket);
      assert.equal(isBoundHere(path), true);
      assert.equal(isBoundHere(`${path}2`), false);
      const client = await dial(path);
      await until(() => accepted !== undefined);
      const ended = end(server);
      assert.equal(isBoundHere(path), true);
      client.destroy();
      await ended;
      await until(() => !isBoundHere(path));
    }
  },
);

testWith(
  [...here, needs.cc, needs.root],
  "two HTTP servers of a process identify each client when their sockets have had the same path",
  async () => {
    const path = freshPath();
    const start = () =>
      serve({
        path,
        mode: 0o666,
        policy: "anyone",
        fetch: (_, { peer }) =>
          new Response(`uid ${peer.uid}.`, { headers: { connection: "close" } }),
      });
    const former = await start();
    const moved = `${path}-moved`;
    renameSync(path, moved);
    const latter = await start();
    const request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    const wrong: string[] = [];
    await Promise.all([1000, 2000, 3000, 4000, 5000, 6000].map(async (uid) => {
      for (let times = 0; times < 40; times++) {
        const text = await visitAs(uid + times, uid % 2000 === 0 ? path : moved, "--send", request);
        if (!text.includes(`uid ${uid + times}.`)) wrong.push(text);
      }
    }));
    assert.deepEqual(wrong, []);
    assert.deepEqual([former, latter].map((server) => server.stats().accepted), [120, 120]);
    await Promise.all([former.close({ timeout: 0 }), latter.close({ timeout: 0 })]);
    unlinkSync(moved);
  },
);

testWith(
  here,
  "isOpen() of a found socket returns true only while its number refers to its connection",
  async () => {
    const path = freshPath();
    const foundSockets: FoundSocket[] = [];
    const sockets: Socket[] = [];
    const server = await listen(path, (socket) => {
      sockets.push(socket);
      foundSockets.push(finder.find(socket));
    });
    const finder = new DescriptorFinder(path);
    const open = () => openSync("/dev/null", "r");
    const files = [open()]; // below the accepted connections
    const first = await dial(path);
    await until(() => foundSockets.length === 1);
    const { fd } = foundSockets[0]!;
    assert.equal(foundSockets[0]!.isOpen(), true);
    first.destroy();
    await until(() => !foundSockets[0]!.isOpen());
    // The number is reused: the client's end gets the lowest free one, and our end the next.
    const clients: Socket[] = [];
    while (foundSockets.at(-1) === foundSockets[0] || foundSockets.at(-1)!.fd !== fd) {
      assert.ok(clients.length < 100);
      clients.at(-1)?.destroy();
      await until(() => foundSockets.at(-1)!.isOpen() === false);
      do files.push(open()); while (files.at(-1)! < fd);
      closeSync(files.shift()!);
      if (files.at(-1) === fd) closeSync(files.pop()!);
      const count = foundSockets.length;
      clients.push(await dial(path));
      await until(() => foundSockets.length > count);
      files.unshift(open());
    }
    for (const file of files) closeSync(file);
    assert.equal(foundSockets[0]!.isOpen(), false);
    foundSockets[0]!.shutdown(); // the number refers to another socket now, which stays open
    const holder = foundSockets.findLast((found) => found.fd === fd)!;
    assert.equal(holder.isOpen(), true);
    assert.equal(sockets[foundSockets.indexOf(holder)]!.destroyed, false);

    let closed = 0;
    holder.once("close", () => closed++);
    const ended = new Promise((resolve) =>
      clients[foundSockets.indexOf(holder) - 1]!.once("close", resolve)
    );
    holder.shutdown();
    await ended;
    holder.close();
    holder.close();
    assert.deepEqual([closed, holder.isOpen()], [1, false]);
    for (const client of clients) client.destroy();
    await end(server);
  },
);

testWith([needs.linux], "DescriptorFinder() throws when the path is too long for a socket", () => {
  assert.throws(() => new DescriptorFinder("x".repeat(109)), RangeError);
});

test("foundSocketOf() returns undefined for a connection that was not found", () => {
  assert.equal(foundSocketOf({}), undefined);
});
