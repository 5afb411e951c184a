/** Formulas: what they simplify to, and that a simplified formula holds for the same requests. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { all, any, type Formula, not } from "../../interop/formula.ts";
import fc from "../support/properties.ts";
import { cases } from "../support/suite.ts";

/** The value of each field of a request. */
interface Request {
  readonly user: string;
  readonly command: string;
  readonly flag: boolean;
  readonly groups: readonly string[];
}

/** Evaluates a formula as a condition of a policy: lists of texts mean any of them. */
function holds(formula: Formula, request: Request): boolean {
  if (typeof formula === "boolean") return formula;
  return Object.entries(formula).every(([name, value]) => {
    if (name === "any") return (value as Formula[]).some((each) => holds(each, request));
    if (name === "all") return (value as Formula[]).every((each) => holds(each, request));
    if (name === "not") return !holds(value as Formula, request);
    if (name === "groups") return request.groups.includes((value as { some: string }).some);
    if (name === "flag") {
      assert.equal(typeof value, "boolean");
      return request.flag === value;
    }
    const texts = [value].flat();
    assert.ok(texts.every((text) => typeof text === "string"));
    return texts.includes(request[name as "user" | "command"]);
  });
}

const TEXTS = ["a", "b"] as const;
const REQUESTS: readonly Request[] = [[], ["a"], ["b"], ["a", "b"]].flatMap((groups) =>
  TEXTS.flatMap((user) =>
    TEXTS.flatMap((command) => [true, false].map((flag) => ({ user, command, flag, groups })))
  )
);

const LEAVES: readonly Formula[] = [
  ...[true, false, { user: "a" }, { user: "b" }, { command: "a" }, { command: ["a", "b"] }],
  ...[{ user: "a", command: "b" }, { flag: true }, { flag: false }, { groups: { some: "a" } }],
  ...[{ groups: { some: "b" } }, { not: { user: "a" } }, { not: { command: "a" }, user: "b" }],
];

/** Calls of the functions, as a tree. */
type Tree =
  | { readonly leaf: Formula }
  | { readonly call: "all" | "any" | "not"; readonly of: readonly Tree[] };

function built(tree: Tree): Formula {
  if ("leaf" in tree) return tree.leaf;
  const of = tree.of.map(built);
  return tree.call === "not" ? not(of[0]!) : { all, any }[tree.call](...of);
}

function expected(tree: Tree, request: Request): boolean {
  if ("leaf" in tree) return holds(tree.leaf, request);
  const of = tree.of.map((each) => expected(each, request));
  return tree.call === "not"
    ? !of[0]
    : tree.call === "all"
    ? !of.includes(false)
    : of.includes(true);
}

const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.record({ leaf: fc.constantFrom(...LEAVES) }),
    fc.record({
      call: fc.constantFrom("all" as const, "any" as const),
      of: fc.array(tie("tree"), { maxLength: 4 }),
    }),
    fc.record({ call: fc.constant("not" as const), of: fc.tuple(tie("tree")) }),
  ),
}));

test("all(), any() and not() return formulas that hold for the same requests", () => {
  const property = fc.property(tree, (tree) => {
    const formula = built(tree);
    for (const request of REQUESTS) {
      assert.equal(holds(formula, request), expected(tree, request), JSON.stringify(formula));
    }
  });
  fc.assert(property, { numRuns: cases(500) });
});

test("all(), any() and not() remove constants, duplicates and nesting", () => {
  const [a, b, c] = [{ user: "a" }, { user: "b" }, { command: "c" }] as const;
  assert.deepEqual([all(), any(), all(a, false), any(a, true)], [true, false, false, true]);
  assert.deepEqual([all(a, true), any(a, false), all(a, a), any(a, a)], [a, a, a, a]);
  assert.deepEqual([not(true), not(false), not(a), not(not(a))], [false, true, { not: a }, a]);
  assert.deepEqual([all(a, c), all(a, b)], [{ user: "a", command: "c" }, { all: [a, b] }]);
  assert.deepEqual(all(all(a, b), { user: "d" }), { all: [a, b, { user: "d" }] });
  assert.deepEqual(any(any(a, c), { flag: true }), { any: [a, c, { flag: true }] });
  assert.deepEqual(any(a, b, c, { command: ["d", "e"] }), {
    any: [{ user: ["a", "b"] }, { command: ["c", "d", "e"] }],
  });
  assert.equal(any(a, c, not(c)), true);
  assert.deepEqual([all(true), all(a, b, true)], [true, { all: [a, b] }]);
  // Only values of one field alone become a list.
  for (
    const formulas of [
      [{ user: "a", command: "c" }, b],
      [b, { user: "a", command: "c" }],
      [all(a, b), all(b, { user: "d" })],
      [not(a), not(b)],
      [{ groups: { some: "a" } }, { groups: { some: "b" } }],
      [{ flag: true }, { flag: false }],
    ]
  ) assert.deepEqual(any(...formulas), { any: formulas });
});
