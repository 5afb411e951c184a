/** Rules of polkit as policies: what is expressed, what is refused, and whether polkitd decides alike. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { UcredError } from "../../../core/errors.ts";
import { identify } from "../../../identity/identify.ts";
import { checkAuthorization, importRules, polkitVocabulary } from "../../../interop/polkit/mod.ts";
import { definePolicy } from "../../../policy/define.ts";
import { meet } from "../../support/peers.ts";
import fc from "../../support/properties.ts";
import { cases, needs, soak } from "../../support/suite.ts";
import { connectTo, ONE, startDaemon, TWO } from "../dbus/daemon.ts";
import { actionsOf, Polkitd, testPolkit } from "./polkitd.ts";

const rule = (body: string) => `polkit.addRule(function(action, subject) {\n${body}\n});\n`;

const imported = (text: string) => importRules([{ file: "/etc/10-a.rules", text }]);

test("importRules() converts comparisons, groups, prefixes, branches and sessions", () => {
  const text = rule(`
    if (action.id.indexOf("org.example.") != 0) return polkit.Result.NOT_HANDLED;
    if (action.id == "org.example.stop" && !(subject.user === "alice" || subject.active)) {
      return polkit.Result.NO;
    } else if (subject.isInGroup("wheel") && subject.local == true) {
      return polkit.Result.YES;
    }`);
  const { version, about, rules } = imported(text);
  assert.deepEqual({ version, about }, { version: 1, about: "polkit" });
  assert.deepEqual(rules[0], {
    name: "10-a.rules line 5",
    actions: "org.example.**",
    when: { not: { user: "alice" } },
    where: { all: [{ id: "org.example.stop" }, { not: { active: true } }] },
    deny: "polkit's rules do not allow it",
  });
  assert.deepEqual(rules[1], {
    name: "10-a.rules line 7, case 1",
    actions: "org.example.**",
    when: { group: "wheel" },
    where: { all: [{ not: { id: "org.example.stop" } }, { local: true }] },
    allow: true,
  });
});

test("importRules() gives policies that deny by unknown sessions, and what no rule handles", () => {
  const text = rule(`
    if (subject.active) return polkit.Result.YES;
    if (!subject.local) return polkit.Result.NO;
    if (action.id == "a.b") return polkit.Result.YES;`);
  const policy = definePolicy(imported(text), { vocabularies: [polkitVocabulary] });
  const decide = (attributes: { [name: string]: unknown }) =>
    policy.decide({ uid: 1000 }, { action: "a.b", attributes }).allowed;
  assert.equal(decide({ id: "a.b", active: true, local: false }), true);
  assert.equal(decide({ id: "a.b", active: false, local: true }), true);
  assert.equal(decide({ id: "a.b", active: false, local: false }), false);
  assert.equal(decide({ id: "a.b", active: false }), false); // whether it is local is unknown
  assert.equal(decide({}), false);
});

for (
  const [what, text, place, message] of [
    [
      "a password",
      rule('  if (action.id == "a.b") return polkit.Result.AUTH_ADMIN;'),
      "2:34",
      "password",
    ],
    ["a program", rule('  polkit.spawn(["x"]);'), "2:3", "only `if` and `return`"],
    ["a loop", rule("  for (;;) {}"), "2:3", "only `if` and `return`"],
    ["a variable", rule("  var x = 1;"), "2:3", "only `if` and `return`"],
    ["an ordering", rule('  if (action.id < "a") return "yes";'), "2:7", "compare with <"],
    ["a detail", rule('  if (action.lookup("x") == "y") return "yes";'), "2:7", "comparison"],
    ["a netgroup", rule('  if (subject.isInNetGroup("x")) return "yes";'), "2:7", "isInNetGroup()"],
    ["another substring", rule('  if (action.id.indexOf("x") > 0) return "yes";'), "2:7", "with >"],
    [
      "another index",
      rule('  if (action.id.indexOf("x") == 1) return "yes";'),
      "2:7",
      "comparison",
    ],
    ["two variables", rule("  if (action.id == subject.user) return 'yes';"), "2:7", "constant"],
    ["a glob", rule("  if (action.id == 'a.*') return 'yes';"), "2:20", "would be a glob"],
    ["another result", rule("  return 5;"), "2:10", "a value of polkit.Result"],
    ["another name", rule("  return polkit.Result.MAYBE;"), "2:10", "a value of polkit.Result"],
    ["another text", rule('  return "auth_admin";'), "2:10", "a value of polkit.Result"],
    ["another prefix", rule('  if (action.lookup("x") == 0) return "yes";'), "2:7", "comparison"],
    ["a user as a number", rule("  if (subject.user == 0) return 'yes';"), "2:7", "comparison"],
    ["a user as a flag", rule("  if (subject.user == true) return 'yes';"), "2:7", "comparison"],
    ["a flag as a text", rule("  if (subject.active == 'x') return 'yes';"), "2:7", "comparison"],
    ["a user alone", rule("  if (subject.user) return 'yes';"), "2:7", "this condition"],
    ["a number alone", rule("  if (1) return 'yes';"), "2:7", "this condition"],
    ["another operator", rule("  if (-subject.active) return 'yes';"), "2:7", "this condition"],
    ["no group", rule("  if (subject.isInGroup()) return 'yes';"), "2:7", "one constant text"],
    ["two groups", rule("  if (subject.isInGroup('a', 'b')) return 'yes';"), "2:7", "one constant"],
    ["a number as group", rule("  if (subject.isInGroup(0)) return 'yes';"), "2:7", "one constant"],
    [
      "a group in a variable",
      rule("  if (subject.isInGroup(x)) return 'yes';"),
      "2:7",
      "one const",
    ],
    [
      "a group with a star",
      rule("  if (subject.isInGroup('*')) return 'yes';"),
      "2:7",
      "one const",
    ],
    [
      "another call",
      "polkit.addAdminRule(function(action, subject) {});",
      "1:1",
      "polkit.addRule()",
    ],
    ["a global", "var x = 1;", "1:1", "polkit.addRule()"],
    ["no function", "polkit.addRule(f);", "1:1", "takes one function"],
    ["no argument", "polkit.addRule();", "1:1", "takes one function"],
    ["two arguments", "polkit.addRule(function(a, s) {}, 1);", "1:1", "takes one function"],
    [
      "three parameters",
      "polkit.addRule(function(a, b, c) {});",
      "1:16",
      "an action and a subject",
    ],
    ["one name for both", "polkit.addRule(function(a, a) { return null; });", "1:16", "same name"],
    ["a hidden polkit", "polkit.addRule(function(a, polkit) { return null; });", "1:16", "hides"],
    ["its own name", "polkit.addRule(function polkit(a, b) { return null; });", "1:16", "hides"],
    ["undefined as a name", "polkit.addRule(function(undefined, b) { });", "1:16", "hides"],
    ["a hoisted variable", rule("  return null; var polkit;"), "2:16", "only `if` and `return`"],
    ["a hoisted function", rule("  return null; function action() {}"), "2:16", "only `if`"],
    ["a variable in dead code", rule("  if (false) { var polkit; }"), "2:16", "only `if`"],
    ["an arrow function", "polkit.addRule((a, s) => polkit.Result.YES);", "1:16", "rvalue"],
    ["a comma at the end", "polkit.addRule(function(a, s) {},);", "1:34", "unexpected"],
    ["a syntax error", rule("  if ("), "3:1", "unexpected token"],
    ["the other subject", rule("  if (s.isInGroup('x')) return 'yes';"), "2:7", "s.isInGroup()"],
  ] as const
) {
  test(`importRules() refuses ${what}, with its position`, () => {
    assert.throws(() => imported(text), (error: unknown) => {
      assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY");
      assert.ok(
        error.message.startsWith(`Cannot import polkit's rules: /etc/10-a.rules:${place}: `),
      );
      assert.ok(error.message.includes(message), error.message);
      assert.doesNotMatch(error.message, /\(\d+:\d+\)/);
      return true;
    });
  });
}

test("importRules() orders files by their names, as polkitd does", () => {
  const named = (file: string, result: string) => ({ file, text: rule(`return ${result};`) });
  const { rules } = importRules([
    named("/etc/50-a.rules", "polkit.Result.YES"),
    named("/etc/10-b.rules", "polkit.Result.YES"),
    named("/usr/share/10-b.rules", "polkit.Result.NO"),
    named("/usr/share/10-a.rules", "polkit.Result.NO"),
  ]);
  assert.deepEqual(rules.map(({ name }) => name), [
    "10-a.rules line 2",
    "10-b.rules line 2",
    "10-b.rules line 2, number 2",
    "50-a.rules line 2",
  ]);
  assert.deepEqual(rules.map(({ allow }) => allow === true), [false, true, false, true]);
});

test("importRules() refuses conditions with more than 256 alternatives", () => {
  const clause = (at: number) => `(action.id != "a${at}" || subject.isInGroup("g${at}"))`;
  const rulesOf = (length: number) => {
    const all = Array.from({ length }, (_, at) => clause(at)).join(" && ");
    return imported(rule(`if (${all}) return polkit.Result.YES;`)).rules.length;
  };
  assert.equal(rulesOf(8), 256);
  assert.throws(() => rulesOf(9), /too complex/);
});

test("importRules() leaves out conditions that contradict themselves, and no others", () => {
  const rows: readonly (readonly [condition: string, count: number])[] = [
    ['action.id == "a.b" && action.id == "a.c"', 0],
    ["subject.active && !subject.active", 0],
    ['subject.user == "x" && subject.user == "y"', 0],
    ['action.id != "a.b" && action.id != "a.c"', 1],
    ['action.id == "a.b" && action.id != "a.c"', 1],
    ['action.id.indexOf("a.") == 0 && action.id == "a.b"', 1],
    ['subject.isInGroup("x") && subject.isInGroup("y")', 1],
    ['subject.user == "x" && subject.isInGroup("y")', 1],
    ["subject.active && subject.local", 1],
  ];
  for (const [condition, count] of rows) {
    assert.equal(imported(rule(`if (${condition}) return "yes";`)).rules.length, count, condition);
  }
});

const IDS = ["a", "b"];

/** Functions of rules, as bodies in JavaScript, from conditions and statements. */
function bodies(
  conditions: readonly string[],
  statements: readonly string[],
): fc.Arbitrary<string[]> {
  const { condition } = fc.letrec((tie) => ({
    condition: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      { weight: 6, arbitrary: fc.constantFrom(...conditions) },
      tie("condition").map((one) => `!(${String(one)})`),
      fc.tuple(tie("condition"), fc.constantFrom("&&", "||"), tie("condition"))
        .map(([one, operator, other]) => `(${String(one)} ${operator} ${String(other)})`),
    ),
  }));
  const result = fc.constantFrom(...statements);
  const statement = fc.oneof(
    fc.tuple(condition, result).map(([when, then]) => `if (${String(when)}) ${then}`),
    fc.tuple(condition, condition, result, result).map(([when, inner, then, otherwise]) =>
      `if (${String(when)}) { if (${String(inner)}) ${then} } else ${otherwise}`
    ),
  );
  const body = fc.array(statement, { minLength: 1, maxLength: 3 }).map((list) => list.join("\n"));
  return fc.array(body, { minLength: 1, maxLength: 3 });
}

