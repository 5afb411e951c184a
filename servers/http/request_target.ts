/**
 * HTTP request → the action that rules are about: `METHOD /path`, each path in one spelling.
 *
 * Whatever can be read in two ways is refused, and an application gets the very path that was decided
 * about. What routers take for the same on top of that (case, a slash at the end) is theirs.
 */

/** What a request is about. */
export interface Target {
  /** `GET /a b`: the path decoded, without the query. */
  readonly action: string;
  /** Path, encoded again, and query: what the application is to see. */
  readonly url: string;
}

/** Paths that are as they should be, which most are: no percent signs, and no segment begins with a dot. */
const PLAIN = /^(?:\/[\w~!$&'()*+,;=:@-][\w~!$&'()*+,;=:@.-]*)+\/?$/;

/** Others are "GET" to whoever does not mind case, and methods are told apart by it: RFC 9110, 9.1. */
const METHOD = /^[A-Z][A-Z\d_-]*$/;

/** Any scheme and host, as a proxy is asked: RFC 9112, 3.2.2. */
const ABSOLUTE = /^[a-z][a-z\d+.-]*:\/\/[\w!$%&'()*+,.:;=[\]~-]+(?=\/|$)/i;

/** Host and port, of what RFC 3986 lets them consist of: 3.2.2. Go's net/http takes the same. */
const HOST = /^[\w!$%&'()*+,.:;=[\]~-]*$/;

/** Names that every URL parser takes: each label begins with a letter and has no "--". */
const PLAIN_HOST = /^[a-z](?:[a-z\d]|-(?!-))*(?:\.[a-z](?:[a-z\d]|-(?!-))*)*(?::\d{1,4})?$/i;

/** What may stand in a path that is not encoded: printable ASCII but "#", "?" and "\\". */
const ALLOWED = /^[!-"$->@-[\]-~]*$/;

/** Host and port of CONNECT: RFC 9112, 3.2.3. */
const AUTHORITY = /^[\w.:[\]-]+$/;

/** An encoded `%`, and then what looks encoded: whoever decodes twice reads another path. */
const TWICE = /%[0-9a-f]{2}/i;

/** What splits paths or ends them, for somebody: controls, "\" and an encoded "/". */
// deno-lint-ignore no-control-regex
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f\\\ufeff\u2028\u2029]/;

/** "..;" is ".." to servers that know parameters of path segments. */
const DOTS_AND_PARAMETERS = /^\.{1,2};/;

/**
 * The action of a request line.
 *
 * @param method As the client sent it.
 * @param url The request target, as the client sent it.
 * @returns `undefined` if the target can be read in more than one way, or in none.
 */
export function targetOf(method: string, url: string): Target | undefined {
  // Who polls asks for the same over and over.
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
  // A fragment has no place in a target: RFC 9112, 3.2. Some cut it off, with all that comes after.
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
 * Whether a Host header is a host and no more: applications put it before the path to make a URL. With
 * "x/admin?" that URL would have another path, with an empty host its first segment would be the host,
 * and with "a:b", "xn--" or "256.1.1.1" `new URL()` throws.
 */
export function isHost(text: string): boolean {
  if (PLAIN_HOST.test(text)) return true; // most are, and URL.canParse() costs as much as the decision
  return text !== "" && HOST.test(text) && URL.canParse(`http://${text}/`);
}

/** `undefined` for what has more than one reading. */
function decode(path: string): string | undefined {
  if (!ALLOWED.test(path) || /%2f/i.test(path)) return undefined;
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    return undefined; // "%zz", or no UTF-8
  }
  return FORBIDDEN.test(decoded) || TWICE.test(decoded) ? undefined : decoded;
}

/** Without empty segments, "." and "..": RFC 3986, 5.2.4. */
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

function encode(path: string): string {
  return encodeURI(path).replaceAll("?", "%3F").replaceAll("#", "%23");
}
