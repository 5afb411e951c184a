/** Policies in texts: the data, and the position of each mistake. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { definePolicy, type PolicyDocument, UcredError } from "../../mod.ts";
import { parsePolicy, runTests } from "../../policy/mod.ts";

const accounts = {
  uid: (name: string) => name === "deploy" ? 990 : undefined,
  gid: (name: string) => name === "docker" ? 970 : undefined,
};
const parse = (text: string) => parsePolicy(text, { file: "p.yaml", accounts });

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

test("parsePolicy() knows the vocabulary http, and reports mistakes about it with their position", () => {
  const text = `version: 1
about: http
rules:
  - { name: r, actions: GET /x, where: { host: "a.example" }, allow: true }
`;
  const request = { action: "GET /x", attributes: { host: "a.example" } };
  assert.equal(parsePolicy(text).decide({}, request).allowed, true);
  assert.equal(parsePolicy(text).decide({}, { ...request, action: "x" }).allowed, false);
  const messageOf = (from: string, to: string): string => {
    try {
      parsePolicy(text.replace(from, to));
    } catch (error) {
      return (error as Error).message;
    }
    return assert.fail("accepted");
  };
  assert.match(messageOf("host:", "hots:"), /:4:42: no field "hots" here; did you mean "host"\?$/);
  assert.match(messageOf("GET /x", "/x"), /:4:25: no action "\/x"$/);
  assert.match(
    messageOf("about: http", "about: htpp"),
    /:2:8: no vocabulary "htpp"; did you mean "http"/,
  );
  assert.match(
    messageOf("about: http\n", ""),
    /:3:33: no field "where" here: name a vocabulary in/,
  );
});

test("parsePolicy() expands aliases", () => {
  const policy = parse(
    "version: 1\nrules:\n  - { name: a, when: { uid: &ids [1, 2] }, allow: x }\n" +
      "  - { name: b, when: { gid: *ids }, allow: z }\n",
  );
  assert.equal(policy.decide({ uid: 9, gid: 2 }).rule, "b");
});

/** Returns the lines of the error without their common beginning. */
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
      "p.yaml:4:5: a rule has neither allow nor deny",
    ]],
    ["both allow and deny", GOOD.replace("allow: full", "allow: full\n    deny: true"), [
      "p.yaml:4:5: a rule has both allow and deny",
    ]],
    ["an allow that is false", GOOD.replace("allow: full", "allow: false"), [
      "p.yaml:6:12: allow is never false: use deny: true",
    ]],
    ["a pid", GOOD.replace("uid: 0", "pid: 5"), [
      'p.yaml:5:13: no field "pid" here: rules cannot test a pid: the kernel reuses it',
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
      'p.yaml:7:5: two fields are called "allow"',
    ]],
    ["wrong indentation", GOOD.replace("    allow: full", "   allow: full"), [
      "p.yaml:6:1: Sequence item without - indicator",
    ]],
    ["no text", "", ["p.yaml:1:1: it is empty: a policy has a version and rules"]],
    ["nothing but comments", "# a\n---\n# b\n", [
      "p.yaml:1:1: it is empty: a policy has a version and rules",
    ]],
    ["no value", "~\n", ["p.yaml:1:1: a policy is an object, not null"]],
    ["a tag", "!evil { version: 1, rules: [] }", ["p.yaml:1:1: Unresolved tag: !evil"]],
    ["a tag that is none of the core", GOOD.replace("root", "!!binary cm9vdA=="), [
      "p.yaml:4:11: Unresolved tag: tag:yaml.org,2002:binary",
    ]],
    ["the tag of no tag", GOOD.replace("root", "! root"), [
      'p.yaml:4:13: the tag "!" is not in YAML\'s core schema',
    ]],
    ["another YAML", `%YAML 1.1\n---\n${GOOD}`, [
      "p.yaml:1:1: the only supported directive is %YAML 1.2",
    ]],
    ["a directive", `%TAG !! tag:x,2000:\n---\n${GOOD}`, [
      "p.yaml:1:1: the only supported directive is %YAML 1.2",
    ]],
    ["a second document", `${GOOD}---\nversion: 1\n`, [
      "p.yaml:13:1: a second document begins; a policy is a single document",
    ]],
    [
      "a merge key",
      "version: 1\nrules:\n  - &a { name: a, allow: true }\n  - { <<: *a, name: b }\n",
      [
        'p.yaml:4:7: merge keys ("<<") are not supported: write the fields out',
      ],
    ],
    ["an alias for a name", "version: &v 1\n*v : 1\n", [
      "p.yaml:2:1: the name of a field is a text, not an alias",
    ]],
    ["a list for a name", "version: 1\n? [rules]\n: []\n", [
      "p.yaml:2:3: the name of a field is a text, not a list or an object",
    ]],
    ["a number for a name", "version: 1\n1: []\n", [
      "p.yaml:2:1: the name of a field is a text, not 1",
    ]],
    ["an anchor at a name", "version: 1\n&a rules: []\n", [
      "p.yaml:2:4: the name of a field has no anchor and no tag",
    ]],
    ["an alias of nothing", "version: 1\nrules: *rules\n", [
      "p.yaml:2:8: no anchor &rules precedes the alias",
    ]],
    ["an alias within what it names", "version: 1\nrules: &r [*r]\n", [
      "p.yaml:2:12: the alias is inside its own anchor &r",
    ]],
    ["a yes of YAML 1.1", GOOD.replace("full", "No"), [
      'p.yaml:6:12: YAML 1.1 reads No as true or false: write true or false, or "No" for a text',
    ]],
    ["a one-letter yes of YAML 1.1", GOOD.replace("full", "[read, y, N]"), [
      'p.yaml:6:19: YAML 1.1 reads y as true or false: write true or false, or "y" for a text',
      'p.yaml:6:22: YAML 1.1 reads N as true or false: write true or false, or "N" for a text',
    ]],
    ["an octal number of YAML 1.1", GOOD.replace("uid: 0", "uid: 0755"), [
      "p.yaml:5:18: YAML 1.1 reads 0755 as octal: write it without leading zeros",
    ]],
    ["a mistake behind tabs", "version: 1\nrules:\n  -\t{ name:\ta,\talow: x }\n", [
      'p.yaml:3:16: no field "alow" here; did you mean "allow"?',
      "p.yaml:3:5: a rule has neither allow nor deny",
    ]],
    [
      "a mistake behind characters of many bytes",
      '{ "rules\u{1f980}\u00e9\u4e16": [], version: 2 }',
      [
        'p.yaml:1:3: no field "rules\u{1f980}\u00e9\u4e16" here',
        "p.yaml:1:28: version is 1, not 2",
        "p.yaml:1:1: rules is a list of rules, not nothing",
      ],
    ],
    [
      "a mistake at the end of a text of several lines",
      `${GOOD}  - name: "x\n      y"\n    alow: true\n`,
      [
        'p.yaml:15:5: no field "alow" here; did you mean "allow"?',
        "p.yaml:13:5: a rule has neither allow nor deny",
      ],
    ],
  ] as readonly (readonly [string, string, readonly string[]])[]
) {
  test(`parsePolicy() reports the position of ${name}`, () =>
    assert.deepEqual(problems(text), expected));
}

