/**
 * The JSON reader, and bodies that a reader like Go's would see differently: with keys that are repeated, in
 * another case, escaped, or hidden by nesting, order and space.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  isRefusal,
  JsonNumber,
  type JsonValue,
  readBody,
  readJson,
  writeJson,
  writeRequest,
} from "../../../interop/docker/mod.ts";
import fc from "../../support/properties.ts";
import { soak } from "../../support/suite.ts";
import { bytesOf, CREATE, head, read } from "./support.ts";

const problemOf = (text: string | Uint8Array) => {
  const read = readJson(typeof text === "string" ? bytesOf(text) : text);
  return "problem" in read ? read.problem : undefined;
};

/** Converts to the values of JSON.parse(). */
function plain(value: JsonValue): unknown {
  if (value instanceof JsonNumber) return JSON.parse(value.text);
  if (Array.isArray(value)) return (value as readonly JsonValue[]).map(plain);
  if (value instanceof Map) {
    const object: { [key: string]: unknown } = Object.create(null);
    for (const [key, each] of value) object[key] = plain(each);
    return object;
  }
  return value;
}

test("readJson() and JSON.parse() agree on each JSON text, and writeJson() writes it back", () => {
  fc.assert(
    fc.property(
      fc.jsonValue({ stringUnit: "binary", depthSize: "small", maxDepth: 3 }),
      (value) => {
        const text = JSON.stringify(value);
        if (text.includes("\\u0000") || /\\ud[89a-f]/i.test(text)) return;
        const read = readJson(bytesOf(text));
        if ("problem" in read) assert.fail(`${read.problem}: ${text}`);
        assert.equal(JSON.stringify(plain(read.value)), JSON.stringify(JSON.parse(text)));
        assert.deepEqual(JSON.parse(writeJson(read.value)), JSON.parse(text));
      },
    ),
    { numRuns: soak(50, 5000) },
  );
});

test("readJson() accepts no text that JSON.parse() rejects", () => {
  const piece = fc.constantFrom(
    ...['{"a":1}', "[", "]", "{", "}", '"', ",", ":", "1", "-", "0", ".", "e5", "true", "nul"],
    ...["null", "\\", "\\u00", "\\n", " ", "\t", "\v", "\u00a0", "\ufeff", "+1", "01", "'", "/**/"],
    ...["NaN", "Infinity", "0x1", '"a"', "\u2028", "\u0001", "[]", "//", "1.", ".5", "\\x41"],
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
      const text = pieces.join("");
      if (problemOf(text) === undefined) JSON.parse(text);
    }),
    { numRuns: soak(2000, 100_000) },
  );
});

test("readJson() keeps numbers as text, and keys that are special to JavaScript", () => {
  const text = '{"__proto__":{"a":1},"n":[9007199254740993,-0,1.0,1E+400],"constructor":null}';
  const read = readJson(bytesOf(text));
  if ("problem" in read) assert.fail(read.problem);
  assert.equal(writeJson(read.value), text);
});

test("readJson() reads white space and escapes everywhere where JSON has them", () => {
  const texts = [
    ' { "a" : [ 1 , true , false , [ ] , null ] , "b" : { } , "" : [\n-2.5e+3\t,\r"x" ] } ',
    '"\\n\\t\\"\\\\\\/\\b\\f\\r\\u00e9n"',
    "[{},[],{}]",
  ];
  for (const text of texts) {
    const read = readJson(bytesOf(text));
    if ("problem" in read) assert.fail(read.problem);
    assert.equal(JSON.stringify(plain(read.value)), JSON.stringify(JSON.parse(text)));
  }
});

test("readJson() reports what it rejects, and where", () => {
  const key = "k".repeat(101);
  const rows: readonly (readonly [text: string, problem: string])[] = [
    ["", "The JSON text ends too early"],
    ["[1,", "The JSON text ends too early"],
    ['"\t"', 'Unexpected "\\t" in the JSON text, at 1'],
    ["[1 2]", 'Unexpected "2" in the JSON text, at 3'],
    [`{"${key}":1,"${key}":1}`, `The JSON text has the key "${key.slice(1)}" twice`],
  ];
  for (const [text, problem] of rows) assert.equal(problemOf(text), problem);
});

