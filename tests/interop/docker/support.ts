/** Requests for tests: paths of all routes in many spellings, and bodies. */

import assert from "node:assert/strict";
import {
  type DockerRequest,
  isRefusal,
  type JudgedRequest,
  readBody,
  readRequest,
  type Refusal,
  type Replacements,
  writeRequest,
} from "../../../interop/docker/mod.ts";

export const bytesOf = (body: unknown): Uint8Array =>
  new TextEncoder().encode(typeof body === "string" ? body : JSON.stringify(body));

/** Reads the head of a request with a JSON body. */
export function head(line: string): DockerRequest {
  const [method = "", target = ""] = line.split(" ");
  const header = (name: string) => name === "content-type" ? "application/json" : undefined;
  const request = readRequest({ method, target, header });
  if (isRefusal(request)) assert.fail(`${line}: ${request.message}`);
  return request;
}

export const CREATE = "POST /v1.46/containers/create";

/** Reads a request with a JSON body. */
export const read = (line: string, body: unknown): JudgedRequest | Refusal =>
  readBody(head(line), bytesOf(body));

/** Reads a request that is accepted. */
export function judged(line: string, body: unknown): JudgedRequest {
  const result = read(line, body);
  if (isRefusal(result)) assert.fail(`${line} ${JSON.stringify(body)}: ${result.message}`);
  return result;
}

/** Reads a request that is rejected, and returns the message. */
export function rejected(line: string, body: unknown): string {
  const result = read(line, body);
  if (!isRefusal(result)) assert.fail(`${line} ${JSON.stringify(body)} is accepted`);
  return result.message;
}

/** The body that is forwarded, parsed. */
export function written(request: JudgedRequest, replacements?: Replacements): unknown {
  const result = writeRequest(request, replacements);
  if (isRefusal(result)) assert.fail(result.message);
  return result.body === undefined ? undefined : JSON.parse(new TextDecoder().decode(result.body));
}

/** A name for each target of a route. */
const NAMES: { readonly [kind: string]: string } = {
  image: "registry.example:5000/team/app:1.0",
  plugin: "vieux/sshfs:latest",
  exec: "f".repeat(64),
};
/** A path of a route. */
export const exampleOf = (path: string) =>
  path.replaceAll(/\{(\w+)\}/g, (_, kind: string) => NAMES[kind] ?? `the-${kind}.1`);

/** Parameters without which a request means nothing. */
export const QUERY: { readonly [path: string]: string } = {
  "/commit": "?container=web",
  "/images/create": "?fromImage=alpine",
  "/containers/{container}/rename": "?name=other",
};

/** Ways to write a path differently. They all mean the same to some server. */
export const SPELLINGS: readonly ((path: string) => string)[] = [
  (path) => `/${path}`,
  (path) => `${path}/`,
  (path) => `${path}//`,
  (path) => `${path}/.`,
  (path) => `${path}/..`,
  (path) => `${path}/x/..`,
  (path) => `/.${path}`,
  (path) => `/..${path}`,
  (path) => `/./${path.slice(1)}`,
  (path) => `/x/..${path}`,
  (path) => `/v1.24/..${path}`,
  (path) => `/v1.24/v1.46${path}`,
  (path) => `/v1.24/.${path}`,
  (path) => `/v1.24//${path.slice(1)}`,
  (path) => `/v01.24${path}`,
  (path) => `/v1.024${path}`,
  (path) => `/v1.24.0${path}`,
  (path) => `/v1.${path}`,
  (path) => `/v1${path}`,
  (path) => `/V1.24${path}`,
  (path) => `/v1.9${path}`,
  (path) => `/v1.23${path}`,
  (path) => `/v1.57${path}`,
  (path) => `/v1.999999999999999999${path}`,
  (path) => `/v%31.24${path}`,
  (path) => path.toUpperCase(),
  (path) => `/%${path.charCodeAt(1).toString(16)}${path.slice(2)}`,
  (path) => `/%25${path.charCodeAt(1).toString(16)}${path.slice(2)}`,
  (path) => path.replace(/\/(?=[^/]*$)/, "%2F"),
  (path) => path.replace(/\/(?=[^/]*$)/, "%2f"),
  (path) => `%2F${path.slice(1)}`,
  (path) => path.replace(/\/(?=[^/]*$)/, "%252F"),
  (path) => path.replace(/\/(?=[^/]*$)/, "//"),
  (path) => path.replace(/\/(?=[^/]*$)/, "/./"),
  (path) => path.replace(/\/(?=[^/]*$)/, "/x/../"),
  (path) => path.replace(/\/(?=[^/]*$)/, "\\"),
  (path) => path.replace(/\/(?=[^/]*$)/, "%5C"),
  (path) => path.replace(/\/(?=[^/]*$)/, "/%2e%2e/x/"),
  (path) => path.replace(/\/(?=[^/]*$)/, "/..;/"),
  (path) => `${path};x=1`,
  (path) => `${path};`,
  (path) => `${path}%00`,
  (path) => `${path}%00/json`,
  (path) => `${path}%0d%0aX:%20y`,
  (path) => `${path}%20`,
  (path) => `${path}%`,
  (path) => `${path}%c0%af`,
  (path) => `${path}%ff`,
  (path) => `${path}\u017f`,
  (path) => `${path}#`,
  (path) => `http://localhost${path}`,
  (path) => path.slice(1),
];
