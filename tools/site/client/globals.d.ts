// deno-lint-ignore-file no-var -- a property of globalThis is declared as a variable
/** What the scripts of the site pass to each other, and an API of browsers that TypeScript lacks. */

/** A section of a page. */
interface SearchEntry {
  readonly id: number;
  /** Relative to the root of the site. */
  readonly url: string;
  readonly page: string;
  readonly title: string;
  readonly text: string;
}

declare var ucredSearchData: readonly SearchEntry[] | undefined;

/** Returns the sections that match best, each with an excerpt as text. */
declare var ucredSearch: ((query: string) => readonly SearchEntry[]) | undefined;

/** The part of Trusted Types that the site uses. Some browsers lack it. */
declare var trustedTypes: {
  createPolicy(
    name: string,
    rules: { readonly createScriptURL: (url: string) => string },
  ): { createScriptURL(url: string): string };
} | undefined;
