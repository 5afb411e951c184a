/** Attacks on the privileged helper: by its start, its descriptors, the protocol, and clients that vanish. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { openExecutable } from "../../../interop/sudoers/helper/executable.ts";
import { encodeFrame, FRAME } from "../../../interop/sudoers/helper/frames.ts";
import { createHelper, runCommand } from "../../../interop/sudoers/helper/mod.ts";
import { sudoVocabulary } from "../../../interop/sudoers/vocabulary.ts";
import { definePolicy } from "../../../policy/define.ts";
import { watchPolicy } from "../../../policy/watch.ts";
import { command } from "../../support/command.ts";
import { freshPath } from "../../support/peers.ts";
import {
  commandFolder,
  document,
  isRunning,
  policy,
  privileged,
  raw,
  refusedBy,
  removeAfterTest,
  request,
  script,
  startHelper,
} from "../../support/privileged_helper.ts";
import fc from "../../support/properties.ts";
import {
  cases,
  endAfterEach,
  needs,
  runtime,
  runtimeCommand,
  succeeds,
  testWith,
  until,
} from "../../support/suite.ts";

const python = { name: "python3", met: succeeds("python3", "--version") };

const helpers = new Set<ChildProcess>();
endAfterEach(() => {
  for (const helper of helpers) helper.kill("SIGKILL");
  helpers.clear();
});

/** Starts the example in a process of its own. `line` is a line of sh(1) that ends with `exec "$@"`. */
async function startExample(line: string): Promise<string> {
  const file = join(commandFolder(), "policy.yaml");
  const rule =
    "{ name: root, when: { uid: [0, 4321] }, actions: run, where: { runasUser: [root, daemon] }, allow: NOPASSWD }";
  writeFileSync(file, `version: 1\nabout: sudo\nrules:\n  - ${rule}\n`);
  const path = freshPath();
  const example = new URL("../../../examples/privileged-helper/server.ts", import.meta.url);
  const words = [...runtimeCommand(), fileURLToPath(example), path, file];
  const helper = spawn("sh", ["-c", line, "sh", ...words], { stdio: ["ignore", "pipe", "ignore"] });
  helpers.add(helper);
  await new Promise((resolve, reject) => helper.once("exit", reject).stdout.once("data", resolve));
  helper.stdout.resume();
  return path;
}

/** Runs a command at a helper. Returns its output. */
async function outputOf(path: string, command: string, args: readonly string[], user = "root") {
  let out = "";
  await runCommand({
    path,
    command,
    args,
    user,
    stdout: (bytes) => void (out += new TextDecoder().decode(bytes)),
  });
  return out;
}

testWith(
  privileged,
  "openExecutable() returns one file and its name, while a link to its folder changes",
  async () => {
    const folder = commandFolder();
    for (const name of ["a", "b"]) {
      mkdirSync(join(folder, name));
      script(join(folder, name, "x"), "#!/bin/sh\n");
    }
    symlinkSync("a", join(folder, "l"));
    const flip =
      `cd ${folder}; until test -e end; do ln -s b t; mv -T t l; ln -s a t; mv -T t l; done`;
    const flipping = spawn("sh", ["-c", flip], { stdio: "ignore" });
    const seen = new Set<string>();
    try {
      await until(() => {
        const file = openExecutable(join(folder, "l/x"));
        if (typeof file === "string") return false; // the link does not exist while mv(1) runs
        closeSync(file.fd);
        assert.equal(file.command, file.path);
        seen.add(file.path);
        return seen.size === 2;
      });
    } finally {
      writeFileSync(join(folder, "end"), "");
      await new Promise((resolve) => flipping.once("exit", resolve));
    }
  },
);

testWith(
  privileged,
  "createHelper() refuses commands while its working directory does not exist",
  async () => {
    const folder = commandFolder();
    const cwd = join(folder, "cwd");
    mkdirSync(cwd);
    chmodSync(cwd, 0o700); // the target user cannot read it
    const { run, records } = await startHelper({ cwd });
    const id = (user: string) => run("/usr/bin/id", ["-u"], { user });
    assert.equal((await id("daemon")).out, "1\n");
    rmdirSync(cwd);
    await assert.rejects(id("root"), refusedBy(/ENOENT/));
    writeFileSync(cwd, "");
    await assert.rejects(id("root"), refusedBy(/not a folder/));
    for (const cwd of ["relative", ""]) {
      assert.throws(() => createHelper({ policy, cwd }), TypeError);
    }
    assert.equal(records.at(-1)!.event, "ended");
    assert.match(records.at(-1)!.reason!, /not a folder/);
  },
);

