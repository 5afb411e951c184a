/** Serves MCP over HTTP: one server of the SDK for each session, and each session for one client. */

import { GrownBytes } from "../../core/grown_bytes.ts";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import type { Policy } from "../../core/policy/policy.ts";
import { peerOf } from "../../servers/admission/attach.ts";
import { CODE, messageOf, type RequestId, type RpcError } from "./judge.ts";
import {
  guardSession,
  type GuardTransportOptions,
  judgeBy,
  type McpTransport,
  requirePolicy,
} from "./transport.ts";

/** The parts of `WebStandardStreamableHTTPServerTransport` that {@link mcpHandler} uses. */
export interface McpHttpTransport extends McpTransport {
  /** Serves a request of the session. */
  // deno-lint-ignore no-explicit-any -- the SDK's own types of options change between its versions
  handleRequest(request: Request, options?: any): Promise<Response>;
  /** Ends the session. */
  close(): Promise<void>;
}

/** Options of the transport of a session, as the SDK's constructor takes them. */
export interface McpSessionOptions {
  /** Returns the id of the session. */
  readonly sessionIdGenerator: () => string;
  /** Runs when the client ends the session. */
  readonly onsessionclosed: (id: string) => void;
}

/** Options of {@link mcpHandler}. */
export interface McpHandlerOptions<Transport extends McpHttpTransport> {
  /** Usually a policy with `about: mcp`. */
  readonly policy: Policy;
  /** Makes the transport of a session: `new WebStandardStreamableHTTPServerTransport(options)`. */
  readonly transport: (options: McpSessionOptions) => Transport;
  /** Connects a new server to the transport of a session: `newServer().connect(transport)`. */
  readonly connect: (transport: Transport, peer: Peer) => Promise<void>;
  /** Runs for each request and notification that is denied, for logs. */
  readonly onDenied?: GuardTransportOptions["onDenied"];
  /**
   * Maximum sessions of a user. A further one ends the session that this user has not used for the longest
   * time. By default 100.
   */
  readonly sessionsPerUser?: number | undefined;
}

const OPTIONS: OptionNames<McpHandlerOptions<McpHttpTransport>> = {
  policy: true,
  transport: true,
  connect: true,
  onDenied: true,
  sessionsPerUser: true,
};

/** Serves requests, and ends all sessions. */
export interface McpHandler {
  /** Serves a request: the `fetch` of `serve()`. */
  (request: Request): Promise<Response>;
  /** Ends all sessions. */
  close(): Promise<void>;
}

/** Maximum bytes of a message: 4 MiB, as in the SDK's transport for node:http. */
const MAX_MESSAGE_BYTES = 4 << 20;

/**
 * Returns a handler that serves MCP over Streamable HTTP, with servers and transports of the official SDK. A
 * policy decides each request and notification by the client that sent it. Only the user who has opened a
 * session can use it: the uid and gid must be the same, and all others get 404.
 *
 * Pass the handler to `serve()` of `ucred/http`, with `policy: "anyone"`, since the handler decides. If
 * rules test the process of the client, set `pin: policy.needsPin`.
 *
 * @throws {TypeError} If an option is missing, unknown, or of another type.
 *
 * @example A server; the page about MCP has the whole program
 * ```js
 * import { serve } from "ucred/http";
 * import { mcpHandler } from "ucred/mcp";
 *
 * const fetch = mcpHandler({
 *   policy,
 *   transport: (options) => new WebStandardStreamableHTTPServerTransport(options),
 *   connect: (transport) => newServer().connect(transport),
 * });
 * await serve({ path: "mcp.sock", mode: 0o666, policy: "anyone", fetch });
 * ```
 */
export function mcpHandler<Transport extends McpHttpTransport>(
  options: McpHandlerOptions<Transport>,
): McpHandler {
  requireOptions("mcpHandler()", options, OPTIONS);
  requirePolicy("mcpHandler()", options.policy);
  for (const name of ["transport", "connect"] as const) {
    if (typeof options[name] !== "function") {
      throw new TypeError(`mcpHandler() requires ${name}, a function`);
    }
  }
  const { sessionsPerUser = 100 } = options;
  if (!Number.isInteger(sessionsPerUser) || sessionsPerUser < 1) {
    throw new RangeError(`sessionsPerUser must be an integer above 0, not ${sessionsPerUser}`);
  }
  const sessions = new Sessions(options, sessionsPerUser);
  const handler = (request: Request) => sessions.serve(request);
  return Object.assign(handler, { close: () => sessions.close() });
}

