/**
 * `ucred/polkit`: asks polkit about a peer, and reads polkit's actions and rules.
 *
 * @module
 */

export { UcredError, type UcredErrorCode } from "../../core/errors.ts";
export type { Peer } from "../../core/peer.ts";
export type { Bus, BusConnection, BusMessage } from "../dbus/bus.ts";
export type { ImplicitAuthorization } from "./action_id.ts";
export {
  type ActionDefaults,
  formatAction,
  type NewAction,
  parseActions,
  type PolkitAction,
  readActions,
} from "./actions.ts";
export {
  type Authorization,
  type BusSender,
  checkAuthorization,
  type CheckAuthorizationOptions,
} from "./check_authorization.ts";
export { importRules, type RulesFile } from "./rules.ts";
export { polkitVocabulary } from "./vocabulary.ts";
export type { HonoContext } from "../../servers/admission/attach.ts";
export type { RequestWithPeer } from "../request_with_peer.ts";
export { type DeniedRequest, requirePolkit, type RequirePolkitOptions } from "./require_polkit.ts";
