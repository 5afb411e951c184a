/** Starts each kind of server without a permission, and prints the error of each as JSON. */

import { once } from "node:events";
import process from "node:process";
import { checkSupport, type UcredError } from "../../mod.ts";
import { withPeers } from "../../servers/deno.ts";
import { createServer as createHttpServer, serve } from "../../servers/http.ts";
import { createServer } from "../../servers/net.ts";

const path = process.argv[2] ?? "";
const policy = "anyone";
const addr = { transport: "unix", path };
const listener = { addr, accept: () => Promise.reject(new Error("accept")), close: () => {} };

const STARTS: { readonly [name: string]: () => unknown } = {
  checkSupport,
  "ucred/net": () => once(createServer({ policy }).listen({ path }), "listening"),
  "ucred/http": () => once(createHttpServer({ policy }).listen({ path }), "listening"),
  serve: () => serve({ path, policy, fetch: () => new Response() }),
  withPeers: () => withPeers(listener, { policy }),
};

const failures: { [name: string]: unknown } = {};
for (const [name, start] of Object.entries(STARTS)) {
  try {
    await start();
    failures[name] = "it started";
  } catch (error) {
    const { code, hint } = error as UcredError;
    failures[name] = [code, hint];
  }
}
console.log(JSON.stringify(failures));
process.exit();
