/**
 * Elysia: Bun, Node, Deno; by its `fetch`, since `Bun.serve`, on which `listen()` rests, hides who
 * connects. WebSockets of Elysia's rest on it, too: use `ws`.
 *
 *   bun examples/servers/elysia.ts app.sock     (or node, or deno run -A)
 *   curl --unix-socket app.sock http://localhost/
 */

import { Elysia } from "elysia";
import process from "node:process";
import { decisionOf, peerOf, serve } from "../../servers/http.ts"; // "ucred/http"
import { policy } from "./policy.ts";

// The policy tells "/a" from "/a/": so should the routes.
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
