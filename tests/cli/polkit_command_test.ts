/** Tests of `ucred polkit`: listing, checking and writing actions. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { file, ucred } from "../support/command.ts";

const TEXTS = ["--description", "Restart <it>", "--message", "Authenticate"];

test("polkit new prints a file that polkit actions lists", async () => {
  const args = ["--active", "yes", "--owner", "www-data", "--vendor", "Example"];
  const made = await ucred(["polkit", "new", "org.example.restart", ...TEXTS, ...args]);
  assert.deepEqual([made.code, made.err], [0, ""]);
  const path = file("org.example.policy", made.out);
  const listed = await ucred(["polkit", "actions", path]);
  assert.deepEqual([listed.code, listed.err], [0, ""]);
  assert.match(listed.out, /^org\.example\.restart +yes +auth_admin +auth_admin +Restart <it>$/m);
  const { out } = await ucred(["polkit", "actions", "--json", path]);
  const [{ line: _, ...action }] = JSON.parse(out);
  assert.deepEqual(action, {
    id: "org.example.restart",
    description: "Restart <it>",
    message: "Authenticate",
    vendor: "Example",
    defaults: { any: "auth_admin", inactive: "auth_admin", active: "yes" },
    annotations: { "org.freedesktop.policykit.owner": "unix-user:www-data" },
    file: path,
  });
});

test("polkit actions reports mistakes with their positions, and exits with 2", async () => {
  const path = file("wrong.policy", "<policyconfig>\n  <action/>\n</policyconfig>");
  const { code, out, err } = await ucred(["polkit", "actions", path]);
  assert.deepEqual([code, out], [2, ""]);
  assert.match(err, /wrong\.policy:2:3: an action requires an id/);
  const missing = await ucred(["polkit", "actions", `${path}.none`]);
  assert.equal(missing.code, 2);
  assert.match(missing.err, /Cannot read the file: ENOENT/);
});

test("polkit new rejects ids and results that polkit does not have", async () => {
  const wrong = await ucred(["polkit", "new", "restart", ...TEXTS]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /must be the id of an action/);
  const result = ["polkit", "new", "org.example.restart", ...TEXTS, "--active", "maybe"];
  const { code, err } = await ucred(result);
  assert.equal(code, 2);
  assert.match(err, /no, yes, auth_self/);
});

test("policy import polkit-rules prints a policy that the other commands can use", async () => {
  const rules = file(
    "10-example.rules",
    `polkit.addRule(function (action, subject) {
  if (action.id == "org.example.restart" && subject.isInGroup("root")) return polkit.Result.YES;
});`,
  );
  const made = await ucred(["policy", "import", "polkit-rules", rules]);
  assert.deepEqual([made.code, made.err], [0, ""]);
  const policy = file("polkit.yaml", made.out);
  const peer = ["--peer", '{"uid":7,"gid":7,"groups":[0]}'];
  const explain = ["policy", "explain", policy, ...peer, "--action", "org.example.restart"];
  assert.equal((await ucred(explain)).code, 0);
  assert.equal((await ucred([...explain.slice(0, -1), "org.example.stop"])).code, 1);
  const wrong = file("wrong.rules", "polkit.addRule(function () {\n  run();\n});");
  const { code, err } = await ucred(["policy", "import", "polkit-rules", wrong]);
  assert.equal(code, 2);
  assert.match(err, /wrong\.rules:2:3: /);
});
