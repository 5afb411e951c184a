/** The texts of /proc, as kernels write them, and with names that a process chooses. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  isEnding,
  parseAuditId,
  parseCapabilities,
  parseCgroup,
  parseCmdline,
  parseExe,
  parseGroups,
  parseHidePid,
  parseIds,
  parseNamespace,
  parseNoNewPrivs,
  parsePidNumbers,
  parseSeccomp,
  parseStartTime,
  parseStatus,
} from "../../ffi/proc.ts";
import {
  decodePidfdIds,
  decodePidfdPid,
  epollEvent,
  PIDFD_INFO,
  pidfdRequest,
} from "../../ffi/pidfd.ts";

const stat = (comm: string) =>
  `77 (${comm}) S 1 77 77 0 -1 4194560 131 0 0 0 0 0 0 0 20 0 1 0 7421 2990080 345 184467 1\n`;

test("parseStartTime() reads the time when the name has parentheses and spaces", () => {
  for (const comm of ["sh", "a) S 1 (", ") R 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 9 9", "", "((("]) {
    assert.equal(parseStartTime(stat(comm)), 74210, comm);
  }
  for (const text of ["", "77 (sh) S 1 2", "77 sh", stat("x").replace("7421", "-1")]) {
    assert.equal(parseStartTime(text), undefined, text);
  }
});

test("isEnding() returns true when the main thread ends, and for malformed text", () => {
  assert.equal(isEnding(stat("sh) Z 1 (")), false);
  assert.equal(isEnding(stat("sh").replace(") S ", ") Z ")), true);
  assert.equal(isEnding(stat("sh").replace(" 4194560 ", " 4194564 ")), true);
  assert.equal(isEnding("77 (sh) S 1"), true);
});

const status = (fields: string) =>
  parseStatus(`Name:\tsh\\nUid:\t9\t9\t9\t9\nUmask:\t0022\n${fields}`);

test("parseIds() and parseGroups() keep all 32 bits, and reject the id -1", () => {
  const full = status(
    "Uid:\t0\t4000000000\t4294967294\t7\nGid:\t1\t2\t3\t4294967294\nGroups:\t4  5 \n",
  );
  assert.deepEqual(parseIds(full), {
    ...{ ruid: 0, euid: 4000000000, suid: 4294967294, fsuid: 7 },
    ...{ rgid: 1, egid: 2, sgid: 3, fsgid: 4294967294 },
  });
  assert.deepEqual(parseGroups(full), [4, 5]);
  assert.deepEqual(parseGroups(status("Groups:\t \n")), []);
  for (
    const text of [
      "",
      "Uid:\t0\t0\t0\nGid:\t0\t0\t0\t0\n",
      "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\n",
      "Uid:\t0\t0\t0\t0\n",
      "Uid:\t0\t0\t0\t4294967295\nGid:\t0\t0\t0\t0\n",
    ]
  ) {
    assert.equal(parseIds(status(text)), undefined, text);
  }
  for (const text of ["", "Groups:\t1 x\n", "Groups:\t-1\n", "Groups:\t1e3\n"]) {
    assert.equal(parseGroups(status(text)), undefined, text);
  }
});

test("parseStatus() uses the first line of a name, and ignores lines without a name", () => {
  assert.deepEqual([...parseStatus("Uid?\n:1\nUid:\t7\n")], [["Uid", "7"]]);
  assert.equal(parseNoNewPrivs(parseStatus("NoNewPrivs:\t0\nNoNewPrivs:\t1\n")), false);
});

test("parseNoNewPrivs() and parseSeccomp() return undefined for missing and new values", () => {
  assert.equal(parseNoNewPrivs(status("NoNewPrivs:\t1\n")), true);
  assert.deepEqual(
    ["0", "1", "2", "3", ""].map((mode) => parseSeccomp(status(`Seccomp:\t${mode}\n`))),
    ["off", "strict", "filter", undefined, undefined],
  );
  assert.equal(parseNoNewPrivs(status("")), undefined);
  assert.equal(parseNoNewPrivs(status("NoNewPrivs:\t2\n")), undefined);
});

test("parseCapabilities() returns names, and numbers for newer capabilities", () => {
  const text =
    "CapInh:\t0\nCapPrm:\t00000000000000c0\nCapEff:\t8000000000000001\nCapBnd:\t0\nCapAmb:\t0\n";
  const { permitted, effective, inheritable } = parseCapabilities(status(text))!;
  assert.deepEqual(permitted, ["CAP_SETGID", "CAP_SETUID"]);
  assert.deepEqual(effective, ["CAP_CHOWN", "CAP_63"]);
  assert.deepEqual(inheritable, []);
  assert.equal(parseCapabilities(status(text.replace("CapAmb", "CapX"))), undefined);
  for (const digits of ["zz", "-c0", "c0-", "0".repeat(17)]) {
    assert.equal(parseCapabilities(status(text.replace(/0+c0/, digits))), undefined, digits);
  }
});

test("parsePidNumbers() returns one number for each pid namespace", () => {
  assert.deepEqual(parsePidNumbers(status("NSpid:\t4242\t7\t1\n")), [4242, 7, 1]);
  assert.equal(parsePidNumbers(status("")), undefined);
});

test("parseCgroup() returns v2's path, or on v1 that of systemd, and the other paths", () => {
  assert.deepEqual(parseCgroup("0::/a:b/c d\n"), { path: "/a:b/c d", others: [] });
  const v1 = "12:pids:/p\n1:name=systemd:/system.slice/x.service\n";
  const path = "/system.slice/x.service";
  assert.deepEqual(parseCgroup(v1), { path, others: ["/p"] });
  assert.deepEqual(parseCgroup(`0::/y\n${v1}`), { path, others: ["/y", "/p"] });
  const odd = "/a\u2028b\rc"; // the name of a group can have any character except a newline
  assert.deepEqual(parseCgroup(`1:name=systemd:${odd}\n0::/\n`), { path: odd, others: ["/"] });
  for (const text of ["", "1:cpu:/x\n", "garbage", "0::relative\n", "x0::/x\n"]) {
    assert.equal(parseCgroup(text), undefined, text);
  }
});

test("parseCmdline() returns all strings, including empty ones", () => {
  assert.deepEqual(parseCmdline("a\0\0b c\0"), ["a", "", "b c"]);
  assert.deepEqual(parseCmdline("overwritten by the process"), ["overwritten by the process"]);
});

test('parseExe() removes one " (deleted)" of the kernel', () => {
  assert.deepEqual(parseExe("/bin/x"), { path: "/bin/x", deleted: false });
  assert.deepEqual(parseExe("/bin/x (deleted)"), { path: "/bin/x", deleted: true });
  assert.deepEqual(parseExe("/x (deleted) (deleted)"), { path: "/x (deleted)", deleted: true });
});

test("parseAuditId() and parseNamespace() return undefined for malformed text", () => {
  assert.deepEqual(["1000", "0\n", "4294967295"].map(parseAuditId), [1000, 0, null]);
  for (const text of ["", "-1", "4294967296"]) assert.equal(parseAuditId(text), undefined, text);
  assert.equal(parseNamespace("user:[4026531837]"), 4026531837);
  for (const text of ["anon_inode:[pidfd]", "/user:[1]", "user:[1] (deleted)"]) {
    assert.equal(parseNamespace(text), undefined, text);
  }
});

test("parseHidePid() reads the last mount at /proc", () => {
  const mount = (place: string, options: string, type = "proc") =>
    `63 45 0:39 / ${place} rw,nosuid - ${type} proc ${options}\n`;
  const found = (mode: string, gid = 0) => ({ mode, gid });
  for (
    const [text, expected] of [
      ["", undefined],
      [mount("/proc", "rw"), undefined],
      [mount("/proc", "rw,hidepid=0"), undefined],
      [mount("/proc", "rw,hidepid=off"), undefined],
      [mount("/proc", "rw,hidepid=1"), found("noaccess")],
      [mount("/proc", "rw,gid=42,hidepid=invisible"), found("invisible", 42)],
      [mount("/proc", "rw,hidepid=2,subset=pid"), found("invisible")],
      [mount("/proc", "rw,hidepid=ptraceable"), found("ptraceable")],
      [mount("/proc", "rw") + mount("/proc", "rw,hidepid=2"), found("invisible")],
      [mount("/proc", "rw,hidepid=2") + mount("/proc", "rw"), undefined],
      [mount("/run/proc", "rw,hidepid=2"), undefined],
      [mount("/proc", "rw,hidepid=2", "tmpfs"), undefined],
      [mount("/proc", "rw,hidepid=hasOwnProperty"), undefined],
      [mount("/proc", "rw,hidepid=constructor"), undefined],
    ] as const
  ) {
    assert.deepEqual(parseHidePid(text), expected, text);
  }
});

test("decodePidfdPid() returns undefined without PIDFD_INFO_PID, and for a pid of 0", () => {
  const words = new Uint32Array(PIDFD_INFO.size / 4);
  words[PIDFD_INFO.tgid / 4] = 42;
  assert.equal(decodePidfdPid(words), undefined);
  words.set(pidfdRequest());
  assert.equal(decodePidfdPid(words), 42);
  words[PIDFD_INFO.tgid / 4] = 0;
  assert.equal(decodePidfdPid(words), undefined);
});

test("decodePidfdIds() returns undefined without PIDFD_INFO_CREDS", () => {
  const words = new Uint32Array(PIDFD_INFO.size / 4);
  assert.equal(decodePidfdIds(words), undefined, "all zero would be root");
  words.set(pidfdRequest());
  for (let at = PIDFD_INFO.ruid / 4; at <= PIDFD_INFO.fsgid / 4; at++) words[at] = 100 + at;
  assert.deepEqual(decodePidfdIds(words), {
    ...{ ruid: 107, rgid: 108, euid: 109, egid: 110 },
    ...{ suid: 111, sgid: 112, fsuid: 113, fsgid: 114 },
  });
  words[PIDFD_INFO.mask / 4] = 0xc;
  assert.equal(decodePidfdIds(words), undefined, "a reaped process");
});

test("epollEvent() returns the packed layout only on x86-64", () => {
  assert.deepEqual(epollEvent("x64"), { size: 12, data: 4 });
  for (const cpu of ["arm64", "riscv64", "s390x"]) {
    assert.deepEqual(epollEvent(cpu), { size: 16, data: 8 });
  }
});
