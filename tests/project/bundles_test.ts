/** Bundlers accept the package, and importing its entry points has no side effects. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFileSync, cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build, type BuildOptions } from "esbuild";
import { rollup } from "rollup";
import { temporaryFolder } from "../support/compile.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
/** The import specifiers of the entry points: "ucred", "ucred/policy" and so on. */
const entries = Object.keys(exports).filter((name) => !name.endsWith(".json"))
  .map((name) => name.replace(".", "ucred"));

/** A user's project in which the package is installed. */
const project = temporaryFolder();
const modules = join(project, "node_modules");
cpSync(join(root, "dist"), join(modules, "ucred/dist"), { recursive: true });
copyFileSync(join(root, "package.json"), join(modules, "ucred/package.json"));
const others = ["srvx", "hono", "@opentelemetry"];
for (const name of others) symlinkSync(join(root, "node_modules", name), join(modules, name));
const dependencies = { ucred: "*", "@opentelemetry/api": "*" };
writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module", dependencies }));

const file = (name: string, text: string): string => {
  writeFileSync(join(project, name), text);
  return join(project, name);
};

const names = entries.map((name, index) => `import * as entry${index} from "${name}";`).join("\n");
const main = file(
  "main.js",
  `${names}
import { parsePolicy } from "ucred/policy";
import { serve } from "ucred/http";
import { createClient } from "ucred/client";

const all = [${entries.map((_, index) => `entry${index}`).join()}];
if (all.some((entry) => Object.keys(entry).length === 0)) throw new Error("an entry is empty");
const policy = parsePolicy("version: 1\\nrules: [{ name: we, when: { sameUser: true }, allow: true }]");
const path = "\\0ucred-bundle-" + process.pid;
const fetch = (request, { peer }) => new Response("uid " + peer.uid);
const server = await serve({ path, policy, engine: "node:http", fetch });
const client = createClient({ path, expect: { uid: process.getuid() } });
console.log(await (await client.fetch("http://localhost/")).text());
client.close();
await server.close();
`,
);

const RUNTIMES: readonly (readonly [name: string, line: readonly string[]])[] = [
  ["Node", ["node", "--disable-warning=ExperimentalWarning"]],
  ["Deno", ["deno", "run", "-A", "--no-prompt"]],
  ["Bun", ["bun"]],
];

const execute = promisify(execFile);

async function run([command, ...args]: readonly string[], cwd = project): Promise<string> {
  const { stdout, stderr } = await execute(command!, args, { cwd });
  assert.equal(stderr, "");
  return stdout;
}

async function byEsbuild(options: BuildOptions): Promise<void> {
  const own: BuildOptions = {
    entryPoints: [main],
    bundle: true,
    format: "esm",
    logLevel: "silent",
  };
  const { warnings } = await build({ ...own, ...options });
  assert.deepEqual(warnings, []);
}

/** Bundler → function that bundles `main` into one file, and returns its path if that is not `outfile`. */
const BUNDLERS: { readonly [name: string]: (outfile: string) => Promise<unknown> } = {
  "esbuild for Node": (outfile) => byEsbuild({ outfile, platform: "node" }),
  "esbuild for Node, minified": (outfile) => byEsbuild({ outfile, platform: "node", minify: true }),
  "esbuild for any platform": (outfile) =>
    byEsbuild({ outfile, platform: "neutral", external: ["node:*"] }),
  rollup: async () => {
    const bundle = await rollup({
      input: main,
      external: /^node:|^@opentelemetry\//,
      plugins: [{
        name: "packages",
        // Resolves to the file that Node imports, like rollup's own plugin.
        resolveId: (name) => /^[a-z]/.test(name) ? fileURLToPath(import.meta.resolve(name)) : null,
      }],
    });
    await bundle.write({ dir: join(project, "rollup"), format: "esm", entryFileNames: "main.mjs" });
    return join(project, "rollup/main.mjs");
  },
  tsup: async () => {
    const config = file(
      "tsup.config.js",
      `export default { entry: ["main.js"], format: "esm", outDir: "tsup", outExtension: () => ({ js: ".mjs" }),
         platform: "node", noExternal: [/^ucred/, /^srvx/], silent: true };`,
    );
    await run(["tsup", "--config", config]);
    return join(project, "tsup/main.mjs");
  },
  "bun build": (outfile) =>
    run(["bun", "build", main, "--target=node", "--format=esm", `--outfile=${outfile}`]),
};

for (const [bundler, bundle] of Object.entries(BUNDLERS)) {
  test(`a bundle of all entry points by ${bundler} runs on each runtime`, async () => {
    const outfile = join(project, `${bundler.replaceAll(/\W+/g, "_")}.mjs`);
    const made = await bundle(outfile);
    const output = typeof made === "string" && made.startsWith("/") ? made : outfile;
    const ran = await Promise.all(RUNTIMES.map(([, line]) => run([...line, output])));
    assert.deepEqual(ran, RUNTIMES.map(() => `uid ${process.getuid!()}\n`));
  });
}

/** Function → the most bytes that a minified bundle of it alone may have. */
const MAX_BUNDLE_BYTES: { readonly [name: string]: number } = {
  peerCredentials: 25_000,
  definePolicy: 50_000,
};

for (const [name, limit] of Object.entries(MAX_BUNDLE_BYTES)) {
  test(`a minified bundle of ${name}() alone has less than ${limit} bytes`, async () => {
    const entry = file(`${name}.js`, `export { ${name} } from "ucred";\n`);
    const outfile = join(project, `${name}.min.mjs`);
    await byEsbuild({ entryPoints: [entry], outfile, platform: "node", minify: true });
    const { length } = readFileSync(outfile);
    assert.ok(length < limit, `${length} bytes`);
    assert.deepEqual(Object.keys(await import(outfile)), [name]);
  });
}

/** A program that imports each entry, and prints new globals, new process listeners and errors. */
const importing = (list: readonly string[]): string => `
const seen = () => [...Object.getOwnPropertyNames(globalThis), ...process.eventNames()];
const before = seen();
for (const load of [${list.map((name) => `() => import("${name}")`).join()}]) {
  await load().catch((error) => console.log(String(load), String(error)));
}
// Deno itself defines nodeBootstrap when it loads an npm package.
const added = seen().filter((name) => !before.includes(name) && name !== "nodeBootstrap");
if (added.length > 0) console.log(added.join());
`;

const { imports } = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
const sources = entries.map((name) => new URL(imports[name], `file://${root}`).href);

for (const [what, list] of [["source", sources], ["package", entries]] as const) {
  test(`importing any entry point of the ${what} needs no permission, defines no global and prints nothing`, async () => {
    const importer = file(`${what}.mjs`, importing(list));
    const config = ["--config", join(root, "deno.json")];
    const lines = [
      ["deno", "run", "--no-prompt", ...(what === "source" ? config : []), importer],
      ["bun", importer],
      ["node", "--permission", "--allow-fs-read=*", importer],
    ];
    assert.deepEqual(await Promise.all(lines.map((line) => run(line))), ["", "", ""]);
  });
}