test("readJson() rejects each text that another reader may read differently", () => {
  const bad: readonly string[] = [
    ...["", " ", "{", "[", '"', "{}{}", "{} x", "[1,]", '{"a":1,}', "{,}", "[,]", "1 2", "tru"],
    ...['{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '{"a":{"b":1,"b":2}}', '{"":1,"":2}'],
    ...['"\\ud800"', '"\\udc00\\ud800"', '{"\\ud800":1}', '"\\u0000"', '"a\\u0000"', '"\n"'],
    ...["\ufeff{}", "'a'", "{a:1}", "01", "+1", "1.", ".1", "- 1", "0x1", "NaN", "Infinity", "1e"],
    ...['"\\a"', '"\\u12"', '"\\u123g"', "/* */{}", "{}//", "\u00a0{}", "{}\0", "\v1", '"\t"'],
    ...['{x":1}', '{"a"x1}', '{"a",1}', '"\u0001n"', '"\\u1234', '"\\'],
  ];
  for (const text of bad) assert.notEqual(problemOf(text), undefined, JSON.stringify(text));
  for (
    const bytes of [
      [0x22, 0xff, 0x22],
      [0x22, 0xc0, 0xaf, 0x22],
      [0x22, 0xed, 0xa0, 0x80, 0x22],
      [0xef, 0xbb, 0xbf, 0x7b, 0x7d],
      [0xff, 0xfe, 0x7b, 0x00],
      [0x22, 0xf5, 0x80, 0x80, 0x80, 0x22],
      [0x22, 0xe2, 0x82, 0x22],
    ]
  ) assert.notEqual(problemOf(Uint8Array.from(bytes)), undefined, bytes.join());
});

test("readJson() limits the number of values, since each takes far more memory than text", () => {
  const list = (count: number) => `[${Array(count).fill("{}").join()}]`;
  assert.equal(problemOf(list(199_999)), undefined);
  assert.equal(problemOf(list(200_000)), "The JSON text has more than 200000 values");
});

test("readJson() limits the number of values and the nesting", () => {
  assert.deepEqual(readJson(bytesOf("[1]"), 1), {
    problem: "The JSON text has more than 1 values",
  });
  assert.ok("value" in readJson(bytesOf("[1]"), 2));
  for (const [open, close] of [["[", "]"], ['{"a":', "}"]] as const) {
    const nested = (depth: number) => `${open.repeat(depth)}[]${close.repeat(depth)}`;
    assert.equal(problemOf(nested(63)), undefined);
    assert.equal(problemOf(nested(64)), "The JSON text nests more than 64 deep");
  }
});

test("readJson() reads wide texts, and rejects deep ones without deep stacks", () => {
  assert.notEqual(problemOf("[".repeat(200 << 10)), undefined);
  assert.notEqual(problemOf('{"a":'.repeat(40 << 10)), undefined);
  const keys = Array.from({ length: 100_000 }, (_, at) => `"k${at.toString(36)}":0`);
  assert.equal(problemOf(`{${keys.join()}}`), undefined);
  assert.equal(
    problemOf(`{${[...keys, '"k7":1'].join()}}`),
    'The JSON text has the key "k7" twice',
  );
  const unknown = read(CREATE, `{"HostConfig":{${keys.slice(0, 19_000).join()}}}`); // all empty
  assert.equal(isRefusal(unknown), false);
  assert.ok(isRefusal(read(CREATE, `{"HostConfig":{${keys.slice(0, 20_000).join()}}}`)));
  assert.ok(isRefusal(read(CREATE, `{"x":[${"[],".repeat(300_000)}[]]}`)));
});

/** A value of the model below: objects keep each key as often as it is written. */
type Raw = null | boolean | string | number | readonly Raw[] | Members;
interface Members {
  readonly members: readonly (readonly [key: string, value: Raw])[];
}

const isMembers = (value: Raw): value is Members =>
  typeof value === "object" && value !== null && "members" in value;

/**
 * Parses a text leniently, and keeps repeated keys. The regular expression of tokens is independent of the
 * reader under test.
 */
function parseRaw(text: string): Raw {
  const tokens = text.match(/"(?:[^"\\]|\\[^])*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  let at = 0;
  const value = (): Raw => {
    const token = tokens[at++]!;
    if (token === "{") {
      const members: [string, Raw][] = [];
      while (tokens[at] !== "}") {
        if (tokens[at] === ",") at++;
        const key = JSON.parse(tokens[at]!) as string;
        at += 2;
        members.push([key, value()]);
      }
      at++;
      return { members };
    }
    if (token === "[") {
      const list: Raw[] = [];
      while (tokens[at] !== "]") {
        if (tokens[at] === ",") at++;
        list.push(value());
      }
      at++;
      return list;
    }
    return JSON.parse(token) as Raw;
  };
  return value();
}

