/** What is wrong with a document: the first problems, and how many more there are. */

import { UcredError } from "../../errors.ts";
import { visible } from "../../text.ts";

/** More are only counted: a text of 4 MiB may have a million. */
const MAX_PROBLEMS = 100;

/** Gathers problems. */
export class Problems<P> {
  readonly first: P[] = [];
  /** How many there are beside the first. */
  more = 0;

  /** @param make Called only if it is one of the first. */
  add(make: () => P): void {
    if (this.isFull) this.more++;
    else this.first.push(make());
  }

  get isFull(): boolean {
    return this.first.length === MAX_PROBLEMS;
  }

  get isEmpty(): boolean {
    return this.first.length === 0;
  }
}

/** The error for a document: a line for each problem. */
export function policyError<P>(
  { first, more }: { readonly first: readonly P[]; readonly more: number },
  lineOf: (problem: P) => string,
  file?: string,
): UcredError {
  const lines = first.map(lineOf);
  if (more > 0) lines.push(`and ${more} more`);
  const message = `Cannot use the policy: ${lines.join("\n")}`;
  const hint = file === undefined
    ? "Mend the fields that the message names: docs/policy.md tells what each may be"
    : mendFile(file);
  return new UcredError("ERR_UCRED_POLICY", message, { hint });
}

/** The hint for a file in which something is wrong. */
export function mendFile(file: string): string {
  return visible(`Mend ${file} where the message says, and run: ucred policy check ${file}`);
}

/** A place in a document: the keys and indexes that lead there. */
export type DocumentPath = readonly (string | number)[];

/** Something wrong, and where. */
export interface Problem {
  readonly path: DocumentPath;
  /** What is wrong, and what was expected. */
  readonly message: string;
  /** It is the field itself that should not be there, not its value. */
  readonly isField?: boolean;
}
