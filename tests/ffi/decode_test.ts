/** Decoders of the kernel's answers, for valid and malformed bytes. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { abiOf, SUPPORTED } from "../../ffi/abi.ts";
import { ACCOUNT, decodeAccountName } from "../../ffi/accounts.ts";
import { decodeBsdFamily, decodeTokenPid, decodeXucred, XUCRED } from "../../ffi/bsd.ts";
import { decodeDiag, diagRequest, kernelDevice } from "../../ffi/diag.ts";
import { decodeLinuxFamily, decodeUcred, LINUX_OPTIONS } from "../../ffi/linux.ts";

const words = (...values: number[]) => Uint32Array.from(values, (value) => value >>> 0);
const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

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
  assert.deepEqual(decodeXucred(xucred([20], {})), { credentials: found, groups: [20] });
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

/** Encodes whole numbers, each with its width in bytes, in host byte order. */
function encode(...numbers: readonly (readonly [width: 1 | 2 | 4, value: number])[]): number[] {
  return numbers.flatMap(([width, value]) => {
    const view = new DataView(new ArrayBuffer(4));
    if (width === 1) view.setUint8(0, value);
    else if (width === 2) view.setUint16(0, value, little);
    else view.setUint32(0, value, little);
    return [...new Uint8Array(view.buffer, 0, width)];
  });
}

/** Pads to 4 bytes, with bytes that must not be read. */
const pad = (
  bytes: readonly number[],
) => [...bytes, ...[0xff, 0xff, 0xff].slice(0, -bytes.length & 3)];

/** Builds a netlink message; `length` is the one that it claims. */
const netlink = (type: number, body: readonly number[], length = 16 + body.length) =>
  pad([...encode([4, length], [2, type], [2, 0], [4, 0], [4, 0]), ...body]);

/** Builds an attribute; `length` is the one that it claims. */
const attribute = (type: number, body: readonly number[], length = 4 + body.length) =>
  pad([...encode([2, length], [2, type]), ...body]);

/** Builds the answer for one socket with these attributes. */
const diag = (inode: number, ...attributes: readonly (readonly number[])[]) =>
  netlink(20, [
    ...encode([1, 1], [1, 5], [1, 10], [1, 0], [4, inode], [4, 0], [4, 0]),
    ...attributes.flat(),
  ]);

const text = (value: string) => [...new TextEncoder().encode(value)];
const word = (value: number) => encode([4, value]);

/** Decodes messages in the middle of a larger buffer. */
function decodeMessages(...messages: readonly (readonly number[])[]) {
  const bytes = Uint8Array.from([...word(1), ...messages.flat(), 0xff, 0xff, 0xff, 0xff]);
  return decodeDiag(bytes.subarray(4, -4));
}

const NAME = 0, VFS = 1, PEER = 2;
const plain = {
  inode: 7,
  type: 5,
  state: 10,
  address: undefined,
  file: undefined,
  peer: undefined,
};

test("diagRequest() requests all Unix sockets, with name, file and peer", () => {
  const any = 0xffffffff;
  const body = encode([1, 1], [1, 0], [2, 0], [4, any], [4, 0], [4, 7], [4, any], [4, any]);
  const head = encode([4, 40], [2, 20], [2, 0x301], [4, 0], [4, 0]);
  assert.deepEqual([...diagRequest()], [...head, ...body]);
});

test("decodeDiag() returns the attributes of each socket, in any order", () => {
  const file = attribute(VFS, encode([4, 42], [4, 0xfd00001]));
  const name = attribute(NAME, text("/run/x\0"));
  const peer = attribute(PEER, word(4712));
  const found = {
    ...{ ...plain, address: "/run/x", peer: 4712 },
    file: { inode: 42, device: 0xfd00001 },
  };
  for (
    const attributes of [[name, file, peer], [peer, file, name], [
      file,
      attribute(9, []),
      peer,
      name,
    ]]
  ) {
    assert.deepEqual(
      decodeMessages(diag(7, ...attributes), diag(7), netlink(1, []), diag(8, peer)),
      {
        sockets: [found, plain, { ...plain, inode: 8, peer: 4712 }],
        ...{ isLast: false, errno: undefined },
      },
    );
  }
  const last = { sockets: [plain], isLast: true, errno: undefined };
  assert.deepEqual(decodeMessages(diag(7), netlink(3, []), diag(8)), last);
});

test("decodeDiag() keeps the NULs of abstract names, and ends paths at theirs", () => {
  for (
    const [name, address] of [
      ["\0a\0b\0", "\0a\0b\0"],
      ["/x\0y", "/x"],
      ["/without", "/without"],
      ["", undefined],
    ] as const
  ) {
    const { sockets } = decodeMessages(diag(7, attribute(NAME, text(name))))!;
    assert.deepEqual(sockets, [{ ...plain, address }]);
  }
});

test("decodeDiag() ignores attributes that are short, or longer than their message", () => {
  for (
    const one of [
      attribute(VFS, word(1)),
      attribute(PEER, []),
      attribute(NAME, text("/x"), 0),
      attribute(NAME, text("/x"), 3),
      attribute(NAME, text("/x"), 9),
    ]
  ) {
    assert.deepEqual(decodeMessages(diag(7, one), diag(7))!.sockets, [plain, plain], String(one));
  }
});

test("decodeDiag() returns the errno of an error, and undefined for malformed messages", () => {
  const error = { sockets: [plain], isLast: true, errno: 13 };
  assert.deepEqual(decodeMessages(diag(7), netlink(2, word(-13))), error);
  for (
    const message of [
      netlink(2, []),
      netlink(2, [0, 0, 0]),
      netlink(3, [], 15),
      netlink(3, [], 17),
      netlink(3, [], 0),
      netlink(20, word(7)),
      netlink(20, [...word(7), ...word(7), ...word(7), 7, 7, 7]),
    ]
  ) {
    assert.equal(decodeMessages(diag(7), message), undefined, String(message));
  }
  const rest = netlink(3, []).slice(0, 12);
  assert.deepEqual(decodeMessages(diag(7), rest), { ...error, isLast: false, errno: undefined });
});

test("kernelDevice() converts the numbers of devices that stat(2) splits", () => {
  assert.equal(kernelDevice(0xfd01n), 253 << 20 | 1);
  assert.equal(kernelDevice(0xabc3_45den), 0x345 * 2 ** 20 + 0xabcde);
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
  for (
    const [os, paths, name] of [
      ["darwin", ["/usr/lib/libSystem.B.dylib"], "/usr/lib/libSystem.B.dylib"],
      ["freebsd", ["/lib/libc.so.7"], "libc.so.7"],
    ] as const
  ) {
    for (const cpu of ["x64", "arm64"]) {
      const found = abiOf(os, cpu)!;
      assert.deepEqual([found.os, found.libraryPaths, found.libraryName], [os, paths, name]);
    }
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
  assert.equal(abiOf("linux", "x64")!.libraryName, "libc.so.6");
});
