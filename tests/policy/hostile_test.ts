/** Texts that could crash, mislead or exhaust the reader of policies. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "../support/properties.ts";
import { Composer, parse as parseYaml, Parser, stringify } from "yaml";
import { compileGlob } from "../../core/policy/decide/glob.ts";
import { findText } from "../../core/policy/analyze/text_sets.ts";
import { Budget } from "../../core/policy/analyze/budget.ts";
import { UcredError } from "../../mod.ts";
import { loadPolicy, parsePolicy, policySchema } from "../../policy/mod.ts";
import { MAX_ALIASES, MAX_LEXEMES, MAX_TEXT_CHARACTERS, readYaml } from "../../policy/yaml.ts";
import { temporaryFolder } from "../support/compile.ts";
import { cases, needs, sample, soak, testWith } from "../support/suite.ts";

const RUNS = cases(soak(600, 1500));

const accounts = {
  uid: (name: string) => name === "deploy" ? 990 : undefined,
  gid: (name: string) => name === "docker" ? 970 : undefined,
};

/** Returns the error of a text without its common beginning. */
function said(text: string): string {
  try {
    parsePolicy(text, { file: "p.yaml", accounts });
  } catch (error) {
    assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY", String(error));
    return error.message.replace("Cannot use the policy: ", "");
  }
  return assert.fail(`it was accepted: ${text.slice(0, 100)}`);
}

const bomb = ["version: 1", "rules:", "  - &a0 [x, x, x, x, x, x, x, x, x, x]"];
for (let i = 1; i < 20; i++) {
  bomb.push(`  - &a${i} [${Array(10).fill(`*a${i - 1}`).join(", ")}]`);
}

const V = "version: 1\n";

/** Name → text and expected error. */
const HOSTILE: { readonly [name: string]: readonly [text: () => string, says: RegExp] } = {
  "aliases of aliases": [() => bomb.join("\n"), /^p\.yaml:1:1: more than 1000000 values$/],
  "one alias after another": [
    () => `${V}rules: [&a [x], ${"*a, ".repeat(MAX_ALIASES + 1)}]`,
    /^p\.yaml:2:4017: more than 1000 aliases$/,
  ],
  "lists in lists": [() => "[".repeat(100_000), /^p\.yaml:1:66: nested more than 64 deep$/],
  "objects in objects": [() => `${"{a: ".repeat(50_000)}1`, /nested more than 64 deep$/],
  "lists in lists, in blocks": [() => "- ".repeat(100_000), /nested more than 64 deep$/],
  "names in names": [() => "? ".repeat(100_000), /nested more than 64 deep$/],
  "objects in objects, in blocks": [
    () => Array.from({ length: 500 }, (_, i) => `${" ".repeat(i)}a:\n`).join(""),
    /^p\.yaml:66:\d+: nested more than 64 deep$/,
  ],
  "lists in lists, closed": [
    () => `${V}rules: ${"[".repeat(5000)}${"]".repeat(5000)}`,
    /nested more than 64 deep$/,
  ],
  "too long a text": [
    () => "x".repeat(MAX_TEXT_CHARACTERS + 1),
    /^p\.yaml:1:1: it has 4194305 characters; the maximum is 4194304$/,
  ],
  "many words": [
    () => `${V}rules: [${"1,".repeat(MAX_LEXEMES)}]`,
    /^p\.yaml:2:\d+: more than 1000000 tokens$/,
  ],
  "many mistakes": [
    () => `a: ${"]".repeat(300_000)}`,
    /^(?:p\.yaml:1:\d+: .*\n){100}and 2999\d\d more$/,
  ],
  "many mistakes in the composition": [
    () => `${V}rules: [${"!t a, ".repeat(50_000)}]`,
    /^(?:p\.yaml:2:\d+: Unresolved tag: !t\n){100}and 49900 more$/,
  ],
  "many wrong values": [
    () => `${V}rules: [${"1, ".repeat(50_000)}]`,
    /^(?:p\.yaml:2:\d+: a rule is an object, not 1\n){100}and 49900 more$/,
  ],
  "one field very often": [
    () => `{${"k: 1, ".repeat(60_000)}}`,
    /^(?:p\.yaml:1:\d+: two fields are called "k"\n){100}and 59899 more$/,
  ],
  "very many fields": [
    () => `{${Array.from({ length: 60_000 }, (_, i) => `k${i}: 1`).join(", ")}}`,
    /^(?:p\.yaml:1:\d+: no field "k\d+" here\n){100}and \d+ more$/,
  ],
  "many directives": [() => "%A\n".repeat(100_000), /directive.*\nand 99900 more$/],
  "many documents": [() => `${V}---\n`.repeat(50_000), /^p\.yaml:2:1: a second document begins/],
  "many ends of documents": [
    () => "...\n".repeat(100_000),
    /^p\.yaml:2:1: a second document begins/,
  ],
  "empty lines, then comments": [
    () => `${V}rules:\n  - - a: b\n${"\n".repeat(100_000)}${"    # c\n".repeat(100_000)}`,
    /^p\.yaml:3:5: a rule is an object, not a list$/,
  ],
  "a mistake that quotes the text": [
    () => `a: "${"x".repeat(1_000_000)}`,
    /^p\.yaml:1:1: no field "a" here\np\.yaml:1:1000005: Missing closing "quote$/,
  ],
  "an alias of itself": [() => "&a [*a]", /the alias is inside its own anchor &a$/],
  "an alias of what it is in": [() => "a: &a\n  b: *a\n", /the alias is inside its own anchor &a$/],
  "a condition in itself": [
    () => `${V}rules:\n  - { name: a, when: &w { any: [*w, *w] }, allow: true }\n`,
    /the alias is inside its own anchor &w/,
  ],
  "a null byte": [() => "\0", /U\+0000/],
};

