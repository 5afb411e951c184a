/**
 * JSON-RPC, with vscode-jsonrpc, the protocol of language servers: Node, Deno, Bun. The policy decides
 * each call by the name of its method.
 *
 *   node examples/servers/jsonrpc.ts app.sock     (or deno run -A, or bun)
 */

import process from "node:process";
import {
  createMessageConnection,
  ErrorCodes,
  ResponseError,
  SocketMessageReader,
  SocketMessageWriter,
} from "vscode-jsonrpc/node";
import { definePolicy } from "../../mod.ts"; // "ucred"
import { createServer } from "../../servers/net.ts"; // "ucred/net"

const policy = definePolicy({
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: true },
    { name: "the server's own user", when: { sameUser: true }, allow: true },
    { name: "people", when: { uid: "1000-59999" }, actions: "get/*", allow: true },
  ],
});

const server = createServer({ policy, decideAt: "action" }, (socket, peer) => {
  const { uid, user = uid } = peer;
  const connection = createMessageConnection(
    new SocketMessageReader(socket),
    new SocketMessageWriter(socket),
  );
  const methods: { readonly [name: string]: (...params: readonly unknown[]) => unknown } = {
    "get/welcome": () => `welcome, ${user}`,
    "set/name": (name) => `${user} is called ${name}`,
  };
  connection.onRequest((method, params) => {
    const { allowed, reason } = policy.decide(peer, { action: method });
    if (!allowed) return new ResponseError(ErrorCodes.InvalidRequest, reason);
    const run = Object.hasOwn(methods, method) ? methods[method] : undefined;
    if (run === undefined) return new ResponseError(ErrorCodes.MethodNotFound, method);
    return run(...Array.isArray(params) ? params : [params]);
  });
  connection.listen();
});
server.listen({ path: process.argv[2] ?? "app.sock", mode: 0o666 }, () => {
  console.log(`Listening at ${server.address()}`);
});
