/** Tests of the guard's own checks of HTTP/2 header sections, without those of the runtime before them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { requestFields, responseFields } from "../../guard/headers.ts";
import {
  type Fields,
  forwardedHead,
  grpcStatus,
  isGrpc,
  type RefusedHead,
  type RequestHead,
  requestHead,
  responseHead,
  trailersOf,
  valuesIn,
} from "../../guard/http2/fields.ts";
import { ResetBudget, UserStreams } from "../../guard/http2/limits.ts";

const kindOf = requestFields(new Set(["x-real-ip"]));

type Field = readonly [name: string, value: string];

const PSEUDO: readonly Field[] = [
  [":method", "GET"],
  [":scheme", "http"],
  [":authority", "x"],
  [":path", "/a"],
];
const except = (name: string, value?: string): readonly Field[] =>
  PSEUDO.flatMap((field) =>
    field[0] !== name ? [field] : value === undefined ? [] : [[name, value] as const]
  );
const read = (fields: readonly Field[]) => requestHead(fields.flat(), kindOf);

/** What a request is refused with: status, and action and reason for the audit log. */
function refused(fields: readonly Field[]): unknown[] | undefined {
  const head = read(fields);
  if (!("answer" in head)) return undefined;
  const { answer, audit }: RefusedHead = head;
  return [answer.status, ...audit === undefined ? [] : [audit.action, audit.reason]];
}

function accepted(...fields: readonly Field[]): RequestHead {
  const head = read([...PSEUDO, ...fields]);
  assert.ok(!("answer" in head), JSON.stringify(fields));
  return head;
}

/** Sections that are malformed, which the audit log does not show. */
const MALFORMED: { [what: string]: readonly Field[] } = {
  "no scheme": except(":scheme"),
  "another scheme": except(":scheme", "httpx"),
  "no path": except(":path"),
  "an empty path": except(":path", ""),
  "a path without a slash": except(":path", "a/b"),
  "* with another method": except(":path", "*"),
  "a path without a slash for OPTIONS": [[":method", "OPTIONS"], ...except(":path", "b").slice(1)],
  "an unknown pseudo-header": [...PSEUDO, [":other", "x"]],
  "a pseudo-header of responses": [...PSEUDO, [":status", "200"]],
  "a pseudo-header twice": [...PSEUDO, [":path", "/a"]],
  "a pseudo-header after a field": [...except(":path"), ["a", "b"], [":path", "/a"]],
  "te without trailers": [...PSEUDO, ["te", "gzip"]],
  "two expectations": [...PSEUDO, ["expect", "a"], ["expect", "a"]],
  "two lengths": [...PSEUDO, ["content-length", "1"], ["content-length", "1"]],
};
for (const name of ["A", "a b", "", "a:", "\xe9", "a\0"]) {
  MALFORMED[`the name ${name}`] = [...PSEUDO, [name, "x"]];
}
for (
  const value of [
    " a",
    "a ",
    "\ta",
    "a\t",
    "a\r\nb: c",
    "a\nb",
    "a\rb",
    "a\0b",
    "\x7f",
    "\u0100",
    " ",
  ]
) {
  MALFORMED[`the value ${JSON.stringify(value)}`] = [...PSEUDO, ["a", value]];
  MALFORMED[`the host ${JSON.stringify(value)}`] = except(":authority", value);
}
for (const value of ["", "-1", "+1", "1 1", "0x1", "1,1", "1234567890123456", "x1", "1x"]) {
  MALFORMED[`the length ${value}`] = [...PSEUDO, ["content-length", value]];
}
for (
  const name of [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
  ]
) {
  MALFORMED[name] = [...PSEUDO, [name, "x"]];
}
for (const name of ["content_length", "transfer.encoding", "transfer_encoding"]) {
  MALFORMED[name] = [...PSEUDO, [name, "1"]];
}

test("requestHead() refuses malformed sections", () => {
  for (const [what, fields] of Object.entries(MALFORMED)) {
    assert.deepEqual(refused(fields), [400], what);
  }
});

