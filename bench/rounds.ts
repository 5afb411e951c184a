/** Rounds of a benchmark: those in which a contender gave no result are reported and left out. */

/** What a number of rounds gave. */
export interface Rounds<T> {
  /** As many as were wanted. */
  readonly good: readonly T[];
  /** Why the other rounds are left out, one text for each. */
  readonly leftOut: readonly string[];
}

/** Thrown in a round whose numbers cannot be compared, although no answer was wrong. */
export class NoResult extends Error {}

/** A busy machine can starve this many rounds, however few are wanted. */
const MAX_LEFT_OUT = 10;

/**
 * Plays rounds until so many are good.
 *
 * @param play Throws `NoResult` if the round is to be left out.
 * @throws {Error} If too many rounds were left out, or with what else `play` throws.
 */
export async function playRounds<T>(
  wanted: number,
  play: (round: number) => Promise<T>,
): Promise<Rounds<T>> {
  const good: T[] = [];
  const leftOut: string[] = [];
  while (good.length < wanted) {
    try {
      good.push(await play(good.length + leftOut.length));
    } catch (error) {
      if (!(error instanceof NoResult)) throw error;
      leftOut.push(error.message);
      if (leftOut.length > Math.max(wanted, MAX_LEFT_OUT)) {
        throw new Error(`${leftOut.length} rounds gave no result: ${error.message}`);
      }
    }
  }
  return { good, leftOut };
}
