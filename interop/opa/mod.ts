/**
 * `ucred/opa`: decisions of Open Policy Agent about peers.
 *
 * @module
 */

export { UcredError, type UcredErrorCode } from "../../core/errors.ts";
export type { Peer } from "../../core/peer.ts";
export type { Attributes } from "../../core/policy/decide/decision.ts";
export type { ServerExpectation } from "../../identity/verify_server.ts";
export type { HonoContext } from "../../servers/admission/attach.ts";
export type { RequestWithPeer } from "../request_with_peer.ts";
export {
  createOpaClient,
  type OpaClient,
  type OpaDecision,
  type OpaOptions,
  type OpaQuery,
} from "./client.ts";
export type { OpaFact } from "./input.ts";
export { type DeniedByOpa, requireOpa, type RequireOpaOptions } from "./require_opa.ts";