testWith(
  privileged,
  "createHelper() starts commands clean, if it was started with other masks, signals and descriptors",
  async () => {
    const path = await startExample(
      "umask 000; trap '' HUP INT QUIT USR1 USR2 TERM; exec 7</etc/passwd 8>/dev/null 9<&0 <&-; " +
        'export LD_PRELOAD= IFS=x BASH_ENV=/tmp/x TZ=/tmp/x; exec "$@"',
    );
    const show = script(
      join(commandFolder(), "show"),
      `#!/bin/sh
umask
sed -n 's/^Sig\\(Blk\\|Ign\\):\\t//p' /proc/self/status
for f in /proc/$$/fd/*; do test -e $f && echo \${f##*/}; done
env | sed 's/=.*//' | sort
`,
    );
    const output = await outputOf(path, show, [], "daemon");
    const [umask, blocked, ignored, ...lines] = output.trim().split("\n");
    assert.equal(umask, "0022");
    const reserved = 3n << 31n; // glibc uses the signals 32 and 33 itself, and permits no program to change them
    for (const signals of [blocked, ignored]) assert.equal(BigInt(`0x${signals}`) & ~reserved, 0n);
    assert.deepEqual(lines.filter((line) => line !== "10"), [ // dash reads the script by 10
      ...["0", "1", "2", "3"],
      ...["HOME", "LOGNAME", "PATH", "PWD", "SHELL", "USER"],
    ]);
  },
);

testWith(
  [...privileged, needs.mountNamespace],
  "createHelper() gives the command all supplementary groups of the target user",
  async () => {
    const group = join(commandFolder(), "group");
    const lines = readFileSync("/etc/group", "utf8").replaceAll(/^(adm|staff):.*$/gm, "");
    writeFileSync(group, `${lines}adm:x:4:daemon\nstaff:x:50:root,daemon\n`);
    const unshare = `exec unshare -m sh -c 'mount --bind ${group} /etc/group; exec "$@"' sh "$@"`;
    const path = await startExample(unshare);
    assert.equal(await outputOf(path, "/usr/bin/id", ["-G"], "daemon"), "1 4 50\n");
  },
);

/** The servers of Deno accept no further connections after one failed. */
const acceptsLater = {
  name: "a server that accepts connections after its descriptors were exhausted: Node or Bun",
  met: runtime !== "deno",
};

testWith(
  [...privileged, acceptsLater],
  "createHelper() refuses commands while no descriptor is left, and does not fail",
  async () => {
    const path = await startExample('exec prlimit --nofile=60:60 -- "$@"');
    const terminal = { columns: 80, rows: 24 };
    const results = await Promise.allSettled(
      Array.from({ length: 40 }, (_, at) =>
        runCommand({
          path,
          command: "/usr/bin/sleep",
          args: ["0.3"],
          terminal: at % 2 === 0 ? terminal : undefined,
        })),
    );
    const reasons = results.filter((result) => result.status === "rejected");
    assert.ok(reasons.some(({ reason }) => /cannot be/.test(reason.message)));
    // The helper still responds. Node leaks descriptors when a program cannot be started.
    const { started, refusal } = await raw(path, [request({ command: "/usr/bin/id" })]);
    assert.ok(started || /cannot be/.test(refusal), refusal);
  },
);

testWith(
  [...privileged, python],
  "createHelper() kills a command whose client has ended, while another process holds the connection",
  async () => {
    const { path, records } = await startHelper();
    const frame = request({ command: "/usr/bin/sleep", args: ["300"] }).toString("hex");
    const client = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(bytes.fromhex(sys.argv[2]))
s.recv(5)
if os.fork() == 0:
    os._exit(0 if s.recv(1) == b"" else 1)
`;
    spawn("python3", ["-c", client, path, frame], { stdio: "ignore" });
    await until(() => records.length === 2);
    assert.equal(records[1]!.reason, "the process of the client has ended");
    assert.equal(records[1]!.signal, "SIGKILL");
  },
);

testWith(
  [...privileged, python],
  "createHelper() runs nothing for a client that ends after its request, while another process holds the connection",
  async () => {
    const folder = commandFolder();
    const mark = join(folder, "mark");
    const touch = script(join(folder, "touch"), `#!/bin/sh\necho ran > ${mark}\n`);
    const { path, records } = await startHelper({
      report: async (record) => {
        records.push(record);
        if (record.event === "started") await until(() => !isRunning(String(record.pid)));
      },
    });
    const client = `
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
if os.fork() == 0:
    while s.recv(100):
        pass
    os._exit(0)
s.sendall(bytes.fromhex(sys.argv[2]))
os._exit(0)
`;
    const frame = request({ command: touch }).toString("hex");
    spawn("python3", ["-c", client, path, frame], { stdio: "ignore" });
    await until(() => records.some(({ event }) => event !== "started"));
    assert.match(records.at(-1)!.reason!, /process of the client has ended/);
    assert.throws(() => readFileSync(mark), { code: "ENOENT" });
  },
);

