/** The parts of the privileged helper that start no command: requests, frames, environments, accounts and files. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  chownSync,
  closeSync,
  fstatSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { allowedVariables, environmentOf } from "../../../interop/sudoers/helper/environment.ts";
import {
  digestsOf,
  openExecutable,
  pathProblem,
} from "../../../interop/sudoers/helper/executable.ts";
import {
  encodeFrame,
  type Frame,
  FrameDecoder,
  frameParts,
  MAX_FRAME_BYTES,
} from "../../../interop/sudoers/helper/frames.ts";
import { readCommandRequest, readTerminalSize } from "../../../interop/sudoers/helper/request.ts";
import {
  findTargetGroup,
  findTargetUser,
  targetGroupIn,
  targetUserIn,
} from "../../../interop/sudoers/helper/target_user.ts";
import { accountName } from "../../../system/accounts.ts";
import { commandFolder, removeAfterTest, script } from "../../support/privileged_helper.ts";
import fc from "../../support/properties.ts";
import { descriptorLinks } from "../../support/servers.ts";
import { cases, needs, STRANGER, testWith } from "../../support/suite.ts";

test("allowedVariables() drops values that name files or formats, and names of other variables", () => {
  const long = "x".repeat(128);
  const sent = {
    TERM: "a/b",
    LANG: "%n",
    LC_ALL: "C.UTF-8",
    LD_PRELOAD: "x",
    LC_: "x",
    lang: "x",
    __proto__x: "y",
    LANGUAGE: long,
    NO_COLOR: "",
    COLORTERM: `${long}x`,
    LC_TIME: "a b",
    LC_NUMERIC: "a\n",
    LC_COLLATE: 5 as never,
    XTERM: "x",
    TERMX: "x",
    "TERM\n": "x",
    LC_lower: "x",
    [`LC_${"A".repeat(33)}`]: "x",
    [`LC_${"A".repeat(32)}`]: "x",
  };
  assert.deepEqual(allowedVariables(sent), {
    ...{ LC_ALL: "C.UTF-8", LANGUAGE: long, NO_COLOR: "", [`LC_${"A".repeat(32)}`]: "x" },
  });
});

test("environmentOf() takes the folders and names of the environment from the target user", () => {
  const user = { name: "anna", uid: 5, gid: 5, gids: [5], groups: ["anna"], home: "/home/anna" };
  const own = {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ...{ HOME: "/home/anna", USER: "anna", LOGNAME: "anna", SHELL: "/bin/sh" },
  };
  const hostile = {
    PATH: "x",
    HOME: "x",
    USER: "root",
    LOGNAME: "root",
    SHELL: "x",
    LD_PRELOAD: "x",
  };
  assert.deepEqual(environmentOf(user, hostile, false), own);
  const sized = { TERM: "xterm", COLUMNS: "80", LINES: "24" };
  assert.deepEqual(environmentOf(user, sized, false), { ...own, ...sized });
  assert.deepEqual(environmentOf(user, sized, true), { ...own, TERM: "xterm" });
});

const REQUEST = { command: "/bin/id", args: ["-u"], user: "root", variables: { TERM: "x" } };

test("readCommandRequest() reads a request, and refuses what is none", () => {
  const whole = { ...REQUEST, group: "adm", terminal: { columns: 80, rows: 24 } };
  assert.deepEqual(readCommandRequest(JSON.stringify(whole)), whole);
  assert.deepEqual(readCommandRequest(JSON.stringify(REQUEST)), {
    ...{ ...REQUEST, group: undefined, terminal: undefined },
  });
  const wrong: readonly (readonly [value: unknown, reason: RegExp])[] = [
    ...[null, [], 1, undefined].map((value) => [value, /not a JSON object/] as const),
    [{ ...REQUEST, args: "x" }, /args must be/],
    [{ ...REQUEST, args: [1] }, /args must be/],
    [{ ...REQUEST, args: ["x", "a\0b"] }, /args must be/],
    [{ ...REQUEST, args: ["a\0b", "x"] }, /args must be/],
    [{ ...REQUEST, args: ["\ud800"] }, /args must be/],
    [{ ...REQUEST, user: 0 }, /command and user/],
    [{ ...REQUEST, command: undefined }, /command and user/],
    [{ ...REQUEST, command: "/bin/id\0" }, /command and user/],
    [{ ...REQUEST, group: 5 }, /group must be/],
    [{ ...REQUEST, group: null }, /group must be/],
    [{ ...REQUEST, variables: [] }, /variables must be/],
    [{ ...REQUEST, more: 1 }, /unknown field/],
  ];
  for (const [value, reason] of wrong) {
    assert.match(String(readCommandRequest(JSON.stringify(value) ?? "")), reason);
  }
});

test("readCommandRequest() and readTerminalSize() refuse sizes that no terminal has", () => {
  for (const wrong of [-1, 65536, 1.5, "80", null, undefined]) {
    for (const size of [{ columns: wrong, rows: 24 }, { columns: 80, rows: wrong }]) {
      const read = readCommandRequest(JSON.stringify({ ...REQUEST, terminal: size }));
      assert.match(String(read), /columns and rows/);
      assert.match(String(readTerminalSize(JSON.stringify(size))), /columns and rows/);
    }
  }
  for (const text of ["{", "5", "null"]) {
    assert.match(String(readTerminalSize(text)), /columns and rows/);
  }
  for (const terminal of [{ columns: 65535, rows: 0 }, { columns: 0, rows: 65535 }]) {
    assert.deepEqual(readTerminalSize(JSON.stringify(terminal)), terminal);
  }
});

const plain = (frames: Iterable<Frame>) =>
  [...frames].map(({ type, content }) => [type, content.toString("latin1")]);

test("FrameDecoder decodes what encodeFrame() writes, in any pieces", () => {
  assert.deepEqual([...encodeFrame(7, "é")], [7, 0, 0, 0, 2, 0xc3, 0xa9]);
  assert.deepEqual([...encodeFrame(7)], [7, 0, 0, 0, 0]);
  const frames = fc.array(fc.tuple(fc.nat(255), fc.uint8Array({ maxLength: 300 })), {
    maxLength: 5,
  });
  const property = fc.property(frames, fc.integer({ min: 1, max: 400 }), (frames, size) => {
    const bytes = Buffer.concat(frames.map(([type, content]) => encodeFrame(type, content)));
    const decoder = new FrameDecoder();
    const found: unknown[] = [];
    for (let at = 0; at < bytes.length; at += size) {
      found.push(...plain(decoder.decode(bytes.subarray(at, at + size))));
    }
    const expected = frames.map((
      [type, content],
    ) => [type, Buffer.from(content).toString("latin1")]);
    assert.deepEqual(found, expected);
  });
  fc.assert(property, { numRuns: cases(200) });
});

test("frames have at most 65,536 bytes", () => {
  const largest = Buffer.alloc(MAX_FRAME_BYTES);
  assert.equal(MAX_FRAME_BYTES, 65_536);
  const [frame] = new FrameDecoder().decode(encodeFrame(1, largest));
  assert.equal(frame!.content.length, MAX_FRAME_BYTES);
  const larger = Buffer.alloc(MAX_FRAME_BYTES + 1);
  assert.throws(() => encodeFrame(1, larger), RangeError);
  const header = Buffer.from([1, 0, 1, 0, 1]);
  assert.throws(() => [...new FrameDecoder().decode(header)], RangeError);
  const partsOf = (bytes: Uint8Array) => [...frameParts(bytes)].map(({ length }) => length);
  assert.deepEqual([partsOf(Buffer.alloc(0)), partsOf(largest)], [[], [MAX_FRAME_BYTES]]);
  assert.deepEqual(partsOf(larger), [MAX_FRAME_BYTES, 1]);
});

testWith([needs.linux], "findTargetUser() returns an account with its groups", async () => {
  const home = /^daemon:(?:[^:]*:){4}([^:]*):/m.exec(readFileSync("/etc/passwd", "utf8"))![1];
  assert.deepEqual(await findTargetUser("daemon"), {
    ...{ name: "daemon", uid: 1, gid: 1, gids: [1], groups: ["daemon"], home },
  });
  assert.equal(await findTargetGroup("daemon"), 1);
  const long = "a".repeat(65);
  for (
    const name of ["", "-u", "0", "a b", "daemon:x", "daemon\n", "no-such-account", long, "passwd"]
  ) {
    assert.equal(await findTargetUser(name), undefined, name);
    assert.equal(await findTargetGroup(name), undefined, name);
  }
});

testWith(
  [needs.linux],
  "targetUserIn() and targetGroupIn() read complete answers about the account alone",
  () => {
    const entry = "anna:x:4294967294:20:Anna:/home/anna:/bin/sh\n";
    const found = targetUserIn("anna", entry, "20 4294967290\n");
    const anna = {
      name: "anna",
      uid: 4294967294,
      gid: 20,
      gids: [20, 4294967290],
      groups: undefined,
    };
    assert.deepEqual(found, { ...anna, home: "/home/anna" });
    const homeless = targetUserIn("anna", entry.replace("/home/anna", ""), "20 4294967290");
    assert.equal(homeless!.home, "/");
    for (let gid = 0; gid < 10; gid++) {
      const group = accountName("group", gid);
      const named = targetUserIn("anna", `anna:x:5:${gid}:Anna:/home/anna:/bin/sh`, `${gid}`);
      assert.deepEqual(named!.groups, group === undefined ? undefined : [group]);
    }
    const wrong: readonly (readonly [entry: string, ids: string])[] = [
      ["", "20"],
      ["root:x:0:0:root:/root:/bin/sh", "0"],
      ["anna:x:5:20:Anna:/home/anna", "20"],
      ["anna:x:5:20:Anna:/home/anna:/bin/sh:x", "20"],
      ["anna:x::20:Anna:/home/anna:/bin/sh", "20"],
      ["anna:x:5x:20:Anna:/home/anna:/bin/sh", "20"],
      ["anna:x:-5:20:Anna:/home/anna:/bin/sh", "20"],
      ["anna:x:5:+20:Anna:/home/anna:/bin/sh", "20"],
      ["anna:x:4294967295:20:Anna:/home/anna:/bin/sh", "20"],
      ["anna:x:5:4294967295:Anna:/home/anna:/bin/sh", "4294967295"],
      ["anna:x:5:20:Anna:/home/anna:/bin/sh", ""],
      ["anna:x:5:20:Anna:/home/anna:/bin/sh", "21"],
      ["anna:x:5:20:Anna:/home/anna:/bin/sh", "20 wheel"],
      ["anna:x:5:20:Anna:/home/anna:/bin/sh", "20 4294967295"],
    ];
    for (const [entry, ids] of wrong) {
      assert.equal(targetUserIn("anna", entry, ids), undefined, entry);
    }
    assert.equal(targetGroupIn("adm", "adm:x:4294967294:a,b\n"), 4294967294);
    const groups = [
      ...["", "wheel:x:4:", "adm:x:4", "adm:x:4:a:b", "adm:x::", "adm:x:4x:", "adm:x:-4:"],
      "adm:x:4294967295:",
    ];
    for (const entry of groups) assert.equal(targetGroupIn("adm", entry), undefined, entry);
  },
);

test("pathProblem() accepts absolute paths without empty names and dots alone", () => {
  for (const path of ["/bin/id", "/a/.b/..c/d."]) assert.equal(pathProblem(path), undefined, path);
  for (const path of ["", "id", "./id", "/bin/id\0"]) {
    assert.match(pathProblem(path)!, /not absolute/, path);
  }
  for (const path of ["/", "//bin/id", "/bin/", "/bin//id", "/bin/./id", "/bin/../id", "/bin/.."]) {
    assert.match(pathProblem(path)!, /empty name/, path);
  }
});

const root = [needs.linux, needs.root];

testWith(root, "openExecutable() refuses files that others than root can choose or change", () => {
  const folder = commandFolder();
  const good = script(join(folder, "good"), "#!/bin/sh\n");
  const reason = (path: string) => {
    const file = openExecutable(path);
    assert.equal(typeof file, "string", path);
    return file as string;
  };
  for (const mode of [0o777, 0o775, 0o757]) {
    assert.match(reason(script(join(folder, "open"), "", mode)), /can write/);
  }
  assert.match(reason(script(join(folder, "plain"), "", 0o644)), /not executable/);
  for (const mode of [0o4755, 0o2755]) {
    assert.match(reason(script(join(folder, "setid"), "", mode)), /set-user-ID/);
  }
  const owned = script(join(folder, "owned"), "");
  chownSync(owned, STRANGER, 0);
  assert.match(reason(owned), /does not belong to root/);
  symlinkSync(owned, join(folder, "link"));
  assert.match(reason(join(folder, "link")), /does not belong to root/);
  const inTmp = mkdtempSync("/tmp/ucred-");
  removeAfterTest(inTmp);
  symlinkSync(script(join(inTmp, "file"), "#!/bin/sh\n"), join(folder, "to-tmp"));
  assert.match(reason(join(folder, "to-tmp")), /can write to \/tmp/);
  symlinkSync(join(folder, "loop"), join(folder, "loop"));
  assert.equal(typeof openExecutable(join(folder, "loop")), "string");
  assert.match(reason(folder), /not a regular file/);
  assert.match(reason("/dev/null"), /can write|regular/);
  reason(join(folder, "missing"));
  reason(`${good}/x`);
  assert.match(reason("good"), /not absolute/);
  assert.deepEqual(descriptorLinks().filter(([, link]) => link.startsWith(folder)), []);
});

testWith(
  root,
  "openExecutable() names a file by its folder without links, and opens its target",
  () => {
    const folder = realpathSync(commandFolder());
    const target = script(join(folder, "target"), "#!/bin/sh\n", 0o700);
    symlinkSync(target, join(folder, "name"));
    const links = realpathSync(commandFolder());
    symlinkSync(folder, join(links, "folder"));
    const file = openExecutable(join(links, "folder/name"));
    assert.ok(typeof file === "object", String(file));
    const { fd, ...paths } = file;
    try {
      assert.deepEqual(paths, { command: join(folder, "name"), path: target });
      assert.equal(fstatSync(fd).ino, statSync(target).ino);
      assert.match(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"), /^flags:\s+012[0-7]{6}$/m);
    } finally {
      closeSync(fd);
    }
  },
);

testWith(root, "digestsOf() returns the digests of the whole file", () => {
  const text = "#!/bin/sh\n".repeat(150_000); // more than one chunk
  const file = openExecutable(script(join(commandFolder(), "large"), text));
  assert.ok(typeof file === "object", String(file));
  try {
    assert.deepEqual(digestsOf(file.fd, []), {});
    const hex = (name: string) => createHash(name).update(text).digest("hex");
    assert.deepEqual(digestsOf(file.fd, ["sha224", "sha512"]), {
      ...{ sha224: hex("sha224"), sha512: hex("sha512") },
    });
  } finally {
    closeSync(file.fd);
  }
});