test("parsePolicy() reports the same position with other line ends, and after a byte order mark", () => {
  const bad = GOOD.replace("group:", "grup:").replace("uid: 0", "uid: -1");
  const expected = problems(bad);
  assert.equal(expected.length, 2);
  for (const text of [bad.replaceAll("\n", "\r\n"), `\ufeff${bad}`, bad.trimEnd()]) {
    assert.deepEqual(problems(text), expected);
  }
  assert.equal(parse(`\ufeff${GOOD.replaceAll("\n", "\r\n")}`).decide({ uid: 0 }).rule, "root");
});

test("parsePolicy() accepts core tags, %YAML 1.2 and quoted words of YAML 1.1", () => {
  const policy = parse(
    '%YAML 1.2\n---\nversion: !!int 1\nrules: !!seq\n  - !!map { name: !!str 12, allow: "no" }\n...\n',
  );
  const { rule, grants } = policy.decide({});
  assert.deepEqual([rule, grants], ["12", ["no"]]);
});

test("parsePolicy() resolves an alias to the last anchor of its name before it", () => {
  const policy = parse(
    "version: 1\nrules:\n  - &a { name: &a x, when: { uid: 1 }, allow: *a }\n" +
      "  - { name: &b z, allow: *a }\n",
  );
  assert.deepEqual(policy.decide({ uid: 1 }).grants, ["x"]);
  assert.deepEqual(policy.decide({ uid: 2 }).grants, ["x"]);
});

