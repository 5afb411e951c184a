/**
 * Identifies the process at the other end of a Unix domain socket, as the kernel recorded it.
 *
 * @example Accept only root and one user
 * ```ts
 * import { createServer } from "node:net";
 * import { checkSupport, peerCredentials } from "ucred";
 *
 * checkSupport(); // throws an error if peers cannot be identified here
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
  AttributeCondition,
  Condition,
  PolicyDocument,
  RuleDocument,
  TestDocument,
  TestPeer,
  TextsCondition,
} from "./core/policy/document/types.ts";
export type {
  ConditionExplanation,
  Explanation,
  RuleExplanation,
} from "./core/policy/analyze/explain.ts";
export type { Attributes, DecideOptions, Decision } from "./core/policy/decide/decision.ts";
export type { Policy, RulePolicy } from "./core/policy/policy.ts";
export type { AttributeFact, FactName, PlainPeer } from "./core/policy/decide/subject.ts";
export {
  type PolicyProblem,
  UcredError,
  type UcredErrorCode,
  type UcredErrorDetails,
} from "./core/errors.ts";
export type { Fact, FactSource } from "./core/facts.ts";
export type {
  AmbiguousId,
  CredentialDrift,
  EndedProcess,
  LiveCredentials,
  Peer,
  PeerFacts,
  PeerJSON,
  PinKind,
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
export type {
  BunSocketLike,
  IncomingMessageLike,
  NetSocketLike,
  UnixSocket,
} from "./identity/fd.ts";
export { identify, type IdentifyOptions } from "./identity/identify.ts";
export { type DefineOptions, definePolicy } from "./policy/define.ts";
export { checkSupport } from "./identity/support.ts";
export { type ServerExpectation, verifyServer } from "./identity/verify_server.ts";
