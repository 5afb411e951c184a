/** Tests of headers that servers behind a proxy believe: the guard removes them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { decisionLines } from "../../guard/headers.ts";
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
      for (const name of FORGEABLE) {
        const names = small(await passed(guard, [name], request));
        assert.deepEqual(names.filter((each) => each !== "upgrade"), [], name);
      }
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
    grants[0] = `list${round}`;
    assert.match(decisionLines(shallow), new RegExp(`two\r\nX-Ucred-Grants: list${round}\r\n$`));
    open.rule = `rule${round}`;
    assert.match(decisionLines(open), new RegExp(`^X-Ucred-Rule: rule${round}\r\n`));
  }
});
