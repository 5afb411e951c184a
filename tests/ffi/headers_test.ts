/** Compares the numbers and layouts in ffi/ with this system's C headers. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { constants } from "node:os";
import process from "node:process";
import { host } from "../../adapters/host.ts";
import { type Abi, abiOf, AF_UNIX, FLOCK } from "../../ffi/abi.ts";
import { ACCOUNT } from "../../ffi/accounts.ts";
import { AUDIT_TOKEN, XUCRED } from "../../ffi/bsd.ts";
import {
  AF_NETLINK,
  decodeDiag,
  diagRequest,
  NETLINK_SOCK_DIAG,
  NETLINK_SOCKET,
  STATE,
} from "../../ffi/diag.ts";
import { FCNTL, FD_CLOEXEC, O_CLOEXEC, SHUT_RDWR, SOCK, UCRED } from "../../ffi/linux.ts";
import {
  CONTROL_SIZE,
  DATAGRAM_SOCKET,
  IOVEC,
  MSG,
  MSGHDR,
  SOCKADDR_UN,
} from "../../ffi/message.ts";
import {
  EPOLL_CTL,
  epollEvent,
  POLLFD,
  POLLHUP,
  POLLIN,
  POLLNVAL,
  STATFS,
  SYS_PIDFD_OPEN,
} from "../../ffi/pidfd.ts";
import { STAT, SYS_FSTAT } from "../../ffi/stat.ts";
import {
  CAPABILITY,
  CAPABILITY_DATA,
  CAPABILITY_HEADER,
  CAPABILITY_VERSION,
  KEEPCAPS,
  THREAD_CALLS,
} from "../../ffi/thread_ids.ts";
import { compileProgram } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";

type Headers = { readonly [name: string]: number } & {
  readonly address: [number, number];
  readonly poll: [number, number, number, number];
  readonly diagRequest: number[];
  readonly diagAnswer: number[];
};

const here = [needs.cc, needs.native];

/** Compares values in ffi/ with those of the headers. */
function compare(headers: Headers, ours: { readonly [name: string]: number }): void {
  for (const [name, number] of Object.entries(ours)) {
    const isNewer = /SO_\w*(PIDFD|RIGHTS)$/.test(name) && !(name in headers); // than these headers
    if (!isNewer) assert.equal(number, headers[name], name);
  }
}

function readHeaders(): Headers {
  const program = compileProgram(new URL("headers.c", import.meta.url));
  return JSON.parse(execFileSync(program, { encoding: "utf8" }));
}

/** Prefixes the keys, like the C program. */
const section = (name: string, of: { readonly [key: string]: number }) =>
  Object.fromEntries(Object.entries(of).map(([key, number]) => [`${name}.${key}`, number]));

testWith(here, "ffi/ has the socket options, layouts and address family of the headers", () => {
  const headers = readHeaders();
  const abi = abiOf(host().os, host().cpu) as Abi;
  assert.equal(AF_UNIX, headers["AF_UNIX"]);
  compare(headers, section("flock", FLOCK));
  assert.equal(abi.family(Uint8Array.from(headers.address)), AF_UNIX);
  const { LOCAL_PEERTOKEN, ...options } = { LOCAL_PEERTOKEN: 0, ...abi.options };
  compare(headers, section("options", options));
  if (abi.os === "linux") {
    compare(headers, section("ucred", UCRED));
    compare(headers, { "open.O_CLOEXEC": O_CLOEXEC });
    const { size, path } = SOCKADDR_UN;
    compare(headers, section("sockaddr_un", { size, path }));
    compare(headers, section("msghdr", MSGHDR));
    compare(headers, section("iovec", IOVEC));
    compare(headers, { control: CONTROL_SIZE, DATAGRAM_SOCKET, pidfd_open: SYS_PIDFD_OPEN });
    const { TRUNC: MSG_TRUNC, CTRUNC: MSG_CTRUNC, CMSG_CLOEXEC: MSG_CMSG_CLOEXEC } = MSG;
    compare(headers, section("msg", { MSG_TRUNC, MSG_CTRUNC, MSG_CMSG_CLOEXEC }));
    compare(headers, section("statfs", STATFS));
    compare(headers, section("pollfd", POLLFD));
    compare(headers, section("epoll_event", { ...epollEvent(process.arch) }));
    compare(headers, section("epoll_ctl", EPOLL_CTL));
    const { device, inode } = STAT;
    compare(headers, section("stat", { device, inode }));
    assert.ok(headers["stat.size"]! <= STAT.size);
    assert.equal(SYS_FSTAT[abi.cpu], headers["fstat"] ?? SYS_FSTAT[abi.cpu]);
    assert.deepEqual(headers.poll, [POLLIN, POLLIN, POLLHUP, POLLNVAL]);
    compare(headers, section("call", { ...THREAD_CALLS[abi.cpu]! }));
    compare(headers, section("keepcaps", KEEPCAPS));
    compare(headers, section("capability", CAPABILITY));
    compare(headers, { CAPABILITY_VERSION });
    compare(headers, section("capabilities", CAPABILITY_DATA));
    compare(headers, section("header", CAPABILITY_HEADER));
    compare(headers, section("fcntl", FCNTL));
    compare(headers, { FD_CLOEXEC, SHUT_RDWR, AF_NETLINK, NETLINK_SOCK_DIAG, NETLINK_SOCKET });
    compare(headers, section("state", STATE));
    assert.deepEqual([...diagRequest()], headers.diagRequest);
    assert.deepEqual(decodeDiag(Uint8Array.from(headers.diagAnswer)), {
      sockets: [{
        inode: 4711,
        type: SOCK.STREAM,
        state: STATE.LISTEN,
        address: "/run/x",
        file: { inode: 42, device: 7 },
        peer: 4712,
      }],
      isLast: true,
      errno: undefined,
    });
    return;
  }
  const { version, uid, ngroups, groups, darwinSize, freebsdSize } = XUCRED;
  const size = abi.os === "darwin" ? darwinSize : freebsdSize;
  compare(headers, section("xucred", { version, uid, ngroups, groups, size }));
  if (abi.os === "darwin") {
    compare(headers, { "options.LOCAL_PEERTOKEN": LOCAL_PEERTOKEN });
    compare(headers, { "token.size": AUDIT_TOKEN.size });
  }
});

testWith(here, "ACCOUNT has the offsets of name and id in struct passwd and struct group", () => {
  const headers = readHeaders();
  const name = ACCOUNT.name - ACCOUNT.struct;
  const id = ACCOUNT.id - ACCOUNT.struct;
  compare(headers, section("account", { userName: name, userId: id }));
  compare(headers, section("account", { groupName: name, groupId: id }));
  const room = ACCOUNT.strings - ACCOUNT.struct;
  assert.ok(headers["account.userSize"]! <= room && headers["account.groupSize"]! <= room);
});

testWith([], "LINUX_ERRNO has the runtime's names and numbers", () => {
  const { errnoNames } = abiOf(host().os, host().cpu) as Abi;
  const runtime = new Map<number, string[]>();
  for (const [name, number] of Object.entries(constants.errno)) {
    runtime.set(number, [...runtime.get(number) ?? [], name]);
  }
  assert.ok(Object.keys(errnoNames).length > 40);
  for (const [number, name] of Object.entries(errnoNames)) {
    // Not every runtime lists every number.
    const names = runtime.get(Number(number)) ?? [name];
    assert.ok(names.includes(name), `${number} is ${names}, not ${name}`);
  }
});