interface Session<Transport> {
  readonly id: string;
  readonly uid: number;
  readonly gid: number;
  readonly transport: Transport;
}

class Sessions<Transport extends McpHttpTransport> {
  readonly #options: McpHandlerOptions<Transport>;
  readonly #perUser: number;
  /** Sessions by id, in the order of their last use. */
  readonly #byId = new Map<string, Session<Transport>>();

  constructor(options: McpHandlerOptions<Transport>, perUser: number) {
    this.#options = options;
    this.#perUser = perUser;
  }

  async serve(request: Request): Promise<Response> {
    const peer = peerOf(request);
    const id = request.headers.get("mcp-session-id");
    if (id !== null) {
      const session = this.#byId.get(id);
      if (session === undefined || session.uid !== peer.uid || session.gid !== peer.gid) {
        return failure(404, { code: -32001, message: "Session not found" });
      }
      this.#byId.delete(id);
      this.#byId.set(id, session);
      return await this.#handle(session.transport, request, peer);
    }
    if (request.method !== "POST") {
      return failure(400, { code: -32000, message: "Mcp-Session-Id header is required" });
    }
    const body = await bodyOf(request);
    if (body instanceof Response) return body;
    const message = messageOf(body.value);
    if (message.kind !== "request" || message.method !== "initialize") {
      return failure(400, { code: -32000, message: "Mcp-Session-Id header is required" });
    }
    const { params } = body.value as { readonly params?: unknown };
    const { error } = judgeBy(this.#options, peer, "request", "initialize", params);
    // A denied client must not cost a session.
    if (error !== undefined) return failure(200, error, message.id);
    if (peer.ambiguous.includes("uid")) {
      const text = "The user is outside of the server's user namespace";
      return failure(200, { code: CODE.denied, message: text }, message.id);
    }
    const session = await this.#open(peer);
    const response = await this.#handle(session.transport, request, peer, body.value);
    if (!response.ok) await this.#end(session); // the client has not learned the session's id
    return response;
  }

  async #handle(
    transport: Transport,
    request: Request,
    peer: Peer,
    parsedBody?: unknown,
  ): Promise<Response> {
    if (request.method === "POST" && parsedBody === undefined) {
      const body = await bodyOf(request);
      if (body instanceof Response) return body;
      parsedBody = body.value;
    }
    return await transport.handleRequest(request, { authInfo: { peer }, parsedBody });
  }

  async #open(peer: Peer): Promise<Session<Transport>> {
    const { uid, gid } = peer;
    const id = crypto.randomUUID();
    const transport = this.#options.transport({
      sessionIdGenerator: () => id,
      onsessionclosed: () => void this.#byId.delete(id),
    });
    const { policy, onDenied } = this.#options;
    guardSession(transport, { policy, onDenied, peerOf: senderOf });
    await this.#options.connect(transport, peer);
    const session = { id, uid, gid, transport };
    this.#byId.set(id, session);
    const own = [...this.#byId.values()].filter((each) => each.uid === uid);
    if (own.length > this.#perUser) await this.#end(own[0]!);
    return session;
  }

  async #end({ id, transport }: Session<Transport>): Promise<void> {
    this.#byId.delete(id);
    await transport.close();
  }

  async close(): Promise<void> {
    for (const session of [...this.#byId.values()]) await this.#end(session);
  }
}

/** Returns the peer that {@link Sessions} has passed through the transport. */
const senderOf = (extra: unknown): Peer =>
  (extra as { readonly authInfo: { readonly peer: Peer } }).authInfo.peer;

/** Reads the message of a request; returns the response to a request without one. */
async function bodyOf(request: Request): Promise<{ readonly value: unknown } | Response> {
  const bytes = new GrownBytes();
  for await (const part of request.body ?? []) {
    if (bytes.length + part.length > MAX_MESSAGE_BYTES) {
      return failure(413, { code: CODE.invalidRequest, message: "The message is too long" });
    }
    bytes.add(part);
  }
  try {
    return { value: JSON.parse(new TextDecoder().decode(bytes.all())) };
  } catch {
    return failure(400, { code: CODE.parseError, message: "The message is not JSON" });
  }
}

function failure(status: number, error: RpcError, id: RequestId | null = null): Response {
  return Response.json({ jsonrpc: "2.0", id, error }, { status });
}
