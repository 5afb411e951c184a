/** Tests of id sets, id conditions of rules and globs, each against a naive implementation. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "../../support/properties.ts";
import type { CheckedCondition } from "../../../core/policy/decide/condition.ts";
import { compileGlob } from "../../../core/policy/decide/glob.ts";
import { hasId, unite } from "../../../core/policy/decide/id_ranges.ts";
import { idConditionsOf } from "../../../core/policy/decide/id_index.ts";
import { cases } from "../../support/suite.ts";

const id = fc.oneof(fc.nat(40), fc.integer({ min: 2 ** 32 - 20, max: 2 ** 32 - 2 }));
const range = fc.tuple(id, id).map(([a, b]) => ({ first: Math.min(a, b), last: Math.max(a, b) }));
const ranges = fc.array(range, { maxLength: 12 });

test("hasId() finds exactly the ids of a united set", () => {
  fc.assert(
    fc.property(ranges, id, (ranges, id) => {
      const united = unite(ranges);
      assert.equal(hasId(united, id), ranges.some(({ first, last }) => first <= id && id <= last));
      for (const [at, { first, last }] of united.entries()) {
        assert.ok(first <= last && (at === 0 || united[at - 1]!.last + 1 < first));
      }
    }),
  );
});

test("hasId() finds an id among a hundred thousand ranges", () => {
  const many = unite(
    Array.from({ length: 100_000 }, (_, i) => ({ first: 10 * i, last: 10 * i + 4 })),
  );
  for (let i = 0; i < 1_000_000; i += 7) assert.equal(hasId(many, i), i % 10 < 5);
  assert.equal(hasId(many, 1_000_004), false);
});

const uid = (uid: number): CheckedCondition => ({
  kind: "uid",
  ranges: [{ first: uid, last: uid }],
  text: "",
});
const group = (gid: number): CheckedCondition => ({
  kind: "group",
  ranges: [{ first: gid, last: gid }],
  text: "",
});
const label: CheckedCondition = { kind: "label", globs: ["x"], text: "" };
const any = (...of: CheckedCondition[]): CheckedCondition => ({ kind: "any", of });
const all = (...of: CheckedCondition[]): CheckedCondition => ({ kind: "all", of });

test("idConditionsOf() unites the id conditions of an `any`, and is undefined when one has none", () => {
  const kinds = (condition: CheckedCondition) => idConditionsOf(condition)?.map(({ kind }) => kind);
  assert.deepEqual(kinds(any(uid(1), group(2), all(label, uid(3)))), ["uid", "group", "uid"]);
  assert.equal(kinds(any(uid(1), label)), undefined);
  assert.equal(kinds({ kind: "not", of: uid(1) }), undefined);
  assert.deepEqual(kinds(all(any(uid(1), label), group(2))), ["group"]);
  assert.deepEqual(kinds(all(group(2), any(uid(1), uid(4)))), ["uid", "uid"], "uids are one's own");
  assert.deepEqual(kinds(all(any(uid(1), uid(4)), group(2))), ["uid", "uid"]);
});

test("compileGlob() agrees with its regular expression", () => {
  const piece = fc.constantFrom("*", "**", "a", "b", "/", "ab", ".", "\u{1f980}");
  const glob = fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join(""));
  const text = fc.array(fc.constantFrom("a", "b", "/", ".", "\n", "\u{1f980}"), { maxLength: 10 })
    .map((letters) => letters.join(""));
  let matches = 0;
  fc.assert(
    fc.property(glob, text, (glob, text) => {
      const source = glob.split(/(\*+)/).map((part) =>
        part === "*" ? "[^/]*" : part.startsWith("**") ? "[^]*" : part.replaceAll(".", "\\.")
      ).join("");
      const expected = new RegExp(`^${source}$`, "u").test(text);
      if (expected) matches++;
      assert.equal(compileGlob(glob)(text), expected, JSON.stringify([glob, text]));
    }),
    { numRuns: cases(5000) },
  );
  assert.ok(matches > 50 || cases(5000) < 5000);
});

test("compileGlob() agrees with its regular expression for many stars and long texts", () => {
  for (
    const [glob, text, expected] of [
      ["*a/*b/**c*", "xa/xb/x/y/cz", true],
      ["*a/*b/**c*", "xa/x/xb/c", false],
      ["**/a*b/**", `/${"a/".repeat(1000)}axb/`, true],
      ["**/a*b/**", `/${"ax/".repeat(1000)}b/`, false],
      ["**/a/*/b*", `${"/a/x".repeat(1000)}/b`, true],
      ["*/b*/c", "/bb/b/c", false],
      ["**aa*aa**aa", "aaaaaa", true],
      ["**aa*aa**aa", "aaaaa", false],
      ["**a/b*a/b**", "a/ba/b", true],
      ["*/*/", "a//", true],
      // A match between the segments in which the star before it can end.
      ["**a*b**", "xa/bbb/a/b", false],
      ["**a*b**", "a/b/ab", true],
      ["**a*b*c", "a/b/axb/c", false],
      ["**a*b*c", "a/b/axbxc", true],
    ] as const
  ) assert.equal(compileGlob(glob)(text), expected, `${glob} ${text}`);
});

/** How often something looks into texts while it runs, letter by letter or searching. */
function looksOf(run: () => void): number {
  let looks = 0;
  const { indexOf } = String.prototype;
  String.prototype.indexOf = function (...args) {
    looks++;
    return indexOf.apply(this, args);
  };
  try {
    run();
  } finally {
    String.prototype.indexOf = indexOf;
  }
  return looks;
}

test("compileGlob() scans a long text a few times only, when the glob begins with a star", () => {
  const globs = Array.from({ length: 40 }, (_, at) => compileGlob(`* /a${at}/**`));
  const text = `GET /${"x".repeat(60_000)}`;
  const looks = looksOf(() => assert.ok(!globs.some((test) => test(text))));
  assert.ok(looks <= 4 * globs.length, `${looks}`);
  // And one with a star for each segment, once for each of these.
  const deep = "/b/a".repeat(15_000);
  const all = looksOf(() => assert.equal(compileGlob("*/b*/a*/**c")(`x${deep}`), false));
  assert.ok(all <= 10 * 30_000, `${all}`);
});

test("compileGlob() checks the beginning and the end first, and they do not overlap", () => {
  for (
    const [glob, text, expected] of [
      ["ab*ba", "aba", false],
      ["ab*ba", "abba", true],
      ["ab**b", "ab", false],
      ["a*", "a", true],
      ["*a", "ba", true],
      ["", "", true],
      ["", "a", false],
      ["**", "", true],
      ["*", "a/b", false],
      ["***", "a/b", true],
    ] as const
  ) {
    assert.equal(compileGlob(glob)(text), expected, `${glob} ${text}`);
  }
});
