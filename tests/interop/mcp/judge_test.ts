/**
 * The actions of messages, and messages by which a client would do more than the policy allows: with unknown
 * methods, other spellings of names and URIs, and values of other types.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { argumentTexts } from "../../../interop/mcp/arguments.ts";
import { filterResult, judge, mayNotify, messageOf } from "../../../interop/mcp/judge.ts";
import { mcpVocabulary } from "../../../interop/mcp/mod.ts";
import { definePolicy } from "../../../policy/define.ts";
import type { Policy } from "../../../policy/mod.ts";
import type { Attributes, Decision } from "../../../core/policy/decide/decision.ts";
import fc from "../../support/properties.ts";
import { cases } from "../../support/suite.ts";

type Rules = Parameters<typeof definePolicy>[0] extends infer D ? D extends { rules: infer R } ? R
  : never
  : never;

const policyOf = (rules: Rules): Policy =>
  definePolicy({ version: 1, about: "mcp", rules }, { vocabularies: [mcpVocabulary] });

const everything = policyOf([{ name: "all", allow: true }]);

/** A judge for a peer, and the actions that it has decided. */
function judgeBy(policy: Policy, uid = 1000) {
  const actions: string[] = [];
  const seen: Attributes[] = [];
  const decide = (action: string, attributes: Attributes) =>
    policy.decide({ uid }, { action, attributes });
  const by = {
    peek: decide,
    decide: (action: string, attributes: Attributes) => {
      actions.push(action);
      seen.push(attributes);
      return decide(action, attributes);
    },
    refuse: (_: string, reason: string): Decision => ({
      ...{ allowed: false, rule: undefined, grants: [], unknown: [], reason, message: undefined },
    }),
  };
  return { by, actions, seen };
}

/** The code of the error that a request gets; `undefined`: it is allowed. */
function codeOf(policy: Policy, method: string, params?: unknown): number | undefined {
  return judge(judgeBy(policy).by, "request", method, params).error?.code;
}

const ACTIONS: readonly [method: string, params: unknown, ...actions: string[]][] = [
  ["initialize", {}, "initialize"],
  ["server/discover", {}, "initialize"],
  ["tools/list", {}, "tools/list"],
  ["tools/call", { name: "a b/c" }, "tools/call a b/c"],
  ["resources/list", { cursor: "2" }, "resources/list"],
  ["resources/templates/list", {}, "resources/templates/list"],
  ["resources/read", { uri: "note:a" }, "resources/read note:a"],
  ["resources/subscribe", { uri: "note:a" }, "resources/subscribe note:a"],
  ["resources/unsubscribe", { uri: "note:a" }, "resources/unsubscribe note:a"],
  ["prompts/list", undefined, "prompts/list"],
  ["prompts/get", { name: "p", arguments: { a: "1" } }, "prompts/get p"],
  [
    "completion/complete",
    { ref: { type: "ref/prompt", name: "p" } },
    "completion/complete",
    "prompts/get p",
  ],
  [
    ...["completion/complete", { ref: { type: "ref/resource", uri: "note:{id}" } }] as const,
    ...["completion/complete", "resources/read note:{id}"],
  ],
  ["logging/setLevel", { level: "debug" }, "logging/setLevel"],
  ["subscriptions/listen", {}, "subscriptions/listen"],
  [
    ...["subscriptions/listen", {
      notifications: {
        ...{ toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true },
      },
    }] as const,
    "subscriptions/listen",
  ],
  [
    ...["subscriptions/listen", {
      notifications: { resourceSubscriptions: ["note:a"], taskIds: ["1"] },
    }] as const,
    ...["subscriptions/listen", "resources/subscribe note:a", "tasks/get"],
  ],
  ["tasks/list", {}, "tasks/list"],
  ["tasks/get", { taskId: "1" }, "tasks/get"],
  ["tasks/result", { taskId: "1" }, "tasks/result"],
  ["tasks/update", { taskId: "1" }, "tasks/update"],
  ["tasks/cancel", { taskId: "1" }, "tasks/cancel"],
];

