/**
 * macOS and FreeBSD, from the socket option to the peer, with a fake C library. Its answers follow
 * the headers and sources of these systems, and are not verified on hardware.
 */

import assert from "node:assert/strict";
import { UcredError, type UcredErrorCode } from "../../core/errors.ts";
import { readCredentials } from "../../identity/credentials.ts";
import { receiveOn } from "../../identity/datagram.ts";
import { identifyFd } from "../../identity/identify.ts";
import { peerOfPid } from "../../identity/peer_of_pid.ts";
import { needs, testWith } from "../support/suite.ts";
import { type Answer, FakeLibc, option, words } from "../support/fake_libc.ts";

const FD = 7;
const SOL_SOCKET = 0xffff, SO_ACCEPTCONN = 2;
const SOL_LOCAL = 0, LOCAL_PEERCRED = 1, LOCAL_PEERTOKEN = 6;
const AF_UNIX = 1, AF_INET = 2;

// FreeBSD returns the pid with the credentials, macOS in a separate token.
const SIZES = { darwin: 76, freebsd: 88 } as const;
type Os = keyof typeof SIZES;
const SYSTEMS = (["darwin", "freebsd"] as const).flatMap((os) =>
  (["x64", "arm64"] as const).map((cpu) => [os, cpu] as const)
);

const family = (number: number): Answer => ({
  call: "getsockname",
  size: 16,
  bytes: new Uint8Array([16, number]),
});
const accepting = (value: number): Answer => ({
  call: "getsockopt",
  key: option(SOL_SOCKET, SO_ACCEPTCONN),
  bytes: words(value),
});
const connection = [family(AF_UNIX), accepting(0)];

interface Cred {
  readonly version?: number;
  readonly uid?: number;
  readonly ngroups?: number;
  readonly groups?: readonly number[];
  readonly pid?: number;
}

function xucred(
  os: Os,
  { version = 0, uid = 501, ngroups, groups = [20, 12], pid = 42 }: Cred = {},
) {
  const list = Array.from({ length: 16 }, (_, index) => groups[index] ?? 0);
  const head = words(version, uid, 0, ...list, 0);
  new DataView(head.buffer).setInt16(8, ngroups ?? groups.length, true);
  return os === "darwin" ? head : new Uint8Array([...head, ...words(pid, 0)]);
}

const peercred = (answer: Partial<Answer>): Answer => ({
  call: "getsockopt",
  key: option(SOL_LOCAL, LOCAL_PEERCRED),
  ...answer,
});
const token = (euid: number, egid: number, pid: number, answer: Partial<Answer> = {}): Answer => ({
  call: "getsockopt",
  key: option(SOL_LOCAL, LOCAL_PEERTOKEN),
  bytes: words(0, euid, egid, euid, egid, pid, 0, 1),
  ...answer,
});

const here = [needs.linux, needs.cc]; // the fake library is built for Linux
const fake = needs.linux.met && needs.cc.met ? new FakeLibc() : undefined!;

for (const [os, cpu] of SYSTEMS) {
  testWith(here, `identify() returns pid, ids and groups on ${os} ${cpu}`, () => {
    const groups = [4294967294, 80, 12];
    const bytes = xucred(os, { uid: 4000000000, groups });
    const ofToken = os === "darwin" ? 42 : 43; // FreeBSD has no tokens
    fake.answer(peercred({ bytes }), token(4000000000, 4294967294, ofToken), ...connection);
    const system = fake.open(os, cpu);
    const credentials = { pid: 42, uid: 4000000000, gid: 4294967294 };
    assert.deepEqual(readCredentials(system, FD), credentials);
    const peer = identifyFd(system, FD);
    const { pid, uid, gid, ambiguous } = peer;
    assert.deepEqual({ pid, uid, gid, ambiguous }, { ...credentials, ambiguous: [] });
    assert.deepEqual(peer.groups, [12, 80, 4294967294]);
    const { groups: fact, label } = peer.facts;
    assert.deepEqual(fact, { state: "known", value: peer.groups, source: "kernel@connect" });
    assert.equal(label.state, "none");
  });

  testWith(here, `identify() returns a peer without a pin on ${os} ${cpu}`, () => {
    fake.answer(peercred({ bytes: xucred(os) }), token(501, 20, 42), ...connection);
    const system = fake.open(os, cpu);
    const { alive, signal, key, facts } = identifyFd(system, FD, { pin: true });
    assert.deepEqual([alive, signal, key], [undefined, undefined, undefined]);
    const { pinned } = facts;
    const unsupported = { name: "UcredError", code: "ERR_UCRED_UNSUPPORTED" };
    assert.equal(pinned.state === "unknown" && pinned.reason.code, unsupported.code);
    assert.throws(() => peerOfPid(42, system), { ...unsupported, message: /has no pidfds$/ });
    const message = new RegExp(`^Cannot receive datagrams .*: ${os} does not report them$`);
    assert.throws(() => receiveOn(system, "/nowhere/s"), { ...unsupported, message });
  });
}

