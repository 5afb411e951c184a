/** A policy that answers as another one does. */

import type { Peer } from "../peer.ts";
import type { DecideOptions, Decision } from "./decide/decision.ts";
import type { PlainPeer } from "./decide/subject.ts";
import type { Policy } from "./policy.ts";

/** Every question goes to the policy that is in force when it is asked. */
export abstract class ForwardingPolicy implements Policy {
  /** The policy in force. */
  abstract get current(): Policy;

  get needsPin(): boolean {
    return this.current.needsPin;
  }

  decide(peer: Peer | PlainPeer, options?: DecideOptions): Decision {
    return this.current.decide(peer, options);
  }

  admits(peer: Peer | PlainPeer): boolean {
    return this.current.admits(peer);
  }

  explain(...call: Parameters<Policy["explain"]>): ReturnType<Policy["explain"]> {
    return this.current.explain(...call);
  }

  lint(...call: Parameters<Policy["lint"]>): ReturnType<Policy["lint"]> {
    return this.current.lint(...call);
  }

  who(...call: Parameters<Policy["who"]>): ReturnType<Policy["who"]> {
    return this.current.who(...call);
  }

  test(): ReturnType<Policy["test"]> {
    return this.current.test();
  }
}