test("judge() decides each method of MCP by an action of the vocabulary", () => {
  for (const [method, params, ...expected] of ACTIONS) {
    const { by, actions } = judgeBy(everything);
    const { decision, error } = judge(by, "request", method, params);
    assert.deepEqual([decision.allowed, error], [true, undefined], method);
    assert.deepEqual(actions, expected);
    // Each action is needed.
    for (const missing of expected) {
      const policy = policyOf([{ name: "no", actions: missing, deny: "Not this" }, {
        name: "all",
        allow: true,
      }]);
      const { error } = judge(judgeBy(policy).by, "request", method, params);
      assert.deepEqual(
        error,
        { code: -32003, message: "Not this" },
        `${method} without ${missing}`,
      );
    }
  }
});

test("judge() decides each request with its attributes", () => {
  const rows: readonly [method: string, params: unknown, attributes: object][] = [
    ["tools/call", { name: "a" }, { name: "a", arguments: {} }],
    ["prompts/get", { name: "p" }, { name: "p", arguments: {} }],
    ["resources/read", { uri: "note:a" }, { uri: "note:a" }],
    ["resources/subscribe", { uri: "note:a" }, { uri: "note:a" }],
    ["completion/complete", { ref: { type: "ref/prompt", name: "p" } }, { name: "p" }],
    ["completion/complete", { ref: { type: "ref/resource", uri: "note:a" } }, { uri: "note:a" }],
    ["logging/setLevel", { level: "debug" }, { level: "debug" }],
    ["subscriptions/listen", { notifications: { resourceSubscriptions: ["b"] } }, { uri: "b" }],
  ];
  for (const [method, params, attributes] of rows) {
    const { by, seen } = judgeBy(everything);
    judge(by, "request", method, params);
    assert.equal(JSON.stringify(seen.at(-1)), JSON.stringify(attributes), method);
  }
});

test("judge() decides pings and notifications as initialize, and records only denials", () => {
  const none = policyOf([{ name: "tools", actions: "tools/list", allow: true }]);
  const all: ["request" | "notification", string][] = [
    ["request", "ping"],
    ...["initialized", "cancelled", "progress", "roots/list_changed", "tasks/status"].map(
      (name): ["notification", string] => ["notification", `notifications/${name}`],
    ),
  ];
  for (const [kind, method] of all) {
    const { by, actions } = judgeBy(everything);
    const { decision, error } = judge(by, kind, method, {});
    assert.deepEqual([decision.allowed, error, actions], [true, undefined, []]);
    assert.equal(judge(judgeBy(none).by, kind, method, {}).error?.code, -32003, method);
  }
});

