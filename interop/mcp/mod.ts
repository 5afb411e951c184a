/**
 * `ucred/mcp`: policies about clients of the Model Context Protocol, for servers of the official SDK.
 *
 * @module
 */

export { UcredError, type UcredErrorCode } from "../../core/errors.ts";
export type { Peer } from "../../core/peer.ts";
export {
  type McpHandler,
  mcpHandler,
  type McpHandlerOptions,
  type McpHttpTransport,
  type McpSessionOptions,
} from "./handler.ts";
export {
  type Caller,
  callerOf,
  type DeniedMessage,
  guardTransport,
  type GuardTransportOptions,
  type McpTransport,
} from "./transport.ts";
export { mcpVocabulary } from "./vocabulary.ts";