testWith(
  privileged,
  "createHelper() refuses a group that the target user does not have, if the rule does not mention groups",
  async () => {
    const { run } = await startHelper();
    const as = (group: string) => run("/usr/bin/id", ["-G"], { user: "daemon", group });
    assert.equal((await as("daemon")).out, "1\n");
    await assert.rejects(as("root"), refusedBy(/no condition on it/));
    const where = { ...document.rules[0]!.where, not: { runasGroup: "shadow" } };
    const rules = [{ ...document.rules[0]!, where }];
    const any = await startHelper({
      policy: definePolicy({ ...document, rules }, { vocabularies: [sudoVocabulary] }),
    });
    const { out } = await any.run("/usr/bin/id", ["-G"], { user: "daemon", group: "root" });
    assert.equal(out, "0 1\n");
  },
);

testWith(
  privileged,
  "createHelper() decides again after the approval, because the policy may have changed",
  async () => {
    const folder = mkdtempSync("/opt/ucred-policy-");
    removeAfterTest(folder);
    const file = join(folder, "policy.json");
    const write = (when: object, allow: true | string) => {
      const rules = [{ ...document.rules[0]!, when, allow }];
      writeFileSync(`${file}.new`, JSON.stringify({ ...document, rules }));
      renameSync(`${file}.new`, file);
    };
    for (const [when, allow] of [[{ uid: 4321 }, "NOPASSWD"], [{ uid: 0 }, true]] as const) {
      write({ uid: 0 }, "NOPASSWD");
      const policy = watchPolicy(file, { vocabularies: [sudoVocabulary] });
      try {
        const { run } = await startHelper({
          policy,
          approve: () => {
            write(when, allow);
            policy.reload();
            return true;
          },
        });
        await assert.rejects(run("/usr/bin/id"), refusedBy(/denies|have changed/));
      } finally {
        policy.close();
      }
    }
  },
);

testWith(
  privileged,
  "createHelper() does not report whether a file exists to clients that may not run it",
  async () => {
    const { run } = await startHelper();
    const folder = mkdtempSync("/opt/hidden-");
    removeAfterTest(folder);
    script(join(folder, "program"), "#!/bin/sh\n");
    script(join(folder, "data"), "", 0o600);
    for (const name of ["program", "data", "absent", "data/absent"]) {
      await assert.rejects(
        run(`${folder}/${name}`),
        refusedBy(/: the policy denies the command$/),
        name,
      );
    }
  },
);

testWith(privileged, "createHelper() refuses a request that is not UTF-8", async () => {
  const { path } = await startHelper();
  const bytes = Buffer.from(request({ command: "/usr/bin/id", args: ["~"] }));
  bytes[bytes.indexOf("~")] = 0xff;
  const { refusal, started } = await raw(path, [bytes]);
  assert.match(refusal, /not UTF-8/);
  assert.equal(started, false);
});

testWith(
  privileged,
  "createHelper() does not approve a process that ended meanwhile, and needs its key",
  async () => {
    const asked: string[] = [];
    const peers = await startHelper({
      approve: async ({ peer, key }) => {
        asked.push(key);
        await until(() => peer.alive !== true);
        return true;
      },
    });
    const line = [...command, "run", "--socket", peers.path, "--", "/usr/bin/id"];
    const client = spawn(line[0]!, line.slice(1), { stdio: "ignore" });
    await until(() => asked.length === 1);
    client.kill("SIGKILL");
    await until(() => peers.records.length === 1);
    assert.equal(peers.records[0]!.event, "refused");
    assert.equal(peers.records[0]!.key, asked[0]);
  },
);