test("judge() denies unknown methods and parameters of other types, whatever the policy allows", () => {
  const methods = [
    "",
    "tools/Call",
    "TOOLS/CALL",
    "tools/call ",
    "tools/call\0",
    "tools",
    "tools/",
  ];
  const inherited = ["constructor", "__proto__", "toString", "hasOwnProperty", "valueOf"];
  const ofServers = ["sampling/createMessage", "elicitation/create", "roots/list"];
  for (const method of [...methods, ...inherited, ...ofServers, "notifications/initialized"]) {
    assert.equal(codeOf(everything, method, { name: "a" }), -32601, method);
    assert.ok(judge(judgeBy(everything).by, "notification", `x${method}`, {}).error, method);
  }
  // A request that is sent as a notification would be run by a server that does not look for the id.
  const asNotification = judge(judgeBy(everything).by, "notification", "tools/call", { name: "a" });
  assert.equal(asNotification.error?.code, -32601);
  const params: readonly [string, unknown][] = [
    ...["", 1, null, ["a"], { toString: "a" }, undefined, true].flatMap((name) =>
      [["tools/call", { name }], ["prompts/get", { name }]] as [string, unknown][]
    ),
    ["tools/call", undefined],
    ["tools/call", Object.create({ name: "a" })],
    ...["a", 1, null, ["a"]].map((given) =>
      ["tools/call", { name: "a", arguments: given }] as [string, unknown]
    ),
    // Programs in Go may read these as name, arguments and uri.
    ["tools/call", { name: "a", Name: "b" }],
    ["tools/call", { name: "a", NAME: "b" }],
    ["tools/call", { name: "a", argumentſ: {} } as unknown],
    ["resources/read", { uri: "note:a", Uri: "note:b" }],
    ["resources/read", { uri: "" }],
    ["resources/read", { uri: 1 }],
    ["completion/complete", {}],
    ["completion/complete", { ref: { type: "ref/prompt", uri: "a" } }],
    ["completion/complete", { ref: { type: "ref/prompt", name: "a", Name: "b" } }],
    ["completion/complete", { ref: { type: "ref/prompt", name: "a", TYPE: "ref/resource" } }],
    ["completion/complete", { ref: { type: "ref/tool", name: "a" } }],
    ["logging/setLevel", { level: 1 }],
    ...["note:a", ["note:a", ""], ["note:a", 1], ["note:.."], Array(101).fill("note:a")].map(
      (uris) =>
        ["subscriptions/listen", { notifications: { resourceSubscriptions: uris } }] as [
          string,
          unknown,
        ],
    ),
    ["subscriptions/listen", { notifications: { allResources: true } }],
    ["subscriptions/listen", { notifications: [] }],
  ];
  for (const [method, given] of params) {
    assert.equal(codeOf(everything, method, given), -32602, `${method} ${JSON.stringify(given)}`);
  }
  const most = { notifications: { resourceSubscriptions: Array(100).fill("note:a") } };
  assert.equal(codeOf(everything, "subscriptions/listen", most), undefined);
});

test("judge() allows only the tool of the rule, for names with any characters", () => {
  const policy = policyOf([{ name: "a", actions: "tools/call a", allow: true }]);
  assert.equal(codeOf(policy, "tools/call", { name: "a" }), undefined);
  fc.assert(
    fc.property(fc.string(), (name) => {
      assert.equal(codeOf(policy, "tools/call", { name }) === undefined, name === "a");
    }),
    { numRuns: cases(200) },
  );
  for (
    const name of ["A", "a ", " a", "a\n", "a\0", "\ufeffa", "а", "a/..", "./a", "tools/call a"]
  ) {
    assert.notEqual(codeOf(policy, "tools/call", { name }), undefined, JSON.stringify(name));
  }
});

test("judge() denies a URI by each spelling that programs may make from it", () => {
  const policy = policyOf([
    {
      name: "secret",
      actions: [
        "resources/read file:///srv/secret/**",
        "resources/read file:///srv/secret.txt",
      ],
      deny: true,
    },
    {
      name: "srv",
      actions: ["resources/read file:///srv/**", "resources/read note:*"],
      allow: true,
    },
  ]);
  const read = (uri: string) => codeOf(policy, "resources/read", { uri });
  for (
    const uri of [
      "file:///srv/a.txt",
      "file:///srv/a%20b",
      "file:///srv/a b",
      "note:a",
      "file:///srv/..a",
      "note:a%2fb",
      `note:a%${"25".repeat(4)}2eb`,
      `note:${"a".repeat(8187)}`,
      "note:",
    ]
  ) {
    assert.equal(read(uri), undefined, uri);
  }
  const denied = [
    ...["file:///srv/secret/a", "file:///srv/%73ecret/a", "file:///srv/s\tecret/a"],
    ...["file:///srv//secret/a", "file:////srv/secret//a", "file:///srv/%2fsecret/a"],
    ...["file:///srv/secret/?a", "file:///srv/secret.txt?a", "file:///srv/secret.txt#a"],
    ...[
      "file:///srv/../etc/passwd",
      "file:///srv/%2e%2e/etc/passwd",
      "file:///srv/..%2fetc/passwd",
    ],
    ...["file:///srv/%252e%252e/etc", "file:///srv/%25252e%2e/etc", "file:///srv/..\\etc"],
    ...["file:///srv/..%5cetc", "file:///srv/a/..", "file:///srv/..?a", "file:///srv/..#a"],
    ...["file:///srv/%", "file:///srv/%ff", `file:///srv/${"a".repeat(9000)}`, "FILE:///srv/a"],
    // URL parsers, and so the official SDK, remove these characters.
    ...["file:///srv/.\t./etc", "file:///srv/.\r\n./etc", " file:///srv/a", "note:a "],
    ...["file:///srv/a/.. ", "file:///srv/a/..\u0001", "file:///srv/..;/etc", "note:a\u0085"],
    ...["file:///srv/secret.txt/", "file:///srv/%73ecret.txt/#a"],
    ...["note:..", "note:../a", `file:///srv/%${"25".repeat(100)}2e`],
    ...[`note:a%${"25".repeat(5)}2eb`, `note:${"a".repeat(8188)}`],
    ...["file:///srv/secret.txt?ab", "file:///srv/secret.txt#ab"],
  ];
  for (const uri of denied) assert.notEqual(read(uri), undefined, uri);
});

