/** Decoders of the kernel's answers, for valid and malformed bytes. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { abiOf, SUPPORTED } from "../../ffi/abi.ts";
import { ACCOUNT, decodeAccountName } from "../../ffi/accounts.ts";
import { decodeBsdFamily, decodeTokenPid, decodeXucred, XUCRED } from "../../ffi/bsd.ts";
import { decodeLinuxFamily, decodeUcred, LINUX_OPTIONS } from "../../ffi/linux.ts";

const words = (...values: number[]) => Uint32Array.from(values, (value) => value >>> 0);

test("decodeUcred() accepts every pid, uid and gid that a process can have", () => {
  for (const pid of [1, 4194304, 0x7fffffff]) {
    for (const uid of [0, 1000, 65534, 0x7fffffff, 0x80000000, 0xfffffffe]) {
      for (const gid of [0, 1000, 65534, 0x80000000, 0xfffffffe]) {
        assert.deepEqual(decodeUcred(words(pid, uid, gid)), { pid, uid, gid });
      }
    }
  }
});

test("decodeUcred() returns undefined as the pid for 0, and freezes its result", () => {
  const found = decodeUcred(words(0, 5, 6));
  assert.deepEqual(found, { pid: undefined, uid: 5, gid: 6 });
  assert.ok(Object.isFrozen(found));
});

test("decodeUcred() returns undefined for ids that no process can have", () => {
  for (const ids of [[1, -1, 0], [1, 0, -1], [-1, 0, 0], [-0x80000000, 0, 0], [0, -1, -1]]) {
    assert.equal(decodeUcred(words(...ids)), undefined, String(ids));
  }
});

/** Builds a struct xucred: version, uid, ngroups, then `groups`, then, on FreeBSD, a pid. */
function xucred(groups: number[], { uid = 501, version = 0, ngroups = groups.length, pid = -1 }) {
  const size = pid === -1 ? XUCRED.darwinSize : XUCRED.freebsdSize;
  const memory = new Uint32Array(size / 4).fill(0xffffffff);
  memory.set(words(version, uid, 0, ...groups));
  new Int16Array(memory.buffer)[XUCRED.ngroups / 2] = ngroups;
  if (pid !== -1) memory[XUCRED.pid / 4] = pid;
  return memory;
}

test("decodeXucred() returns the effective ids, the groups, and FreeBSD's pid", () => {
  const groups = [20, 12, 0xfffffffe];
  const found = { pid: undefined, uid: 501, gid: 20 };
  assert.deepEqual(decodeXucred(xucred(groups, {})), { credentials: found, groups });
  const { credentials } = decodeXucred(xucred(groups, { pid: 77 }))!;
  assert.deepEqual(credentials, { ...found, pid: 77 });
  assert.equal(decodeXucred(xucred(groups, { pid: 0 }))!.credentials.pid, undefined);
});

test("decodeXucred() returns undefined as the groups when there are sixteen", () => {
  const sixteen = Array.from({ length: 16 }, (_, index) => index + 1);
  assert.equal(decodeXucred(xucred(sixteen, {}))!.groups, undefined);
  assert.deepEqual(decodeXucred(xucred(sixteen.slice(1), {}))!.groups, sixteen.slice(1));
});

test("decodeXucred() returns undefined for another version, and for ids that no process can have", () => {
  const wrong = [{ version: 1 }, { ngroups: 0 }, { ngroups: -1 }, { ngroups: 17 }, { uid: -1 }];
  for (const fields of wrong) {
    assert.equal(decodeXucred(xucred([0], fields)), undefined, JSON.stringify(fields));
  }
  assert.equal(decodeXucred(xucred([-1], {})), undefined, "gid");
  assert.equal(decodeXucred(xucred([0, -1], {})), undefined, "a group");
});

test("decodeTokenPid() returns the pid only if the token has the same user and group", () => {
  const of = { pid: undefined, uid: 501, gid: 20 };
  const token = (euid: number, egid: number, pid: number) =>
    words(501, euid, egid, 501, 20, pid, 100000, 3);
  assert.equal(decodeTokenPid(token(501, 20, 99), of), 99);
  for (const [euid, egid, pid] of [[0, 20, 99], [501, 0, 99], [501, 20, 0], [501, 20, -1]]) {
    assert.equal(decodeTokenPid(token(euid!, egid!, pid!), of), undefined);
  }
});

test("decodeLinuxFamily() reads the first two bytes, and decodeBsdFamily() the second one", () => {
  const address = new Uint8Array(new Uint16Array([40]).buffer);
  assert.equal(decodeLinuxFamily(address), 40);
  assert.equal(decodeBsdFamily(Uint8Array.of(16, 1)), 1);
});

