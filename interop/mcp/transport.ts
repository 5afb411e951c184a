/** Decides the messages that arrive at a transport of the official SDK, before its server receives them. */

// deno-lint-ignore-file no-explicit-any -- the SDK's own types of messages and options change between its versions

import { UcredError } from "../../core/errors.ts";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Policy } from "../../core/policy/policy.ts";
import { isObject } from "./arguments.ts";
import {
  CODE,
  filterResult,
  type Judge,
  judge,
  mayNotify,
  messageOf,
  type RequestId,
  type RpcError,
  type Verdict,
} from "./judge.ts";

/** The parts of a transport of `@modelcontextprotocol/sdk` that {@link guardTransport} uses. */
export interface McpTransport {
  /** The SDK's server sets it. Called for each message that arrives. */
  onmessage?: ((message: any, extra?: any) => void) | undefined;
  /** Sends a message to the client. */
  send(message: any, options?: any): Promise<void>;
}

/** The caller of a request, and the decision that allowed it. */
export interface Caller {
  /** The client. */
  readonly peer: Peer;
  /** The decision that allowed the request. */
  readonly decision: Decision;
}

/** A message that was denied. */
export interface DeniedMessage {
  /** The client. */
  readonly peer: Peer;
  /** The action: `tools/call delete_file`. */
  readonly action: string;
  /** The decision. */
  readonly decision: Decision;
  /** The error of the policy, if it failed. */
  readonly error: unknown;
}

/** What decides the messages of a transport. */
export interface GuardTransportOptions {
  /** Usually a policy with `about: mcp`. */
  readonly policy: Policy;
  /** The client at the other end. */
  readonly peer: Peer;
  /** Runs for each request and notification that is denied, for logs. */
  readonly onDenied?: ((denied: DeniedMessage) => void) | undefined;
}

const OPTIONS: OptionNames<GuardTransportOptions> = { policy: true, peer: true, onDenied: true };

/** Maximum requests of a transport that wait for their results. */
const MAX_OPEN = 1000;

const callers = new WeakMap<object, Caller>();

/** The `authInfo` of requests, in the form of the SDK. */
export interface PeerAuthInfo {
  /** Always empty: no token exists. */
  readonly token: string;
  /** The user: `uid:1000`. */
  readonly clientId: string;
  /** The grants of the rule that allowed the request. */
  readonly scopes: string[];
  /** The caller. */
  readonly extra: { readonly [name: string]: unknown };
}

function authInfoOf(caller: Caller): PeerAuthInfo {
  const { peer, decision } = caller;
  const info: PeerAuthInfo = {
    token: "",
    clientId: `uid:${peer.uid}`,
    scopes: [...decision.grants],
    extra: { peer, decision },
  };
  callers.set(info, caller);
  return info;
}

/**
 * Returns the caller of a request, and the decision that allowed the request.
 *
 * @param extra The last argument of a handler of the SDK, with `authInfo`.
 * @throws {UcredError} `ERR_UCRED_NO_PEER` if the request did not arrive at a guarded transport.
 */
export function callerOf(extra: { readonly authInfo?: object | undefined }): Caller {
  const caller = extra.authInfo && callers.get(extra.authInfo);
  if (caller !== undefined) return caller;
  const message = "Cannot return the caller: the request did not arrive at a guarded transport";
  const hint = "Pass the transport to guardTransport() before you connect the server to it";
  throw new UcredError("ERR_UCRED_NO_PEER", message, { hint });
}

/** @throws {TypeError} If a value is not a policy. */
export function requirePolicy(owner: string, policy: unknown): void {
  if (typeof (policy as Policy | undefined)?.decide === "function") return;
  throw new TypeError(`${owner} requires a Policy from definePolicy() or "ucred/policy"`);
}

/**
 * Makes a policy decide each request and notification that arrives at a transport of the official SDK, and
 * puts the client into the `authInfo` of the requests. A denied request gets the error -32003 with the rule's `deny` text.
 * Results have only those tools, prompts, resources and templates that the client may use.
 *
 * The transport itself is changed. Call this function before `server.connect(transport)`.
 *
 * @returns The transport.
 * @throws {TypeError} If an option is missing or unknown, or the transport is connected already.
 *
 * @example A server with one connection for each client
 * ```js
 * import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
 * import { guardTransport } from "ucred/mcp";
 * import { createServer } from "ucred/net";
 *
 * createServer({ policy, decideAt: "action" }, async (socket, peer) => {
 *   const transport = new StdioServerTransport(socket, socket);
 *   await newServer().connect(guardTransport(transport, { policy, peer }));
 * }).listen("mcp.sock");
 * ```
 */
export function guardTransport<Transport extends McpTransport>(
  transport: Transport,
  options: GuardTransportOptions,
): Transport {
  requireOptions("guardTransport()", options, OPTIONS);
  const { policy, peer, onDenied } = options;
  requirePolicy("guardTransport()", policy);
  if (typeof peer?.uid !== "number") throw new TypeError("guardTransport() requires a peer");
  return attach(transport, new Gate(transport, { policy, onDenied, peerOf: () => peer }));
}

/** Guards a transport whose messages come from different connections, each with its own peer. */
export function guardSession<Transport extends McpTransport>(
  transport: Transport,
  options: GateOptions,
): Transport {
  return attach(transport, new Gate(transport, options));
}

function attach<Transport extends McpTransport>(transport: Transport, gate: Gate): Transport {
  if (transport.onmessage !== undefined) {
    throw new TypeError("guardTransport() requires a transport that is not connected yet");
  }
  Object.defineProperty(transport, "onmessage", {
    get: () => gate.receiver,
    set: (receive) => gate.receive = receive,
    configurable: false,
    enumerable: true,
  });
  transport.send = (message, options) => gate.sendToClient(message, options);
  return transport;
}

