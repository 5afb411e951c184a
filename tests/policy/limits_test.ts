/** Limits on the size of a policy: the exact limit is accepted, and one more is rejected. */

import assert from "node:assert/strict";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { definePolicy, type PolicyDocument } from "../../mod.ts";
import { loadPolicy, parsePolicy } from "../../policy/mod.ts";
import { removeSafeFolders, safeFolder, safeFolders } from "../support/safe_folder.ts";
import { needs, testWith } from "../support/suite.ts";

after(removeSafeFolders);

const refused = (pattern: RegExp) => ({ code: "ERR_UCRED_POLICY", message: pattern });

const ROOT = "version: 1\nrules: [{ name: root, when: { uid: 0 }, allow: true }]\n";
const MAX_CHARACTERS = 4_194_304;

test("parsePolicy() rejects a text of more than 4 Mi characters", () => {
  const padded = (length: number) => `${ROOT}#${"x".repeat(length - ROOT.length - 1)}`;
  assert.ok(parsePolicy(padded(MAX_CHARACTERS)).decide({ uid: 0 }).allowed);
  assert.throws(
    () => parsePolicy(padded(MAX_CHARACTERS + 1)),
    refused(
      /^Cannot use the policy: policy:1:1: it has 4194305 characters; the maximum is 4194304$/,
    ),
  );
});

test("parsePolicy() rejects more than a thousand aliases", () => {
  const aliased = (count: number) =>
    "version: 1\nrules:\n  - { name: a, when: { uid: &id 7 }, allow: true }\n" +
    `  - { name: b, when: { gid: [${Array(count).fill("*id").join(", ")}] }, allow: true }\n`;
  assert.equal(parsePolicy(aliased(1000)).decide({ uid: 1, gid: 7 }).rule, "b");
  assert.throws(() => parsePolicy(aliased(1001)), refused(/: more than 1000 aliases$/));
});

testWith(
  [safeFolders],
  "loadPolicy() rejects a file of more than 16 MiB without reading it",
  () => {
    const path = join(safeFolder(), "policy.yaml");
    writeFileSync(path, ROOT, { mode: 0o600 });
    assert.ok(loadPolicy(path).decide({ uid: 0 }).allowed);
    truncateSync(path, 16 << 20);
    assert.throws(() => loadPolicy(path), refused(/: it has 16777216 characters; the maximum is/));
    truncateSync(path, (16 << 20) + 1);
    assert.throws(
      () => loadPolicy(path),
      refused(/: it has 16777217 bytes; the maximum is 16777216$/),
    );
  },
);

const ruleOf = (when: object): PolicyDocument => ({
  version: 1,
  rules: [{ name: "r", when, allow: true }],
});

testWith([needs.oneRuntime], "parsePolicy() rejects more than a million values", () => {
  const ids = (count: number) => definePolicy(ruleOf({ uid: Array(count).fill(5) }));
  const rest = 8; // the document, its version, its rules, the rule, its fields, the list
  assert.ok(ids(1_000_000 - rest).decide({ uid: 5 }).allowed);
  assert.throws(() => ids(1_000_001 - rest), refused(/: more than 1000000 values$/));
});

testWith(
  [needs.oneRuntime],
  "parsePolicy() rejects documents of more than 16 Mi characters, and globs of more than 4096",
  () => {
    const globs = (length: number) =>
      definePolicy(ruleOf({ exe: ["x".repeat(length)], label: "y" }));
    assert.ok(globs(4096).decide({ label: "y", process: { exe: "x".repeat(4096) } }).allowed);
    assert.throws(() => globs(4097), refused(/rules\[0\]\.when\.exe\[0\]: /));
    const characters = (count: number) => {
      const left = count - "r".length;
      const lengths = [...Array(Math.floor(left / 4096)).fill(4096), left % 4096];
      return definePolicy(ruleOf({ exe: lengths.filter(Boolean).map((long) => "x".repeat(long)) }));
    };
    assert.ok(characters(16 << 20).decide({ process: { exe: "x" } }));
    assert.throws(
      () => characters((16 << 20) + 1),
      refused(/: more than 16777216 characters in all/),
    );
  },
);

test("parsePolicy() rejects more than 64 levels of nesting", () => {
  const nested = (depth: number): object => depth === 0 ? { uid: 5 } : { not: nested(depth - 1) };
  // The rules, the rule and `when` are three levels; the innermost value has no fields.
  assert.ok(definePolicy(ruleOf(nested(60))).decide({ uid: 5 }).allowed);
  assert.throws(() => definePolicy(ruleOf(nested(61))), refused(/: nested more than 64 deep$/));
});
