/** Each call of starting and of accepting a connection fails, in each server and mode of the guard. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createGuard, type GuardOptions } from "../../guard/mod.ts";
import { dbusVocabulary } from "../../interop/dbus/mod.ts";
import { dockerVocabulary } from "../../interop/docker/mod.ts";
import { TYPE } from "../../interop/dbus/message.ts";
import { definePolicy, type Peer, UcredError } from "../../mod.ts";
import { listen as listenByBun } from "../../servers/bun.ts";
import { withPeers } from "../../servers/deno.ts";
import { createServer } from "../../servers/net.ts";
import { messageOf, Wire as BusWire } from "../guard/dbus_wire.ts";
import { failEachCall, hidesOwnership } from "../support/failing_calls.ts";
import { FakeEngine } from "../support/fake_engine.ts";
import { answerAll, answerOf, Behind } from "../support/guard.ts";
import { KINDS } from "../support/http.ts";
import { freshPath } from "../support/peers.ts";
import { descriptorsClosed, listening, openDescriptors } from "../support/servers.ts";
import { type Need, needs, sample, soak, testWith } from "../support/suite.ts";
import { type Client, visitAll } from "../support/visitors.ts";

const here = [needs.linux, needs.cc, needs.root, needs.native];

/** The group of denied users. It has a name on each system. */
const DAEMON = 1;

/** The reply to a denied D-Bus message, after which the connection stays open. */
const DENIED = "org.freedesktop.DBus.Error";

const CLIENTS: readonly Client[] = [
  { uid: 4001, gid: 5001, isAllowed: true },
  { uid: 4002, gid: 5002, isAllowed: false }, // no rule allows this user
  { uid: 4003, gid: 5003, group: DAEMON, isAllowed: false }, // a rule denies the group
  { uid: 4003, gid: 5003, isAllowed: true },
];

/** The deny rules have conditions on facts that a failing call makes unknown. */
const rules = (more: object = {}) => [
  { name: "denied group", when: { group: "daemon" }, deny: true as const, ...more },
  { name: "denied program", when: { exe: "/nonexistent/**" }, deny: true as const, ...more },
  { name: "users", when: { uid: [4001, 4003], unchanged: true }, allow: true as const, ...more },
];

const policy = definePolicy({ version: 1, rules: rules() });

/** A started server. */
interface Started {
  readonly path: string;
  close(): unknown;
}

/** A server or guard under test. */
interface Subject {
  readonly name: string;
  readonly needs: readonly Need[];
  /** The bytes that a client sends. */
  readonly request: string;
  /** A text at which a client stops reading, if the server does not close the connection. */
  readonly end?: string;
  /** The answer to a client that is allowed. */
  readonly answer: (uid: number) => RegExp;
  /** Starts the server behind the guard, and returns its path. */
  upstream?(): Promise<string>;
  start(path: string, upstream: string): Started | Promise<Started>;
}

const LINE = {
  request: "hello\n",
  answer: (uid: number) => new RegExp(`^uid ${uid} groups (${uid + 1000}|unknown)$`),
};
const lineFor = ({ uid, groups }: Peer) => `uid ${uid} groups ${groups ?? "unknown"}`;
const HTTP = {
  request: "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  answer: (uid: number) => new RegExp(`^HTTP/1.1 200 [^]*\r\n\r\n[^]*uid ${uid}\\b`),
};

interface DenoConnection {
  readonly readable: ReadableStream<Uint8Array>;
  write(bytes: Uint8Array): Promise<number>;
  close(): void;
}

const SERVERS: readonly Subject[] = [
  {
    ...LINE,
    name: "createServer() of ucred/net",
    needs: [],
    async start(path) {
      const server = createServer(
        { policy },
        (socket, peer) => void socket.resume().end(lineFor(peer)),
      );
      await listening(server, { path, mode: 0o666 });
      return { path, close: () => server.close({ timeout: 0 }) };
    },
  },
  ...KINDS.map((kind): Subject => ({
    ...HTTP,
    name: `${kind.name} of ucred/http`,
    needs: kind.needs,
    async start() {
      const app = ({ peer }: { peer: Peer }) => ({ body: lineFor(peer) });
      const server = await kind.start({ policy }, app);
      return { path: server.path, close: () => server.close({ timeout: 0 }) };
    },
  })),
  {
    ...LINE,
    name: "listen() of ucred/bun",
    needs: [needs.bun],
    async start(path) {
      const server = await listenByBun({
        ...{ path, mode: 0o666, policy },
        socket: { open: (socket, peer) => void socket.end(lineFor(peer)) },
      });
      return { path, close: () => server.close({ timeout: 0 }) };
    },
  },
  {
    ...LINE,
    name: "withPeers()",
    needs: [needs.deno],
    start(path) {
      const { Deno } = globalThis as unknown as {
        Deno: {
          listen(options: object): Parameters<typeof withPeers<DenoConnection>>[0];
          chmodSync(path: string, mode: number): void;
        };
      };
      const listener = Deno.listen({ transport: "unix", path });
      Deno.chmodSync(path, 0o666);
      const peers = withPeers(listener, { policy });
      const serve = async () => {
        for await (const { conn, peer } of peers) {
          void conn.write(Buffer.from(lineFor(peer))).catch(() => {}).finally(() => conn.close());
        }
      };
      void serve();
      return { path, close: () => peers.close() };
    },
  },
];

/** Starts a guard in this process. */
async function guardAt(path: string, options: GuardOptions): Promise<Started> {
  const guard = createGuard({ report: () => {}, ...options });
  await new Promise<void>((resolve, reject) => {
    guard.once("error", reject);
    guard.listen({ path, mode: 0o666 }, resolve);
  });
  return { path, close: () => guard.close({ timeout: 0 }) };
}

