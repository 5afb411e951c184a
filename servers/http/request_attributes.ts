/**
 * The attributes of an HTTP request for policies with `about: http`. They are read from the request when a
 * condition tests them. A header or query that programs read in more than one way is unknown.
 */

import type { Attributes } from "../../core/policy/decide/decision.ts";
import { PLAIN_HOST } from "./request_target.ts";

/** The headers that attributes are read from. */
export type AttributeHeader = "host" | "content-type";

/** Returns all values of a header, as the application receives them; `undefined` if that is unknown. */
export type HeaderValues = (name: AttributeHeader) => readonly string[] | undefined;

/**
 * Returns the attributes of a request.
 *
 * @param url The request target that the application receives.
 */
export function attributesOf(url: string, valuesOf: HeaderValues): Attributes {
  let query: Parameters | null | undefined;
  return {
    get host() {
      return single(valuesOf("host"), hostIn);
    },
    get contentType() {
      return single(valuesOf("content-type"), mediaTypeIn);
    },
    get query() { // for each parameter that a rule tests
      if (query === undefined) query = parametersIn(url) ?? null;
      return query ?? undefined;
    },
  };
}

/** Reads the only value of a header: `null` if there is none, `undefined` if there are several. */
function single(
  values: readonly string[] | undefined,
  read: (value: string) => string | undefined,
): string | null | undefined {
  if (values === undefined || values.length > 1) return undefined;
  return values.length === 0 ? null : read(values[0]!);
}

/** Returns the host of a valid Host header; `undefined` if URL parsers would read another one. */
function hostIn(value: string): string | undefined {
  const host = value.replace(/:\d*$/, "").toLowerCase();
  if (PLAIN_HOST.test(value)) return host;
  const url = URL.parse(`http://${value}/`);
  return url?.hostname === host && !host.endsWith(".") ? host : undefined;
}

/** A media type in lower case: RFC 9110, 8.3.1. */
const MEDIA_TYPE = /^[\w!#$%&'*+.^`|~-]+\/[\w!#$%&'*+.^`|~-]+$/;

function mediaTypeIn(value: string): string | undefined {
  // Of a list, programs take the first or the last: "text/plain;a=b, application/json".
  if (value.includes(",")) return undefined;
  const end = value.indexOf(";");
  const type = (end === -1 ? value : value.slice(0, end)).replace(/[ \t]+$/, "").toLowerCase();
  return MEDIA_TYPE.test(type) ? type : undefined;
}

interface Parameters {
  [name: string]: string[];
}

/** PHP and Express ignore further parameters. */
const MAX_PARAMETERS = 1000;

/**
 * Characters at which some programs end a name or a value, or which they remove from a name: `new
 * URLSearchParams()` removes a "?" at the start of a query.
 */
// deno-lint-ignore no-control-regex
const DOUBTFUL_NAME = /^[\s?]|[\0-\x1f\x7f]/;

/**
 * Whether a name has brackets that are no subscripts, as in "[a]", "a]" or "a[b". Rack and qs (Express) read
 * the first as "a", Rack also the second.
 */
function hasDoubtfulBrackets(name: string): boolean {
  const [open, close] = [name.indexOf("["), name.indexOf("]")];
  if (open === -1 && close === -1) return false;
  return open < 1 || close < open || name.lastIndexOf("[") > name.lastIndexOf("]");
}

/** The end of a name to qs. */
const END_OF_NAME = /(?:\]|%5d)=/i;

/**
 * Reads the query parameters, like `URLSearchParams`.
 *
 * @returns `undefined` if programs would read different parameters.
 */
function parametersIn(url: string): Parameters | undefined {
  const parameters: Parameters = Object.create(null);
  const start = url.indexOf("?");
  if (start === -1 || start === url.length - 1) return parameters;
  const pairs = url.slice(start + 1).split("&");
  if (pairs.length > MAX_PARAMETERS) return undefined;
  for (const pair of pairs) {
    if (pair === "") continue;
    if (pair.includes(";")) return undefined; // a separator like "&" to some programs
    const equals = pair.indexOf("=");
    const name = decoded(equals === -1 ? pair : pair.slice(0, equals));
    const value = equals === -1 ? "" : decoded(pair.slice(equals + 1));
    if (name === undefined || value === undefined || value.includes("\0")) return undefined;
    if (DOUBTFUL_NAME.test(name) || hasDoubtfulBrackets(name)) return undefined;
    if (!name.endsWith("]") && END_OF_NAME.test(pair)) return undefined;
    for (const each of namesOf(name)) (parameters[each] ??= []).push(value);
  }
  return parameters;
}

/**
 * Returns all names under which programs read a parameter: PHP, Rack and Express read "a[b]" as a part of "a",
 * and PHP reads "a.b" as "a_b".
 */
function namesOf(name: string): Iterable<string> {
  if (!/[. [\]]/.test(name)) return [name];
  const base = name.slice(0, Math.max(0, name.indexOf("["))) || name;
  return new Set([name, base, base.replaceAll(/[. ]/g, "_"), name.replaceAll(/[. [\]]/g, "_")]);
}

/** Decodes a name or value; `undefined` if it is not ASCII, or does not encode UTF-8. */
function decoded(text: string): string | undefined {
  if (!/^[\x21-\x7e]*$/.test(text)) return undefined;
  if (!/[%+]/.test(text)) return text;
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return undefined; // "%zz"
  }
}

/** Returns the values of a header in a list of names and values in turns, as in `rawHeaders`. */
export function valuesIn(rawHeaders: readonly string[], name: AttributeHeader): readonly string[] {
  const values: string[] = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const each = rawHeaders[at]!;
    if (each.length === name.length && each.toLowerCase() === name) {
      values.push(rawHeaders[at + 1]!);
    }
  }
  return values;
}

/** Returns the value of a header of a `Headers` object, which joins several values by a comma. */
export function valueIn(headers: Headers, name: AttributeHeader): readonly string[] {
  const value = headers.get(name);
  return value === null ? [] : [value];
}
