#!/usr/bin/env node
/** The `ucred` command: checks the runtime's version before it loads the rest. */

import process from "node:process";

if (!process["getBuiltinModule"]) {
  console.error(
    `ucred: Node 20.16, Node 22.3 or later, Deno or Bun is required; this is Node ${process.versions.node}`,
  );
  process.exitCode = 2;
} else {
  // Top-level await would be a syntax error in old versions of Node.
  import("./program.ts").then(({ run }) => run(process.argv.slice(2))).then(
    (code) => void (process.exitCode = code),
    (error) => {
      if (error.name !== "NotCapable") throw error;
      console.error(`ucred: ${error.message}`); // without any permission in Deno
      process.exitCode = 2;
    },
  );
}
