/** Policies in files: owners and permissions of file and folders, and files that are not regular. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { afterEach } from "node:test";
import { fileURLToPath } from "node:url";
import { UcredError } from "../../mod.ts";
import { readPolicyFile, stampOf } from "../../policy/load.ts";
import { loadPolicy, watchPolicy } from "../../policy/mod.ts";
import { removeSafeFolders, safeFolder, safeFolders } from "../support/safe_folder.ts";
import { needs, runtimeCommand, succeeds, testWith } from "../support/suite.ts";

afterEach(removeSafeFolders);

const testFile = (name: string, run: () => void | Promise<void>) =>
  testWith([safeFolders], name, run);
const asRoot = [safeFolders, needs.root];

const GOOD = "version: 1\nrules: [{ name: root, when: { uid: 0 }, allow: true }]\n";

/** Writes a policy to a new folder. */
function policyFile(): string {
  const path = join(safeFolder(), "policy.yaml");
  writeFileSync(path, GOOD, { mode: 0o644 });
  return path;
}

/** Requires that both functions reject the file, with this text after the path. */
function refused(path: string, why: string | RegExp): UcredError {
  let found: UcredError | undefined;
  for (const read of [loadPolicy, watchPolicy]) {
    assert.throws(() => void read(path), (error) => {
      assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY", String(error));
      const prefix = `Cannot use the policy: ${path}: `;
      assert.ok(error.message.startsWith(prefix), error.message);
      const said = error.message.slice(prefix.length);
      if (typeof why === "string") assert.equal(said, why);
      else assert.match(said, why);
      found = error;
      return true;
    });
  }
  return found!;
}

testFile("loadPolicy() reads a safe file", () => {
  const path = policyFile();
  assert.equal(loadPolicy(path).decide({ uid: 0 }).rule, "root");
  writeFileSync(path, "version: 3\nrules: []\n");
  assert.throws(() => loadPolicy(path), {
    message: `Cannot use the policy: ${path}:1:10: version is 1, not 3`,
  });
});

testFile(
  "loadPolicy() rejects files that other users can write, unless allowUnsafeOwner is set",
  () => {
    const path = policyFile();
    for (const mode of [0o664, 0o646, 0o666, 0o602, 0o620]) {
      chmodSync(path, mode);
      const { hint } = refused(path, "it may be written by others");
      assert.equal(
        hint,
        `Run chmod go-w on ${path}, or set allowUnsafeOwner (--allow-unsafe-owner)`,
      );
      assert.ok(loadPolicy(path, { allowUnsafeOwner: true }));
    }
    chmodSync(path, 0o444);
    assert.ok(loadPolicy(path));
  },
);

testFile("loadPolicy() ignores options that Object.prototype has", () => {
  const path = policyFile();
  chmodSync(path, 0o666);
  const prototype = Object.prototype as { allowUnsafeOwner?: true };
  prototype.allowUnsafeOwner = true;
  try {
    refused(path, "it may be written by others");
    assert.ok(loadPolicy(path, { allowUnsafeOwner: true }));
  } finally {
    delete prototype.allowUnsafeOwner;
  }
});

testFile(
  "runTests rejects a policy with a failing test, and the previous policy stays in force",
  () => {
    const path = policyFile();
    const tests = (uid: number) =>
      `tests:\n  - peer: { uid: ${uid} }\n    expect: { allow: true }\n`;
    writeFileSync(path, GOOD + tests(0), { mode: 0o644 });
    using policy = watchPolicy(path, { runTests: true, onError: () => {} });
    assert.ok(loadPolicy(path, { runTests: true }));
    writeFileSync(path, GOOD.replace("root", "other") + tests(1));
    assert.equal(policy.reload(), false);
    assert.equal(policy.decide({ uid: 0 }).rule, "root");
    const message = `Cannot use the policy: ${path}:4:5: the test "test 1" fails: ` +
      "Expected: allowed. The decision is: denied. No rule matches";
    assert.equal(policy.error?.message, message);
    assert.throws(() => loadPolicy(path, { runTests: true }), {
      code: "ERR_UCRED_POLICY",
      message,
      hint: `Fix ${path} at the listed places, and run: ucred policy check ${path}`,
    });
    assert.equal(loadPolicy(path).decide({ uid: 0 }).rule, "other");
  },
);

