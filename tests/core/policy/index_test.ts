/** The indexes by id: they find the rules about every id, and none about any other. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "../../support/properties.ts";
import { Candidates, RuleBucket } from "../../../core/policy/decide/candidates.ts";
import { type Guarded, IdIndex } from "../../../core/policy/decide/id_index.ts";
import { cases } from "../../support/suite.ts";

const END = 1_000_000;

/** The first rule that is met, and those to be asked before. */
function found(index: IdIndex, id: number): { first: number; asked: number[] } {
  const candidates = new Candidates(new RuleBucket(END));
  index.collect(id, candidates);
  const { first } = candidates;
  const asked = [];
  for (let next = candidates.next(); next < first; next = candidates.next()) asked.push(next);
  return { first, asked };
}

/** The nth id has rule 2n, which has further conditions, and rule 2n + 1, which has none. */
function indexOf(ids: readonly number[]): IdIndex {
  const rules = ids.flatMap((id, at): Guarded[] => {
    const ranges = [{ first: id, last: id }];
    return [
      { position: 2 * at, ranges, isMet: false },
      { position: 2 * at + 1, ranges, isMet: true },
    ];
  });
  return new IdIndex(rules, END);
}

const MOST = 2 ** 32 - 2;
const sequence = (length: number, id: (index: number) => number) =>
  Array.from({ length }, (_, i) => id(i));

for (
  const [name, ids] of Object.entries({
    "no ids": [],
    "one id, the least": [0],
    "one id, the greatest": [MOST],
    "ids in a row": sequence(3000, (i) => 1000 + i),
    "ids in a row, to the greatest": sequence(3000, (i) => MOST - i),
    "ids that differ in their first bits only": sequence(4096, (i) => i * 2 ** 20),
    "ids all over the place": sequence(5000, (i) => Math.imul(i, 0x85ebca6b) >>> 0),
  })
) {
  test(`IdIndex finds exactly the rules of each single id: ${name}`, () => {
    const index = indexOf(ids);
    for (const [position, id] of ids.entries()) {
      assert.deepEqual(found(index, id), { first: 2 * position + 1, asked: [2 * position] });
    }
    const known = new Set(ids);
    const others = [
      0,
      1,
      999,
      65534,
      2 ** 31,
      MOST,
      ...ids.flatMap((id) => [id - 1, id + 1, id ^ 64]),
    ];
    for (const id of others.map((id) => id >>> 0)) {
      if (!known.has(id)) assert.deepEqual(found(index, id), { first: END, asked: [] }, `${id}`);
    }
  });
}

const RANGES: { readonly [shape: string]: (at: number) => readonly [number, number] } = {
  "windows that slide": (at) => [at * 10, at * 10 + 1_000_000],
  "one in another": (at) => [1_000_000 - at * 20, 1_000_020 + at * 20],
  "one around another": (at) => [at * 20, 2_000_000 - at * 20],
  "all from one id on": (at) => [1000, 1100 + at * 10],
};

for (const [shape, rangeOf] of Object.entries(RANGES)) {
  test(`IdIndex skips rules behind an unconditional one, however ranges overlap: ${shape}`, () => {
    const ranges = sequence(10_000, (at) => at).map(rangeOf);
    const index = new IdIndex(
      ranges.map(([first, last], position) => ({
        position,
        ranges: [{ first, last }],
        isMet: true,
      })),
      END,
    );
    for (const id of [0, 999, 1000, 1099, 50_000, 999_999, 1_000_020, 1_099_990, 1_200_000, MOST]) {
      const first = ranges.findIndex(([first, last]) => first <= id && id <= last);
      assert.deepEqual(found(index, id), { first: first < 0 ? END : first, asked: [] }, `${id}`);
    }
  });
}

test("IdIndex agrees with a scan of all rules, also when too many ranges overlap", () => {
  // Each base is doubled to so many rules that there is no more room to list them.
  const id = fc.oneof(fc.nat(300), fc.constantFrom(65534, 2 ** 31, MOST - 1, MOST));
  const range = fc.tuple(id, id).map(([a, b]) => ({ first: Math.min(a, b), last: Math.max(a, b) }));
  const guarded = fc.tuple(fc.array(range, { minLength: 1, maxLength: 3 }), fc.nat(9));
  const bases = fc.array(guarded, { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(bases, fc.constantFrom(1, 60), fc.array(id), (bases, times, ids) => {
      const rules = sequence(bases.length * times, (at) => at).map((position): Guarded => {
        const [ranges, dice] = bases[position % bases.length]!;
        const shift = Math.floor(position / bases.length);
        return {
          position,
          ranges: ranges.map(({ first, last }) => ({
            first: Math.min(first + shift, MOST),
            last: Math.min(last + shift, MOST),
          })),
          isMet: times === 1 ? dice < 3 : dice === 0 && shift > times - 3,
        };
      });
      const index = new IdIndex(rules, END);
      for (const id of ids) {
        const about = rules.filter(({ ranges }) =>
          ranges.some(({ first, last }) => first <= id && id <= last)
        );
        const first = about.find(({ isMet }) => isMet)?.position ?? END;
        const { first: foundFirst, asked } = found(index, id);
        assert.equal(foundFirst, first);
        const missed = about.filter(({ position }) =>
          position < first && !asked.includes(position)
        );
        assert.deepEqual(missed, []);
        assert.ok(asked.every((position, at) => position > (asked[at - 1] ?? -1)));
        if (times === 1) assert.ok(asked.every((at) => about.some((rule) => rule.position === at)));
      }
    }),
    { numRuns: cases(300) },
  );
});
