/** The pages of the site: their sources, their places, and the navigation. */

import { existsSync, globSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path/posix";

/** A page. Paths are relative to the root of the site, which has the folders of the project. */
export interface Page {
  /** The file of the project that the page shows; for a generated page, the name by which links refer to it. */
  readonly source: string;
  /** The HTML file. */
  readonly path: string;
  /** The Markdown file with the same content. */
  readonly twin: string;
  readonly title: string;
  /** The text, in Markdown. */
  readonly markdown: string;
  readonly kind: "document" | "reference" | "code" | "playground";
}

/** A list of links in the navigation. */
export interface Group {
  readonly title: string;
  readonly pages: readonly Page[];
}

/** Group → sources. Documents that no group lists follow under "More". */
const GROUPS: { readonly [title: string]: readonly string[] } = {
  "Start": [
    "index.md",
    "README.md",
    "docs/index.md",
    "docs/getting-started.md",
    "docs/why.md",
    "playground.md",
  ],
  "Identity": ["docs/identity.md", "docs/process.md", "docs/runtimes.md", "docs/node-lts.md"],
  "Servers and policies": [
    "docs/servers.md",
    "docs/frameworks.md",
    "docs/mcp.md",
    "docs/policy.md",
    "docs/testing.md",
    "docs/scale.md",
  ],
  "The guard": [
    "docs/guard.md",
    "docs/docker.md",
    "docs/docker-policies.md",
    "docs/dbus-guard.md",
  ],
  "Other systems": [
    "docs/dbus.md",
    "docs/dbus-policies.md",
    "docs/polkit.md",
    "docs/sudo.md",
    "docs/sudo-helper.md",
    "docs/opa.md",
  ],
  "Operation": [
    "docs/recipes.md",
    "docs/command.md",
    "docs/packages.md",
    "docs/troubleshooting.md",
  ],
  "Security": ["docs/security.md", "SECURITY.md", "docs/upstream-reports.md"],
  "More": [],
  "Benchmarks": [
    "bench/results.md",
    "bench/servers/results.md",
    "bench/policy/results.md",
    "bench/scale/results.md",
    "bench/guard/results.md",
  ],
  "Project": ["CHANGELOG.md", "CONTRIBUTING.md"],
};

const DOCUMENTS = ["*.md", "docs/**/*.md", "bench/**/results.md"];
const EXAMPLES = "examples/**/*";

export const SITE = "tools/site";

/** Reads all documents and examples of the project. The working folder is its root. */
export function projectPages(): readonly Page[] {
  const documents = globSync(DOCUMENTS).sort().map((source) =>
    documentPage(source, readFileSync(source, "utf8"))
  );
  const own = ["index.md", "playground.md"].map((name) => {
    const page = documentPage(name, readFileSync(join(SITE, name), "utf8"));
    return name === "playground.md" ? { ...page, kind: "playground" as const } : page;
  });
  // Installed packages, and the output of builds.
  const isIgnored = (name: string) => /(?:^|\/)(?:node_modules|\.[^/]+)$/.test(name);
  const examples = globSync(EXAMPLES, { exclude: isIgnored })
    .filter((file) => statSync(file, { throwIfNoEntry: false })?.isFile() === true);
  const linked = documents.flatMap(({ source, markdown }) => linkedFiles(source, markdown));
  const isCode = (file: string) => !/(?:^|\/)package-lock\.json$|\.(?:md|svg)$/.test(file);
  const files = [...new Set([...examples, ...linked])].filter(isCode).sort();
  return [
    ...own,
    ...documents,
    ...files.filter((file) => statSync(file).isFile()).map(codePage),
    ...foldersOf(files).map((folder) => folderPage(folder, files)),
  ];
}

/** Makes a page of a Markdown document. */
export function documentPage(
  source: string,
  markdown: string,
  kind: Page["kind"] = "document",
): Page {
  const [, heading] = /^# (.+)$/m.exec(markdown) ?? [];
  if (heading === undefined) throw new Error(`${source} has no heading of the first level`);
  const path = source.replace(/\.md$/, ".html");
  return { source, path, twin: source, title: heading.replaceAll("`", ""), markdown, kind };
}

/** The files and folders of the project that a document links to, except documents. */
function linkedFiles(source: string, markdown: string): readonly string[] {
  const links = markdown.replace(/^```[^]*?^```$/gm, "").matchAll(/\]\(([^)\s#]+)[^)]*\)/g);
  return [...links].map(([, target]) => target!).filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => join(dirname(source), target)).filter((file) => existsSync(file));
}

/** File extension → language of the highlighter. */
const LANGUAGES: { readonly [extension: string]: string } = {
  ts: "ts",
  js: "js",
  mjs: "js",
  json: "json",
  yaml: "yaml",
  yml: "yaml",
  xml: "xml",
  sh: "sh",
  service: "ini",
  socket: "ini",
  conf: "ini",
};

function codePage(file: string): Page {
  const text = readFileSync(file, "utf8");
  const language = LANGUAGES[file.slice(file.lastIndexOf(".") + 1)] ?? "";
  const fence = "`".repeat(
    Math.max(3, ...(text.match(/`+/g) ?? []).map(({ length }) => length + 1)),
  );
  const markdown = `# ${file}\n\n${fence}${language}\n${text.trimEnd()}\n${fence}\n`;
  return {
    ...{ source: file, path: `${file}.html`, twin: `${file}.md` },
    ...{ title: file, markdown, kind: "code" },
  };
}

/** The folders of files, and the folders of these. */
function foldersOf(files: readonly string[]): readonly string[] {
  const folders = new Set<string>();
  for (const file of files) {
    for (let at = dirname(file); at !== "."; at = dirname(at)) folders.add(at);
  }
  return [...folders].sort();
}

function folderPage(folder: string, files: readonly string[]): Page {
  const inside = files.filter((file) => file.startsWith(`${folder}/`) && statSync(file).isFile());
  const items = inside.map((file) => {
    const name = file.slice(folder.length + 1);
    return `- [${name}](${name})${summaryOf(file)}`;
  });
  const markdown = `# ${folder}\n\n${items.join("\n")}\n`;
  const path = `${folder}/index.html`;
  return {
    ...{ source: folder, path, twin: `${folder}/index.md` },
    ...{ title: folder, markdown, kind: "code" },
  };
}

/** The first sentence of the comment at the beginning of a file, as the end of a list item. */
function summaryOf(file: string): string {
  const text = readFileSync(file, "utf8");
  const [, comment] = /^\/\*\*\s*([^]*?)\*\//.exec(text) ?? /^((?:#.*\n)+)/.exec(text) ?? [];
  const sentence = comment?.replace(/^\s*[*#] ?/gm, "").replace(/\s+/g, " ").split(
    /(?<=\.) |:$/,
  )[0];
  return sentence === undefined || sentence.trim() === "" ? "" : `: ${sentence.trim()}`;
}

/** The navigation. */
export function navigation(pages: readonly Page[]): readonly Group[] {
  const bySource = new Map(pages.map((page) => [page.source, page]));
  const listed = new Set(Object.values(GROUPS).flat());
  const more = pages.filter(({ source, kind }) => kind === "document" && !listed.has(source));
  const groups = Object.entries(GROUPS).map(([title, sources]) => ({
    title,
    pages: title === "More" ? more : sources.flatMap((source) => bySource.get(source) ?? []),
  }));
  return [
    ...groups.filter(({ pages }) => pages.length > 0),
    { title: "Reference", pages: pages.filter(({ kind }) => kind === "reference") },
    { title: "Examples", pages: pages.filter(({ source }) => /^examples\/[^/]+$/.test(source)) },
  ];
}
