/** Problems of a document: the first hundred, the number of further ones, and the error that lists them. */

import { type PolicyProblem, UcredError } from "../../errors.ts";
import { visible } from "../../text.ts";

/** Further problems are counted only: a text of 4 MiB may have a million. */
const MAX_PROBLEMS = 100;

/** Collects problems. */
export class Problems<P> {
  readonly first: P[] = [];
  /** How many further problems there are. */
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

/**
 * Makes the error for a policy that cannot be used. The message has a line for each problem.
 *
 * @param more How many further problems there are.
 */
export function policyError(
  problems: readonly PolicyProblem[],
  more: number,
  details: { readonly hint: string; readonly cause?: unknown },
): UcredError {
  const lines = problems.map(lineOf);
  if (more > 0) lines.push(`and ${more} more`);
  const message = `Cannot use the policy: ${lines.join("\n")}`;
  return new UcredError("ERR_UCRED_POLICY", message, { problems, ...details });
}

/** "file:line:column: message"; for a policy in code, "rules[0].when.uid: message". */
function lineOf({ message, path, file, line, column }: PolicyProblem): string {
  const parts = [file, line, column].filter((part) => part !== undefined);
  const place = parts.length > 0 ? visible(parts.join(":")) : pathText(path) || "policy";
  return `${place}: ${message}`;
}

/** "rules[0].when.uid". */
export function pathText(path: DocumentPath): string {
  return path.map((key, at) =>
    typeof key === "number" ? `[${key}]` : `${at === 0 ? "" : "."}${nameText(key)}`
  ).join("");
}

/** A field's name in a message: it may have any length, and characters that do not show. */
function nameText(key: string): string {
  return visible(key.length > 60 ? `${key.slice(0, 60)}…` : key);
}

/** The hint for a file in which something is wrong. */
export function fixFileHint(file: string): string {
  return visible(`Fix ${file} at the listed places, and run: ucred policy check ${file}`);
}

/** A place in a document: the keys and indexes that lead to it. */
export type DocumentPath = readonly (string | number)[];

/** One problem, before its place in the text is known. */
export interface Problem {
  readonly path: DocumentPath;
  /** What is wrong, and what was expected. */
  readonly message: string;
  /** Whether the field itself is unexpected, rather than its value. */
  readonly isField?: boolean;
}
