/** Tests of `ucred guard --metrics` and of the counters of `createGuard()`. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { type GuardStats, prometheusText, type RequestReport } from "../../guard/mod.ts";
import { metricsText } from "../../guard/prometheus.ts";
import {
  answerOf,
  Behind,
  End,
  Guard,
  type Message,
  policyFile,
  testGuard,
  USERS,
} from "../support/guard.ts";
import { guardHere } from "../support/guard_here.ts";
import { Wire } from "../support/http.ts";
import { freshPath } from "../support/peers.ts";
import { parseMetrics, type Series } from "../support/prometheus.ts";
import { needs, until } from "../support/suite.ts";

const POLICY = `version: 1
rules:
  - { name: secret, actions: "GET /secret", deny: true }
  - { name: root, when: { uid: 0 }, allow: full }
  - { name: one, when: { uid: ${USERS.one} }, actions: "GET /one", allow: read }
`;

async function ask(path: string, target: string, method = "GET"): Promise<Message> {
  const client = await End.open(path);
  const answer = await client.ask(target, method);
  client.destroy();
  return answer;
}

async function scrape(path: string): Promise<Series> {
  const { status, body, header } = await ask(path, "/metrics");
  assert.equal(status, 200, body);
  assert.equal(header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  return parseMetrics(body);
}

/** How many requests ended with each outcome, without those of which there are none. */
function requestsIn(series: Series): { readonly [outcome: string]: number } {
  const found = [...series].flatMap(([key, count]) => {
    const labels = /^ucred_guard_requests_total\{outcome="(\w+)"(?:,reason="(\w+)")?\}$/.exec(key);
    return labels === null || count === 0 ? [] : [[labels[2] ?? labels[1]!, count] as const];
  });
  return Object.fromEntries(found);
}

