/**
 * Hono: Node, Deno, Bun.
 *
 *   node examples/servers/hono.ts app.sock     (or deno run -A, or bun)
 *   curl --unix-socket app.sock http://localhost/
 */

import { Hono } from "hono";
import process from "node:process";
import { type PeerEnv, requirePeer } from "../../servers/hono.ts"; // "ucred/hono"
import { serve } from "../../servers/http.ts"; // "ucred/http"
import { admins, policy } from "./policy.ts";

const app = new Hono<PeerEnv>();

app.use(requirePeer());
app.use("/admin/*", requirePeer(admins));
app.get("/", (context) => {
  const { uid, user = uid } = context.get("peer");
  return context.text(`welcome, ${user}: ${context.get("decision").grants}\n`);
});
app.get("/keys", (context) => context.text("secret\n"));
app.get("/admin/users", (context) => context.text("users\n"));
app.post("/", (context) => context.text("done\n"));

const server = await serve({
  path: process.argv[2] ?? "app.sock",
  mode: 0o666,
  policy,
  fetch: (request) => app.fetch(request),
});
console.log(`Listening at ${server.path}`);
