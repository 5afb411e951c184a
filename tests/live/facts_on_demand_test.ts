/**
 * Groups and label that servers read on demand: never those of another connection, and unknown, which
 * allows nothing, once the connection is closed.
 */

import assert from "node:assert/strict";
import { openSync } from "node:fs";
import { constants } from "node:os";
import { connect, createServer as createPlainServer, type Socket } from "node:net";
import { openedSystem } from "../../adapters/select.ts";
import { NO_ID } from "../../core/credentials.ts";
import { LINUX_OPTIONS, SOCK } from "../../ffi/linux.ts";
import { AF_UNIX } from "../../ffi/abi.ts";
import { connectionOf, fdOf, handleOf, isAccepted } from "../../identity/fd.ts";
import { identifyAccepted } from "../../identity/identify.ts";
import { AcceptedPeer } from "../../identity/peer.ts";
import { definePolicy, type Peer } from "../../mod.ts";
import { createServer } from "../../servers/net.ts";
import { DescriptorFinder } from "../../system/accepted_sockets.ts";
import { type Answer, FakeLibc, option, words } from "../support/fake_libc.ts";
import { type Actor, actorProgram, freshPath, listen, startActor } from "../support/peers.ts";
import { listening, visit } from "../support/servers.ts";
import { needs, testWith, until } from "../support/suite.ts";

const here = [needs.linux, needs.cc];
const asRoot = [...here, needs.root, needs.native];

const OPERATORS = 7;
const rule = { name: "operators", when: { group: "operators" } } as const;
const accounts = { uid: () => undefined, gid: () => OPERATORS };
const allowsOperators = definePolicy(
  { version: 1, rules: [{ ...rule, allow: true }] },
  { accounts },
);
const deniesOperators = definePolicy(
  { version: 1, rules: [{ ...rule, deny: true }, { name: "all", allow: true }] },
  { accounts },
);

/** Asserts that a peer's groups and label are unknown, and that no policy allows anything by them. */
function assertUnknown(peer: Peer, code: string): void {
  assert.deepEqual([peer.groups, peer.label, peer.groupNames], [undefined, undefined, undefined]);
  for (const fact of [peer.facts.groups, peer.facts.label]) {
    assert.equal(fact.state === "unknown" && fact.reason.code, code, JSON.stringify(fact));
  }
  const { groups, label } = peer.toJSON().unknown!;
  assert.ok(groups !== undefined && label !== undefined);
  assert.equal(allowsOperators.decide(peer).allowed, false);
  assert.equal(deniesOperators.decide(peer).allowed, false);
}

const accepted = (socket: Socket): Peer => identifyAccepted(fdOf(socket), socket, false);

type Prefix = readonly [string, ...string[]] | readonly [];
const asOperator: Prefix = ["setpriv", `--groups=${OPERATORS},9`];
const asStranger: Prefix = ["setpriv", "--clear-groups", "--regid=12", "--reuid=1000"];

/** Starts a client, and returns its accepted socket with the peer. */
async function start(prefix: Prefix): Promise<[Socket, Peer, Actor]> {
  const [[socket, peer], actor] = await startActor(
    [],
    (socket): [Socket, Peer] => [socket, accepted(socket)],
    [...prefix, actorProgram] as [string],
  );
  return [socket, peer, actor];
}

/** Makes a descriptor number refer to another file during a function, behind the back of its owner. */
function replaced(fd: number, by: number | undefined, run: () => void): void {
  const { close, fcntl } = openedSystem().libc.linux!;
  const DUPFD = 0;
  const own = fcntl(fd, DUPFD, 0);
  assert.equal(close(fd), 0);
  if (by !== undefined) assert.equal(fcntl(by, DUPFD, fd), fd);
  run();
  close(fd);
  assert.equal(fcntl(own, DUPFD, fd), fd);
  close(own);
}

testWith(asRoot, "identifyAccepted() reads groups on demand, and keeps them", async () => {
  const [socket, peer, actor] = await start(asOperator);
  assert.ok(peer.groups!.includes(OPERATORS));
  assert.equal(peer.facts.groups.state, "known");
  assert.equal(allowsOperators.decide(peer).allowed, true);
  socket.destroy();
  assert.ok(peer.groups!.includes(OPERATORS));
  assert.equal(allowsOperators.decide(peer).allowed, true);
  assert.equal(peer.facts.label.state, "unknown", "it was not read");
  actor.hangUp();
});

testWith(here, "facts that were not read are unknown once the socket is destroyed", async () => {
  const [socket, peer, actor] = await start([]);
  socket.destroy();
  assertUnknown(peer, "ERR_UCRED_NO_FD");
  actor.hangUp();
});

testWith(
  here,
  "facts that were not read are unknown once the server's reading has ended",
  async () => {
    const [socket, peer, actor] = await start([]);
    AcceptedPeer.endReading(peer);
    assertUnknown(peer, "ERR_UCRED_NO_FD");
    socket.destroy();
    actor.hangUp();
  },
);

