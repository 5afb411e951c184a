/** The index of single ids: it finds the rules about every id, and none about any other. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Candidates, Standing } from "../../core/policy/candidates.ts";
import { SingleIds } from "../../core/policy/single_ids.ts";

const END = 1_000_000;

/** The first rule that is met, and those to be asked before. */
function found(index: SingleIds, id: number): { first: number; asked: number[] } {
  const candidates = new Candidates(new Standing(END));
  index.collect(id, candidates);
  const { first } = candidates;
  const asked = [];
  for (let next = candidates.next(); next < first; next = candidates.next()) asked.push(next);
  return { first, asked };
}

/** Rule 2n is to be asked about the nth id, rule 2n + 1 is met by it. */
function indexOf(ids: readonly number[]): SingleIds {
  return new SingleIds(
    new Map(ids.map((id, position) => {
      const standing = new Standing(END);
      standing.add(2 * position, false);
      standing.add(2 * position + 1, true);
      return [id, standing];
    })),
  );
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
  test(`SingleIds finds each id, and no other: ${name}`, () => {
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
