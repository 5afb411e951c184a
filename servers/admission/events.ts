/** Events of servers, published on `node:diagnostics_channel` and written to the audit log. */

import { type Channel, channel } from "node:diagnostics_channel";
import type { UcredError } from "../../core/errors.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { LoggedAttributes } from "../../core/policy/tested_attributes.ts";
import type { LimitName } from "./limits.ts";

/**
 * Why a connection was refused: the policy allows none of the peer's actions, a limit is reached, or the
 * peer could not be identified.
 */
export type RefusalReason = "policy" | LimitName | "unidentified";

/** A connection was accepted. Published on `ucred:accepted`. */
export interface AcceptedEvent {
  /** The type of event. */
  readonly type: "accepted";
  /** The path of the server's socket. */
  readonly server: string;
  /** The connection's number: 1 for the first connection that the server accepted. */
  readonly connection: number;
  /** The peer. */
  readonly peer: Peer;
  /** The policy's decision. */
  readonly decision: Decision;
}

/** A connection was refused. Published on `ucred:refused`. */
export interface RefusedEvent {
  /** The type of event. */
  readonly type: "refused";
  /** The path of the server's socket. */
  readonly server: string;
  /** Why the connection was refused. */
  readonly why: RefusalReason;
  /** The peer; `undefined` if it could not be identified. */
  readonly peer: Peer | undefined;
  /** The policy's decision; `undefined` if the connection was refused for another reason. */
  readonly decision: Decision | undefined;
  /** The error that prevented the identification of the peer. */
  readonly error: UcredError | undefined;
}

/** A request was decided. Published on `ucred:decided`. */
export interface DecidedEvent {
  /** The type of event. */
  readonly type: "decided";
  /** The path of the server's socket. */
  readonly server: string;
  /** The connection's number: 1 for the first connection that the server accepted. */
  readonly connection: number;
  /** The peer. */
  readonly peer: Peer;
  /** The requested action. The client chose this text: escape it before you print it. */
  readonly action: string;
  /**
   * The attributes of the request that the deciding rule tested, or those that any rule tests if no rule
   * matched. The guard for Docker adds `id`, `name`, `image`, `owner` and `dangers`. Shortened; without the
   * values of secret attributes. `undefined` if there are none.
   */
  readonly attributes?: LoggedAttributes | undefined;
  /** The policy's decision. */
  readonly decision: Decision;
}

/**
 * Why a server ended a connection.
 *
 * - `drift`: the peer's credentials or process have changed since it connected.
 * - `ended`: the peer's process has ended.
 * - `pipelining`: too many pipelined HTTP requests waited for responses, or an upgrade followed requests
 *   without a response.
 * - `resets`: an HTTP/2 client of a guard ended too many streams before their responses.
 */
export type EndReason = "drift" | "ended" | "pipelining" | "resets";

/** An accepted connection has ended. Published on `ucred:closed`. */
export interface ClosedEvent {
  /** The type of event. */
  readonly type: "closed";
  /** The path of the server's socket. */
  readonly server: string;
  /** The connection's number: 1 for the first connection that the server accepted. */
  readonly connection: number;
  /** The peer. */
  readonly peer: Peer;
  /** How long the connection was open. */
  readonly milliseconds: number;
  /** Why the server ended it; `undefined` if the peer or a handler did. */
  readonly why: EndReason | undefined;
}

/**
 * A handler threw, or the policy threw while it decided a request. An HTTP client receives 500 if the
 * response had not begun; otherwise its connection is closed. Published on `ucred:failed`.
 */
export interface FailedEvent {
  /** The type of event. */
  readonly type: "failed";
  /** The path of the server's socket. */
  readonly server: string;
  /** The connection's number: 1 for the first connection that the server accepted. */
  readonly connection: number;
  /** The peer. */
  readonly peer: Peer;
  /** The error that was thrown. */
  readonly error: unknown;
}

/** Any event of a server. */
export type ServerEvent =
  | AcceptedEvent
  | RefusedEvent
  | DecidedEvent
  | ClosedEvent
  | FailedEvent;

/** The names of the `node:diagnostics_channel` channels. */
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

/** Returns whether a channel has subscribers. */
export function hasSubscribers(type: ServerEvent["type"]): boolean {
  return channels[type].hasSubscribers;
}

/** Publishes an event to the subscribers of its channel. */
export function publish(event: ServerEvent): void {
  channels[event.type].publish(event);
}
