import { defineConfig } from "tsup";

export default defineConfig({
  entry: { mod: "mod.ts", policy: "policy/mod.ts" },
  // Node's own modules: the runtimes have them, and mod.ts imports none.
  external: [/^node:/],
  format: "esm",
  platform: "neutral",
  target: "es2023",
  dts: true,
  clean: true,
});
