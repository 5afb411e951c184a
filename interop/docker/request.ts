/** Reads the head of a request: its route, targets and parameters, in one spelling. */

import { isJsonObject, type JsonValue, readJson, writeJson } from "../json.ts";
import {
  API_VERSIONS,
  findRoute,
  HAS_ENCODED_SLASHES,
  isNameOf,
  type Match,
  type ParameterType,
  type Route,
} from "./routes.ts";
import type { DockerRequest, Refusal, StreamKind, Target } from "./types.ts";

/** The head of a request as the client sent it. */
export interface RequestHead {
  /** The method, in upper case. */
  readonly method: string;
  /** The request target: the path, and the query after "?". */
  readonly target: string;
  /** Returns a header field by its name in lower case; several lines are joined by ", ". */
  readonly header: (name: string) => string | undefined;
}

/** Maximum bytes of a JSON body. */
export const MAX_JSON_BYTES = 1 << 20;

/**
 * Reads the head of a request to the engine.
 *
 * A path has one spelling, and each other one is rejected: percent-encoding counts as its character, and
 * there are no empty and no dot segments, and no slash at the end. Parameters that the route does not have
 * are dropped; if they may limit what a request removes, they are rejected.
 *
 * @example The action of a request
 * ```ts
 * import { isRefusal, readRequest } from "ucred/docker";
 *
 * const target = "/v1.46/containers/web/logs?follow=true";
 * const request = readRequest({ method: "GET", target, header: () => undefined });
 * if (!isRefusal(request)) console.log(request.action, request.targets[0]?.name); // container.logs web
 * ```
 */
export function readRequest({ method, target, header }: RequestHead): DockerRequest | Refusal {
  const question = target.indexOf("?");
  const rawPath = question < 0 ? target : target.slice(0, question);
  const path = readPath(rawPath);
  if (isRefusal(path)) return path;
  const parameters = readParameters(question < 0 ? "" : target.slice(question + 1));
  if (isRefusal(parameters)) return parameters;
  const coding = header("content-encoding");
  if (coding !== undefined) return refuse(415, `The body has the coding ${quoted(coding)}`);
  const type = header("content-type");
  if (type !== undefined && isForeign(type)) {
    return refuse(415, `The body has the type ${quoted(type)}`);
  }
  const isJson = type !== undefined && JSON_TYPE.test(type);
  if (path.isLibpod) return readLibpod(method, path, parameters, isJson);

  const match = findRoute(method, path.text);
  if (match === undefined) return refuse(404, "page not found"); // as dockerd
  const targets = targetsOf(match, path);
  if (isRefusal(targets)) return targets;
  const query = readQuery(match.route, parameters);
  if (isRefusal(query)) return query;
  const named = targetInQuery(match.route, query);
  if (isRefusal(named)) return named;
  const variant = variantOf(match.route, query);
  if (isRefusal(variant)) return variant;
  const { action, body, stream } = variant;
  if (body === "json" && type !== undefined && !isJson) {
    return refuse(415, `The body has the type ${quoted(type)}, and must be application/json`);
  }
  return {
    ...{ method, action, version: path.version, route: match.route.path, query },
    targets: [...targets, ...named],
    ...{ body, isJson, stream },
    maxBodyBytes: body === "tar" || body === "raw" ? Infinity : MAX_JSON_BYTES,
  };
}

/** Whether a result is a refusal. */
export const isRefusal = (result: object): result is Refusal => "status" in result;

/** Builds a refusal. */
export const refuse = (status: Refusal["status"], message: string): Refusal => ({
  status,
  message,
});

/** A text of a client in a message, shortened. */
export const quoted = (text: string): string => JSON.stringify(text.slice(0, 200));

const JSON_TYPE = /^application\/json(?:[ \t]*;[ \t]*charset="?utf-8"?)?$/i;

/**
 * Whether the engine reads such a body by its type alone, whatever the route is: Go prefers the fields of forms
 * to the query, and gRPC goes to BuildKit on any path.
 */
const isForeign = (type: string): boolean =>
  /^\s*(?:multipart\/|application\/(?:x-www-form-urlencoded|grpc))/i.test(type) ||
  type.includes(",");

interface Path {
  readonly version: string | undefined;
  readonly isLibpod: boolean;
  /** The path after the version, decoded. */
  readonly text: string;
  /** Where slashes were encoded. */
  readonly encodedSlashes: readonly number[];
}

