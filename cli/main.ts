#!/usr/bin/env node
/** `ucred`, the command: makes sure that the runtime can run it before it loads the rest. */

import process from "node:process";

const { deno, bun, node = "" } = process.versions;
const [major = 0, minor = 0] = node.split(".").map(Number);
if (deno === undefined && bun === undefined && (major < 26 || (major === 26 && minor < 1))) {
  console.error(`ucred: it takes Node 26.1 or later, Deno or Bun; this is Node ${node}`);
  process.exitCode = 2;
} else {
  // No top-level await, which would be a syntax error in the oldest of them.
  import("./program.ts").then(({ run }) => run(process.argv.slice(2))).then(
    (code) => void (process.exitCode = code),
    (error) => {
      if (error.name !== "NotCapable") throw error;
      console.error(`ucred: ${error.message}`); // Deno denies even the start
      process.exitCode = 2;
    },
  );
}
