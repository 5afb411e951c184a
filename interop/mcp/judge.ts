/** Decides the messages of a client of MCP, and removes from results what the client may not use. */

import type { Attributes, Decision } from "../../core/policy/decide/decision.ts";
import { argumentTexts, folded, isObject, ownField } from "./arguments.ts";

/** The id of a request. */
export type RequestId = string | number;

/** An error of JSON-RPC. */
export interface RpcError {
  /** The code. */
  readonly code: number;
  /** One sentence for the client. */
  readonly message: string;
}

/** Codes of JSON-RPC, and one of the codes that MCP leaves to implementations: -32000 to -32019. */
export const CODE = {
  parseError: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internalError: -32603,
  /** The policy denies the request. */
  denied: -32003,
} as const;

/** A message, by its kind. */
export type Message =
  | { readonly kind: "request"; readonly id: RequestId; readonly method: string }
  | { readonly kind: "notification"; readonly method: string }
  | { readonly kind: "response"; readonly id: RequestId }
  | { readonly kind: "malformed"; readonly id: RequestId | null; readonly problem: string };

/** Whether a value is an id that each program reads alike: JSON numbers have several spellings. */
const isId = (value: unknown): value is RequestId =>
  typeof value === "string" ? value.length <= MAX_ID_CHARACTERS : Number.isSafeInteger(value);

/** Ids of open requests are kept in memory. */
const MAX_ID_CHARACTERS = 1024;

const FIELDS: ReadonlySet<string> = new Set([
  "jsonrpc",
  "id",
  "method",
  "params",
  "result",
  "error",
]);

/** Returns the kind of a message. Rejects fields that JSON-RPC 2.0 does not define. */
export function messageOf(value: unknown): Message {
  const given = ownField(value, "id");
  const id = isId(given) ? given : null;
  const malformed = (problem: string): Message => ({ kind: "malformed", id, problem });
  if (Array.isArray(value)) return malformed("Batches of messages are not supported");
  if (!isObject(value)) return malformed("A message is an object");
  if (ownField(value, "jsonrpc") !== "2.0") return malformed('A message has "jsonrpc": "2.0"');
  const other = Object.keys(value).find((key) => !FIELDS.has(key));
  if (other !== undefined) {
    return malformed(`A message has no field ${JSON.stringify(other.slice(0, 100))}`);
  }
  const has = (name: string) => ownField(value, name) !== undefined;
  if (has("id") && id === null) {
    return malformed(`An id is an integer, or a string of at most ${MAX_ID_CHARACTERS} characters`);
  }
  const method = ownField(value, "method");
  if (has("method")) {
    if (typeof method !== "string") return malformed("A method is a string");
    if (has("result") || has("error")) return malformed("A request has no result and no error");
    if (has("params") && !isObject(value["params"])) return malformed("Parameters are an object");
    return id === null ? { kind: "notification", method } : { kind: "request", id, method };
  }
  if (id === null || has("result") === has("error") || has("params")) {
    return malformed("A message has a method, or an id and either a result or an error");
  }
  return { kind: "response", id };
}

/** The decisions of a policy about one client. */
export interface Judge {
  /** Decides an action, and records the decision. */
  decide(action: string, attributes: Attributes): Decision;
  /** Decides an action without a record. */
  peek(action: string, attributes: Attributes): Decision;
  /** Records a denial that is not one of the policy, and returns it as a decision. */
  refuse(action: string, reason: string): Decision;
}

/** The decision about a request, and the error that its client receives if it is denied. */
export interface Verdict {
  /** The decision. */
  readonly decision: Decision;
  /** The error; `undefined` if the request is allowed. */
  readonly error: RpcError | undefined;
}

/** The notifications that a client sends. `initialize` covers them. */
const CLIENT_NOTIFICATIONS: ReadonlySet<string> = new Set([
  "notifications/initialized",
  "notifications/cancelled",
  "notifications/progress",
  "notifications/roots/list_changed",
  "notifications/tasks/status",
]);

