/**
 * Who is at the other end of a Unix domain socket, as the kernel knows it.
 *
 * @example Let root and one user in, nobody else
 * ```ts
 * import { createServer } from "node:net";
 * import { peerCredentials } from "ucred";
 *
 * createServer((socket) => {
 *   const { uid, pid } = peerCredentials(socket);
 *   socket.end(uid === 0 || uid === 1000 ? "welcome\n" : "no\n");
 *   console.log({ uid, pid });
 * }).listen("app.sock");
 * ```
 *
 * @module
 */

export type { Credentials } from "./core/credentials.ts";
export { UcredError, type UcredErrorCode, type UcredErrorDetails } from "./core/errors.ts";
export type { Fact, FactSource } from "./core/facts.ts";
export type { AmbiguousId, Peer, PeerFacts, PeerJSON } from "./core/peer.ts";
export { peerCredentials } from "./identity/credentials.ts";
export type {
  BunSocketLike,
  IncomingMessageLike,
  NetSocketLike,
  UnixSocket,
} from "./identity/fd.ts";
export { identify } from "./identity/identify.ts";
