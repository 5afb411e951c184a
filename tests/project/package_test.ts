/** The built package in dist/: its imports, its types, and its behaviour in old runtimes and browsers. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createContext, runInContext } from "node:vm";
import { build } from "esbuild";
import ts from "typescript";
import { VOCABULARIES } from "../../interop/vocabularies.ts";
import { policySchema } from "../../policy/mod.ts";
import { temporaryFolder } from "../support/compile.ts";
import { testWith } from "../support/suite.ts";

const { ModuleKind, resolveModuleName, sys } = ts;
const root = fileURLToPath(new URL("../..", import.meta.url));
const run = (command: string, ...args: string[]) =>
  execFileSync(command, args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

test("package.json, deno.json and CHANGELOG.md agree on the version", () => {
  const json = (name: string) => JSON.parse(readFileSync(join(root, name), "utf8"));
  const { version } = json("package.json");
  assert.equal(json("deno.json").version, version);
  assert.ok(readFileSync(join(root, "CHANGELOG.md"), "utf8").includes(`## ${version}`));
});

test("lock files name no registry, and shared packages have one version", () => {
  const folders = [
    ".",
    "bench",
    "examples/nitro",
    "examples/servers",
    "tests/mutation",
    "tests/packages",
    "tools/site",
  ];
  const versions = new Map<string, string>();
  for (const folder of folders) {
    const text = readFileSync(join(root, folder, "package-lock.json"), "utf8");
    assert.doesNotMatch(text, /https?:\/\/[^"]*\.tgz/, folder);
    const { packages } = JSON.parse(text);
    const { dependencies, devDependencies } = packages[""];
    for (const name of Object.keys({ ...dependencies, ...devDependencies })) {
      const { version } = packages[`node_modules/${name}`];
      assert.equal(version, versions.get(name) ?? version, `${name} of ${folder}`);
      versions.set(name, version);
    }
  }
});

test("mod.js and policy.js import no package, and peer dependencies are optional", () => {
  const { dependencies, peerDependencies, peerDependenciesMeta } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  );
  assert.deepEqual(Object.keys(dependencies).sort(), ["srvx"]);
  for (const name of Object.keys(peerDependencies)) {
    assert.equal(peerDependenciesMeta[name].optional, true, name);
  }
  assert.deepEqual([...outside("mod.js")], []);
  assert.deepEqual([...outside("policy.js")].filter((name) => !name.startsWith("node:")), []);
});

test("the package contains the licence of each package that it bundles", () => {
  const width = ["ansi-regex", "get-east-asian-width", "string-width", "strip-ansi"];
  for (const name of ["@xmldom/xmldom", "acorn", "commander", "yaml", ...width]) {
    const licence = readFileSync(join(root, `dist/LICENSE.${basename(name)}.txt`), "utf8");
    const file = width.includes(name) ? "license" : "LICENSE";
    assert.equal(licence, readFileSync(join(root, `node_modules/${name}/${file}`), "utf8"));
  }
});

/** The packages and built-in modules that a file in dist/ imports, directly or through other files. */
function outside(file: string): Set<string> {
  const found = new Set<string>();
  const seen = new Set([file]);
  for (const name of seen) {
    for (const [, from] of codeOf(name).matchAll(/(?:from|import) ?["']([^"']*)["']/g)) {
      if (!from!.startsWith("./")) found.add(from!);
      else seen.add(from!.slice(2).replace(/js$/, name.endsWith(".d.ts") ? "d.ts" : "js"));
    }
  }
  return found;
}

/** A file in dist/ without its comments: examples in comments contain imports. */
const codeOf = (name: string): string =>
  readFileSync(join(root, "dist", name), "utf8").replaceAll(/\/\*[\s\S]*?\*\//g, "");

test("dist/policy.schema.json is the schema that policySchema() returns for the vocabularies of the command", () => {
  const built = JSON.parse(readFileSync(join(root, "dist/policy.schema.json"), "utf8"));
  assert.deepEqual(built, JSON.parse(JSON.stringify(policySchema(VOCABULARIES))));
});

/** Entry → modules that its types import. The types of other entries import nothing. */
const TYPES_FROM: Readonly<Record<string, readonly string[]>> = {
  "client.d.ts": ["node:http", "node:net"],
  "dbus.d.ts": ["node:net"],
  "express.d.ts": ["node:http"],
  "fastify.d.ts": ["node:http"],
  "guard.d.ts": ["node:http", "node:net"],
  "hono.d.ts": ["hono"],
  "http.d.ts": ["node:http"],
  "koa.d.ts": ["node:http"],
  "net.d.ts": ["node:net"],
  "otel.d.ts": ["@opentelemetry/api"],
  "sudoers.d.ts": ["node:http", "node:net"],
  "testing.d.ts": ["node:http", "node:net", "node:stream"],
};

test("published types compile without the types of a runtime", () => {
  const declarations = readdirSync(join(root, "dist")).filter((name) => name.endsWith(".d.ts"));
  assert.ok(declarations.length > 0);
  for (const name of declarations) {
    assert.doesNotMatch(
      codeOf(name),
      /reference types|\bDeno\.|\bBun\.|NodeJS\.|(?<!Array)Buffer\b/,
    );
    assert.deepEqual([...outside(name)].sort(), TYPES_FROM[name] ?? [], name);
  }
  const folder = temporaryFolder();
  writeFileSync(
    join(folder, "user.ts"),
    'import { peerCredentials } from "ucred";\nexport const uid: number = peerCredentials(3).uid;\n',
  );
  // These libraries declare AbortSignal and Symbol.dispose, as the types of each runtime do.
  const lib = ["es2022", "esnext.disposable", "dom"];
  const options = {
    ...{ strict: true, noEmit: true, types: [], lib, skipLibCheck: false },
    ...{ module: "nodenext", target: "es2022", paths: { ucred: [join(root, "dist/mod.d.ts")] } },
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: options }));
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  run("tsc", "--project", folder);
});

