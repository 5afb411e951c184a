/**
 * `ucred/http`: HTTP servers that identify their peers. The API is the same on Deno, Bun and Node.
 *
 * @example Decide each request by "METHOD /path"
 * ```ts
 * import { definePolicy } from "ucred";
 * import { serve } from "ucred/http";
 *
 * const policy = definePolicy({
 *   version: 1,
 *   rules: [
 *     { name: "root", when: { uid: 0 }, allow: true },
 *     { name: "people read", when: { uid: "1000-59999" }, actions: "GET /**", allow: true },
 *   ],
 * });
 * const server = await serve({
 *   path: "app.sock",
 *   mode: 0o666,
 *   policy,
 *   fetch: (_, { peer }) => new Response(`welcome, uid ${peer.uid}\n`),
 * });
 * console.log(`at ${server.path}, by ${server.engine}`);
 * ```
 *
 * @module
 */

export {
  createServer,
  type HttpAdmissionOptions,
  type HttpServer,
  type HttpServerOptions,
} from "./http/node.ts";
export type { FetchContext } from "./http/fetch_context.ts";
export type { Engine, FetchServer, ServeOptions } from "./http/options.ts";
export { serve } from "./http/serve.ts";
export { decisionOf, peerOf, type RequestLike } from "./admission/attach.ts";
export type { Peer } from "../core/peer.ts";
export type { Decision } from "../core/policy/decide/decision.ts";
export type { Policy } from "../core/policy/policy.ts";
export { UcredError, type UcredErrorCode } from "../core/errors.ts";
export type { AdmissionOptions, ServerStats } from "./admission/admission.ts";
export type { AuditLog } from "./admission/audit.ts";
export type { EndReason, RefusalReason } from "./admission/events.ts";
export type { LimitName, Limits } from "./admission/limits.ts";
export type {
  CloseOptions,
  CommonListenOptions,
  ListenOptions,
  PathListenOptions,
  SafeServer,
  SystemdListenOptions,
} from "./listen/lifecycle.ts";
export type { SocketPathOptions } from "./listen/socket_path.ts";
