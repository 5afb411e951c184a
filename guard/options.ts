/** Options of a guard, and the server that it is. */

import type { Policy } from "../core/policy/policy.ts";
import type { ServerExpectation } from "../identity/verify_server.ts";
import type { AuditLog } from "../servers/admission/audit.ts";
import type { Limits } from "../servers/admission/limits.ts";
import type { SafeServer } from "../servers/listen/lifecycle.ts";

/** Options of `createGuard()`. */
export interface GuardOptions {
  /**
   * `"stream"` decides each connection and passes bytes in both directions; `"http"` decides each
   * request by `METHOD /path` and adds the peer's identity as headers.
   */
  readonly mode: "stream" | "http";
  /** The upstream's socket: a path, or an abstract name with "\0" first. */
  readonly upstream: string;
  /** Who the upstream has to be; checked before the first byte is sent to it. */
  readonly expect?: ServerExpectation | undefined;
  /** Who may do what. By default only root and our own user. */
  readonly policy?: Policy | undefined;
  /** By default those of `ucred/net`, or fewer if the process may open fewer files. */
  readonly limits?: Limits | undefined;
  /** Records connections and decisions. */
  readonly audit?: AuditLog | undefined;
  /**
   * Whether clients may upgrade to HTTP/2 in `"http"` mode. The requests inside are not decided. By
   * default `false`.
   */
  readonly h2c?: boolean | undefined;
  /** Names of headers that are passed on, although they usually are a trusted proxy's to set. */
  readonly keepHeaders?: readonly string[] | undefined;
  /**
   * Receives one line about each problem that an operator should see: the upstream cannot be reached,
   * or the limits had to be lowered. Control characters are escaped. By default nothing is reported.
   */
  readonly report?: ((line: string) => void) | undefined;
}

/** A guard: a server of `ucred/net` or `ucred/http`. */
export type GuardServer = SafeServer & {
  once(event: "error", run: (error: Error) => void): unknown;
  off(event: "error", run: (error: Error) => void): unknown;
  address(): unknown;
};
