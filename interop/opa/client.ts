/** A client of OPA's Data API on a Unix socket. */

import { createClient } from "../../client/mod.ts";
import { UcredError } from "../../core/errors.ts";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import type { Attributes } from "../../core/policy/decide/decision.ts";
import { show } from "../../core/policy/document/shape.ts";
import { textOf, visible } from "../../core/text.ts";
import { MAX_TIMER_MS } from "../../core/timers.ts";
import type { ServerExpectation } from "../../identity/verify_server.ts";
import { bodyOf, DEFAULT_FACTS, type OpaFact, requireFacts } from "./input.ts";

/** Options of {@link createOpaClient}. */
export interface OpaOptions {
  /** The socket of OPA: `/run/opa/opa.sock` for `opa run --server --addr unix:///run/opa/opa.sock`. */
  readonly path: string;
  /** The user that OPA runs as. It is verified before the first byte is sent on each connection. */
  readonly expect: ServerExpectation;
  /** The rule that decides, below `data`: "ucred/allow" for the rule `allow` of `package ucred`. */
  readonly rule: string;
  /**
   * The facts of the peer that OPA receives. Default: uid, gid, groups, user and groupNames. A fact of the
   * process, such as `unit`, requires a pinned peer.
   */
  readonly facts?: readonly OpaFact[] | undefined;
  /** The maximum duration of a decision in milliseconds, including that of connecting. Default: 1000. */
  readonly timeoutMs?: number | undefined;
}

const OPTIONS: OptionNames<OpaOptions> = {
  path: true,
  expect: true,
  rule: true,
  facts: true,
  timeoutMs: true,
};

/** Options of {@link OpaClient.decide}. */
export interface OpaQuery {
  /** The action: "GET /metrics". OPA receives `null` without one. */
  readonly action?: string | undefined;
  /** The attributes of the request, as values of JSON. */
  readonly attributes?: Attributes | undefined;
  /** Cancels the query. The promise rejects with the reason of the signal. */
  readonly signal?: AbortSignal | undefined;
}

const QUERY_OPTIONS: OptionNames<OpaQuery> = { action: true, attributes: true, signal: true };

/** The decision of OPA. */
export interface OpaDecision {
  /** Whether the rule is `true`. */
  readonly allowed: boolean;
  /** `undefined`: OPA has no such rule, or the rule has no value for this input. It denies. */
  readonly outcome: "allowed" | "denied" | "undefined";
  /** The id of the decision in OPA's decision log; `undefined` if OPA writes none. */
  readonly decisionId: string | undefined;
}

/** Queries one rule of an OPA server. */
export interface OpaClient {
  /**
   * Queries whether a peer may do something.
   *
   * @throws {UcredError} `ERR_UCRED_POLICY` if a fact is unknown, if OPA does not answer in time, or answers
   * with an error or with another value than a boolean; `ERR_UCRED_REFUSED` if another user listens at the
   * path.
   * @throws {TypeError} If the action or an attribute cannot be sent as JSON, or an option is unknown.
   */
  decide(peer: Peer, query?: OpaQuery): Promise<OpaDecision>;
  /** Closes all connections. Pending queries fail. */
  close(): void;
}

const DEFAULT_TIMEOUT_MS = 1000;

/** Maximum length of an answer. One with a boolean, metrics and provenance is much shorter. */
const MAX_ANSWER_BYTES = 64 << 10;

/**
 * Creates a client that queries a rule of Open Policy Agent about peers. It verifies the server of each
 * connection, and everything except the answer `true` denies.
 *
 * OPA is queried with `strict-builtin-errors`: a built-in function that fails ends the query with an error,
 * and does not make a rule undefined, for which `not` holds.
 *
 * @throws {TypeError} If an option is missing, has another type, or is unknown.
 * @see {@link https://www.openpolicyagent.org/docs/rest-api OPA's REST API}, Data API
 *
 * @example Let OPA decide who may restart a service
 * ```js
 * import { createServer } from "ucred/net";
 * import { createOpaClient } from "ucred/opa";
 *
 * const opa = createOpaClient({
 *   path: "/run/opa/opa.sock",
 *   expect: { user: "opa" },
 *   rule: "ucred/allow",
 * });
 * createServer({ policy: "anyone" }, async (socket, peer) => {
 *   const { allowed } = await opa.decide(peer, { action: "restart" });
 *   socket.end(allowed ? "restarting\n" : "denied\n");
 * }).listen("/run/example.sock");
 * ```
 */
