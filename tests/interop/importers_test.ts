/** The files that `ucred policy import` converts, by kind. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { IMPORTERS } from "../../interop/importers.ts";
import { temporaryFolder } from "../support/compile.ts";

test("IMPORTERS convert all files, or reject", async () => {
  const folder = temporaryFolder();
  const file = (name: string, text: string) => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const rules = ["20.rules", "10.rules"].map((name) =>
    file(name, "polkit.addRule(function() { return polkit.Result.YES; });")
  );
  const { about, rules: found } = await IMPORTERS["polkit-rules"]!(rules);
  assert.deepEqual([about, found.map(({ name }) => name)], [
    "polkit",
    ["10.rules line 1", "20.rules line 1"],
  ]);
  const bus = '<busconfig><policy context="default"><allow own="a.b"/></policy></busconfig>';
  const names = await IMPORTERS["dbus"]!([file("1.conf", bus), file("2.conf", bus)]);
  assert.deepEqual(names.rules.map(({ actions }) => actions), [
    ...["own a.b", "own a.b", "connect", "see **"],
  ]);
  const missing = join(folder, "missing");
  await assert.rejects(IMPORTERS["polkit-rules"]!([...rules, missing]), {
    code: "ERR_UCRED_POLICY",
    message: /^Cannot read .*missing: ENOENT/,
    hint: "Check the path, and that this user may read the file",
  });
  await assert.rejects(IMPORTERS["sudoers"]!([missing]), {
    code: "ERR_UCRED_POLICY",
    message: /^Cannot import the sudoers file .*missing: /,
  });
  await assert.rejects(IMPORTERS["sudoers"]!(["/x", "/y", "/z"]), {
    code: "ERR_UCRED_POLICY",
    message: "Cannot import 3 files: one of them must include the others",
    hint: "Import only the main file",
  });
});