for (const [name, [text, says]] of sample(Object.entries(HOSTILE))) {
  test(`parsePolicy() rejects ${name}`, () => assert.match(said(text()), says));
}

const root = fileURLToPath(new URL("../..", import.meta.url));

testWith(
  [needs.soak, needs.node, needs.native],
  "parsePolicy() uses less than a gigabyte for hostile texts",
  () => {
    const script = join(temporaryFolder(), "read.ts");
    writeFileSync(
      script,
      `import { parsePolicy } from ${JSON.stringify(join(root, "policy/mod.ts"))};
const V = "version: 1\\nrules: ";
const list = (item: string, times: number) => \`\${V}[\${item.repeat(times)}]\`;
const texts = [
  () => list("'x',", 499_000),
  () => list("!t a,", 249_000),
  () => \`a: \${"]".repeat(990_000)}\`,
  () => \`{\${Array.from({ length: 160_000 }, (_, i) => \`k\${i}:,\`).join("")}}\`,
  () => \`\${V}\\n- deny: >\\n\${"   x\\n".repeat(800_000)}\`,
  () => \`\${V}[{ name: a, allow: true, when: { uid: [\${
    Array.from({ length: 300_000 }, (_, i) => 2 * i).join(",")
  }] } }]\`,
];
for (const text of texts) {
  let said = "accepted";
  try {
    parsePolicy(text());
  } catch (error) {
    said = (error as { code?: string }).code ?? String(error);
  }
  console.log(said);
}
`,
    );
    const flags = ["--disable-warning=ExperimentalWarning", "--max-old-space-size=1024"];
    const output = execFileSync(process.execPath, [...flags, script], {
      encoding: "utf8",
      timeout: 300_000,
    });
    const expected = [...Array(5).fill("ERR_UCRED_POLICY"), "accepted"];
    assert.deepEqual(output.trim().split("\n"), expected);
  },
);