testWith(
  asRoot,
  "facts are unknown when a later connection has the descriptor number",
  async () => {
    const [socket, peer, actor] = await start(asStranger);
    const fd = fdOf(socket);
    const [operator, , other] = await start(asOperator);
    socket.destroy();
    await until(() => handleOf(socket) === undefined);
    const { fcntl } = openedSystem().libc.linux!;
    assert.equal(fcntl(fdOf(operator), 0, fd), fd);
    assertUnknown(peer, "ERR_UCRED_NO_FD");
    openedSystem().libc.linux!.close(fd);
    operator.destroy();
    for (const each of [actor, other]) each.hangUp();
  },
);

testWith(asRoot, "facts are unknown when the socket has the handle of another one", async () => {
  const [socket, peer, actor] = await start(asStranger);
  const [operator, , other] = await start(asOperator);
  const own = socket as unknown as { _handle: object };
  const handle = own._handle;
  own._handle = (operator as unknown as { _handle: object })._handle;
  assertUnknown(peer, "ERR_UCRED_NO_FD");
  own._handle = handle;
  for (const each of [socket, operator]) each.destroy();
  for (const each of [actor, other]) each.hangUp();
});

const replacements: {
  readonly [name: string]: readonly [by: (operator: Socket) => number | undefined, code: string];
} = {
  "a connection of another user": [fdOf, "ERR_UCRED_NO_FD"],
  "nothing": [() => undefined, "ERR_UCRED_NO_FD"],
  "a file": [() => openSync("/dev/null", "r"), "ERR_UCRED_NOT_UNIX"],
  "an unconnected socket": [
    () => openedSystem().libc.linux!.socket(AF_UNIX, SOCK.STREAM, 0),
    "ERR_UCRED_NO_PEER",
  ],
};
for (const [name, [by, code]] of Object.entries(replacements)) {
  testWith(
    [...asRoot, needs.node],
    `facts are unknown when other code has replaced the descriptor by ${name}`,
    async () => {
      const [socket, peer, actor] = await start(asStranger);
      const [operator, , other] = await start(asOperator);
      const replacement = by(operator);
      replaced(fdOf(socket), replacement, () => assertUnknown(peer, code));
      for (const each of [socket, operator]) each.destroy();
      for (const each of [actor, other]) each.hangUp();
    },
  );
}

testWith(
  asRoot,
  "facts of a connection that was searched for are unknown once its cookie differs",
  async () => {
    const path = freshPath();
    const server = createPlainServer();
    await listen(server, path);
    const finder = new DescriptorFinder(path);
    const client = connect(path);
    const socket = await new Promise<Socket>((resolve) => server.once("connection", resolve));
    const conn = {};
    const found = finder.find(conn);
    assert.equal(isAccepted(conn as never), true);
    assert.equal(connectionOf(conn as never), found);
    assert.equal(handleOf(conn as never), found);
    const identify = () => identifyAccepted(found.fd, conn as never, false);
    assert.ok(identify().groups!.length > 0);
    const [operator, , other] = await start(asOperator);
    const unread = identify();
    replaced(found.fd, fdOf(operator), () => assertUnknown(unread, "ERR_UCRED_NO_FD"));
    const last = identify();
    found.close();
    assertUnknown(last, "ERR_UCRED_NO_FD");
    for (const each of [client, socket, operator]) each.destroy();
    server.close();
    other.hangUp();
  },
);

testWith(
  [...asRoot, needs.bun],
  "facts of a Bun.Socket are read while it is open, and unknown afterwards",
  async () => {
    const path = freshPath();
    let opened: object | undefined;
    const listener = Bun.listen({
      unix: path,
      socket: { open: (socket) => void (opened = socket), data() {} },
    });
    const client = connect(path);
    await until(() => opened);
    const socket = opened as { readonly fd: number; terminate(): void };
    const [read, unread] = [0, 1].map(() => identifyAccepted(socket.fd, socket, false));
    assert.ok(read!.groups!.length > 0);
    socket.terminate();
    assertUnknown(unread!, "ERR_UCRED_NO_FD");
    assert.ok(read!.groups!.length > 0);
    client.destroy();
    listener.stop(true);
  },
);

const options = LINUX_OPTIONS[process.arch] ?? LINUX_OPTIONS["x64"]!;
const key = (name: number) => option(options.SOL_SOCKET, name);
const FD = 7;
const fake = needs.linux.met && needs.cc.met ? new FakeLibc() : undefined!;
const unixPeer = {
  call: "getpeername",
  size: 16,
  bytes: new Uint8Array(new Uint16Array([AF_UNIX]).buffer),
} as const;
const unixSocket = { ...unixPeer, call: "getsockname" } as const;
const accepting = (value: number) =>
  ({ call: "getsockopt", key: key(options.SO_ACCEPTCONN), bytes: words(value) }) as const;