// The checkout's own check uses @types/node. A user's Deno project has the types that Deno contains.
test("the source of every entry point passes deno check with the types of node: in Deno", () => {
  const { imports, exports } = JSON.parse(readFileSync(join(root, "deno.json"), "utf8")) as {
    imports: Record<string, string>;
    exports: Record<string, string>;
  };
  const resolution = { module: ModuleKind.NodeNext };
  const typesOf = (name: string) =>
    resolveModuleName(name, join(root, "mod.ts"), resolution, sys).resolvedModule!.resolvedFileName;
  const files = Object.entries(imports).map(([name, to]) => [
    name,
    pathToFileURL(to.startsWith("npm:") ? typesOf(name) : join(root, to)),
  ]);
  const config = join(temporaryFolder(), "deno.json");
  const options = { nodeModulesDir: "none", lock: false, unstable: ["sloppy-imports"] };
  writeFileSync(config, JSON.stringify({ imports: Object.fromEntries(files), ...options }));
  run("deno", "check", "--config", config, ...Object.values(exports));
});

test("every entry point of the built package passes deno check in a project without @types/node", () => {
  const folder = temporaryFolder();
  const modules = join(folder, "node_modules");
  mkdirSync(modules);
  const packages = ["@opentelemetry", "hono", "srvx"];
  for (const name of packages) symlinkSync(join(root, "node_modules", name), join(modules, name));
  cpSync(join(root, "dist"), join(modules, "ucred/dist"), { recursive: true });
  cpSync(join(root, "package.json"), join(modules, "ucred/package.json"));
  writeFileSync(
    join(folder, "package.json"),
    '{ "type": "module", "dependencies": { "ucred": "*", "hono": "*", "@opentelemetry/api": "*" } }',
  );
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const entries = Object.keys(exports).filter((name) => !name.endsWith(".json"));
  const names = entries.map((name) => `export * as "${name}" from "${join("ucred", name)}";\n`);
  writeFileSync(join(folder, "user.ts"), names.join(""));
  execFileSync("deno", ["check", "user.ts"], { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
});

test("dist/mod.js has the exports of mod.ts", async () => {
  const names = Object.keys(await import("../../mod.ts")).sort();
  assert.deepEqual(
    Object.keys(await import(new URL("../../dist/mod.js", import.meta.url).href)).sort(),
    names,
  );
});

const npmsNode = process.env["npm_node_execpath"];
const runsNpm = { name: "a Node that runs npm (start through npm)", met: npmsNode !== undefined };

testWith(
  [runsNpm],
  "the built package imports in the Node that runs npm, and a call reports the supported versions",
  () => {
    const url = new URL("../../dist/mod.js", import.meta.url).href;
    const code = `import { peerCredentials } from "${url}";
     try { console.log(typeof peerCredentials(0).uid); }
     catch ({ code, hint }) { console.log(code, hint); }`;
    const output = run(npmsNode!, "--input-type=module", "--eval", code).trim();
    // fd 0 is not a Unix socket. Without koffi, an older Node cannot call libc.
    assert.match(output, /^ERR_UCRED_UNSUPPORTED Run "npm install koffi"|^ERR_UCRED_NOT_UNIX/);
  },
);

test("the built package imports in a browser bundle, and a call reports the supported runtimes", async () => {
  const { outputFiles } = await build({
    stdin: { contents: 'export * from "./dist/mod.js";', resolveDir: root },
    ...{ bundle: true, write: false, platform: "browser", format: "iife", globalName: "ucred" },
  });
  const context = createContext({ TextEncoder, TextDecoder, performance });
  runInContext(outputFiles[0]!.text, context);
  const answer = runInContext(
    "try { ucred.peerCredentials(0) } catch ({ code, message, hint }) { [code, message, hint].join('|') }",
    context,
  );
  assert.match(
    answer,
    /^ERR_UCRED_UNSUPPORTED\|.*this runtime cannot.*\|Use Deno, Bun or Node, on Linux/,
  );
});
