/** Rules of polkit as policies: what is expressed, what is refused, and whether polkitd decides alike. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { UcredError } from "../../../core/errors.ts";
import { identify } from "../../../identity/identify.ts";
import { checkAuthorization, importRules, polkitVocabulary } from "../../../interop/polkit/mod.ts";
import { definePolicy } from "../../../policy/define.ts";
import { meet } from "../../support/peers.ts";
import fc from "../../support/properties.ts";
import { needs, soak } from "../../support/suite.ts";
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
    ["a program", rule('  polkit.spawn(["x"]);'), "2:3", "`if` and `return` alone"],
    ["a loop", rule("  for (;;) {}"), "2:3", "`if` and `return` alone"],
    ["a variable", rule("  var x = 1;"), "2:3", "`if` and `return` alone"],
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
    [
      "another call",
      "polkit.addAdminRule(function(action, subject) {});",
      "1:1",
      "polkit.addRule()",
    ],
    ["a global", "var x = 1;", "1:1", "polkit.addRule()"],
    ["no function", "polkit.addRule(f);", "1:1", "takes one function"],
    ["one name for both", "polkit.addRule(function(a, a) { return null; });", "1:16", "same name"],
    ["a hidden polkit", "polkit.addRule(function(a, polkit) { return null; });", "1:16", "hides"],
    ["its own name", "polkit.addRule(function polkit(a, b) { return null; });", "1:16", "hides"],
    ["undefined as a name", "polkit.addRule(function(undefined, b) { });", "1:16", "hides"],
    ["a hoisted variable", rule("  return null; var polkit;"), "2:16", "`if` and `return` alone"],
    ["a hoisted function", rule("  return null; function action() {}"), "2:16", "alone"],
    ["a variable in dead code", rule("  if (false) { var polkit; }"), "2:16", "alone"],
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
  const all = Array.from({ length: 12 }, (_, at) => clause(at)).join(" && ");
  assert.throws(() => imported(rule(`if (${all}) return polkit.Result.YES;`)), /too complex/);
});

const IDS = ["a", "b"];

/** Conditions, as JavaScript. `SET` stands for the number of the rule set. */
const { condition } = fc.letrec((tie) => ({
  condition: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.constantFrom(...IDS).map((id) => `action.id == "org.example.sSET.${id}"`),
    fc.constantFrom(...IDS).map((id) => `action.id !== "org.example.sSET.${id}"`),
    fc.constant('action.id.indexOf("org.example.sSET.a") == 0'),
    fc.constantFrom("daemon", "bin").map((user) => `subject.user == "${user}"`),
    fc.constantFrom("daemon", "bin").map((group) => `subject.isInGroup("${group}")`),
    fc.constantFrom("true", "false"),
    tie("condition").map((one) => `!(${String(one)})`),
    fc.tuple(tie("condition"), fc.constantFrom("&&", "||"), tie("condition"))
      .map(([one, operator, other]) => `(${String(one)} ${operator} ${String(other)})`),
  ),
}));

const result = fc.constantFrom("YES", "NO", "NOT_HANDLED").map((name) =>
  `return polkit.Result.${name};`
);

const statement = fc.oneof(
  fc.tuple(condition, result).map(([when, then]) => `if (${String(when)}) ${then}`),
  fc.tuple(condition, condition, result, result).map(([when, inner, then, otherwise]) =>
    `if (${String(when)}) { if (${String(inner)}) ${then} } else ${otherwise}`
  ),
);

const functions = fc.array(fc.array(statement, { minLength: 1, maxLength: 3 }), {
  minLength: 1,
  maxLength: 3,
});

testPolkit("polkitd and the imported policy decide alike, for generated rules", async () => {
  const sets = fc.sample(functions, soak(40, 600));
  const rules = sets.map((set, at) =>
    set.map((body) =>
      rule(`if (action.id.indexOf("org.example.sSET.") != 0) return;\n${body.join("\n")}`)
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
