/** The state of one accepted connection of a `node:http` server. */

import type { ServerResponse } from "node:http";
import type { Connection } from "./decide_request.ts";
import type { Problem } from "./problem.ts";

/** An accepted connection of a `node:http` server. */
export interface NodeConnection extends Connection {
  /** The server that has accepted it. */
  readonly server: object;
  /**
   * The final response of the connection. Later requests that the parser has already read receive it, too.
   */
  end: Problem | undefined;
  /** Responses in request order, without those that had finished when the last request arrived. */
  readonly unanswered: ServerResponse[];
  /** Requests beyond `maxRequestsPerSocket`. */
  dropped: number;
  /** Whether the connection was upgraded to another protocol. */
  isUpgraded: boolean;
  /** When the server first observed that no request is in progress, by `performance.now()`. */
  idleSince: number | undefined;
}

/** Returns the response to the last request; `undefined` if there is none. */
export function lastResponse(
  { isUpgraded, unanswered }: NodeConnection,
): ServerResponse | undefined {
  return isUpgraded ? undefined : unanswered.at(-1);
}

/** Key of each socket's connection record. */
const CONNECTION = Symbol("ucred.connection");

/** Returns the record of a socket; `undefined` if no server has accepted it. */
export function nodeConnectionOf(socket: object): NodeConnection | undefined {
  return (socket as { [CONNECTION]?: NodeConnection })[CONNECTION];
}

/** Attaches the record to a socket. */
export function attachConnection(socket: object, connection: NodeConnection): void {
  (socket as { [CONNECTION]?: NodeConnection })[CONNECTION] = connection;
}

/** Returns whether a connection has had a request and none is in progress. */
export function isIdle(connection: NodeConnection): boolean {
  const last = lastResponse(connection);
  return last !== undefined && last.writableFinished && last.req.complete;
}