const FILES = [
  `# Who may do what
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
`,
  JSON.stringify({
    version: 1,
    rules: [{
      name: "a \u{1f980}",
      when: { any: [{ uid: [1, "2-3"] }, { all: [{ label: "x*" }] }] },
      allow: true,
    }],
    tests: [{
      peer: { user: "deploy", groups: ["docker", 5], label: null },
      expect: { deny: true },
    }],
  }),
  `%YAML 1.2
---
version: 1
rules:
- name: &n 'it''s one'
  when: &w
    sameNamespaces: [user, pid]
    uid: &ids [ 5, 6-7 ]
  deny: >-
    Not
    today
- name: "two\\u00e9"
  actions: *n
  when:
    not: *w
    gid: *ids
  allow: !!str 12
tests:
  - { peer: { uid: 5, process: { exe: /bin/x, namespaces: { user: { ours: true } } } }, expect: { deny: true, rule: null } }
...
`.replaceAll("\n", "\r\n"),
];

const isRight = new Ajv2020({ strictRequired: false }).compile(policySchema());

/** Requires a policy that the schema accepts, or a UcredError. @returns Whether it is a policy. */
function check(text: string): boolean {
  try {
    parsePolicy(text, { file: "p.yaml", accounts });
  } catch (error) {
    assert.ok(
      error instanceof UcredError && error.code === "ERR_UCRED_POLICY",
      `${text}: ${error}`,
    );
    assert.match(
      error.message,
      /^Cannot use the policy: (?:p\.yaml:\d+:\d+: .+\n?)+(?:and \d+ more)?$/,
    );
    return false;
  }
  const content = text.replace(/^\ufeff/, "");
  const found = readYaml(content);
  assert.ok("data" in found);
  const theirs: unknown = parseYaml(content);
  assert.deepEqual(plain(found.data), theirs, text);
  assert.ok(isRight(theirs), text);
  return true;
}

/** Returns a copy with prototypes. */
const plain = (data: unknown): unknown => JSON.parse(JSON.stringify(data));

const junk = fc.constantFrom(
  ..."{}[]:,-&*!|>'\"%@`#?\n\r\t \\0\u0000é1x~<=.\u202e\ufeff\u{1f980}".split(""),
  ...[
    "\r\n",
    "---\n",
    "...\n",
    "<<: ",
    "!!str ",
    "&a ",
    "*a",
    "no",
    "0755",
    "null",
    "uid: ",
    "\\u202e",
  ],
);

test("parsePolicy() accepts the files that the fuzzing starts with", () => {
  for (const text of FILES) assert.equal(check(text), true);
});

test("parsePolicy() returns a valid policy or throws a UcredError, whatever is changed in a file", () => {
  const edit = fc.tuple(fc.nat(2000), fc.nat(6), fc.array(junk, { maxLength: 4 }));
  const edits = fc.array(edit, { minLength: 1, maxLength: 4 });
  let accepted = 0;
  fc.assert(
    fc.property(fc.constantFrom(...FILES), edits, (file, edits) => {
      let text = file;
      for (const [place, cut, added] of edits) {
        const at = place % (text.length + 1);
        text = text.slice(0, at) + added.join("") + text.slice(at + cut);
      }
      if (check(text)) accepted++;
    }),
    { numRuns: RUNS },
  );
  assert.ok(accepted > 0 || RUNS < 600, "some changed policies are still valid");
});

test("parsePolicy() returns a valid policy or throws a UcredError for any text", () => {
  fc.assert(
    fc.property(fc.array(junk, { maxLength: 40 }), (text) => void check(text.join(""))),
    { numRuns: RUNS },
  );
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 40 }), (text) => void check(text)),
    { numRuns: RUNS / 5 },
  );
});

