/** The privileged helper against real processes: who may run what, with which environment, and how it ends. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { openedSystem } from "../../../adapters/select.ts";
import { encodeFrame, FRAME, MAX_FRAME_BYTES } from "../../../interop/sudoers/helper/frames.ts";
import { createHelper, runCommand } from "../../../interop/sudoers/helper/mod.ts";
import { DIGESTS, sudoVocabulary } from "../../../interop/sudoers/vocabulary.ts";
import { definePolicy } from "../../../policy/define.ts";
import { shadowPolicy } from "../../../policy/mod.ts";
import { closeAllOnExec } from "../../../system/close_on_exec.ts";
import { RunningCommand } from "../../support/command.ts";
import { freshPath } from "../../support/peers.ts";
import {
  bytesOf,
  commandFolder,
  document,
  isRunning,
  policy,
  privileged,
  raw,
  refusedBy,
  request,
  script,
  startHelper,
} from "../../support/privileged_helper.ts";
import { needs, runtimeCommand, testWith, until } from "../../support/suite.ts";

testWith(
  privileged,
  "createHelper() runs a command as the target user with all its groups",
  async () => {
    const { run, records } = await startHelper();
    const { code, out } = await run("/usr/bin/id", [], { user: "daemon" });
    assert.equal(code, 0);
    assert.equal(out, "uid=1(daemon) gid=1(daemon) groups=1(daemon)\n");
    assert.deepEqual(records.map(({ event }) => event), ["started", "ended"]);
    for (const { command, user, uid, rule, key } of records) {
      assert.deepEqual(
        [command, user, uid, rule],
        ["/usr/bin/id", "daemon", 0, "root runs listed commands"],
      );
      assert.ok(key);
    }
  },
);

testWith(
  privileged,
  "createHelper() refuses commands, users and peers that the policy does not list",
  async () => {
    const { run, records } = await startHelper();
    await assert.rejects(run("/usr/bin/whoami"), refusedBy(/policy denies/));
    await assert.rejects(run("/usr/bin/id", [], { user: "bin" }), refusedBy(/policy denies/));
    await assert.rejects(run("id"), refusedBy(/not absolute/));
    await assert.rejects(run("/usr/bin/../bin/id"), refusedBy(/".."/));
    for (const user of ["no-such-user", "-u", "daemon:root", "0", ""]) {
      await assert.rejects(
        run("/usr/bin/id", [], { user }),
        refusedBy(/cannot be looked up/),
        user,
      );
    }
    assert.ok(records.every(({ event }) => event === "refused"));
    assert.equal(records.length, 9);
  },
);

test("createHelper() rejects a policy that is not about sudo, which could allow each command", () => {
  const others = [
    definePolicy({ version: 1, rules: [{ name: "all", actions: "run", allow: "NOPASSWD" }] }),
    definePolicy({ version: 1, rules: [{ name: "all", allow: true }] }),
    { needsPin: false, admits: () => true, decide: policy.decide.bind(policy) },
    undefined,
  ] as never[];
  for (const policy of others) assert.throws(() => createHelper({ policy }), TypeError);
  assert.throws(() => createHelper({ policy: shadowPolicy(others[0]!, policy) }), TypeError);
  createHelper({ policy: shadowPolicy(policy, others[0]!) });
});

testWith(
  privileged,
  "createHelper() refuses each command, if a reloaded policy is not about sudo",
  async () => {
    const reloaded = definePolicy({
      version: 1,
      rules: [{ name: "all", actions: "run", allow: "NOPASSWD" }],
    });
    let current = policy;
    const watched = {
      get current() {
        return current;
      },
      needsPin: false,
      admits: () => true,
      decide: (...of: Parameters<typeof policy.decide>) => current.decide(...of),
    };
    const { run } = await startHelper({ policy: watched });
    assert.equal((await run("/usr/bin/id", ["-u"])).out, "0\n");
    current = reloaded;
    await assert.rejects(run("/usr/bin/id"), refusedBy(/not about sudo/));
  },
);

testWith(privileged, "createHelper() passes arguments without a shell", async () => {
  const { run } = await startHelper();
  const args = ["$(id)", ";id", "`id`", "|cat", "*", "--", "\u00e9", "a\\b"];
  const folder = commandFolder();
  const show = script(join(folder, "show"), '#!/bin/sh\nfor a; do printf "<%s>\\n" "$a"; done\n');
  assert.equal((await run(show, args)).out, args.map((arg) => `<${arg}>\n`).join(""));
});

testWith(
  privileged,
  "createHelper() runs empty arguments and ones with white space by rules without `arguments` only",
  async () => {
    const folder = commandFolder();
    const show = script(join(folder, "show"), '#!/bin/sh\nfor a; do printf "<%s>" "$a"; done\n');
    const where = { command: show, runasUser: "root" };
    const rule = { name: "a rule", when: { uid: 0 }, actions: "run", where, allow: "NOPASSWD" };
    const of = (...rules: object[]) =>
      startHelper({
        policy: definePolicy({ ...document, rules: rules as never }, {
          vocabularies: [sudoVocabulary],
        }),
      });
    const { allow: _, ...conditions } = { ...rule, name: "b" };
    const denying = { ...conditions, deny: true };
    const any = await of(rule);
    const limited = await of({ ...rule, where: { ...where, arguments: "**" } });
    const denied = await of({ ...denying, where: { ...where, arguments: "x" } }, rule);
    for (const arg of ["a b", "", "a\nb", "a\tb", " ", "a\u2028b", "\u00a0"]) {
      assert.equal((await any.run(show, [arg, "z"])).out, `<${arg}><z>`);
      await assert.rejects(limited.run(show, [arg]), refusedBy(/policy denies/));
      await assert.rejects(denied.run(show, [arg]), refusedBy(/policy denies/));
    }
    const long = "\u00e9".repeat(20_000);
    assert.equal((await limited.run(show, [long])).out, `<${long}>`);
    await assert.rejects(any.run(show, ["x".repeat(MAX_FRAME_BYTES)]), refusedBy(/larger than/));
    for (const arg of ["a\0b", "\ud800"]) {
      await assert.rejects(any.run(show, [arg]), refusedBy(/list of texts/));
    }
    await assert.rejects(any.run(`${show}\0`), refusedBy(/must be texts/));
  },
);

testWith(
  privileged,
  "createHelper() denies commands whose grants it does not implement, or that nobody approved",
  async () => {
    const rules = (allow: unknown) => [{ ...document.rules[0]!, allow }];
    const of = (allow: unknown, options = {}) =>
      startHelper({
        ...options,
        policy: definePolicy({ ...document, rules: rules(allow) as never }, {
          vocabularies: [sudoVocabulary],
        }),
      });
    for (
      const grant of ["NOEXEC", "INTERCEPT", "LOG_INPUT", "LOG_OUTPUT", "MAIL", "nopasswd", "x"]
    ) {
      for (const options of [{}, { approve: () => true }]) {
        const { run, records } = await of(["NOPASSWD", grant], options);
        await assert.rejects(run("/usr/bin/id"), refusedBy(new RegExp(`grant ${grant}`)));
        assert.deepEqual(records.map(({ event }) => event), ["refused"]);
      }
    }
    const permitted = await of(["NOPASSWD", "SETENV", "FOLLOW", "NOMAIL"]);
    assert.equal((await permitted.run("/usr/bin/id", ["-u"])).out, "0\n");
    for (const allow of [true, "SETENV"]) {
      await assert.rejects((await of(allow)).run("/usr/bin/id"), refusedBy(/requires an approval/));
      const grants: unknown[] = [];
      const approved = await of(allow, {
        approve: (command: { grants: unknown }) => grants.push(command.grants) === 1,
      });
      assert.equal((await approved.run("/usr/bin/id", ["-u"])).out, "0\n");
      assert.deepEqual(grants, [allow === true ? [] : ["SETENV"]]);
    }
  },
);

testWith(privileged, "createHelper() computes the digests that the policy tests", async () => {
  const folder = commandFolder();
  const right = script(join(folder, "right"), "#!/bin/sh\necho right\n");
  const wrong = script(join(folder, "wrong"), "#!/bin/sh\necho wrong\n");
  for (const name of DIGESTS) {
    const digest = createHash(name).update(readFileSync(right)).digest("hex");
    const where = { command: `${folder}/*`, [name]: digest };
    const { run } = await startHelper({
      policy: definePolicy({
        ...document,
        rules: [{ name: "digest", when: { uid: 0 }, actions: "run", where, allow: "NOPASSWD" }],
      }, { vocabularies: [sudoVocabulary] }),
    });
    assert.equal((await run(right)).out, "right\n");
    await assert.rejects(run(wrong), refusedBy(/policy denies/));
  }
});

testWith(
  privileged,
  "createHelper() runs a command with the requested group, if the policy allows the group",
  async () => {
    const where = { command: "/usr/bin/id", runasUser: "daemon", runasGroup: "adm" };
    const { run } = await startHelper({
      policy: definePolicy({
        ...document,
        rules: [{ name: "adm", when: { uid: 0 }, actions: "run", where, allow: "NOPASSWD" }],
      }, { vocabularies: [sudoVocabulary] }),
    });
    const as = (group?: string) => run("/usr/bin/id", [], { user: "daemon", group });
    assert.equal((await as("adm")).out, "uid=1(daemon) gid=4(adm) groups=4(adm),1(daemon)\n");
    await assert.rejects(as(), refusedBy(/policy denies/));
    await assert.rejects(as("root"), refusedBy(/policy denies/));
    for (const group of ["no-such-group", "4", "-g", ""]) {
      await assert.rejects(as(group), refusedBy(/group cannot be looked up/), group);
    }
  },
);

testWith(
  privileged,
  "createHelper() makes a new environment, whatever the client sends",
  async () => {
    const { path } = await startHelper();
    const hostile = {
      LD_PRELOAD: "/tmp/x.so",
      LD_LIBRARY_PATH: "/tmp",
      PATH: "/tmp",
      IFS: "/",
      BASH_ENV: "/tmp/x",
      ENV: "/tmp/x",
      PYTHONPATH: "/tmp",
      NODE_OPTIONS: "--x",
      GCONV_PATH: "/tmp",
      HOME: "/tmp",
      USER: "x",
      LC_ALL: "/tmp/locale",
      TERM: "xterm",
      COLUMNS: "80",
    };
    // Not by runCommand(), which removes variables itself.
    const { out } = await raw(path, [
      request({ command: "/usr/bin/env", variables: hostile, user: "daemon" }),
    ]);
    const names = out.trim().split("\n").map((line) => line.split("=", 1)[0]!).sort();
    assert.deepEqual(names, ["COLUMNS", "HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"]);
    assert.match(out, /^PATH=\/usr\/local\/sbin:/m);
    assert.match(out, /^USER=daemon$/m);
    assert.doesNotMatch(out, /\/tmp/);
  },
);

testWith(
  privileged,
  "createHelper() executes the file that was checked, if its path is replaced before exec",
  async () => {
    const folder = commandFolder();
    const file = script(join(folder, "command"), "#!/bin/sh\necho checked\n");
    const other = script(join(folder, "other"), "#!/bin/sh\necho replaced\n");
    const { run } = await startHelper({
      approve: () => {
        renameSync(other, file); // after the file was opened, before it is executed
        return true;
      },
    });
    assert.equal((await run(file)).out, "checked\n");
  },
);

testWith(
  privileged,
  "createHelper() gives the command an O_PATH descriptor of its file, and no other one",
  async () => {
    const { run } = await startHelper();
    const folder = commandFolder();
    const list = script(
      join(folder, "list"),
      "#!/bin/sh\nfor f in /proc/$$/fd/*; do readlink $f > /dev/null && echo ${f##*/}; done\n" +
        "cat <&3 2> /dev/null && echo readable\n",
    );
    const { out } = await run(list, [], { user: "daemon" });
    assert.doesNotMatch(out, /readable/);
    const open = out.trim().split("\n").filter((fd) => fd !== "10"); // dash reads the script by 10
    assert.deepEqual(open, ["0", "1", "2", "3"]);
  },
);

