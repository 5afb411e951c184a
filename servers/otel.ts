/**
 * `ucred/otel`: OpenTelemetry metrics of all servers of this process. Requires `@opentelemetry/api`.
 *
 * @example Measure all servers
 * ```ts
 * import { measureServers } from "ucred/otel";
 *
 * const stop = measureServers(); // uses the program's meter provider
 * console.log(typeof stop);
 * stop();
 * ```
 *
 * @module
 */

import { type Meter, metrics } from "@opentelemetry/api";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { CHANNELS, type ServerEvent } from "./admission/events.ts";

/**
 * Records metrics of the servers of this process:
 *
 * - `ucred.server.connections.open` (up-down counter), by `server`
 * - `ucred.server.connections` (counter), by `server` and `outcome`: "accepted", or the reason of the
 * refusal
 * - `ucred.server.decisions` (counter), by `server`, `allowed` and `rule`
 * - `ucred.server.connection.duration` (histogram, s), by `server`
 * - `ucred.server.failures` (counter), by `server`: errors of handlers, and of policies that decide requests
 *
 * No attribute has a value that a client can choose.
 *
 * @param meter The meter to use. By default the meter "ucred" of the program's provider.
 * @returns A function that stops the recording.
 */
export function measureServers(meter: Meter = metrics.getMeter("ucred")): () => void {
  const open = meter.createUpDownCounter("ucred.server.connections.open", {
    description: "Open connections",
    unit: "{connection}",
  });
  const connections = meter.createCounter("ucred.server.connections", {
    description: "Accepted and refused connections",
    unit: "{connection}",
  });
  const decisions = meter.createCounter("ucred.server.decisions", {
    description: "Decided requests",
    unit: "{request}",
  });
  const duration = meter.createHistogram("ucred.server.connection.duration", {
    description: "Duration of connections",
    unit: "s",
  });
  const failures = meter.createCounter("ucred.server.failures", {
    description: "Errors of handlers",
    unit: "{failure}",
  });
  const record = (message: unknown) => {
    const event = message as ServerEvent;
    const { server } = event;
    switch (event.type) {
      case "accepted":
        open.add(1, { server });
        return connections.add(1, { server, outcome: "accepted" });
      case "refused":
        return connections.add(1, { server, outcome: event.why });
      case "decided": {
        const { allowed, rule = "" } = event.decision;
        return decisions.add(1, { server, allowed, rule });
      }
      case "closed":
        open.add(-1, { server });
        return duration.record(event.milliseconds / 1000, { server });
      case "failed":
        return failures.add(1, { server });
    }
  };
  const names = Object.values(CHANNELS);
  for (const name of names) subscribe(name, record);
  return () => names.forEach((name) => unsubscribe(name, record));
}
