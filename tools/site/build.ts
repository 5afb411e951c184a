/** `npm run docs`: writes the documentation site to build/docs. */

import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { htmlOf } from "./layout.ts";
import { renderer, type Section } from "./markdown.ts";
import { navigation, type Page, projectPages, SITE } from "./pages.ts";
import { referencePages } from "./reference.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const OUTPUT = "build/docs";

process.chdir(root);
const json = (file: string) => JSON.parse(readFileSync(file, "utf8"));
const { version, description: summary } = json("package.json") as {
  version: string;
  description: string;
};

function write(path: string, text: string): void {
  const file = join(OUTPUT, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

rmSync(OUTPUT, { recursive: true, force: true });
const pages = [...projectPages(), ...referencePages(json("deno.json").exports)];
const groups = navigation(pages);
const render = renderer(pages);

/** One section in the data of the search. */
interface Entry {
  readonly id: number;
  readonly url: string;
  readonly page: string;
  readonly title: string;
  readonly text: string;
}
const entries: Entry[] = [];

function addEntries({ path, title: page }: Page, sections: readonly Section[]): void {
  for (const { anchor, title, text } of sections) {
    const url = anchor === undefined ? path : `${path}#${anchor}`;
    entries.push({ id: entries.length, url, page, title, text: text.trim() });
  }
}

/** The beginning of the first paragraph, for search engines and llms.txt. */
function descriptionOf(sections: readonly Section[]): string {
  const text = sections.find(({ text }) => text !== "")?.text ?? summary;
  const [sentence = ""] = text.split(/(?<=\.)\s/);
  return sentence.trim();
}

const files = new Set<string>();
const descriptions = new Map<Page, string>();
for (const page of pages) {
  const { html, sections, files: linked } = render(page);
  for (const file of linked) files.add(file);
  const body = page.kind === "playground"
    ? html + readFileSync(join(SITE, "playground.html"), "utf8")
    : html;
  const description = descriptionOf(sections);
  descriptions.set(page, description);
  write(page.path, htmlOf(page, { body, sections, groups, version, description }));
  write(page.twin, page.markdown);
  addEntries(page, sections);
  // Links in the Markdown files lead to the sources.
  if (page.kind === "code" && statSync(page.source).isFile()) files.add(page.source);
}
for (const file of files) {
  if (!statSync(file).isFile()) continue;
  mkdirSync(dirname(join(OUTPUT, file)), { recursive: true });
  copyFileSync(file, join(OUTPUT, file));
}
// Pages that were opened as files cannot fetch JSON, but can load a script.
write("search-data.js", `globalThis.ucredSearchData = ${JSON.stringify(entries)};\n`);
for (const file of ["site.css", "icon.svg"]) copyFileSync(join(SITE, file), join(OUTPUT, file));

const list = groups.map(({ title, pages }) =>
  `## ${title}\n\n${
    pages.map((page) => `- [${page.title}](${page.twin}): ${descriptions.get(page)}`).join("\n")
  }\n`
);
write("llms.txt", `# ucred\n\n> ${summary}\n\n${list.join("\n")}`);

const accounts = resolve(SITE, "client/accounts.ts");
await build({
  entryPoints: ["site", "search", "playground"].map((name) => `${SITE}/client/${name}.ts`),
  outdir: OUTPUT,
  bundle: true,
  minify: true,
  format: "iife",
  platform: "browser",
  target: "es2023",
  legalComments: "eof",
  logLevel: "warning",
  // A browser has no accounts: the names are those of a table on the page.
  plugins: [{
    name: "accounts",
    setup: ({ onResolve }) => {
      onResolve({ filter: /\/system\/accounts\.ts$/ }, () => ({ path: accounts }));
    },
  }],
});
console.log(`Wrote ${pages.length} pages: ${OUTPUT}/index.html`);
