/** Events of servers: diagnostics channels and OpenTelemetry metrics. */

import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import process from "node:process";
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { definePolicy } from "../../mod.ts";
import { createServer as createHttpServer } from "../../servers/http.ts";
import { createServer } from "../../servers/net.ts";
import { CHANNELS, type ServerEvent } from "../../servers/audit.ts";
import { measureServers } from "../../servers/otel.ts";
import { freshPath } from "../support/peers.ts";
import { needs, runtime, testWith, until } from "../support/suite.ts";
import { listening, visit, visitAs } from "../support/servers.ts";

const here = [needs.linux, needs.cc];
const asRoot = [...here, needs.root];
const uncaughtErrors = {
  name: "a runner that leaves uncaught errors to the test, unlike Bun's",
  met: runtime !== "bun",
};

const policy = definePolicy({
  version: 1,
  rules: [{ name: "open", when: { uid: [0, 1000] }, actions: "GET /open", allow: true }],
});
const some = definePolicy({
  version: 1,
  rules: [{ name: "some", when: { uid: [0, 1000, 1001] }, allow: true }],
});

/** Returns all events published while a callback runs. */
async function told(run: () => Promise<void>): Promise<ServerEvent[]> {
  const events: ServerEvent[] = [];
  const record = (message: unknown) => void events.push(message as ServerEvent);
  for (const name of Object.values(CHANNELS)) subscribe(name, record);
  try {
    await run();
  } finally {
    for (const name of Object.values(CHANNELS)) unsubscribe(name, record);
  }
  return events;
}

testWith(
  asRoot,
  "channels publish each accepted, refused, failed and closed connection",
  async () => {
    const path = freshPath();
    const events = await told(async () => {
      const server = createServer({ policy: some }, (socket, { uid }) => {
        if (uid === 1001) throw new RangeError("broken");
        socket.resume().end("hello");
      });
      await listening(server, { path, mode: 0o666 });
      for (const uid of [1000, 1001, 1002]) await visitAs(uid, path);
      await server.close({});
    });
    assert.ok(events.every(({ server }) => server === path));
    const of = (uid: number) => events.filter(({ peer }) => peer?.uid === uid);
    assert.deepEqual(of(1000).map(({ type }) => type), ["accepted", "closed"]);
    assert.deepEqual(of(1001).map(({ type }) => type), ["accepted", "failed", "closed"]);
    assert.deepEqual(of(1002).map(({ type }) => type), ["refused"]);
    const [accepted] = of(1000);
    assert.ok(accepted?.type === "accepted" && accepted.decision.rule === "some");
    const [, failed, closed] = of(1001);
    assert.ok(failed?.type === "failed" && failed.error instanceof RangeError);
    assert.ok(closed?.type === "closed" && closed.milliseconds >= 0 && closed.why === undefined);
    assert.equal(failed.connection, closed.connection);
    const [refused] = of(1002);
    assert.ok(refused?.type === "refused" && refused.why === "policy");
    assert.equal(refused.decision?.allowed, false);
  },
);

