/**
 * Generated and mutated frames of HTTP/2: the guard survives them, and forwards only streams that it has
 * decided. `npm run fuzz` tries other cases.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import process from "node:process";
import { definePolicy } from "../../mod.ts";
import {
  ask,
  connectHttp2,
  CONTINUATION,
  DATA,
  echo,
  END_HEADERS,
  END_STREAM,
  frame,
  GOAWAY,
  HEADERS,
  hpack,
  Http2Upstream,
  PING,
  PREFACE,
  RST_STREAM,
  SETTINGS,
  WINDOW_UPDATE,
  words,
} from "../support/http2.ts";
import fc from "../support/properties.ts";
import { guardHere } from "../support/guard_here.ts";
import { needs, runtime, soak, testWith, until } from "../support/suite.ts";

/** `npm run fuzz` tries other seeds, and as many cases as it has time for. */
const LONG = Number(process.env["UCRED_CASES"] ?? 3000);
const RUNS = runtime === "node" ? soak(300, LONG) : soak(100, 1000);

/** Requests of another client in each case. Meanwhile the frames reach the guard, and the upstream. */
const ROUNDS = 3;

/** More types and flags of frames: RFC 9113, 6. */
const PRIORITY = 2, PUSH_PROMISE = 5, PADDED = 8, WITH_PRIORITY = 32;

type Field = readonly [name: string, value: string];

/** Mostly the first value. */
function mostly<T>(usual: T, ...others: readonly T[]): fc.Arbitrary<T> {
  return fc.oneof({ weight: 9, arbitrary: fc.constant(usual) }, fc.constantFrom(...others));
}

const path = fc.oneof(
  fc.constantFrom("/ok", "/ok/a?b"),
  fc.constantFrom(
    ...["/denied", "/ok/../denied", "/ok/%2e%2e/denied", "//denied", "/%64enied", "/denied;x"],
    ...["/ok/%2f", "*", "", "http://x/denied", "/denied#/ok"],
  ),
);

/** Fields that the guard drops, refuses or interprets. */
const EXTRA: readonly Field[] = [
  ...(["x-ucred-uid", "X-Ucred-Uid", "x_ucred_uid", "x-forwarded-for", "x-http-method"]
    .map((name) => [name, "1"] as const)),
  ...(["te: trailers", "te: gzip", "connection: close", "upgrade: h2c", "expect: 100-continue"]
    .map((line) => line.split(": ") as [string, string])),
  ...(["transfer-encoding: chunked", "content-length: 3", "content_length: 3", "host: localhost"]
    .map((line) => line.split(": ") as [string, string])),
  ...(["host: other", "cookie: a=b", "expect: x", "trailer: x", "x y: 1"]
    .map((line) => line.split(": ") as [string, string])),
  [":path", "/denied"],
  [":status", "200"],
  [":protocol", "websocket"],
  ["x", "a\r\nb: c"],
  ["", "z"],
];

const fields = fc.record({
  method: mostly("POST", "GET", "DELETE", "CONNECT", "post", ""),
  path,
  scheme: mostly("http", "https", "file"),
  authority: mostly("localhost", "a@b", ""),
  more: fc.oneof(
    { weight: 3, arbitrary: fc.constant([]) },
    fc.array(fc.constantFrom(...EXTRA), { maxLength: 3 }),
  ),
  isReversed: mostly(false, true),
}).map(({ method, path, scheme, authority, more, isReversed }) => {
  const found: Field[] = [
    [":method", method],
    [":scheme", scheme],
    [":path", path],
    [":authority", authority],
    ...more,
  ];
  return hpack(isReversed ? found.reverse() : found);
});

const stream = fc.constantFrom(1, 1, 3, 3, 5, 7, 0, 2, 0x7fffffff);

const request = fc.record({
  fields,
  flags: mostly(END_STREAM, 0, PADDED, WITH_PRIORITY),
  cut: fc.option(fc.nat(), { nil: undefined }),
}).map(({ fields, flags, cut }) => (id: number) => {
  const head = (flags & PADDED) !== 0 ? Buffer.from([2]) : Buffer.alloc(0);
  const priority = (flags & WITH_PRIORITY) !== 0 ? Buffer.from([0, 0, 0, 0, 1]) : Buffer.alloc(0);
  const tail = (flags & PADDED) !== 0 ? Buffer.alloc(2) : Buffer.alloc(0);
  if (cut === undefined) {
    const payload = Buffer.concat([head, priority, fields, tail]);
    return frame(HEADERS, flags | END_HEADERS, id, payload);
  }
  const at = cut % (fields.length + 1);
  const first = Buffer.concat([head, priority, fields.subarray(0, at), tail]);
  const rest = frame(CONTINUATION, END_HEADERS, id, fields.subarray(at));
  return Buffer.concat([frame(HEADERS, flags, id, first), rest]);
});

const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((each) => Buffer.from(each));

