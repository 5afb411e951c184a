/** Headers of D-Bus messages: round trips, mutations, and the verdicts of a real dbus-daemon. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import {
  encodeHeader,
  encodeText,
  encodeTextArray,
  FIXED_BYTES,
  type Header,
  headerLength,
  isSignature,
  MalformedMessage,
  parseHeader,
  readTextArray,
  readTexts,
  TYPE,
} from "../../../interop/dbus/message.ts";
import { End } from "../../support/guard.ts";
import fc from "../../support/properties.ts";
import { cases } from "../../support/suite.ts";
import { startDaemon, testBus } from "./daemon.ts";

/** A field as it is written, right or wrong: its code, the type in its variant, its value. */
type RawField = readonly [code: number, type: string, value: string | number];

/** What a message is made of, right or wrong. */
interface Raw {
  readonly order?: string;
  readonly type?: number;
  readonly flags?: number;
  readonly version?: number;
  readonly serial?: number;
  readonly fields: readonly RawField[];
  readonly body?: Buffer;
}

/** Writes a message without any check. */
function rawMessage(raw: Raw): Buffer {
  const { order = "l", type = 1, flags = 0, version = 1, serial = 7, fields, body } = raw;
  const isLittle = order !== "B";
  const bytes: number[] = [];
  const pad = (to: number) => {
    while (bytes.length % to !== 0) bytes.push(0);
  };
  const number = (value: number) => {
    pad(4);
    const four = [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
    bytes.push(...(isLittle ? four : four.reverse()));
  };
  bytes.push(order.charCodeAt(0), type, flags, version);
  number(body?.length ?? 0);
  number(serial);
  number(0);
  for (const [code, signature, value] of fields) {
    pad(8);
    bytes.push(code, signature.length, ...Buffer.from(signature, "latin1"), 0);
    if (typeof value === "number") number(value);
    else {
      const text = [...Buffer.from(value), 0];
      if (signature === "g") bytes.push(text.length - 1, ...text);
      else {
        number(text.length - 1);
        bytes.push(...text);
      }
    }
  }
  const length = bytes.length - FIXED_BYTES;
  pad(8);
  const message = Buffer.concat([Buffer.from(bytes), body ?? Buffer.alloc(0)]);
  if (isLittle) message.writeUInt32LE(length, 12);
  else message.writeUInt32BE(length, 12);
  return message;
}

const parse = (message: Uint8Array) =>
  parseHeader(message.subarray(0, headerLength(message.subarray(0, FIXED_BYTES))));

const CALL: readonly RawField[] = [[1, "o", "/a"], [3, "s", "Get"]];
const RETURN: readonly RawField[] = [[5, "u", 9]];
/** The fields that any type of message must have. */
const COMPLETE: readonly RawField[] = [...CALL, ...RETURN, [2, "s", "a.b"], [4, "s", "a.E"]];

const names = {
  path: fc.constantFrom("/", "/a", "/org/example/Clock_1"),
  interface: fc.constantFrom("a.b", "org.example.Clock", `a.${"b".repeat(253)}`),
  member: fc.constantFrom("Get", "_", "a9", "m".repeat(255)),
  bus: fc.constantFrom(":1.42", "org.example.Clock", "a-b.c-d", ":1._"),
  signature: fc.constantFrom("s", "a{sv}", "(iu)", "aav", "ybnqiuxtdsogv"),
};
const serials = fc.integer({ min: 1, max: 2 ** 32 - 1 });
const maybe = <T>(values: fc.Arbitrary<T>) => fc.option(values, { nil: undefined });

const headers: fc.Arbitrary<Header> = fc.record({
  isLittleEndian: fc.boolean(),
  type: fc.constantFrom(...Object.values(TYPE)),
  flags: fc.integer({ min: 0, max: 7 }),
  serial: serials,
  path: names.path,
  interface: names.interface,
  member: names.member,
  errorName: names.interface,
  replySerial: serials,
  destination: maybe(names.bus),
  sender: maybe(names.bus),
  signature: fc.oneof(fc.constant(""), names.signature),
  length: fc.integer({ min: 1, max: 1 << 20 }),
  descriptors: fc.constantFrom(0, 0, 1, 2 ** 32 - 1),
}).map(({ length, ...header }) => ({
  ...header,
  bodyLength: header.signature === "" ? 0 : length,
}));

/** The fields that each type of message has. */
const KEYS: { readonly [type: number]: readonly string[] } = {
  1: ["path", "interface", "member"],
  2: ["replySerial"],
  3: ["errorName", "replySerial"],
  4: ["path", "interface", "member"],
};
const OF_TYPES = ["path", "interface", "member", "errorName", "replySerial"];

test("parseHeader() reads what encodeHeader() writes, in both byte orders", () => {
  fc.assert(
    fc.property(headers, (header) => {
      const written = encodeHeader(header);
      assert.equal(written.length % 8, 0);
      const absent = OF_TYPES.filter((key) => !KEYS[header.type]!.includes(key));
      const expected = Object.fromEntries(
        Object.entries(header).filter(([key, value]) =>
          value !== undefined && !absent.includes(key)
        ),
      );
      const parsed = parse(written);
      assert.deepEqual(parsed, expected);
      assert.deepEqual(encodeHeader(parsed), written);
    }),
    { numRuns: cases(500) },
  );
});

test("parseHeader() rejects every prefix of a header", () => {
  fc.assert(
    fc.property(headers, (header) => {
      const written = encodeHeader(header);
      for (let length = 0; length < written.length; length++) {
        assert.throws(() => parseHeader(written.subarray(0, length)), MalformedMessage);
      }
    }),
    { numRuns: cases(20) },
  );
});

test("parseHeader() reads mutated headers as they are written again, or rejects them", () => {
  const mutations = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
    minLength: 1,
    maxLength: 3,
  });
  fc.assert(
    fc.property(headers, mutations, (header, changes) => {
      const written = Buffer.from(encodeHeader(header));
      for (const [at, value] of changes) written[at % written.length] = value;
      let parsed: Header;
      try {
        parsed = parse(written);
      } catch (error) {
        assert.ok(error instanceof MalformedMessage, String(error));
        return;
      }
      assert.deepEqual(parse(encodeHeader(parsed)), parsed);
    }),
    { numRuns: cases(2000) },
  );
});

