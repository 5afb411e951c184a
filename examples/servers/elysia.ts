/**
 * Elysia: Bun, Node, Deno. The example passes Elysia's `fetch` to `serve()`, because Elysia's `listen()`
 * and WebSockets use `Bun.serve`, which hides the descriptors of connections. For WebSockets, use `ws`.
 *
 *   bun examples/servers/elysia.ts app.sock     (or node, or deno run -A)
 *   curl --unix-socket app.sock http://localhost/
 */

import { Elysia } from "elysia";
import process from "node:process";
import { decisionOf, peerOf, serve } from "../../servers/http.ts"; // "ucred/http"
import { policy } from "./policy.ts";

// The policy distinguishes "/a" and "/a/", so the routes must, too.
const app = new Elysia({ strictPath: true })
  .derive(({ request }) => ({ peer: peerOf(request), decision: decisionOf(request) }))
  .get("/", ({ peer: { uid, user = uid }, decision }) => `welcome, ${user}: ${decision.grants}\n`)
  .get("/keys", () => "secret\n")
  .post("/", () => "done\n");

const server = await serve({
  path: process.argv[2] ?? "app.sock",
  mode: 0o666,
  policy,
  fetch: (request) => app.fetch(request),
});
console.log(`Listening at ${server.path}`);
