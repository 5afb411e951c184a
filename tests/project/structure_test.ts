/** The house: which folder may import which. CONTRIBUTING.md shows the same table to people. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import ts from "typescript";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Folder → folders that its files may import from, beside itself. */
const MAY_IMPORT: { readonly [folder: string]: readonly string[] } = {
  core: [],
  ffi: ["core"],
  adapters: ["ffi", "core"],
  identity: ["adapters", "ffi", "core"],
  policy: ["identity", "core"],
  servers: ["identity", "core"],
  cli: ["servers", "policy", "identity", "adapters", "core"],
  ".": ["identity", "core"],
};

/** What may be imported beside our own files: types of the runtimes' own modules, and what reads files. */
const FOREIGN: { readonly [file: string]: readonly string[] } = {
  "adapters/bun.ts": ["bun:ffi"],
  "adapters/node.ts": ["node:ffi"],
  "policy/yaml.ts": ["yaml"],
  "policy/load.ts": ["node:fs", "node:process"],
  "servers/http/serve.ts": ["srvx/node"],
  "servers/hono.ts": ["hono"],
  "servers/otel.ts": ["@opentelemetry/api"],
  "cli/completions.ts": ["commander"],
  "cli/program.ts": ["commander"],
  "cli/man.ts": ["commander"],
  "guard/http.ts": ["httpxy"],
  "cli/policy.ts": ["yaml"],
  "policy/watch.ts": ["node:fs/promises", "node:process", "node:timers"],
};

interface Import {
  readonly from: string;
  readonly to: string;
}

function filesOf(folder: string): string[] {
  const entries = readdirSync(join(root, folder), { recursive: folder !== ".", encoding: "utf8" });
  const files = entries.filter((name) => name.endsWith(".ts") && name !== "tsup.config.ts");
  return files.map((name) => join(folder, name));
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(root, file), "utf8");
  return ts.preProcessFile(text).importedFiles.map(({ fileName }) => ({
    from: file,
    to: fileName,
  }));
}

/** Why an import goes against the arrows, or undefined. */
function objection({ from, to }: Import): string | undefined {
  if (!to.startsWith(".")) {
    const isRuntimes = /^(servers|cli)\//.test(from) && to.startsWith("node:");
    return isRuntimes || FOREIGN[from]?.includes(to)
      ? undefined
      : `${from} imports ${to}: the library has no dependency`;
  }
  const folder = (file: string) => file.includes("/") ? file.slice(0, file.indexOf("/")) : ".";
  const target = relative(root, join(root, dirname(from), to));
  const [here, there] = [folder(from), folder(target)];
  if (here === there && here !== ".") return undefined;
  return MAY_IMPORT[here]?.includes(there) ? undefined : `${from} imports ${target}`;
}

test("no import goes against the arrows", () => {
  const files = Object.keys(MAY_IMPORT).flatMap(filesOf);
  const imports = files.flatMap(importsOf);
  assert.ok(files.length > 20 && imports.length > 50, "there are files and imports to check");
  assert.deepEqual(imports.map(objection).filter((why) => why !== undefined), []);
});

test("an import against the arrows is found", () => {
  for (
    const [from, to] of [
      ["core/peer.ts", "../ffi/linux.ts"],
      ["ffi/linux.ts", "../adapters/libc.ts"],
      ["adapters/deno.ts", "../identity/fd.ts"],
      ["identity/fd.ts", "../mod.ts"],
      ["mod.ts", "./adapters/select.ts"],
      ["core/errors.ts", "node:util"],
      ["adapters/node.ts", "koffi"],
    ] as const
  ) {
    assert.notEqual(objection({ from, to }), undefined, `${from} → ${to}`);
  }
});

test("mod.ts only re-exports", () => {
  const text = readFileSync(join(root, "mod.ts"), "utf8");
  const { statements } = ts.createSourceFile("mod.ts", text, ts.ScriptTarget.Latest);
  assert.ok(statements.length > 0);
  assert.ok(statements.every((statement) => ts.isExportDeclaration(statement)));
});

test("only identity/fd.ts touches undocumented fields of sockets", () => {
  const touching = Object.keys(MAY_IMPORT).flatMap(filesOf)
    .filter((file) => readFileSync(join(root, file), "utf8").includes("_handle"));
  assert.deepEqual(touching, ["identity/fd.ts"]);
});
