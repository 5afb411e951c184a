/** `ucred/testing`: calls of the C library that fail, seen through the public API on real sockets. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer as createPlainServer, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { afterEach, test } from "node:test";
import { definePolicy, identify, type Peer, peerCredentials, UcredError } from "../../mod.ts";
import { createServer } from "../../servers/net.ts";
import { failCalls, type FailedCalls, type FailingCalls } from "../../testing/mod.ts";
import { temporaryFolder } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";

const code = (expected: string) => (error: unknown) =>
  error instanceof UcredError && error.code === expected;

let failed: FailedCalls | undefined;
afterEach(() => failed?.restore());

type Rules = Parameters<typeof definePolicy>[0]["rules"];

const fail = (calls: FailingCalls) => failed = failCalls(calls);

/** Runs with the socket that a server of the runtime has accepted. */
async function withSocket(run: (socket: Socket) => void): Promise<void> {
  const path = join(temporaryFolder(), "s");
  const server = createPlainServer().listen(path);
  await once(server, "listening");
  const accepted = once(server, "connection");
  const client = connect(path).on("error", () => {});
  const [socket] = await accepted as [Socket];
  try {
    run(socket);
  } finally {
    client.destroy();
    socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

test("failCalls() makes peerCredentials() and identify() throw with the errno, until restore()", () =>
  withSocket((socket) => {
    const before = peerCredentials(socket);
    for (
      const [errno, expected] of [
        ["EPERM", "ERR_UCRED_PERMISSION"],
        ["ENOMEM", "ERR_UCRED_SYSCALL"],
        ["EBADF", "ERR_UCRED_NO_FD"],
        ["ENOTCONN", "ERR_UCRED_NO_PEER"],
        ["ENOPROTOOPT", "ERR_UCRED_UNSUPPORTED"],
      ] as const
    ) {
      fail({ SO_PEERCRED: errno });
      assert.throws(() => peerCredentials(socket), code(expected), errno);
      assert.throws(() => identify(socket), (error) => {
        assert.ok(error instanceof UcredError);
        return error.message.includes(errno) && error.errno! > 0 && error.syscall === "getsockopt";
      });
      failed!.restore();
      assert.deepEqual(peerCredentials(socket), before);
    }
  }));

testWith(
  [needs.linux],
  "failCalls() makes facts unknown, each with its errno",
  () =>
    withSocket((socket) => {
      const facts = {
        SO_PEERGROUPS: ({ facts }: Peer) => facts.groups,
        SO_PEERSEC: ({ facts }: Peer) => facts.label,
        getpwuid_r: ({ facts }: Peer) => facts.user,
        getgrgid_r: ({ facts }: Peer) => facts.groupNames,
        open: ({ process }: Peer) => process.facts.cgroup,
      };
      for (const [call, factOf] of Object.entries(facts)) {
        fail({ [call]: "EIO" });
        using peer = identify(socket, { pin: call === "open" });
        assert.equal(peer.uid, process.getuid!(), call);
        const fact = factOf(peer);
        assert.ok(fact.state === "unknown", `${call} ${fact.state}`);
        // Without open(2), /proc counts as not mounted.
        if (call !== "open") assert.match(fact.reason.message, /EIO/, call);
        failed!.restore();
      }
    }),
);

testWith(
  [needs.linux],
  "failCalls() makes a pin fail that needs SO_PEERPIDFD and /proc",
  () =>
    withSocket((socket) => {
      fail({ SO_PEERPIDFD: "EMFILE", open: "EMFILE" });
      using peer = identify(socket, { pin: true });
      assert.equal(peer.uid, process.getuid!());
      assert.notEqual(peer.facts.pinned.state === "known" && peer.pinned, "connect");
      assert.notEqual(peer.process.facts.exe.state, "known");
    }),
);

test("a server refuses connections while the credentials cannot be read, and accepts the next one", async () => {
  const path = join(temporaryFolder(), "s");
  const server = createServer({ policy: "anyone" }, (socket) => void socket.end("welcome"));
  server.listen(path);
  await once(server, "listening");
  const visit = async () => {
    const socket = connect(path).setEncoding("utf8").on("error", () => {});
    let text = "";
    socket.on("data", (chunk: string) => text += chunk);
    await once(socket, "close");
    return text;
  };
  fail({ SO_PEERCRED: "ENOBUFS" });
  assert.equal(await visit(), "");
  assert.equal(server.stats().refused.unidentified, 1);
  failed!.restore();
  assert.equal(await visit(), "welcome");
  await server.close({});
});

testWith(
  [needs.linux],
  "a policy by group denies while the groups cannot be read",
  () =>
    withSocket((socket) => {
      const gids: { readonly [name: string]: number } = {
        ours: process.getgid!(),
        others: 54_321,
      };
      const accounts = { uid: () => undefined, gid: (name: string) => gids[name] };
      const rules = (...list: Rules) => definePolicy({ version: 1, rules: list }, { accounts });
      const allowing = rules({ name: "ours", when: { group: "ours" }, allow: true });
      const denying = rules(
        { name: "others", when: { group: "others" }, deny: "no" },
        { name: "all", allow: true },
      );
      const decide = () =>
        [allowing, denying].map((policy) => policy.decide(identify(socket)).allowed);
      assert.deepEqual(decide(), [true, true]);
      {
        using _ = fail({ SO_PEERGROUPS: "EFAULT" });
        assert.deepEqual(decide()[1], false);
        assert.equal(identify(socket).groups, undefined);
      }
      assert.deepEqual(decide(), [true, true]);
    }),
);

test("names in a policy cannot be resolved while getpwnam_r and getgrnam_r fail", () => {
  fail({ getpwnam_r: "EIO", getgrnam_r: "EIO" });
  for (const when of [{ user: "root" }, { group: "root" }]) {
    const rules = [{ name: "a", when, allow: true }];
    assert.throws(() => definePolicy({ version: 1, rules } as never), UcredError);
  }
  failed!.restore();
  definePolicy({ version: 1, rules: [{ name: "a", when: { user: "root" }, allow: true }] });
});

test("failCalls() rejects unknown calls and errnos, and a second use", () => {
  assert.throws(() => failCalls({ SO_PEERCRD: "EPERM" } as never), /did you mean "SO_PEERCRED"\?/);
  assert.throws(() => failCalls({ SO_PEERCRED: "EPRM" }), /has no errno "EPRM"; did you mean/);
  assert.throws(() => failCalls({ SO_PEERCRED: 1 } as never), TypeError);
  assert.throws(() => failCalls({ SO_PEERCRED: "toString" }), TypeError);
  assert.throws(() => failCalls(undefined as never), TypeError);
  fail({});
  assert.throws(() => failCalls({}), code("ERR_UCRED_UNSUPPORTED"));
  failed!.restore();
  const next = failCalls({});
  failed!.restore(); // has no effect a second time
  assert.throws(() => failCalls({}), code("ERR_UCRED_UNSUPPORTED"));
  next.restore();
});
