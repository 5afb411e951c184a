/** Writes the API reference as Markdown, from the declarations and docstrings of the entry points. */

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path/posix";
import GithubSlugger from "github-slugger";
import ts from "typescript";
import { documentPage, type Page } from "./pages.ts";

/** An export. Overloads and merged declarations have several nodes. */
interface Export {
  readonly name: string;
  readonly nodes: readonly Declaration[];
  /** Overloads share one file. */
  readonly file: string;
}

type Declaration =
  | ts.FunctionDeclaration
  | ts.InterfaceDeclaration
  | ts.ClassDeclaration
  | ts.TypeAliasDeclaration
  | ts.VariableStatement;

/** A docstring: the text, and the texts of its tags. */
interface Docstring {
  readonly text: string;
  readonly tags: readonly { readonly name: string; readonly text: string }[];
}

/** Makes a page for each entry point, and one that lists them. */
export function referencePages(entryPoints: { readonly [entry: string]: string }): readonly Page[] {
  /** Name → the page and the anchor of its description, in the first entry point that exports it. */
  const places = new Map<string, { readonly slug: string; readonly anchor: string }>();
  const described = new Set<string>();
  const entries = Object.entries(entryPoints).filter(([entry]) => entry !== "./cli").map(
    ([entry, file]) => {
      const slug = entry === "." ? "ucred" : entry.slice(2);
      const own: Export[] = [];
      const others: Export[] = [];
      for (const each of exportsOf(file).values()) {
        const key = `${each.file} ${each.name}`;
        (described.has(key) ? others : own).push(each);
        described.add(key);
      }
      own.sort(byName);
      others.sort(byName);
      const slugger = new GithubSlugger();
      slugger.slug(nameOfEntry(slug));
      for (const each of own) {
        const anchor = slugger.slug(titleOf(each));
        if (!places.has(each.name)) places.set(each.name, { slug, anchor });
      }
      return { slug, file, own, others };
    },
  );
  const pages = entries.map(({ slug, file, own, others }) => {
    const link: Link = (symbol, text) => {
      const place = places.get(symbol);
      if (place === undefined) return `\`${text}\``;
      return `[\`${text}\`](${place.slug === slug ? "" : `${place.slug}.md`}#${place.anchor})`;
    };
    const about = docstringOf(readFileSync(file, "utf8"));
    const again = others.map(({ name }) => link(name, name)).join(", ");
    const markdown = [
      `# ${nameOfEntry(slug)}`,
      ...docMarkdown(about, link),
      ...own.flatMap((each) => exportMarkdown(each, link)),
      ...(again === "" ? [] : [`## Also exported`, again]),
    ].join("\n\n");
    const page = documentPage(`reference/${slug}.md`, `${markdown}\n`, "reference");
    return { about, page };
  });
  const items = pages.map(({ about, page }) => {
    const [summary = ""] = about.text.split(/(?<=\.)\s/);
    const file = page.source.slice("reference/".length);
    const text = plainLinks(summary).replace(/\n/g, " ").replace(/^`ucred\/\w+`: /, "");
    return `- [\`${page.title}\`](${file}): ${text}`;
  });
  const text = "The exports of each entry point, from their docstrings.";
  const index = documentPage(
    "reference/index.md",
    `# Reference\n\n${text}\n\n${items.join("\n")}\n`,
    "reference",
  );
  return [index, ...pages.map(({ page }) => page)];
}

const nameOfEntry = (slug: string) => slug === "ucred" ? slug : `ucred/${slug}`;

/** Functions, classes and values are before types. */
function byName(a: Export, b: Export): number {
  const isType = ({ nodes: [node] }: Export) =>
    Number(ts.isInterfaceDeclaration(node!) || ts.isTypeAliasDeclaration(node!));
  return isType(a) - isType(b) || a.name.localeCompare(b.name, "en");
}

/** File → its declarations, without bodies and private parts. */
const declared = new Map<string, ts.SourceFile>();

function declarationsIn(file: string): ts.SourceFile {
  const known = declared.get(file);
  if (known !== undefined) return known;
  const { outputText } = ts.transpileDeclaration(readFileSync(file, "utf8"), {
    fileName: file,
    compilerOptions: { target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext },
  });
  const source = ts.createSourceFile(file, outputText, ts.ScriptTarget.ESNext, true);
  declared.set(file, source);
  return source;
}

/** Name → export of a file, through the files from which it exports them. */
function exportsOf(file: string): Map<string, Export> {
  const found = new Map<string, Export>();
  for (const statement of declarationsIn(file).statements) {
    if (ts.isExportDeclaration(statement)) {
      const { moduleSpecifier, exportClause } = statement;
      if (moduleSpecifier === undefined || !ts.isStringLiteral(moduleSpecifier)) continue;
      if (!moduleSpecifier.text.startsWith(".")) continue; // another package documents it
      const exports = exportsOf(join(dirname(file), moduleSpecifier.text));
      if (exportClause === undefined) {
        for (const [name, each] of exports) found.set(name, each);
      } else if (ts.isNamedExports(exportClause)) {
        for (const { name, propertyName } of exportClause.elements) {
          const each = exports.get((propertyName ?? name).text);
          if (each !== undefined) found.set(name.text, { ...each, name: name.text });
        }
      }
    } else if (isDeclaration(statement) && isExported(statement)) {
      const name = nameOf(statement);
      const nodes = [...found.get(name)?.nodes ?? [], statement];
      found.set(name, { name, nodes, file });
    }
  }
  return found;
}

