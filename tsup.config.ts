import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { defineConfig } from "tsup";
import { SHELLS } from "./cli/completions.ts";
import { manual } from "./cli/man.ts";
import { programFor } from "./cli/program.ts";
import { policySchema } from "./core/policy/document/json_schema.ts";
import { VOCABULARIES } from "./interop/vocabularies.ts";

const entries = {
  mod: "mod.ts",
  policy: "policy/mod.ts",
  net: "servers/net.ts",
  http: "servers/http.ts",
  deno: "servers/deno.ts",
  bun: "servers/bun.ts",
  express: "servers/express.ts",
  fastify: "servers/fastify.ts",
  hono: "servers/hono.ts",
  koa: "servers/koa.ts",
  client: "client/mod.ts",
  audit: "servers/audit.ts",
  systemd: "servers/systemd.ts",
  datagram: "servers/datagram.ts",
  docker: "interop/docker/mod.ts",
  dbus: "interop/dbus/mod.ts",
  mcp: "interop/mcp/mod.ts",
  polkit: "interop/polkit/mod.ts",
  opa: "interop/opa/mod.ts",
  sudoers: "interop/sudoers/mod.ts",
  guard: "guard/mod.ts",
  otel: "servers/otel.ts",
  testing: "testing/mod.ts",
};

/** Separate files, so that a program that imports one of these functions gets no code of the others. */
const parts = {
  "part/credentials": "identity/credentials.ts",
  "part/define": "policy/define.ts",
};

/** Packages whose code becomes part of dist/: pinned, and devDependencies in package.json. */
const BUNDLED = [
  ...["yaml", "commander", "@xmldom/xmldom", "acorn"],
  ...["string-width", "strip-ansi", "ansi-regex", "get-east-asian-width"],
];

/** The licence of a package, whose file has one of two spellings. */
function licenceOf(name: string): string {
  const files = ["LICENSE", "license"].map((file) => `node_modules/${name}/${file}`);
  const found = files.find((file) => existsSync(file));
  if (found === undefined) throw new Error(`${files[0]} does not exist: run npm ci`);
  return found;
}

export default defineConfig({
  entry: { ...entries, ...parts, cli: "cli/main.ts" },
  // Node's own modules are part of each runtime.
  external: [/^node:/],
  // commander serves the command and is bundled, so that an installation is small. yaml is bundled in its ES module build: bundlers for Node choose its CommonJS build, whose
  // calls of require() fail in an ES module, with `Dynamic require of "process" is not supported`.
  noExternal: BUNDLED,
  format: "esm",
  platform: "neutral",
  removeNodeProtocol: false,
  target: "es2023",
  dts: { entry: entries },
  clean: true,
  sourcemap: true,
  // The JSON Schema, the manual page and the completions are generated from the code that checks policies and command lines.
  onSuccess: () => {
    for (const name of BUNDLED) {
      copyFileSync(licenceOf(name), `dist/LICENSE.${basename(name)}.txt`);
    }
    writeFileSync(
      "dist/policy.schema.json",
      `${JSON.stringify(policySchema(VOCABULARIES), null, 2)}\n`,
    );
    const program = programFor(() => {});
    writeFileSync("dist/ucred.1", `${manual(program)}\n`);
    mkdirSync("dist/completions", { recursive: true });
    for (const { script, file } of Object.values(SHELLS)) {
      writeFileSync(`dist/completions/${file}`, `${script(program)}\n`);
    }
    return Promise.resolve();
  },
});