/** Builds the answer of getpwuid_r: the name, and pointers as if the memory was at `base`. */
function account(
  { id = 1000, name = "ada", result = 1n, start = ACCOUNT.strings as number, room = 400 },
) {
  const memory = new Uint8Array(room);
  const view = new DataView(memory.buffer);
  const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  const base = 0x7fff_1234_5678_0000n;
  const pointer = (offset: number) => base + BigInt(offset);
  view.setBigUint64(ACCOUNT.result, result && pointer(ACCOUNT.struct), little);
  view.setBigUint64(ACCOUNT.name, pointer(start), little);
  view.setUint32(ACCOUNT.id, id, little);
  const end = Math.min(Math.max(start, 0), room - name.length - 1);
  memory.set(new TextEncoder().encode(name), end);
  return memory;
}

test("decodeAccountName() reads the name at any position in the strings", () => {
  assert.equal(decodeAccountName(account({}), 1000), "ada");
  assert.equal(decodeAccountName(account({ start: 300, name: "jürgen" }), 1000), "jürgen");
});

test("decodeAccountName() returns null for a missing account, and undefined for a malformed answer", () => {
  assert.equal(decodeAccountName(account({ result: 0n }), 1000), null);
  for (const start of [-1, 0, ACCOUNT.struct, ACCOUNT.strings - 1, 400, 401, 2 ** 40]) {
    assert.equal(decodeAccountName(account({ start }), 1000), undefined, `name at ${start}`);
  }
  assert.equal(decodeAccountName(account({ id: 0 }), 1000), undefined, "another account");
  assert.equal(decodeAccountName(account({ name: "" }), 1000), undefined, "an empty name");
  const bytes = account({ name: "root" });
  bytes[ACCOUNT.strings + 1] = 0xff;
  assert.equal(
    decodeAccountName(bytes, 1000),
    undefined,
    "not UTF-8: other names would read the same",
  );
  assert.equal(decodeAccountName(account({ name: "\ufeffroot" }), 1000), "\ufeffroot");
  const endless = account({ start: 390 }).fill(97, 390);
  assert.equal(decodeAccountName(endless, 1000), undefined, "a name without an end");
});

test("LINUX_OPTIONS has powerpc's own SO_PEERCRED, where the generic number is another option", () => {
  assert.equal(LINUX_OPTIONS["ppc64"]!.SO_PEERCRED, 21);
  for (const cpu of ["x64", "arm64", "riscv64", "s390x", "loong64"]) {
    assert.equal(LINUX_OPTIONS[cpu]!.SO_PEERCRED, 17, cpu);
  }
});

test("abiOf() returns an ABI only for the systems that error messages list", () => {
  for (const cpu of Object.keys(LINUX_OPTIONS)) {
    assert.equal(abiOf("linux", cpu)?.os, "linux");
    assert.ok(SUPPORTED.includes(cpu), cpu);
  }
  for (const os of ["darwin", "freebsd"]) {
    assert.equal(abiOf(os, "x64")?.os, os);
    assert.equal(abiOf(os, "arm64")?.os, os);
    for (const cpu of ["ia32", "ppc64", "riscv64"]) assert.equal(abiOf(os, cpu), undefined);
  }
  for (
    const cpu of ["mips", "mips64el", "sparc64", "ia32", "arm", "__proto__", "constructor", ""]
  ) {
    assert.equal(abiOf("linux", cpu), undefined, cpu);
  }
  for (const os of ["win32", "openbsd", "sunos", "android", "", "__proto__"]) {
    assert.equal(abiOf(os, "x64"), undefined, os);
  }
});

test("abiOf() lists the paths of libc on all distributions", () => {
  const paths = (cpu: string) => abiOf("linux", cpu)!.libraryPaths;
  for (
    const [cpu, machine] of [["x64", "x86_64"], ["arm64", "aarch64"], ["ppc64", "powerpc64le"]]
  ) {
    assert.ok(paths(cpu!).includes(`/lib/ld-musl-${machine}.so.1`), "Alpine");
    assert.ok(paths(cpu!).includes("/lib64/libc.so.6"), "Fedora");
    assert.ok(paths(cpu!).includes("/usr/lib/libc.so.6"), "Arch");
  }
  assert.equal(paths("x64")[0], "/lib/x86_64-linux-gnu/libc.so.6", "Debian, Ubuntu");
  assert.equal(paths("arm64")[0], "/lib/aarch64-linux-gnu/libc.so.6", "Debian, Ubuntu");
  for (const path of paths("x64")) assert.ok(path.startsWith("/"), path);
});