/** Methods without a name or URI. */
const PLAIN: ReadonlySet<string> = new Set([
  "initialize",
  "tools/list",
  "resources/list",
  "resources/templates/list",
  "prompts/list",
  "tasks/list",
  "tasks/get",
  "tasks/result",
  "tasks/update",
  "tasks/cancel",
]);

/** One action of a request. */
export interface Step {
  /** The action, which a policy decides. */
  readonly action: string;
  readonly attributes: Attributes;
  /** Whether the action is another spelling of one that is decided: only a rule that denies it counts. */
  readonly isSpelling?: boolean;
  /** Whether the decision is recorded only if it denies. */
  readonly isQuiet?: boolean;
}

/** A request that cannot be decided. */
export interface Problem {
  /** The code of the error that the client receives. */
  readonly code: number;
  /** Why, for the client. */
  readonly problem: string;
}

/**
 * Decides a request or notification.
 *
 * @param params The parameters: an object, or `undefined`.
 */
export function judge(
  by: Judge,
  kind: "request" | "notification",
  method: string,
  params: unknown,
): Verdict {
  const steps = kind === "request" ? stepsOf(method, params) : stepsOfNotification(method);
  if ("problem" in steps) {
    const { code, problem } = steps;
    return { decision: by.refuse(method, problem), error: { code, message: problem } };
  }
  let first: Decision | undefined;
  for (const { action, attributes, isSpelling = false, isQuiet = false } of steps) {
    if (isSpelling || isQuiet) {
      const decision = by.peek(action, attributes);
      const { allowed, rule, reason, message } = decision;
      first ??= decision;
      if (allowed || (isSpelling && rule === undefined)) continue;
      return { decision: by.refuse(action, reason), error: denial(message) };
    }
    const decision = by.decide(action, attributes);
    if (!decision.allowed) return { decision, error: denial(decision.message) };
    first ??= decision;
  }
  return { decision: first!, error: undefined };
}

const denial = (message = "The policy does not allow it"): RpcError => ({
  code: CODE.denied,
  message,
});

const invalid = (problem: string): Problem => ({ code: CODE.invalidParams, problem });

/** Pings and notifications. Clients send them periodically, which would fill a log. */
const HOUSEKEEPING: readonly Step[] = [{ action: "initialize", attributes: {}, isQuiet: true }];

function stepsOfNotification(method: string): readonly Step[] | Problem {
  if (CLIENT_NOTIFICATIONS.has(method)) return HOUSEKEEPING;
  return { code: CODE.methodNotFound, problem: "MCP has no such notification of clients" };
}

/** The parameters that decide. */
const DECIDING: ReadonlySet<string> = new Set(
  ["name", "uri", "arguments", "level", "ref", "notifications"],
);

/** The fields of the parameter `ref` that decide. */
const DECIDING_OF_REFERENCE: ReadonlySet<string> = new Set(["type", "name", "uri"]);

/** Rejects a field that differs only by case from one that decides: for some programs, it is that one. */
function similarTo(deciding: ReadonlySet<string>, of: unknown): Problem | undefined {
  const similar = Object.keys(of ?? {}).find((key) =>
    deciding.has(folded(key)) && !deciding.has(key)
  );
  return similar === undefined
    ? undefined
    : invalid(`The parameter ${JSON.stringify(similar)} is unknown`);
}