testWith(
  privileged,
  "createHelper() asks approve() for the very process, and only true approves",
  async () => {
    const keys: string[] = [];
    const { run } = await startHelper({ approve: ({ key }) => keys.push(key) === 1 });
    assert.equal((await run("/usr/bin/id", ["-u"])).out, "0\n");
    await assert.rejects(run("/usr/bin/id", ["-u"]), refusedBy(/not approved/));
    assert.equal(keys[0], keys[1]); // both from this process
    const truthy = await startHelper({ approve: (() => "yes") as never });
    await assert.rejects(truthy.run("/usr/bin/id"), refusedBy(/not approved/));
    const failing = await startHelper({ approve: () => Promise.reject(new Error("no answer")) });
    await assert.rejects(failing.run("/usr/bin/id"), refusedBy(/no answer/));
  },
);

testWith(privileged, "runCommand() carries stdin, stdout, stderr and exit status", async () => {
  const { run } = await startHelper();
  const megabyte = new Uint8Array(1 << 20).fill(0x61);
  const echoed = await run("/usr/bin/cat", [], { stdin: bytesOf(megabyte) });
  assert.equal(echoed.out.length, megabyte.length);
  const folder = commandFolder();
  const fails = script(join(folder, "fails"), "#!/bin/sh\necho out; echo err >&2; exit 7\n");
  assert.deepEqual(await run(fails), { code: 7, signal: null, out: "out\n", err: "err\n" });
  const killed = script(join(folder, "killed"), "#!/bin/sh\nkill -9 $$\n");
  const { code, signal } = await run(killed);
  assert.deepEqual([code, signal], [null, "SIGKILL"]);
  const closed = script(join(folder, "closed"), "#!/bin/sh\nexec <&- >&- 2>&-\nexit 3\n");
  assert.equal((await run(closed, [], { stdin: bytesOf(megabyte) })).code, 3);
});

