/**
 * `Deno.listen` with identities: `ucred/deno`.
 *
 * Deno hides the descriptor of what `Deno.listen` accepts. It is found among the descriptors of the
 * process by what the kernel tells of each, while one accept at a time is under way. Where that is in
 * doubt the connection is refused. It takes about 5 µs for each connection.
 *
 * `Deno.serve` cannot be served so: it accepts by itself, and tells neither when nor what
 * (denoland/deno 27788). Use `serve()` of `ucred/http`, which runs on the same engine.
 *
 * @example Root and the server's own user get in, nobody else
 * ```ts
 * import { withPeers } from "ucred/deno";
 *
 * if ("Deno" in globalThis) {
 *   using listener = Deno.listen({ transport: "unix", path: "deno.sock" });
 *   const client = await Deno.connect({ transport: "unix", path: "deno.sock" });
 *   for await (const { conn, peer } of withPeers(listener)) {
 *     console.log(`uid ${peer.uid}`);
 *     conn.close();
 *     break;
 *   }
 *   client.close();
 * } else console.log("for Deno only");
 * ```
 *
 * @module
 */

export {
  type DenoConnection,
  type DenoListener,
  type PeerConnection,
  type PeerListener,
  withPeers,
  type WithPeersOptions,
} from "./listen/deno_peers.ts";
export type { Peer } from "../core/peer.ts";
export type { Decision } from "../core/policy/decide/decision.ts";
export type { Policy } from "../core/policy/policy.ts";
export { UcredError, type UcredErrorCode } from "../core/errors.ts";
export type { AdmissionOptions, ServerStats } from "./admission/admission.ts";
export type { AuditLog } from "./admission/audit.ts";
export type { LimitName, Limits } from "./admission/limits.ts";