test("parsePolicy() reports fields named like those of Object.prototype as unknown", () => {
  for (const name of ["__proto__", "constructor", "toString"]) {
    const text = `{ "version": 1, "rules": [], "${name}": { "rules": [] } }`;
    assert.deepEqual(problems(text), [`p.yaml:1:30: no field "${name}" here`]);
  }
});

/** Characters that are invisible, or change the order of others. */
const UNSEEN = [
  ...["\u0000", "\u0007", "\u001b", "\u007f", "\u0085", "\u009b", "\u200e", "\u200f", "\u061c"],
  ...["\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"],
  ...["\u2028", "\u2029", "\ufeff", "\ud800", "\udfff", "\u00ad", "\u034f", "\u115f", "\u180e"],
  ...["\u200b", "\u200d", "\u2060", "\u3164", "\ufe0f", "\ufff9", "\u{e0041}"],
];

const hexOf = (character: string) => character.codePointAt(0)!.toString(16).padStart(4, "0");
const escapeOf = (character: string) =>
  character.length > 1 ? `\\U${hexOf(character).padStart(8, "0")}` : `\\u${hexOf(character)}`;

test("parsePolicy() rejects invisible characters, also in comments, with their position", () => {
  for (const character of UNSEEN) {
    const code = `U+${hexOf(character).toUpperCase()}`;
    const expected = [`p.yaml:1:17: it contains the invisible character ${code}`];
    assert.deepEqual(problems(GOOD.replace("may", `m${character}ay`)), [
      expected[0]!.replace("1:17", "1:8"),
    ]);
    assert.deepEqual(problems(`{ "version": 1, ${character}"rules": [] }`), expected);
  }
  assert.deepEqual(problems("version: 1\rrules: []\n"), [
    "p.yaml:1:11: it contains the character U+000D without U+000A",
  ]);
});

test("parsePolicy() rejects invisible characters in every text, also when they are escaped", () => {
  const places = [
    ...["name: ^", "name: a, when: { user: ^ }", "name: a, when: { group: [docker, ^] }"],
    ...[
      "name: a, when: { exe: ^ }",
      "name: a, when: { not: { label: [x, ^] } }",
      "name: a, actions: ^",
    ],
  ].map((field) => `${field}, allow: x`);
  for (
    const rule of [...places, "name: a, allow: ^", "name: a, allow: [x, ^]", "name: a, deny: ^"]
  ) {
    for (const character of UNSEEN) {
      const escaped = rule.replace("^", `"x${escapeOf(character)}y"`);
      const [problem, ...more] = problems(`version: 1\nrules: [{ ${escaped} }]\n`);
      assert.deepEqual(more, []);
      const code = hexOf(character).toUpperCase();
      assert.match(
        problem!,
        new RegExp(`^p.yaml:2:\\d+: \\w+ contains the invisible character U\\+${code}$`),
      );
    }
  }
  const tests =
    "tests: [{ name: ^, action: ^, peer: { label: ^, user: ^ }, expect: { allow: ^ } }]";
  const found = problems(`version: 1\nrules: []\n${tests.replaceAll("^", '"\\u202e"')}\n`);
  assert.equal(found.length, 5);
});

