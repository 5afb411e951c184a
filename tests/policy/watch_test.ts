/** Policies that follow their files: which changes are noticed, and which files never replace a policy. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { afterEach } from "node:test";
import { setTimeout } from "node:timers";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { UcredError } from "../../mod.ts";
import { readPolicyFile, stampOf } from "../../policy/load.ts";
import { loadPolicy, parsePolicy, type WatchOptions, watchPolicy } from "../../policy/mod.ts";
import { type Clock, watchBy } from "../../policy/watch.ts";
import { removeSafeFolders, safeFolder, safeFolders } from "../support/safe_folder.ts";
import { needs, runtime, runtimeCommand, testWith, until } from "../support/suite.ts";

afterEach(removeSafeFolders);

const testFile = (name: string, run: () => void | Promise<void>) =>
  testWith([safeFolders], name, run);

/** Returns a policy that allows one uid of four digits. */
const only = (uid: number) =>
  `version: 1\nrules: [{ name: "${uid}", when: { uid: ${uid} }, allow: true }]\n`;

/** Creates a folder with a `policy.yaml` that allows uid 1001. */
function policyFile(): string {
  const path = join(safeFolder(), "policy.yaml");
  writeFileSync(path, only(1001));
  return path;
}

/** Replaces a file safely: by a rename. */
function replace(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

/** Appends to a file. The mode is given, since Deno's appendFileSync sets 0666 without one. */
const append = (path: string, text: string) => appendFileSync(path, text, { mode: 0o644 });

/**
 * How much faster the clock of the watch runs. On Deno it runs normally: the times of files are in whole
 * seconds there, and a change is visible only after a second.
 */
const SPEED = runtime === "deno" ? 1 : 5;

/** A clock that runs faster by a factor. */
const clockOf = (speed: number): Clock => ({
  now: () => performance.now() * speed,
  after: (ms, call) => {
    const timer = setTimeout(call, ms / speed);
    timer.unref();
    return timer;
  },
});

/** Watches a file, and records the reports. */
function watched(path: string, options: WatchOptions = {}, speed = SPEED) {
  const errors: string[] = [];
  let reloads = 0;
  const policy = watchBy(clockOf(speed), path, {
    onReload: (policy) => {
      assert.equal(policy, watch.policy.current);
      reloads++;
    },
    onError: (error) => {
      assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY");
      assert.equal(error, watch.policy.error);
      errors.push(error.message.replace(/^Cannot use the policy: \S+: /, ""));
    },
    ...options,
  });
  const watch = {
    policy,
    errors,
    reloads: () => reloads,
    admitted: () =>
      [1001, 1002, 1003].filter((uid) => {
        const { allowed } = policy.decide({ uid });
        assert.equal(policy.admits({ uid }), allowed);
        assert.equal(policy.explain({ uid }).decision.allowed, allowed);
        assert.equal(policy.current.decide({ uid }).allowed, allowed);
        return allowed;
      }).join(),
    [Symbol.dispose]: () => policy.close(),
  };
  return watch;
}

/** Records the process warnings while something runs. */
async function warningsOf(run: (warnings: readonly string[]) => Promise<void>): Promise<void> {
  const warnings: string[] = [];
  const listen = ({ name, message }: Error) => {
    if (name === "UcredWarning") warnings.push(message);
  };
  process.on("warning", listen);
  try {
    await run(warnings);
  } finally {
    process.removeListener("warning", listen);
  }
}

const descriptors = () => readdirSync("/proc/self/fd").length;

for (
  const [name, change] of [
    ["another file is renamed to its path", (path) => replace(path, only(1002))],
    ["it is overwritten", (path) => writeFileSync(path, only(1002))],
    ["it is overwritten and its time is restored", (path) => {
      const { atime, mtime } = statSync(path);
      writeFileSync(path, only(1002));
      utimesSync(path, atime, mtime);
    }],
    ["it is deleted and created again at once", (path) => {
      rmSync(path);
      writeFileSync(path, only(1002));
    }],
    ["it becomes a link", (path) => {
      const target = join(safeFolder(), "elsewhere.yaml");
      writeFileSync(target, only(1002));
      symlinkSync(target, `${path}.new`);
      renameSync(`${path}.new`, path);
    }],
    ["its folder is replaced", (path) => {
      const folder = dirname(path);
      mkdirSync(`${folder}.new`);
      writeFileSync(join(`${folder}.new`, "policy.yaml"), only(1002));
      renameSync(folder, `${folder}.old`);
      renameSync(`${folder}.new`, folder);
    }],
  ] as readonly (readonly [string, (path: string) => void])[]
) {
  testFile(`watchPolicy() reloads the policy when ${name}`, async () => {
    const folder = join(safeFolder(), "conf");
    mkdirSync(folder);
    const path = join(folder, "policy.yaml");
    writeFileSync(path, only(1001));
    using watch = watched(path);
    assert.equal(watch.admitted(), "1001");
    change(path);
    await until(() => watch.reloads() > 0);
    assert.equal(watch.admitted(), "1002");
    assert.deepEqual([watch.errors, watch.policy.error], [[], undefined]);
  });
}

testFile(
  "watchPolicy() reloads the policy when a link to its folder is swapped, as by Kubernetes",
  async () => {
    const folder = safeFolder();
    const publish = (version: string, text: string) => {
      mkdirSync(join(folder, version));
      writeFileSync(join(folder, version, "policy.yaml"), text);
      symlinkSync(version, join(folder, "..data_tmp"));
      renameSync(join(folder, "..data_tmp"), join(folder, "..data"));
    };
    publish("..1", only(1001));
    const path = join(folder, "policy.yaml");
    symlinkSync(join("..data", "policy.yaml"), path);
    using watch = watched(path);
    for (const [round, uid] of [1002, 1003].entries()) {
      publish(`..${round + 2}`, only(uid));
      rmSync(join(folder, `..${round + 1}`), { recursive: true });
      await until(() => watch.reloads() > round);
      assert.equal(watch.admitted(), `${uid}`);
    }
    publish("..4", "version: 2\nrules: []\n");
    await until(() => watch.policy.error);
    assert.equal(watch.admitted(), "1003");
  },
);

testFile(
  "watchPolicy() keeps the policy when its file is deleted, and reloads it when it is back",
  async () => {
    const path = policyFile();
    using watch = watched(path);
    renameSync(path, `${path}.away`);
    await until(() => watch.policy.error);
    assert.equal(watch.admitted(), "1001");
    assert.match(watch.errors.join(), /^[^,]*(ENOENT|os error 2)/);
    renameSync(`${path}.away`, path);
    await until(() => watch.reloads() === 1);
    assert.deepEqual([watch.admitted(), watch.policy.error], ["1001", undefined]);
    assert.equal(watch.errors.length, 1);
  },
);

testFile("watchPolicy() keeps the policy when its file is bad, and reports that once", async () => {
  const path = policyFile();
  using watch = watched(path);
  const bad = [
    ["", /it is empty/],
    ["\0\x01\x02", /./],
    ["version: 1\nrules: [", /./],
    ["version: 1\nrules: [{ name: a, when: { uidd: 1 }, allow: true }]\n", /no field "uidd"/],
    [Uint8Array.of(0x23, 0xff, 0x0a), /it is not in UTF-8/],
    ["version: 1\nrules: [{ name: a, when: { user: ucred-nobody }, allow: true }]\n", /no user/],
  ] as const;
  for (const [round, [text, expected]] of bad.entries()) {
    writeFileSync(path, text);
    await until(() => watch.errors.length > round);
    assert.match(watch.errors[round]!, expected);
    const { error } = watch.policy;
    assert.deepEqual([watch.policy.reload(), watch.policy.reload()], [false, false]);
    assert.equal(watch.policy.error, error);
    assert.equal(watch.admitted(), "1001");
  }
  await sleep(2500 / SPEED); // the file is read again
  assert.equal(watch.errors.length, bad.length, watch.errors.join("\n"));
  writeFileSync(path, only(1002));
  await until(() => watch.reloads() > 0);
  assert.deepEqual([watch.admitted(), watch.policy.error], ["1002", undefined]);
  // A problem that was fixed and occurs again is reported again.
  writeFileSync(path, "");
  await until(() => watch.errors.length > bad.length);
  assert.equal(watch.errors.at(-1), watch.errors[0]);
});

testFile(
  "watchPolicy() ignores a half-written file, and reports one that keeps changing",
  async () => {
    const path = policyFile();
    using watch = watched(path, {}, 1); // a writer that pauses for two polls counts as finished
    const [start, end] = [
      "version: 1\nrules:\n  - name: few\n    allow: true\n",
      "    when: { uid: 1002 }\n",
    ];
    let text = start;
    writeFileSync(path, text);
    while (watch.policy.error === undefined) {
      assert.equal(
        parsePolicy(text).decide({ uid: 1003 }).allowed,
        true,
        "the first half allows everybody",
      );
      assert.equal(watch.admitted(), "1001");
      await sleep(20);
      append(path, "    # one of many\n");
      text += "    # one of many\n";
    }
    assert.deepEqual(watch.errors, ["it is being changed"]);
    append(path, end.slice(0, -6));
    await sleep(20);
    append(path, end.slice(-6));
    await until(() => watch.reloads() > 0);
    assert.deepEqual([watch.admitted(), watch.policy.error], ["1002", undefined]);
    assert.deepEqual([watch.reloads(), watch.errors.length], [1, 1]);
  },
);

testFile("readPolicyFile() returns undefined when the file has another stamp", () => {
  const path = policyFile();
  const stamp = stampOf(statSync(path, { bigint: true }));
  assert.deepEqual(readPolicyFile(path, {}, stamp), { text: only(1001), stamp });
  replace(path, only(1001));
  assert.equal(readPolicyFile(path, {}, stamp), undefined);
});

testFile(
  "watchPolicy() ignores a file that other users can write, until its mode is fixed",
  async () => {
    const path = policyFile();
    using watch = watched(path);
    writeFileSync(path, only(1002));
    chmodSync(path, 0o666);
    await until(() => watch.errors.length === 1);
    assert.deepEqual([watch.admitted(), watch.errors], ["1001", ["it may be written by others"]]);
    chmodSync(path, 0o644);
    await until(() => watch.reloads() === 1);
    assert.equal(watch.admitted(), "1002");

    // The file's stamp does not contain its folder, so the file is read again.
    chmodSync(dirname(path), 0o777);
    writeFileSync(path, only(1003));
    await until(() => watch.errors.length === 2);
    assert.match(watch.errors[1]!, /^its folder .* may be written by others$/);
    assert.equal(watch.admitted(), "1002");
    chmodSync(dirname(path), 0o755);
    await until(() => watch.reloads() === 2);
    assert.deepEqual([watch.admitted(), watch.policy.error], ["1003", undefined]);

    using other = watched(path, { allowUnsafeOwner: true });
    chmodSync(path, 0o666);
    await until(() => other.reloads() === 1);
    assert.equal(other.policy.error, undefined);
  },
);

testFile(
  "watchPolicy() ignores a link to a folder that other users can write, until it is set back",
  async () => {
    const path = join(safeFolder(), "policy.yaml");
    const lead = (to: string) => {
      symlinkSync(to, `${path}.new`);
      renameSync(`${path}.new`, path);
    };
    lead(policyFile());
    using watch = watched(path);
    assert.equal(watch.admitted(), "1001");
    const open = safeFolder();
    writeFileSync(join(open, "policy.yaml"), only(1002), { mode: 0o644 });
    chmodSync(open, 0o1777);
    lead(join(open, "policy.yaml"));
    await until(() => watch.errors.length === 1);
    assert.deepEqual([watch.admitted(), watch.errors], [
      "1001",
      [`its folder ${open} may be written by others`],
    ]);
    const safe = policyFile();
    writeFileSync(safe, only(1003));
    lead(safe);
    await until(() => watch.reloads() === 1);
    assert.deepEqual([watch.admitted(), watch.policy.error], ["1003", undefined]);
  },
);

testFile(
  "watchPolicy() keeps the policy when its path is not a regular file, or the file is too large",
  async () => {
    const path = policyFile();
    using watch = watched(path);
    const told = async (what: RegExp) => {
      const { length } = watch.errors;
      // The deletion may be reported before.
      await until(() => watch.errors.slice(length).some((error) => what.test(error)));
      assert.equal(watch.admitted(), "1001");
      rmSync(path, { recursive: true });
    };
    rmSync(path);
    execFileSync("mkfifo", [path]);
    await told(/it is a pipe and not a regular file$/);
    symlinkSync("/dev/zero", path);
    await told(/it is a device and not a regular file$/);
    mkdirSync(path);
    await told(/it is a folder and not a regular file$/);
    writeFileSync(path, "[".repeat(100_000), { mode: 0o644 });
    await told(/nested more than 64 deep$/);
    writeFileSync(path, "x".repeat(5 << 20), { mode: 0o644 });
    await told(/it has 5242880 characters; the maximum is 4194304$/);
    replace(path, only(1002));
    await until(() => watch.reloads() === 1);
    assert.deepEqual([watch.admitted(), watch.policy.error], ["1002", undefined]);
  },
);

testWith(
  [safeFolders, needs.root],
  "watchPolicy() ignores a file that belongs to another user",
  async () => {
    const path = policyFile();
    using watch = watched(path);
    writeFileSync(path, only(1002));
    chownSync(path, 4321, 0);
    await until(() => watch.policy.error);
    assert.deepEqual([watch.admitted(), watch.errors], ["1001", ["it belongs to uid 4321"]]);
    chownSync(path, 0, 0);
    await until(() => watch.reloads() === 1);
    assert.equal(watch.admitted(), "1002");
  },
);

testFile("watchPolicy() warns and continues when a callback throws or rejects", async () => {
  await warningsOf(async (warnings) => {
    const path = policyFile();
    let calls = 0;
    using policy = watchPolicy(path, {
      onReload: () => {
        if (++calls === 2) return Promise.reject(new Error("late")) as unknown as void;
        throw new Error("at once");
      },
      onError: () => {
        throw new Error("of errors");
      },
    });
    replace(path, only(1002));
    await until(() => warnings.length === 1);
    replace(path, only(1003));
    await until(() => warnings.length === 2);
    assert.equal(policy.decide({ uid: 1003 }).allowed, true);
    rmSync(path);
    await until(() => warnings.length === 3);
    assert.equal(policy.reload(), false);
    const told = (name: string, what: string) =>
      `${name}() of the watch of ${path} failed: Error: ${what}`;
    assert.deepEqual(warnings, [
      told("onReload", "at once"),
      told("onReload", "late"),
      told("onError", "of errors"),
    ]);
    writeFileSync(path, only(1002));
    assert.equal(policy.reload(), true);
    await until(() => warnings.length === 4);
  });
});

testFile(
  "watchPolicy() warns and continues when a callback throws a value without a text",
  async () => {
    const thrown: unknown[] = [Symbol("s"), Object.create(null), { toString: null }];
    await warningsOf(async (warnings) => {
      const path = policyFile();
      using policy = watchPolicy(path, {
        onReload: () => {
          throw thrown[0];
        },
        onError: () => {
          throw thrown[1];
        },
        accounts: {
          uid: () => {
            throw thrown[2];
          },
          gid: () => undefined,
        },
      });
      assert.equal(policy.reload(), true);
      await until(() => warnings.length === 1);
      replace(path, "version: 1\nrules: [{ name: a, when: { user: ada }, allow: true }]\n");
      assert.equal(policy.reload(), false);
      await until(() => warnings.length === 2);
      const what = "something that cannot be printed";
      assert.equal(policy.error?.message, `Cannot use the policy: ${path}: ${what}`);
      assert.deepEqual(warnings, [
        `onReload() of the watch of ${path} failed: Symbol(s)`,
        `onError() of the watch of ${path} failed: ${what}`,
      ]);
    });
  },
);

testFile("watchPolicy() emits one process warning for a problem without onError", async () => {
  await warningsOf(async (warnings) => {
    const path = policyFile();
    using policy = watchPolicy(path);
    writeFileSync(path, "version: 2\nrules: []\n");
    await until(() => warnings.length > 0);
    assert.deepEqual([policy.reload(), policy.reload()], [false, false]);
    rmSync(path);
    await until(() => warnings.length > 1);
    assert.equal(warnings[0], `Cannot use the policy: ${path}:1:10: version is 1, not 2`);
    assert.equal(warnings[1], policy.error?.message);
  });
});

testFile("watchPolicy() throws like loadPolicy() when the file is bad at the start", () => {
  const path = policyFile();
  writeFileSync(path, "version: 2\nrules: []\n");
  const error = {
    code: "ERR_UCRED_POLICY",
    message: `Cannot use the policy: ${path}:1:10: version is 1, not 2`,
  };
  assert.throws(() => loadPolicy(path), error);
  assert.throws(() => watchPolicy(path), error);
});

testFile(
  "reload() reads the file at once, and reports errors of accounts",
  async () => {
    const path = policyFile();
    let admins: number | undefined = 1001;
    const accounts = {
      uid: () => {
        if (admins === undefined) throw new TypeError("no directory");
        return admins;
      },
      gid: () => undefined,
    };
    writeFileSync(path, "version: 1\nrules: [{ name: a, when: { user: admin }, allow: true }]\n");
    using watch = watched(path, { accounts });
    assert.equal(watch.admitted(), "1001");
    admins = 1002;
    assert.equal(watch.policy.reload(), true);
    assert.deepEqual([watch.admitted(), watch.reloads()], ["1002", 1]);
    // The same text in a file with a new time.
    admins = 1003;
    utimesSync(path, 1, 1);
    await until(() => watch.reloads() === 2);
    assert.equal(watch.admitted(), "1003");
    admins = undefined;
    assert.equal(watch.policy.reload(), false);
    assert.deepEqual([watch.admitted(), watch.errors], ["1003", ["no directory"]]);
    admins = 1001;
    await until(() => watch.reloads() === 3);
    assert.equal(watch.admitted(), "1001");
  },
);

testFile("decide() of a watched policy uses one policy for each decision", () => {
  const path = policyFile();
  const both = (uid: number, gid: number) =>
    `version: 1\nrules: [{ name: a, when: { uid: ${uid}, gid: ${gid} }, allow: true }]\n`;
  writeFileSync(path, both(1, 1));
  using policy = watchPolicy(path);
  let reloaded = false;
  const peer = {
    get uid() {
      writeFileSync(path, both(2, 2));
      reloaded = policy.reload();
      return 1;
    },
    get gid() {
      return reloaded ? 2 : 1;
    },
  };
  assert.equal(policy.decide(peer).allowed, false);
  assert.equal(reloaded, true);
});

testFile("watchPolicy() resolves a relative path once", () => {
  const path = policyFile();
  const before = process.cwd();
  process.chdir(dirname(path));
  try {
    using policy = watchPolicy("policy.yaml");
    process.chdir(before);
    writeFileSync(path, only(1002));
    assert.equal(policy.reload(), true);
    assert.equal(policy.decide({ uid: 1002 }).allowed, true);
  } finally {
    process.chdir(before);
  }
});

testWith(
  [safeFolders, needs.linux],
  "close() ends the watch, and leaves no descriptor open",
  async () => {
    const path = policyFile();
    const [witness, closed] = [watched(path), watched(path)];
    const before = descriptors();
    const many = Array.from({ length: 100 }, () => watched(path));
    for (const { policy } of [closed, ...many]) {
      policy.close();
      policy[Symbol.dispose]();
    }
    for (let i = 0; i < 300; i++) assert.equal(witness.policy.reload(), true);
    replace(path, only(1002));
    await until(() => witness.admitted() === "1002");
    rmSync(path);
    await until(() => witness.policy.error);
    witness.policy.close();
    assert.equal(witness.reloads(), 301);
    for (const { policy, reloads, errors, admitted } of [closed, ...many]) {
      assert.equal(policy.reload(), false);
      assert.deepEqual([admitted(), reloads(), errors.length, policy.error], [
        "1001",
        0,
        0,
        undefined,
      ]);
    }
    await until(() => descriptors() <= before);
  },
);

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Runs a program that may use `watchPolicy`, and `path`, and returns what it printed. */
function program(code: string, flags: readonly string[] = [], before: readonly string[] = []) {
  const path = policyFile();
  const script = join(safeFolder(), "program.ts");
  const imports = [
    'import { appendFileSync, writeFileSync } from "node:fs";',
    'import { setTimeout as sleep } from "node:timers/promises";',
    `import { watchPolicy } from ${JSON.stringify(join(root, "policy/mod.ts"))};`,
    `const path: string = ${JSON.stringify(path)};`,
  ];
  writeFileSync(script, [...imports, code].join("\n"));
  const own = runtime === "deno" ? ["-A", "--config", join(root, "deno.json")] : [];
  const [command, ...args] = [...before, ...runtimeCommand([...own, ...flags]), script];
  return execFileSync(command!, args, { encoding: "utf8", timeout: 60_000 });
}

testFile("watchPolicy() does not keep the program running", () => {
  const output = program(`
    const policy = watchPolicy(path);
    await sleep(700); // after some polls
    console.log(policy.decide({ uid: 1001 }).allowed);`);
  assert.equal(output, "true\n");
});

testFile("watchPolicy() releases replaced policies", () => {
  const flags = {
    node: ["--expose-gc"],
    deno: ["--v8-flags=--expose-gc"],
    bun: ["--expose-gc"],
  }[runtime];
  const output = program(
    `
    const policy = watchPolicy(path, { onError: () => {} });
    const refs: WeakRef<object>[] = [];
    for (let i = 0; i < 400; i++) {
      refs.push(new WeakRef(policy.current));
      policy.reload();
    }
    writeFileSync(path, "");
    for (let i = 0; i < 400; i++) policy.reload();
    const left = () => refs.filter((ref) => ref.deref() !== undefined).length;
    while (left() > 40) { // some may still be on the stack
      await sleep(10);
      (globalThis as unknown as { gc(): void }).gc();
    }
    console.log("given back");`,
    flags,
  );
  assert.equal(output, "given back\n");
});

const privateMounts = [safeFolders, needs.root, needs.pidNamespace, needs.native];

testWith(privateMounts, "reload() finds a user that was just added", () => {
  const passwd = join(safeFolder(), "passwd");
  writeFileSync(passwd, readFileSync("/etc/passwd"));
  const mount = ["-m", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"', passwd];
  const output = program(
    `
    let tells = (_: string) => {};
    const told = () => new Promise<string>((resolve) => tells = resolve);
    const policy = watchPolicy(path, {
      onReload: () => tells("reloaded"),
      onError: ({ message }) => tells(message.slice(message.lastIndexOf(": ") + 2)),
    });
    const wait = setInterval(() => {}, 1000);
    const write = (user: string) =>
      writeFileSync(path, \`version: 1\\nrules: [{ name: a, when: { user: \${user} }, allow: true }]\\n\`);
    const add = (user: string, uid: number) =>
      appendFileSync("/etc/passwd", \`\${user}:x:\${uid}:\${uid}::/:/bin/false\\n\`);
    write("ucred-a");
    console.log(policy.reload(), policy.error?.message.includes("no user"));
    add("ucred-a", 54321);
    console.log(policy.reload(), policy.decide({ uid: 54321 }).allowed);
    write("ucred-b");
    console.log(await told());
    add("ucred-b", 54322);
    console.log(await told(), policy.decide({ uid: 54322 }).allowed);
    clearInterval(wait);`,
    [],
    ["unshare", ...mount],
  );
  assert.deepEqual(output.trim().split("\n"), [
    "false true",
    "true true",
    'no user "ucred-b"; did you mean "ucred-a"?',
    "reloaded true",
  ]);
});
