/** The tables of docs/security.md: each test that they name exists, and no past defect is missing. */

import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const root = fileURLToPath(new URL("../..", import.meta.url));
const SELF = "tests/project/security_test.ts";
const CVE = /CVE-\d{4}-\d{4,}/g;

/** Path of a file in tests/, relative to the project's root → its text. */
type Sources = ReadonlyMap<string, string>;

function readSources(): Sources {
  const paths = globSync("tests/**/*.{ts,c}", {
    cwd: root,
    exclude: (path) => path.includes("node_modules"),
  });
  const ours = paths.map((path) => path.replaceAll("\\", "/")).filter((path) => path !== SELF);
  return new Map(ours.map((path) => [path, readFileSync(join(root, path), "utf8")]));
}

/** A row of a table with the columns `test` and `file`. */
interface Row {
  readonly line: number;
  /** The heading above the table, of the second or third level. */
  readonly heading: string;
  readonly name: string;
  readonly file: string;
  /** The ids in the column `defect`, or in that of the row above if it is empty. */
  readonly defects: readonly string[];
}

/** The text of a cell that is one code span. Markdown in a table escapes `|`. */
const codeIn = (cell: string) =>
  /^(`+) ?(.*?) ?\1$/.exec(cell)?.[2]?.replaceAll("\\|", "|") ?? "no code";

function rowsOf(page: string): Row[] {
  const rows: Row[] = [];
  let heading = "";
  let columns: readonly string[] | undefined;
  let defects: readonly string[] = [];
  for (const [index, text] of page.split("\n").entries()) {
    if (/^###? /.test(text)) heading = text.replace(/^#+ /, "");
    if (!text.startsWith("|")) {
      columns = undefined;
      continue;
    }
    const cells = text.split(/(?<!\\)\|/).slice(1, -1).map((cell) => cell.trim());
    if (columns === undefined) {
      columns = cells;
      defects = [];
      continue;
    }
    if (!columns.includes("test") || /^[-|: ]+$/.test(text)) continue;
    const cell = (name: string) => cells[columns!.indexOf(name)] ?? "";
    if (cell("defect") !== "") defects = cell("defect").match(CVE) ?? [];
    const [name, file] = [codeIn(cell("test")), codeIn(cell("file"))];
    rows.push({ line: index + 1, heading, name, file, defects });
  }
  return rows;
}

/** The names of the tests that a file defines, as its source has them: `${…}` stands for a value. */
function testNamesIn(path: string, source: string): Set<string> {
  const file = ts.createSourceFile(path, source, ts.ScriptTarget.Latest, true);
  const names = new Set<string>();
  const visit = (node: ts.Node): void => {
    // test() itself, and the functions of tests/support/ that call it: testWith(), testGuard() and others.
    if (ts.isCallExpression(node) && /^test([A-Z]\w*)?$/.test(node.expression.getText())) {
      const name = node.arguments.find((argument) =>
        ts.isStringLiteralLike(argument) || ts.isTemplateExpression(argument)
      );
      if (name !== undefined) names.add(name.getText().slice(1, -1));
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return names;
}

/** What is wrong with the page. Each problem of a row begins with its line. */
function problemsOf(page: string, sources: Sources): string[] {
  const rows = rowsOf(page);
  const names = new Map<string, Set<string>>();
  const problems = rows.flatMap(({ line, name, file, defects }) => {
    const source = sources.get(file);
    if (source === undefined || !file.endsWith("_test.ts")) {
      return [`${line}: no test file ${file}`];
    }
    if (!names.has(file)) names.set(file, testNamesIn(file, source));
    return [
      ...names.get(file)!.has(name) ? [] : [`${line}: no test "${name}" in ${file}`],
      ...defects.filter((id) => !source.includes(id)).map((id) => `${line}: no ${id} in ${file}`),
    ];
  });
  const listed = new Set(rows.flatMap(({ defects }) => defects));
  const tested = new Set([...sources.values()].flatMap((source) => source.match(CVE) ?? []));
  const held = new Set(rows.map(({ heading }) => heading));
  const headings = page.match(/(?<=^### ).+$/gm) ?? []; // of promises, and of groups of defects
  return [
    ...problems,
    ...[...tested].filter((id) => !listed.has(id)).map((id) => `no row for ${id}`),
    // A mention outside of the tables has no test.
    ...[...new Set(page.match(CVE) ?? [])].filter((id) => !listed.has(id)).map((id) =>
      `no test for ${id}`
    ),
    ...headings.filter((text) => !held.has(text)).map((text) => `no test for "${text}"`),
  ];
}

test("each test that docs/security.md names exists, and each CVE in tests/ has a row", () => {
  const page = readFileSync(join(root, "docs/security.md"), "utf8");
  const rows = rowsOf(page);
  assert.ok(rows.length >= 200);
  assert.ok(rows.flatMap(({ defects }) => defects).length >= 30);
  assert.deepEqual(problemsOf(page, readSources()), []);
});

const PAGE = `# Security

## Promises

### 1. One

| test                  | file           |
| --------------------- | -------------- |
| \`one() returns 1\`     | \`tests/one_test.ts\` |
| \`two() is \${a \\| b}\` | \`tests/one_test.ts\` |

## Past defects

| defect              | test              | file           |
| ------------------- | ----------------- | -------------- |
| a CVE-2000-0001     | \`one() returns 1\` | \`tests/one_test.ts\` |
|                     | \`three() throws\`  | \`tests/two_test.ts\` |
| b, without a number | \`three() throws\`  | \`tests/two_test.ts\` |
`;
const SOURCES = new Map([
  [
    "tests/one_test.ts",
    '// a CVE-2000-0001\ntest("one() returns 1", f);\ntestWith([x], `two() is ${a | b}`, f);',
  ],
  ["tests/peer.ts", 'test("one() returns 1", f);'],
  ["tests/two_test.ts", '// CVE-2000-0001\ntestWith(\n  needs,\n  "three() throws",\n  f,\n);'],
]);

test("the test of docs/security.md accepts a page whose tests exist", () => {
  assert.equal(rowsOf(PAGE).length, 5);
  assert.deepEqual(problemsOf(PAGE, SOURCES), []);
});

/** A mistake in the page → what is replaced in it, and the problem. */
const IN_PAGE: readonly (readonly [what: string, from: string, to: string, problem: string])[] = [
  [
    "a wrong name",
    "one() returns 1",
    "one() returns",
    '9: no test "one() returns" in tests/one_test.ts',
  ],
  [
    "a wrong name of a later column",
    "three() throws",
    "throws",
    '17: no test "throws" in tests/two_test.ts',
  ],
  ["a wrong file", "tests/one_test.ts", "tests/six_test.ts", "9: no test file tests/six_test.ts"],
  [
    "a file that has no tests",
    "tests/one_test.ts",
    "tests/peer.ts",
    "9: no test file tests/peer.ts",
  ],
  [
    "a name without code",
    "`one() returns 1`",
    "one() returns 1",
    '9: no test "no code" in tests/one_test.ts',
  ],
  ["another CVE", "CVE-2000-0001", "CVE-2000-0002", "16: no CVE-2000-0002 in tests/one_test.ts"],
  ["a CVE without a row", "# Security", "# Security CVE-2000-0003", "no test for CVE-2000-0003"],
  ["a promise without a test", "## Past", "### 2. Two\n\n## Past", 'no test for "2. Two"'],
  ["other columns", "| test                  |", "| names |", 'no test for "1. One"'],
];

for (const [what, from, to, problem] of IN_PAGE) {
  test(`the test of docs/security.md finds ${what}`, () => {
    assert.ok(PAGE.includes(from));
    const found = problemsOf(PAGE.replace(from, to), SOURCES);
    assert.ok(found.includes(problem), JSON.stringify(found));
  });
}

/** A change of the tests → what is replaced in the first file, and the problem. */
const IN_TESTS: readonly (readonly [what: string, from: string, to: string, problem: string])[] = [
  ["is skipped", "test(", "test.skip(", '9: no test "one() returns 1" in tests/one_test.ts'],
  ["is a comment", "test(", "// test(", '9: no test "one() returns 1" in tests/one_test.ts'],
  ["is no test", "test(", "print(", '9: no test "one() returns 1" in tests/one_test.ts'],
  [
    "is renamed",
    "one() returns 1",
    "one() returns 1!",
    '9: no test "one() returns 1" in tests/one_test.ts',
  ],
  ["has another CVE", "// a", "// a CVE-2000-0004,", "no row for CVE-2000-0004"],
  ["has lost its CVE", "CVE-2000-0001", "", "16: no CVE-2000-0001 in tests/one_test.ts"],
];

for (const [what, from, to, problem] of IN_TESTS) {
  test(`the test of docs/security.md finds a test that ${what}`, () => {
    const source = SOURCES.get("tests/one_test.ts")!;
    assert.ok(source.includes(from));
    const changed = new Map(SOURCES).set("tests/one_test.ts", source.replace(from, to));
    const found = problemsOf(PAGE, changed);
    assert.ok(found.includes(problem), JSON.stringify(found));
  });
}