test("parsePolicy() reports other problems beside a mistake of YAML, and invents none", () => {
  const rule = (rest: string) => `version: 1\nrules:\n  - { name: a, ${rest} }\n`;
  const cases: readonly (readonly [text: string, ...expected: string[]])[] = [
    [
      `${
        rule("when: { uidd: 1 }, deny: yes")
      }  - { name: a, when: { gid: 0755 }, allow: [false] }\n`,
      '3:24: no field "uidd" here',
      "3:41: YAML 1.1 reads yes as true or false",
      '4:13: two rules have the name "a"',
      "4:29: YAML 1.1 reads 0755 as octal",
      "4:45: allow is true",
    ],
    [
      rule("when: { uidd: 1 }, allow: x, <<: { allow: z }") + "  - { name: a }\n",
      '3:24: no field "uidd" here',
      "3:45: merge keys",
      "4:5: a rule has neither allow nor deny",
      '4:13: two rules have the name "a"',
    ],
    // The contents of rejected fields are not missing.
    [rule("&x allow: z"), "3:19: the name of a field has no anchor"],
    [rule("when: { uid: *u }, allow: z"), "3:29: no anchor &u precedes the alias"],
    [rule("allow: *u"), "3:23: no anchor &u precedes the alias"],
    ["version: 1\n&x rules: []\n", "2:4: the name of a field has no anchor"],
    [
      `${rule("when: { exe: !evil /x, gidd: 5 }, deny: true")}`,
      "3:29: Unresolved tag: !evil",
      '3:39: no field "gidd" here',
    ],
    // Neither is the text after a syntax error; before it, all problems are reported.
    [
      rule("whenn: { uid: 1 }, allow: z") + "  - { name: b, allow: [z }\n  - { namee: c }\n",
      '3:16: no field "whenn" here',
      "4:26: ",
      "5:3: ",
    ],
    ["version: 2\nrules:\n  - name: a\n    allow: x\n   deny: true\n", "1:10: version is 1", "5:"],
    // Each invisible character, and the other mistakes beside them.
    [
      `version: 1 # \u202e\nrules: [{ name: "a\u200b", when: { uidd: 1 }, deny: true }]\n`,
      "1:14: it contains the invisible character U+202E",
      "2:19: it contains the invisible character U+200B",
      '2:31: no field "uidd" here',
    ],
    [
      `${rule("deny: no")}---\nversion: 1\n`,
      "3:22: YAML 1.1 reads no as",
      "4:1: a second document begins",
    ],
  ];
  for (const [text, ...expected] of cases) {
    const found = problems(text);
    const matches = found.length === expected.length &&
      found.every((each, at) => each.startsWith(`p.yaml:${expected[at]}`));
    assert.ok(matches, `${text}\n${found.join("\n")}`);
  }
});

test("parsePolicy() reports the first hundred problems", () => {
  const rules = Array.from(
    { length: 150 },
    (_, at) => `  - { name: a${at}, ${at % 2 === 0 ? "denyy: 1" : "deny: yes"} }`,
  );
  const found = problems(`version: 1\nrules:\n${rules.join("\n")}\n`);
  assert.equal(found.length, 101);
  assert.match(found[0]!, /^p\.yaml:3:/);
  assert.match(found[100]!, /^and \d+ more$/);
});

/** Every space except U+0020, and the Braille pattern without dots. */
const SPACE_LIKE =
  "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a" +
  "\u202f\u205f\u2800\u3000";

test("parsePolicy() rejects characters that look like a space, with their position", () => {
  const places = [
    "name: a^b, deny: true",
    "name: a, actions: GET^/x, deny: true",
    'name: a, actions: [GET /x, "PUT^/x"], deny: true',
    "name: a, allow: [read, full^access]",
    "name: a, when: { user: ada^b }, deny: true",
    "name: a, when: { not: { exe: /opt/a^b } }, allow: true",
    "name: a, when: { label: a^b }, deny: true",
  ];
  for (const character of SPACE_LIKE) {
    const name = `U+${hexOf(character).toUpperCase()}`;
    for (const place of places) {
      const [problem, ...more] = problems(
        `version: 1\nrules: [{ ${place.replace("^", character)} }]\n`,
      );
      assert.deepEqual(more, []);
      assert.match(
        problem!,
        new RegExp(
          `^p.yaml:2:\\d+: \\w+ contains the character U\\${
            name.slice(1)
          }, which looks like a space`,
        ),
      );
    }
    // People read these texts.
    assert.ok(
      parse(`version: 1 # a${character}b\nrules: [{ name: a, deny: "Oh${character}!" }]\n`),
    );
    // A field with such a character in its name is another field.
    assert.equal(problems(`version: 1\nrules: [{ name: a, deny${character}: true }]\n`).length, 2);
  }
  assert.equal(
    problems("version: 1\nrules: [{ name: a, actions: GET\u00a0/x, deny: true }]\n")[0],
    "p.yaml:2:29: actions contains the character U+00A0, which looks like a space: write a space",
  );
});

test("parsePolicy() escapes invisible characters in messages, with a line for each problem", () => {
  for (const character of UNSEEN) {
    const escaped = escapeOf(character);
    const text = `{ "a${escaped}b": 1, "version": 1, "rules": [{ "name": "${escaped}" }] }`;
    let message = "";
    try {
      parsePolicy(text, { file: `p${character}\n.yaml` });
    } catch (error) {
      message = (error as Error).message;
    }
    // JSON and YAML escape it differently from messages.
    const shown = character.length > 1 ? `\\u{${hexOf(character)}}` : escaped;
    const lines = message.replace("Cannot use the policy: ", "").split("\n");
    assert.equal(lines.length, 3, message);
    for (const line of lines) {
      assert.ok(line.startsWith(`p${shown}\\u000a.yaml:1:`), line);
      assert.doesNotMatch(
        line,
        /[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\p{Cs}\u2028\u2029]/u,
      );
    }
    assert.ok(message.includes(`a${character < " " ? "" : shown}`));
  }
});