/** What decides the messages of a transport. */
export interface GateOptions {
  readonly policy: Policy;
  readonly onDenied?: GuardTransportOptions["onDenied"];
  /** Returns the sender of a message. */
  readonly peerOf: (extra: unknown) => Peer;
}

type Receive = NonNullable<McpTransport["onmessage"]>;

class Gate {
  /** The listener of the server. */
  receive: Receive | undefined;
  readonly #options: GateOptions;
  readonly #send: McpTransport["send"];
  /** The senders of the requests that wait for a result, by the ids of the requests. */
  readonly #open = new Map<RequestId, Peer>();
  #lastPeer: Peer | undefined;
  readonly #receiver: Receive = (message, extra) => this.#decide(message, extra);

  constructor(transport: McpTransport, options: GateOptions) {
    this.#options = options;
    this.#send = transport.send.bind(transport);
  }

  get receiver(): Receive | undefined {
    return this.receive && this.#receiver;
  }

  #decide(value: unknown, extra: unknown): void {
    const message = messageOf(value);
    const peer = this.#lastPeer = this.#options.peerOf(extra);
    switch (message.kind) {
      case "malformed":
        this.#denied(peer, "message", message.problem);
        if (message.id !== null) {
          this.#answer(message.id, { code: CODE.invalidRequest, message: message.problem });
        }
        return;
      case "response": // the SDK matches it with its own requests
        return this.receive?.(value, extra);
    }
    const isRequest = message.kind === "request";
    const { method } = message;
    if (isRequest && this.#open.has(message.id)) {
      return this.#refuse(peer, method, message.id, "The id belongs to a request that is open");
    }
    if (isRequest && this.#open.size >= MAX_OPEN) {
      return this.#refuse(peer, method, message.id, "Too many requests are open");
    }
    const params = (value as { readonly params?: unknown }).params;
    const { decision, error } = judgeBy(this.#options, peer, message.kind, method, params);
    if (error !== undefined) {
      if (isRequest) this.#answer(message.id, error);
      return;
    }
    if (isRequest) this.#open.set(message.id, peer);
    else if (method === "notifications/cancelled") this.#forget(params);
    this.receive?.(value, { ...extra as object, authInfo: authInfoOf({ peer, decision }) });
  }

  /** The server sends no result of a cancelled request. A result that it has already sent is dropped. */
  #forget(params: unknown): void {
    if (isObject(params)) this.#open.delete(params["requestId"] as RequestId);
  }

  #refuse(peer: Peer, action: string, id: RequestId, problem: string): void {
    this.#denied(peer, action, problem);
    this.#answer(id, { code: CODE.invalidRequest, message: problem });
  }

  #denied(peer: Peer, action: string, reason: string): void {
    this.#options.onDenied?.({ peer, action, decision: denied(reason), error: undefined });
  }

  #answer(id: RequestId, error: RpcError): void {
    // A transport rejects if the client has hung up.
    this.#send({ jsonrpc: "2.0", id, error }).catch(() => {});
  }

  sendToClient(message: unknown, options: unknown): Promise<void> {
    const changed = this.#forClient(message);
    return changed === undefined ? Promise.resolve() : this.#send(changed, options);
  }

  /** Returns a message as the client receives it; `undefined` if it receives nothing. */
  #forClient(value: unknown): unknown {
    const message = messageOf(value);
    if (message.kind === "response") {
      const peer = this.#open.get(message.id);
      if (peer === undefined) return undefined;
      this.#open.delete(message.id);
      const { result } = value as { readonly result?: unknown };
      const filtered = filterResult(judgeOf(this.#options, peer), result);
      return filtered === result ? value : { ...value as object, result: filtered };
    }
    if (message.kind === "malformed") return undefined;
    if (message.kind === "request" || this.#lastPeer === undefined) return value;
    const { params } = value as { readonly params?: unknown };
    const by = judgeOf(this.#options, this.#lastPeer);
    return mayNotify(by, message.method, params) ? value : undefined;
  }
}

const denied = (reason: string): Decision => ({
  ...{ allowed: false, reason, rule: undefined, grants: [], unknown: [], message: undefined },
});

/** Decides a request or notification of a peer, and reports it to `onDenied` if it is denied. */
export function judgeBy(
  options: Pick<GateOptions, "policy" | "onDenied">,
  peer: Peer,
  kind: "request" | "notification",
  method: string,
  params: unknown,
): Verdict {
  let last: { action: string; decision: Decision } | undefined;
  let failure: unknown;
  let verdict: Verdict;
  try {
    verdict = judge(
      {
        peek: (action, attributes) => options.policy.decide(peer, { action, attributes }),
        decide: (action, attributes) => {
          const decision = options.policy.decide(peer, { action, attributes });
          last = { action, decision };
          return decision;
        },
        refuse: (action, reason) => {
          last = { action, decision: denied(reason) };
          return last.decision;
        },
      },
      kind,
      method,
      params,
    );
  } catch (error) {
    failure = error;
    const message = "The policy has failed";
    last = { action: method, decision: denied(message) };
    verdict = { decision: last.decision, error: { code: CODE.internalError, message } };
  }
  if (verdict.error !== undefined) options.onDenied?.({ peer, ...last!, error: failure });
  return verdict;
}

/** The decisions about what a client sees. If the policy fails, the client sees nothing. */
function judgeOf({ policy }: Pick<GateOptions, "policy">, peer: Peer): Pick<Judge, "peek"> {
  return {
    peek: (action, attributes) => {
      try {
        return policy.decide(peer, { action, attributes });
      } catch {
        return denied("The policy has failed");
      }
    },
  };
}
