/** Policies in files: where each mistake stands, hostile texts, and files that others can write. */

import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { parse as parseYaml } from "yaml";
import { UcredError } from "../../mod.ts";
import { loadPolicy, parsePolicy, policySchema } from "../../policy/mod.ts";
import { temporaryFolder } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";

const accounts = {
  uid: (name: string) => name === "deploy" ? 990 : undefined,
  gid: (name: string) => name === "docker" ? 970 : undefined,
};
const parse = (text: string) => parsePolicy(text, { file: "p.yaml", accounts });

const RUNS = 1500;

const GOOD = `# Who may do what
version: 1
rules:
  - name: root
    when: { uid: 0 }
    allow: full
  - name: operators
    when:
      group: docker
      not: { uid: "1000-1999" }
    actions: [ "GET /**", "HEAD /**" ]
    allow: [ read ]
`;

test("parsePolicy() reads YAML, and JSON, alike", () => {
  const json = JSON.stringify({
    version: 1,
    rules: [
      { name: "root", when: { uid: 0 }, allow: "full" },
      {
        name: "operators",
        when: { group: "docker", not: { uid: "1000-1999" } },
        actions: ["GET /**", "HEAD /**"],
        allow: ["read"],
      },
    ],
  });
  for (const text of [GOOD, json]) {
    const policy = parse(text);
    assert.deepEqual(policy.decide({ uid: 0 }).grants, ["full"]);
    const operator = { uid: 5, gid: 1, groups: [970] };
    assert.equal(policy.decide(operator, { action: "GET /x/y" }).rule, "operators");
    assert.equal(policy.decide(operator, { action: "PUT /x" }).allowed, false);
    assert.equal(policy.decide({ ...operator, uid: 1000 }, { action: "GET /" }).allowed, false);
  }
});

test("a list can be written once and used again", () => {
  const policy = parse(
    "version: 1\nrules:\n  - { name: a, when: { uid: &ids [1, 2] }, allow: x }\n" +
      "  - { name: b, when: { gid: *ids }, allow: y }\n",
  );
  assert.equal(policy.decide({ uid: 9, gid: 2 }).rule, "b");
});

/** The lines of the error, without what stands before them. */
function problems(text: string): readonly string[] {
  try {
    parse(text);
  } catch (error) {
    assert.ok(error instanceof UcredError, String(error));
    assert.equal(error.code, "ERR_UCRED_POLICY");
    return error.message.replace("Cannot use the policy: ", "").split("\n");
  }
  return assert.fail("it was accepted");
}

for (
  const [name, text, expected] of [
    ["a misspelt field", GOOD.replace("group:", "grup:"), [
      'p.yaml:9:7: no field "grup" here; did you mean "group"?',
    ]],
    ["a misspelt group", GOOD.replace("docker", "dokcer"), ['p.yaml:9:14: no group "dokcer"']],
    ["an id out of range", GOOD.replace("uid: 0", "uid: 4294967295"), [
      'p.yaml:5:18: uid is an id from 0 to 4294967294, or a range like "1000-1999", not 4294967295',
    ]],
    ["neither allow nor deny", GOOD.replace("    allow: full\n", ""), [
      "p.yaml:4:5: a rule has either allow or deny",
    ]],
    ["two rules of one name", GOOD.replace("operators", "root"), [
      'p.yaml:7:11: two rules have the name "root"',
    ]],
    ["an empty condition", GOOD.replace("{ uid: 0 }", "{}"), [
      "p.yaml:5:11: a condition has at least one field",
    ]],
    ["another version", GOOD.replace("version: 1", "version: 2"), [
      "p.yaml:2:10: version is 1, not 2",
    ]],
    ["everything at once", "version: 1\nrules:\n  - { nme: a, allow: 1 }\n  - 7\n", [
      'p.yaml:3:7: no field "nme" here; did you mean "name"?',
      "p.yaml:3:5: name is a text, not nothing",
      "p.yaml:3:22: allow is true, a text or a list of them, not 1",
      "p.yaml:4:5: a rule is an object, not 7",
    ]],
    [
      "JSON",
      '{ "version": 1,\n  "rules": [ { "name": "a", "when": { "uid": -1 }, "deny": true } ] }',
      [
        'p.yaml:2:46: uid is an id from 0 to 4294967294, or a range like "1000-1999", not -1',
      ],
    ],
    ["a field that is there twice", GOOD.replace("allow: full", "allow: full\n    allow: x"), [
      "p.yaml:7:5: Map keys must be unique",
    ]],
    ["wrong indentation", GOOD.replace("    allow: full", "   allow: full"), [
      "p.yaml:6:1: Sequence item without - indicator",
    ]],
    ["no text", "", ["p.yaml:1:1: a policy is an object, not null"]],
    ["a tag", "!evil { version: 1, rules: [] }", ["p.yaml:1:1: Unresolved tag: !evil"]],
  ] as readonly (readonly [string, string, readonly string[]])[]
) {
  test(`parsePolicy() tells where ${name} stands`, () =>
    assert.deepEqual(problems(text), expected));
}

