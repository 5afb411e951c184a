/** Header fields: which of them are forwarded, and the peer's identity as header fields. */

import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";

/**
 * Whether a header is an identity header, `X-Ucred-…`. CGI treats "_" and "-" alike, and some servers
 * treat further characters as one of the two.
 */
export function isIdentityHeader(name: string): boolean {
  return /^x[^a-z0-9]ucred[^a-z0-9]/i.test(name);
}

/**
 * Headers that frameworks and servers accept from a trusted proxy: they replace the method or path, on
 * which the policy decided, or name the sender. Every character but letters and digits is written "-".
 */
const FORGEABLE = new RegExp(
  `^(${
    [
      // the request: Symfony, Zend, IIS, Rails, Express' method-override, OData, nginx, Envoy, Azure, WSGI
      ...["x-original-.*", "x-rewrite-.*", "x-override-url", "x-request-uri", "x-waws-.*"],
      ...["x-http-(method|path).*", "x-method.*", "x-script-name", "x-path-info"],
      ...["x-envoy-(original-.*|internal|external-address|peer-metadata.*)"],
      // the file that is sent, and the steps that are skipped: Rack, nginx, Next.js
      ...["x-sendfile-type", "x-accel-.*", "x-middleware-.*"],
      // the client's address and the requested host: nginx, PHP, Rails, Java, WebLogic, CDNs, clouds
      ...["forwarded(-for.*)?", "x-forwarded(-.*)?", "x-host", "x-real-ip", "x-originating-.*"],
      ...["(x-|proxy-)?client-ip", "(true|fastly|x-cluster)-client-ip", "cf-connecting-ip.*"],
      ...["x-proxyuser-ip", "x-azure-(client|socket)ip", "x-appengine-.*", "wl-proxy-.*"],
      // the sender: CGI's REMOTE_USER, Authelia, oauth2-proxy, Authentik, Grafana, cloud proxies
      ...[
        "remote-.*",
        "x-remote-.*",
        "x-user(name|info)?",
        "x-user-(id|name|email|groups?|roles?)",
      ],
      ...["x-auth-(request-.*|user.*|groups?|email|roles?)", "x-authenticated-.*"],
      ...["x-authentik-.*", "x-webauth-.*", "x-goog-authenticated-.*", "x-ms-client-principal.*"],
      ...["cf-access-authenticated-.*", "x-(endpoint|apigateway)-api-userinfo"],
      // mod_auth_openidc, SiteMinder, WebSEAL, Shibboleth, Kubeflow, Linkerd, the tenant of Loki and Mimir
      ...["oidc-.*", "sm-.*", "iv-.*", "shib-.*", "kubeflow-.*", "l5d-client-id", "x-scope-orgid"],
      // Kong, Tailscale, AWS, Pomerium, Vouch, Kubernetes
      ...["x-consumer-.*", "x-credential-.*", "tailscale-user-.*", "x-amzn-(oidc|mtls)-.*"],
      ...["x-pomerium-.*", "x-vouch-.*", "impersonate-.*"],
      // its certificate: RFC 9440, IIS, nginx, Apache
      ...["client-cert(-chain)?", "x-arr-(clientcert|ssl)", "ssl-client-.*"],
      "x-(ssl-)?client-(cert|verify|dn|s-dn).*",
      "proxy", // CGI's HTTP_PROXY, which many libraries read
    ].join("|")
  })$`,
);

/** Whether an upstream may trust this header although only a trusted proxy should set it. */
export function isForgeable(name: string): boolean {
  return FORGEABLE.test(name.toLowerCase().replaceAll(/[^a-z0-9]/g, "-"));
}

/** How a field is treated: forwarded, dropped, or its message refused. Other kinds: fields that the guard reads. */
export type FieldKind =
  | "forward"
  | "drop"
  | "refuse"
  | "connection"
  | "content-length"
  | "cookie"
  | "date"
  | "expect"
  | "host"
  | "transfer-encoding"
  | "upgrade";

/** Field name in lower case → its kind: hop-by-hop fields (RFC 9110, 7.6.1), and those that the guard reads. */
const COMMON: ReadonlyMap<string, FieldKind> = new Map([
  ["connection", "connection"],
  ["content-length", "content-length"],
  ["keep-alive", "drop"],
  ["proxy-connection", "drop"],
  ["te", "drop"],
  ["trailer", "drop"],
  ["transfer-encoding", "transfer-encoding"],
  ["upgrade", "upgrade"],
]);

const OF_REQUESTS: typeof COMMON = new Map([
  ["cookie", "cookie"],
  ["expect", "expect"],
  ["host", "host"],
]);

const OF_RESPONSES: typeof COMMON = new Map([["date", "date"]]);

/** Names that some servers treat as a framing field: CGI treats "_" and "-" alike. */
const LIKE_FRAMING = /^(content[^a-z0-9]length|transfer[^a-z0-9]encoding)$/;

/** The largest number of names in a cache of kinds. */
const MAX_NAMES = 2048;

/** Returns the kind of a field by its name, as sent. */
export type FieldKinds = (name: string) => FieldKind;