/** Messages that are malformed, and those that are unusual but correct. */
const MESSAGES: readonly (readonly [what: string, raw: Raw, error?: RegExp])[] = [
  ["a call", { fields: CALL }],
  ["a call in big-endian order", { order: "B", fields: CALL }],
  ["fields in another order", { fields: [...CALL].reverse() }],
  ["unknown flags", { flags: 0xf8, fields: CALL }],
  ["an empty signature", { fields: [...CALL, [8, "g", ""]] }],
  ["a reply with a path", { type: 2, fields: [...RETURN, [1, "o", "/a"]] }],
  ["another byte order", { order: "b", fields: CALL }, /byte order/],
  ["type 0", { type: 0, fields: CALL }, /message type/],
  ["type 5", { type: 5, fields: CALL }, /message type/],
  ["version 2", { version: 2, fields: CALL }, /protocol version/],
  ["serial 0", { serial: 0, fields: CALL }, /serial is 0/],
  ["no fields", { fields: [] }, /field path is missing/],
  ["a call without a member", { fields: [[1, "o", "/a"]] }, /field member is missing/],
  ["a signal without an interface", { type: 4, fields: CALL }, /field interface is missing/],
  ["a return without a serial", { type: 2, fields: CALL }, /field replySerial is missing/],
  ["a return to serial 0", { type: 2, fields: [[5, "u", 0]] }, /malformed replySerial/],
  ["an error without a name", { type: 3, fields: RETURN }, /field errorName is missing/],
  ["a member twice", { fields: [...CALL, [3, "s", "Set"]] }, /field member appears twice/],
  ["field 0", { fields: [...CALL, [0, "s", "x"]] }, /unknown header field/],
  ["field 10", { fields: [...CALL, [10, "s", "x"]] }, /unknown header field/],
  ["a path as a string", { fields: [[1, "s", "/a"], [3, "s", "Get"]] }, /field path has another/],
  ["a member as a path", { fields: [[1, "o", "/a"], [3, "o", "/Get"]] }, /field member has/],
  ["a variant of two types", { fields: [[1, "oo", "/a"], [3, "s", "Get"]] }, /field path has/],
  ["a relative path", { fields: [[1, "o", "a"], [3, "s", "Get"]] }, /malformed path/],
  ["a path that ends in /", { fields: [[1, "o", "/a/"], [3, "s", "Get"]] }, /malformed path/],
  ["a path with //", { fields: [[1, "o", "/a//b"], [3, "s", "Get"]] }, /malformed path/],
  ["a path with é", { fields: [[1, "o", "/é"], [3, "s", "Get"]] }, /malformed path/],
  [
    "the path of the local interface",
    { fields: [[1, "o", "/org/freedesktop/DBus/Local"], [3, "s", "Get"]] },
    /malformed path/,
  ],
  [
    "the local interface",
    { fields: [...CALL, [2, "s", "org.freedesktop.DBus.Local"]] },
    /malformed interface/,
  ],
  ["an interface of one part", { fields: [...CALL, [2, "s", "a"]] }, /malformed interface/],
  ["an interface with a digit", { fields: [...CALL, [2, "s", "a.1b"]] }, /malformed interface/],
  [
    "an interface of 256 bytes",
    { fields: [...CALL, [2, "s", `a.${"b".repeat(254)}`]] },
    /malformed/,
  ],
  ["an interface with a newline", { fields: [...CALL, [2, "s", "a.b\n"]] }, /malformed interface/],
  ["a member with a dot", { fields: [[1, "o", "/a"], [3, "s", "a.b"]] }, /malformed member/],
  [
    "a member of 256 bytes",
    { fields: [[1, "o", "/a"], [3, "s", "m".repeat(256)]] },
    /malformed member/,
  ],
  ["an empty member", { fields: [[1, "o", "/a"], [3, "s", ""]] }, /malformed member/],
  ["a member with NUL", { fields: [[1, "o", "/a"], [3, "s", "a\0b"]] }, /malformed member/],
  ["a destination of one part", { fields: [...CALL, [6, "s", "a"]] }, /malformed destination/],
  ["an empty destination", { fields: [...CALL, [6, "s", ""]] }, /malformed destination/],
  ["a sender with a space", { fields: [...CALL, [7, "s", "a. b"]] }, /malformed sender/],
  ["an unknown type", { fields: [...CALL, [8, "g", "z"]], body: Buffer.alloc(1) }, /signature/],
  ["half a dictionary", { fields: [...CALL, [8, "g", "a{s"]], body: Buffer.alloc(4) }, /signature/],
  ["a body without a signature", { fields: CALL, body: Buffer.alloc(4) }, /does not fit/],
  ["a signature without a body", { fields: [...CALL, [8, "g", "s"]] }, /does not fit/],
];