test("texts that are made to exhaust the reader are refused", () => {
  const bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"];
  for (let i = 1; i < 20; i++) {
    bomb.push(`a${i}: &a${i} [${Array(9).fill(`*a${i - 1}`).join(", ")}]`);
  }
  const hostile = [
    bomb.join("\n"),
    "[".repeat(100_000),
    `${"{a: ".repeat(50_000)}1`,
    "- ".repeat(100_000),
    `version: 1\nrules: ${"[".repeat(5000)}${"]".repeat(5000)}`,
    "x".repeat(5 << 20),
    "&a [*a]",
    "a: &a\n  b: *a\n",
    "version: 1\nrules:\n  - { name: a, when: &w { not: *w }, allow: true }\n",
    "version: 1\nrules:\n  - { name: a, when: &w { any: [*w, *w] }, allow: true }\n",
    "version: 1\nrules: &r [*r]\n",
    "--- 1\n--- 2\n",
    "\0",
  ];
  for (const text of hostile) assert.ok(problems(text).length > 0);
});

test("whatever the text, there is a policy that the schema accepts, or a UcredError", () => {
  const isRight = new Ajv2020({ strictRequired: false }).compile(policySchema());
  const check = (text: string) => {
    try {
      parse(text);
      assert.ok(isRight(parseYaml(text)), text);
    } catch (error) {
      assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY", String(error));
      assert.match(error.message, /p\.yaml:\d+:\d+: ./);
    }
  };
  const junk = fc.constantFrom(..."{}[]:,-&*!|>'\"%@`#?\n\t \\0\u0000é1x~".split(""));
  const edits = fc.array(
    fc.tuple(fc.nat(GOOD.length), fc.nat(6), fc.array(junk, { maxLength: 4 })),
    {
      minLength: 1,
      maxLength: 4,
    },
  );
  fc.assert(
    fc.property(edits, (edits) => {
      let text = GOOD;
      for (const [at, cut, added] of edits) {
        text = text.slice(0, at) + added.join("") + text.slice(at + cut);
      }
      check(text);
    }),
    { numRuns: RUNS },
  );
  fc.assert(fc.property(fc.array(junk, { maxLength: 40 }), (text) => check(text.join(""))), {
    numRuns: RUNS,
  });
});

test("loadPolicy() reads a file that is safe", () => {
  const path = join(temporaryFolder(), "policy.yaml");
  writeFileSync(path, GOOD, { mode: 0o644 });
  assert.equal(loadPolicy(path, { accounts }).decide({ uid: 0 }).rule, "root");
  writeFileSync(path, "version: 3\nrules: []\n");
  assert.throws(() => loadPolicy(path, { accounts }), {
    message: `Cannot use the policy: ${path}:1:10: version is 1, not 3`,
  });
});

test("loadPolicy() refuses what others can write, unless it is told not to mind", () => {
  const folder = temporaryFolder();
  const path = join(folder, "policy.yaml");
  writeFileSync(path, GOOD);
  for (const mode of [0o664, 0o646, 0o666]) {
    chmodSync(path, mode);
    assert.throws(() => loadPolicy(path, { accounts }), {
      code: "ERR_UCRED_POLICY",
      message: `Cannot use the policy: ${path}: it may be written by others`,
    });
    assert.ok(loadPolicy(path, { accounts, anyOwner: true }));
  }
  chmodSync(path, 0o600);
  chmodSync(folder, 0o777);
  assert.throws(() => loadPolicy(path, { accounts }), { message: /its folder .* may be written/ });
  chmodSync(folder, 0o1777);
  assert.ok(loadPolicy(path, { accounts }), "a sticky folder, as /tmp is");
});

testWith([needs.root], "loadPolicy() refuses what belongs to others, through a link too", () => {
  const folder = temporaryFolder();
  const path = join(folder, "policy.yaml");
  writeFileSync(path, GOOD);
  chownSync(path, 4321, 0);
  symlinkSync(path, join(folder, "link.yaml"));
  for (const name of [path, join(folder, "link.yaml")]) {
    assert.throws(() => loadPolicy(name, { accounts }), { message: /it belongs to uid 4321$/ });
  }
  chownSync(path, 0, 0);
  assert.ok(loadPolicy(join(folder, "link.yaml"), { accounts }));
});

test("loadPolicy() says what it cannot read", () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, "policy.yaml"));
  for (const path of [join(folder, "missing.yaml"), join(folder, "policy.yaml")]) {
    assert.throws(() => loadPolicy(path), (error) => {
      assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY");
      assert.match(error.message, /^Cannot use the policy: \/.*(ENOENT|EISDIR|os error)/);
      return true;
    });
  }
});
