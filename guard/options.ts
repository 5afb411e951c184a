/** Options and the running guard, as its callers see them. */

import type { Policy } from "../core/policy/policy.ts";
import type { ServerExpectation } from "../identity/verify_server.ts";
import type { AuditLog } from "../servers/admission/audit.ts";
import type { Limits } from "../servers/admission/limits.ts";
import type { SafeServer } from "../servers/listen/lifecycle.ts";

/** What a guard needs, whatever it understands of the bytes. */
export interface GuardOptions {
  readonly policy: Policy | undefined;
  readonly limits: Limits;
  readonly audit: AuditLog | undefined;
  /** Where the server behind listens. */
  readonly upstream: string;
  /** Who it has to be. */
  readonly expect: ServerExpectation | undefined;
  /** Whether connections may be upgraded to HTTP/2, whose requests are not decided. */
  readonly h2c: boolean;
  /** Names of headers, in lower case, that are passed although a proxy alone should set them. */
  readonly keepHeaders: ReadonlySet<string>;
}

/** A server of `ucred/net` or `ucred/http`. */
export type GuardServer = SafeServer & {
  once(event: "error", run: (error: Error) => void): unknown;
  off(event: "error", run: (error: Error) => void): unknown;
  address(): unknown;
};
