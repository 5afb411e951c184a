/** `node --import`: the tests register with Mocha, so that one process can run them again for each mutant. */

import { registerHooks } from "node:module";

const nodeTest = new URL("./node_test.ts", import.meta.url).href;

registerHooks({
  resolve(specifier, context, next) {
    if (specifier !== "node:test") return next(specifier, context);
    return { url: nodeTest, format: "module-typescript", shortCircuit: true };
  },
});
