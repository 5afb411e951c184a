/** The second argument of fetch-style handlers. */

import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";

/** The peer and the decision of a request. */
export interface FetchContext {
  /** The peer that sent the request. */
  readonly peer: Peer;
  /** The policy's decision about the request. */
  readonly decision: Decision;
}
