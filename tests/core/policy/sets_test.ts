/** Sets of ids and of texts, against all members there can be; and budgets, which nothing gets around. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "../../support/properties.ts";
import { Budget, BudgetExceeded } from "../../../core/policy/analyze/budget.ts";
import {
  hasId,
  type IdRange,
  intersect,
  join,
  others,
  unite,
  writeRanges,
} from "../../../core/policy/decide/id_ranges.ts";
import { findText, hasText, type Texts } from "../../../core/policy/analyze/text_sets.ts";
import { glob, globMatches } from "./policies.ts";
import { cases } from "../../support/suite.ts";

const LAST = 2 ** 32 - 2;
const edges = [0, 1, 2, 3, 5, 8, 9, 65533, 65534, 65535, LAST - 1, LAST];
const range = fc.tuple(fc.constantFrom(...edges), fc.constantFrom(...edges))
  .map(([a, b]): IdRange => ({ first: Math.min(a, b), last: Math.max(a, b) }));
const ranges = fc.array(range, { maxLength: 6 });

test("unite(), intersect(), join() and others() return the right ids as ascending ranges that do not touch", () => {
  const all = [...new Set(edges.flatMap((id) => [id - 1, id, id + 1]))]
    .filter((id) => id >= 0 && id <= LAST);
  const isTidy = (set: readonly IdRange[]) =>
    set.every(({ first, last }, at) =>
      first <= last && (at === 0 || first > set[at - 1]!.last + 1)
    );
  fc.assert(
    fc.property(ranges, ranges, (some, more) => {
      const [a, b] = [unite(some), unite(more)];
      const both = intersect(a, b);
      const either = join(a, b);
      const rest = others(a);
      for (const set of [a, both, either, rest]) assert.ok(isTidy(set), JSON.stringify(set));
      for (const id of all) {
        const isIn = some.some(({ first, last }) => first <= id && id <= last);
        assert.equal(hasId(a, id), isIn);
        assert.equal(hasId(both, id), isIn && hasId(b, id));
        assert.equal(hasId(either, id), isIn || hasId(b, id));
        assert.equal(hasId(rest, id), !isIn);
      }
    }),
    { numRuns: cases(500) },
  );
});

test("writeRanges() writes ids, with the names of single ones that have one", () => {
  const set = [{ first: 0, last: 0 }, { first: 5, last: 9 }, { first: 12, last: 12 }];
  assert.equal(writeRanges(set), "0, 5-9, 12");
  assert.equal(writeRanges(set, (id) => id === 12 ? undefined : "root"), "0 (root), 5-9, 12");
});

const LETTERS = ["a", "b", "/", "c"];
const everyText = [""];
for (const text of everyText) {
  if (text.length < 5) { for (const letter of LETTERS) everyText.push(text + letter); }
}

const globs = fc.array(glob, { minLength: 1, maxLength: 3 });
const texts: fc.Arbitrary<Texts> = fc.record({
  in: fc.array(globs, { maxLength: 3 }),
  out: fc.oneof(fc.constant([]), fc.array(glob, { maxLength: 4 })),
});
const isIn = (set: Texts, text: string) =>
  set.in.every((globs) => globs.some((glob) => globMatches(glob, text))) &&
  !set.out.some((glob) => globMatches(glob, text));

test("findText() finds a text of the set if and only if there is one", () => {
  fc.assert(
    fc.property(texts, fc.integer({ min: 4, max: 30 }), (set, bits) => {
      let found: string | undefined;
      try {
        found = findText(set, new Budget(2 ** bits));
      } catch (error) {
        assert.ok(error instanceof BudgetExceeded && bits < 25, String(error));
        return;
      }
      if (found !== undefined) assert.ok(isIn(set, found), JSON.stringify(found));
      for (const text of found === undefined ? everyText : found === "" ? everyText.slice(1) : []) {
        assert.ok(!isIn(set, text), JSON.stringify(text));
      }
    }),
    { numRuns: cases(500) },
  );
});

test("hasText() agrees with regular expressions", () => {
  fc.assert(
    fc.property(texts, fc.constantFrom(...everyText.slice(0, 300)), (set, text) => {
      assert.equal(hasText(set, text, new Budget()), isIn(set, text));
    }),
    { numRuns: cases(500) },
  );
});

test("findText() decides simple sets without a search", () => {
  const find = (wanted: readonly string[][], out: readonly string[] = []) =>
    findText({ in: wanted, out }, new Budget(1500, 0)); // nothing of a search can be kept
  assert.equal(find([["/usr/bin/*"], ["/usr/**", "/opt/**"]]), "/usr/bin/");
  assert.equal(find([["/usr/*"], ["/usr/lib", "/usr/bin"]], ["/usr/lib"]), "/usr/bin");
  assert.equal(find([["**"]]), "a");
  assert.equal(find([]), "a");
  assert.equal(find([["a*"]], ["a", "aa", "b**"]), "ac");
  assert.equal(find([["*"]], ["*"]), undefined);
  assert.equal(find([["**a**"], ["**b**"]], ["**c**", "**b**"]), undefined);
  assert.equal(find([["x**"]], ["y", "**"]), undefined);
  assert.equal(find([["GET /a/**", "GET /b/**"], ["GET /c/**", "PUT /**"]]), undefined);
  assert.equal(find([["**"], ["*.service", "*.slice"], ["*.socket"]]), undefined);
  assert.throws(() => find([["*a"], ["b*"]]), BudgetExceeded);
});

test("Budget counts what is left, and attempts take their steps from it", () => {
  const budget = new Budget(1000, 100);
  budget.spend(1);
  assert.throws(() => budget.spend(1000), BudgetExceeded);
  budget.spend(299);
  budget.keep(60);
  assert.throws(() => budget.keep(41), BudgetExceeded);
  budget.keep(-10);
  assert.deepEqual([budget.steps, budget.cells], [700, 50]);
  const asked = budget.attempt(7, (part) => {
    assert.deepEqual([part.steps, part.cells], [100, 50]);
    part.spend(30);
    part.keep(50);
  });
  assert.deepEqual([asked, budget.steps, budget.cells], [true, 670, 50]);
  assert.equal(budget.attempt(67, (part) => part.spend(10.5)), false);
  assert.equal(
    budget.attempt(1000, (part) => part.spend(670 / 64)),
    true,
    "a hard one may take more",
  );
  assert.throws(
    () =>
      budget.attempt(1, (part) => {
        part.spend(budget.steps);
        throw new TypeError("a bug");
      }),
    TypeError,
  );
  assert.equal(budget.steps, 0);
});

test("Budget.glob() compiles each glob once while the cache has room", () => {
  const budget = new Budget();
  const first = budget.glob("a*");
  assert.equal(budget.glob("a*"), first);
  for (let at = 0; at < 50_000; at++) budget.glob(`a*${at}`);
  assert.notEqual(budget.glob("a*"), first);
  assert.throws(() => budget.glob("a".repeat(1 << 20)), BudgetExceeded);
});