testWith(privileged, "runCommand() forwards signals to all processes of the command", async () => {
  const { run } = await startHelper();
  const { signal } = await run("/usr/bin/sleep", ["300"], {
    started: ({ signal }) => signal("SIGTERM"),
  });
  assert.equal(signal, "SIGTERM");
});

testWith(
  privileged,
  "createHelper() kills the processes of a command, if its client disconnects or time is up",
  async () => {
    const { path, records, run } = await startHelper();
    const folder = commandFolder();
    const mark = join(folder, "pids");
    const forks = script(
      join(folder, "forks"),
      `#!/bin/sh\nsleep 300 & echo "$$ $!" > ${mark}.new; mv ${mark}.new ${mark}; wait\n`,
    );
    const socket = connect(path);
    socket.write(request({ command: forks }));
    await until(() => existsSync(mark));
    const pids = readFileSync(mark, "utf8").trim().split(" ");
    socket.destroy();
    await until(() => pids.every((pid) => !isRunning(pid)));
    await until(() => records.length === 2);
    assert.match(records[1]!.reason!, /disconnected/);
    // A command that ends does not leave a process behind, either.
    rmSync(mark);
    const leaves = script(join(folder, "leaves"), `#!/bin/sh\nsleep 300 &\necho $! > ${mark}\n`);
    assert.equal((await run(leaves)).code, 0);
    await until(() => !isRunning(readFileSync(mark, "utf8").trim()));
    const short = await startHelper({ timeLimitSeconds: 0.2 });
    await assert.rejects(short.run("/usr/bin/sleep", ["300"]), refusedBy(/time limit/));
    await until(() => short.records.length === 2);
    assert.match(short.records[1]!.reason!, /time limit/);
  },
);