/** The kinds of fields in requests. @param kept Names in lower case of headers to forward although they are forgeable. */
export function requestFields(kept: ReadonlySet<string>): FieldKinds {
  return cached((name) => {
    if (isIdentityHeader(name)) return "drop";
    return isForgeable(name) && !kept.has(name) ? "drop" : OF_REQUESTS.get(name);
  });
}

/** The kinds of fields in responses. */
export const responseFields: FieldKinds = cached((name) => OF_RESPONSES.get(name));

/** Keeps the kind of each name: few names occur, and the patterns take microseconds. */
function cached(kindOf: (name: string) => FieldKind | undefined): FieldKinds {
  const kinds = new Map<string, FieldKind>();
  return (sent) => {
    let kind = kinds.get(sent);
    if (kind === undefined) {
      const name = sent.toLowerCase();
      kind = COMMON.get(name) ??
        (LIKE_FRAMING.test(name) ? "refuse" : kindOf(name) ?? "forward");
      if (kinds.size >= MAX_NAMES) kinds.clear();
      kinds.set(sent, kind);
    }
    return kind;
  };
}

/** The names in lower case that a `Connection` header lists, without those that need no removal. */
export function listedIn(connection: string): ReadonlySet<string> | undefined {
  if (connection === "" || /^(keep-alive|close|upgrade)$/i.test(connection)) return undefined;
  const names = connection.split(",").map((name) => name.trim().toLowerCase());
  return new Set(names.filter((name) => name !== "host")); // it names the resource: RFC 9110, 7.2
}

/** Whether a `Connection` header has "close". */
export function hasClose(connection: string): boolean {
  return connection !== "" && /(^|,)[ \t]*close[ \t]*(,|$)/i.test(connection);
}

/** Upgrade protocols that carry further requests, which the policy would not see; "h2c-14" is a draft. */
const HTTP = /^(h[23]c?|https?|tls)(-\d+)?(\/|$)/i;

/** A protocol, with or without a version: RFC 9110, 7.8. Some servers remove spaces and quotes. */
const PROTOCOL = /^[\w!#$%&'*+.^`|~-]+(\/[\w!#$%&'*+.^`|~-]+)?$/;

/** Whether an upgrade to this protocol may carry further requests. */
function mayBeHttp(protocol: string): boolean {
  return HTTP.test(protocol) || !PROTOCOL.test(protocol);
}

/** An `Upgrade` header without HTTP protocols; `undefined` if no protocol remains. */
export function withoutHttp(protocols: string): string | undefined {
  return protocolsIn(protocols).filter((each) => !mayBeHttp(each)).join(",") || undefined;
}

/** Whether a 101 with these header lines switches to HTTP although the request did not offer HTTP. */
export function switchesToHttp(lines: readonly string[], offered: string): boolean {
  if (protocolsIn(offered).some(mayBeHttp)) return false;
  return lines.some((line) =>
    /^upgrade:/i.test(line) && protocolsIn(line.slice("upgrade:".length)).some(mayBeHttp)
  );
}

function protocolsIn(header: string): string[] {
  return header.split(",").map((each) => each.trim()).filter((each) => each !== "");
}

/** Names and values of header fields. */
export type IdentityFields = readonly (readonly [name: string, value: string])[];

/** The header fields with a peer's identity. Names are percent-encoded, so that all values are ASCII. */
export function peerFields({ pid, uid, gid, groups, user, ambiguous }: Peer): IdentityFields {
  return identityFields({
    Uid: String(uid),
    Gid: String(gid),
    Groups: groups?.join(","),
    Pid: pid?.toString(),
    User: user === undefined ? undefined : encodeURI(user),
    Ambiguous: ambiguous.length > 0 ? ambiguous.join(",") : undefined,
  });
}

/** The header fields with the rule and the grants of a decision. */
export function decisionFields({ rule, grants }: Decision): IdentityFields {
  return identityFields({
    Rule: rule === undefined ? undefined : encodeURI(rule),
    Grants: grants.length > 0 ? grants.map(encodeItem).join(",") : undefined,
  });
}

let last: { readonly decision: Decision; readonly lines: string } | undefined;

/** {@link decisionFields} as header lines. The last ones are kept: a policy returns few different decisions. */
export function decisionLines(decision: Decision): string {
  if (decision === last?.decision) return last.lines;
  const lines = linesOf(decisionFields(decision));
  if (Object.isFrozen(decision) && Object.isFrozen(decision.grants)) last = { decision, lines };
  return lines;
}

function identityFields(values: { readonly [name: string]: string | undefined }): IdentityFields {
  const fields: [string, string][] = [];
  for (const name in values) {
    const value = values[name];
    if (value !== undefined) fields.push([`X-Ucred-${name}`, value]);
  }
  return fields;
}

/** Writes header fields as in HTTP/1.1. */
export function linesOf(fields: IdentityFields): string {
  let lines = "";
  for (const [name, value] of fields) lines += `${name}: ${value}\r\n`;
  return lines;
}

/** Encodes an item of a comma-separated list. */
function encodeItem(text: string): string {
  return encodeURI(text).replaceAll(",", "%2C");
}