const RESULTS = ["YES", "NO", "NOT_HANDLED"].map((name) => `return polkit.Result.${name};`);

const SYNTAX = bodies([
  ...['action.id == "x.a"', '"x.a" === action.id', 'action.id != "x.b"', '"x.ab" !== action.id'],
  ...['action.id.indexOf("x.a") == 0', '0 !== action.id.indexOf("x.b")'],
  ...['action.id.startsWith("x.a")', '(subject.user) === ("anna")', '"bert" != subject.user'],
  ...['subject.isInGroup("staff")', 'subject.isInGroup("wheel")', "subject.active"],
  ...["subject.local", "subject.active == false", "true !== subject.local", "true", "false"],
], [
  ...[...RESULTS, "return;", "return null;", "return undefined;", 'return "yes";', 'return "no";'],
  ...[";", "{}", '{ return "yes"; }'],
]);

/** Runs functions of rules as JavaScript. Returns what the first one that handles the request returns. */
function evaluated(text: string, action: string, subject: object): boolean {
  type Rule = (action: object, subject: object) => unknown;
  const rules: Rule[] = [];
  const polkit = {
    Result: { YES: "yes", NO: "no", NOT_HANDLED: null },
    addRule: (rule: Rule) => void rules.push(rule),
  };
  new Function("polkit", text)(polkit);
  const handled = rules.map((rule) => rule({ id: action }, subject)).find((each) => each != null);
  return handled === "yes";
}