testWith(
  privileged,
  "createHelper() does not run a command that it cannot log, and survives a log that fails",
  async () => {
    const folder = commandFolder();
    const mark = join(folder, "mark");
    const touch = script(join(folder, "touch"), `#!/bin/sh\necho ran > ${mark}\n`);
    for (
      const report of [
        () => {
          throw new Error("full");
        },
        () => Promise.reject(new Error("full")),
      ]
    ) {
      const { run } = await startHelper({ report });
      await assert.rejects(run(touch), refusedBy(/cannot be logged/));
      await assert.rejects(run("/usr/bin/whoami"), refusedBy(/policy denies/));
    }
    assert.throws(() => readFileSync(mark), { code: "ENOENT" });
    let count = 0;
    const atEnd = await startHelper({
      report: () => {
        if (++count > 1) throw new Error("full");
      },
    });
    assert.equal((await atEnd.run(touch)).code, 0);
    assert.equal(readFileSync(mark, "utf8"), "ran\n");
  },
);

testWith(privileged, "createHelper() applies each limit", async () => {
  const limits = { cpu: 11, as: 999_424_000, fsize: 4096, nofile: 64, nproc: 4321 };
  const { run } = await startHelper({ limits });
  const { out } = await run("/usr/bin/cat", ["/proc/self/limits"], { user: "daemon" });
  const of = (name: string) => new RegExp(`^Max ${name} +(\\d+) +(\\d+)`, "m").exec(out)?.slice(1);
  const both = (value: number) => [`${value}`, `${value}`];
  assert.deepEqual(of("cpu time"), both(11));
  assert.deepEqual(of("address space"), both(999_424_000));
  assert.deepEqual(of("file size"), both(4096));
  assert.deepEqual(of("open files"), both(64));
  assert.deepEqual(of("processes"), both(4321));
  assert.deepEqual(of("core file size"), both(0));
  const folder = commandFolder();
  const writes = script(join(folder, "writes"), "#!/bin/sh\nexec head -c 5000 /dev/zero > $1\n");
  assert.equal((await run(writes, [join(folder, "out")])).signal, "SIGXFSZ");
  for (const limits of [{ cpu: -1 }, { as: 1.5 }, { nofile: NaN }, { x: 1 }, { cpu: "1" }]) {
    assert.throws(() => createHelper({ policy, limits: limits as never }), TypeError);
  }
  for (const timeLimitSeconds of [0, -1, NaN, 1e10]) {
    assert.throws(() => createHelper({ policy, timeLimitSeconds }), TypeError);
  }
});

testWith(
  privileged,
  "createHelper() ends a client that sends stdin without waiting, or more than the command reads",
  async () => {
    const { path, run } = await startHelper();
    const socket = connect(path);
    socket.on("error", () => {});
    socket.write(request({ command: "/usr/bin/cat" }));
    const flood = Buffer.concat(Array(10_000).fill(encodeFrame(FRAME.stdin, "x")));
    let received = "";
    let isFlooded = false;
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      received += chunk.toString("latin1");
      if (!isFlooded) socket.write(flood);
      isFlooded = true;
    }
    assert.match(received, /sent too early/);
    let sent = 0;
    const endless = (async function* () {
      for (;; sent++) yield await Promise.resolve(new Uint8Array(65_536));
    })();
    assert.equal((await run("/usr/bin/sleep", ["0.2"], { stdin: endless })).code, 0);
    assert.ok(sent < 100, `${sent}`); // the pipe of the command, and one frame
  },
);

testWith(
  privileged,
  "createHelper() survives bytes that are no frames, and runs nothing",
  async () => {
    const { path, run, records } = await startHelper();
    const valid = request({ command: "/usr/bin/whoami" });
    const mutated = fc.tuple(fc.nat(valid.length - 1), fc.integer({ min: 1, max: 255 })).map(
      ([at, flip]) => {
        const bytes = Uint8Array.from(valid);
        bytes[at]! ^= flip;
        return bytes;
      },
    );
    const cut = fc.nat(valid.length - 1).map((length) => valid.subarray(0, length));
    const bytes = fc.oneof(fc.uint8Array({ maxLength: 300 }), mutated, cut);
    const inputs = fc.sample(bytes, cases(100));
    await Promise.all(inputs.map(async (input) => {
      const socket = connect(path);
      socket.on("error", () => {});
      socket.end(input);
      for await (const _ of socket.resume() as AsyncIterable<Buffer>);
    }));
    await until(() => records.length === inputs.length);
    assert.ok(records.every(({ event }) => event === "refused"));
    assert.equal((await run("/usr/bin/id", ["-u"])).out, "0\n");
  },
);