for (
  const [name, answer] of [
    ["another user", token(502, 20, 42)],
    ["another group", token(501, 21, 42)],
    ["no pid", token(501, 20, 0)],
    ["a negative pid", token(501, 20, -1)],
    ["an error, since the peer has closed", token(501, 20, 42, { result: -1, error: 57 })],
    ["half a token", token(501, 20, 42, { size: 16 })],
    ["a token that was not written", token(501, 20, 42, { bytes: new Uint8Array() })],
  ] as const
) {
  testWith(
    here,
    `readCredentials() returns no pid on darwin when the last accessor's token has ${name}`,
    () => {
      const system = fake.open("darwin", "arm64");
      // These answers leave a token of pid 43 in the memory, for a call that writes nothing.
      const name = new Uint8Array([16, AF_UNIX, 0, 0, ...words(501, 20)]);
      const bytes = xucred("darwin", { groups: [20, 12, 43] });
      const answers = [peercred({ bytes }), { ...family(AF_UNIX), bytes: name }, accepting(0)];
      fake.answer(token(501, 20, 42), ...answers);
      assert.equal(readCredentials(system, FD).pid, 42); // which must not be returned again
      fake.answer(answer, ...answers);
      const found = readCredentials(system, FD);
      assert.deepEqual(found, { pid: undefined, uid: 501, gid: 20 });
    },
  );
}

testWith(
  here,
  "readCredentials() returns no pid on freebsd when cr_pid is 0, as before FreeBSD 13",
  () => {
    fake.answer(peercred({ bytes: xucred("freebsd", { pid: 0 }) }), ...connection);
    const found = readCredentials(fake.open("freebsd", "x64"), FD);
    assert.deepEqual(found, { pid: undefined, uid: 501, gid: 20 });
  },
);

