/**
 * Requests to Docker's engine and to podman's compatible API, as actions and attributes of the vocabulary
 * `docker`: `ucred/docker`. Pure code, which opens no socket.
 *
 * @module
 */

export { isRefusal, MAX_JSON_BYTES, readRequest, type RequestHead } from "./request.ts";
export { API_VERSIONS } from "./routes.ts";
export type * from "./types.ts";
export { dockerVocabulary } from "./vocabulary.ts";
export { JsonNumber, type JsonObject, type JsonValue, readJson, writeJson } from "./json.ts";
