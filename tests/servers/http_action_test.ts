/** No spelling of a path is allowed more than its plain spelling: `targetOf()` itself, and over sockets. */

import assert from "node:assert/strict";
import { posix } from "node:path";
import { test } from "node:test";
import fc from "../support/properties.ts";
import { definePolicy } from "../../mod.ts";
import { targetOf } from "../../servers/http/request_target.ts";
import { eventsOf, exchange, testEach } from "../support/http.ts";

const runs = { numRuns: 2000 };

/** Targets with the decided path and, if it differs, the path that the application receives. */
const PLAIN: readonly (readonly [target: string, action: string, url?: string])[] = [
  ["/", "GET /"],
  ["/a", "GET /a"],
  ["/a/", "GET /a/"],
  ["/a?b=c&d=/../e", "GET /a", "/a?b=c&d=/../e"],
  ["/a?", "GET /a", "/a?"],
  ["/a.b/c..d/e...", "GET /a.b/c..d/e..."],
  ["/.well-known/x", "GET /.well-known/x"],
  ["/..a/...", "GET /..a/..."],
  ["/a%20b", "GET /a b", "/a%20b"],
  ["/%61%2Db", "GET /a-b", "/a-b"],
  ["/%c3%a9", "GET /é", "/%C3%A9"],
  ["/%f0%9f%98%80", "GET /😀", "/%F0%9F%98%80"],
  ["/a%25b", "GET /a%b", "/a%25b"],
  ["/100%25", "GET /100%", "/100%25"],
  ["/a%3Fb", "GET /a?b", "/a%3Fb"],
  ["/a%23b", "GET /a#b", "/a%23b"],
  ["/a%3bb;c", "GET /a;b;c", "/a%3Bb%3Bc"],
  ["/a;b=c/d;?e;f", "GET /a;b=c/d;", "/a%3Bb=c/d%3B?e;f"],
  ['/"<>^`{|}', 'GET /"<>^`{|}', "/%22%3C%3E%5E%60%7B%7C%7D"],
  ["/[a]", "GET /[a]", "/%5Ba%5D"],
  ["//", "GET /", "/"],
  ["//a", "GET /a", "/a"],
  ["/a//b///", "GET /a/b/", "/a/b/"],
  ["/a/./b/.", "GET /a/b/", "/a/b/"],
  ["/a/../b", "GET /b", "/b"],
  ["/a/..", "GET /", "/"],
  ["/..", "GET /", "/"],
  ["/../../a", "GET /a", "/a"],
  ["/a/%2e%2E/b", "GET /b", "/b"],
  ["/a/%2e./b", "GET /b", "/b"],
  ["/a//./b/../c", "GET /a/c", "/a/c"],
  ["/a%3f/../b", "GET /b", "/b"],
  ["http://x/a?b", "GET /a", "/a?b"],
  ["HTTPS://x.y:1/a/../b", "GET /b", "/b"],
  ["http://x", "GET /", "/"],
  ["http://x?y", "GET /", "/?y"],
  ["x+y.z-1://[::1]//a", "GET /a", "/a"],
];

for (const [target, action, url = target] of PLAIN) {
  test(`targetOf() returns "${action}" for ${target}`, () => {
    assert.deepEqual(targetOf("GET", target), { action, url });
  });
}