test("definePolicy() escapes and cuts off names of fields in messages", () => {
  const define = (document: object) => () => definePolicy(document as PolicyDocument);
  assert.throws(define({ version: 1, rules: [], "a\nb\u202e": 1 }), {
    message: 'Cannot use the policy: a\\u000ab\\u202e: no field "a\\nb\\u202e" here',
  });
  const long = "x".repeat(1_000_000);
  assert.throws(
    define({ version: 1, rules: [{ [long]: 1, name: "a", allow: "y\u0007" }] }),
    (error) => {
      const [first, second, ...more] = (error as Error).message.split("\n");
      assert.ok(first!.length < 250);
      assert.equal(second, "rules[0].allow: allow contains the invisible character U+0007");
      assert.deepEqual(more, []);
      return true;
    },
  );
});

test("parsePolicy() rejects a glob of more than 4096 characters", () => {
  const rule = (glob: string) => `version: 1\nrules: [{ name: a, actions: "${glob}", allow: x }]\n`;
  assert.ok(parse(rule("*a".repeat(2048))));
  assert.deepEqual(problems(rule("*".repeat(4097))), [
    "p.yaml:2:29: actions has at most 4096 characters, not 4097",
  ]);
});

test("parsePolicy() accepts ambiguous ids of a test's peer", () => {
  const text = (ambiguous: string) =>
    `version: 1
rules: [{ name: nobody, when: { uid: 65534 }, allow: true }]
tests: [{ peer: { uid: 65534, ambiguous: ${ambiguous} }, expect: { deny: true } }]
`;
  const report = runTests(parse(text("[uid]")));
  assert.ok(report.passed, String(report));
  assert.deepEqual(report.results[0]!.decision.unknown, ["uid"]);
  assert.equal(runTests(parse(text("[groups, gid]"))).passed, false);
  assert.deepEqual(problems(text("[gids]")), [
    'p.yaml:3:43: no id that may be ambiguous "gids"; did you mean "gid"?',
  ]);
});

test("parsePolicy() throws a TypeError when the text is not a string", () => {
  assert.throws(() => parsePolicy(new Uint8Array(5) as unknown as string), TypeError);
});

test("UcredError.problems has the path, file, line and column of each problem", () => {
  const rejected = (call: () => unknown): UcredError["problems"] => {
    try {
      call();
    } catch (error) {
      if (error instanceof UcredError) return error.problems;
      throw error;
    }
    return assert.fail("accepted");
  };
  const text = "version: 1\nrules:\n  - { name: a, when: { uid: x }, alow: true }\n";
  const places = rejected(() => parsePolicy(text, { file: "p.yaml" }))
    ?.map(({ message: _, ...place }) => place);
  assert.deepEqual(places, [
    { path: ["rules", 0, "alow"], file: "p.yaml", line: 3, column: 34 },
    { path: ["rules", 0, "when", "uid"], file: "p.yaml", line: 3, column: 29 },
    { path: ["rules", 0], file: "p.yaml", line: 3, column: 5 },
  ]);
  const data = { version: 1, rules: [{ name: "a", when: { uid: "x" }, allow: true }] };
  const [inCode, ...more] = rejected(() => definePolicy(data as PolicyDocument)) ?? [];
  assert.deepEqual({ ...inCode, message: "" }, {
    ...{ message: "", path: ["rules", 0, "when", "uid"] },
    ...{ file: undefined, line: undefined, column: undefined },
  });
  assert.deepEqual(more, []);
  const [syntax] = rejected(() => parsePolicy("version: 1\nrules: [", { file: "p.yaml" })) ?? [];
  assert.deepEqual([syntax?.path, syntax?.line], [[], 2]);
  const failing = "version: 1\nrules: []\ntests:\n  - { peer: {}, expect: { allow: true } }\n";
  const [test] = rejected(() => parsePolicy(failing, { file: "p.yaml", runTests: true })) ?? [];
  assert.deepEqual([test?.path, test?.line, test?.column], [["tests", 0], 4, 5]);
});