/** An upstream that answers by the path of the request. */
function byPath(): Promise<Behind> {
  return Behind.start(async (end) => {
    while (true) {
      const { first } = await end.message();
      const path = first.split(" ")[1];
      if (path === "/wait") await end.rest();
      else if (path === "/cut") {
        end.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").destroy();
      } else if (path === "/part") end.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
      else if (path === "/wrong") end.send("nonsense\r\n\r\n");
      else if (path === "/close") return end.destroy();
      else if (path === "/tcp") {
        end.send("HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
      } else end.send(answerOf("done", path === "/error" ? "500 Broken" : "200 OK"));
    }
  });
}

const REQUEST = (line: string, ...lines: string[]) =>
  [`${line} HTTP/1.1`, "Host: x", ...lines, "", ""].join("\r\n");

/** Requests that the guard itself answers, with the reason. */
const REFUSED: readonly (readonly [reason: string, bytes: string, status: number])[] = [
  ["malformed", "nonsense\r\n\r\n", 400],
  ["malformed", REQUEST("GET /a%2fb"), 400],
  ["malformed", REQUEST("GET /a", "Host: y"), 400],
  ["malformed", `${REQUEST("POST /a", "Transfer-Encoding: chunked")}nonsense\r\n`, 400],
  ["too_large", REQUEST(`GET /${"a".repeat(9000)}`), 414],
  ["too_large", REQUEST("GET /a", `A: ${"a".repeat(20000)}`), 431],
  ["timeout", REQUEST("POST /a", "Content-Length: 5"), 408],
  ["unsupported", REQUEST("CONNECT x:80"), 501],
  ["unsupported", REQUEST("POST /a", "Content-Length: 5", "Expect: more"), 417],
  ["denied", REQUEST("GET /secret"), 403],
  ["denied", REQUEST("POST /secret", "Content-Length: 5").replace("POST", "GET"), 403],
  ["upstream_error", REQUEST("GET /wrong"), 502],
  ["upstream_error", REQUEST("GET /close"), 502],
];

testGuard("guard --metrics counts each request once, by its outcome", async () => {
  const behind = await byPath();
  const metrics = freshPath("metrics.sock");
  const policy = policyFile(POLICY);
  const args = ["--metrics", metrics, "--body-timeout", "0.05"];
  const guard = await Guard.start({ upstream: behind.path, mode: "http", policy, args });
  assert.deepEqual(requestsIn(await scrape(metrics)), {});
  const expected: { [outcome: string]: number } = {};
  const expect = (outcome: string, count = 1) =>
    expected[outcome] = (expected[outcome] ?? 0) + count;
  for (const [reason, bytes, status] of REFUSED) {
    const client = await End.open(guard.path);
    client.send(bytes);
    assert.equal((await client.message()).status, status, bytes.slice(0, 50));
    client.destroy();
    expect(reason);
  }
  const client = await End.open(guard.path);
  for (const target of ["/a", "/b", "/error"]) await client.ask(target);
  client.send(REQUEST("GET /c").repeat(5));
  for (let at = 0; at < 5; at++) await client.message();
  expect("allowed", 8);
  client.destroy();
  const upgraded = await End.open(guard.path);
  upgraded.send(REQUEST("GET /tcp", "Connection: Upgrade", "Upgrade: tcp"));
  await upgraded.until("\r\n\r\n");
  expect("allowed");
  const cut = await End.open(guard.path);
  cut.send(REQUEST("GET /cut"));
  assert.match(await cut.rest(), /abc$/);
  expect("upstream_error");
  // Both requests of a client that hangs up, of which the second one has not begun.
  const leaving = await End.open(guard.path);
  leaving.send(REQUEST("GET /part") + REQUEST("GET /a"));
  await leaving.until("abc");
  leaving.destroy();
  expect("aborted", 2);
  const flooding = await End.open(guard.path);
  flooding.send(REQUEST("GET /part"));
  await flooding.until("abc");
  flooding.send(REQUEST("GET /a").repeat(65));
  await flooding.rest();
  expect("pipelining");
  expect("aborted", 65);
  await until(async () => requestsIn(await scrape(metrics))["aborted"] === 67);
  const series = await scrape(metrics);
  assert.deepEqual(requestsIn(series), expected);
  // Each response whose head arrived: allowed ones, and the three that were incomplete.
  assert.equal(series.get("ucred_guard_response_latency_seconds_count"), expected["allowed"]! + 3);
  await until(async () => (await scrape(metrics)).get("ucred_guard_connections_open") === 1);
  upgraded.destroy();
  await until(async () => (await scrape(metrics)).get("ucred_guard_connections_open") === 0);
  assert.equal(series.get("ucred_guard_connections_accepted_total"), REFUSED.length + 5);
  assert.equal(series.get("ucred_guard_upstream_failures_total"), 3);
});

testGuard("guard --metrics can be read during load, and loses no request", async () => {
  const behind = await byPath();
  const metrics = freshPath("metrics.sock");
  const guard = await Guard.start({
    ...{
      upstream: behind.path,
      mode: "http",
      args: ["--metrics", metrics, "--metrics-mode", "0600"],
    },
  });
  let isOver = false;
  const clients = Array.from({ length: 20 }, async () => {
    const client = await End.open(guard.path);
    for (let at = 0; at < 25; at++) assert.equal((await client.ask("/a")).status, 200);
    client.destroy();
  });
  const reads = (async () => {
    let last = 0, count = 0;
    while (!isOver) {
      const series = await scrape(metrics);
      const allowed = series.get('ucred_guard_requests_total{outcome="allowed"}')!;
      assert.ok(allowed >= last && allowed <= 500);
      [last, count] = [allowed, count + 1];
    }
    return count;
  })();
  await Promise.all(clients);
  isOver = true;
  assert.ok(await reads > 0);
  const series = await scrape(metrics);
  assert.deepEqual(requestsIn(series), { allowed: 500 });
  assert.equal(series.get("ucred_guard_connections_accepted_total"), 20);
}, needs.oneRuntime);

testGuard("guard --metrics shows policies, the audit log and limits", async () => {
  const behind = await byPath();
  const metrics = freshPath("metrics.sock");
  const policy = policyFile(POLICY);
  const shadow = policyFile(POLICY.replace("/secret", "/a"));
  const readers = policyFile(`version: 1
rules:
  - { name: root, when: { uid: 0 }, allow: true }
  - { name: prometheus, when: { uid: ${USERS.one} }, actions: GET /metrics, allow: true }
`);
  const guard = await Guard.start({
    ...{ upstream: behind.path, mode: "http", policy },
    args: [
      ...["--metrics", metrics, "--metrics-mode", "0666", "--metrics-policy", readers],
      ...["--shadow", shadow, "--audit", "/dev/full", "--max-per-user", "2"],
    ],
  });
  const valueOf = async (name: string) => (await scrape(metrics)).get(`ucred_guard_${name}`);
  await ask(guard.path, "/a"); // the candidate would deny it
  await ask(guard.path, "/secret"); // and would allow this
  await ask(guard.path, "/b");
  const ones = await Promise.all([1, 2].map(() => Wire.as(USERS.one, guard.path)));
  await Promise.all(ones.map((wire) => wire.get("/one")));
  assert.equal(await Wire.as(USERS.one, guard.path).send("x").rest(), "");
  assert.equal((await Wire.as(USERS.nobody, guard.path).get("/one")).status, 403);
  const series = await scrape(metrics);
  const found = (name: string) => series.get(`ucred_guard_${name}`);
  assert.deepEqual(requestsIn(series), { allowed: 4, denied: 1 });
  assert.equal(found('connections_rejected_total{reason="connections_per_user"}'), 1);
  assert.equal(found('connections_rejected_total{reason="connections"}'), 0);
  assert.equal(found('connections_rejected_total{reason="policy"}'), 1);
  assert.equal(found('limit{limit="connections_per_user"}'), 2);
  assert.equal(found('limit{limit="connections"}'), 2048);
  assert.equal(found('limit{limit="accepts_per_second"}'), Infinity);
  assert.equal(found("shadow_differences_total"), 2);
  assert.ok(found("shadow_decisions_total")! >= 5);
  await until(async () => (await valueOf("audit_dropped_total"))! > 0);
  assert.equal(found("draining"), 0);
  const build = [...series.keys()].find((key) => key.startsWith("ucred_guard_build_info"))!;
  assert.match(build, /version="0\.1\.0",runtime="(node|deno|bun)",runtime_version="\d+\.\d+\.\d+/);
  const started = series.get("process_start_time_seconds")!;
  assert.ok(started > 1.7e9 && started <= Date.now() / 1000);

  // A reload that fails, and one that succeeds.
  const ofActive = '{policy="active"}';
  assert.equal(found(`policy_usable${ofActive}`), 1);
  const age = found(`policy_age_seconds${ofActive}`)!;
  writeFileSync(policy, "version: 1\nrules: none\n");
  guard.signal("SIGHUP");
  await until(async () => await valueOf(`policy_usable${ofActive}`) === 0);
  const broken = await scrape(metrics);
  assert.equal(broken.get(`ucred_guard_policy_reload_failures_total${ofActive}`), 1);
  assert.ok(broken.get(`ucred_guard_policy_age_seconds${ofActive}`)! > age);
  const { body, status } = await ask(metrics, "/readyz");
  assert.equal(status, 200, body); // the previous policy stays in force
  assert.match(JSON.parse(body).policies.active, /policy\.yaml/);
  writeFileSync(policy, POLICY);
  guard.signal("SIGHUP");
  await until(async () => await valueOf(`policy_usable${ofActive}`) === 1);
  const mended = await scrape(metrics);
  assert.ok(mended.get(`ucred_guard_policy_reloads_total${ofActive}`)! >= 1);
  assert.ok(
    mended.get(`ucred_guard_policy_age_seconds${ofActive}`)! <
      broken.get(`ucred_guard_policy_age_seconds${ofActive}`)!,
  );

  // Who may read.
  const reader = Wire.as(USERS.one, metrics);
  assert.equal((await reader.get("/metrics")).status, 200);
  assert.equal((await reader.get("/readyz")).status, 403);
  assert.equal((await Wire.as(USERS.two, metrics).get("/metrics")).status, 403);
}, needs.oneRuntime);

testGuard("guard --metrics accepts only root and the guard's own user by default", async () => {
  const behind = await byPath();
  const metrics = freshPath("metrics.sock");
  await Guard.start({
    ...{ upstream: behind.path, args: ["--metrics", metrics, "--metrics-mode", "0666"] },
  });
  for (const path of ["/metrics", "/healthz", "/readyz"]) {
    assert.equal((await Wire.as(USERS.one, metrics).get(path)).status, 403);
    assert.equal((await ask(metrics, path)).status, 200);
  }
  assert.equal((await ask(metrics, "/metrics", "HEAD")).body, "");
  assert.equal((await ask(metrics, "/metrics?x=1")).status, 200);
  assert.equal((await ask(metrics, "/other")).status, 404);
  const answer = await ask(metrics, "/metrics", "DELETE");
  assert.deepEqual([answer.status, answer.header("allow")], [405, "GET, HEAD"]);
}, needs.oneRuntime);

testGuard("guard --metrics reports readiness: the upstream, and the end of the guard", async () => {
  const upstream = freshPath("up.sock");
  const metrics = freshPath("metrics.sock");
  const args = ["--metrics", metrics, "--drain", "30"];
  const guard = await Guard.start({ upstream, mode: "http", args });
  const ready = async () => {
    const { status, body } = await ask(metrics, "/readyz");
    assert.equal((await ask(metrics, "/healthz")).body, "ok\n");
    return { status, ...JSON.parse(body) };
  };
  const before = await ready();
  assert.deepEqual([before.status, before.ready, before.draining], [503, false, false]);
  assert.match(before.upstream, /ENOENT|no such file/i);
  assert.equal((await scrape(metrics)).get("ucred_guard_upstream_failures_total"), 0);
  const behind = await Behind.start(undefined, upstream);
  await until(async () => (await ready()).status === 200);
  await (await behind.next()).rest(); // the check hangs up

  // Another process listens there: the check verifies the upstream's user.
  const strict = await Guard.start({
    ...{
      upstream,
      mode: "http",
      args: [...args.with(1, `${metrics}2`), "--upstream-user", "4001"],
    },
  });
  assert.equal((await ask(`${metrics}2`, "/readyz")).status, 503);
  strict.signal("SIGTERM");
  await strict.ended;

  const client = await End.open(guard.path);
  client.send(REQUEST("GET /a"));
  let pending: End;
  do pending = await behind.next(); while (await pending.until("\r\n\r\n").catch(() => "") === "");
  guard.signal("SIGTERM");
  await guard.logs("SIGTERM");
  const during = await ready();
  assert.deepEqual([during.status, during.draining, during.upstream], [503, true, "ok"]);
  assert.equal((await scrape(metrics)).get("ucred_guard_draining"), 1);
  pending.send(answerOf("late"));
  assert.equal((await client.message()).body, "late");
  assert.deepEqual(await guard.ended, { code: 0, signal: null });
  await assert.rejects(async () => await scrape(metrics));
});

testGuard("guard --metrics counts connections in stream mode", async () => {
  const behind = await Behind.start((end) => end.send("hello").end());
  const metrics = freshPath("metrics.sock");
  const guard = await Guard.start({ upstream: behind.path, args: ["--metrics", metrics] });
  for (let at = 0; at < 3; at++) {
    assert.equal(await (await End.open(guard.path)).end().rest(), "hello");
  }
  await Wire.as(USERS.nobody, guard.path).rest();
  await until(async () => (await scrape(metrics)).get("ucred_guard_connections_open") === 0);
  const series = await scrape(metrics);
  assert.equal(series.get("ucred_guard_connections_accepted_total"), 3);
  assert.equal(series.get('ucred_guard_connections_rejected_total{reason="policy"}'), 1);
  assert.deepEqual(requestsIn(series), {});
  assert.ok(![...series.keys()].some((key) => /requests|latency/.test(key)));
});

const WRONG: readonly (readonly [args: readonly string[], message: RegExp])[] = [
  [["--metrics-mode", "0660"], /--metrics-mode requires --metrics/],
  [["--metrics-policy", "x"], /--metrics-policy requires --metrics/],
  [["--metrics", "@m", "--metrics-mode", "0660"], /an abstract socket has no file/],
  [["--metrics", "/nowhere/up.sock"], /--metrics requires a socket of its own/],
  [["--metrics", "/nowhere/else/m.sock"], /\/nowhere\/else/],
];

testGuard("guard does not start with options of --metrics that have no effect", async () => {
  for (const [args, message] of WRONG) {
    const guard = Guard.launch({ upstream: "/nowhere/up.sock", args });
    assert.deepEqual(await guard.ended, { code: 2, signal: null });
    assert.match(guard.log, message);
  }
}, needs.oneRuntime);

testGuard("createGuard() reports each request to onRequest(), and an error of it", async () => {
  const behind = await byPath();
  const reports: RequestReport[] = [];
  const lines: string[] = [];
  const { path, guard } = await guardHere({
    ...{ mode: "http", upstream: behind.path, report: (line) => lines.push(line) },
    onRequest: (request) => {
      reports.push(request);
      if (request.target === "/b") throw new Error("broken\n");
    },
  });
  const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const client = await End.open(path);
  client.send(REQUEST("GET /a?b=c", `traceparent: ${parent}`));
  await client.message();
  await client.ask("/b");
  client.send(REQUEST("GET /error", `traceparent: ${parent}`, `Traceparent: ${parent}`));
  await client.message();
  client.send("nonsense\r\n\r\n");
  await client.message();
  await guard.close({ timeout: 0 });
  const found = reports.map(({ method, target, outcome, status, decision, traceparent }) => [
    ...[method, target, outcome, status, decision?.rule, traceparent],
  ]);
  const rule = "root";
  assert.deepEqual(found, [
    ["GET", "/a?b=c", "allowed", 200, rule, parent],
    ["GET", "/b", "allowed", 200, rule, undefined],
    ["GET", "/error", "allowed", 500, rule, undefined],
    [undefined, undefined, "malformed", 400, undefined, undefined],
  ]);
  assert.ok(reports.every(({ server, peer }) => server === path && peer.uid === 0));
  assert.ok(
    reports.every(({ startedAt, milliseconds }) => startedAt + milliseconds <= Date.now() + 1),
  );
  assert.deepEqual(lines, ["onRequest() failed: Error: broken\\u000a"]);
  const { requests } = guard.stats();
  assert.deepEqual([requests!.outcomes.allowed, requests!.outcomes.malformed], [3, 1]);
  assert.equal(requests!.latency.count, 3);
});

test("prometheusText() and metricsText() write the format that Prometheus reads", () => {
  const outcomes = Object.fromEntries(
    ["allowed", "denied", "malformed", "tooLarge", "timeout", "unsupported", "pipelining"]
      .concat("upstreamError", "failed", "aborted").map((name, at) => [name, at]),
  ) as never;
  const stats: GuardStats = {
    ...{ open: 1, accepted: 2, allowed: 3, denied: 4, failed: 5, auditDropped: 6 },
    refused: { policy: 7, limits: 8, unidentified: 9 },
    refusedByLimit: { connections: 10, connectionsPerUser: 11, acceptsPerSecond: 12 },
    limits: { connections: 13, connectionsPerUser: 14, acceptsPerSecond: Infinity },
    upstream: { failures: 15, waiting: 16 },
    requests: {
      outcomes,
      latency: { bounds: [0.001, 1], counts: [3, 5], count: 6, sum: 4.25e-7 },
    },
  };
  const series = parseMetrics(prometheusText(stats));
  assert.equal(series.get('ucred_guard_requests_total{outcome="refused",reason="too_large"}'), 3);
  assert.equal(series.get('ucred_guard_response_latency_seconds_bucket{le="1"}'), 5);
  assert.equal(series.get('ucred_guard_response_latency_seconds_bucket{le="+Inf"}'), 6);
  assert.equal(series.get("ucred_guard_response_latency_seconds_sum"), 4.25e-7);
  const text = metricsText([{
    ...{ name: "a", type: "gauge", help: "one \\ two\nthree" },
    values: [[{ b: 'q"\\\n', c: "\u00e9" }, NaN], [{ b: "", c: "{}," }, -Infinity]],
  }]);
  assert.equal(
    text,
    '# HELP a one \\\\ two\\nthree\n# TYPE a gauge\na{b="q\\"\\\\\\n",c="\u00e9"} NaN\n' +
      'a{b="",c="{},"} -Inf\n',
  );
  assert.equal(parseMetrics(text).size, 2);
});