/** Returns the actions of a request. All of them must be allowed. */
export function stepsOf(method: string, params: unknown): readonly Step[] | Problem {
  const similar = similarTo(DECIDING, params);
  if (similar !== undefined) return similar;
  if (PLAIN.has(method)) return [{ action: method, attributes: {} }];
  switch (method) {
    case "ping":
      return HOUSEKEEPING;
    case "server/discover":
      return [{ action: "initialize", attributes: {} }];
    case "tools/call":
    case "prompts/get": {
      const name = ownField(params, "name");
      if (!isName(name)) return invalid("The parameter name is a string that is not empty");
      const given = ownField(params, "arguments");
      if (given !== undefined && !isObject(given)) {
        return invalid("The parameter arguments is an object");
      }
      return [{
        action: `${method} ${name}`,
        attributes: { name, arguments: argumentTexts(given ?? {}) },
      }];
    }
    case "resources/read":
    case "resources/subscribe":
    case "resources/unsubscribe": {
      const uri = ownField(params, "uri");
      return isName(uri) ? stepsOfUri(method, uri) : invalid("The parameter uri is a URI");
    }
    case "completion/complete": {
      const reference = stepsOfReference(ownField(params, "ref"));
      return "problem" in reference
        ? reference
        : [{ action: method, attributes: {} }, ...reference];
    }
    case "logging/setLevel": {
      const level = ownField(params, "level");
      if (typeof level !== "string") return invalid("The parameter level is a string");
      return [{ action: method, attributes: { level } }];
    }
    case "subscriptions/listen":
      return stepsOfListen(method, ownField(params, "notifications"));
  }
  return { code: CODE.methodNotFound, problem: "The method is unknown" };
}

const isName = (value: unknown): value is string => typeof value === "string" && value !== "";

/** The prompt or the template whose argument is completed. */
function stepsOfReference(reference: unknown): readonly Step[] | Problem {
  const similar = similarTo(DECIDING_OF_REFERENCE, reference);
  if (similar !== undefined) return similar;
  const [type, name, uri] = ["type", "name", "uri"].map((field) => ownField(reference, field));
  if (type === "ref/prompt" && isName(name)) {
    return [{ action: `prompts/get ${name}`, attributes: { name } }];
  }
  if (type === "ref/resource" && isName(uri)) return stepsOfUri("resources/read", uri);
  return invalid("The parameter ref is a reference to a prompt or a resource");
}

/** The notifications that a client requests by a filter. */
function stepsOfListen(method: string, filter: unknown): readonly Step[] | Problem {
  const steps: Step[] = [{ action: method, attributes: {} }];
  if (filter === undefined) return steps;
  if (!isObject(filter)) return invalid("The parameter notifications is an object");
  for (const [key, value] of Object.entries(filter)) {
    switch (key) {
      case "toolsListChanged":
      case "promptsListChanged":
      case "resourcesListChanged":
        continue;
      case "resourceSubscriptions":
        if (!Array.isArray(value) || value.length > MAX_SUBSCRIPTIONS || !value.every(isName)) {
          return invalid(`resourceSubscriptions are at most ${MAX_SUBSCRIPTIONS} URIs`);
        }
        for (const uri of value) {
          const each = stepsOfUri("resources/subscribe", uri);
          if ("problem" in each) return each;
          steps.push(...each);
        }
        continue;
      case "taskIds":
        steps.push({ action: "tasks/get", attributes: {} });
        continue;
    }
    return invalid(`The filter ${JSON.stringify(key.slice(0, 100))} is unknown`);
  }
  return steps;
}

const MAX_SUBSCRIPTIONS = 100;

/**
 * The actions of a request about a URI: the spelling of the request, which must be allowed, and those that
 * programs may make from it, which no rule may deny.
 */