testWith(
  privileged,
  "createHelper() ends the connection of a client that breaks the protocol",
  async () => {
    const { path, records } = await startHelper();
    const tooLarge = new Uint8Array(5);
    new DataView(tooLarge.buffer).setUint32(1, MAX_FRAME_BYTES + 1);
    const sleeps = request({ command: "/usr/bin/sleep", args: ["300"] });
    const attacks: readonly Uint8Array[][] = [
      [tooLarge],
      [encodeFrame(FRAME.stdin, "x")],
      [encodeFrame(FRAME.request, "{")],
      [sleeps, sleeps],
      [sleeps, encodeFrame(FRAME.stdin, "x")],
      [encodeFrame(
        FRAME.request,
        '{"command":"/usr/bin/id","args":[],"user":"root","variables":{},"uid":0}',
      )],
    ];
    for (const frames of attacks) {
      const { refusal, started } = await raw(path, [
        Uint8Array.from(frames.flatMap((frame) => [...frame])),
      ]);
      assert.ok(refusal !== "" && !started);
    }
    await until(() => records.length === attacks.length);
    assert.ok(records.every(({ event, code }) => event === "refused" && code === null));
  },
);

testWith([needs.linux], "closeAllOnExec() throws, if the system call fails", () => {
  const system = openedSystem();
  const failing = (errno: number) => {
    const linux = { ...system.libc.linux!, syscall: () => -errno };
    return { ...system, libc: { ...system.libc, linux } } as typeof system;
  };
  const { ENOSYS, EINVAL } = system.abi.errno;
  assert.throws(() => closeAllOnExec(failing(ENOSYS!)), { code: "ERR_UCRED_UNSUPPORTED" });
  assert.throws(() => closeAllOnExec(failing(EINVAL!)), { code: "ERR_UCRED_SYSCALL" }); // Linux < 5.11
  const other = { ...system, libc: { ...system.libc, linux: undefined } } as typeof system;
  assert.throws(() => closeAllOnExec(other), { code: "ERR_UCRED_UNSUPPORTED" });
});

