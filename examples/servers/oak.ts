/**
 * oak: Node, Deno, Bun.
 *
 *   deno run -A examples/servers/oak.ts app.sock     (or node, or bun)
 *   curl --unix-socket app.sock http://localhost/
 */

import { Application, Router } from "@oakserver/oak";
import process from "node:process";
import { decisionOf, peerOf, serve } from "../../servers/http.ts"; // "ucred/http"
import { policy } from "./policy.ts";

// The policy distinguishes "/a", "/A" and "/a/", so the routes must, too.
const router = new Router({ sensitive: true, strict: true });

router.get("/", ({ request, response }) => {
  const { uid, user = uid } = peerOf(request.source!);
  response.body = `welcome, ${user}: ${decisionOf(request.source!).grants}\n`;
});
router.get("/keys", ({ response }) => void (response.body = "secret\n"));
router.post("/", ({ response }) => void (response.body = "done\n"));

const app = new Application();
app.use(router.routes(), router.allowedMethods());

// In oak's npm package, the types Request and Response are those of undici.
const handle = app.handle as unknown as (request: Request) => Promise<Response | undefined>;

const server = await serve({
  path: process.argv[2] ?? "app.sock",
  mode: 0o666,
  policy,
  fetch: async (request) => await handle(request) ?? new Response(null, { status: 404 }),
});
console.log(`Listening at ${server.path}`);