test("requestHead() refuses CONNECT, long sections and ambiguous hosts, for the audit log", () => {
  const tunnel = except(":method", "CONNECT").filter(([name]) => /method|auth/.test(name));
  assert.deepEqual(refused(tunnel), [501, "CONNECT x", "CONNECT is not supported"]);
  assert.deepEqual(refused([[":method", "CONNECT"]])!.slice(0, 2), [501, "CONNECT "]);
  const fields = (count: number) => Array.from({ length: count }, (): Field => ["a", "b"]);
  assert.equal(refused([...PSEUDO, ...fields(100)]), undefined);
  assert.deepEqual(refused([...PSEUDO, ...fields(101)]), [
    ...[431, "GET /a", "There are too many headers"],
  ]);
  const size = PSEUDO.flat().join("").length + 1;
  assert.equal(refused([...PSEUDO, ["a", "b".repeat(16384 - size)]]), undefined);
  assert.deepEqual(refused([...PSEUDO, ["a", "b".repeat(16385 - size)]]), [
    ...[431, "GET /a", "The headers are too long"],
  ]);
  const long = `/${"c".repeat(300)}`;
  const action = refused([...except(":path", long), ...fields(101)])![1];
  assert.equal(action, `GET ${long.slice(0, 200)}`);
  const bad = "The Host header is not a host";
  const ambiguous: readonly (readonly Field[])[] = [
    except(":authority"),
    except(":authority", ""),
    except(":authority", "a/b"),
    [...PSEUDO, ["host", "y"]],
    [...except(":authority"), ["host", "x"], ["host", "y"]],
  ];
  for (const section of ambiguous) {
    assert.deepEqual(refused(section), [400, "GET /a", bad], JSON.stringify(section));
  }
});

const plain = (fields: Fields) => ({ ...fields });

test("requestHead() keeps the fields that are forwarded, and no identity", () => {
  const head = accepted(
    ...[["te", "trailers"], ["trailer", "a"], ["trailer", "b"], ["cookie", "a=1"]] as const,
    ...[["cookie", "b=2"], ["date", "x"], ["content-length", "007"], ["host", "x"]] as const,
    ...[["expect", "100-Continue"], ["x-two", "1"], ["x-two", "2"], ["x-two", "3"]] as const,
    ...[["x-ucred-uid", "0"], ["x_ucred_gid", "0"], ["x-forwarded-for", "y"]] as const,
    ...[["x-real-ip", "y"], ["__proto__", "z"], ["a", ""], ["b", "\xe9 \t!"]] as const,
  );
  const { fields, ...rest } = head;
  assert.deepEqual(rest, { method: "GET", path: "/a", authority: "x", expect: "100-continue" });
  assert.deepEqual([Object.getPrototypeOf(fields), fields["__proto__"]], [null, "z"]);
  delete fields["__proto__"];
  assert.deepEqual(plain(fields), {
    ...{ te: "trailers", trailer: ["a", "b"], cookie: ["a=1", "b=2"], date: "x" },
    ...{
      "content-length": "007",
      "x-two": ["1", "2", "3"],
      "x-real-ip": "y",
      a: "",
      b: "\xe9 \t!",
    },
  });
  assert.deepEqual(plain(accepted().fields), {});
  assert.equal(accepted().expect, undefined);
  const byHost = read([...except(":authority"), ["host", "y:80"]]) as RequestHead;
  assert.equal(byHost.authority, "y:80");
  assert.equal((read([...except(":scheme", "https")]) as RequestHead).path, "/a");
  const all = except(":path", "*").map((field): Field =>
    field[0] === ":method" ? [":method", "OPTIONS"] : field
  );
  assert.equal((read(all) as RequestHead).path, "*");
});

test("forwardedHead() sends the path of the decision, and the identity instead of fields like it", () => {
  const decision = {
    ...{ allowed: true, rule: "r", grants: ["g"], unknown: [], reason: "", message: undefined },
  };
  const head = { ...accepted(), fields: { a: "b", "x-ucred-uid": "0" } };
  const sent = forwardedHead(head, "/b", [["X-Ucred-Uid", "7"]], decision);
  assert.deepEqual(plain(sent), {
    ...{ ":method": "GET", ":scheme": "http", ":authority": "x", ":path": "/b", a: "b" },
    ...{ "x-ucred-uid": "7", "x-ucred-rule": "r", "x-ucred-grants": "g" },
  });
});

test("valuesIn() returns the values that the upstream receives, and none if another name is like it", () => {
  const of = (...fields: readonly Field[]) => valuesIn(accepted(...fields));
  assert.deepEqual(of()("host"), ["x"]);
  assert.deepEqual(of()("content-type"), []);
  assert.deepEqual(of(["content-type", "a"], ["content-typo", "b"])("content-type"), ["a"]);
  assert.deepEqual(of(["content-type", "a"], ["content-type", "b"])("content-type"), ["a", "b"]);
  assert.equal(of(["content-type", "a"], ["content_type", "b"])("content-type"), undefined);
  assert.equal(of(["content.type", "b"])("content-type"), undefined);
});

