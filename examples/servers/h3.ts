/**
 * h3: Node, Deno, Bun. With a socket of systemd, or at a path.
 *
 *   node examples/servers/h3.ts app.sock     (or deno run -A, or bun)
 *   curl --unix-socket app.sock http://localhost/
 */

import { H3 } from "h3";
import process from "node:process";
import { decisionOf, peerOf, serve } from "../../servers/http.ts"; // "ucred/http"
import { policy } from "./policy.ts";

const app = new H3();

app.use(({ req }) => void peerOf(req)); // throws for a request that has no peer: the response is 500
app.get("/", ({ req }) => {
  const { uid, user = uid } = peerOf(req);
  return `welcome, ${user}: ${decisionOf(req).grants}\n`;
});
app.get("/keys", () => "secret\n");
app.post("/", () => "done\n");

const server = await serve({
  ...(process.env["LISTEN_FDS"] === undefined
    ? { path: process.argv[2] ?? "app.sock", mode: 0o666 }
    : { systemd: true }),
  policy,
  fetch: (request) => app.fetch(request),
});
console.log(`Listening at ${server.path}`);