const other = fc.oneof(
  fc.record({ id: stream, flags: mostly(0, END_STREAM, PADDED), data: bytes(20) })
    .map(({ id, flags, data }) => frame(DATA, flags, id, data)),
  fc.record({ id: stream, code: fc.nat(20) }).map(({ id, code }) =>
    frame(RST_STREAM, 0, id, words(code))
  ),
  fc.record({ flags: fc.constantFrom(0, 1), id: fc.nat(10), value: fc.nat(0xffffffff) })
    .map(({ flags, id, value }) => {
      const payload = Buffer.concat([Buffer.from([0, id]), words(value)]);
      return frame(SETTINGS, flags, 0, payload);
    }),
  bytes(10).map((payload) => frame(PING, 0, 0, payload)),
  fc.record({ id: stream, by: fc.constantFrom(0, 1, 65_536, 0x7fffffff) }).map(({ id, by }) =>
    frame(WINDOW_UPDATE, 0, id, words(by))
  ),
  fc.constant(frame(GOAWAY, 0, 0, words(0, 0))),
  fc.constantFrom(PRIORITY, PUSH_PROMISE, CONTINUATION, 0x10, 0xff).chain((type) =>
    fc.record({ id: stream, flags: fc.nat(255), payload: bytes(12) }).map(
      ({ id, flags, payload }) => frame(type, flags, id, payload),
    )
  ),
);

/** A connection's bytes: requests, mostly on increasing streams, with other frames between them. */
const generated = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ make: request, id: mostly(undefined, 0, 1, 2, 3) }) },
    { weight: 1, arbitrary: other },
  ),
  { minLength: 1, maxLength: 6 },
).map((parts) => {
  let next = -1;
  return Buffer.concat([
    PREFACE,
    frame(SETTINGS),
    ...parts.map((part) => "make" in part ? part.make(part.id ?? (next += 2)) : part),
  ]);
});

const mutated = fc.tuple(
  generated,
  fc.array(
    fc.record({
      at: fc.nat(),
      cut: mostly(1, 0, 2),
      add: fc.uint8Array({ minLength: 1, maxLength: 1 }),
    }),
    { minLength: 1, maxLength: 2 },
  ),
).map(([all, changes]) =>
  changes.reduce((found, { at, cut, add }) => {
    // After the preface: without it, most cases would be HTTP/1.1.
    const from = PREFACE.length + at % (found.length + 1 - PREFACE.length);
    return Buffer.concat([found.subarray(0, from), add, found.subarray(from + cut)]);
  }, all)
);

for (const [what, all] of [["generated", generated], ["mutated", mutated]] as const) {
  testWith(
    [needs.linux, needs.http2],
    `guard survives ${what} frames of HTTP/2, and forwards only streams that it has allowed`,
    async () => {
      const allowed: string[] = [];
      const wrong: unknown[] = [];
      let forwarded = 0;
      const upstream = await Http2Upstream.start((stream) => {
        const raw = upstream.requests.pop()!;
        const values = (name: string) =>
          raw.filter((_, at) => at % 2 === 1 && raw[at - 1] === name);
        const [url = ""] = values(":path");
        const action = `${values(":method")} ${decodeURIComponent(url.replace(/\?.*/, ""))}`;
        const at = allowed.indexOf(action);
        // A mutation may add a segment: "/ok/.x/denied" is a path that the policy allows.
        const isRight = at !== -1 && /^(POST|GET) \/ok(\/.*)?$/.test(action) &&
          !/\/\.\.?(\/|$)/.test(action) &&
          values("x-ucred-uid").join() === String(process.getuid!()) &&
          values(":scheme").join() === "http" &&
          // A mutation may change it to another host: RFC 3986, 3.2.2.
          /^[\w.~!$&'()*+,;=%:[\]-]+$/.test(values(":authority").join()) &&
          !/x_ucred|x-forwarded|x-http-method|connection|upgrade|transfer/.test(raw.join());
        if (isRight) allowed.splice(at, 1);
        else wrong.push(raw);
        forwarded++;
        echo(stream);
      });
      const policy = definePolicy({
        version: 1,
        rules: [{
          name: "ok",
          actions: ["POST /ok/**", "POST /ok", "GET /ok", "GET /ok/**"],
          allow: true,
        }],
      });
      const audit = {
        write: (event: { type: string; action?: string; decision?: { allowed: boolean } }) => {
          if (event.type === "decided" && event.decision!.allowed) allowed.push(event.action!);
        },
      };
      const { path, guard } = await guardHere({
        ...{ mode: "http", http2: true, upstream: upstream.path, policy, audit: audit as never },
      });
      const other = connectHttp2(path);
      await fc.assert(
        fc.asyncProperty(
          all,
          mostly(true, false),
          mostly(false, true),
          async (text, isWhole, ends) => {
            const socket = connect({ path, allowHalfOpen: true });
            socket.on("error", () => {}).resume().write(isWhole ? text : text.subarray(0, -5));
            if (ends) socket.end();
            // The guard has read and forwarded what was sent before.
            for (let round = 0; round < ROUNDS; round++) {
              const { headers, body } = await ask(other, { ":path": "/ok" }, "alive");
              assert.deepEqual([headers[":status"], body], [200, "alive"]);
            }
            socket.destroy();
            assert.deepEqual(wrong, []);
          },
        ),
        { numRuns: RUNS },
      );
      const own = ROUNDS * RUNS;
      assert.ok(forwarded > own, "some were forwarded");
      other.destroy();
      await until(() => guard.stats().open === 0);
    },
  );
}
