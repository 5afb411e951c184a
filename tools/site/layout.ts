/** The HTML around the text of a page. */

import { escapeHtml } from "./escape.ts";
import { pathBetween, type Section } from "./markdown.ts";
import type { Group, Page } from "./pages.ts";

/**
 * The page loads its own files and nothing else. Scripts cannot parse text as HTML or load scripts, except
 * search.js and search-data.js.
 */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types ucred",
].join("; ");

/** Returns the HTML of a page. */
export function htmlOf(
  page: Page,
  { body, sections, groups, version, description }: {
    readonly body: string;
    readonly sections: readonly Section[];
    readonly groups: readonly Group[];
    readonly version: string;
    readonly description: string;
  },
): string {
  const to = (path: string) => encodeURI(pathBetween(page.path, path));
  const root = to("index.html").slice(0, -"index.html".length);
  const title = page.path === "index.html" ? "ucred" : `${page.title} – ucred`;
  const links = groups.map(({ title, pages }) => {
    const items = pages.map((each) => {
      const current = each === page ? ' aria-current="page"' : "";
      return `<li><a href="${to(each.path)}"${current}>${escapeHtml(shortTitle(each))}</a></li>`;
    });
    const isOpen = pages.includes(page) || !["Reference", "Examples"].includes(title);
    return isOpen
      ? `<h2>${escapeHtml(title)}</h2><ul>${items.join("")}</ul>`
      : `<details><summary>${escapeHtml(title)}</summary><ul>${items.join("")}</ul></details>`;
  });
  const parts = sections.filter(({ level }) => level === 2 || level === 3);
  const contents = parts.length < 3 || page.kind === "playground" ? "" : `
<nav class="contents" aria-label="On this page"><h2>On this page</h2><ul>${
    parts.map(({ anchor, level, title }) =>
      `<li class="level${level}"><a href="#${anchor}">${escapeHtml(title)}</a></li>`
    ).join("")
  }</ul></nav>`;
  const script = page.kind === "playground"
    ? `\n<script src="${root}playground.js" defer></script>`
    : "";
  return `<!DOCTYPE html>
<html lang="en" data-root="${root}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${CONTENT_SECURITY_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="${escapeHtml(description)}">
<title>${escapeHtml(title)}</title>
<link rel="stylesheet" href="${root}site.css">
<link rel="icon" href="${root}icon.svg" type="image/svg+xml">
<link rel="alternate" href="${to(page.twin)}" type="text/markdown" title="Markdown">
<script src="${root}site.js"></script>${script}
</head>
<body class="${page.kind}">
<a class="skip" href="#main">Skip to the content</a>
<header>
<a class="name" href="${root}index.html">ucred</a><span class="version">${version}</span>
<div class="search" role="search">
<input type="search" id="search" placeholder="Search" title="Press / to search" aria-label="Search the documentation" autocomplete="off" aria-controls="results">
<div id="found" hidden><p id="count" role="status"></p><ul id="results"></ul></div>
</div>
<button type="button" id="theme" aria-pressed="false">Dark</button>
<button type="button" id="menu" aria-expanded="false" aria-controls="navigation">Menu</button>
</header>
<div class="page">
<nav id="navigation" aria-label="Pages">${links.join("\n")}</nav>
<main id="main" tabindex="-1">
${body}
<footer><a href="${to(page.twin)}">This page as Markdown</a></footer>
</main>${contents}
</div>
</body>
</html>
`;
}

/** The title in the navigation. */
function shortTitle({ source, title }: Page): string {
  return SHORT_TITLES[source] ?? title.replace(/^examples\//, "");
}

const SHORT_TITLES: { readonly [source: string]: string } = {
  "index.md": "Overview",
  "README.md": "README",
  "SECURITY.md": "Report a vulnerability",
  "reference/index.md": "All entry points",
  "bench/results.md": "Peer credentials",
  "bench/servers/results.md": "Servers",
  "bench/policy/results.md": "Policies",
  "bench/guard/results.md": "The guard",
  "bench/scale/results.md": "Scale",
};
