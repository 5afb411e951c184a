/** What happens at a server, for who watches: on `node:diagnostics_channel`, and in the audit log. */

import { type Channel, channel } from "node:diagnostics_channel";
import type { UcredError } from "../../core/errors.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { LimitName } from "./limits.ts";

/**
 * Why a connection was refused: the policy lets none of the peer's actions through; a limit is
 * reached; or it could not be found out who the peer is.
 */
export type RefusalReason = "policy" | LimitName | "unidentified";

/** A connection was let in. On `ucred:accepted`. */
export interface AcceptedEvent {
  /** What happened. */
  readonly type: "accepted";
  /** Where the server listens. */
  readonly server: string;
  /** Counts the connections of the server. */
  readonly connection: number;
  /** Who it is. */
  readonly peer: Peer;
  /** What the policy said. */
  readonly decision: Decision;
}

/** A connection was refused. On `ucred:refused`. */
export interface RefusedEvent {
  /** What happened. */
  readonly type: "refused";
  /** Where the server listens. */
  readonly server: string;
  /** Why. */
  readonly why: RefusalReason;
  /** `undefined` if it is not known. */
  readonly peer: Peer | undefined;
  /** The policy's, if it was asked. */
  readonly decision: Decision | undefined;
  /** What kept the peer from being identified. */
  readonly error: UcredError | undefined;
}

/** A request was decided. On `ucred:decided`. */
export interface DecidedEvent {
  /** What happened. */
  readonly type: "decided";
  /** Where the server listens. */
  readonly server: string;
  /** Counts the connections of the server. */
  readonly connection: number;
  /** Who it is. */
  readonly peer: Peer;
  /** What was asked for. Of the client's choosing: escape it where you print it. */
  readonly action: string;
  /** What the policy said. */
  readonly decision: Decision;
}

/**
 * Why a server ended a connection: the peer is not who it was when it connected; its process has ended;
 * or more of its HTTP requests than a server holds waited for their answers.
 */
export type EndReason = "drift" | "ended" | "pipelining";

/** A connection that was let in has ended. On `ucred:closed`. */
export interface ClosedEvent {
  /** What happened. */
  readonly type: "closed";
  /** Where the server listens. */
  readonly server: string;
  /** Counts the connections of the server. */
  readonly connection: number;
  /** Who it is. */
  readonly peer: Peer;
  /** How long it was open. */
  readonly milliseconds: number;
  /** Why the server ended it, if it did. */
  readonly why: EndReason | undefined;
}

/**
 * A handler of the server's author threw, or the policy did when it was asked about a request. By HTTP
 * the answer is 500 if none had begun; else the connection was closed. On `ucred:failed`.
 */
export interface FailedEvent {
  /** What happened. */
  readonly type: "failed";
  /** Where the server listens. */
  readonly server: string;
  /** Counts the connections of the server. */
  readonly connection: number;
  /** Who it is. */
  readonly peer: Peer;
  /** What was thrown. */
  readonly error: unknown;
}

/** Anything that happens at a server. */
export type ServerEvent =
  | AcceptedEvent
  | RefusedEvent
  | DecidedEvent
  | ClosedEvent
  | FailedEvent;

/** The names of the channels. */
export const CHANNELS: { readonly [type in ServerEvent["type"]]: string } = {
  accepted: "ucred:accepted",
  refused: "ucred:refused",
  decided: "ucred:decided",
  closed: "ucred:closed",
  failed: "ucred:failed",
};

const channels: { readonly [type in ServerEvent["type"]]: Channel } = {
  accepted: channel(CHANNELS.accepted),
  refused: channel(CHANNELS.refused),
  decided: channel(CHANNELS.decided),
  closed: channel(CHANNELS.closed),
  failed: channel(CHANNELS.failed),
};

/** Whether anybody watches events of a type. */
export function hasSubscribers(type: ServerEvent["type"]): boolean {
  return channels[type].hasSubscribers;
}

/** Tells who watches. */
export function publish(event: ServerEvent): void {
  channels[event.type].publish(event);
}