test("loadPolicy() returns a policy or throws a UcredError, whatever bytes are changed", () => {
  const path = join(temporaryFolder(), "policy.yaml");
  const bytesOf = FILES.map((text) => new TextEncoder().encode(text));
  const change = fc.tuple(
    fc.nat(2000),
    fc.constantFrom("flip", "set", "drop", "double"),
    fc.nat(255),
  );
  const changes = fc.array(change, { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(fc.constantFrom(...bytesOf), changes, (file, changes) => {
      let bytes = [...file];
      for (const [place, how, byte] of changes) {
        const at = place % bytes.length;
        if (how === "flip") bytes[at]! ^= 1 << (byte & 7);
        else if (how === "set") bytes[at] = byte;
        else if (how === "drop") bytes = bytes.toSpliced(at, byte % 20);
        else bytes = [...bytes.slice(0, at + (byte % 40)), ...bytes.slice(at)];
      }
      writeFileSync(path, new Uint8Array(bytes), { mode: 0o600 });
      let isPolicy = true;
      try {
        loadPolicy(path, { accounts, allowUnsafeOwner: true });
      } catch (error) {
        assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY", String(error));
        isPolicy = false;
      }
      let text: string;
      try {
        text = new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(bytes));
      } catch {
        return assert.equal(isPolicy, false);
      }
      assert.equal(check(text), isPolicy);
    }),
    { numRuns: RUNS },
  );
});

test("readYaml() reads any data that the library writes in YAML or JSON", () => {
  const key = fc.string({ minLength: 1 }).filter((name) => name !== "<<");
  const { data } = fc.letrec((tie) => ({
    data: fc.oneof({ maxDepth: 5 }, tie("leaf"), tie("list"), tie("object")),
    leaf: fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null)),
    list: fc.array(tie("data"), { maxLength: 4 }),
    object: fc.dictionary(key, tie("data"), { maxKeys: 4, noNullPrototype: true }),
  }));
  fc.assert(
    fc.property(data, (data) => {
      const strings = {
        defaultStringType: "QUOTE_DOUBLE",
        defaultKeyType: "QUOTE_DOUBLE",
      } as const;
      for (
        const text of [
          stringify(data, strings),
          JSON.stringify(data),
          JSON.stringify(data, null, "\t"),
        ]
      ) {
        const found = readYaml(text);
        assert.ok("data" in found, `${text}\n${JSON.stringify(found)}`);
        assert.deepEqual(plain(found.data), plain(data));
      }
    }),
    { numRuns: RUNS / 3 },
  );
});

test("decide() ends for a glob of many stars and a long text", () => {
  // Backtracking would not end.
  const long = "a".repeat(100_000);
  for (const star of ["*", "**"]) {
    const glob = `${`${star}a`.repeat(60)}${star}b`;
    const test = compileGlob(glob);
    assert.deepEqual([test(long), test(`${long}b`), test(`${long}bc`)], [false, true, false]);
    const inside = compileGlob(`x${`${star}a`.repeat(60)}${star}bx`);
    assert.deepEqual([inside(`x${long}bx`), inside(`x${long}cx`)], [true, false]);
  }
  const mixed = compileGlob("/**a*a**a*a**/*b*");
  assert.deepEqual([mixed(`/${long}`), mixed(`/${long}/xby`), mixed(`/${long}/xb/y`)], [
    false,
    true,
    false,
  ]);
});

test("lint() ends for globs that name every letter", () => {
  const all = Array.from({ length: 0x10000 }, (_, code) => String.fromCharCode(code)).join("")
    .replace("*", "");
  const texts = { in: [[`*${all}*`], [`**${all}x*`]], out: [] };
  let found: unknown;
  try {
    found = findText(texts, new Budget());
  } catch (error) {
    found = (error as Error).constructor.name;
  }
  assert.equal(found, "BudgetExceeded");
});

test("the YAML library calls its composer's onError, which readYaml() replaces", () => {
  const composer = new Composer();
  assert.ok(Object.hasOwn(composer, "onError"), "the member has another name now: see yaml.ts");
  let told = 0;
  (composer as unknown as { onError: () => void }).onError = () => told++;
  const documents = [...composer.compose(new Parser().parse("a: &b &c x\nb: !!!x y\n"), true, 21)];
  assert.ok(told > 0);
  assert.deepEqual(documents.flatMap((each) => "errors" in each ? each.errors : []), []);
});