const credentials = (...ids: readonly [number, number, number]) =>
  ({ call: "getsockopt", key: key(options.SO_PEERCRED), bytes: words(...ids) }) as const;
const groups = (...ids: readonly number[]) => ({
  call: "getsockopt",
  key: key(options.SO_PEERGROUPS),
  size: 4 * ids.length,
  bytes: words(...ids),
} as const);
const fails = (name: number, error: number) =>
  ({ call: "getsockopt", key: key(name), result: -1, error }) as const;
const connection = () => ({ _handle: { fd: FD }, destroyed: false, connecting: false });

/** Identifies a connection of uid 1000, and then lets the kernel answer differently. */
function later(...answers: readonly Answer[]): Peer {
  return laterOn(connection(), ...answers);
}

function laterOn(socket: ReturnType<typeof connection>, ...answers: readonly Answer[]): Peer {
  fake.answer(credentials(42, 1000, 100), unixPeer);
  const system = fake.open();
  // As outside user namespaces. Where an id may be ambiguous, groups are read at once.
  Object.assign(system.remembered.mapsEvery, { uid: true, gid: true });
  const peer = identifyAccepted(FD, socket as never, false, system);
  fake.answer(...answers);
  return peer;
}

testWith(here, "facts are those of the connection while its credentials are the same", () => {
  const peer = later(credentials(42, 1000, 100), unixPeer, groups(OPERATORS));
  assert.deepEqual(peer.groups, [OPERATORS, 100]);
});

testWith(here, "facts are unknown when the handle has another number", () => {
  const socket = connection();
  const peer = laterOn(socket, credentials(42, 1000, 100), unixPeer, groups(OPERATORS));
  socket._handle.fd++;
  assertUnknown(peer, "ERR_UCRED_NO_FD");
});

const otherIds: readonly (readonly [number, number, number])[] = [
  [43, 1000, 100],
  [42, 1001, 100],
  [42, 1000, 101],
  [0, 1000, 100],
];
for (const ids of otherIds) {
  testWith(here, `facts are unknown when the credentials are ${ids.join()} instead`, () => {
    assertUnknown(later(credentials(...ids), unixPeer, groups(OPERATORS)), "ERR_UCRED_NO_FD");
  });
}

const { EBADF, ENOTCONN, EPERM } = constants.errno;
for (
  const [name, answers, code] of [
    ["SO_PEERCRED fails", [fails(options.SO_PEERCRED, EPERM)], "ERR_UCRED_PERMISSION"],
    ["SO_PEERCRED fails with EBADF", [fails(options.SO_PEERCRED, EBADF)], "ERR_UCRED_NO_FD"],
    [
      "there is no peer",
      [credentials(0, NO_ID, NO_ID), unixSocket, accepting(0)],
      "ERR_UCRED_NO_PEER",
    ],
    ["the options fail", [
      credentials(42, 1000, 100),
      fails(options.SO_PEERGROUPS, ENOTCONN),
      fails(options.SO_PEERSEC, ENOTCONN),
    ], "ERR_UCRED_NO_PEER"],
  ] as const
) {
  testWith(here, `facts are unknown when ${name}`, () => {
    assertUnknown(
      later(...answers, ...(name === "the options fail" ? [] : [groups(OPERATORS)])),
      code,
    );
  });
}

testWith(
  here,
  "handleOf() has no handle for numbers and for objects that only have a number",
  () => {
    for (const socket of [FD, { fd: FD }, {}, { _handle: null }, { _handle: {} }]) {
      assert.equal(handleOf(socket as never), undefined);
    }
  },
);

testWith(
  asRoot,
  "createServer() decides by groups, which handlers read until the close",
  async () => {
    const peers: Peer[] = [];
    const server = createServer({ policy: allowsOperators }, (socket, peer) => {
      peers.push(peer);
      socket.end(`${peers.length === 1 ? peer.groups : ""}`);
    });
    const path = freshPath();
    await listening(server, { path, mode: 0o666 });
    assert.equal(await visit(path, "--gid", "12", "--uid", "1000"), "");
    assert.equal(await visit(path, "--gid", `${OPERATORS}`, "--uid", "1000"), `${OPERATORS}`);
    await server.close({ timeout: 0 });
    assert.deepEqual(peers.map((peer) => peer.groups), [[OPERATORS]]);
  },
);

testWith(
  here,
  "createServer() leaves facts unknown that nobody read before the close",
  async () => {
    let seen: Peer | undefined;
    const server = createServer({ policy: "anyone" }, (socket, peer) => {
      seen = peer;
      socket.end("welcome");
    });
    const path = freshPath();
    await listening(server, path);
    assert.equal(await visit(path), "welcome");
    await server.close({ timeout: 0 });
    assertUnknown(seen!, "ERR_UCRED_NO_FD");
  },
);
