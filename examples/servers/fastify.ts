/**
 * Fastify: Node, Deno, Bun.
 *
 *   node examples/servers/fastify.ts app.sock     (or deno run -A, or bun)
 *   curl --unix-socket app.sock http://localhost/
 */

import fastify from "fastify";
import process from "node:process";
import { type PeerRequest, requirePeer } from "../../servers/fastify.ts"; // "ucred/fastify"
import { createServer } from "../../servers/http.ts"; // "ucred/http"
import { admins, policy } from "./policy.ts";

declare module "fastify" {
  interface FastifyRequest extends PeerRequest {}
}

const app = fastify({ serverFactory: (handler) => createServer({ policy }, handler) });

app.register(requirePeer);
app.get("/", ({ peer: { uid, user = uid }, decision }) => `welcome, ${user}: ${decision.grants}\n`);
app.get("/keys", () => "secret\n");
app.post("/", () => "done\n");
app.register((area, _, done) => {
  area.register(requirePeer, { policy: admins });
  area.get("/users", () => "users\n");
  done();
}, { prefix: "/admin" });

const path = process.argv[2] ?? "app.sock";
await app.listen({ path, mode: 0o666 } as { path: string });
console.log(`Listening at ${path}`);