test("importRules() and JavaScript decide alike, for generated rules", () => {
  const uids: { readonly [name: string]: number } = { anna: 1, bert: 2 };
  const gids: { readonly [name: string]: number } = { staff: 1, wheel: 2 };
  const accounts = { uid: (name: string) => uids[name], gid: (name: string) => gids[name] };
  const requests = fc.array(
    fc.record({
      id: fc.constantFrom("x.a", "x.ab", "x.b", "y.z"),
      user: fc.constantFrom("anna", "bert"),
      groups: fc.subarray(["staff", "wheel"]),
      active: fc.boolean(),
      local: fc.boolean(),
    }),
    { minLength: 10, maxLength: 20 },
  );
  let allowed = 0;
  const property = fc.property(SYNTAX, requests, (functions, all) => {
    const text = functions.map((body) => rule(body)).join(";");
    const policy = definePolicy(imported(text), { vocabularies: [polkitVocabulary], accounts });
    for (const { id, user, groups, active, local } of all) {
      const isInGroup = (name: string) => groups.includes(name);
      const expected = evaluated(text, id, { user, active, local, isInGroup });
      const peer = { uid: uids[user]!, gid: 9, groups: groups.map((name) => gids[name]!) };
      const found = policy.decide(peer, { action: id, attributes: { id, active, local } });
      assert.equal(found.allowed, expected, `${text}: ${id} for ${user}, ${groups}`);
      if (expected) allowed++;
    }
  });
  fc.assert(property, { numRuns: cases(300) });
  assert.ok(allowed > 0);
  // Parameters that a function does not use may be missing.
  for (const parameters of ["", "action"]) {
    const text = `polkit.addRule(function (${parameters}) { return polkit.Result.YES; });`;
    assert.deepEqual(imported(text).rules, [{ name: "10-a.rules line 1", allow: true }]);
  }
});

