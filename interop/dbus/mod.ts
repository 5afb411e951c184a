/**
 * `ucred/dbus`: who calls a service on a D-Bus message bus, and who connects to a D-Bus server.
 *
 * @module
 */

export type { Fact, FactSource } from "../../core/facts.ts";
export type { Peer } from "../../core/peer.ts";
export { UcredError, type UcredErrorCode } from "../../core/errors.ts";
export type { Policy } from "../../core/policy/policy.ts";
export {
  authenticate,
  type Authenticated,
  type AuthenticateOptions,
  authorizePeer,
  type ClaimedIdentity,
} from "./authenticate.ts";
export type { Bus, BusConnection, BusMessage } from "./bus.ts";
export { peerOfSender } from "./caller.ts";
export { type ConnectionCredentials, connectionCredentials } from "./credentials.ts";
export { importBusPolicy } from "./import.ts";
export {
  type Caller,
  callerOf,
  type DeniedCall,
  requireCaller,
  type RequireCallerOptions,
} from "./require_caller.ts";
export { dbusVocabulary } from "./vocabulary.ts";
