/** Rounds of a benchmark. A round without a result is reported and repeated. */

/** The results of rounds. */
export interface Rounds<T> {
  /** The requested number of results. */
  readonly results: readonly T[];
  /** One reason for each round without a result. */
  readonly skipped: readonly string[];
}

/** A round has no result, for example because the server was not scheduled. No answer was wrong. */
export class NoResult extends Error {}

/** On a busy machine this many rounds may have no result, even if fewer are requested. */
const MAX_SKIPPED = 10;

/**
 * Runs rounds until there is the requested number of results.
 *
 * @param run Runs one round. Throws `NoResult` if it has none.
 * @throws {Error} If too many rounds have no result, and any other error that `run` throws.
 */
export async function runRounds<T>(
  count: number,
  run: (round: number) => Promise<T>,
): Promise<Rounds<T>> {
  const results: T[] = [];
  const skipped: string[] = [];
  while (results.length < count) {
    try {
      results.push(await run(results.length + skipped.length));
    } catch (error) {
      if (!(error instanceof NoResult)) throw error;
      skipped.push(error.message);
      if (skipped.length > Math.max(count, MAX_SKIPPED)) {
        throw new Error(`${skipped.length} rounds gave no result: ${error.message}`);
      }
    }
  }
  return { results, skipped };
}
