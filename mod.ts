/**
 * Who is at the other end of a Unix domain socket, as the kernel knows it.
 *
 * @example Let root and one user in, nobody else
 * ```ts
 * import { createServer } from "node:net";
 * import { peerCredentials } from "ucred";
 *
 * createServer((socket) => {
 *   const { uid, pid } = peerCredentials(socket.on("error", () => {}));
 *   socket.end(uid === 0 || uid === 1000 ? "welcome\n" : "no\n");
 *   console.log({ uid, pid });
 * }).listen("app.sock");
 * ```
 *
 * @module
 */

export type { Credentials } from "./core/credentials.ts";
export type {
  Accounts,
  AnyOf,
  Condition,
  PolicyDocument,
  RuleDocument,
} from "./core/policy/document.ts";
export type { ConditionExplanation, Explanation, RuleExplanation } from "./core/policy/explain.ts";
export type { DecideOptions, Decision, Policy } from "./core/policy/policy.ts";
export type { FactName, PlainPeer, SubjectFacts } from "./core/policy/subject.ts";
export { UcredError, type UcredErrorCode, type UcredErrorDetails } from "./core/errors.ts";
export type { Fact, FactSource } from "./core/facts.ts";
export type {
  AmbiguousId,
  Drift,
  Ended,
  LiveCredentials,
  LiveId,
  Peer,
  PeerFacts,
  PeerJSON,
  PinKind,
  ProcessIds,
} from "./core/peer.ts";
export type {
  Capabilities,
  Capability,
  Namespace,
  NamespaceKind,
  Namespaces,
  ProcessFacts,
  ProcessJSON,
  ProcessSnapshot,
  ProcessValues,
  SeccompMode,
} from "./core/process.ts";
export { peerCredentials } from "./identity/credentials.ts";
export { type Datagram, receive, type ReceiveOptions, type Receiver } from "./identity/datagram.ts";
export type {
  BunSocketLike,
  IncomingMessageLike,
  NetSocketLike,
  UnixSocket,
} from "./identity/fd.ts";
export { identify, type IdentifyOptions } from "./identity/identify.ts";
export { type DefineOptions, definePolicy } from "./identity/policy.ts";
export { type ServerExpectation, verifyServer } from "./identity/verify.ts";