test("judge() denies a file by its URI with a host, and a URI by the one without a fragment", () => {
  const policy = policyOf([
    {
      name: "no",
      actions: ["file:///key", "note:a", "http://host/a"].map((uri) => `resources/read ${uri}`),
      deny: true,
    },
    { name: "all", allow: true },
  ]);
  const read = (uri: string) => codeOf(policy, "resources/read", { uri });
  for (
    const uri of [
      "file://host/key",
      "file://host//key?a",
      "FILE://HOST/ke%79",
      "file://key",
      "note:a#b",
      "note:a#bc",
      // The spelling of URL parsers.
      "HTTP://HOST/a",
      "http://host:80/a",
    ]
  ) {
    assert.equal(read(uri), -32003, uri);
  }
  for (
    const uri of [
      ...["file:///keys", "file:///key/a", "note:b#a", "file:///", "note:///key"],
      ...["http://host/b", "no URI", "http://"],
    ]
  ) {
    assert.equal(read(uri), undefined, uri);
  }
  // Other spellings need no rule.
  const one = policyOf([{ name: "one", actions: "resources/read note:a#b", allow: true }]);
  assert.equal(codeOf(one, "resources/read", { uri: "note:a#b" }), undefined);
  assert.equal(codeOf(one, "resources/read", { uri: "note:a" }), -32003);
});

const unknown = undefined;

function expectTexts(
  rows: readonly [args: unknown, name: string, texts: readonly string[] | undefined][],
): void {
  for (const [given, name, expected] of rows) {
    const texts = argumentTexts(given) as { [name: string]: readonly string[] } | undefined;
    const found = texts === undefined ? unknown : Object.hasOwn(texts, name) ? texts[name] : [];
    assert.deepEqual(found, expected, `${JSON.stringify(given).slice(0, 80)} ${name}`);
  }
}