/** Ambiguous and malformed targets. */
const REFUSED: readonly string[] = [
  ..."|a|*|?|?/a|#|#/a|a/b|./a|../a|:80|x:80|//?#/a|http:a|http:/a|http:///a#|mailto:a@b".split(
    "|",
  ),
  ...["/a#b", "/a/..#", "/a?#", "/a?x#/../b", "http://x#/a", "/a//#?", "/%61#"],
  ...[
    "http://u:p@x/a",
    "http://@/a",
    "http:///a",
    "http://",
    "http://x\\y/a",
    "http://é/a",
    "://x/a",
  ],
  ...["/a\\b", "/a%5cb", "/a%5Cb", "\\a", "/\\a", "/a\\..\\b", "/..%5c"],
  ...["/a%2fb", "/a%2Fb", "/%2f", "/a/..%2f", "/%2e%2e%2f"],
  ...["/a%00", "/%00", "/a%0a", "/a%0D", "/%09a", "/%1f", "/%7f", "/a%c2%85", "/%c2%9f"],
  ...["/%e2%80%a8", "/%E2%80%A9", "/%ef%bb%bf"],
  ...[
    "/a\0",
    "/a\t",
    "/a\n",
    "/a\r",
    "/\x7f",
    "/ a",
    "/a b",
    "/a\u00a0",
    "/é",
    "/．．/a",
    "/\ud800",
  ],
  ...["/%", "/a%", "/%6", "/%zz", "/%u0061", "/%%61", "/%2%65", "/%-1", "/%+1"],
  ...["/%c0%ae", "/%c0%af", "/%c1%a1", "/%e0%80%af", "/%f0%80%80%af", "/%c0%80"], // overlong
  ...["/%ff", "/%80", "/%c3", "/%ed%a0%80", "/%f4%90%80%80", "/%f8%88%80%80%80"],
  ...["/%2561", "/%252e%252e/a", "/%25252e", "/a%252fb", "/%255c", "/%2500", "/%25%36%31"],
  ...["/a//../b", "/a//..", "/a///../../b", "//..", "/a//./../b", "/a/%2e%2e//../b", "//./%2e%2e"],
  ...["/a/..;/b", "/a/.;/b", "/..;x=y/b", "/a/%2e%2e;/b", "/a/..%3b/b", "/.;", "/..;"],
  ...["/;", "/;/a", "/a/;/b", "/a/;x=y/b", "/a/%3b/b", "/a/%3B"],
];

for (const target of REFUSED) {
  test(`targetOf() rejects ${JSON.stringify(target)}`, () => {
    assert.equal(targetOf("GET", target), undefined);
  });
}

test("targetOf() accepts a star only for OPTIONS and an authority only for CONNECT", () => {
  assert.deepEqual(targetOf("OPTIONS", "*"), { action: "OPTIONS *", url: "*" });
  for (const authority of ["x:80", "[::1]:443", "x"]) {
    assert.deepEqual(targetOf("CONNECT", authority), {
      action: `CONNECT ${authority}`,
      url: authority,
    });
  }
  for (const authority of ["x:80/a", "u@x:80", "*", "", "x:80?", "/a\\", "x y"]) {
    assert.equal(targetOf("CONNECT", authority), undefined, authority);
  }
  for (const method of ["GET", "POST", "TRACE"]) assert.equal(targetOf(method, "*"), undefined);
});

test("targetOf() rejects methods that other servers may interpret differently", () => {
  for (const method of ["get", "Get", "pATCH", "", "GET ", " GET", "G\0ET", "GET\t", "GÉT", "/"]) {
    assert.equal(targetOf(method, "/a"), undefined, JSON.stringify(method));
  }
  for (const method of ["GET", "PROPFIND", "M-SEARCH", "FOO"]) {
    assert.equal(targetOf(method, "/a")?.action, `${method} /a`);
  }
});

/** Path segments, including those of attacks. */
const piece = fc.oneof(
  fc.constantFrom(
    ..."/ // . .. ... /. /.. /../ /./ admin public a %61 %2e %2E %2f %5c %25 %252e %3f %23 %3b %00 %c3%a9"
      .split(" "),
    ..."? # ; ;x=y * @ : :// http:// http://x \\ ..; % %zz é ． & = + ~ ( ' !".split(" "),
    ...["\t", " ", "\r", "\n", "\0", "%c0%ae", "%EF%BC%8E", "Admin"],
  ),
  fc.string({ maxLength: 3 }),
  fc.string({ unit: "binary", maxLength: 2 }),
);
const target = fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join(""));
/** Mostly paths with one leading slash, like most requests. */
const path = fc.oneof({ weight: 4, arbitrary: target.map((rest) => `/${rest}`) }, target);