const pathOf = async (started: Promise<{ readonly path: string }>) => (await started).path;

const GUARDS: readonly Subject[] = [
  {
    name: "the guard in mode stream",
    needs: [],
    request: "hello\n",
    answer: () => /^welcome$/,
    upstream: () => pathOf(Behind.start((end) => end.send("welcome").end())),
    start: (path, upstream) => guardAt(path, { mode: "stream", upstream, policy }),
  },
  {
    ...HTTP,
    name: "the guard in mode http",
    needs: [],
    upstream: () =>
      pathOf(
        Behind.start((end) =>
          answerAll(end, ({ header }) => answerOf(`uid ${header("x-ucred-uid")}`))
        ),
      ),
    start: (path, upstream) => guardAt(path, { mode: "http", upstream, policy }),
  },
  {
    name: "the guard in mode docker",
    needs: [],
    request: "GET /v1.48/containers/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    answer: () => /^HTTP\/1.1 200 [^]*\[\]/,
    upstream: () => pathOf(FakeEngine.start()),
    start(path, upstream) {
      const document = { version: 1, about: "docker", rules: rules() } as const;
      const docker = definePolicy(document, { vocabularies: [dockerVocabulary] });
      return guardAt(path, { mode: "docker", upstream, policy: docker });
    },
  },
  {
    name: "the guard in mode dbus",
    needs: [],
    request: `\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n${messageOf({}).toString("latin1")}`,
    end: DENIED,
    answer: () => /welcome/,
    upstream: () =>
      pathOf(Behind.start(async (end) => {
        const { wire } = await BusWire.accept(end);
        const { serial } = await wire.next();
        wire.send({ type: TYPE.return, replySerial: serial }, "welcome");
        end.end();
      })),
    start(path, upstream) {
      const document = { version: 1, about: "dbus", rules: rules({ actions: "**" }) } as const;
      const bus = definePolicy(document, { vocabularies: [dbusVocabulary] });
      return guardAt(path, { mode: "dbus", upstream, policy: bus });
    },
  },
];

const NONE = () => Promise.resolve("");

/** Requires that each client receives the answer of its own user, or nothing. Returns which were allowed. */
async function visitEach(
  { request, answer, end }: Subject,
  path: string,
): Promise<readonly boolean[]> {
  const received = await visitAll(path, request, CLIENTS, end);
  return received.map((text, index) => {
    const { uid, isAllowed } = CLIENTS[index]!;
    const isAnswered = answer(uid).test(text);
    assert.ok(isAllowed || !isAnswered, `a denied client receives ${text}`);
    const other = /\buid (\d+)/.exec(text)?.[1] ?? String(uid);
    assert.equal(other, String(uid), "a client is served as another user");
    return isAnswered;
  });
}

/** Each of the four clients makes the same calls. */
const STEP = soak(11, 3);

const RIGHT = CLIENTS.map(({ isAllowed }) => isAllowed);

/** The order makes `sample()` select those that differ between the runtimes. */
const ORDER = [
  ...["withPeers()", "createServer() of ucred/http", "listen() of ucred/bun"],
  ...["createServer() of ucred/net", "serve() by deno of ucred/http", "the guard in mode stream"],
  ...["the guard in mode http", "the guard in mode dbus", "serve() by node:http of ucred/http"],
  "the guard in mode docker",
];
const SUBJECTS = ORDER.map((wanted) =>
  [...SERVERS, ...GUARDS].find(({ name }) => name === wanted)!
);

for (const subject of sample(SUBJECTS)) {
  const { name, needs: more, upstream = NONE, start } = subject;
  testWith(
    [...here, ...more],
    `${name} refuses a client, if a call of accepting fails`,
    async () => {
      const server = await start(freshPath(), await upstream());
      let allowed: readonly boolean[] = [];
      const run = async () => void (allowed = await visitEach(subject, server.path));
      await run();
      let baseline = openDescriptors();
      let served = 0;
      const faults = await failEachCall({
        step: STEP,
        run,
        async verify(fault) {
          served += allowed.filter(Boolean).length;
          await run();
          assert.deepEqual(allowed, RIGHT, "the next clients");
          if (hidesOwnership(fault)) baseline += CLIENTS.length;
          await descriptorsClosed(baseline);
        },
      });
      assert.ok(faults.length > soak(5, 60), `${faults.length} faults`);
      assert.ok(served > 0, "a fault affects one client");
      await server.close();
    },
  );

  testWith(
    [...here, ...more],
    `${name} starts, or reports why not, if a call of starting fails`,
    async () => {
      const behind = await upstream();
      const path = freshPath();
      /** Starts and closes the server. Returns the error. */
      const startOnce = async () => {
        try {
          await (await start(path, behind)).close();
          return undefined;
        } catch (error) {
          return error;
        }
      };
      assert.equal(await startOnce(), undefined);
      let error: unknown;
      const baseline = openDescriptors();
      await failEachCall({
        step: STEP,
        run: async () => void (error = await startOnce()),
        async verify() {
          if (error !== undefined) {
            assert.ok(error instanceof UcredError, String(error));
            assert.match(error.message, /^Cannot .*[^.]$/);
            assert.notEqual(error.hint, "");
          }
          await descriptorsClosed(baseline);
          const server = await start(path, behind);
          assert.deepEqual(await visitEach(subject, server.path), RIGHT);
          await server.close();
        },
      });
    },
  );
}
