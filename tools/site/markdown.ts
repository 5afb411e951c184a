/** Renders Markdown as GitHub does, with links between pages instead of links between files. */

import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path/posix";
import GithubSlugger from "github-slugger";
import hljs from "highlight.js";
import MarkdownIt, { type Token } from "markdown-it";
import { chartsAt } from "./charts.ts";
import { escapeHtml } from "./escape.ts";
import type { Page } from "./pages.ts";
import { fragmentOfPolicy } from "./playground_link.ts";

/** A heading, and the text below it. */
export interface Section {
  /** `undefined` for the text above the second heading. */
  readonly anchor: string | undefined;
  readonly level: number;
  readonly title: string;
  readonly text: string;
}

/** A rendered page. */
export interface Rendered {
  readonly html: string;
  readonly sections: readonly Section[];
  /** The local files that the page refers to, apart from pages. */
  readonly files: readonly string[];
}

hljs.registerAliases("console", { languageName: "shell" });

/** Returns a function that renders pages. */
export function renderer(pages: readonly Page[]): (page: Page) => Rendered {
  const bySource = new Map(pages.map((page) => [page.source, page]));
  const markdown = new MarkdownIt({ html: false, linkify: false });
  const { rules } = markdown.renderer;

  /** The page that is being rendered, and the local files that it refers to. */
  let page = pages[0]!;
  let files: string[] = [];

  const hrefOf = (href: string): string => {
    if (/^[a-z]+:/.test(href)) return href;
    const [path = "", anchor] = decodeURI(href).split("#");
    const file = path === "" ? page.source : join(dirname(page.twin), path).replace(/\/$/, "");
    const target = bySource.get(file);
    if (target === undefined && !existsSync(file)) throw new Error(`${page.source}: no ${href}`);
    if (target === undefined) files.push(file);
    const to = path === "" ? "" : encodeURI(pathBetween(page.path, target?.path ?? file));
    return anchor === undefined ? to : `${to}#${anchor}`;
  };

  rules["link_open"] = (tokens, at, options, _, self) => {
    const token = tokens[at]!;
    token.attrSet("href", hrefOf(String(token.attrGet("href"))));
    return self.renderToken(tokens, at, options);
  };
  rules["image"] = (tokens, at) => {
    const token = tokens[at]!;
    const { content } = token;
    const file = join(dirname(page.twin), String(token.attrGet("src")));
    files.push(file); // the Markdown file refers to it
    // The tables of the results are drawn below, in the colors of the page.
    return file.startsWith("bench/") ? "" : picture(readFileSync(file, "utf8"), content);
  };
  rules["fence"] = (tokens, at) => {
    const { content, info } = tokens[at]!;
    const language = info.trim();
    const code = hljs.getLanguage(language) === undefined
      ? escapeHtml(content)
      : hljs.highlight(content, { language }).value;
    const block = `<pre tabindex="0"><code>${code}</code></pre>\n`;
    const fragment = language === "yaml" ? fragmentOfPolicy(content) : undefined;
    if (fragment === undefined) return block;
    const href = pathBetween(page.path, "playground.html") + fragment;
    return `${block}<p class="try"><a href="${href}">Open in the playground</a></p>\n`;
  };
  rules["code_block"] = (tokens, at) =>
    `<pre tabindex="0"><code>${escapeHtml(tokens[at]!.content)}</code></pre>\n`;
  rules["heading_end"] = (tokens, at) => {
    const { tag, content, meta } = tokens[at]!;
    const label = escapeHtml(`Link to "${meta!["title"]}"`);
    return ` <a class="anchor" href="#${content}" aria-label="${label}">#</a></${tag}>\n`;
  };
  rules["table_open"] = (tokens, at) => {
    const drawing = page.source.startsWith("bench/") ? chartsAt(tokens, at) : "";
    return `${drawing}<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>\n`;
  };
  rules["table_close"] = () => "</table></div>\n";

  return (next) => {
    page = next;
    files = [];
    const tokens = markdown.parse(page.markdown, {});
    const sections = addAnchors(tokens);
    replaceStyles(tokens);
    const html = markdown.renderer.render(tokens, markdown.options, {});
    return { html, sections, files };
  };
}

/** The relative path from one page to another. */
export function pathBetween(from: string, to: string): string {
  return relative(dirname(from), to);
}

/** Gives each heading an id and a link to itself, and returns the text of each section. */
function addAnchors(tokens: Token[]): readonly Section[] {
  const slugger = new GithubSlugger();
  const sections: { -readonly [field in keyof Section]: Section[field] }[] = [];
  for (const [at, token] of tokens.entries()) {
    if (token.type === "heading_open") {
      const title = textOf(tokens[at + 1]!);
      const anchor = slugger.slug(title);
      const level = Number(token.tag.slice(1));
      token.attrSet("id", anchor);
      sections.push({ anchor: level === 1 ? undefined : anchor, level, title, text: "" });
      if (level > 1) {
        tokens[at + 2]!.type = "heading_end";
        tokens[at + 2]!.content = anchor;
        tokens[at + 2]!.meta = { title };
      }
    } else if (token.type === "inline" && tokens[at - 1]!.type !== "heading_open") {
      sections.at(-1)!.text += `${textOf(token)} `;
    } else if (token.type === "fence") {
      sections.at(-1)!.text += `${token.content} `;
    }
  }
  return sections;
}

function textOf({ children }: Token): string {
  return (children ?? []).map(({ type, content }) =>
    type === "softbreak" || type === "hardbreak" ? " " : content
  ).join("");
}

/** Replaces `style` attributes, which the Content-Security-Policy forbids, and empty header cells. */
function replaceStyles(tokens: Token[]): void {
  for (const [at, token] of tokens.entries()) {
    const style = token.attrGet("style");
    if (style !== null) {
      token.attrs = token.attrs!.filter(([name]) => name !== "style");
      const [, side] = /text-align:\s*(\w+)/.exec(String(style)) ?? [];
      if (side !== undefined) token.attrJoin("class", side);
    }
    // A header cell without text has no meaning for a screen reader.
    if (token.type === "th_open" && tokens[at + 1]!.content === "") {
      token.tag = "td";
      tokens[at + 2]!.tag = "td";
    }
  }
}

/** Puts an SVG picture into the page, so that it has the colors of the page. */
function picture(svg: string, alt: string): string {
  const drawing = svg.replace(/<!--[^]*?-->/g, "").replace(/<style>[^]*?<\/style>/g, "")
    .replace(/<title>[^]*?<\/title>/g, "")
    .replace("<svg ", `<svg role="img" aria-label="${escapeHtml(alt)}" `).replace(/\n\s*/g, "");
  return `<span class="picture" tabindex="0">${drawing.trim()}</span>`;
}