function readPath(raw: string): Path | Refusal {
  const wrong = refuse(400, `The path ${quoted(raw)} is not in its canonical form`);
  if (!raw.startsWith("/")) return wrong;
  const encodedSlashes: number[] = [];
  let text = "";
  for (const segment of raw.slice(1).split("/")) {
    let decoded: string;
    try {
      decoded = decodeURIComponent(segment);
    } catch {
      return wrong;
    }
    for (let at = 0; (at = decoded.indexOf("/", at)) >= 0; at++) {
      encodedSlashes.push(text.length + 1 + at);
    }
    text += `/${decoded}`;
  }
  if (!/^[\x20-\x7e]+$/.test(text) || /[%\\;?#]/.test(text)) return wrong;
  if (text.slice(1).split("/").some((name) => name === "" || name === "." || name === "..")) {
    return wrong;
  }
  const prefix = /^\/v([0-9][^/]*)(?=\/)/.exec(text);
  const length = prefix === null ? 0 : prefix[0].length;
  const version = prefix?.[1];
  if (encodedSlashes.some((at) => at <= length)) return wrong;
  const rest = text.slice(length);
  const isLibpod = rest.startsWith("/libpod/");
  if (version !== undefined && !(isLibpod ? LIBPOD_VERSION.test(version) : isKnown(version))) {
    return refuse(
      400,
      isLibpod || !/^1\.[1-9][0-9]{0,3}$/.test(version)
        ? `The API version ${quoted(version)} cannot be read`
        : `The API version ${version} is not known: ${API_VERSIONS.min} to ${API_VERSIONS.max} are`,
    );
  }
  return {
    ...{ version, isLibpod, text: rest },
    encodedSlashes: encodedSlashes.map((at) => at - length),
  };
}

const minor = (version: string): number => Number(version.slice("1.".length));

/** Whether a version is known, without zeros that change nothing. */
function isKnown(version: string): boolean {
  if (!/^1\.[1-9][0-9]$/.test(version)) return false;
  return minor(version) >= minor(API_VERSIONS.min) && minor(version) <= minor(API_VERSIONS.max);
}

const LIBPOD_VERSION = /^[1-9][0-9]?\.[0-9]{1,2}\.[0-9]{1,2}(?:-[a-z0-9.]{1,20})?$/;

function targetsOf({ targets }: Match, path: Path): readonly Target[] | Refusal {
  const isFine = path.encodedSlashes.every((at) =>
    targets.some(({ kind, from, to }) => HAS_ENCODED_SLASHES.has(kind) && from <= at && at < to)
  );
  if (!isFine) return refuse(400, `The path ${quoted(path.text)} has an encoded slash`);
  const found: Target[] = [];
  for (const { kind, from, to } of targets) {
    const name = path.text.slice(from, to);
    if (!isNameOf(kind, name)) return refuse(400, `${quoted(name)} cannot be a name of a ${kind}`);
    found.push({ kind, name });
  }
  return found;
}

/** The container of a commit, which is a parameter. */
function targetInQuery({ path }: Route, query: Query): readonly Target[] | Refusal {
  if (path !== "/commit") return [];
  const name = query.get("container")?.[0] ?? "";
  if (isNameOf("container", name)) return [{ kind: "container", name }];
  return refuse(400, `${quoted(name)} cannot be a name of a container`);
}

type Parameters = readonly (readonly [name: string, value: string])[];

function readParameters(text: string): Parameters | Refusal {
  const found: [string, string][] = [];
  if (text === "") return found;
  const wrong = refuse(400, "The query cannot be read");
  if (text.includes(";") || text.includes("#")) return wrong; // Go rejects ";", others separate by it
  for (const pair of text.split("&")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    const [name, value] = equals < 0 ? [pair, ""] : [pair.slice(0, equals), pair.slice(equals + 1)];
    try {
      const decode = (part: string) => decodeURIComponent(part.replaceAll("+", " "));
      found.push([decode(name), decode(value)]);
    } catch {
      return wrong;
    }
  }
  return found;
}

type Query = DockerRequest["query"];

function readQuery(route: Route, parameters: Parameters): Query | Refusal {
  const query = new Map<string, string[]>();
  for (const [name, given] of parameters) {
    const isKnown = Object.hasOwn(route.query, name);
    if (!isKnown && !route.isStrict) continue;
    if (!isKnown) return refuse(400, `The parameter ${quoted(name)} is not known`);
    const type = route.query[name]!;
    const value = readParameter(type, given);
    if (value === undefined) {
      return refuse(400, `The parameter ${quoted(name)} has the value ${quoted(given)}`);
    }
    if (type === "set-flag" && given === "") continue;
    const values = query.get(name);
    if (values === undefined) query.set(name, [value]);
    else if (type === "texts") values.push(value);
    else return refuse(400, `The parameter ${quoted(name)} is repeated`);
  }
  return query;
}

/** Reads a value as Go does, and returns it in one spelling; `undefined` if it cannot be read. */
function readParameter(type: ParameterType, value: string): string | undefined {
  switch (type) {
    case "flag":
    case "set-flag":
      return ["", "0", "no", "false", "none"].includes(value.toLowerCase().trim()) ? "0" : "1";
    case "number":
      return /^(?:-?[0-9]{1,18})?$/.test(value) ? value : undefined;
    case "text":
    case "texts":
      return value.includes("\0") ? undefined : value;
    case "json":
    case "filters": {
      if (value === "") return value;
      const read = readJson(new TextEncoder().encode(value));
      if ("problem" in read) return undefined;
      if (type === "json") return writeJson(read.value);
      const filters = filtersIn(read.value);
      return filters === undefined ? undefined : writeJson(filters);
    }
  }
}

/** Reads filters of both forms, `{"label":["a"]}` and `{"label":{"a":true}}`, as the first. */
export function filtersIn(value: JsonValue): ReadonlyMap<string, readonly string[]> | undefined {
  const filters = new Map<string, string[]>();
  if (value === null) return filters;
  if (!isJsonObject(value)) return undefined;
  for (const [name, given] of value) {
    if (isJsonObject(given)) {
      if (![...given.values()].every((each) => each === true)) return undefined;
      filters.set(name, [...given.keys()]);
    } else if (Array.isArray(given) && given.every((each) => typeof each === "string")) {
      filters.set(name, [...given]);
    } else return undefined;
  }
  return filters;
}

/** Returns the action, body and stream of a request: its parameters may change those of the route. */
function variantOf(
  route: Route,
  query: Query,
): Pick<Route, "action" | "body" | "stream"> | Refusal {
  const { action, body, stream } = route;
  const has = (name: string) => (query.get(name)?.[0] ?? "") !== "";
  const isOn = (name: string) => query.get(name)?.[0] === "1";
  switch (action) {
    case "container.logs":
    case "service.logs":
    case "task.logs":
      return { action, body, stream: isOn("follow") ? stream : "none" };
    case "container.stats": {
      const isOnce = query.get("stream")?.[0] === "0";
      return { action, body, stream: isOnce ? "none" : stream };
    }
    case "image.pull": {
      if (!has("fromSrc")) return { action, body, stream };
      if (has("fromImage")) return refuse(400, "fromImage and fromSrc exclude each other");
      const isSent = query.get("fromSrc")?.[0] === "-";
      return { action: "image.import", body: isSent ? "raw" : "none", stream };
    }
    case "build": {
      const version = query.get("version")?.[0] ?? "";
      if (version !== "" && version !== "1" && version !== "2") {
        return refuse(400, `The builder version ${quoted(version)} is not known`);
      }
      const isBuildKit = version === "2" || has("session") || has("outputs");
      return { action: isBuildKit ? "build.session" : action, body, stream };
    }
  }
  return { action, body, stream };
}

/** Requests to read in podman's own API share one action. All other requests of that API are refused. */
function readLibpod(
  method: string,
  { version, text, encodedSlashes }: Path,
  parameters: Parameters,
  isJson: boolean,
): DockerRequest | Refusal {
  const isPing = text === "/libpod/_ping" && (method === "GET" || method === "HEAD");
  if (method !== "GET" && !isPing) return refuse(404, "page not found");
  if (version === undefined && !isPing) return refuse(404, "page not found");
  if (encodedSlashes.length > 0 || !/^[\w./:@-]+$/.test(text)) {
    return refuse(400, `The path ${quoted(text)} is not in its canonical form`);
  }
  const query = new Map<string, string[]>();
  for (const [name, value] of parameters) {
    if (query.has(name)) return refuse(400, `The parameter ${quoted(name)} is repeated`);
    query.set(name, [value]);
  }
  const stream: StreamKind = "unbounded";
  return {
    ...{ method, action: "podman.read", version, route: text, targets: [], query },
    ...{ body: "none", isJson, maxBodyBytes: MAX_JSON_BYTES, stream },
  };
}
