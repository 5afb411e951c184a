/**
 * WebSockets, with ws: Node, Deno, Bun. The policy decides about the request that starts a WebSocket.
 *
 *   node examples/servers/websocket.ts app.sock     (or deno run -A, or bun)
 */

import process from "node:process";
import { WebSocketServer } from "ws";
import { createServer, decisionOf, peerOf } from "../../servers/http.ts"; // "ucred/http"
import { policy } from "./policy.ts";

const sockets = new WebSocketServer({ noServer: true });

sockets.on("connection", (socket, request) => {
  const { uid, user = uid } = peerOf(request);
  socket.send(`welcome, ${user}: ${decisionOf(request).grants}`);
  socket.on("message", (data) => socket.send(`${user} says ${data}`));
});

const server = createServer({ policy }, (_, response) => void response.writeHead(426).end());
server.on("upgrade", (request, socket, head) => {
  sockets.handleUpgrade(request, socket, head, (client) => {
    sockets.emit("connection", client, request);
  });
});
server.listen({ path: process.argv[2] ?? "app.sock", mode: 0o666 }, () => {
  console.log(`Listening at ${server.address()}`);
});
