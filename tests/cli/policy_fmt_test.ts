/** Tests of `ucred policy fmt`. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import {
  chmodSync,
  chownSync,
  lstatSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { parsePolicy, readData } from "../../policy/parse.ts";
import { ucred } from "../support/command.ts";
import { temporaryFolder } from "../support/compile.ts";

const folder = temporaryFolder();

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const fmt = (...args: readonly string[]) => ucred(["policy", "fmt", ...args]);

const UGLY = `# who may enter
version:   1


rules:
    # the operators
    - {name: "a",   when: {uid: "1-9"}, allow:   true}   # all of them
    - name: b
      when:
          uid:   0
      allow: [ read,write ]
`;

const NEAT = `# who may enter
version: 1

rules:
  # the operators
  - { name: "a", when: { uid: "1-9" }, allow: true } # all of them
  - name: b
    when:
      uid: 0
    allow: [ read, write ]
`;

test("policy fmt formats a file in one step, and keeps comments, mode, owner and links", async () => {
  const path = file("ugly.yaml", UGLY);
  chmodSync(path, 0o640);
  if (process.geteuid?.() === 0) chownSync(path, 1500, 1600);
  const { uid, gid, ino } = statSync(path);
  const link = join(folder, "link.yaml");
  symlinkSync(path, link);
  const ran = await fmt(link);
  assert.deepEqual([ran.code, ran.out, ran.err], [0, `${link}\n`, ""]);
  assert.equal(readFileSync(path, "utf8"), NEAT);
  assert.ok(lstatSync(link).isSymbolicLink());
  const after = statSync(path);
  assert.deepEqual([after.uid, after.gid, after.mode & 0o7777], [uid, gid, 0o640]);
  assert.notEqual(after.ino, ino);
  assert.deepEqual(readdirSync(dirname(path)).filter((name) => name.endsWith(".tmp")), []);
  const again = await fmt(link);
  assert.deepEqual([again.code, again.out], [0, ""]);
});

test("policy fmt --check lists files that are not formatted, and changes none", async () => {
  const [ugly, neat] = [file("c.yaml", UGLY), file("d.yaml", NEAT)];
  const ran = await fmt("--check", ugly, neat);
  assert.deepEqual([ran.code, ran.out.trim()], [1, ugly]);
  assert.equal(readFileSync(ugly, "utf8"), UGLY);
  assert.equal((await fmt("--check", neat)).code, 0);
});

test("policy fmt does not change a file with errors, and formats the others", async () => {
  const bad = file("bad.yaml", "version: 1\nrules: [\n");
  const anchored = file("twice.yaml", "version: 1\nversion: 1\n");
  const ugly = file("e.yaml", UGLY);
  const ran = await fmt(bad, anchored, ugly);
  assert.equal(ran.code, 2);
  assert.match(ran.err, /bad\.yaml:3:1: /);
  assert.match(ran.err, /twice\.yaml:2:1: /);
  assert.equal(readFileSync(bad, "utf8"), "version: 1\nrules: [\n");
  assert.equal(readFileSync(ugly, "utf8"), NEAT);
  const escaped = file(
    "escaped.yaml",
    'version:   1\nrules: [{ name: "a\\u2028", allow: true }]\n',
  );
  assert.match((await fmt(escaped)).err, /cannot be formatted, because its meaning would change/);
  assert.match(readFileSync(escaped, "utf8"), /^version: {3}1/);
  const latin = file("latin.yaml", "");
  const bytes = Buffer.from('version:   1\nrules: [{ name: "\xe9", allow: true }]\n', "latin1");
  writeFileSync(latin, bytes);
  assert.match((await fmt(latin)).err, /latin\.yaml is not in UTF-8/);
  assert.deepEqual(readFileSync(latin), bytes);
  const missing = await fmt(join(folder, "none.yaml"));
  assert.equal(missing.code, 2);
  assert.match(missing.err, /none\.yaml: no such file/);
});

test("policy fmt keeps the meaning of aliases, quotes, block texts and JSON", async () => {
  const texts = [
    '{"version":1,"rules":[{"name":"\\u00e9","when":{"uid":["1-3",7]},"allow":true}]}',
    "version: 1\nrules:\n- name: a\n  when: {user: 'root'}\n  deny: >-\n    two\n    lines\n",
    "version: 1\nrules:\n- &a {name: a, when: {uid: 1}, allow: true}\n",
    `version: 1\nrules: [{name: long, when: {uid: [${[...Array(80).keys()]}]}, allow: true}]\n`,
  ];
  for (const [at, text] of texts.entries()) {
    const path = file(`keep${at}.yaml`, text);
    const ran = await fmt(path);
    assert.equal(ran.code, 0, ran.err);
    parsePolicy(text);
    const [before, after] = [text, readFileSync(path, "utf8")].map(readData);
    assert.deepEqual(after, before);
    assert.equal((await fmt("--check", path)).code, 0, "a second run changes nothing");
  }
  JSON.parse(readFileSync(join(folder, "keep0.yaml"), "utf8"));
});