testWith(
  privileged,
  "createHelper() has its commands killed, if the helper itself is killed",
  async () => {
    const folder = commandFolder();
    const mark = join(folder, "pid");
    const waits = script(
      join(folder, "waits"),
      `#!/bin/sh\necho $$ > ${mark}.new; mv ${mark}.new ${mark}; exec sleep 300\n`,
    );
    const file = join(folder, "policy.yaml");
    writeFileSync(
      file,
      `version: 1\nabout: sudo\nrules: [{ name: waits, when: { uid: 0 }, actions: run, where: { command: ${waits} }, allow: NOPASSWD }]\n`,
    );
    const path = freshPath();
    const example = fileURLToPath(
      new URL("../../../examples/privileged-helper/server.ts", import.meta.url),
    );
    const [program, ...flags] = runtimeCommand();
    const helper = spawn(program, [...flags, example, path, file], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      await new Promise((resolve, reject) =>
        helper.once("exit", reject).stdout.once("data", resolve)
      );
      const running = runCommand({ path, command: waits });
      running.catch(() => {});
      await until(() => existsSync(mark));
      const pid = readFileSync(mark, "utf8").trim();
      assert.ok(isRunning(pid));
      helper.kill("SIGKILL");
      await until(() => !isRunning(pid));
      await assert.rejects(running);
    } finally {
      helper.kill("SIGKILL");
    }
  },
);

testWith(
  privileged,
  "createHelper() limits resources, and pauses a command whose client does not read",
  async () => {
    const { run, path } = await startHelper({ limits: { nofile: 32 } });
    const folder = commandFolder();
    const limits = script(
      join(folder, "limits"),
      "#!/bin/sh\nulimit -n; ulimit -c\ngrep -c 'NoNewPrivs.*1' /proc/self/status\npwd\n",
    );
    assert.equal((await run(limits)).out, "32\n0\n1\n/\n");
    const socket = connect(path).pause();
    socket.write(request({ command: "/usr/bin/head", args: ["-c", "50000000", "/dev/zero"] }));
    let size = 0;
    for await (const chunk of socket as AsyncIterable<Uint8Array>) size += chunk.length;
    assert.ok(size >= 50_000_000); // nothing was lost
  },
);

testWith(privileged, "createHelper() serves 100 clients at once", async () => {
  const { run, records } = await startHelper();
  const results = await Promise.all(
    Array.from({ length: 100 }, () => run("/usr/bin/id", ["-u"], { user: "daemon" })),
  );
  assert.ok(results.every(({ code, out }) => code === 0 && out === "1\n"));
  for (const which of ["started", "ended"]) {
    assert.equal(records.filter(({ event }) => event === which).length, 100);
  }
});

testWith(
  [...privileged, needs.strangers],
  "ucred run exits with the status of the command",
  async () => {
    const { path } = await startHelper();
    const folder = commandFolder();
    const fails = script(join(folder, "fails"), "#!/bin/sh\necho $1; exit 9\n");
    const run = new RunningCommand(["run", "--socket", path, "--", fails, "--json"]);
    assert.deepEqual(await run.done, { code: 9, out: "--json\n", err: "" });
    const denied = await new RunningCommand(["run", "--socket", path, "--", "/usr/bin/whoami"])
      .done;
    assert.equal(denied.code, 2);
    assert.match(denied.err, /policy denies/);
    const wrongUser = await new RunningCommand([
      "run",
      "--socket",
      path,
      "--helper-user",
      "daemon",
      "--",
      fails,
    ]).done;
    assert.equal(wrongUser.code, 2);
  },
);
