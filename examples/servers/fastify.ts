/**
 * Fastify: Node, Deno, Bun.
 *
 *   node examples/servers/fastify.ts app.sock     (or deno run -A, or bun)
 *   curl --unix-socket app.sock http://localhost/
 */

import fastify from "fastify";
import process from "node:process";
import { createServer, decisionOf, peerOf } from "../../servers/http.ts"; // "ucred/http"
import { policy } from "./policy.ts";

const app = fastify({ serverFactory: (handler) => createServer({ policy }, handler) });

app.get("/", ({ raw }) => {
  const { uid, user = uid } = peerOf(raw);
  return `welcome, ${user}: ${decisionOf(raw).grants}\n`;
});
app.get("/keys", () => "secret\n");
app.post("/", () => "done\n");

const path = process.argv[2] ?? "app.sock";
await app.listen({ path, mode: 0o666 } as { path: string });
console.log(`Listening at ${path}`);