testWith(
  privileged,
  "createHelper() sends no signal after the command has ended, when another process can have its pid",
  async () => {
    const { run } = await startHelper();
    const folder = commandFolder();
    const mark = join(folder, "pid");
    // The session that leaves keeps the output open, so that the connection stays.
    const leaves = script(
      join(folder, "leaves"),
      `#!/bin/sh\nsetsid sleep 300 &\necho $! > ${mark}.new; mv ${mark}.new ${mark}
while [ "$(cut -d " " -f 6 /proc/$!/stat)" != $! ]; do :; done\n`,
    );
    const controls = Promise.withResolvers<{ signal(name: "SIGTERM"): void; disconnect(): void }>();
    const done = run(leaves, [], { started: controls.resolve });
    done.catch(() => {});
    const { signal, disconnect } = await controls.promise;
    const isEnded = () =>
      succeeds("sh", "-c", `test -s ${mark} && ! pgrep -f "[/]${folder.slice(5)}/leaves"`);
    await until(isEnded);
    signal("SIGTERM");
    const pid = readFileSync(mark, "utf8").trim();
    await sleep(50); // a signal that should not arrive
    assert.ok(isRunning(pid));
    disconnect();
    await assert.rejects(done);
    process.kill(Number(pid), "SIGKILL");
  },
);

/** Options of sudo with past defects. A client has none of them, and cannot add them to a request. */
const PAST_DEFECTS: readonly (readonly [defect: string, fields: object])[] = [
  ["CVE-2025-32462: rules of another host", { host: "other" }],
  ["CVE-2025-32463: a root folder of the client", { chroot: "/tmp" }],
  ["CVE-2021-23240, CVE-2023-22809: editors that the client chooses", { action: "edit" }],
  ["CVE-2010-1163, CVE-2010-0426: folders of the client", { cwd: "/tmp" }],
  ["polkit CVE-2018-1116: ids that the client supplies", { uid: 0 }],
];

testWith(privileged, "createHelper() has none of the past defects of sudo", async () => {
  const { path, run } = await startHelper();
  for (const [defect, fields] of PAST_DEFECTS) {
    const { refusal, started } = await raw(path, [
      request({ command: "/usr/bin/id", ...fields }),
    ]);
    assert.match(refusal, /unknown field/, defect);
    assert.equal(started, false, defect);
  }
  // CVE-2019-14287: the user ids -1 and 4294967295 stood for root.
  for (const user of ["#-1", "#4294967295", "-1", "4294967295", "#0"]) {
    await assert.rejects(run("/usr/bin/id", [], { user }), refusedBy(/cannot be looked up/), user);
  }
  // CVE-2021-3156: a backslash at the end of an argument.
  const show = script(join(commandFolder(), "show"), '#!/bin/sh\nprintf "<%s>" "$@"\n');
  assert.equal((await run(show, ["a\\", "\\", "b"])).out, "<a\\><\\><b>");
  // CVE-2023-28486: sequences for terminals and lines in logs. CVE-2014-9680: the variable TZ.
  const { out } = await raw(path, [
    request({ command: "/usr/bin/env", variables: { TZ: "/etc/shadow", TERM: "x\n[31m" } }),
  ]);
  assert.doesNotMatch(out, /TZ|TERM/);
});

testWith(
  [...privileged, needs.strangers],
  "ucred run works with closed descriptors, and refuses arguments that are not UTF-8",
  async () => {
    const path = await startExample('exec "$@"');
    const mark = join(commandFolder(), "mark");
    const touch = script(
      join(commandFolder(), "touch"),
      `#!/bin/sh\necho ran >> ${mark}\nexit 6\n`,
    );
    const line = [...command, "run", "--socket", path, "--", touch];
    assert.equal(statusOf('exec "$@" <&- >&- 2>&-', line), 6);
    assert.equal(readFileSync(mark, "utf8"), "ran\n");
    assert.notEqual(statusOf(`exec "$@" "$(printf '\\377')" 2>/dev/null`, line), 0);
    assert.equal(readFileSync(mark, "utf8"), "ran\n");
  },
);

/** Runs a line of sh(1) with words as its arguments. Returns its exit status. */
function statusOf(line: string, words: readonly string[]): number | null {
  return spawnSync("sh", ["-c", line, "sh", ...words], { stdio: "ignore" }).status;
}