export function createOpaClient(options: OpaOptions): OpaClient {
  const owner = "createOpaClient()";
  requireOptions(owner, options, OPTIONS);
  const { path, expect, facts = DEFAULT_FACTS, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  requireFacts(owner, facts);
  const sent = [...facts];
  const url = urlOf(options.rule);
  if (!Number.isInteger(timeoutMs) || timeoutMs < 1 || timeoutMs > MAX_TIMER_MS) {
    throw new TypeError(`timeoutMs must be a whole number from 1 to ${MAX_TIMER_MS}`);
  }
  const client = createClient({ path, expect });
  return {
    async decide(peer, query = {}) {
      requireOptions("decide()", query, QUERY_OPTIONS);
      const { action, attributes = {}, signal } = query;
      signal?.throwIfAborted();
      const body = bodyOf(peer, sent, action, attributes);
      const deadline = AbortSignal.timeout(timeoutMs);
      const cancel = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
      try {
        const response = await client.fetch(url, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body,
          signal: cancel,
        });
        return decisionIn(response.status, await answerOf(response));
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof UcredError) throw error;
        throw failed(deadline.aborted ? `no answer within ${timeoutMs} ms` : textOf(error), error);
      }
    },
    close: () => client.close(),
  };
}

/** Returns the URL of a rule in OPA's Data API. */
function urlOf(rule: unknown): string {
  const names = typeof rule === "string" ? rule.split("/") : [];
  if (names.length === 0 || names.some((name) => !/^[\w-]+$/.test(name))) {
    throw new TypeError(
      `rule must be the path of a rule, such as "ucred/allow", not ${show(rule)}`,
    );
  }
  return `http://opa/v1/data/${names.join("/")}?strict-builtin-errors=true`;
}

/** Reads the body. A longer one is not read to its end. */
async function answerOf(response: Response): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let [text, length] = ["", 0];
  for await (const part of response.body ?? []) {
    length += part.length;
    if (length > MAX_ANSWER_BYTES) {
      throw new Error(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`);
    }
    text += decoder.decode(part, { stream: true });
  }
  return text + decoder.decode();
}

/** Reads an answer: https://www.openpolicyagent.org/docs/rest-api, "Get a Document (with Input)". */
export function decisionIn(status: number, text: string): OpaDecision {
  const answer = objectIn(text);
  if (status !== 200) throw failed(`status ${status}${reasonIn(answer)}`);
  if (answer === undefined) throw failed("the answer is not an object of JSON");
  const id = answer["decision_id"];
  const decisionId = typeof id === "string" ? id : undefined;
  if (!Object.hasOwn(answer, "result")) return { allowed: false, outcome: "undefined", decisionId };
  const { result } = answer;
  if (typeof result !== "boolean") throw failed(`the rule is ${show(result)}, not true or false`);
  return { allowed: result, outcome: result ? "allowed" : "denied", decisionId };
}

function objectIn(text: string): { readonly [name: string]: unknown } | undefined {
  try {
    const answer: unknown = JSON.parse(text);
    return typeof answer === "object" && answer !== null && !Array.isArray(answer)
      ? answer as { readonly [name: string]: unknown }
      : undefined;
  } catch {
    return undefined;
  }
}

/** Returns OPA's own explanation of an error. */
function reasonIn(answer: ReturnType<typeof objectIn>): string {
  const message = answer?.["message"];
  return typeof message === "string" ? `, ${show(message)}` : "";
}

function failed(why: string, cause?: unknown): UcredError {
  return new UcredError("ERR_UCRED_POLICY", `Cannot get a decision from OPA: ${visible(why)}`, {
    hint: "Check that OPA runs and that the rule is a boolean; see the log of OPA",
    ...(cause !== undefined && { cause }),
  });
}
