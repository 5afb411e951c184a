/**
 * Koa: Node, Deno, Bun.
 *
 *   node examples/servers/koa.ts app.sock     (or deno run -A, or bun)
 *   curl --unix-socket app.sock http://localhost/
 */

import Koa from "koa";
import process from "node:process";
import { createServer, decisionOf, peerOf } from "../../servers/http.ts"; // "ucred/http"
import { policy } from "./policy.ts";

const app = new Koa();

app.use((context) => {
  if (context.path === "/keys") context.body = "secret\n";
  if (context.path !== "/") return;
  const { uid, user = uid } = peerOf(context.req);
  const { grants } = decisionOf(context.req);
  context.body = context.method === "GET" ? `welcome, ${user}: ${grants}\n` : "done\n";
});

const server = createServer({ policy }, app.callback());
server.listen({ path: process.argv[2] ?? "app.sock", mode: 0o666 }, () => {
  console.log(`Listening at ${server.address()}`);
});
