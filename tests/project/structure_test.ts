/**
 * The structure of the source: which folder may import which, no circular imports between files, no
 * package behind `mod.ts`, built-in modules loaded dynamically by `adapters/` alone.
 * CONTRIBUTING.md shows the same table to people.
 */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { join as joinPath } from "node:path/posix";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const root = fileURLToPath(new URL("../..", import.meta.url));

const BELOW_GUARD = [
  "interop",
  "client",
  "servers",
  "policy",
  "identity",
  "system",
  "adapters",
  "ffi",
  "core",
];

/** Folder → folders that its files may import, beside itself. `.` holds `mod.ts`. */
const MAY_IMPORT: { readonly [folder: string]: readonly string[] } = {
  core: [],
  ffi: ["core"],
  adapters: ["ffi", "core"],
  system: ["adapters", "ffi", "core"],
  identity: ["system", "adapters", "ffi", "core"],
  policy: ["system", "core"],
  client: ["identity", "system", "core"],
  servers: ["policy", "identity", "system", "core"],
  interop: ["servers", "client", "policy", "identity", "system", "core"],
  testing: ["servers", "policy", "identity", "system", "adapters", "ffi", "core"],
  guard: BELOW_GUARD,
  cli: ["guard", ...BELOW_GUARD],
  ".": ["policy", "identity", "core"],
};

/** Folders with files that run on a server, and may import every module of Node. */
const IMPORTS_NODE = ["client", "servers", "interop", "testing", "guard", "cli"];

/** File → packages and built-in modules that it may import, beside those. */
const FOREIGN: { readonly [file: string]: readonly string[] } = {
  "adapters/bun.ts": ["bun:ffi"],
  "adapters/koffi.ts": ["node:ffi"],
  "adapters/node.ts": ["node:ffi"],
  "policy/yaml.ts": ["yaml"],
  "policy/load.ts": ["node:fs", "node:process"],
  "policy/watch.ts": ["node:fs/promises", "node:process", "node:timers"],
  "servers/hono.ts": ["hono"],
  "cli/output.ts": ["string-width"],
  "interop/polkit/rules.ts": ["acorn"],
  "interop/xml.ts": ["@xmldom/xmldom"],
  "servers/http/serve.ts": ["srvx/node"],
  "servers/otel.ts": ["@opentelemetry/api"],
  "cli/arguments.ts": ["commander"],
  "cli/commands.ts": ["commander"],
  "cli/completions.ts": ["commander"],
  "cli/man.ts": ["commander"],
  "cli/policy.ts": ["yaml"],
  "cli/policy_fmt.ts": ["yaml"],
  "cli/program.ts": ["commander"],
  "cli/suggest.ts": ["yaml"],
};

/** Path of a source file, relative to the project's root → its text. */
type Sources = ReadonlyMap<string, string>;

function readSources(): Sources {
  const folders = Object.keys(MAY_IMPORT).filter((folder) => folder !== ".");
  const files = folders.filter((folder) => existsSync(join(root, folder))).flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts"))
      .map((name) => joinPath(folder, name))
  );
  return new Map(
    ["mod.ts", ...files].map((file) => [file, readFileSync(join(root, file), "utf8")]),
  );
}

const folderOf = (file: string) => file.includes("/") ? file.slice(0, file.indexOf("/")) : ".";

interface Import {
  readonly from: string;
  /** A path relative to the root for our own files, else the specifier. */
  readonly to: string;
  readonly isOwn: boolean;
  /** Erased by the compiler: nothing is loaded. */
  readonly isType: boolean;
}

function importsOf(sources: Sources): Import[] {
  const found: Import[] = [];
  for (const [from, text] of sources) {
    const file = ts.createSourceFile(from, text, ts.ScriptTarget.Latest);
    for (const statement of file.statements) {
      if (!ts.isImportDeclaration(statement) && !ts.isExportDeclaration(statement)) continue;
      const { moduleSpecifier } = statement;
      if (moduleSpecifier === undefined || !ts.isStringLiteral(moduleSpecifier)) continue;
      const isOwn = moduleSpecifier.text.startsWith(".");
      const to = isOwn ? joinPath(from, "..", moduleSpecifier.text) : moduleSpecifier.text;
      const isType = ts.isImportDeclaration(statement)
        ? statement.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword
        : statement.isTypeOnly;
      found.push({ from, to, isOwn, isType });
    }
  }
  return found;
}

/** Imports that the tables above do not allow. */
function forbiddenImports(sources: Sources): string[] {
  return importsOf(sources).filter(({ from, to, isOwn }) => {
    const [here, there] = [folderOf(from), folderOf(to)];
    if (isOwn) return here === there ? here === "." : !MAY_IMPORT[here]?.includes(there);
    return !(IMPORTS_NODE.includes(here) && to.startsWith("node:")) && !FOREIGN[from]?.includes(to);
  }).map(({ from, to }) => `${from} imports ${to}`);
}