testWith(asRoot, "channels publish each decision of ucred/http", async () => {
  const path = freshPath();
  const events = await told(async () => {
    const server = createHttpServer({ policy }, (_, response) => response.end("hello"));
    server.listen({ path });
    await new Promise((resolve) => server.once("listening", resolve));
    for (const target of ["/open", "/secret"]) {
      await visit(path, "--send", `GET ${target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    }
    await server.close({ timeout: 0 });
  });
  const decided = events.flatMap((event) =>
    event.type === "decided" ? [[event.action, event.decision.allowed, event.connection]] : []
  );
  assert.deepEqual(decided, [["GET /open", true, 1], ["GET /secret", false, 2]]);
  const types = events.map(({ type }) => type);
  assert.equal(types.filter((type) => type === "accepted").length, 2);
  assert.equal(types.filter((type) => type === "closed").length, 2);
});

for (const type of ["accepted", "refused", "closed", "failed"] as const) {
  testWith(
    [...asRoot, uncaughtErrors],
    `a throwing subscriber to ${CHANNELS[type]} does not affect the server`,
    async () => {
      const thrown = new Error(`thrown by a subscriber to ${type}`);
      let times = 0;
      const fail = () => {
        times++;
        throw thrown;
      };
      const others: string[] = [];
      const record = (message: unknown) => void others.push((message as ServerEvent).type);
      // Node rethrows a subscriber's error as an uncaught exception; see diagnostics_channel's publish().
      const uncaught: unknown[] = [];
      const runners = process.listeners("uncaughtException");
      process.removeAllListeners("uncaughtException");
      process.on("uncaughtException", (error) => void uncaught.push(error));
      subscribe(CHANNELS[type], fail);
      subscribe(CHANNELS[type], record);
      try {
        const path = freshPath();
        const server = createServer(
          { policy: some, limits: { connectionsPerUser: 2 } },
          (socket, { uid }) => {
            if (uid === 1001) throw new RangeError("broken");
            socket.resume().end("hello");
          },
        );
        await listening(server, { path, mode: 0o666 });
        for (let round = 0; round < 3; round++) {
          assert.equal(await visitAs(1000, path), "hello");
          assert.equal(await visitAs(1001, path), "");
          assert.equal(await visitAs(1002, path), "");
          await until(() => server.stats().open === 0);
        }
        const { accepted, refused, failed } = server.stats();
        assert.deepEqual([accepted, failed], [6, 3]);
        assert.deepEqual(refused, { policy: 3, limits: 0, unidentified: 0 });
        await server.close({});
      } finally {
        unsubscribe(CHANNELS[type], fail);
        unsubscribe(CHANNELS[type], record);
        await new Promise((resolve) => setTimeout(resolve, 0));
        process.removeAllListeners("uncaughtException");
        for (const each of runners) process.on("uncaughtException", each);
      }
      assert.equal(times, type === "accepted" || type === "closed" ? 6 : 3);
      assert.equal(others.length, times);
      assert.ok(uncaught.every((error) => error === thrown));
    },
  );
}

testWith(asRoot, "measureServers() records metrics with the OpenTelemetry SDK", async () => {
  const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const provider = new MeterProvider({ readers: [reader] });
  const stop = measureServers(provider.getMeter("test"));
  const path = freshPath();
  const server = createServer({ policy: some }, (socket, { uid }) => {
    if (uid === 1001) throw new RangeError("broken");
    socket.resume().end("hello");
  });
  const fail = () => {}; // a subscriber, so that failures do not become process warnings
  subscribe(CHANNELS.failed, fail);
  await listening(server, { path, mode: 0o666 });
  for (const uid of [1000, 1000, 1001, 1002, 1003, 1003]) await visitAs(uid, path);
  await server.close({});

  const http = createHttpServer({ policy }, (_, response) => response.end("hello"));
  const httpPath = freshPath();
  http.listen({ path: httpPath });
  await new Promise((resolve) => http.once("listening", resolve));
  for (const target of ["/open", "/secret", "/open?x=1"]) {
    await visit(
      httpPath,
      "--send",
      `GET ${target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
    );
  }
  await http.close({ timeout: 0 });

  stop();
  const after = createServer({ policy: some }, (socket) => void socket.end("hello"));
  await listening(after, path);
  await visit(path); // not recorded
  await after.close({});
  unsubscribe(CHANNELS.failed, fail);

  await reader.forceFlush();
  const metrics = exporter.getMetrics().at(-1)!.scopeMetrics.flatMap(({ metrics }) => metrics);
  const points = (name: string): unknown[] =>
    metrics.find(({ descriptor }) => descriptor.name === name)?.dataPoints
      .map(({ attributes, value }) => {
        const { server, ...rest } = attributes;
        const which = server === path ? "net" : server === httpPath ? "http" : server;
        const count = typeof value === "number" ? value : value.count;
        return `${which} ${Object.values(rest).join(" ")} ${count}`.replace("  ", " ");
      }).sort() ?? [];
  assert.deepEqual(points("ucred.server.connections"), [
    "http accepted 3",
    "net accepted 3",
    "net policy 3",
  ]);
  assert.deepEqual(points("ucred.server.connections.open"), ["http 0", "net 0"]);
  assert.deepEqual(points("ucred.server.connection.duration"), ["http 3", "net 3"]);
  assert.deepEqual(points("ucred.server.failures"), ["net 1"]);
  assert.equal(points("ucred.server.decisions").length, 2);
  await provider.shutdown();
});