function stepsOfUri(method: string, uri: string): readonly Step[] | Problem {
  if (uri.length > MAX_URI_CHARACTERS) return invalid("The URI is too long");
  if (IGNORED.test(uri)) {
    return invalid("The URI has a control character, or a space at its beginning or end");
  }
  const spellings = new Set([uri]);
  if (URL.canParse(uri)) spellings.add(new URL(uri).href);
  for (const spelling of [...spellings]) {
    try {
      spellings.add(decodeURIComponent(spelling));
    } catch {
      return invalid("The URI has a percent sign that begins no character");
    }
  }
  for (const spelling of [...spellings]) {
    spellings.add(spelling.replace(/#.*$/s, ""));
    if (!IS_FILE.test(spelling)) continue;
    for (const each of [spelling, spelling.replace(HOST_OF_FILE, "")]) {
      const file = fileOf(each);
      spellings.add(file).add(file.replace(/(?<=[^/])\/$/, ""));
    }
  }
  let plain = uri;
  for (let round = 0; round < MAX_ESCAPES; round++) plain = withoutEscapes(plain);
  if (DOT_SEGMENT.test(plain) || withoutEscapes(plain) !== plain) {
    return invalid("The URI has a segment . or ..");
  }
  const [first, ...others] = [...spellings].map((each) => ({
    action: `${method} ${each}`,
    attributes: { uri: each },
  }));
  return [first!, ...others.map((each) => ({ ...each, isSpelling: true }))];
}

/**
 * Characters that URL parsers remove, so that ".\t." becomes "..": tabs and line ends, and at both ends also
 * spaces and other control characters.
 */
const IGNORED = /\p{Cc}|^ | $/u;

const IS_FILE = /^file:\//i;

/** The host of a file, which some programs ignore. */
const HOST_OF_FILE = /(?<=^file:)\/\/[^/\\?#]+(?=\/)/i;

/** The file of a URI for programs that ignore its query and fragment. To file systems, `//` is `/`. */
const fileOf = (uri: string): string =>
  `file://${uri.slice("file:".length).replace(/[?#].*$/s, "").replaceAll(/\/+/g, "/")}`;

const MAX_URI_CHARACTERS = 8192;

/** A URI with a dot or a slash that is encoded more often than this is rejected. */
const MAX_ESCAPES = 4;

/** Programs with path parameters read "..;a" as "..". */
const DOT_SEGMENT = /(?:^|[/\\?#:])\.{1,2}(?:$|[/\\?#;])/;

/** Decodes dots, slashes and backslashes once. */
function withoutEscapes(uri: string): string {
  return uri.replaceAll(/%25(?=2e|2f|5c|25)/gi, "%")
    .replaceAll(/%(?:2e|2f|5c)/gi, (escape) => decodeURIComponent(escape));
}

/** The lists in results, and how their entries are requested. */
const LISTS = {
  tools: { method: "tools/call", field: "name" },
  prompts: { method: "prompts/get", field: "name" },
  resources: { method: "resources/read", field: "uri" },
  resourceTemplates: { method: "resources/read", field: "uriTemplate" },
} as const;

/**
 * Removes from a result what the client may not use: tools, prompts, resources and templates. Each result
 * is filtered, whatever its request was, so that ids that a client uses again cannot mislead the filter.
 *
 * @returns The result itself if nothing was removed.
 */
export function filterResult(by: Pick<Judge, "peek">, result: unknown): unknown {
  if (!isObject(result)) return result;
  let filtered: { [key: string]: unknown } | undefined;
  for (const [key, { method, field }] of Object.entries(LISTS)) {
    if (!Object.hasOwn(result, key)) continue;
    const list = result[key];
    const kept = Array.isArray(list)
      ? list.filter((entry) => maySee(by, method, ownField(entry, field)))
      : [];
    if (Array.isArray(list) && kept.length === list.length) continue;
    filtered ??= { ...result };
    filtered[key] = kept;
  }
  return filtered ?? result;
}

/** Whether a client may use a tool or resource, at least with some arguments: only then a list shows it. */
function maySee(by: Pick<Judge, "peek">, method: string, name: unknown): boolean {
  if (!isName(name)) return false;
  const attributes = method === "resources/read" ? { uri: name } : { name };
  const { allowed, unknown } = by.peek(`${method} ${name}`, attributes);
  return allowed || unknown.some((fact) => fact.startsWith("attributes.arguments."));
}

/** Whether a client receives a notification of the server: one about a resource only if it may read that. */
export function mayNotify(by: Pick<Judge, "peek">, method: string, params: unknown): boolean {
  if (method !== "notifications/resources/updated") return true;
  const uri = ownField(params, "uri");
  if (!isName(uri)) return false;
  return ["resources/read", "resources/subscribe"].some((method) =>
    by.peek(`${method} ${uri}`, { uri }).allowed
  );
}
