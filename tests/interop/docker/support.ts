/** Requests to create containers, for tests. */

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