test("argumentTexts() returns what a program can read in the arguments, and otherwise unknown", () => {
  expectTexts([
    [{ a: "x" }, "a", ["x"]],
    [{ a: "x" }, "b", []],
    [{ a: ["x", "y"] }, "a", ["x", "y"]],
    [{ a: [["x"], "y"] }, "a", ["x", "y"]],
    [{ a: [] }, "a", []],
    [{ A: [] }, "a", unknown],
    [{ a: 5 }, "a", ["5"]],
    [{ a: true }, "a", ["true"]],
    [{ a: null }, "a", ["null"]],
    [{ a: { b: "x" } }, "a.b", ["x"]],
    [{ a: [{ b: "x" }, { b: "y" }] }, "a.b", ["x", "y"]],
    [{ a: { b: "x" } }, "a", unknown],
    [{ a: ["x", { b: "y" }] }, "a", unknown],
    [{ a: {} }, "a", unknown],
    [{ "a.b": "x" }, "a.b", ["x"]],
    [{ "a.b": "x", a: { b: "y" } }, "a.b", unknown],
    [{ "a": { "": "x" }, "a.": "y" }, "a.", unknown],
    [{ "a.b": { c: "x" }, a: { b: { c: "y" } } }, "a.b.c", unknown],
    [{ a: 1 / 0 }, "a", unknown],
    [{ a: undefined }, "a", unknown],
    // Programs choose differently between spellings, and do not agree whether "A" is "a".
    [{ a: "x", A: "y" }, "a", unknown],
    [{ A: "y" }, "a", unknown],
    [{ paſſ: "y" } as unknown, "pass", unknown],
    [{ "\u212a": "y" }, "k", unknown],
    [{ A: "y" }, "A", ["y"]],
    [JSON.parse('{"__proto__":{"b":"x"}}'), "__proto__.b", ["x"]],
    [JSON.parse('{"__proto__":"x"}'), "__proto__", ["x"]],
    [{}, "constructor", []],
    [{}, "toString", []],
  ]);
});

test("argumentTexts() returns unknown for more names, deeper values and longer names", () => {
  expectTexts([
    [keyed(10_001), "k1", ["1"]],
    [keyed(10_002), "k1", unknown],
    [{ a: nested(63) }, "b", []],
    [{ a: nested(64) }, "b", unknown],
    [JSON.parse(`${'{"a":'.repeat(64)}1${"}".repeat(64)}`), "b", []],
    [JSON.parse(`${'{"a":'.repeat(65)}1${"}".repeat(65)}`), "b", unknown],
    [{ ["k".repeat(1024)]: "x" }, "b", []],
    [{ ["k".repeat(1025)]: "x" }, "b", unknown],
  ]);
});

const keyed = (length: number) =>
  Object.fromEntries(Array.from({ length }, (_, at) => [`k${at}`, 1]));

function nested(depth: number): unknown {
  return depth === 0 ? "x" : [nested(depth - 1)];
}

test("judge() denies a call if an argument that the rule tests is hidden by its type or spelling", () => {
  const policy = policyOf([{
    name: "srv",
    actions: "tools/call read",
    where: { arguments: { path: { every: "/srv/*" } } },
    allow: true,
  }]);
  const read = (given: unknown) => codeOf(policy, "tools/call", { name: "read", arguments: given });
  for (const given of [{ path: "/srv/a" }, { path: ["/srv/a", "/srv/b"] }, {}]) {
    assert.equal(read(given), undefined, JSON.stringify(given));
  }
  const denied: readonly object[] = [
    { path: "/etc/passwd" },
    { path: ["/srv/a", "/etc/passwd"] },
    { path: { toString: "/etc/passwd" } },
    { path: { path: "/etc/passwd" } },
    { path: [{ path: "/etc/passwd" }] },
    { path: "/srv/a", Path: "/etc/passwd" },
    { PATH: "/etc/passwd" },
    { path: "/srv/../etc/passwd" },
    { path: 0 },
  ];
  for (const given of denied) assert.equal(read(given), -32003, JSON.stringify(given));
});

