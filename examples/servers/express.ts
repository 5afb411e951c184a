/**
 * Express: Node, Deno, Bun.
 *
 *   node examples/servers/express.ts app.sock     (or deno run -A, or bun)
 *   curl --unix-socket app.sock http://localhost/
 */

import express from "express";
import process from "node:process";
import { requirePeer } from "../../servers/express.ts"; // "ucred/express"
import { createServer, decisionOf, peerOf } from "../../servers/http.ts"; // "ucred/http"
import { admins, policy } from "./policy.ts";

const app = express();
// The policy distinguishes "/a", "/A" and "/a/", so the routes must, too.
app.enable("case sensitive routing").enable("strict routing");

app.use(requirePeer());
app.use("/admin", requirePeer(admins));
app.get("/", (request, response) => {
  const { uid, user = uid } = peerOf(request);
  response.send(`welcome, ${user}: ${decisionOf(request).grants}\n`);
});
app.get("/keys", (_, response) => void response.send("secret\n"));
app.get("/admin/users", (_, response) => void response.send("users\n"));
app.post("/", (_, response) => void response.send("done\n"));

const server = createServer({ policy }, app);
server.listen({ path: process.argv[2] ?? "app.sock", mode: 0o666 }, () => {
  console.log(`Listening at ${server.address()}`);
});
