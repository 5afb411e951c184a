/**
 * `ucred/deno`: `Deno.listen` with peer identification.
 *
 * Deno hides the descriptor of an accepted connection. `withPeers()` finds it: after each `accept()` it
 * looks for a socket that is bound to the listener's address and has an SO_COOKIE that was not seen before.
 * If it finds none, it rejects the connection. The search takes about 5 µs for each connection.
 *
 * `Deno.serve` is not supported: it accepts connections itself and exposes neither the connection nor its
 * descriptor (denoland/deno 27788). Use `serve()` of `ucred/http`, which runs on the same engine.
 *
 * @example Accept only root and the server's own user
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
export type { AdmissionOptions, DecideAt, ServerStats } from "./admission/admission.ts";
export type { AuditLog } from "./admission/audit.ts";
export type { LimitName, Limits } from "./admission/limits.ts";
