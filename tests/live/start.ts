/** Starts each kind of server without a permission, and prints the error of each as JSON. */

import { once } from "node:events";
import process from "node:process";
import { checkSupport } from "../../mod.ts";
import { withPeers } from "../../servers/deno.ts";
import { createServer as createHttpServer, serve } from "../../servers/http.ts";
import { createServer } from "../../servers/net.ts";
import { printErrors } from "../support/print_errors.ts";

const path = process.argv[2] ?? "";
const policy = "anyone";
const addr = { transport: "unix", path };
const listener = { addr, accept: () => Promise.reject(new Error("accept")), close: () => {} };

await printErrors({
  checkSupport,
  "ucred/net": () => once(createServer({ policy }).listen({ path }), "listening"),
  "ucred/http": () => once(createHttpServer({ policy }).listen({ path }), "listening"),
  serve: () => serve({ path, policy, fetch: () => new Response() }),
  withPeers: () => withPeers(listener, { policy }),
});