function isDeclaration(node: ts.Node): node is Declaration {
  return ts.isFunctionDeclaration(node) || ts.isInterfaceDeclaration(node) ||
    ts.isClassDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isVariableStatement(node);
}

function isExported(node: Declaration): boolean {
  return node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true;
}

function nameOf(node: Declaration): string {
  if (!ts.isVariableStatement(node)) return node.name!.text;
  return (node.declarationList.declarations[0]!.name as ts.Identifier).text;
}

function titleOf({ name, nodes: [node] }: Export): string {
  return ts.isFunctionDeclaration(node!) ? `${name}()` : name;
}

type Link = (symbol: string, text: string) => string;

function exportMarkdown(each: Export, link: Link): readonly string[] {
  const { nodes } = each;
  const documented = nodes.map((node) => docstringOf(node.getFullText())).filter(({ text }) =>
    text !== ""
  );
  const code = nodes.map(signatureOf).join("\n");
  return [
    `## \`${titleOf(each)}\``,
    `\`\`\`ts\n${code}\n\`\`\``,
    ...documented.flatMap((docstring) => docMarkdown(docstring, link)),
  ];
}

const MAX_LINE = 96;

/** The declaration without its docstring. A long list of parameters has one line for each. */
function signatureOf(node: Declaration): string {
  const text = node.getText().replace(/^export (?:declare )?/, "").replaceAll(
    /^ {4,}/gm,
    (spaces) => " ".repeat(spaces.length / 2),
  );
  if (ts.isTypeAliasDeclaration(node) && ts.isUnionTypeNode(node.type) && text.length > MAX_LINE) {
    const types = node.typeParameters?.map((each) => each.getText()).join(", ");
    const members = node.type.types.map((each) => `\n  | ${each.getText()}`).join("");
    return `type ${node.name.text}${types === undefined ? "" : `<${types}>`} =${members};`;
  }
  if (!ts.isFunctionDeclaration(node) || text.length <= MAX_LINE) return plainLinks(text);
  const types = node.typeParameters?.map((each) => each.getText()).join(", ");
  const parameters = node.parameters.map((each) => `  ${each.getText()},\n`).join("");
  return `function ${node.name!.text}${types === undefined ? "" : `<${types}>`}(\n${parameters})${
    node.type === undefined ? "" : `: ${node.type.getText()}`
  };`;
}

/** The first docstring of a text. */
function docstringOf(text: string): Docstring {
  const [, comment = ""] = /^\s*\/\*\*([^]*?)\*\//.exec(text) ?? [];
  const lines = comment.split("\n").map((line) => line.replace(/^\s*\* ?/, "").trimEnd());
  const parts: { name: string; lines: string[] }[] = [{ name: "", lines: [] }];
  let isCode = false;
  for (const line of lines) {
    if (line.startsWith("```")) isCode = !isCode;
    const [, name, rest] = isCode ? [] : /^@(\w+) ?(.*)$/.exec(line.trimStart()) ?? [];
    if (name === undefined) parts.at(-1)!.lines.push(line);
    else parts.push({ name, lines: [rest!] });
  }
  const [first, ...tags] = parts.map(({ name, lines }) => ({
    name,
    text: lines.join("\n").trim(),
  }));
  return { text: first!.text, tags };
}

function docMarkdown({ text, tags }: Docstring, link: Link): readonly string[] {
  const linked = (text: string) => withLinks(text, link);
  const blocks: string[] = text === "" ? [] : [linked(text)];
  const items: string[] = [];
  for (const { name, text } of tags) {
    const [, word = "", rest = ""] = /^(\S+)\s*([^]*)$/.exec(text) ?? [];
    // A continuation line belongs to the item of the list.
    const item = (text: string) => items.push(`- ${linked(text).replace(/\n/g, "\n  ")}`);
    switch (name) {
      case "param":
        item(`\`${word}\`: ${rest}`);
        break;
      case "returns":
        item(`**Returns** ${text}`);
        break;
      case "throws": {
        const [, type, why] = /^\{(\w+)\}\s*([^]*)$/.exec(text) ?? [];
        item(type === undefined ? `**Throws** ${text}` : `**Throws** {@link ${type}}: ${why}`);
        break;
      }
      case "see":
        item(`**See** ${text}`);
        break;
      case "deprecated":
      case "experimental":
        item(`**${name[0]!.toUpperCase()}${name.slice(1)}** ${text}`);
        break;
    }
  }
  if (items.length > 0) blocks.push(items.join("\n"));
  for (const { name, text } of tags) {
    if (name !== "example") continue;
    const [, title = "", code = ""] = /^([^`\n]*)([^]*)$/.exec(text) ?? [];
    blocks.push(title === "" ? "**Example**" : `**Example:** ${title.trim()}`, code.trim());
  }
  return blocks;
}

const LINK = /\{@link(?:code|plain)?\s+([^\s}|]+)(?:[\s|]+([^}]*))?\}/g;

function withLinks(text: string, link: Link): string {
  return text.replace(LINK, (_, target: string, label = "") => {
    if (/^https?:/.test(target)) return `[${label || target}](${target})`;
    return link(target.split(".")[0]!, label || target);
  });
}

function plainLinks(text: string): string {
  return text.replace(LINK, (_, target: string, label = "") => label || target);
}
