/**
 * Connect-RPC: Node, Deno, Bun. The policy decides each call by its path, "/package.Service/Method".
 *
 *   node examples/servers/connect.ts app.sock     (or deno run -A, or bun)
 *   curl --unix-socket app.sock --json '{}' http://localhost/hall.Hall/Welcome
 */

import { createContextKey, createContextValues, type Interceptor } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import process from "node:process";
import { definePolicy } from "../../mod.ts"; // "ucred"
import { createServer, peerOf, type RequestLike } from "../../servers/http.ts"; // "ucred/http"
import { Hall } from "./hall_pb.ts"; // by protoc-gen-es, from hall.proto

const policy = definePolicy({
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: true },
    { name: "people", when: { uid: "1000-59999" }, actions: "* /hall.Hall/Welcome", allow: true },
  ],
});
const kRequest = createContextKey<RequestLike>({});
// peerOf() throws for a request that has no peer.
const requirePeer: Interceptor = (next) => (call) =>
  peerOf(call.contextValues.get(kRequest)) && next(call);
const app = connectNodeAdapter({
  contextValues: (request) => createContextValues().set(kRequest, request),
  interceptors: [requirePeer],
  routes: (router) =>
    router.service(Hall, {
      welcome: (_, { values }) => ({ text: `welcome, uid ${peerOf(values.get(kRequest)).uid}` }),
      name: ({ text }) => ({ text: `the name is ${text}` }),
    }),
});
const server = createServer({ policy }, app);
server.listen({ path: process.argv[2] ?? "app.sock", mode: 0o666 }, () => {
  console.log(`Listening at ${server.address()}`);
});
