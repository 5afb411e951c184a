/** Text tables. The last column contains paths. */

/** Maximum length of a line, in columns. */
const MAX_WIDTH = 100;

/** Maximum width of a cell in any other column. */
const MAX_CELL_WIDTH = 26;

/**
 * Formats rows as aligned lines. The first row is the heading.
 *
 * @param paint Adds colour codes to a cell that is already padded or truncated.
 */
export function table(
  rows: readonly (readonly string[])[],
  paint: (cell: string, row: number, column: number) => string,
): string {
  const cut = rows.map((row) =>
    row.map((cell, x) =>
      x < row.length - 1 && cell.length > MAX_CELL_WIDTH
        ? `${cell.slice(0, MAX_CELL_WIDTH - 1)}…`
        : cell
    )
  );
  const widths: number[] = [];
  for (const row of cut) {
    row.forEach((cell, x) => widths[x] = Math.max(widths[x] ?? 0, cell.length));
  }
  const before = widths.slice(0, -1).reduce((sum, width) => sum + 2 + width, 0);
  const lines = cut.map((row, y) => {
    const cells = row.map((cell, x) => {
      const isLast = x === row.length - 1;
      return paint(isLast ? pathEnd(cell, MAX_WIDTH - before - 2) : cell.padEnd(widths[x]!), y, x);
    });
    return `  ${cells.join("  ")}`;
  });
  return lines.join("\n");
}

/** Truncates a path at its start, between names. */
function pathEnd(path: string, room: number): string {
  if (path.length <= room) return path;
  const parts = path.split("/");
  while (parts.length > 1 && parts.join("/").length + 2 > room) parts.shift();
  return `…/${parts.join("/")}`;
}
