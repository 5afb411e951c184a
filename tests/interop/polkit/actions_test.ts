/** Files with polkit's actions: reading, mistakes, and writing. */

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { UcredError } from "../../../core/errors.ts";
import { isActionId } from "../../../interop/polkit/action_id.ts";
import { formatAction, parseActions, readActions } from "../../../interop/polkit/mod.ts";
import { temporaryFolder } from "../../support/compile.ts";

const action = (id: string, more = "") =>
  `<action id="${id}"><description>d</description><message>m</message>${more}</action>`;

const file = (content: string) =>
  `<?xml version="1.0"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
${content}
</policyconfig>`;

test("parseActions() reads ids, texts without translations, defaults and annotations", () => {
  const text = file(`<vendor>Example</vendor><vendor_url>u</vendor_url><icon_name>i</icon_name>
<action id="org.example.restart">
  <description>Restart &amp; reload</description>
  <description xml:lang="de">Neu starten</description>
  <message xml:lang="de">Anmelden</message>
  <message>Authenticate</message>
  <icon_name>x</icon_name><vendor_url>u</vendor_url>
  <defaults><allow_any>auth_self</allow_any><allow_active>yes</allow_active></defaults>
  <annotate key="org.freedesktop.policykit.owner">unix-user:www-data</annotate>
</action>`);
  const [found, ...others] = parseActions(text, "a.policy");
  assert.deepEqual(others, []);
  assert.deepEqual({ ...found, annotations: { ...found!.annotations } }, {
    id: "org.example.restart",
    description: "Restart & reload",
    message: "Authenticate",
    vendor: "Example",
    defaults: { any: "auth_self", inactive: "no", active: "yes" },
    annotations: { "org.freedesktop.policykit.owner": "unix-user:www-data" },
    file: "a.policy",
    line: 6,
  });
  const [bare] = parseActions(file(action("a.b")), "a.policy");
  assert.deepEqual({ ...bare, annotations: { ...bare!.annotations } }, {
    ...{ id: "a.b", description: "d", message: "m", annotations: {}, file: "a.policy", line: 5 },
    defaults: { any: "no", inactive: "no", active: "no" },
  });
});

const defaults = (text: string) => file(action("a.b", `<defaults>${text}</defaults>`));

for (
  const [what, text, message] of [
    ["another root", "<busconfig/>", "a.policy:1:1: its root is not <policyconfig>"],
    ["no element", "", "a.policy:1:1: missing root element"],
    [
      "a tag that does not end",
      "<policyconfig>",
      "a.policy:1:1: unclosed xml tag(s): policyconfig",
    ],
    ["two roots", "<policyconfig/><policyconfig/>", /^a\.policy:1:\d+: /],
    ["a repeated attribute", '<policyconfig a="1" a="2"/>', /^a\.policy:1:1: .*redefined/],
    [
      "an entity of its own",
      `<!DOCTYPE a [<!ENTITY e "x">]><policyconfig>&e;</policyconfig>`,
      /entity/,
    ],
    ["an action without an id", file("<action/>"), /^a\.policy:5:1: an action requires an id/],
    ["a malformed id", file(action("a b.c")), /^a\.policy:5:1: an action requires an id/],
    [
      "an action twice",
      file(action("a.b") + "\n" + action("a.b")),
      /:6:1: a\.b is declared in line 5/,
    ],
    ["an unknown element", file("<actions/>"), /:5:1: <policyconfig> has no element <actions>/],
    ["an unknown part", file(action("a.b", "<allow/>")), /: <action> has no element <allow>/],
    ["an unknown default", defaults("<allow_all>yes</allow_all>"), /no element <allow_all>/],
    ["an unknown result", defaults("<allow_any>maybe</allow_any>"), /"maybe" is none of no, yes/],
    ["a default without allow_", defaults("<any>yes</any>"), /no element <any>/],
    [
      "an annotation without a key",
      file(action("a.b", "<annotate>x</annotate>")),
      /requires a key/,
    ],
    ["no description", file('<action id="a.b"><message>m</message></action>'), /no <description>/],
    ["no message", file('<action id="a.b"><description>d</description></action>'), /no <message>/],
  ] as const
) {
  test(`parseActions() rejects ${what}, with its position`, () => {
    assert.throws(() => parseActions(text, "a.policy"), (error: unknown) => {
      assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY");
      const prefix = "Cannot read polkit's actions: ";
      assert.ok(error.message.startsWith(prefix));
      const rest = error.message.slice(prefix.length);
      if (typeof message === "string") assert.equal(rest, message);
      else assert.match(rest, message);
      assert.equal(error.problems?.[0]?.file, "a.policy");
      assert.ok(error.problems[0].line! >= 1 && error.problems[0].column! >= 1);
      return true;
    });
  });
}