test("targetOf() is idempotent, and removes empty and dot segments", () => {
  let taken = 0;
  fc.assert(
    fc.property(path, (text) => {
      const found = targetOf("GET", text);
      if (found === undefined) return;
      taken++;
      const { action, url } = found;
      assert.deepEqual(targetOf("GET", url), found);
      const encoded = url.split("?", 1)[0]!;
      const decoded = decodeURIComponent(encoded);
      assert.equal(action, `GET ${decoded}`);
      assert.ok(decoded.startsWith("/") && !decoded.includes("//"));
      assert.ok(decoded.split("/").every((segment) => segment !== "." && segment !== ".."));
      // deno-lint-ignore no-control-regex
      assert.doesNotMatch(decoded, /[\0-\x1f\x7f\\]/);
      const query = text.indexOf("?");
      assert.equal(url.slice(encoded.length), query === -1 ? "" : text.slice(query));
    }),
    { ...runs, numRuns: 10_000 },
  );
  assert.ok(taken > 1000, "the sample of accepted targets is large enough");
});

// Envoy CVE-2019-9901, CVE-2021-29492 and Traefik CVE-2025-32431, CVE-2025-66490: a proxy decided
// about another path than the server served.
test("targetOf() agrees with URL and posix.normalize() on accepted targets", () => {
  fc.assert(
    fc.property(target.map((rest) => `/${rest}`), (text) => {
      const found = targetOf("GET", text);
      if (found === undefined) return;
      const [, decided] = /^GET (.*)$/s.exec(found.action)!;
      const given = new URL(found.url, "http://x").pathname;
      assert.equal(given, found.url.split("?", 1)[0], "URL changes nothing");
      assert.equal(decodeURIComponent(given), decided);
      assert.equal(posix.normalize(decided!), decided);
      // The target itself if URL parses it as a path ("//x" is a host to URL, and "//" is not a path).
      if (/\/\/|[^\0-\x7f]/.test(text.split("?", 1)[0]!)) return;
      assert.equal(decodeURIComponent(new URL(text, "http://x").pathname), decided);
    }),
    runs,
  );
});

test("targetOf() rejects, or maps to /admin, each target that URL resolves to /admin", () => {
  let found = 0;
  const aimed = fc.tuple(fc.array(piece, { maxLength: 6 }), fc.array(piece, { maxLength: 4 }))
    .map(([before, after]) => `/${before.join("")}/admin/${after.join("")}`);
  fc.assert(
    fc.property(fc.oneof(aimed, target.map((rest) => `/${rest}`)), (text) => {
      const { pathname } = new URL(`http://x${text}`);
      const readings = [pathname, pathname.replaceAll(/\/+/g, "/")];
      try {
        readings.push(decodeURIComponent(pathname));
      } catch {
        // rejected
      }
      if (!readings.some((reading) => /^\/admin(\/|$)/.test(reading))) return;
      found++;
      const action = targetOf("GET", text)?.action ?? "GET /admin";
      assert.match(action, /^GET \/admin(\/|$)/, JSON.stringify([text, pathname, readings]));
    }),
    runs,
  );
  assert.ok(found > 100, "the sample is large enough");
});

/** One policy allows everything except `/admin`; the other allows only `/public`. */
const POLICIES = {
  "a list of what is denied": definePolicy({
    version: 1,
    rules: [
      { name: "no admin", actions: ["* /admin", "* /admin/**"], deny: true },
      { name: "the rest", allow: true },
    ],
  }),
  "a list of what is allowed": definePolicy({
    version: 1,
    rules: [{ name: "public", actions: ["* /public", "* /public/**"], allow: true }],
  }),
};