/** Conditions for polkitd. `SET` stands for the number of the rule set. */
const functions = bodies([
  ...IDS.map((id) => `action.id == "org.example.sSET.${id}"`),
  ...IDS.map((id) => `action.id !== "org.example.sSET.${id}"`),
  'action.id.indexOf("org.example.sSET.a") == 0',
  ...["daemon", "bin"].map((user) => `subject.user == "${user}"`),
  ...["daemon", "bin"].map((group) => `subject.isInGroup("${group}")`),
  ...["true", "false"],
], RESULTS);

testPolkit("polkitd and the imported policy decide alike, for generated rules", async () => {
  const sets = fc.sample(functions, soak(40, 600));
  const rules = sets.map((set, at) =>
    set.map((body) =>
      rule(`if (action.id.indexOf("org.example.sSET.") != 0) return;\n${body}`)
        .replaceAll("SET", String(at))
    ).join("")
  ).join("");
  const ids = sets.flatMap((_, at) => IDS.map((id) => `s${at}.${id}`));
  const { address } = await startDaemon();
  const bus = await connectTo(address);
  const actions = actionsOf(ids.map((id) => [id, "no"]));
  await Polkitd.start(address, bus, { actions, rules });
  const policy = definePolicy(imported(rules), { vocabularies: [polkitVocabulary] });
  let allowed = 0;
  for (const uid of [ONE, TWO]) {
    const options = ["--resgid", `${uid},${uid},${uid}`, "--resuid", `${uid},${uid},${uid}`];
    const [done] = await meet(options, async (socket) => {
      const peer = identify(socket, { pin: true });
      for (const id of ids.map((each) => `org.example.${each}`)) {
        const { authorized } = await checkAuthorization(peer, id, { bus });
        const decision = policy.decide(peer, { action: id, attributes: { id } });
        assert.equal(decision.allowed, authorized, `${id} for uid ${uid}: ${decision.reason}`);
        if (authorized) allowed++;
      }
    });
    await done;
  }
  assert.ok(allowed > ids.length / 10 && allowed < ids.length * 2, `${allowed} allowed`);
}, needs.node);

testPolkit(
  "polkitd allows root what its rules deny, which the imported policy does not",
  async () => {
    const rules = rule("return polkit.Result.NO;");
    const { address } = await startDaemon();
    const bus = await connectTo(address);
    await Polkitd.start(address, bus, { actions: actionsOf([["no", "no"]]), rules });
    const policy = definePolicy(imported(rules), { vocabularies: [polkitVocabulary] });
    const [done] = await meet([], async (socket) => {
      const peer = identify(socket, { pin: true });
      const { authorized } = await checkAuthorization(peer, "org.example.no", { bus });
      assert.equal(authorized, true);
      assert.equal(policy.decide(peer, { action: "org.example.no" }).allowed, false);
    });
    await done;
  },
  needs.node,
);