test("parseActions() rejects 101 nested elements and 4 million characters", () => {
  const nested = `${"<action>".repeat(101)}${"</action>".repeat(101)}`;
  assert.throws(() => parseActions(nested, "a"), { message: /more than 100 elements are nested/ });
  assert.throws(() => parseActions(" ".repeat(4_000_001), "a"), { message: /more than 4000000/ });
});

test("readActions() reads all folders, and the first one with an action wins", () => {
  const root = temporaryFolder();
  const [first, second, missing] = ["1", "2", "3"].map((name) => join(root, name)) as [
    string,
    string,
    string,
  ];
  for (const folder of [first, second]) mkdirSync(folder);
  writeFileSync(join(first, "x.policy"), file(action("b.c", "<vendor>first</vendor>")));
  const others = ["b.c", "a.b", "a.d", "a.c"].map((id) => action(id));
  writeFileSync(join(second, "x.policy"), file(others.join("")));
  writeFileSync(join(second, "x.txt"), "no action");
  for (const name of ["c", "b", "a"]) {
    const vendor = `<vendor>${name}</vendor>`;
    writeFileSync(join(first, `${name}.policy`), file(action("x.y", vendor)));
  }
  const found = readActions([first, second, missing]).map(({ id, vendor }) => [id, vendor]);
  const rest = [["a.b", undefined], ["a.c", undefined], ["a.d", undefined]];
  assert.deepEqual(found, [...rest, ["b.c", "first"], ["x.y", "a"]]);
});

test("readActions() rejects a folder or a file that it cannot read", () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, "x.policy"));
  for (const path of [folder, "/dev/null"]) {
    assert.throws(() => readActions([path]), {
      code: "ERR_UCRED_PERMISSION",
      message: /^Cannot read polkit's actions: .*(?:EISDIR|ENOTDIR)/,
      hint: "Allow this process to read the file",
    });
  }
});

test("isActionId() accepts texts of at most 255 characters alone", () => {
  assert.equal(isActionId(`a.${"b".repeat(253)}`), true);
  for (const value of [`a.${"b".repeat(254)}`, ["a.b"], "a", "a.b\n", ".a", "a..b", 5, undefined]) {
    assert.equal(isActionId(value), false, String(value));
  }
});

test("formatAction() writes what parseActions() reads", () => {
  const wanted = {
    id: "org.example.restart",
    description: `Restart <"it"> & more`,
    message: "m",
    vendor: "v",
    defaults: { any: "no", inactive: "auth_self_keep", active: "yes" },
    annotations: { "a&b": "<c>" },
  } as const;
  const [found] = parseActions(formatAction(wanted), "f");
  const { file: _, line: _line, ...rest } = found!;
  assert.deepEqual({ ...rest, annotations: { ...rest.annotations } }, wanted);
  const bare = formatAction({ id: "a.b", description: "d", message: "m" });
  assert.deepEqual(parseActions(bare, "f")[0]!.defaults, {
    ...{ any: "auth_admin", inactive: "auth_admin", active: "auth_admin_keep" },
  });
  assert.throws(() => formatAction({ ...wanted, id: "a" }), { name: "TypeError" });
  const defaults = { ...wanted.defaults, any: "maybe" as "no" };
  assert.throws(() => formatAction({ ...wanted, defaults }), { name: "TypeError" });
});
