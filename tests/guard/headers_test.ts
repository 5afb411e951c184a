/** Tests of headers that servers behind a proxy believe: the guard removes them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  decisionLines,
  hasClose,
  isIdentityHeader,
  linesOf,
  listedIn,
  peerFields,
  requestFields,
  responseFields,
  switchesToHttp,
  withoutHttp,
} from "../../guard/headers.ts";
import type { Peer } from "../../core/peer.ts";
import { fakePeer } from "../../testing/mod.ts";
import { answerAll, answerOf, Behind, End, Guard, testGuard } from "../support/guard.ts";
import { GuardHere } from "../support/guard_here.ts";

const FORGEABLE = [
  ...["X-Original-URL", "X-Original-Method", "X-Rewrite-URL", "X-HTTP-Method-Override"],
  ...["X-HTTP-Method", "X-Method-Override", "X-Script-Name", "X-Envoy-Original-Path"],
  ...["Forwarded", "X-Forwarded-For", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-User"],
  ...["X-Forwarded-Client-Cert", "X-Real-IP", "True-Client-IP", "Remote-User", "Remote-Groups"],
  ...["X-Remote-User", "X-Remote-Extra-Scopes", "X-Auth-Request-User", "X-Authenticated-User"],
  ...["X-WebAuth-User", "X-User", "SSL-Client-Verify", "X-SSL-Client-Cert", "Proxy"],
  ...["X-Sendfile-Type", "X-Accel-Mapping", "X-Accel-Redirect", "X-Middleware-Subrequest"],
  ...["X-Consumer-Username", "X-Credential-Identifier", "Tailscale-User-Login"],
  ...["X-Amzn-Oidc-Identity", "X-Pomerium-Claim-Email", "X-Vouch-User", "Impersonate-User"],
  ...["Client-IP", "X-Client-IP", "WL-Proxy-Client-IP", "Proxy-Client-IP", "Fastly-Client-IP"],
  ...[
    "X-Cluster-Client-IP",
    "X-Forwarded",
    "Forwarded-For",
    "X-Originating-IP",
    "X-Azure-ClientIP",
  ],
  ...["CF-Connecting-IP", "CF-Connecting-IPv6", "X-ProxyUser-IP", "X-Appengine-User-Email"],
  ...[
    "OIDC-Claim-Sub",
    "OIDC_CLAIM_email",
    "X-Scope-OrgID",
    "SM-User",
    "SM_USERDN",
    "Shib-Session-ID",
  ],
  ...["iv-user", "iv-groups", "iv-creds", "iv_server_name", "X-Userinfo", "X-Username"],
  ...["X-Endpoint-API-UserInfo", "kubeflow-userid", "l5d-client-id", "X-Amzn-Mtls-Clientcert"],
  ...["X-ARR-ClientCert", "X-ARR-SSL", "Client-Cert", "Client-Cert-Chain", "X-Envoy-Internal"],
  ...["X-Waws-Unencoded-Url", "X-HTTP-Path-Override", "X-Envoy-External-Address"],
  ...[
    "X_Original_URL",
    "x.original.url",
    "CLIENT_IP",
    "WL_Proxy_SSL",
    "X_HTTP_Path_Override",
    "REMOTE_USER",
    "X_Http-Method_Override",
  ],
];

const HARMLESS = [
  ...["Authorization", "X-Registry-Auth", "X-Auth-Token", "X-User-Agent", "X-Request-Id", "Origin"],
  ...["X-CSRF-Token", "X-Requested-With", "Proxy-Authorization", "Cookie", "X-Api-Key", "Via"],
  ...["X-Amzn-Trace-Id", "X-Acceleration", "X-Consumers", "X-Client-Version", "Client-Id"],
  ...["X-Envoy-Retry-On", "Smoke", "Ivory", "X-Userland", "X-Arr", "X-Client-IPs", "X-Scope"],
];

const identity = /^x-ucred-|^host$|^connection$|^content-length$/i;

/** The headers that reach the upstream. */
async function passed(
  guard: { readonly path: string },
  names: readonly string[],
  request = "GET / HTTP/1.1",
) {
  const client = await End.open(guard.path);
  const lines = names.map((name) => `${name}: sent\r\n`).join("");
  client.send(`${request}\r\nHost: x\r\n${lines}\r\n`);
  const { body } = await client.message();
  client.destroy();
  return (JSON.parse(body) as string[]).filter((name) => !identity.test(name));
}

function mirror(): Promise<Behind> {
  return Behind.start((end) =>
    answerAll(end, ({ fields }) => answerOf(JSON.stringify(fields.map(([name]) => name))))
  );
}

const small = (names: readonly string[]) => names.map((name) => name.toLowerCase()).sort();