for (const [what, raw, error] of MESSAGES) {
  test(`parseHeader() ${error === undefined ? "accepts" : "rejects"} ${what}`, () => {
    const read = () => parse(rawMessage(raw));
    if (error === undefined) read();
    else {assert.throws(read, (thrown) =>
        thrown instanceof MalformedMessage && error.test(thrown.message));}
  });
}

test("parseHeader() drops fields that the type of the message does not have", () => {
  const { path, replySerial } = parse(
    rawMessage({ type: TYPE.return, fields: [...RETURN, [1, "o", "/a"]] }),
  );
  assert.deepEqual([path, replySerial], [undefined, 9]);
});

test("parseHeader() rejects a field that ends after the array of fields", () => {
  const message = rawMessage({ fields: CALL });
  message.writeUInt32LE(message.readUInt32LE(12) - 1, 12); // without the NUL of the last text
  assert.throws(() => parse(message), /a header field is incomplete/);
});

test("encodeHeader() writes no field without a value", () => {
  for (const order of ["l", "B"]) {
    const message = rawMessage({ order, fields: CALL });
    assert.deepEqual(encodeHeader(parse(message)), message);
  }
});

test("parseHeader() rejects padding that is not zero", () => {
  const message = rawMessage({ fields: CALL });
  const padding = [...message.keys()].filter((at) => {
    if (at < FIXED_BYTES || message[at] !== 0) return false;
    const changed = Buffer.from(message);
    changed[at] = 1;
    try {
      parse(changed);
      return true;
    } catch {
      return false;
    }
  });
  assert.deepEqual(padding, []);
});

