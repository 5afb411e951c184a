import { copyFileSync, writeFileSync } from "node:fs";
import { defineConfig } from "tsup";
import { manual } from "./cli/man.ts";
import { programFor } from "./cli/program.ts";
import { policySchema } from "./core/policy/document/schema.ts";

const entries = {
  mod: "mod.ts",
  policy: "policy/mod.ts",
  net: "servers/net.ts",
  http: "servers/http.ts",
  deno: "servers/deno.ts",
  bun: "servers/bun.ts",
  hono: "servers/hono.ts",
  client: "client/mod.ts",
  audit: "servers/audit.ts",
  systemd: "servers/systemd.ts",
  datagram: "servers/datagram.ts",
  guard: "guard/mod.ts",
  otel: "servers/otel.ts",
};

export default defineConfig({
  entry: { ...entries, cli: "cli/main.ts" },
  // Node's own modules: the runtimes have them, and mod.ts imports none.
  external: [/^node:/],
  // The ES module build of yaml. Bundlers for Node choose its CommonJS build, whose calls of
  // require() fail in an ES module: "Dynamic require of "process" is not supported".
  noExternal: ["yaml"],
  format: "esm",
  platform: "neutral",
  removeNodeProtocol: false,
  target: "es2023",
  dts: { entry: entries },
  clean: true,
  // The JSON Schema and the manual page are made from the source that checks policies and command lines.
  onSuccess: () => {
    copyFileSync("node_modules/yaml/LICENSE", "dist/LICENSE.yaml.txt"); // its code is in dist/
    writeFileSync("dist/policy.schema.json", `${JSON.stringify(policySchema(), null, 2)}\n`);
    writeFileSync("dist/ucred.1", `${manual(programFor(() => {}))}\n`);
    return Promise.resolve();
  },
});
