/** Errors without the permission to call native functions, and the permissions that are sufficient. */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { type Abi, abiOf } from "../../ffi/abi.ts";
import { host } from "../../adapters/host.ts";
import { freshPath } from "../support/peers.ts";
import { compileProgram } from "../support/compile.ts";
import { needs, runtime, runtimeCommand, testWith } from "../support/suite.ts";

const script = fileURLToPath(new URL("ask.ts", import.meta.url));
const abi = abiOf(host().os, host().cpu) as Abi;
const libraries = abi.libraryPaths.filter((path) => existsSync(path));
const ours = { uid: process.geteuid?.() };

/** Runs ask.ts with an inherited connection and these flags of the runtime. */
function ask(flags: readonly string[]): { uid?: number; code?: string; hint?: string } {
  const program = compileProgram(new URL("descriptors.c", import.meta.url));
  const output = execFileSync(program, [...runtimeCommand(flags), script], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  return JSON.parse(output);
}

const linuxDeno = [needs.linux, needs.cc, needs.deno];
const env = "--allow-env=UCRED_DESCRIPTORS";

testWith(linuxDeno, "peerCredentials() names the missing flag, on Deno without permission", () => {
  const { code, hint } = ask([env]);
  assert.equal(code, "ERR_UCRED_PERMISSION");
  const flag = /^Run Deno with (--allow-ffi=\S+)$/.exec(hint ?? "")?.[1];
  assert.ok(flag, `a flag in: ${hint}`);
  assert.deepEqual(ask([env, flag]), ours, `${flag} is enough`);
});

testWith(
  [...linuxDeno, needs.native],
  "peerCredentials() names the existing path in the missing flag, on Deno with read permission",
  () => {
    const { code, hint } = ask([env, "--allow-read"]);
    assert.equal(code, "ERR_UCRED_PERMISSION");
    assert.equal(hint, `Run Deno with --allow-ffi=${libraries[0]}`);
    assert.deepEqual(ask([env, `--allow-ffi=${libraries[0]}`]), ours);
  },
);

for (
  const path of host().runtime === "deno" ? libraries.filter((path) => !path.includes("musl")) : []
) {
  testWith(linuxDeno, `peerCredentials() works on Deno with --allow-ffi=${path} alone`, () => {
    assert.deepEqual(ask([env, `--allow-ffi=${path}`]), ours);
  });
}

testWith(linuxDeno, "peerCredentials() works on Deno with --allow-ffi", () => {
  assert.deepEqual(ask([env, "--allow-ffi"]), ours);
});

testWith(linuxDeno, "peerCredentials() reports the denial, on Deno with --deny-ffi", () => {
  for (const flags of [[env, "--deny-ffi"], ["-A", "--deny-ffi"]]) {
    const { code, hint } = ask(flags);
    assert.equal(code, "ERR_UCRED_PERMISSION");
    assert.match(hint ?? "", /^Run Deno without --deny-ffi, with --allow-ffi=\//);
  }
});

testWith(
  linuxDeno,
  "peerCredentials() names the right path, on Deno with the flag of another distribution",
  () => {
    const missing = abi.libraryPaths.find((path) => !existsSync(path) && !path.includes("musl"));
    const { code, hint } = ask([env, `--allow-ffi=${missing}`]);
    assert.equal(code, "ERR_UCRED_PERMISSION");
    const flag = /^Run Deno with (--allow-ffi=\S+)$/.exec(hint ?? "")?.[1];
    assert.deepEqual(ask([env, flag!]), ours, `${flag} is enough`);
  },
);

testWith(
  [needs.linux, needs.cc, needs.nodeFfi],
  "peerCredentials() names the missing flag, on Node with --permission",
  () => {
    const permission = ["--permission", "--allow-fs-read=*"];
    const denied = ask(permission);
    assert.deepEqual(denied, { code: "ERR_UCRED_PERMISSION", hint: "Run Node with --allow-ffi" });
    assert.deepEqual(ask([...permission, "--allow-ffi"]), ours);
  },
);

testWith(
  [needs.linux, needs.cc, needs.koffi],
  "peerCredentials() names each missing flag, on Node without node:ffi and with --permission",
  () => {
    const read = "--allow-fs-read=*";
    const sources = ["adapters", "core", "ffi", "identity", "policy", "system", "tests", "mod.ts"]
      .map((name) => `--allow-fs-read=${join(dirname(script), "../..", name)}`);
    assert.deepEqual(ask(["--permission", "--allow-addons", ...sources]), {
      code: "ERR_UCRED_PERMISSION",
      hint: `Run Node with ${read}`,
    });
    const { code, hint } = ask(["--permission", read]);
    assert.equal(code, "ERR_UCRED_PERMISSION");
    assert.match(hint!, /^Run Node with --allow-addons/);
    assert.deepEqual(ask(["--permission", read, "--allow-addons"]), ours);
  },
);

testWith(
  [needs.linux, needs.cc, needs.nodeFfi, needs.native],
  "peerCredentials() calls libc through koffi, on Node with --no-experimental-ffi",
  () => assert.deepEqual(ask(["--no-experimental-ffi"]), ours),
);

testWith(
  [needs.linux, needs.cc, needs.nodeFfi],
  "peerCredentials() does not use koffi where --permission denies FFI",
  () => {
    const flags = ["--permission", "--allow-fs-read=*", "--allow-addons"];
    assert.equal(ask(flags).code, "ERR_UCRED_PERMISSION");
  },
);

testWith(
  [needs.linux, needs.cc, needs.node, needs.native],
  "peerCredentials() reports the denial, on Node with --no-experimental-ffi and --no-addons",
  () => {
    const { code, hint } = ask([
      ...(needs.koffi.met ? [] : ["--no-experimental-ffi"]),
      "--no-addons",
    ]);
    assert.equal(code, "ERR_UCRED_PERMISSION");
    assert.match(hint!, /without --no-addons/);
  },
);

testWith([needs.linux, needs.cc, needs.bun], "peerCredentials() works on Bun without flags", () => {
  assert.deepEqual(ask([]), ours);
});

/** Runs start.ts with these flags: returns the error of each kind of server at its start. */
function start(flags: readonly string[]): { readonly [name: string]: unknown } {
  const [command, ...args] = runtimeCommand(flags);
  const script = fileURLToPath(new URL("start.ts", import.meta.url));
  return JSON.parse(execFileSync(command, [...args, script, freshPath()], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  }));
}

testWith(
  [needs.linux, needs.deno],
  "every server fails at its start, on Deno without permission",
  () => {
    const all = ["--allow-net", "--allow-read", "--allow-write", "--allow-sys", "--allow-env"];
    for (const [name, [code, hint]] of Object.entries(start(all) as { [name: string]: string[] })) {
      assert.equal(code, "ERR_UCRED_PERMISSION", name);
      assert.match(hint!, /^Run Deno with --allow-ffi=\//, name);
    }
  },
);

testWith(
  [needs.linux, needs.deno],
  "checkSupport() ends a server of node:net, on Deno without permission",
  () => {
    const [command, ...args] = runtimeCommand(["--allow-net", "--allow-read", "--allow-write"]);
    const code = `
    import { createServer } from "node:net";
    import { checkSupport, peerCredentials } from ${
      JSON.stringify(new URL("../../mod.ts", import.meta.url))
    };
    checkSupport();
    createServer((socket) => void socket.end(String(peerCredentials(socket).uid))).listen(Deno.args[0]);
  `;
    const script = join(dirname(freshPath()), "server.ts");
    writeFileSync(script, code);
    const { status, stderr } = spawnSync(command, [...args, script, freshPath()], {
      encoding: "utf8",
      timeout: 60_000,
    });
    assert.equal(status, 1);
    assert.match(stderr, /UcredError: Cannot /);
    assert.match(stderr, /run again with the --allow-ffi flag/);
  },
);

testWith(
  [needs.linux, needs.node],
  "every server fails at its start, on Node with --permission",
  () => {
    const failures = start(["--permission", "--allow-fs-read=*", "--allow-fs-write=*"]);
    const flag = needs.koffi.met ? "--allow-addons, and without --no-addons" : "--allow-ffi";
    for (const [name, failure] of Object.entries(failures)) {
      assert.deepEqual(failure, ["ERR_UCRED_PERMISSION", `Run Node with ${flag}`], name);
    }
  },
);

/** Returns a path for open.ts, with a policy beside it. */
function pathWithPolicy(): string {
  const path = freshPath();
  writeFileSync(`${path}.yaml`, "version: 1\nrules: [{ name: all, allow: true }]\n");
  return path;
}

/** Runs open.ts at a path with these flags: each error as [code, hint], or "done". */
function open(flags: readonly string[], path: string): { readonly [name: string]: unknown } {
  const [command, ...args] = runtimeCommand(flags);
  const script = fileURLToPath(new URL("open.ts", import.meta.url));
  return JSON.parse(execFileSync(command, [...args, script, path], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  }));
}

const LISTENERS = ["serve", "ucred/net", "ucred/http"];
/** In the source, `yaml` is a package, and its build for Node reads two variables. */
const yaml = "--allow-env=LOG_TOKENS,LOG_STREAM";
const all = ["--allow-ffi", yaml, "--allow-read", "--allow-write", "--allow-net"];

/** Flags that lack one permission → what fails without it. */
const LACKING: readonly (readonly [flags: readonly string[], fail: readonly string[]])[] = [
  [all.filter((flag) => flag !== "--allow-net"), LISTENERS],
  [all.filter((flag) => flag !== "--allow-write"), [...LISTENERS, "receive"]],
  [all.filter((flag) => flag !== "--allow-read"), [...LISTENERS, "receive", "loadPolicy"]],
];

for (const [flags, fail] of LACKING) {
  testWith(
    [needs.linux, needs.deno],
    `every API has a hint with sufficient flags, on Deno without ${
      all.find((flag) => !flags.includes(flag))
    }`,
    () => {
      const path = pathWithPolicy();
      for (const [name, answer] of Object.entries(open(flags, path))) {
        if (!fail.includes(name)) {
          assert.equal(answer, "done", name);
          continue;
        }
        const [code, hint] = answer as [string, string];
        assert.equal(code, name === "loadPolicy" ? "ERR_UCRED_POLICY" : "ERR_UCRED_LISTEN", name);
        const named = /^Run Deno with (--allow-[^]*)$/.exec(hint)?.[1];
        assert.ok(named, `flags in: ${hint}`);
        assert.equal(open(["--allow-ffi", yaml, ...named.split(" ")], path)[name], "done", name);
      }
    },
  );
}

testWith(
  [needs.linux, needs.node],
  "every API has a hint with sufficient flags, on Node with --permission",
  () => {
    const path = pathWithPolicy();
    const ffi = needs.koffi.met ? "--allow-addons" : "--allow-ffi";
    const start = ["--permission", ffi, `--allow-fs-read=${dirname(script)}/../..`];
    for (const [name, answer] of Object.entries(open(start, path))) {
      const [code, hint] = answer as [string, string];
      assert.equal(code, name === "loadPolicy" ? "ERR_UCRED_POLICY" : "ERR_UCRED_LISTEN", name);
      const named = /^Run Node with (--allow-fs-[^]*)$/.exec(hint)?.[1];
      assert.ok(named, `flags in: ${hint}`);
      const flags = ["--permission", ffi, ...named.split(" ")];
      assert.equal(open(flags, path)[name], "done", name);
    }
  },
);

// Of an error that nothing catches, Deno prints neither.
testWith([needs.linux], "console.error() prints code and hint of a UcredError", () => {
  const flags = { deno: ["--allow-ffi"], bun: [], node: [] }[runtime];
  const [command, ...args] = runtimeCommand(flags);
  const script = join(dirname(freshPath()), "print.ts");
  const mod = JSON.stringify(new URL("../../mod.ts", import.meta.url));
  writeFileSync(
    script,
    `import { peerCredentials } from ${mod};\n` +
      "try { peerCredentials(2147483647); } catch (error) { console.error(error); }\n",
  );
  const { status, stderr } = spawnSync(command, [...args, script], { encoding: "utf8" });
  assert.equal(status, 0);
  assert.match(stderr, /code: ["']ERR_UCRED_NO_FD["']/);
  assert.match(stderr, /hint: ["']Read credentials in the accept handler/);
});