test("responseHead() and trailersOf() refuse malformed sections", () => {
  const response = (...fields: readonly Field[]) => responseHead(fields.flat());
  const { status, fields } = response(
    ...[[":status", "204"], ["a", "1"], ["a", "2"], ["content-length", "0"]] as const,
  )!;
  assert.deepEqual([status, plain(fields)], [204, {
    ...{ ":status": "204", a: ["1", "2"], "content-length": "0" },
  }]);
  assert.equal(response([":status", "599"])!.status, 599);
  assert.equal(
    response([":status", "200"], ["content-length", "12"])!.fields["content-length"],
    "12",
  );
  const ok: Field = [":status", "200"];
  const badResponses: readonly (readonly Field[])[] = [
    ...["100", "199", "600", "99", "2000", "20x", "x200", ""].map((
      value,
    ): Field[] => [[":status", value]]),
    ...[[], [ok, [":path", "/"]], [["a", "b"], ok], [ok, ok], [[":path", "/"]]] as Field[][],
    ...[[ok, ["content_length", "1"]], [ok, ["content-length", "x1"]], [ok, [
      "content-length",
      "1x",
    ]]] as Field[][],
    ...[[ok, ["content-length", "1"], ["content-length", "1"]], [ok, [
      "upgrade",
      "x",
    ]]] as Field[][],
    ...[[ok, ["A", "b"]], [ok, ["a", "b\r\nc: d"]], [ok, ["a", "b".repeat(16384)]]] as Field[][],
  ];
  for (const bad of badResponses) {
    assert.equal(response(...bad), undefined, JSON.stringify(bad).slice(0, 100));
  }
  const size = ok.join("").length + 1;
  assert.equal(response(ok, ["a", "b".repeat(16384 - size)])!.status, 200);

  const trailers = (...fields: readonly Field[]) => trailersOf(fields.flat(), kindOf);
  const dropped = [
    "host",
    "content-encoding",
    "content-type",
    "content-range",
    "te",
    "x-ucred-uid",
  ];
  const sent = trailers(["a", "1"], ["a", "2"], ...dropped.map((name): Field => [name, "x"]));
  assert.deepEqual(plain(sent!), { a: ["1", "2"] });
  assert.deepEqual(plain(trailersOf(["x-ucred-uid", "1"], responseFields)!), {
    "x-ucred-uid": "1",
  });
  assert.deepEqual(plain(trailers(["a", "b".repeat(16383)])!), { a: "b".repeat(16383) });
  const badTrailers: readonly (readonly Field[])[] = [
    ...[[ok], [["content-length", "1"]], [["content_length", "1"]], [[
      "connection",
      "a",
    ]]] as Field[][],
    ...[[["a", " b"]], [["a", "b".repeat(16384)]]] as Field[][],
  ];
  for (const bad of badTrailers) {
    assert.equal(trailers(...bad), undefined, JSON.stringify(bad).slice(0, 100));
  }
});

test("isGrpc() and grpcStatus() follow the specification of gRPC", () => {
  for (const type of ["application/grpc", "application/grpc+proto", "application/grpc;x"]) {
    assert.equal(isGrpc({ "content-type": type }), true, type);
  }
  for (
    const type of ["application/grpc-web", "xapplication/grpc", "text/plain", ["application/grpc"]]
  ) {
    assert.equal(isGrpc({ "content-type": type }), false, String(type));
  }
  assert.equal(isGrpc({}), false);
  const of = (status: number, detail: string) => grpcStatus({ status, detail } as never);
  const codes = { 400: 13, 403: 7, 408: 4, 414: 8, 431: 8, 501: 12, 502: 14, 417: 2 };
  for (const [status, code] of Object.entries(codes)) {
    assert.equal(of(Number(status), "")["grpc-status"], String(code), status);
  }
  assert.equal(of(403, "50% \x1f\x20~\x7f\n\xe9")["grpc-message"], "50%25 %1F ~%7F%0A%C3%A9");
});

test("UserStreams counts the open streams of each user", () => {
  const streams = new UserStreams();
  for (let at = 0; at < 1024; at++) assert.equal(streams.acquire(1), true);
  assert.equal(streams.acquire(1), false);
  assert.equal(streams.acquire(2), true, "another user");
  streams.release(1);
  assert.deepEqual([streams.acquire(1), streams.acquire(1)], [true, false]);
  streams.release(2);
  assert.equal(streams.acquire(2), true);
});

test("ResetBudget allows 256 resets at once, and 64 more in each second", () => {
  const budget = new ResetBudget();
  const spend = (count: number, now: number) =>
    Array.from({ length: count }, () => budget.spend(now)).every(Boolean);
  assert.equal(spend(256, 0), true);
  assert.equal(spend(1, 0), false);
  const other = new ResetBudget();
  for (let at = 0; at < 256; at++) other.spend(10_000);
  assert.equal(other.spend(10_000), false, "never more than 256");
  const third = new ResetBudget();
  for (let at = 0; at < 256; at++) third.spend(0);
  for (let at = 0; at < 64; at++) assert.equal(third.spend(1000), true, String(at));
  assert.equal(third.spend(1000), false);
});
