/** Responses of the guard in the form of the Docker engine. */

import type { Buffer } from "node:buffer";
import { isObject } from "../../core/policy/document/shape.ts";
import type { Answer } from "../http/mediator.ts";
import { jsonOf } from "./engine.ts";

const TITLES: { readonly [status: number]: string } = {
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  500: "Internal Server Error",
  502: "Bad Gateway",
};

/**
 * Returns a response that Docker's clients print as "Error response from daemon: …". They show `message`
 * only if the type is exactly this one.
 */
export function dockerAnswer(
  status: number,
  message: string,
  title = TITLES[status] ?? "",
): Answer {
  return {
    ...{ status, title, type: "application/json" },
    body: JSON.stringify({ message: `ucred: ${message}` }),
  };
}

/** Ids of containers, images, networks and execs, also shortened as in messages. */
const IDS = /\b[0-9a-f]{12,64}\b/g;

/**
 * Returns an error response of the engine without the names and ids of other users' objects.
 *
 * @param own The ids of the client's own objects in the request.
 * @param mayNameOthers Whether messages with this status may have names of other objects.
 */
export function withoutOthers(
  status: number,
  title: string,
  body: Buffer,
  own: readonly string[],
  mayNameOthers: boolean,
): Answer {
  const parsed = jsonOf(body);
  const message = isObject(parsed) && Object.hasOwn(parsed, "message")
    ? parsed["message"]
    : undefined;
  if (typeof message !== "string") {
    throw new Error(`its response with status ${status} has no message`);
  }
  const isHidden = mayNameOthers && (status === 403 || status === 409);
  const text = isHidden
    ? "the engine refuses it: the name is taken, or the object is in use"
    : message.replace(IDS, (id) => own.some((each) => each.startsWith(id)) ? id : "…");
  const type = "application/json";
  return { status, title, type, body: JSON.stringify({ message: text }) };
}
