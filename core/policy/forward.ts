/** A policy that forwards each call to another policy, which may be replaced between calls. */

import type { Peer } from "../peer.ts";
import type { DecideOptions, Decision } from "./decide/decision.ts";
import type { PlainPeer } from "./decide/subject.ts";
import type { Policy } from "./policy.ts";

/** Forwards each call to the policy that is in force at that moment. */
export abstract class ForwardingPolicy<Target extends Policy> implements Policy {
  /** The policy in force. */
  abstract get current(): Target;

  /** The policies that receive each call. */
  get consulted(): readonly Policy[] {
    return [this.current];
  }

  get needsPin(): boolean {
    return this.current.needsPin;
  }

  decide(peer: Peer | PlainPeer, options?: DecideOptions): Decision {
    return this.current.decide(peer, options);
  }

  admits(peer: Peer | PlainPeer): boolean {
    return this.current.admits(peer);
  }

  /** `undefined` if the policy in force cannot explain. */
  get explain(): Target["explain"] {
    const { current } = this;
    return current.explain?.bind(current);
  }
}
