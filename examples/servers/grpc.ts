/**
 * gRPC, by @grpc/grpc-js: Node, Deno, Bun.
 *
 * ucred/net accepts, and hands each connection that was let in over to gRPC. A call does not tell which
 * connection it came over; so each connection has a `Server` of its own, whose methods know the peer.
 *
 *   node examples/servers/grpc.ts app.sock     (or deno run -A, or bun)
 *
 * Not for production on Deno 2.9.5: an assertion in its HTTP/2 fails now and then when a client says
 * GOAWAY, as it does when it is closed, and ends the server.
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
    { name: "people look", when: { uid: "1000-59999" }, actions: "/hall/Welcome", allow: true },
  ],
});

// As @grpc/proto-loader makes it of a .proto file; here the messages are JSON.
const method = (path: string) => ({
  path,
  requestStream: false,
  responseStream: false,
  requestSerialize: (value: string) => Buffer.from(JSON.stringify(value)),
  requestDeserialize: (bytes: Buffer) => JSON.parse(String(bytes)) as string,
  responseSerialize: (value: string) => Buffer.from(JSON.stringify(value)),
  responseDeserialize: (bytes: Buffer) => JSON.parse(String(bytes)) as string,
});

/** What the server offers. */
export const hall = {
  Welcome: method("/hall/Welcome"),
  Name: method("/hall/Name"),
} satisfies ServiceDefinition;

/** A method that the policy is asked about. */
function asked(peer: Peer, run: (request: string) => string) {
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
    Welcome: asked(peer, () => `welcome, ${user}`),
    Name: asked(peer, (name) => `${user} is called ${name}`),
  });
  grpc.createConnectionInjector(ServerCredentials.createInsecure()).injectConnection(socket);
  socket.once("close", () => grpc.forceShutdown());
});
server.listen({ path: process.argv[2] ?? "app.sock", mode: 0o666 }, () => {
  console.log(`Listening at ${server.address()}`);
});