testFile(
  "loadPolicy() rejects any folder above the file that other users can write to",
  () => {
    const top = safeFolder();
    const folders = ["a", "b", "c"].map((_, index, all) => join(top, ...all.slice(0, index + 1)));
    mkdirSync(folders[2]!, { recursive: true, mode: 0o755 });
    const path = join(folders[2]!, "policy.yaml");
    writeFileSync(path, GOOD, { mode: 0o644 });
    for (const folder of [top, ...folders]) {
      for (const mode of [0o775, 0o757, 0o777]) {
        chmodSync(folder, mode);
        const { hint } = refused(path, `its folder ${folder} may be written by others`);
        assert.equal(
          hint,
          `Move the policy to a folder of root, such as /etc/ucred, or run chmod go-w on ${folder}`,
        );
        assert.ok(loadPolicy(path, { allowUnsafeOwner: true }));
      }
      chmodSync(folder, 0o1777);
      const { hint } = refused(path, `its folder ${folder} may be written by others`);
      assert.equal(
        hint,
        "Move the policy to a folder of root, such as /etc/ucred, or set allowUnsafeOwner (--allow-unsafe-owner)",
      );
      chmodSync(folder, 0o755);
      assert.ok(loadPolicy(path));
    }
  },
);

testWith(
  [{
    name: "a /tmp where all may write",
    met: (statSync("/tmp", { throwIfNoEntry: false })?.mode ?? 0) % 0o10000 === 0o1777,
  }],
  "loadPolicy() rejects a file in /tmp, where all users may write",
  () => {
    const folder = mkdtempSync("/tmp/ucred-");
    try {
      const path = join(folder, "policy.yaml");
      writeFileSync(path, GOOD, { mode: 0o600 });
      refused(path, "its folder /tmp may be written by others");
      assert.ok(loadPolicy(path, { allowUnsafeOwner: true }));
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);

testWith(
  asRoot,
  "loadPolicy() rejects files and folders of other users, also through links",
  () => {
    const path = policyFile();
    const folder = dirname(path);
    const link = join(safeFolder(), "link.yaml");
    symlinkSync(path, link);
    for (const name of [path, link]) {
      chownSync(path, 4321, 0);
      const ofFile = refused(name, "it belongs to uid 4321").hint;
      if (name === path) {
        assert.equal(
          ofFile,
          `Run chown root on ${path}, or set allowUnsafeOwner (--allow-unsafe-owner)`,
        );
      }
      chownSync(path, 0, 0);
      chownSync(folder, 4321, 0);
      const ofFolder = refused(name, `its folder ${folder} belongs to uid 4321`).hint;
      assert.match(
        ofFolder,
        /^Move the policy to a folder of root, .*, or set allowUnsafeOwner \(--allow-unsafe-owner\)$/,
      );
      chownSync(folder, 0, 0);
      assert.ok(loadPolicy(name));
    }
    // No other user can replace the link, so its owner does not matter.
    lchownSync(link, 4321, 0);
    assert.ok(loadPolicy(link));
  },
);

testFile(
  "loadPolicy() checks the folders of each link, and those of its target",
  () => {
    const [first, second, third, through] = [
      safeFolder(),
      safeFolder(),
      safeFolder(),
      safeFolder(),
    ];
    const real = join(third, "inner");
    mkdirSync(real, { mode: 0o755 });
    writeFileSync(join(real, "real.yaml"), GOOD, { mode: 0o644 });
    symlinkSync(real, join(through, "folder")); // a link to a folder within a target
    symlinkSync(join(through, "folder", "real.yaml"), join(second, "middle.yaml"));
    symlinkSync(
      `../${second.slice(second.lastIndexOf("/") + 1)}/./middle.yaml`,
      join(first, "policy.yaml"),
    );
    const path = join(first, "policy.yaml");
    assert.ok(loadPolicy(path));
    for (const folder of [first, second, through, third, real]) {
      for (const mode of [0o775, 0o1777]) {
        chmodSync(folder, mode);
        refused(path, `its folder ${folder} may be written by others`);
        chmodSync(folder, 0o755);
      }
    }
    assert.ok(
      loadPolicy(
        join(
          through,
          "folder",
          "..",
          "inner",
          "..",
          "..",
          first.slice(1).split("/").at(-1)!,
          "policy.yaml",
        ),
      ),
    );
  },
);

testFile("loadPolicy() checks the folders above a relative path", () => {
  const path = policyFile();
  const before = process.cwd();
  process.chdir(dirname(path));
  try {
    assert.ok(loadPolicy("policy.yaml"));
    assert.ok(loadPolicy("./policy.yaml"));
    chmodSync(dirname(path), 0o775);
    assert.throws(() => loadPolicy("policy.yaml"), {
      message: `Cannot use the policy: policy.yaml: its folder ${
        dirname(path)
      } may be written by others`,
    });
  } finally {
    process.chdir(before);
  }
});

testFile("loadPolicy() throws when links form a circle", () => {
  const folder = safeFolder();
  symlinkSync("b", join(folder, "a"));
  symlinkSync("a", join(folder, "b"));
  refused(join(folder, "a"), /ELOOP|too many|levels of symbolic/i);
});

testFile(
  "loadPolicy() reads the file that it has checked when another one replaces it",
  () => {
    const path = policyFile();
    const stamp = stampOf(statSync(path, { bigint: true }));
    renameSync(path, `${path}.old`);
    writeFileSync(path, GOOD.replace("root", "evil"), { mode: 0o644 });
    assert.equal(readPolicyFile(path, {}, stamp), undefined);
    assert.match(readPolicyFile(path, {})!.text, /evil/);
  },
);

for (
  const [what, make] of [
    ["folder", (path) => mkdirSync(path)],
    ["pipe", (path) => execFileSync("mkfifo", [path])],
    ["device", (path) => symlinkSync("/dev/null", path)],
    ["device", (path) => symlinkSync("/dev/zero", path)],
  ] as readonly (readonly [string, (path: string) => void])[]
) {
  testFile(`loadPolicy() throws at once for a ${what}`, () => {
    const path = join(safeFolder(), "policy.yaml");
    make(path);
    refused(path, `it is a ${what} and not a regular file`);
    assert.throws(() => loadPolicy(path, { allowUnsafeOwner: true }), /and not a regular file$/);
  });
}

testFile("loadPolicy() throws for a socket", async () => {
  const path = join(safeFolder(), "policy.yaml");
  const server = createServer().listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  try {
    refused(path, "it is a socket and not a regular file");
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

testFile("loadPolicy() reports why a file cannot be read", () => {
  const path = join(safeFolder(), "policy.yaml");
  const { cause } = refused(path, /ENOENT|os error 2/);
  assert.ok(cause instanceof Error);
  writeFileSync(path, "");
  refusedAt(path, "1:1: it is empty: a policy has a version and rules");
  writeFileSync(path, Uint8Array.of(0x23, 0xff, 0x0a));
  refused(path, "it is not in UTF-8");
  writeFileSync(
    path,
    new Uint8Array([0xff, 0xfe, ...new Uint8Array(new Uint16Array([35, 10]).buffer)]),
  );
  refused(path, "it is not in UTF-8"); // it is in UTF-16
  writeFileSync(path, "\ufeff" + GOOD);
  assert.ok(loadPolicy(path));
  writeFileSync(path, `#${"x".repeat(16 << 20)}`);
  refused(path, `it has ${(16 << 20) + 1} bytes; the maximum is ${16 << 20}`);
  writeFileSync(path, `#${"x".repeat(4 << 20)}`);
  refusedAt(path, `1:1: it has ${(4 << 20) + 1} characters; the maximum is ${4 << 20}`);
});

function refusedAt(path: string, what: string): void {
  assert.throws(() => loadPolicy(path), { message: `Cannot use the policy: ${path}:${what}` });
}

testFile("loadPolicy() escapes the file's name in messages", () => {
  const path = join(safeFolder(), "p\nallowed: \u202e\x1b[2K.yaml");
  const shown = path.replace("\n", "\\u000a").replace("\u202e", "\\u202e").replace(
    "\x1b",
    "\\u001b",
  );
  assert.throws(() => loadPolicy(path), (error) => {
    assert.ok(error instanceof UcredError);
    assert.ok(error.message.startsWith(`Cannot use the policy: ${shown}: `), error.message);
    assert.doesNotMatch(error.message, /[\p{Cc}\p{Bidi_Control}]/u);
    return true;
  });
  writeFileSync(path, "version: 2\nrules: []\n");
  assert.throws(() => loadPolicy(path), {
    message: `Cannot use the policy: ${shown}:1:10: version is 1, not 2`,
  });
  chmodSync(path, 0o666);
  assert.throws(() => loadPolicy(path), (error) => {
    assert.doesNotMatch(`${(error as UcredError).message}${(error as UcredError).hint}`, /\p{Cc}/u);
    return true;
  });
});

testWith(
  [...asRoot, { name: "setfacl (Debian: acl)", met: succeeds("setfacl", "--version") }],
  "loadPolicy() rejects files and folders that an ACL makes writable for other users",
  () => {
    for (const on of ["file", "folder"] as const) {
      const path = policyFile();
      const entry = on === "file" ? path : dirname(path);
      execFileSync("setfacl", ["-m", "u:1000:rwx", entry]);
      refused(path, new RegExp(`(it|its folder .*) may be written by others$`));
      execFileSync("setfacl", ["-m", "m::r-x", entry]); // the mask limits the entry
      loadPolicy(path);
      execFileSync("setfacl", ["-b", entry]);
      execFileSync("setfacl", ["-d", "-m", "u:1000:rwx", dirname(path)]); // for new files
      loadPolicy(path);
    }
  },
);

testWith(asRoot, "loadPolicy() has a hint for files in a Kubernetes volume", () => {
  for (const mode of [0o777, 0o1777, 0o2777]) {
    const volume = join(safeFolder(), "volume");
    mkdirSync(join(volume, "..2026_01_02"), { recursive: true });
    writeFileSync(join(volume, "..2026_01_02", "policy.yaml"), GOOD, { mode: 0o644 });
    symlinkSync("..2026_01_02", join(volume, "..data"));
    symlinkSync("..data/policy.yaml", join(volume, "policy.yaml"));
    const path = join(volume, "policy.yaml");
    loadPolicy(path);
    chmodSync(volume, mode);
    const { hint } = refused(path, `its folder ${volume} may be written by others`);
    assert.match(
      hint,
      /^In Kubernetes mount the file by subPath, .* allowUnsafeOwner \(--allow-unsafe-owner\); docs\/trouble/,
    );
    loadPolicy(path, { allowUnsafeOwner: true });
  }
});

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Runs loadPolicy() as uid 65534 with a file of uid 65534, and returns its result. */
function saidTo65534(path: string, ...before: readonly string[]): string {
  const script = join(safeFolder(), "load.ts");
  writeFileSync(
    script,
    `import process from "node:process";
import { loadPolicy } from ${JSON.stringify(join(root, "policy/mod.ts"))};
if (process.geteuid?.() === 0) process.setuid?.(65534);
let said = "read";
try {
  loadPolicy(${JSON.stringify(path)});
} catch (error) {
  said = (error as Error).message.slice((error as Error).message.lastIndexOf(": ") + 2);
}
console.log(process.geteuid?.(), said);
`,
    { mode: 0o644 },
  );
  const [command, ...args] = [...before, ...runtimeCommand(), script];
  return execFileSync(command!, args, { encoding: "utf8", timeout: 60_000, cwd: dirname(script) });
}

testWith(
  [...asRoot, needs.userNamespace, needs.node],
  "loadPolicy() accepts a file of its own uid 65534 only when every id is mapped",
  () => {
    const path = policyFile();
    chownSync(path, 65534, 65534);
    assert.equal(saidTo65534(path), "65534 read\n");
    // In a namespace that does not map root and 4321, both read as 65534, like ourselves.
    const foreign = policyFile();
    chownSync(foreign, 4321, 4321);
    chownSync(dirname(foreign), 4321, 4321);
    for (const file of [path, foreign]) {
      assert.equal(saidTo65534(file, "unshare", "-U"), "65534 it belongs to uid 65534\n");
    }
  },
);

testFile("loadPolicy() leaves no descriptor open when it throws", () => {
  const path = policyFile();
  const before = openSync("/dev/null", "r");
  closeSync(before);
  chmodSync(path, 0o666);
  for (let i = 0; i < 20; i++) refused(path, "it may be written by others");
  chmodSync(path, 0o644);
  writeFileSync(path, "version: 2\nrules: []\n");
  for (let i = 0; i < 20; i++) assert.throws(() => loadPolicy(path));
  const now = openSync("/dev/null", "r");
  closeSync(now);
  assert.equal(now, before);
  rmSync(path);
  assert.ok(readFileSync("/dev/null").length === 0);
});
