/** Lays out a head and rows in columns, the last of which holds paths. */

/** The widest line, which fits in most terminals. */
const WIDTH = 100;

/** As wide as a cell may be. */
const MOST = 26;

/** The rows as aligned lines, indented by two. `paint` gets cells that already have their width. */
export function table(
  rows: readonly (readonly string[])[],
  paint: (cell: string, row: number, column: number) => string,
): string {
  const cut = rows.map((row) =>
    row.map((cell, x) =>
      x < row.length - 1 && cell.length > MOST ? `${cell.slice(0, MOST - 1)}…` : cell
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
      return paint(isLast ? pathEnd(cell, WIDTH - before - 2) : cell.padEnd(widths[x]!), y, x);
    });
    return `  ${cells.join("  ")}`;
  });
  return lines.join("\n");
}

/** As many of a path's last parts as fit. */
function pathEnd(path: string, room: number): string {
  if (path.length <= room) return path;
  const parts = path.split("/");
  while (parts.length > 1 && parts.join("/").length + 2 > room) parts.shift();
  return `…/${parts.join("/")}`;
}
