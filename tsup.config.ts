import { writeFileSync } from "node:fs";
import { defineConfig } from "tsup";
import { policySchema } from "./core/policy/definition.ts";

export default defineConfig({
  entry: {
    mod: "mod.ts",
    policy: "policy/mod.ts",
    net: "servers/net.ts",
    http: "servers/http.ts",
    deno: "servers/deno.ts",
    bun: "servers/bun_listen.ts",
    hono: "servers/hono.ts",
    client: "servers/client.ts",
    otel: "servers/otel.ts",
  },
  // Node's own modules: the runtimes have them, and mod.ts imports none.
  external: [/^node:/],
  format: "esm",
  platform: "neutral",
  removeNodeProtocol: false,
  target: "es2023",
  dts: true,
  clean: true,
  // For editors; the definition that checks policies also makes their schema.
  onSuccess: () => {
    writeFileSync("dist/policy.schema.json", `${JSON.stringify(policySchema(), null, 2)}\n`);
    return Promise.resolve();
  },
});
