/** Peers of HTTP requests: identified correctly for each of several users, whatever their headers claim. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { identify } from "../../mod.ts";
import { createServer, decisionOf, peerOf, type RequestLike } from "../../servers/http.ts";
import { freshPath } from "../support/peers.ts";
import { until } from "../support/suite.ts";
import {
  type Ask,
  policy,
  readBody,
  running,
  testEach,
  testHere,
  whoAsks,
  Wire,
} from "../support/http.ts";

testEach("identifies each of many concurrent users, and refuses others", async (kind) => {
  const server = await kind.start({ policy }, whoAsks);
  const users = [0, 1001, 1002, 1003].flatMap((uid) => [uid, uid, uid]);
  const answers = await Promise.all(users.map(async (uid) => {
    const wire = Wire.as(uid, server.path);
    const { pid } = wire.child!;
    if (uid === 1003) return assert.equal((await wire.get("/open")).status, 403);
    // Pipelined: the responses arrive in this order.
    const targets = Array.from({ length: 20 }, (_, at) => at % 4 === 3 ? "/other" : "/open");
    wire.send(targets.map((at) => `GET ${at} HTTP/1.1\r\nHost: x\r\n\r\n`).join(""));
    for (const url of targets) {
      const { status, body } = await wire.response();
      const rule = { 0: "root", 1001: "reader", 1002: "looker" }[uid];
      if (uid === 1002 && url !== "/open") assert.equal(status, 403);
      else assert.deepEqual([status, JSON.parse(body)], [200, { uid, pid, rule, url }]);
    }
  }));
  assert.equal(answers.length, 12);
  const { open, accepted, refused, allowed, denied, failed } = server.stats();
  assert.ok(open <= 9);
  assert.deepEqual([accepted, refused.policy, allowed, denied, failed], [9, 3, 165, 15, 0]);
});

testEach("accepts only root when root runs it without a policy", async (kind) => {
  const server = await kind.start({}, whoAsks);
  assert.equal((await Wire.as(0, server.path).get("/x")).status, 200);
  for (const uid of [1, 1001, 65534]) {
    assert.equal((await Wire.as(uid, server.path).get("/x")).status, 403);
  }
  assert.deepEqual(server.stats().refused, { policy: 3, limits: 0, unidentified: 0 });
});

testEach("enforces connectionsPerUser", async (kind) => {
  const limits = { connectionsPerUser: 2 };
  const server = await kind.start({ policy: "anyone", limits }, whoAsks);
  const held = [Wire.as(1001, server.path), Wire.as(1001, server.path)];
  for (const wire of held) assert.equal((await wire.get("/")).status, 200);
  assert.equal(await Wire.as(1001, server.path).send("GET / HTTP/1.1\r\n").rest(), "");
  assert.equal((await Wire.as(1002, server.path).get("/")).status, 200);
  held[0]!.destroy();
  await until(() => server.stats().open === 2);
  assert.equal((await Wire.as(1001, server.path).get("/")).status, 200);
  assert.equal(server.stats().refused.limits, 1);
});

/** Headers by which some servers identify clients. */
const CLAIMS = [
  "X-Ucred-Uid: 0",
  "X-Ucred-User: root",
  "X-Ucred-Pid: 1",
  "X_Ucred_Uid: 0",
  "x-ucred-uid: 0\r\nX-Ucred-Uid: 0",
  "X-Remote-User: root",
  "Remote-User: root",
  "REMOTE_USER: root",
  "X-Forwarded-User: root",
  "X-Forwarded-For: 127.0.0.1",
  "X-Forwarded-Uid: 0",
  "X-Auth-Request-User: root",
  "X-Authenticated-User: root",
  "X-WebAuth-User: root",
  "X-Real-IP: 127.0.0.1",
  "X-Client-Cert: CN=root",
  "Forwarded: for=root;by=root",
  "Authorization: Basic cm9vdDpyb290",
  "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJ1aWQiOjB9.",
  "Authorization: EXTERNAL 30",
  "Proxy-Authorization: Basic cm9vdDo=",
  "Cookie: uid=0; user=root; peer=root",
  "From: root@localhost",
  "Via: 1.1 root",
  "__proto__: root",
  "constructor: root",
  "peer: root",
  "ucred.admitted: root",
  "socket: root",
  "Connection: X-Ucred-Uid, Host",
] as const;

testEach("ignores headers that claim an identity", async (kind) => {
  const seen: string[] = [];
  const server = await kind.start({ policy }, (ask) => {
    seen.push(ask.url);
    return whoAsks(ask);
  });
  const wire = Wire.as(1002, server.path);
  const { pid } = wire.child!;
  for (const claim of CLAIMS) {
    for (const url of ["/open", "/secret"]) {
      wire.send(`GET ${url} HTTP/1.1\r\nHost: x\r\n${claim}\r\n\r\n`);
      const { status, body } = await wire.response();
      if (url === "/secret") assert.equal(status, 403, claim);
      else {
        assert.deepEqual(
          [status, JSON.parse(body)],
          [200, { uid: 1002, pid, rule: "looker", url }],
          claim,
        );
      }
    }
  }
  assert.deepEqual(seen, CLAIMS.map(() => "/open"));
});

testEach("peerOf() and decisionOf() work during and after the handler", async (kind) => {
  const asks: Ask[] = [];
  const server = await kind.start({ policy }, async (ask) => {
    asks.push(ask);
    const { request, peer, decision } = ask;
    const same = () => assert.deepEqual([peerOf(request), decisionOf(request)], [peer, decision]);
    same();
    await sleep(1);
    same();
    await readBody(ask.body());
    same();
    return { body: String(peerOf(request).uid) };
  });
  const wire = Wire.as(1001, server.path);
  wire.send("POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  assert.equal((await wire.response()).body, "1001");
  assert.equal((await wire.get("/a")).body, "1001");
  wire.destroy();
  await until(() => server.stats().open === 0);
  const [first, second] = asks.map(({ request }) => decisionOf(request));
  assert.deepEqual([first!.rule, second!.rule], ["writer", "reader"]);
  assert.deepEqual([first!.grants, second!.grants], [["write"], ["read"]]);
  assert.equal(peerOf(asks[0]!.request), peerOf(asks[1]!.request));
  assert.equal(peerOf(asks[0]!.request).uid, 1001);
});

test("peerOf() and decisionOf() throw for requests of other servers", () => {
  for (const other of [{}, new Request("http://x/"), { socket: null }, { socket: {} }]) {
    for (const ask of [peerOf, decisionOf]) {
      assert.throws(() => ask(other as RequestLike), {
        name: "UcredError",
        code: "ERR_UCRED_NO_PEER",
      });
    }
  }
});

testHere("identify() accepts a request of createServer()", async () => {
  const path = freshPath();
  const server = createServer({ policy: "anyone" }, async (request, response) => {
    const { uid, pid } = identify(request);
    await sleep(1);
    response.end(JSON.stringify([uid, pid, identify(request).uid]));
  });
  running(server, path);
  await once(server.listen({ path, mode: 0o666 }), "listening");
  const wire = Wire.as(1001, path);
  const { body } = await wire.get("/");
  assert.deepEqual(JSON.parse(body), [1001, wire.child!.pid, 1001]);
});
