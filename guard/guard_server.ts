/** The handle of a running guard: that of a server, with its own counters and the probe of the upstream. */

import {
  DEFAULT_CONNECTIONS,
  DEFAULT_CONNECTIONS_PER_USER,
  type Limits,
} from "../servers/admission/limits.ts";
import type { SafeServer } from "../servers/listen/lifecycle.ts";
import type { GuardServer } from "./options.ts";
import type { GuardStats, RequestCounters } from "./stats.ts";
import type { Upstream } from "./upstream.ts";

/** Makes a guard of a server. */
export function guardServerOf(
  server: SafeServer,
  upstream: Upstream,
  {
    connections = DEFAULT_CONNECTIONS,
    connectionsPerUser = DEFAULT_CONNECTIONS_PER_USER,
    acceptsPerSecond = Infinity,
  }: Limits = {},
  requests?: RequestCounters,
): GuardServer {
  const ofServer = server.stats.bind(server);
  const limits = { connections, connectionsPerUser, acceptsPerSecond };
  const more = {
    stats: (): GuardStats => {
      const { failures, waiting } = upstream;
      return {
        ...ofServer(),
        ...{ requests: requests?.stats(), upstream: { failures, waiting }, limits },
      };
    },
    probeUpstream: () => upstream.probe(),
  };
  return Object.assign(server, more) as unknown as GuardServer;
}
