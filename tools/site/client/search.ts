/** Full-text search over the sections of all pages. It loads when somebody searches. */

import MiniSearch from "minisearch";

/** Number of results. */
const MAX_RESULTS = 20;

/** Characters of an excerpt. */
const MAX_EXCERPT = 140;

const entries = globalThis.ucredSearchData!;
const index = new MiniSearch<SearchEntry>({
  fields: ["title", "page", "text"],
  searchOptions: {
    boost: { title: 4, page: 2 },
    prefix: true,
    fuzzy: (term) => term.length > 4 ? 0.2 : false,
    combineWith: "AND",
    // The changes of a release mention everything.
    boostDocument: (id) => /^(?:CHANGELOG|examples)/.test(entries[id as number]!.url) ? 0.3 : 1,
  },
});
index.addAll(entries);

globalThis.ucredSearch = (query) =>
  index.search(query).slice(0, MAX_RESULTS).map(({ id, terms }) => {
    const entry = entries[id as number]!;
    return { ...entry, text: excerpt(entry.text, terms) };
  });

/** The text around the first term that it contains. */
function excerpt(text: string, terms: readonly string[]): string {
  const lower = text.toLowerCase();
  const found = terms.map((term) => lower.indexOf(term)).filter((at) => at >= 0);
  const at = found.length === 0 ? 0 : Math.min(...found);
  const start = at < MAX_EXCERPT / 2 ? 0 : text.lastIndexOf(" ", at - MAX_EXCERPT / 3) + 1;
  const end = start + MAX_EXCERPT;
  return `${start > 0 ? "…" : ""}${text.slice(start, end)}${end < text.length ? "…" : ""}`;
}