for (const os of ["darwin", "freebsd"] as const) {
  testWith(here, `identify() returns unknown groups when there are 16 on ${os}`, () => {
    const groups = Array.from({ length: 16 }, (_, index) => 100 + index);
    fake.answer(peercred({ bytes: xucred(os, { groups }) }), token(501, 100, 42), ...connection);
    const peer = identifyFd(fake.open(os, "arm64"), FD);
    assert.deepEqual([peer.uid, peer.gid, peer.groups], [501, 100, undefined]);
    const { groups: fact } = peer.facts;
    assert.equal(fact.state === "unknown" && fact.reason.code, "ERR_UCRED_UNSUPPORTED");
  });

  const whole = peercred({ bytes: xucred(os, { uid: 0, groups: [0] }) });
  for (
    const [name, answers, code, errno] of [
      ["ENOTCONN", [peercred({ result: -1, error: 57 })], "ERR_UCRED_NO_PEER", 57],
      ["EBADF", [peercred({ result: -1, error: 9 })], "ERR_UCRED_NO_FD", 9],
      ["ENOTSOCK", [peercred({ result: -1, error: 38 })], "ERR_UCRED_NOT_UNIX", 38],
      ["EINVAL", [peercred({ result: -1, error: 22 })], "ERR_UCRED_SYSCALL", 22],
      ["ENOPROTOOPT", [peercred({ result: -1, error: 42 })], "ERR_UCRED_UNSUPPORTED", 42],
      ["a listener", [whole, family(AF_UNIX), accepting(2)], "ERR_UCRED_NO_PEER"],
      [
        "a listener that is not connected",
        [peercred({ result: -1, error: 57 }), family(AF_UNIX), accepting(2)],
        "ERR_UCRED_NO_PEER",
      ],
      [
        "TCP, where option 1 is IP_OPTIONS",
        [peercred({ size: 0 }), family(AF_INET)],
        "ERR_UCRED_NOT_UNIX",
      ],
      ["TCP, with any answer", [whole, family(AF_INET)], "ERR_UCRED_NOT_UNIX"],
      ["no answer", [peercred({ size: 0 })], "ERR_UCRED_SYSCALL"],
      ["a short answer", [{ ...whole, size: 8 }], "ERR_UCRED_SYSCALL"],
      ["a long answer", [{ ...whole, size: 120 }], "ERR_UCRED_SYSCALL"],
      ["an answer that was not written", [{ ...whole, bytes: words() }], "ERR_UCRED_NO_PEER"],
      ["half an answer", [{ ...whole, bytes: words(0, 0) }], "ERR_UCRED_NO_PEER"],
      ["another version", [peercred({ bytes: xucred(os, { version: 1 }) })], "ERR_UCRED_NO_PEER"],
      ["no groups", [peercred({ bytes: xucred(os, { ngroups: 0 }) })], "ERR_UCRED_NO_PEER"],
      ["17 groups", [peercred({ bytes: xucred(os, { ngroups: 17 }) })], "ERR_UCRED_NO_PEER"],
      ["−1 groups", [peercred({ bytes: xucred(os, { ngroups: -1 }) })], "ERR_UCRED_NO_PEER"],
      ["uid 2³² − 1", [peercred({ bytes: xucred(os, { uid: -1 }) })], "ERR_UCRED_NO_PEER"],
      ["gid 2³² − 1", [peercred({ bytes: xucred(os, { groups: [-1] }) })], "ERR_UCRED_NO_PEER"],
    ] as readonly (readonly [string, readonly Answer[], UcredErrorCode, number?])[]
  ) {
    testWith(here, `readCredentials() throws for ${name} on ${os}`, () => {
      const system = fake.open(os, "arm64");
      fake.answer(whole, token(0, 0, 42), ...connection);
      assert.equal(readCredentials(system, FD).uid, 0); // which must not be returned again
      fake.answer(...answers, token(0, 0, 42), ...connection);
      for (const ask of [readCredentials, identifyFd]) {
        assert.throws(() => ask(system, FD), (error) => {
          assert.ok(error instanceof UcredError, String(error));
          assert.deepEqual([error.code, error.errno], [code, errno], error.message);
          return true;
        });
      }
    });
  }

  testWith(here, `readCredentials() throws errors with ${os}'s names of errno`, () => {
    for (const [error, name] of [[35, "EAGAIN"], [55, "ENOBUFS"], [84, "EOVERFLOW"]] as const) {
      fake.answer(peercred({ result: -1, error }), ...connection);
      assert.throws(() => readCredentials(fake.open(os, "x64"), FD), {
        errno: error,
        message: `Cannot read peer credentials of fd 7: getsockopt failed with ${name}`,
      });
    }
  });
}

for (
  const [os, cpu] of [["darwin", "ia32"], ["openbsd", "x64"], ["win32", "x64"], ["linux", "mips"]]
) {
  testWith(here, `openSystem() throws for ${os} on ${cpu}, and lists the supported systems`, () => {
    assert.throws(() => fake.open(os, cpu), (error) => {
      assert.ok(error instanceof UcredError);
      assert.equal(error.code, "ERR_UCRED_UNSUPPORTED");
      assert.match(error.message, new RegExp(`${os} on ${cpu} is not supported`));
      assert.match(error.hint, /Linux.*macOS and FreeBSD/);
      return true;
    });
  });
}
