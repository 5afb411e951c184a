/**
 * gRPC, with @grpc/grpc-js: Node, Deno, Bun.
 *
 * ucred/net passes each accepted connection to gRPC. A gRPC call has no reference to its connection, so
 * each connection has its own `Server`, and the methods of that server know the peer.
 *
 *   node examples/servers/grpc.ts app.sock     (or deno run -A, or bun)
 *
 * Not for production on Deno 2.9.5: a client sends GOAWAY when it closes, and then an assertion in Deno's
 * HTTP/2 sometimes fails and ends the server.
 */

import {
  type sendUnaryData,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServiceDefinition,
  status,
} from "@grpc/grpc-js";
import process from "node:process";
import { definePolicy, type Peer } from "../../mod.ts"; // "ucred"
import { createServer } from "../../servers/net.ts"; // "ucred/net"

const policy = definePolicy({
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: true },
    { name: "the server's own user", when: { sameUser: true }, allow: true },
    { name: "people", when: { uid: "1000-59999" }, actions: "/hall/Welcome", allow: true },
  ],
});

// @grpc/proto-loader makes such definitions from a .proto file. Here the messages are JSON.
const method = (path: string) => ({
  path,
  requestStream: false,
  responseStream: false,
  requestSerialize: (value: string) => Buffer.from(JSON.stringify(value)),
  requestDeserialize: (bytes: Buffer) => JSON.parse(String(bytes)) as string,
  responseSerialize: (value: string) => Buffer.from(JSON.stringify(value)),
  responseDeserialize: (bytes: Buffer) => JSON.parse(String(bytes)) as string,
});

/** The methods of the service. */
export const hall = {
  Welcome: method("/hall/Welcome"),
  Name: method("/hall/Name"),
} satisfies ServiceDefinition;

/** Makes a method that runs only if the policy allows the call. */
function guarded(peer: Peer, run: (request: string) => string) {
  return (call: ServerUnaryCall<string, string>, answer: sendUnaryData<string>): void => {
    const { allowed, reason } = policy.decide(peer, { action: call.getPath() });
    if (allowed) answer(null, run(call.request));
    else answer({ code: status.PERMISSION_DENIED, details: reason });
  };
}

const server = createServer({ policy, decideAt: "action" }, (socket, peer) => {
  const { uid, user = uid } = peer;
  const grpc = new Server();
  grpc.addService(hall, {
    Welcome: guarded(peer, () => `welcome, ${user}`),
    Name: guarded(peer, (name) => `${user} is called ${name}`),
  });
  grpc.createConnectionInjector(ServerCredentials.createInsecure()).injectConnection(socket);
  socket.once("close", () => grpc.forceShutdown());
});
server.listen({ path: process.argv[2] ?? "app.sock", mode: 0o666 }, () => {
  console.log(`Listening at ${server.address()}`);
});
