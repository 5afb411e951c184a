/** The credentials that a bus reports, in each shape and with descriptors. */

import assert from "node:assert/strict";
import { fstatSync, openSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { openedSystem } from "../../../adapters/select.ts";
import { SYS_PIDFD_OPEN } from "../../../ffi/pidfd.ts";
import type { Peer } from "../../../core/peer.ts";
import { BUS_NAME } from "../../../interop/dbus/bus.ts";
import { credentialsIn } from "../../../interop/dbus/credentials.ts";
import { type BusMessage, connectionCredentials, peerOfSender } from "../../../interop/dbus/mod.ts";
import { fakePeer } from "../../../testing/mod.ts";
import { Child } from "../../support/peers.ts";
import { needs, testWith } from "../../support/suite.ts";
import { FakeBus } from "./fake_bus.ts";

const reply = (dictionary: unknown, signature = "a{sv}"): BusMessage => ({
  sender: "org.freedesktop.DBus",
  signature,
  body: [dictionary],
});

const LABEL = new TextEncoder().encode("unconfined\0");
const KNOWN = {
  uid: 4294967294,
  groups: [2, 10, 4294967294],
  pid: 42,
  processFd: 0,
  label: "unconfined",
};
const VALUES: readonly (readonly [key: string, signature: string, value: unknown])[] = [
  ["UnixUserID", "u", 4294967294],
  ["UnixGroupIDs", "au", [10, 2, 4294967294, 10]],
  ["ProcessID", "u", 42],
  ["ProcessFD", "h", 0],
  ["LinuxSecurityLabel", "ay", LABEL],
  ["org.example.Other", "s", "x"],
];

test("credentialsIn() reads each shape in which dbus-native returns variants", () => {
  const wrap = (signature: string, value: unknown) => ({ signature, value });
  const tree = (
    signature: string,
    value: unknown,
  ) => [[{ type: signature[0], child: [] }], [value]];
  for (const shape of [wrap, tree, (_: string, value: unknown) => value]) {
    const entries = VALUES.map(([key, signature, value]) => [key, shape(signature, value)]);
    assert.deepEqual(credentialsIn(reply(entries)), KNOWN);
    assert.deepEqual(credentialsIn(reply(Object.fromEntries(entries))), KNOWN);
  }
  const bytes = { LinuxSecurityLabel: [...LABEL] };
  assert.equal(credentialsIn(reply(bytes)).label, "unconfined");
  for (const label of ["x", "\ufeffx"]) {
    const bytes = { LinuxSecurityLabel: new TextEncoder().encode(`${label}\0`) };
    assert.equal(credentialsIn(reply(bytes)).label, label);
  }
  assert.equal(credentialsIn(reply({ ProcessID: 2 ** 31 - 1 })).pid, 2 ** 31 - 1);
});

test("credentialsIn() leaves unknown what the bus does not report", () => {
  const unknown = { uid: undefined, groups: undefined, pid: undefined };
  for (const dictionary of [{}, [], { Other: 1 }]) {
    assert.deepEqual(credentialsIn(reply(dictionary)), {
      ...unknown,
      ...{ processFd: undefined, label: undefined },
    });
  }
});

test("credentialsIn() rejects values of other types, and other replies", () => {
  const tree = { type: "u", child: [] };
  const wrong: readonly (readonly [key: string, values: readonly unknown[]])[] = [
    ["UnixUserID", [[[tree], [0], 0], [[tree], 0], [[tree], { 0: 0 }], [{ 0: tree }, [0]]]],
    ["UnixUserID", [[[{}], [0]], [[], [0]], { value: 0 }, { signature: "u" }]],
    ["UnixUserID", [-1, 4294967295, 1.5, "0", null, undefined, [0], 0n, true]],
    ["UnixGroupIDs", [0, "0", [-1], [4294967295], ["0"], [1, undefined], [, 1], { 0: 0 }]],
    ["ProcessID", [0, -1, 2 ** 31, "1", null]],
    ["ProcessFD", [-1, "0", 0.5]],
    ["LinuxSecurityLabel", ["x\0", [], [0], [97], [97, 0, 98, 0], [0xff, 0], null]],
  ];
  for (const [key, values] of wrong) {
    for (const value of values) {
      const dictionary = { UnixUserID: 0, [key]: value };
      assert.throws(() => credentialsIn(reply(dictionary)), { code: "ERR_UCRED_BUS" }, key);
    }
  }
  const twice = [["UnixUserID", 1], ["UnixUserID", 0]];
  for (const broken of [reply(twice), reply({}, "a{ss}"), reply(null), { signature: "a{sv}" }]) {
    assert.throws(() => credentialsIn(broken), { code: "ERR_UCRED_BUS" });
  }
});

test("connectionCredentials() leaves out what is unknown, ambiguous or certainly absent", () => {
  const { UnixUserID, UnixGroupIDs, ProcessID, LinuxSecurityLabel } = connectionCredentials(
    fakePeer({ uid: 7, gid: 8, groups: [9, 2], pid: 42, label: "unconfined" }),
  );
  assert.deepEqual([UnixUserID, UnixGroupIDs, ProcessID], [
    ["u", 7],
    ["au", [2, 8, 9]],
    ["u", 42],
  ]);
  assert.deepEqual(LinuxSecurityLabel, ["ay", LABEL]);
  const { facts } = fakePeer({ uid: 0, pid: null, label: null });
  assert.deepEqual(facts.gid.state, "unknown");
  assert.deepEqual(connectionCredentials({ facts: { ...facts, uid: facts.gid } } as Peer), {});
});

/** A bus that passes descriptors, as dbus 1.16 does on a transport that can receive them. */
function busWith(dictionary: object, fds: readonly number[]): FakeBus {
  const bus = new FakeBus(({ member }, deliver) => {
    const isQuery = member === "GetConnectionCredentials";
    deliver(isQuery ? { ...reply(dictionary), fds } : { sender: BUS_NAME, body: [] });
  });
  bus.sendError = () => assert.fail("no error is sent");
  return bus;
}

const isOpen = (fd: number): boolean => {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
};

const here = [needs.linux, needs.root, needs.native];

testWith(
  [...here, needs.peerPidfd],
  "peerOfSender() pins by ProcessFD, and closes other descriptors",
  async () => {
    const child = new Child("sleep", ["60"]);
    const { linux } = openedSystem().libc;
    const pidfd = linux!.syscall(SYS_PIDFD_OPEN, child.process.pid!, 0, 0);
    const other = openSync("/dev/null", "r");
    // The bus may be in another pid namespace: here its pid is that of this process.
    const dictionary = { UnixUserID: 0, ProcessID: process.pid, ProcessFD: 1 };
    const bus = busWith(dictionary, [other, pidfd]);
    const peer = await peerOfSender(bus, ":1.7");
    assert.equal(isOpen(other), false);
    assert.deepEqual([peer.pinned, peer.alive], ["connect", true]);
    assert.match(peer.process.exe!, /sleep|coreutils/);
    assert.throws(() => peer.drift(), { code: "ERR_UCRED_UNSUPPORTED" }, "the gid is not known");
    bus.ownerChanged();
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([peer.alive, isOpen(pidfd)], [undefined, false]);
  },
);

testWith(here, "peerOfSender() pins no process by another descriptor or index", async () => {
  for (const [index, count] of [[0, 1], [1, 1], [undefined, 2]] as const) {
    const fds = Array.from({ length: count }, () => openSync("/proc/self/status", "r"));
    const pid = { UnixUserID: 0, ProcessID: process.pid };
    const bus = busWith(index === undefined ? pid : { ...pid, ProcessFD: index }, fds);
    const peer = await peerOfSender(bus, ":1.7");
    assert.deepEqual([peer.uid, peer.pinned, peer.process.exe, peer.key], [
      0,
      undefined,
      undefined,
      undefined,
    ]);
    assert.deepEqual(fds.filter(isOpen), []);
  }
  const fd = openSync("/dev/null", "r");
  await assert.rejects(peerOfSender(busWith({}, [fd]), ":1.7"), { code: "ERR_UCRED_NO_PEER" });
  assert.equal(isOpen(fd), false);
});
