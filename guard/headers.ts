/** Request headers: which of them a client must not set, and the peer's identity as headers. */

import type { IncomingMessage } from "node:http";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import { decisionOf, peerOf } from "../servers/http.ts";

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
      // the request: Symfony, Zend, IIS, Rails, Express' method-override, OData, nginx, Envoy, WSGI
      ...[
        "x-original-.*",
        "x-rewrite-.*",
        "x-override-url",
        "x-request-uri",
        "x-envoy-original-.*",
      ],
      ...["x-http-method.*", "x-method.*", "x-script-name", "x-path-info"],
      // the file that is sent, and the steps that are skipped: Rack, nginx, Next.js
      ...["x-sendfile-type", "x-accel-.*", "x-middleware-.*"],
      // the client's address and the requested host
      ...[
        "forwarded",
        "x-forwarded-.*",
        "x-host",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
      ],
      ...["true-client-ip", "cf-connecting-ip"],
      // the sender: CGI's REMOTE_USER, Authelia, oauth2-proxy, Authentik, Grafana, cloud proxies
      ...[
        "remote-.*",
        "x-remote-.*",
        "x-user",
        "x-user-(id|name|email|groups?|roles?)",
        "x-username",
      ],
      ...[
        "x-auth-(request-.*|user.*|groups?|email|roles?)",
        "x-authenticated-.*",
        "x-authentik-.*",
      ],
      // Kong, Tailscale, AWS, Pomerium, Vouch, Kubernetes
      ...["x-consumer-.*", "x-credential-.*", "tailscale-user-.*", "x-amzn-oidc-.*"],
      ...["x-pomerium-.*", "x-vouch-.*", "impersonate-.*"],
      ...["x-webauth-.*", "x-goog-authenticated-.*", "x-ms-client-principal.*"],
      ...["cf-access-authenticated-.*", "x-(ssl-)?client-(cert|verify|dn|s-dn).*", "ssl-client-.*"],
      "proxy", // CGI's HTTP_PROXY, which many libraries read
    ].join("|")
  })$`,
);

/** Whether an upstream may trust this header although only a trusted proxy should set it. */
export function isForgeable(name: string): boolean {
  return FORGEABLE.test(name.toLowerCase().replaceAll(/[^a-z0-9]/g, "-"));
}

/** Whether the client asks to close the connection after the response. */
export function requestsClose({ headers: { connection = "" } }: IncomingMessage): boolean {
  return /(^|,)\s*close\s*(,|$)/i.test(connection);
}

/** Hop-by-hop headers: RFC 9110, 7.6.1. The guard answers `Expect` itself. */
const HOP_BY_HOP = [
  "connection",
  "proxy-connection",
  "keep-alive",
  "te",
  "trailer",
  "upgrade",
  "expect",
];

/** Framing and routing headers that a `Connection` header must not remove (request smuggling). */
const NEVER_HOP_BY_HOP = ["content-length", "transfer-encoding", "host"];

/** Removes hop-by-hop headers, and the headers that `Connection` lists. */
export function removeHopByHop(headers: IncomingMessage["headers"]): void {
  const { connection } = headers;
  for (const name of HOP_BY_HOP) delete headers[name];
  if (connection === undefined || /^(keep-alive|close|upgrade)$/i.test(connection)) return;
  for (const each of connection.split(",")) {
    const name = each.trim().toLowerCase();
    if (!NEVER_HOP_BY_HOP.includes(name)) delete headers[name];
  }
}

/** Upgrade protocols that carry further requests, which the policy would not see. */
const HTTP = /^\s*(h2c?|https?|tls)(\/|\s*$)/i;

/** An `Upgrade` header without HTTP protocols; `undefined` if no protocol remains. */
export function withoutHttp(protocols: string = ""): string | undefined {
  return protocols.split(",").filter((each) => !HTTP.test(each)).join(",").trim() || undefined;
}

/** Sets the identity headers, and removes identity and proxy headers that the client sent. */
export function setIdentity(request: IncomingMessage, kept: ReadonlySet<string>): void {
  const { headers } = request;
  for (const name of Object.keys(headers)) {
    if (isIdentityHeader(name) || (isForgeable(name) && !kept.has(name))) delete headers[name];
  }
  Object.assign(headers, identityHeaders(peerOf(request), decisionOf(request)));
}

/** Names are percent-encoded, so that all values are ASCII. */
function identityHeaders(peer: Peer, decision: Decision): { readonly [name: string]: string } {
  const { pid, uid, gid, groups, user, ambiguous } = peer;
  const { rule, grants } = decision;
  return {
    "x-ucred-uid": String(uid),
    "x-ucred-gid": String(gid),
    ...(groups && { "x-ucred-groups": groups.join(",") }),
    ...(pid !== undefined && { "x-ucred-pid": String(pid) }),
    ...(user !== undefined && { "x-ucred-user": encodeURI(user) }),
    ...(ambiguous.length > 0 && { "x-ucred-ambiguous": ambiguous.join(",") }),
    ...(rule !== undefined && { "x-ucred-rule": encodeURI(rule) }),
    ...(grants.length > 0 && { "x-ucred-grants": grants.map(encodeItem).join(",") }),
  };
}

/** Encodes an item of a comma-separated list. */
function encodeItem(text: string): string {
  return encodeURI(text).replaceAll(",", "%2C");
}
