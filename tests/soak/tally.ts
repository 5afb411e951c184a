/** What the soak run has counted and found, over all servers. */

/** Counts by name. */
export const totals = new Map<string, number>();

/** Adds to a count. */
export function add(name: string, count: number): void {
  totals.set(name, (totals.get(name) ?? 0) + count);
}

/** What was wrong. */
export const problems: string[] = [];

/** What does not run, with the reason. */
export const leftOut = new Set<string>();
