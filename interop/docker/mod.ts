/**
 * Requests to Docker's engine and to podman's compatible API, as actions and attributes of the vocabulary
 * `docker`: `ucred/docker`. Pure code, which opens no socket.
 *
 * @example A decision about a new container
 * ```ts
 * import { parsePolicy } from "ucred/policy";
 * import { dockerVocabulary, isRefusal, readBody, readRequest, writeRequest } from "ucred/docker";
 *
 * const policy = parsePolicy(
 *   `
 * version: 1
 * about: docker
 * rules:
 *   - name: contained containers
 *     actions: container.create
 *     where: { dangers: { empty: true } }
 *     allow: true
 * `,
 *   { vocabularies: [dockerVocabulary] },
 * );
 * const request = readRequest({
 *   method: "POST",
 *   target: "/v1.46/containers/create?name=web",
 *   header: (name) => name === "content-type" ? "application/json" : undefined,
 * });
 * if (isRefusal(request)) throw new Error(request.message);
 * const judged = readBody(request, new TextEncoder().encode('{ "image": "alpine" }'));
 * if (isRefusal(judged)) throw new Error(judged.message);
 * const { action } = request;
 * const { attributes } = judged;
 * if (policy.decide({ uid: 1000 }, { action, attributes }).allowed) {
 *   const written = writeRequest(judged, { labels: { owner: "1000" } });
 *   if (!isRefusal(written)) console.log(written.target); // /v1.46/containers/create?name=web
 * }
 * ```
 *
 * @module
 */

export { fullImage, readBody, withContainer } from "./judge.ts";
export { JsonNumber, type JsonObject, type JsonValue, readJson, writeJson } from "../json.ts";
export { isRefusal, MAX_JSON_BYTES, readRequest, type RequestHead } from "./request.ts";
export { API_VERSIONS } from "./routes.ts";
export type * from "./types.ts";
export { dockerVocabulary } from "./vocabulary.ts";
export { writeRequest } from "./write.ts";