/** Each circular import as `a → b → a`. Imports of types count: the files cannot be read apart. */
function circularImports(sources: Sources): string[] {
  const next = new Map<string, string[]>([...sources.keys()].map((file) => [file, []]));
  for (const { from, to, isOwn } of importsOf(sources)) if (isOwn) next.get(from)!.push(to);
  const found: string[] = [];
  const finished = new Set<string>();
  const visit = (file: string, trail: readonly string[]): void => {
    const start = trail.indexOf(file);
    if (start >= 0) found.push([...trail.slice(start), file].join(" → "));
    if (start >= 0 || finished.has(file)) return;
    for (const target of next.get(file) ?? []) visit(target, [...trail, file]);
    finished.add(file);
  };
  for (const file of next.keys()) visit(file, []);
  return found;
}

/** Packages and built-in modules that loading `mod.ts` would load. */
function packagesBehindMod(sources: Sources): string[] {
  const imports = importsOf(sources).filter(({ isType }) => !isType);
  const reached = new Set(["mod.ts"]);
  for (const file of reached) {
    for (const { from, to, isOwn } of imports) if (from === file && isOwn) reached.add(to);
  }
  return imports.filter(({ from, isOwn }) => reached.has(from) && !isOwn)
    .map(({ from, to }) => `${from} imports ${to}`);
}

/** Files outside `adapters/` that load a module when they run, apart from our own files. */
function hiddenImports(sources: Sources): string[] {
  const found: string[] = [];
  for (const [name, text] of sources) {
    if (folderOf(name) === "adapters") continue;
    const file = ts.createSourceFile(name, text, ts.ScriptTarget.Latest);
    const visit = (node: ts.Node): void => {
      const isImport = ts.isCallExpression(node) &&
        node.expression.kind === ts.SyntaxKind.ImportKeyword;
      const argument = isImport ? (node as ts.CallExpression).arguments[0] : undefined;
      const isOurs = argument !== undefined && ts.isStringLiteral(argument) &&
        argument.text.startsWith(".");
      const isBuiltin = ts.isIdentifier(node) &&
        ["getBuiltinModule", "builtinModule", "createRequire", "require"].includes(node.text);
      if ((isImport && !isOurs && !ALLOWED_DYNAMIC.has(name)) || isBuiltin) found.push(name);
      ts.forEachChild(node, visit);
    };
    visit(file);
  }
  return [...new Set(found)];
}

/** Files that load a package when it is first needed, and why. */
const ALLOWED_DYNAMIC: ReadonlySet<string> = new Set(["servers/http/serve.ts"]); // srvx reads TERM

const sources = readSources();

/** The sources with one statement more in one file. */
function withLine(file: string, line: string): Sources {
  return new Map(sources).set(file, `${sources.get(file) ?? ""}\n${line}\n`);
}

test("every import follows the table of folders", () => {
  assert.ok(sources.size > 80 && importsOf(sources).length > 300, "the sources were read");
  assert.deepEqual(forbiddenImports(sources), []);
});

test("no two files import each other, directly or through others", () => {
  assert.deepEqual(circularImports(sources), []);
});

test("loading mod.ts loads no package and no built-in module", () => {
  assert.deepEqual(packagesBehindMod(sources), []);
});

test("only adapters/ loads built-in modules dynamically", () => {
  assert.deepEqual(hiddenImports(sources), []);
});

for (
  const [file, line] of [
    ["core/peer.ts", 'import "../ffi/linux.ts";'],
    ["ffi/linux.ts", 'import "../adapters/libc.ts";'],
    ["adapters/deno.ts", 'import "../identity/fd.ts";'],
    ["system/accounts.ts", 'import "../identity/fd.ts";'],
    ["identity/fd.ts", 'import "../mod.ts";'],
    ["guard/run.ts", 'import "../cli/output.ts";'],
    ["mod.ts", 'export * from "./adapters/select.ts";'],
    ["core/errors.ts", 'import "node:util";'],
    ["adapters/node.ts", 'import "koffi";'],
  ] as const
) {
  test(`the test of the table finds ${line} in ${file}`, () => {
    assert.equal(forbiddenImports(withLine(file, line)).length, 1);
  });
}

test("the test of circular imports finds one that is added, also of types alone", () => {
  const added = withLine("core/errors.ts", 'import type { Peer } from "./peer.ts";');
  assert.match(circularImports(added).join("\n"), /core\/errors\.ts → core\/peer\.ts/);
});

test("the test of mod.ts finds a package two imports away", () => {
  const added = withLine("core/errors.ts", 'import { parse } from "yaml";\nparse("");');
  assert.deepEqual(packagesBehindMod(added), ["core/errors.ts imports yaml"]);
});

for (const line of ['import("node:fs");', 'process.getBuiltinModule("node:fs");']) {
  test(`the test of dynamic imports finds ${line}`, () => {
    assert.deepEqual(hiddenImports(withLine("identity/fd.ts", line)), ["identity/fd.ts"]);
  });
}

test("mod.ts only re-exports", () => {
  const { statements } = ts.createSourceFile("", sources.get("mod.ts")!, ts.ScriptTarget.Latest);
  assert.ok(statements.length > 0);
  assert.ok(statements.every((statement) => ts.isExportDeclaration(statement)));
});

test("only identity/fd.ts reads `_handle`, an undocumented field of sockets", () => {
  const found = [...sources].filter(([, text]) => text.includes("_handle")).map(([file]) => file);
  assert.deepEqual(found, ["identity/fd.ts"]);
});
