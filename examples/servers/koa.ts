/**
 * Koa: Node, Deno, Bun.
 *
 *   node examples/servers/koa.ts app.sock     (or deno run -A, or bun)
 *   curl --unix-socket app.sock http://localhost/
 */

import Koa from "koa";
import process from "node:process";
import { createServer } from "../../servers/http.ts"; // "ucred/http"
import { type PeerState, requirePeer } from "../../servers/koa.ts"; // "ucred/koa"
import { admins, policy } from "./policy.ts";

const app = new Koa<PeerState>();
const checkAdmins = requirePeer(admins);

app.use(requirePeer());
app.use((context, next) =>
  context.path.startsWith("/admin/") ? checkAdmins(context, next) : next()
);
app.use((context) => {
  const { uid, user = uid } = context.state.peer;
  const { grants } = context.state.decision;
  const welcome = context.method === "GET" ? `welcome, ${user}: ${grants}\n` : "done\n";
  const pages = { "/": welcome, "/keys": "secret\n", "/admin/users": "users\n" };
  const page = new Map(Object.entries(pages)).get(context.path);
  if (page !== undefined) context.body = page; // otherwise 404
});

const server = createServer({ policy }, app.callback());
server.listen({ path: process.argv[2] ?? "app.sock", mode: 0o666 }, () => {
  console.log(`Listening at ${server.address()}`);
});