/** Spellings of "/admin/x" that some server may accept. */
const TARGETS: readonly string[] = [
  // plain
  ..."/admin /admin/ /admin/x /admin?x /admin/x?/public /admin/x?a=/../../public".split(" "),
  // percent-encoded, in upper and lower case
  ..."/%61dmin/x /%61%64%6d%69%6e/x /%61%64%6D%69%6E/x /a%64min /adm%69n/x /admin/%78".split(" "),
  ..."/%61dmin%2fx /admin%2fx /admin%2Fx /%2fadmin/x /%2Fadmin%2Fx /%2f%61dmin".split(" "),
  // encoded two and three times
  ..."/%2561dmin/x /%25%36%31dmin/x /%252561dmin/x /admin%252fx /%252fadmin /%25252fadmin".split(
    " ",
  ),
  // invalid UTF-8 and overlong encodings
  ..."/%c1%a1dmin/x /%e0%81%a1dmin/x /%f0%80%81%a1dmin/x /public/%c0%ae%c0%ae/admin".split(" "),
  ..."/%c0%afadmin/x /admin%c0%afx /public/%e0%80%ae./admin /%ffadmin /admin%ff /admin%c3".split(
    " ",
  ),
  "/public/%c0%ae%c0%ae%c0%afadmin",
  // incomplete escapes
  ..."/%admin /admin% /%6 /%u0061dmin /%u002e%u002e/admin /admin%u002fx /%%61dmin".split(" "),
  // empty segments
  ..."//admin/x ///admin /admin//x //admin//x// //x/../admin /.//admin //public//..//admin".split(
    " ",
  ),
  // dot segments
  ..."/./admin/x /admin/./x /public/../admin/x /public/./../admin /public/x/../../admin".split(" "),
  ..."/../admin /../../../admin/x /public/.. /public/../admin/. /public/../admin/..".split(" "),
  ..."/public/%2e%2e/admin /public/%2e./admin /public/.%2e/admin /public/.%2E/admin/x".split(" "),
  ..."/%2e/admin /%2e%2e/admin /public/%252e%252e/admin /public/%25%32%65%2e/admin".split(" "),
  ..."/public/..%2fadmin /public%2f..%2fadmin /public/..%2f..%2fadmin /public/...//../../admin"
    .split(" "),
  ..."/admin/../admin /admin/public/.. /public/%2e%2e%2fadmin".split(" "),
  // backslashes
  ..."\\admin\\x /\\admin /admin\\x /public\\..\\admin /public/..\\admin /public/\\../admin".split(
    " ",
  ),
  ..."/%5cadmin /admin%5cx /public/..%5cadmin /public%5C..%5Cadmin /%255cadmin".split(" "),
  // path parameters
  ..."/admin;/x /admin;a=b/x /;/admin /public/..;/admin /public/..;a=b/admin /.;/admin".split(" "),
  ..."/public/.;/../admin /public/%2e%2e;/admin /public/..%3b/admin /public;/../admin".split(" "),
  ..."/admin;.html /admin/x;.css".split(" "),
  // absolute form, with unusual schemes and authorities
  ..."http://x/admin/x HTTP://x/admin https://x/admin/x http://x//admin http://x/public/../admin"
    .split(" "),
  ..."http://u:p@x/admin http://x:99999/admin http://@/admin http:///admin http:/admin".split(" "),
  ..."http:admin http:\\\\x\\admin http://x\\admin/public http://x\\@y/admin http://[::1]/admin"
    .split(" "),
  ..."http://x?/admin http://x/%61dmin http://x?@y/admin http://x#@y/admin http://y@x/admin/x"
    .split(" "),
  ..."ftp://x/admin foo://x/admin a+b-c.1://x/admin file:///admin javascript:/admin x:/admin".split(
    " ",
  ),
  ..."://x/admin 1://x/admin http://x/admin?http://x/public http://admin/ http://public/admin"
    .split(" "),
  // fragments
  ..."/admin#x /admin/x#/../public /public#/../admin /public/..#/admin /#/admin #/admin".split(" "),
  ..."/admin%23x /%23/../admin /public?#/../admin http://x/public#/admin".split(" "),
  // queries
  ..."?/admin ?/../admin /?/../admin /public?/../admin /public%3f/../admin /public/..?/admin".split(
    " ",
  ),
  ..."/public?/../../admin/x /public%3f/../../admin/x /admin%3fx /admin%3f/../public".split(" "),
  ..."/public?x=%2e%2e/admin /??/admin /public/../admin?".split(" "),
  // without a slash, and empty
  ..."admin admin/x ./admin ../admin * */admin x:80/admin".split(" "),
  "",
  // control characters and spaces, raw and encoded
  ..."\0 \t \r \n \x0b \x0c \x1b \x7f".split(" ").flatMap((control) => [
    `/admin${control}`,
    `/${control}admin`,
    `/admin/x?${control}`,
    `/public/.${control}./admin`,
  ]),
  ..."00 09 0a 0d 0b 20 7f 85 a0".split(" ").flatMap((code) => [
    `/admin%${code}`,
    `/%${code}admin/x`,
    `/public/..%${code}/admin`,
  ]),
  ...[
    "/admin x",
    "/ admin",
    " /admin",
    "/admin/x HTTP/1.1",
    "/admin HTTP/1.1\r\nX: y",
    "/admin\r\n\r\n",
  ],
  ..."/public%0d%0aGET%20/admin /admin%c2%85 /admin%e2%80%a8 /%ef%bb%bfadmin /public/..%00/admin"
    .split(" "),
  // non-ASCII characters
  ...[
    "/admin\xe9",
    "/\xe1dmin",
    "/\xefbcadmin",
    "/public/\xc0\xae\xc0\xae/admin",
    "/public/\x2e\xae/admin",
  ],
  ...["/public/．．/admin", "/ａdmin", "/public／．．／admin", "/admin／x"].map(utf8),
  ..."/%ef%bd%81dmin /public/%ef%bc%8e%ef%bc%8e/admin /public%ef%bc%8f..%ef%bc%8fadmin".split(" "),
  // upper case
  ..."/ADMIN /Admin/x /%41dmin".split(" "),
];