testGuard(
  "guard removes headers that override the request or its sender, and no others",
  async () => {
    const guard = await GuardHere.start({ upstream: (await mirror()).path, mode: "http" });
    for (
      const request of ["GET / HTTP/1.1", "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x"]
    ) {
      for (let at = 0; at < FORGEABLE.length; at += 50) { // a request has at most 100 headers
        const names = [...FORGEABLE.slice(at, at + 50), ...HARMLESS];
        const all = small(await passed(guard, names, request));
        assert.deepEqual(all.filter((each) => each !== "upgrade"), small(HARMLESS));
      }
    }
  },
);

testGuard("guard --keep-header forwards the named headers", async () => {
  const args = ["--keep-header", "X-Forwarded-For", "remote-user", "--keep-header", "Forwarded"];
  const guard = await Guard.start({ upstream: (await mirror()).path, mode: "http", args });
  assert.deepEqual(
    small(await passed(guard, FORGEABLE)),
    ["forwarded", "remote-user", "x-forwarded-for"],
  );
});

test("requestFields() drops each forgeable and each identity header, unless it is kept", () => {
  const kindOf = requestFields(new Set());
  for (const name of FORGEABLE) assert.equal(kindOf(name), "drop", name);
  for (const name of HARMLESS) assert.notEqual(kindOf(name), "drop", name);
  const keeping = requestFields(new Set(["x-real-ip", "x-ucred-uid"]));
  assert.equal(keeping("X-Real-IP"), "forward");
  assert.equal(keeping("X_Real_IP"), "drop", "another name");
  assert.equal(keeping("X-Ucred-Uid"), "drop", "an identity header is never kept");
  assert.equal(kindOf("X-Real-IP"), "drop", "another guard keeps it");
});

test("isIdentityHeader() matches each spelling of the prefix, and no other name", () => {
  for (const name of ["X-Ucred-Uid", "x_ucred_uid", "X.UCRED~GID", "x-ucred-"]) {
    assert.equal(isIdentityHeader(name), true, name);
  }
  for (
    const name of ["My-X-Ucred-Uid", "X-Ucred", "X-Ucredential", "XaUcred-Uid", "X--Ucred-Uid"]
  ) {
    assert.equal(isIdentityHeader(name), false, name);
  }
});

test("requestFields() and responseFields() find the fields that the guard reads, in any case", () => {
  const of = (kindOf: (name: string) => string, names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, kindOf(name)]));
  const both = {
    ...{ "CONNECTION": "connection", "Content-length": "content-length", "keep-alive": "drop" },
    ...{ "Proxy-Connection": "drop", "TE": "drop", "Trailer": "drop", "upgrade": "upgrade" },
    ...{ "Transfer-Encoding": "transfer-encoding", "Content_Length": "refuse" },
    ...{ "transfer.encoding": "refuse", "Content-Length-X": "forward", "A-Upgrade": "forward" },
    ...{ "constructor": "forward", "__proto__": "forward" },
  };
  const request = { ...both, Cookie: "cookie", EXPECT: "expect", host: "host", Date: "forward" };
  const response = { ...both, Cookie: "forward", Expect: "forward", Host: "forward", DATE: "date" };
  const kindOf = requestFields(new Set());
  for (let round = 0; round < 2; round++) { // the second one from the cache
    assert.deepEqual(of(kindOf, Object.keys(request)), request);
    assert.deepEqual(of(responseFields, Object.keys(response)), response);
  }
});

test("requestFields() keeps the kinds of at most 2048 names, which clients choose", () => {
  const kindOf = requestFields(new Set());
  let most = 0;
  const { set } = Map.prototype;
  Map.prototype.set = function (key, value) {
    set.call(this, key, value);
    most = Math.max(most, this.size);
    return this;
  };
  try {
    for (let at = 0; at < 5000; at++) assert.equal(kindOf(`X-${at}`), "forward");
  } finally {
    Map.prototype.set = set;
  }
  assert.equal(most, 2048);
  assert.equal(kindOf("X-Ucred-Uid"), "drop");
});

test("listedIn() returns the names that Connection lists, and hasClose() finds close", () => {
  for (const value of ["", "keep-alive", "Close", "UPGRADE"]) {
    assert.equal(listedIn(value), undefined, value);
  }
  const listed = listedIn("X-A , close,\tX-UCRED-Uid, Host,keep-alive");
  assert.deepEqual([...listed!], ["x-a", "close", "x-ucred-uid", "keep-alive"]);
  assert.deepEqual([...listedIn("x-close")!], ["x-close"]);
  assert.deepEqual([...listedIn("upgrade-insecure")!], ["upgrade-insecure"]);
  for (const value of ["close", "CLOSE", "a, close", "close ,a", "a,\tclose\t,b", ",close"]) {
    assert.equal(hasClose(value), true, value);
  }
  for (
    const value of ["", "x-close", "closed", "close x", "x close", "a,x-close,b", "keep-alive"]
  ) {
    assert.equal(hasClose(value), false, value);
  }
});