test("filterResult() keeps what the client may use, whatever the request was", () => {
  const policy = policyOf([
    { name: "no b", actions: "tools/call b", deny: true },
    { name: "a", actions: ["tools/call a", "tools/call b", "prompts/get p"], allow: true },
    {
      name: "with arguments",
      actions: "tools/call c",
      where: { arguments: { path: { every: "/srv/*", empty: false } } },
      allow: true,
    },
    { name: "notes", actions: "resources/read note:*", allow: true },
    { name: "by name", actions: "tools/call **", where: { name: "e" }, allow: true },
    { name: "by uri", actions: "resources/read **", where: { uri: "file:///srv/*" }, allow: true },
    { name: "by program", when: { exe: "/bin/f" }, actions: "tools/call f", allow: true },
  ]);
  const { by } = judgeBy(policy);
  const named = (...names: unknown[]) => names.map((name) => ({ name }));
  assert.deepEqual(
    filterResult(by, {
      tools: [...named("a", "b", "c", "d", "e", "f", "", 1, null), null, "a", ["a"]],
      prompts: named("p", "q"),
      resources: [{ uri: "note:a" }, { uri: "file:///a" }, { uri: "file:///srv/a" }, {}],
      resourceTemplates: [{ uriTemplate: "note:{id}" }, { uriTemplate: "{uri}" }],
      nextCursor: "2",
    }),
    {
      tools: named("a", "c", "e"),
      prompts: named("p"),
      resources: [{ uri: "note:a" }, { uri: "file:///srv/a" }],
      resourceTemplates: [{ uriTemplate: "note:{id}" }],
      nextCursor: "2",
    },
  );
  assert.deepEqual(filterResult(by, { tools: { 0: { name: "d" } } }), { tools: [] });
  const unnamed = { tools: [{}, ...named("", 1, undefined)], resources: [{}, { uri: "" }] };
  assert.deepEqual(filterResult(judgeBy(everything).by, unnamed), { tools: [], resources: [] });
  for (
    const same of [{ content: [{ type: "text", text: "x" }] }, { tools: named("a") }, "x", null]
  ) {
    assert.equal(filterResult(by, same), same);
  }
});

test("mayNotify() names a resource only to clients that may read or subscribe to it", () => {
  const policy = policyOf([
    { name: "a", actions: ["resources/read note:a", "resources/subscribe note:b"], allow: true },
    { name: "by uri", actions: "resources/read **", where: { uri: "note:d" }, allow: true },
  ]);
  const { by } = judgeBy(policy);
  const updated = (uri: unknown) => mayNotify(by, "notifications/resources/updated", { uri });
  assert.deepEqual(["note:a", "note:b", "note:c", "note:d", 1, undefined].map(updated), [
    ...[true, true, false, true, false, false],
  ]);
  for (const uri of ["", 1, undefined]) {
    assert.equal(
      mayNotify(judgeBy(everything).by, "notifications/resources/updated", { uri }),
      false,
    );
  }
  assert.equal(mayNotify(by, "notifications/tools/list_changed", undefined), true);
});

test("messageOf() rejects messages that programs read differently", () => {
  const kinds = (value: unknown) => messageOf(value).kind;
  const call = { jsonrpc: "2.0", id: 1, method: "ping" };
  assert.equal(kinds(call), "request");
  assert.equal(kinds({ ...call, id: "1" }), "request");
  assert.equal(kinds({ ...call, id: "i".repeat(1024) }), "request");
  assert.equal(kinds({ jsonrpc: "2.0", method: "ping" }), "notification");
  assert.equal(kinds({ jsonrpc: "2.0", id: 1, result: {} }), "response");
  assert.equal(kinds({ jsonrpc: "2.0", id: 1, error: {} }), "response");
  const malformed: unknown[] = [
    ...[[call], [], null, "ping", 1, {}, { ...call, jsonrpc: "1.0" }, {
      ...call,
      jsonrpc: undefined,
    }],
    ...[null, 1.5, 2 ** 53, true, [1], {}, 1e300, "i".repeat(1025)].map((id) => ({ ...call, id })),
    ...[1, null, ["ping"], {}].map((method) => ({ ...call, method })),
    ...[[], "a", 1, null].map((params) => ({ ...call, params })),
    { ...call, result: {} },
    { ...call, error: {} },
    { ...call, Method: "tools/call" },
    { ...call, extra: 1 },
    { jsonrpc: "2.0", id: 1 },
    { jsonrpc: "2.0", id: 1, result: {}, error: {} },
    { jsonrpc: "2.0", id: 1, result: {}, params: {} },
    { jsonrpc: "2.0", result: {} },
    { jsonrpc: "2.0", id: null, result: {} },
    Object.create(call),
  ];
  for (const value of malformed) assert.equal(kinds(value), "malformed", JSON.stringify(value));
});