test("headerLength() rejects headers of more than 64 KiB, and messages of more than 128 MiB", () => {
  const fixed = (body: number, fields: number) => {
    const bytes = rawMessage({ fields: [] });
    bytes.writeUInt32LE(body, 4);
    bytes.writeUInt32LE(fields, 12);
    return bytes;
  };
  assert.equal(headerLength(fixed((1 << 27) - 16, 0)), 16);
  assert.equal(headerLength(fixed(0, 65_536)), 65_552);
  for (
    const [body, fields] of [[(1 << 27) - 15, 0], [2 ** 32 - 1, 0], [0, 65_537], [0, 2 ** 32 - 1]]
  ) {
    assert.throws(() => headerLength(fixed(body!, fields!)), MalformedMessage);
  }
});

test("isSignature() counts the depth of arrays and structures", () => {
  const [open, close] = ["(".repeat(32), ")".repeat(32)];
  const [right, wrong] = [
    [
      "",
      "s",
      "(s)",
      "a(sv)",
      "a{s(ii)}",
      "aaas",
      `${"a".repeat(32)}y`,
      `${open}y${close}`,
      "s".repeat(255),
    ],
    [
      ...[
        "a",
        "()",
        "(",
        ")",
        "(s",
        "s)",
        "{sv}",
        "a{}",
        "a{s}",
        "a{svv}",
        "a{vs}",
        "a{(s)v}",
        "r",
      ],
      ...[`${"a".repeat(33)}y`, `(${open}y${close})`, "s".repeat(256), "é", "a{sv", "a{s)}"],
      ...["rs", `${open}a{sv}${close}`, `a{s${open}y${close}}`, `a{s${"a".repeat(32)}y}`],
    ],
  ];
  assert.deepEqual(right.filter((text) => !isSignature(text)), []);
  assert.deepEqual(wrong.filter((text) => isSignature(text)), []);
});

test("readTexts() and readTextArray() read what was written, and reject all else", () => {
  const unit = fc.constantFrom("a", "\n", "é", "€", "\u{1f511}", "\ufeff");
  const text = fc.string({ unit, maxLength: 9 });
  const texts = fc.array(text, { maxLength: 4 });
  fc.assert(
    fc.property(texts, fc.boolean(), fc.nat(), (all, isLittle, cut) => {
      const array = encodeTextArray(all, isLittle);
      assert.deepEqual(readTextArray(array, isLittle), all);
      const text = encodeText(all[0] ?? "", isLittle);
      assert.deepEqual(readTexts(text, isLittle, 1), [all[0] ?? ""]);
      const part = text.subarray(0, cut % text.length);
      assert.throws(() => readTexts(part, isLittle, 1), MalformedMessage);
      const shorter = array.subarray(0, cut % array.length);
      assert.throws(() => readTextArray(shorter, isLittle), MalformedMessage);
    }),
    { numRuns: cases(300) },
  );
  for (const body of ["\x01\0\0\0\xff\0", "\x01\0\0\0\0\0", "\xff\xff\xff\xff\0", "\x01\0\0\0ab"]) {
    assert.throws(() => readTexts(Buffer.from(body, "latin1"), true, 1), MalformedMessage);
  }
  assert.deepEqual(readTexts(encodeText("a\0b", true), true, 1), ["ab"]);
});

