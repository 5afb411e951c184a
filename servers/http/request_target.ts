/**
 * Converts an HTTP request line to the action `METHOD /path` that policies decide, with one spelling for
 * each path.
 *
 * Ambiguous targets are rejected, and the application receives the same path that was decided. Routers may
 * treat further spellings as equal (case, a trailing slash); the policy does not.
 */

/** A normalised request target. */
export interface Target {
  /** Method and decoded path without the query, such as `GET /a b`. */
  readonly action: string;
  /** Re-encoded path, and query, for the application. */
  readonly url: string;
}

/** Paths that need no normalisation: no "%" or ";", and no segment begins with a dot. Most paths match. */
const PLAIN = /^(?:\/[\w~!$&'()*+,=:@-][\w~!$&'()*+,=:@.-]*)+\/?$/;

/**
 * Methods are case-sensitive (RFC 9110, 9.1), so lower case is rejected: some servers would treat "get" as
 * GET.
 */
const METHOD = /^[A-Z][A-Z\d_-]*$/;

/** Scheme and host of the absolute form: RFC 9112, 3.2.2. */
const ABSOLUTE = /^[a-z][a-z\d+.-]*:\/\/[\w!$%&'()*+,.:;=[\]~-]+(?=\/|$)/i;

/** Host and port in the characters of RFC 3986, 3.2.2. Go's net/http accepts the same. */
const HOST = /^[\w!$%&'()*+,.:;=[\]~-]*$/;

/** Host names that every URL parser accepts: each label begins with a letter and has no "--". */
export const PLAIN_HOST: RegExp =
  /^[a-z](?:[a-z\d]|-(?!-))*(?:\.[a-z](?:[a-z\d]|-(?!-))*)*(?::\d{1,4})?$/i;

/** Characters of an encoded path: printable ASCII except "#", "?" and "\\". */
const ALLOWED = /^[!-"$->@-[\]-~]*$/;

/** Host and port of CONNECT: RFC 9112, 3.2.3. */
const AUTHORITY = /^[\w.:[\]-]+$/;

/** An encoded `%` followed by two hexadecimal digits: a server that decodes twice would see another path. */
const TWICE = /%[0-9a-f]{2}/i;

/**
 * Characters that some server treats as the end of a path or of a segment: controls, "\" and line
 * separators.
 */
// deno-lint-ignore no-control-regex
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f\\\ufeff\u2028\u2029]/;

/** To servers that implement path parameters, "..;" is "..", and ";" is an empty segment. */
const DOTS_AND_PARAMETERS = /^\.{0,2};/;

/**
 * Returns the action of a request line.
 *
 * @param method The method, as sent by the client.
 * @param url The request target, as sent by the client.
 * @returns `undefined` if the target is ambiguous or malformed.
 */
export function targetOf(method: string, url: string): Target | undefined {
  // The last target is cached, for clients that poll.
  if (method !== last.method || url !== last.url) {
    last = { method, url, target: newTarget(method, url) };
  }
  return last.target;
}

let last: { method: string; url: string; target: Target | undefined } = {
  method: "",
  url: "",
  target: undefined,
};

function newTarget(method: string, url: string): Target | undefined {
  // A target has no fragment (RFC 9112, 3.2), but some servers accept a fragment and remove it.
  if (!METHOD.test(method) || url.includes("#")) return undefined;
  const query = url.indexOf("?");
  const path = query === -1 ? url : url.slice(0, query);
  if (PLAIN.test(path) || path === "/") return { action: `${method} ${path}`, url };
  const isOther = method === "CONNECT" ? AUTHORITY.test(url) : method === "OPTIONS" && url === "*";
  if (isOther) return { action: `${method} ${url}`, url };
  const scheme = ABSOLUTE.exec(path)?.[0];
  const decoded = decode(scheme === undefined ? path : path.slice(scheme.length) || "/");
  if (decoded?.startsWith("/") !== true) return undefined;
  const plain = withoutDots(decoded);
  if (plain === undefined) return undefined;
  const search = query === -1 ? "" : url.slice(query);
  return { action: `${method} ${plain}`, url: encode(plain) + search };
}

/**
 * Returns whether a Host header is exactly one host. Applications put it before the path to build a URL.
 * With "x/admin?" that URL would have another path. With an empty host, its first segment would become the
 * host. With "a:b", "xn--" or "256.1.1.1", `new URL()` throws.
 */
export function isHost(text: string): boolean {
  if (PLAIN_HOST.test(text)) return true; // the common case; URL.canParse() costs as much as the decision
  return text !== "" && HOST.test(text) && URL.canParse(`http://${text}/`);
}

/** Decodes a path; `undefined` if it is ambiguous. */
function decode(path: string): string | undefined {
  if (!ALLOWED.test(path) || /%2f/i.test(path)) return undefined;
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    return undefined; // "%zz", or not UTF-8
  }
  return FORBIDDEN.test(decoded) || TWICE.test(decoded) ? undefined : decoded;
}

/** Removes empty segments, "." and "..": RFC 3986, 5.2.4. */
function withoutDots(path: string): string | undefined {
  const segments = path.slice(1).split("/");
  const kept: string[] = [];
  for (const segment of segments) {
    if (DOTS_AND_PARAMETERS.test(segment)) return undefined;
    if (segment === "..") {
      // "/a//.." is "/a/" to URLs, and "/" to file systems.
      if (kept.pop() === "") return undefined;
    } else if (segment !== ".") kept.push(segment);
  }
  const names = kept.filter((segment) => segment !== "");
  const isFolder = ["", ".", ".."].includes(segments.at(-1)!);
  return names.length === 0 ? "/" : `/${names.join("/")}${isFolder ? "/" : ""}`;
}

/**
 * Encodes a path. Servers that implement path parameters, such as Tomcat, route "/admin;x" to "/admin".
 * They read "%3B" as a part of the name, as the policy does.
 */
function encode(path: string): string {
  return encodeURI(path).replaceAll("?", "%3F").replaceAll("#", "%23").replaceAll(";", "%3B");
}