test("withoutHttp() and switchesToHttp() find the protocols that carry further requests", () => {
  const http = [
    ...["h2c", "H2C", "h2", "h3", "h2c-14", "HTTP/2.0", "http", "https", "TLS/1.3", "tls"],
    ...["h2 c", '"h2c"', "h2c/", "x/h2c/1", "x y", "(x)"],
  ];
  const others = ["websocket", "tcp", "x-h2c", "h2cx", "tlsx/1", "SPDY/3.1", "h4", "h2c-x"];
  for (const each of http) {
    assert.equal(withoutHttp(each), undefined, each);
    assert.equal(switchesToHttp([`Upgrade: ${each}\r\n`], "websocket"), true, each);
    assert.equal(switchesToHttp([`Upgrade: ${each}\r\n`], `tcp, ${each}`), false, "it was offered");
  }
  for (const each of others) {
    assert.equal(withoutHttp(each), each);
    assert.equal(switchesToHttp([`Upgrade: ${each}\r\n`], "websocket"), false, each);
  }
  assert.equal(withoutHttp("h2c, websocket ,, HTTP/2.0,tcp"), "websocket,tcp");
  assert.equal(withoutHttp(" , "), undefined);
  const lines = ["X: 1\r\n", "UPGRADE: tcp, h2c\r\n"];
  assert.equal(switchesToHttp(lines, "tcp"), true);
  assert.equal(switchesToHttp(["X-Upgrade: h2c\r\n", "X: upgrade: h2c\r\n"], "tcp"), false);
  assert.equal(switchesToHttp([], "tcp"), false);
  assert.equal(switchesToHttp(lines, "tcp, ,"), true, "an empty item offers nothing");
  assert.equal(switchesToHttp(["Upgrade: tcp, ,\r\n"], "tcp"), false);
});

test("peerFields() and linesOf() write the known facts of a peer, and none that is unknown", () => {
  assert.deepEqual(
    peerFields(fakePeer({ uid: 4001, gid: 7 })),
    [["X-Ucred-Uid", "4001"], ["X-Ucred-Gid", "7"]],
  );
  const facts = { uid: 4001, gid: 7, groups: [7, 8], pid: 12, user: "é ,\r\nX: 1" };
  assert.equal(
    linesOf(peerFields({ ...facts, ambiguous: ["uid", "gid"] } as unknown as Peer)),
    "X-Ucred-Uid: 4001\r\nX-Ucred-Gid: 7\r\nX-Ucred-Groups: 7,8\r\nX-Ucred-Pid: 12\r\n" +
      "X-Ucred-User: %C3%A9%20,%0D%0AX:%201\r\nX-Ucred-Ambiguous: uid,gid\r\n",
  );
});

test("decisionLines() encodes the rule and the grants, and leaves out those that are none", () => {
  const of = (rule: string | undefined, grants: readonly string[]) =>
    decisionLines({
      ...{ allowed: true, rule, grants, unknown: [], reason: "", message: undefined },
    });
  assert.equal(of(undefined, []), "");
  assert.equal(of("a b", []), "X-Ucred-Rule: a%20b\r\n");
  assert.equal(
    of(undefined, ["a,b,c", "é", "x"]),
    "X-Ucred-Grants: a%2Cb%2Cc,%C3%A9,x\r\n",
  );
});

test("decisionLines() never returns the lines of another decision, also if a policy changes one", () => {
  const of = (rule: string, grants: readonly string[]) => ({
    ...{ allowed: true, rule, grants, unknown: [], reason: "", message: undefined },
  });
  const grants = ["read"];
  const frozen = Object.freeze(of("one", Object.freeze(["read"])));
  const shallow = Object.freeze(of("two", grants));
  const open = of("three", Object.freeze(["read"]));
  for (let round = 0; round < 2; round++) {
    assert.equal(decisionLines(frozen), "X-Ucred-Rule: one\r\nX-Ucred-Grants: read\r\n");
    assert.equal(decisionLines(frozen), "X-Ucred-Rule: one\r\nX-Ucred-Grants: read\r\n");
    for (const item of ["a", "b"]) { // twice in a row, because the last lines are kept
      grants[0] = `list${item}`;
      assert.match(decisionLines(shallow), new RegExp(`two\r\nX-Ucred-Grants: list${item}\r\n$`));
    }
    for (const item of ["a", "b"]) {
      open.rule = `rule${item}`;
      assert.match(decisionLines(open), new RegExp(`^X-Ucred-Rule: rule${item}\r\n`));
    }
  }
});
