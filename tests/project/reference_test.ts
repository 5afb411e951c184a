/** The documents as a whole: every export is documented, every link leads somewhere, no fact is missing. */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");
const documents = globSync(["*.md", "docs/**/*.md"], { cwd: root }).sort();

/** Subpath → file of every entry point: "./net" → "./servers/net.ts". */
const entryPoints: { readonly [subpath: string]: string } = JSON.parse(read("deno.json")).exports;

/** What `deno doc --lint` finds wrong with the documentation of these files. */
function documentationErrors(files: readonly string[]): string[] {
  const { stderr } = spawnSync("deno", ["doc", "--lint", ...files], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
  });
  return stderr.split("\n").filter((line) => line.startsWith("error["));
}

test("every export of every entry point is documented", () => {
  assert.ok(Object.keys(entryPoints).length >= 14);
  // These types are of hono and @opentelemetry/api, which document them.
  assert.deepEqual(documentationErrors(Object.values(entryPoints)), [
    "error[private-type-ref]: public type 'requirePeer' references private type 'MiddlewareHandler'",
    "error[private-type-ref]: public type 'measureServers' references private type 'Meter'",
    "error[private-type-ref]: public type 'measureGuard' references private type 'Meter'",
    `error[private-type-ref]: public type 'RecordOptions["tracer"]' references private type 'Tracer'`,
    `error[private-type-ref]: public type 'RecordOptions["meter"]' references private type 'Meter'`,
  ]);
});

test("an export without a docstring is reported", () => {
  const folder = mkdtempSync(join(tmpdir(), "ucred-"));
  try {
    const file = join(folder, "mod.ts");
    writeFileSync(file, "export function bare(): void {}\n");
    const [error, ...more] = documentationErrors([file]);
    assert.match(error!, /^error\[missing-jsdoc\]/);
    assert.deepEqual(more, []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("package.json and deno.json have the same entry points", () => {
  const { exports } = JSON.parse(read("package.json")) as {
    exports: { [subpath: string]: unknown };
  };
  const modules = Object.keys(exports).filter((subpath) => !subpath.endsWith(".json"));
  const expected = Object.keys(entryPoints).filter((subpath) => subpath !== "./cli");
  assert.deepEqual(modules.sort(), expected.sort());
});

/** The anchors that GitHub gives to the headings of a document. */
function anchorsIn(text: string): Set<string> {
  const headings = text.replace(/^```[^]*?^```$/gm, "").match(/^#+ .+$/gm) ?? [];
  return new Set(
    headings.map((heading) =>
      heading.replace(/^#+ /, "").toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, "").replace(
        /\s/g,
        "-",
      )
    ),
  );
}

/** The relative links of all documents: where they are, and the file and heading that they lead to. */
function relativeLinks(): { document: string; target: string; file: string; anchor?: string }[] {
  return documents.flatMap((document) => {
    const text = read(document).replace(/^```[^]*?^```$/gm, "");
    return [...text.matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target]) => {
      if (/^[a-z]+:/.test(target!)) return [];
      const [path, anchor] = target!.split("#") as [string, string | undefined];
      const file = path === "" ? document : join(dirname(document), path);
      return [{ document, target: target!, file, ...(anchor !== undefined && { anchor }) }];
    });
  });
}

test("every relative link in the documents leads to a file, and to a heading in it", () => {
  const links = relativeLinks();
  assert.ok(links.length >= 50);
  for (const { document, target, file, anchor } of links) {
    assert.ok(existsSync(join(root, file)), `${document}: ${target} does not exist`);
    if (anchor === undefined) continue;
    assert.ok(anchorsIn(read(file)).has(anchor), `${document}: ${target} has no such heading`);
  }
});

test("docs/index.md leads to each document in one click", () => {
  const linked = relativeLinks().filter(({ document }) => document === "docs/index.md")
    .map(({ file }) => file);
  for (const document of globSync("docs/*.md", { cwd: root })) {
    assert.ok(document === "docs/index.md" || linked.includes(document), document);
  }
});

test("the npm package has every document, and every file that a document links to", () => {
  const list = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [{ files }] = JSON.parse(list) as [{ files: { path: string }[] }];
  const paths = files.map(({ path }) => path);
  const isPacked = (file: string) =>
    paths.some((path) => path === file || path.startsWith(`${file}/`));
  for (const document of documents) assert.ok(isPacked(document), document);
  for (const { document, target, file } of relativeLinks()) {
    assert.ok(isPacked(file), `${document}: ${target} is not in the package`);
  }
});

test("docs/troubleshooting.md explains each code of UcredError", () => {
  const [, union] = /export type UcredErrorCode =([^;]*);/.exec(read("core/errors.ts"))!;
  const codes = union!.match(/ERR_UCRED_\w+/g)!;
  const explained = read("docs/troubleshooting.md").match(/(?<=^### )ERR_UCRED_\w+/gm);
  assert.deepEqual([...explained!].sort(), codes.sort());
});

test("each message that a heading of docs/troubleshooting.md quotes is in the source", () => {
  const source = globSync("{core,system,identity,policy,servers,guard}/**/*.ts", { cwd: root })
    .map(read).join("\n");
  const headings = read("docs/troubleshooting.md").matchAll(/^## (?:A warning )?"([^"]+)"/gm);
  const quoted = [...headings].map(([, message]) => message!);
  assert.ok(quoted.length >= 5);
  for (const message of quoted) {
    // "…" and numbers stand for values.
    for (const part of message.split(/…|\d+/).map((text) => text.trim())) {
      assert.ok(source.includes(part), `"${part}" of "${message}"`);
    }
  }
});

test("README.md has at most 200 lines and lists each entry point", () => {
  const readme = read("README.md");
  assert.ok(readme.split("\n").length <= 201); // the last one is empty
  for (const subpath of Object.keys(entryPoints)) {
    const name = subpath === "./cli" ? "command `ucred`" : `\`${join("ucred", subpath)}\``;
    assert.ok(readme.includes(`| ${name} `), name);
  }
});