/** Encodes text as UTF-8, one character for each byte. */
function utf8(text: string): string {
  return Buffer.from(text).toString("latin1");
}

/** Attacks outside the path. The request ends its connection. */
const REQUESTS: readonly string[] = [
  // methods
  ..."get Get gET POST HEAD DELETE FOO G\0ET TRACE CONNECT PRI * É".split(" ").map((method) =>
    `${method} /admin/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`
  ),
  ..."get /public/../admin|Post //admin|head /admin/|pUt /./admin/x".split("|").map((line) =>
    `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`
  ),
  // request lines
  "GET /admin\r\n\r\n",
  "GET //admin\r\n\r\n",
  "GET /public/../admin HTTP/1.0\r\n\r\n",
  "GET /admin/x HTTP/1.0\r\n\r\n",
  "GET /admin HTTP/2.0\r\nHost: x\r\n\r\n",
  "GET /admin HTTP/9.9\r\nHost: x\r\nConnection: close\r\n\r\n",
  "GET /admin http/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  "GET /admin HTTP/1.1 x\r\nHost: x\r\nConnection: close\r\n\r\n",
  "GET  /admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  "GET /admin  HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  "GET\t/admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  "GET /public\t/admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  "GET /public /admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  " GET /admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  "\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  "GET /admin HTTP/1.1\nHost: x\nConnection: close\n\n",
  "GET /admin HTTP/1.1\rHost: x\rConnection: close\r\r\r\n\r\n",
  "GET /admin/../public/../admin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
  // hosts
  ...[
    "x/admin?",
    "x/admin#",
    "x/admin/",
    "x\\admin\\",
    "x/admin;",
    "a@x/admin?",
    "/admin?",
    "?",
    "#",
  ]
    .flatMap((host) =>
      ["/public", "/", "/x"].map((target) =>
        `GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`
      )
    ),
  ...["x, y/admin?", "x/admin? y", "x\t/admin?", "[::1]/admin?", "x:80/admin?", "x%2fadmin?"].map(
    (host) => `GET /public HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
  ),
  "GET /public HTTP/1.1\r\nHost: x\r\nHost: y/admin?\r\nConnection: close\r\n\r\n",
  "GET /public HTTP/1.1\r\nHost: x/admin?\r\nHost: y\r\nConnection: close\r\n\r\n",
  "GET http://x/public HTTP/1.1\r\nHost: y/admin?\r\nConnection: close\r\n\r\n",
  "GET http://x/admin?/public HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n",
  "GET /public HTTP/1.0\r\nHost: x/admin?\r\n\r\n",
  // headers that some servers interpret as another path or method
  ...[
    "X-Original-URL: /admin",
    "X-Rewrite-URL: /admin",
    "X-Forwarded-Uri: /admin",
    "X-Forwarded-Prefix: /admin",
    "X-Forwarded-Host: x/admin?",
    "X-Forwarded-Proto: http://x/admin?",
    'Forwarded: host="x/admin?";proto="http://x/admin?"',
    "Location: /admin",
    "Content-Location: /admin",
    "Referer: http://x/admin",
    ":path: /admin",
    "X-HTTP-Method-Override: DELETE",
  ].map((line) => `GET /public HTTP/1.1\r\nHost: x\r\n${line}\r\nConnection: close\r\n\r\n`),
];

/** Interpretations of a path that an application may have. */
function readingsOf(path: string): string[] {
  const decoded = decodeURIComponent(path);
  const withoutParameters = decodeURIComponent(path.replaceAll(/;[^/]*/g, "")); // as in servlets
  const plain = [path, decoded, posix.normalize(path), posix.normalize(decoded), withoutParameters];
  return [
    ...plain.map((reading) => reading.replaceAll(/[\\/]+/g, "/")),
    new URL(path, "http://x").pathname,
    new URL(posix.normalize(path), "http://x").pathname,
  ];
}

for (const [name, policy] of Object.entries(POLICIES)) {
  testEach(`denies /admin with ${name}, in every spelling`, async (kind) => {
    const seen: { method: string; url: string }[] = [];
    const server = await kind.start({ policy }, ({ method, url }) => {
      seen.push({ method, url });
      return { body: "seen" };
    });
    using events = eventsOf(server);
    const requests = [
      ...TARGETS.map((target) => `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`),
      ...REQUESTS,
    ];
    assert.ok(requests.length > 300);
    let refused = 0;
    for (const request of requests) {
      const answer = await exchange(server.path, request);
      const decided = events.filter((event) => event.type === "decided");
      for (const { method, url } of seen) {
        const told = `${JSON.stringify(request)} came as ${url}`;
        const { pathname } = new URL(url, "http://x");
        assert.ok(readingsOf(pathname).every((reading) => !/^\/admin(\/|$)/.test(reading)), told);
        const action = `${method} ${decodeURIComponent(pathname)}`;
        assert.ok(decided.some((event) => event.action === action && event.decision.allowed), told);
        if (name.endsWith("allowed")) assert.match(pathname, /^\/public(\/|$)/, told);
      }
      if (seen.length === 0) {
        refused++;
        assert.doesNotMatch(answer, /seen/);
        assert.doesNotMatch(answer, /^HTTP\/1.\d 2/, JSON.stringify(request));
      }
      assert.ok(events.every(({ type }) => type !== "failed"), JSON.stringify(request));
      seen.length = events.length = 0;
    }
    assert.ok(refused > 150, `${refused} were refused`);
    assert.match(await exchange(server.path, "GET /public HTTP/1.0\r\n\r\n"), /seen$/);
  });
}