/** Folds a key as encoding/json does: simple case folding, where s and k have one more form each. */
const fold = (key: string) => key.replaceAll("\u017f", "s").replaceAll("\u212a", "k").toLowerCase();

/** Decodes into structs as encoding/json does: fields merge, the last scalar wins, null changes nothing. */
function decodeInto(target: { [name: string]: unknown }, raw: Raw, names: readonly string[]): void {
  if (!isMembers(raw)) return;
  for (const [key, value] of raw.members) {
    const name = names.find((name) => name === key) ??
      names.find((name) => fold(name) === fold(key));
    if (name === undefined || value === null) continue;
    if (name === "HostConfig") {
      decodeInto((target[name] ??= {}) as { [name: string]: unknown }, value, HOST_NAMES);
    } else target[name] = value;
  }
}

/** Dangerous fields of HostConfig with a value, as JSON. */
const FIELDS: readonly (readonly [name: string, value: string])[] = [
  ["Privileged", "true"],
  ["Binds", '["/:/h"]'],
  ["PidMode", '"host"'],
  ["NetworkMode", '"host"'],
  ["UsernsMode", '"host"'],
  ["IpcMode", '"host"'],
  ["UTSMode", '"host"'],
  ["CapAdd", '["SYS_ADMIN"]'],
  ["SecurityOpt", '["seccomp=unconfined"]'],
  ["Devices", '[{"PathOnHost":"/dev/sda"}]'],
  ["Mounts", '[{"Type":"bind","Source":"/","Target":"/h"}]'],
  ["MaskedPaths", "[]"],
  ["Runtime", '"evil"'],
  ["CgroupParent", '"/x"'],
  ["OomScoreAdj", "-1000"],
  ["Sysctls", '{"kernel.x":"1"}'],
];
const HOST_NAMES = [...FIELDS.map(([name]) => name), "Memory", "AutoRemove"];

/** The dangerous fields that are in force for a reader like Go's. */
function inForce(text: string): string[] {
  const config: { [name: string]: unknown } = {};
  decodeInto(config, parseRaw(text), ["HostConfig", "Image", "Cmd", "Labels", "Env"]);
  const host = (config["HostConfig"] ?? {}) as { [name: string]: unknown };
  return FIELDS.map(([name]) => name).filter((name) => {
    const value = host[name];
    if (name === "MaskedPaths") return value !== undefined;
    if (name === "CapAdd" && typeof value === "string") return true; // a list of one
    if (Array.isArray(value)) return value.length > 0;
    if (isMembers(value as Raw)) return (value as Members).members.length > 0;
    return value !== undefined && value !== false && value !== "" && value !== 0;
  });
}

/** Ways to write a key. */
const KEYS: readonly ((key: string) => string)[] = [
  (key) => key,
  (key) => key.toLowerCase(),
  (key) => key.toUpperCase(),
  (key) => key.replace(/s/i, "\u017f"),
  (key) => key.replace(/k/i, "\u212a"),
  (key) => key[0]!.toLowerCase() + key.slice(1),
  (key) => `${key}\u0000`,
  (key) => `${key} `,
  (key) => `${key}\u200b`,
];

/** Ways to write a string as JSON. */
const TEXTS: readonly ((text: string) => string)[] = [
  (text) => JSON.stringify(text),
  (text) =>
    `"${
      [...text].map((each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`).join("")
    }"`,
  (text) =>
    JSON.stringify(text).replace(
      /[a-z]/,
      (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0").toUpperCase()}`,
    ),
  (text) => JSON.stringify(text).replaceAll("/", "\\/"),
];

const keyText = fc.tuple(
  fc.oneof({ weight: 3, arbitrary: fc.constantFrom(KEYS[0]!, KEYS[1]!) }, fc.constantFrom(...KEYS)),
  fc.constantFrom(...TEXTS),
);
const spaceText = fc.constantFrom("", "", "", " ", "\n\t", "\r\n");

/** A key and a value as text. */
const member = (name: fc.Arbitrary<string>, value: fc.Arbitrary<string>) =>
  fc.tuple(name, keyText, spaceText, value).map(([name, [spell, write], space, value]) =>
    `${write(spell(name))}${space}:${space}${value}`
  );

