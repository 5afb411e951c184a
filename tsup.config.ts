import { defineConfig } from "tsup";

export default defineConfig({
  entry: ["mod.ts"],
  format: "esm",
  platform: "neutral",
  target: "es2023",
  dts: true,
  clean: true,
});
