/** Names of request headers that a client of a guard must not set. */

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