const harmless = fc.constantFrom(
  ...['"Memory":1', '"AutoRemove":true', '"memory":2', '"Foo":null', '"Foo":{}', '"Bar":0.0'],
  ...['"Binds":null', '"Privileged":false', '"privileged":null', '"CapAdd":[]', '"PidMode":""'],
);
const dangerous = fc.constantFrom(...FIELDS).chain(([name, value]) =>
  member(fc.constant(name), fc.constantFrom(value, value, "null", "false", '""', "[]", "0", "{}"))
);
const objectOf = (members: fc.Arbitrary<string[]>) =>
  fc.tuple(members, spaceText).map(([members, space]) => `{${space}${members.join(`,${space}`)}}`);

const hostConfig = objectOf(
  fc.array(fc.oneof(harmless, dangerous), { minLength: 1, maxLength: 3 }),
);
const nested = fc.oneof(
  { weight: 6, arbitrary: hostConfig },
  hostConfig.map((text) => `[${text}]`),
  hostConfig.map((text) => `{"HostConfig":${text}}`),
);
const top = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom('"Image":"a"', '"Cmd":["x"]', '"Env":["A=b"]') },
  { weight: 3, arbitrary: member(fc.constant("HostConfig"), nested) },
  fc.constantFrom('"Labels":{"HostConfig":"x"}', '"Labels":{"a":"1","A":"2"}', '"HostConfig":null'),
  fc.constantFrom('"NetworkingConfig":{}', '"X":null', '"image":"b"'),
);
const bodyText = fc.tuple(
  objectOf(fc.array(top, { minLength: 1, maxLength: 4 })),
  fc.oneof({ weight: 9, arbitrary: fc.constant("") }, fc.constantFrom("\ufeff", " ")),
  fc.oneof({ weight: 9, arbitrary: fc.constant("") }, fc.constantFrom("{}", "\n", "\u0000")),
).map(([text, before, after]) => before + text + after);

test("readBody() forwards no field that reaches the host without reporting it", () => {
  let [accepted, dangers] = [0, 0];
  const request = head(CREATE);
  fc.assert(
    fc.property(bodyText, (text) => {
      const judged = readBody(request, bytesOf(text));
      if (isRefusal(judged)) return;
      accepted++;
      const result = writeRequest(judged);
      if (isRefusal(result)) assert.fail();
      const sent = inForce(new TextDecoder().decode(result.body));
      const reported = judged.dangers.map((path) => /^HostConfig\.([A-Za-z]+)/.exec(path)![1]!);
      for (const name of sent) assert.ok(reported.includes(name), `${name}: ${text}`);
      // Nothing else is sent than what the client's own text means.
      assert.deepEqual(sent, inForce(text), text);
      dangers += sent.length;
    }),
    { numRuns: soak(3000, 200_000) },
  );
  // Both sides of the property are tried.
  assert.ok(accepted > 300 && dangers > 50, `${accepted} accepted, ${dangers} dangers`);
});

test("readBody() reads keys as Go does, or rejects them", () => {
  const privileged = (text: string): boolean | string => {
    const judged = read(CREATE, text);
    return isRefusal(judged) ? judged.message : judged.attributes["privileged"] as boolean;
  };
  assert.equal(privileged('{"hostconfig":{"privileged":true}}'), true);
  assert.equal(privileged('{"HostConfig":{"Privile\\u0067ed":true}}'), true);
  assert.equal(
    privileged('{"HostConfig":{"Privileged":true},"HostConfig":{"Memory":1}}'),
    'The JSON text has the key "HostConfig" twice',
  );
  assert.equal(
    privileged('{"HostConfig":{"Privileged":true},"Hostconfig":{"Memory":1}}'),
    'The field "Hostconfig" is repeated in another case',
  );
  assert.equal(
    privileged('{"Ho\u017ftConfig":{"Privileged":true}}'),
    'The field "Ho\u017ftConfig" has a name that is not in ASCII',
  );
  assert.equal(
    privileged('{"HostConfig":{"Privileged":true,"privileged":false}}'),
    'The field "HostConfig.privileged" is repeated in another case',
  );
  // Keys of maps are exact, and keep their characters.
  const labels = read(CREATE, '{"Labels":{"a":"1","A":"2","\u017f":"3","s":"4"}}');
  assert.deepEqual(!isRefusal(labels) && labels.attributes["labels"], {
    ...{ a: ["1"], A: ["2"], "\u017f": ["3"], s: ["4"] },
  });
  // Bodies without a schema have no keys that Go could match to one field.
  assert.ok(isRefusal(read("POST /services/create", '{"TaskTemplate":{},"taskTemplate":{}}')));
  assert.ok(isRefusal(read("POST /services/create", '{"a":[{"\u212a":1}]}')));
});
