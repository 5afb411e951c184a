/** docs/docker-policies.md lists the vocabulary `docker`, and its policy and tables are right. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { dockerVocabulary } from "../../../interop/docker/mod.ts";

const text = readFileSync(new URL("../../../docs/docker-policies.md", import.meta.url), "utf8");

/** The cells of the rows of the table below a heading. */
function rowsOf(heading: string): string[][] {
  const [, section = ""] = new RegExp(`\n## ${heading}\n([^]*?)(?=\n## |$)`).exec(text) ?? [];
  const lines = section.split("\n").filter((line) => line.startsWith("|"));
  return lines.slice(2).map((line) =>
    line.split(/(?<!\\)\|/).slice(1, -1).map((cell) => cell.trim())
  );
}

test("docs/docker-policies.md has each action with its description", () => {
  const actions = rowsOf("Actions").map(([name, description]) => [name, description]);
  const expected = Object.entries(dockerVocabulary.actions);
  assert.deepEqual(actions, expected.map(([name, description]) => [`\`${name}\``, description]));
});

test("docs/docker-policies.md has each attribute with its type and description", () => {
  const rows = rowsOf("Attributes").map(([name, type, , description]) => [name, type, description]);
  const expected = Object.entries(dockerVocabulary.attributes);
  assert.deepEqual(
    rows,
    expected.map(([name, { type, description }]) => [`\`${name}\``, type, description]),
  );
});

test("docs/docker-policies.md names only actions of the vocabulary beside variables", () => {
  for (const cells of rowsOf("From the variables of other proxies")) {
    for (const [, name = ""] of cells.slice(1).join(" ").matchAll(/`([a-z]+\.[a-z.*]+)`/g)) {
      const prefix = name.replace(/\*+$/, "");
      const actions = Object.keys(dockerVocabulary.actions);
      assert.ok(actions.some((action) => action === name || action.startsWith(prefix)), name);
      if (!name.includes("*")) assert.ok(actions.includes(name), name);
    }
  }
});
