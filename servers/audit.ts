/**
 * `ucred/audit`: the audit log, and the events that servers publish.
 *
 * @module
 */

export { type AuditLog, auditLog, type AuditOptions } from "./admission/audit.ts";
export {
  type AcceptedEvent,
  CHANNELS,
  type ClosedEvent,
  type DecidedEvent,
  type EndReason,
  type FailedEvent,
  type RefusalReason,
  type RefusedEvent,
  type ServerEvent,
} from "./admission/events.ts";
export type { LimitName } from "./admission/limits.ts";
export type { LoggedAttributes, LoggedValue } from "../core/policy/tested_attributes.ts";
