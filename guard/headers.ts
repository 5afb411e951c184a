/** Names of request headers that a client of a guard must not set. */

import type { IncomingMessage } from "node:http";
import type { Peer } from "../core/peer.ts";
import type { Decision } from "../core/policy/decide/decision.ts";
import { decisionOf, peerOf } from "../servers/http.ts";

/**
 * Headers of the guard's own. CGI reads "_" for "-", and some servers read other characters as one of
 * the two.
 */
export function isIdentityHeader(name: string): boolean {
  return /^x[^a-z0-9]ucred[^a-z0-9]/i.test(name);
}

/**
 * Headers by which frameworks and servers behind a trusted proxy replace the method or path that was
 * decided about, or learn who sends a request. With "-" for every other character.
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
      // where it is from, and for whom
      ...[
        "forwarded",
        "x-forwarded-.*",
        "x-host",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
      ],
      ...["true-client-ip", "cf-connecting-ip"],
      // who sends it: CGI's REMOTE_USER, Authelia, oauth2-proxy, Authentik, Grafana, cloud proxies
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
      ...["x-webauth-.*", "x-goog-authenticated-.*", "x-ms-client-principal.*"],
      ...["cf-access-authenticated-.*", "x-(ssl-)?client-(cert|verify|dn|s-dn).*", "ssl-client-.*"],
      "proxy", // CGI's HTTP_PROXY, which many libraries read
    ].join("|")
  })$`,
);

/** Whether a server behind the guard may believe a header that only a trusted proxy should set. */
export function isForgeable(name: string): boolean {
  return FORGEABLE.test(name.toLowerCase().replaceAll(/[^a-z0-9]/g, "-"));
}

/** Whether the client wants its connection to end with the answer. */
export function wantsToEnd({ headers: { connection = "" } }: IncomingMessage): boolean {
  return /(^|,)\s*close\s*(,|$)/i.test(connection);
}

/** About a connection, not about what goes over it: RFC 9110, 7.6.1. Expectations are met here. */
const HOPS = ["connection", "proxy-connection", "keep-alive", "te", "trailer", "upgrade", "expect"];

/** What tells where a message ends, and for whom it is, is not up to a `Connection` header. */
const NO_HOPS = ["content-length", "transfer-encoding", "host"];

/** Removes what is about the connection, and what it says is. */
export function removeHops(headers: IncomingMessage["headers"]): void {
  const { connection } = headers;
  for (const name of HOPS) delete headers[name];
  if (connection === undefined || /^(keep-alive|close|upgrade)$/i.test(connection)) return;
  for (const each of connection.split(",")) {
    const name = each.trim().toLowerCase();
    if (!NO_HOPS.includes(name)) delete headers[name];
  }
}

/** Protocols in which there would be requests again, which nobody decides about. */
const HTTP = /^\s*(h2c?|https?|tls)(\/|\s*$)/i;

/** What is left of an `Upgrade` header; `undefined` if nothing is. */
export function withoutHttp(protocols: string = ""): string | undefined {
  return protocols.split(",").filter((each) => !HTTP.test(each)).join(",").trim() || undefined;
}

/** Replaces whatever the client sent under the name of an identity header by the peer's identity. */
export function introduce(request: IncomingMessage, kept: ReadonlySet<string>): void {
  const { headers } = request;
  for (const name of Object.keys(headers)) {
    if (isIdentityHeader(name) || (isForgeable(name) && !kept.has(name))) delete headers[name];
  }
  Object.assign(headers, identityHeaders(peerOf(request), decisionOf(request)));
}

/** In ASCII: what has other characters is percent-encoded. */
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

/** As part of a list, whose commas are ours. */
function encodeItem(text: string): string {
  return encodeURI(text).replaceAll(",", "%2C");
}