/** Our verdict: `undefined` if the guard forwards the message. */
function objection(message: Buffer): string | undefined {
  try {
    return parse(message).descriptors > 0 ? "file descriptors" : undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Why we reject messages that dbus-daemon 1.14 accepts. */
const STRICTER = [
  "unknown header field",
  "unknown message type",
  "malformed signature", // libdbus counts only arrays that follow each other
];

testBus("parseHeader() accepts no message that dbus-daemon rejects", async () => {
  const { path } = await startDaemon();
  const hello = rawMessage({
    serial: 1,
    fields: [
      [1, "o", "/org/freedesktop/DBus"],
      [2, "s", "org.freedesktop.DBus"],
      [3, "s", "Hello"],
      [6, "s", "org.freedesktop.DBus"],
    ],
  });
  const probe = rawMessage({
    serial: 0x7fff_0001,
    fields: [
      [1, "o", "/"],
      [2, "s", "org.freedesktop.DBus"],
      [3, "s", "GetId"],
      [6, "s", "org.freedesktop.DBus"],
    ],
  });
  const answer = Buffer.from([5, 1, 0x75, 0, 1, 0, 0xff, 0x7f]).toString("latin1");
  const isAccepted = async (message: Buffer) => {
    const end = await End.open(path);
    end.send(`\0AUTH EXTERNAL 30\r\nBEGIN\r\n`);
    const all = Buffer.concat([hello, message, probe]);
    end.send(all.toString("latin1"));
    try {
      await end.until(answer);
      return true;
    } catch {
      return false;
    } finally {
      end.destroy();
    }
  };
  const check = async (message: Buffer) => {
    const [ours, theirs] = [objection(message), await isAccepted(message)];
    if (ours === undefined) {
      assert.ok(theirs, `only dbus-daemon rejects ${message.toString("hex")}`);
    } else if (theirs) {
      assert.ok(STRICTER.includes(ours), `only we reject ${message.toString("hex")}: ${ours}`);
    }
  };
  for (const [, raw] of MESSAGES) await check(rawMessage(raw));
  const text = fc.oneof(
    ...Object.values(names),
    fc.constantFrom(
      "",
      "a",
      ".a.b",
      "a..b",
      "a.b.",
      "/a/",
      "9.9",
      ":1",
      ":1.",
      "é.é",
      "a{s}",
      "a()",
    ),
  );
  const field: fc.Arbitrary<RawField> = fc.oneof(
    fc.tuple(fc.constantFrom(1, 2, 3, 4, 6, 7), fc.constantFrom("s", "o"), text),
    fc.tuple(fc.constantFrom(5, 9), fc.constant("u"), fc.nat(3)),
    fc.tuple(fc.constantFrom(2, 3, 6), fc.constant("s"), text),
    fc.tuple(fc.integer({ min: 0, max: 12 }), fc.constantFrom("s", "o", "g"), text),
  );
  const raws = fc.record({
    order: fc.constantFrom("l", "B"),
    type: fc.constantFrom(1, 2, 3, 4, 1, 2, 3, 4, 5),
    flags: fc.integer({ min: 0, max: 255 }),
    serial: fc.constantFrom(7, 8, 9, 0x8000_0000, 2 ** 32 - 1, 0),
    fields: fc.array(field, { maxLength: 2 }).map((more) => [...COMPLETE, ...more]),
    change: fc.option(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }))),
  });
  await fc.assert(
    fc.asyncProperty(raws, async ({ change, ...raw }) => {
      const message = rawMessage(raw);
      // Other lengths would make the daemon wait for more bytes.
      const at = change === null ? 0 : FIXED_BYTES + change[0] % (message.length - FIXED_BYTES);
      if (change !== null) message[at] = change[1];
      await check(message);
    }),
    { numRuns: cases(300), endOnFailure: true },
  );
});
