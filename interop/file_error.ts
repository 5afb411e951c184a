/** The error for a file of another system that cannot be read. */

import { UcredError } from "../core/errors.ts";

/** Where a problem is. */
interface Place {
  readonly line?: number | undefined;
  readonly column?: number | undefined;
}

/**
 * Builds the error for a file that cannot be read.
 *
 * @param what Completes "Cannot …".
 */
export function fileError(
  what: string,
  file: string,
  message: string,
  place: Place,
  hint = "Correct the file, and try again",
): UcredError {
  const { line, column } = place;
  const at = line === undefined ? file : `${file}:${line}:${column ?? 1}`;
  const problems = [{ message, path: [], file, line, column }];
  return new UcredError("ERR_UCRED_POLICY", `Cannot ${what}: ${at}: ${message}`, {
    hint,
    problems,
  });
}
