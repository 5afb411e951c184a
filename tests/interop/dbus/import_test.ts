/** Policies of buses as policies of ours: what is converted, and what is refused. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { definePolicy, UcredError } from "../../../mod.ts";
import type { Lookups } from "../../../interop/dbus/configuration.ts";
import { convertBusPolicy } from "../../../interop/dbus/import.ts";
import { dbusVocabulary, importBusPolicy } from "../../../interop/dbus/mod.ts";
import { runTests } from "../../../policy/mod.ts";
import { ucred } from "../../support/command.ts";
import { temporaryFolder } from "../../support/compile.ts";
import { needs, succeeds, testWith } from "../../support/suite.ts";

const USERS: { readonly [name: string]: number } = { root: 0, bus: 102, alice: 1000 };
const GROUPS: { readonly [name: string]: number } = { root: 0, low: 10, high: 20, twin: 20 };

const lookups = (isSelinuxEnabled: boolean): Lookups => {
  const ids = { user: USERS, group: GROUPS };
  return {
    idOf: (kind, name) => Object.hasOwn(ids[kind], name) ? ids[kind][name] : undefined,
    nameOf: (kind, id) => Object.entries(ids[kind]).find(([, each]) => each === id)?.[0],
    isSelinuxEnabled: () => isSelinuxEnabled,
  };
};

/** Writes files in a new folder, and returns its path. */
function write(files: { readonly [name: string]: string | Uint8Array }): string {
  const folder = temporaryFolder();
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

const bus = (content: string) => `<busconfig>\n${content}\n</busconfig>`;
const policy = (subject: string, ...rules: readonly string[]) =>
  `<policy ${subject}>\n${rules.join("\n")}\n</policy>`;

/** Imports one file. */
function imported(content: string, isSelinuxEnabled = false) {
  const file = join(write({ "bus.conf": bus(content) }), "bus.conf");
  return convertBusPolicy([file], lookups(isSelinuxEnabled));
}

/** The message of the error, without the folder. */
function refusal(file: string, isSelinuxEnabled = false): string {
  try {
    convertBusPolicy([file], lookups(isSelinuxEnabled));
  } catch (error) {
    assert.ok(error instanceof UcredError && error.code === "ERR_UCRED_POLICY", String(error));
    return error.message.replaceAll(`${dirname(file)}/`, "");
  }
  throw new assert.AssertionError({ message: "it was imported" });
}

const onlyRule = (subject: string, rule: string) => {
  const { rules } = imported(policy(subject, rule));
  const [{ name: _, ...found }] = rules as [typeof rules[0]];
  return found;
};

const DEFAULT = 'context="default"';
const MESSAGES = ["call **", "send **"];
const NOT_UNREQUESTED = { unrequestedReply: false };
const orAbsent = (name: string, value: string) => ({
  any: [{ [name]: value }, { not: { [name]: "**" } }],
});

test("importBusPolicy() converts rules about names", () => {
  assert.deepEqual(onlyRule('user="alice"', '<allow own="org.a.B"/>'), {
    when: { user: "alice" },
    actions: "own org.a.B",
    allow: true,
  });
  assert.deepEqual(onlyRule('group="20"', '<deny own_prefix="org.a"/>'), {
    when: { group: "high" },
    actions: ["own org.a", "own org.a.**"],
    deny: true,
  });
  assert.deepEqual(onlyRule('user="1000"', '<allow own="*"/>'), {
    when: { uid: 1000 },
    actions: "own **",
    allow: true,
  });
  assert.deepEqual(onlyRule('at_console="true"', '<allow own="*"/>'), {
    actions: "own **",
    where: { atConsole: true },
    allow: true,
  });
});

test("importBusPolicy() converts rules about messages, with their asymmetries", () => {
  const rule = '<allow send_destination="org.a.B" send_interface="org.a.I" send_member="M"/>';
  assert.deepEqual(onlyRule(DEFAULT, rule), {
    actions: MESSAGES,
    where: {
      ...{ ...orAbsent("member", "M"), interface: "org.a.I" },
      ...{ destinationNames: { some: "org.a.B" }, ...NOT_UNREQUESTED },
    },
    allow: true,
  });
  // A message without an interface matches.
  assert.deepEqual(onlyRule(DEFAULT, '<deny send_interface="org.a.I" send_type="signal"/>'), {
    actions: "send signal **",
    where: { ...orAbsent("interface", "org.a.I"), requestedReply: false },
    deny: true,
  });
  const prefix = '<allow send_destination_prefix="org.a" send_requested_reply="false"/>';
  assert.deepEqual(onlyRule(DEFAULT, prefix), {
    actions: MESSAGES,
    where: { destinationNames: { some: ["org.a", "org.a.**"] } },
    allow: true,
  });
  const descriptors = '<allow receive_sender="org.a.B" receive_type="error" max_fds="0"/>';
  assert.deepEqual(onlyRule(DEFAULT, descriptors), {
    actions: "receive error **",
    where: {
      ...{ senderNames: { some: "org.a.B" }, descriptors: "0-0" },
      ...{ ...NOT_UNREQUESTED, eavesdropping: false },
    },
    allow: true,
  });
  const log = '<allow send_type="method_return" send_path="/a" log="true" send_broadcast="false"/>';
  assert.deepEqual(onlyRule(DEFAULT, log), {
    actions: "send return",
    where: { ...orAbsent("path", "/a"), destination: "**", ...NOT_UNREQUESTED },
    allow: "log",
  });
  assert.deepEqual(onlyRule(DEFAULT, '<deny send_broadcast="true" send_interface="org.a.I"/>'), {
    actions: "send signal **",
    where: {
      ...{ ...orAbsent("interface", "org.a.I"), not: { destination: "**" } },
      requestedReply: false,
    },
    deny: true,
  });
  assert.deepEqual(onlyRule(DEFAULT, '<allow send_error="org.a.E" min_fds="2"/>'), {
    actions: MESSAGES,
    where: { ...orAbsent("error", "org.a.E"), descriptors: "2-33554432", ...NOT_UNREQUESTED },
    allow: true,
  });
  assert.deepEqual(onlyRule(DEFAULT, '<deny receive_type="method_call" receive_sender="a.b"/>'), {
    actions: "receive call **",
    where: { senderNames: { some: "a.b" }, requestedReply: false },
    deny: true,
  });
  assert.deepEqual(onlyRule(DEFAULT, '<deny receive_sender="org.a.B" eavesdrop="true"/>').where, {
    ...{ senderNames: { some: "org.a.B" }, requestedReply: false, eavesdropping: true },
  });
  assert.deepEqual(onlyRule(DEFAULT, '<allow eavesdrop="true"/>'), {
    actions: "receive **",
    allow: true,
  });
});

test("importBusPolicy() accepts wildcards, the longest names, and each combination of attributes", () => {
  const name = `org.${"a".repeat(251)}`;
  const path = `/${"a".repeat(300)}`;
  const rows: readonly (readonly [rule: string, where: object | undefined])[] = [
    ['<allow send_destination="*" send_type="*"/>', NOT_UNREQUESTED],
    ['<allow send_requested_reply="false"/>', undefined],
    [`<allow own="${name}"/>`, undefined],
    [`<allow send_path="${path}"/>`, { ...orAbsent("path", path), ...NOT_UNREQUESTED }],
    ['<allow send_broadcast="true" send_type="signal"/>', {
      ...{ not: { destination: "**" }, ...NOT_UNREQUESTED },
    }],
  ];
  for (const [rule, where] of rows) assert.deepEqual(onlyRule(DEFAULT, rule).where, where, rule);
  const member = onlyRule(DEFAULT, '<allow send_member="M" send_path="/a"/>').where;
  assert.ok(member !== undefined && "all" in member);
  const { rules } = imported(
    policy('context="mandatory"', '<allow user="*"/>') + '<apparmor mode="enabled"/>',
  );
  assert.match(rules[0]!.name, /\/bus\.conf:3 <allow user="\*"\/>$/);
  const all = imported(policy(DEFAULT, '<allow send_type="signal" log="true"/>')).rules;
  assert.match(all[0]!.name, /:3 <allow send_type="signal" log="true"\/>$/);
});

test("importBusPolicy() refuses a gid that names another group", () => {
  const file = (subject: string) =>
    join(write({ "bus.conf": bus(policy(subject, '<allow own="a.b"/>')) }), "bus.conf");
  const others: Lookups = {
    ...lookups(false),
    nameOf: (kind) => kind === "group" ? "high" : "root",
  };
  assert.throws(() => convertBusPolicy([file('group="30"')], others), /there is no group "30"/);
  assert.deepEqual(convertBusPolicy([file('user="1000"')], others).rules[0]!.when, { uid: 1000 });
});

test("importBusPolicy() tests who may own the names in the files", () => {
  const testsOf = (isConsole: boolean, ...policies: readonly string[]) =>
    imported(policies.join("\n")).tests!.map(({ name, peer, action, attributes, expect }) => {
      assert.equal(action, `own ${name!.split(" ").at(-1)}`);
      assert.deepEqual(attributes, isConsole ? { atConsole: false } : undefined);
      return [name!, peer, "allow" in expect] as const;
    });
  const nobody = { uid: 4_294_967_000, gid: 4_294_967_000, groups: [] };
  const peers = {
    ...{
      others: nobody,
      low: { ...nobody, groups: ["low"] },
      high: { ...nobody, groups: ["high"] },
    },
    ...{ root: { user: "root", gid: nobody.gid, groups: [] }, alice: { ...nobody, uid: 1000 } },
  };
  const found = testsOf(
    false,
    policy(DEFAULT, '<deny own="*"/>', '<allow own_prefix="org.p"/>', '<allow user="*"/>'),
    policy('user="1000"', '<allow own="org.a"/>', '<allow own="org.a.B"/>'),
    policy('user="root"', '<allow own="*"/>', '<deny own="org.a.B"/>'),
    policy('group="high"', '<allow own="org.a.B"/>', '<deny send_type="signal"/>'),
    policy('group="low"', '<deny own="org.p"/>', '<deny own="org.a.B"/>'),
  );
  assert.deepEqual(found, [
    ["user root: own org.p.Example", peers.root, true],
    ["other users: own org.p.Example", peers.others, true],
    ["group low: own org.p", peers.low, false],
    ["user root: own org.p", peers.root, true],
    ["other users: own org.p", peers.others, true],
    ["group low: own org.a.B", peers.low, false],
    ["group high: own org.a.B", peers.high, true],
    ["user 1000: own org.a.B", peers.alice, true],
    ["user root: own org.a.B", peers.root, false],
    ["other users: own org.a.B", peers.others, false],
    ["user 1000: own org.a", peers.alice, true],
    ["user root: own org.a", peers.root, true],
    ["other users: own org.a", peers.others, false],
  ]);
  const atConsole = testsOf(
    true,
    policy(DEFAULT, '<deny own="*"/>', '<allow own="a.b"/>'),
    policy('at_console="true"', '<deny own="a.b"/>', '<allow own="a.c"/>'),
    policy('at_console="false"', '<allow own="a.d"/>'),
  );
  assert.deepEqual(atConsole.map(([name, , allowed]) => [name, allowed]), [
    ["other users: own a.b", true],
    ["other users: own a.c", false],
    ["other users: own a.d", true],
  ]);
});

test("importBusPolicy() reverses the order of dbus-daemon, in which gids order the groups", () => {
  const own = (name: string) => `<allow own="org.a.${name}"/>`;
  const { rules } = imported([
    policy('context="mandatory"', own("M")),
    policy('user="alice"', own("U")),
    policy('group="high"', own("H1")),
    policy('at_console="false"', own("C")),
    policy('group="low"', own("L")),
    policy(DEFAULT, own("D1"), own("D2")),
    policy('group="twin"', own("H2")),
  ].join("\n"));
  const names = rules.map(({ actions }) => String(actions).replace(/.*\./, ""));
  assert.deepEqual(names, ["M", "C", "U", "H2", "H1", "L", "D2", "D1", "connect", "see **"]);
});

test("importBusPolicy() lets a rule without names replace earlier ones, also if it matches less", () => {
  const { rules } = imported(policy(
    'user="alice"',
    '<allow send_destination="org.a.B"/>',
    '<deny send_broadcast="true"/>',
  ));
  assert.deepEqual([rules[0]?.actions, rules[0]?.where, rules[0]?.deny], [
    MESSAGES,
    undefined,
    true,
  ]);
  const allowing = imported(policy(
    DEFAULT,
    '<allow receive_sender="org.a.B"/>',
    '<allow receive_requested_reply="true"/>',
  )).rules;
  // The first rule has no client any more.
  assert.deepEqual(allowing.map(({ actions, allow }) => [actions, allow]), [
    ["receive **", true],
    ["receive **", undefined],
    ["connect", true],
    ["see **", true],
  ]);
  const owned = imported(policy(DEFAULT, '<allow own="org.a.B"/>', '<deny own="*"/>')).rules;
  assert.deepEqual(owned.map(({ actions }) => actions), ["own **", "connect", "see **"]);
  const first = policy(DEFAULT, '<allow send_destination="org.a.B"/>');
  const broadcasts = '<deny send_broadcast="true"/>';
  // The rules of one user replace those of others for this user alone.
  assert.equal(imported(first + policy('user="alice"', broadcasts)).rules.length, 4);
  assert.equal(imported(first + policy('context="mandatory"', broadcasts)).rules.length, 3);
});

test("importBusPolicy() keeps earlier rules if a rule has a name or a type", () => {
  const names: { readonly [attribute: string]: string } = {
    ...{ type: "signal", path: "/a", interface: "org.a.I", error: "org.a.E" },
  };
  const sent = { ...names, destination: "org.a.C", destination_prefix: "org.c" };
  const received = { ...names, sender: "org.a.C" };
  for (const [kind, attributes] of Object.entries({ send: sent, receive: received })) {
    for (const [name, value] of Object.entries(attributes)) {
      const rule = `<deny ${kind}_${name}="${value}"/>`;
      const { rules } = imported(policy(DEFAULT, `<allow ${kind}_path="/first"/>`, rule));
      assert.deepEqual(rules.map(({ allow }) => allow), [undefined, true, true, true], rule);
    }
  }
});

test("importBusPolicy() accepts connections of the user of the bus, unless rules decide", () => {
  const last = (content: string) => {
    const { name, when, allow } = imported(content).rules.at(-2)!;
    return { name: name.replace(/^.*:\d+ /, ""), when, allow };
  };
  const name = "the user of the bus";
  const own = policy(DEFAULT, '<allow own="org.a.B"/>');
  assert.deepEqual(last(own), { name, when: { sameUser: true }, allow: true });
  const users = "<user>alice</user><user>bus</user>";
  assert.deepEqual(last(users + own), { name, when: { user: "bus" }, allow: true });
  assert.deepEqual(last(policy(DEFAULT, '<deny user="*"/>')).when, undefined);
  const both = policy(DEFAULT, '<allow own="org.a.B"/>', '<deny user="*"/>');
  assert.deepEqual(last(both).when, undefined);
  const compiled = definePolicy(
    imported(policy(DEFAULT, '<allow user="*"/>', '<deny user="1000"/>')),
    { vocabularies: [dbusVocabulary] },
  );
  const connects = (uid: number) => compiled.decide({ uid }, { action: "connect" }).allowed;
  assert.deepEqual([0, 999, 1000].map(connects), [true, true, false]);
});

test("importBusPolicy() gives policies in which a missing attribute never allows", () => {
  const compiled = definePolicy(
    imported(policy(
      DEFAULT,
      '<allow send_type="method_call"/>',
      '<deny send_destination="org.a.B"/>',
      '<deny receive_sender="org.a.B"/>',
    )),
    { vocabularies: [dbusVocabulary] },
  );
  const decide = (attributes: { [name: string]: unknown }) =>
    compiled.decide({ uid: 0 }, { action: "call org.a.I.M", attributes }).allowed;
  const known = { requestedReply: false, unrequestedReply: false };
  assert.equal(decide({ ...known, destinationNames: ["org.a.C"] }), true);
  assert.equal(decide({ ...known, destinationNames: ["org.a.C", "org.a.B"] }), false);
  assert.equal(decide(known), false);
  assert.equal(decide({ destinationNames: ["org.a.C"], requestedReply: false }), false);
  assert.equal(decide({}), false);
});

test("importBusPolicy() follows <include> and <includedir>, relative to each file", () => {
  const own = (name: string) => bus(policy(DEFAULT, `<allow own="org.a.${name}"/>`));
  const folder = write({
    "bus.conf": bus(
      "<include>more/a.conf</include><includedir>d</includedir><includedir>none</includedir>" +
        '<include ignore_missing="yes">none.conf</include>' +
        '<include if_selinux_enabled="yes" selinux_root_relative="yes">none.conf</include>',
    ),
    "more/a.conf": `\uFEFF${bus("<include>b.conf</include><include>b.conf</include>")}`,
    "more/b.conf": `<?xml version="1.0" encoding="utf-8" standalone="no"?>${own("B")}`,
    "d/c.conf": own("C"),
    "d/ignored.conf.dpkg-old": "<",
    "d/.conf": own("Hidden"),
  });
  const { rules } = convertBusPolicy([join(folder, "bus.conf")], lookups(false));
  const names = rules.map(({ name }) => name.replaceAll(folder, "").replace(/ <.*\/>/, ""));
  const ofFolder = ["/d/.conf:3", "/d/c.conf:3"];
  assert.deepEqual(names.slice(0, 2).toSorted(), ofFolder);
  const [second] = names.slice(3);
  assert.equal(names[2], "/more/b.conf:3");
  assert.equal(second, "/more/b.conf:3, number 2"); // read twice, as dbus-daemon does
});

testWith([needs.linux], "importBusPolicy() reads a folder in the order of the file system", () => {
  const files: { [name: string]: string } = {};
  for (const name of ["q", "b", "z", "a", "m", "c", "y"]) {
    files[`d/${name}.conf`] = bus(policy(DEFAULT, `<allow own="org.a.${name}"/>`));
  }
  const folder = write({ ...files, "bus.conf": bus("<includedir>d</includedir>") });
  const listed = execFileSync("ls", ["-U", join(folder, "d")], { encoding: "utf8" }).trim();
  const { rules } = convertBusPolicy([join(folder, "bus.conf")], lookups(false));
  const names = rules.slice(0, -2).map(({ actions }) => String(actions).replace("own org.a.", ""));
  assert.deepEqual(names.toReversed(), listed.split("\n").map((name) => name.replace(".conf", "")));
});

/** A rule of the default policy, and why it is refused. It is at line 3, column 1. */
const REFUSED_RULES: readonly (readonly [rule: string, message: RegExp])[] = [
  ["<allow/>", /an attribute about names, messages or connections/],
  ['<allow max_fds="1"/>', /an attribute about names, messages or connections/],
  ['<deny send_destination="org.a.*"/>', /no send destination can be "org\.a\.\*": the star is no/],
  ['<deny send_destination_prefix="*"/>', /no send destination prefix can be "\*"/],
  ['<allow own_prefix="*"/>', /no own prefix can be "\*"/],
  ['<allow own="org.a.B "/>', /no own can be "org\.a\.B "/],
  ['<allow own=""/>', /no own can be ""/],
  [`<allow own="org.${"a".repeat(255)}"/>`, /no own can be/],
  ['<allow own="org"/>', /no own can be "org"/],
  ['<allow own=":1.1"/>', /no own can be ":1\.1"/],
  ['<allow send_destination_prefix=":1"/>', /no send destination prefix can be ":1"/],
  ['<deny send_interface="org"/>', /no send interface can be "org"/],
  ['<deny send_interface="org.a.I" send_member="a.b"/>', /no send member can be "a\.b"/],
  ['<deny send_path="/a/"/>', /no send path can be "\/a\/"/],
  ['<deny send_path="a"/>', /no send path can be "a"/],
  ['<deny send_type="call"/>', /no send type can be "call"/],
  ['<deny send_type="method_call" eavesdrop="yes"/>', /no eavesdrop can be "yes"/],
  ['<deny send_broadcast="TRUE"/>', /no send broadcast can be "TRUE"/],
  ['<deny send_type="signal" log="yes"/>', /no log can be "yes"/],
  ['<deny send_type="signal" min_fds="0x10"/>', /no min fds can be "0x10"/],
  ['<deny send_type="signal" min_fds="2" max_fds="1"/>', /no message has 2 to 1 file/],
  ['<deny send_type="signal" max_fds="33554433"/>', /no message has 0 to 33554433 file/],
  ['<allow send_member="M"/>', /send_member requires send_interface or send_path/],
  ['<allow receive_member="M"/>', /receive_member requires receive_interface or receive_path/],
  ['<allow send_error="org.a.E" send_interface="org.a.I"/>', /send_error excludes/],
  ['<allow send_error="org.a.E" send_member="M" send_path="/a"/>', /send_error excludes/],
  ['<allow send_destination="org.a.B" receive_sender="org.a.B"/>', /a rule cannot combine/],
  ['<allow own="org.a.B" send_destination="org.a.B"/>', /a rule cannot combine/],
  ['<allow own="org.a.B" own_prefix="org.a"/>', /a rule cannot combine own, own_prefix/],
  ['<allow user="*" group="*"/>', /a rule cannot combine user, group/],
  ['<allow own="org.a.B" eavesdrop="true"/>', /a rule cannot combine|only rules about messages/],
  ['<allow own="org.a.B" min_fds="1"/>', /only rules about messages/],
  ['<allow user="*" max_fds="1"/>', /only rules about messages|cannot combine/],
  ['<allow own="org.a.B" log="true"/>', /log has an effect only on rules about sending/],
  ['<allow receive_sender="org.a.B" log="true"/>', /log has an effect only on rules about sending/],
  [
    '<allow send_destination="org.a.B" send_destination_prefix="org.a"/>',
    /send_destination excludes send_destination_prefix/,
  ],
  ['<allow send_broadcast="true" send_destination="org.a.B"/>', /no broadcast matches the rule/],
  ['<allow send_broadcast="true" send_type="method_call"/>', /no broadcast matches the rule/],
  ['<allow send_destinations="org.a.B"/>', /cannot have the attribute "send_destinations"/],
  ['<allow SEND_TYPE="signal"/>', /cannot have the attribute "SEND_TYPE"/],
  ['<allow send_type="signal"><deny/></allow>', /<allow> cannot have the element <deny>/],
  ['<allow send_type="signal">x</allow>', /<allow> cannot have text/],
  ['<Allow send_type="signal"/>', /unknown element <Allow> in <policy>/],
  ['<allow user="nobody-there"/>', /there is no user "nobody-there" on this system/],
  ['<deny group="nobody-there"/>', /there is no group "nobody-there" on this system/],
  ['<deny user="77"/>', /there is no user "77" on this system/],
  ['<deny user="0x3e8"/>', /may read the user "0x3e8" as another number/],
  ['<deny user="01000"/>', /may read the user "01000" as another number/],
  ['<deny user="+1000"/>', /may read the user "\+1000" as another number/],
  ['<deny user=""/>', /there is no user ""/],
  ['<allow own="a.b" own="a.c"/>', /redefined/],
];

test("importBusPolicy() refuses rules that dbus-daemon rejects, ignores or never matches", () => {
  for (const [rule, message] of REFUSED_RULES) {
    const file = join(write({ "bus.conf": bus(policy(DEFAULT, rule)) }), "bus.conf");
    const found = refusal(file);
    assert.match(found, message, rule);
    assert.match(found, /^Cannot import the bus policy: bus\.conf:3:\d+: /, rule);
  }
});

/** The content of a file, and why it is refused. */
const REFUSED_FILES: readonly (readonly [content: string, message: RegExp])[] = [
  [
    bus("<policy/>"),
    /bus\.conf:2:1: <policy> must have exactly one of context, user, group, at_console/,
  ],
  [bus('<policy user="root" group="root"/>'), /<policy> must have exactly one of/],
  [bus('<policy context="Default"/>'), /<policy> cannot have context="Default"/],
  [bus('<policy at_console="yes"/>'), /<policy> cannot have at_console="yes"/],
  [bus('<policy user="*"/>'), /there is no user "\*" on this system/],
  [bus('<policy group="nobody-there"><allow own="a.b"/></policy>'), /there is no group/],
  [bus('<policy user="root"><allow user="*"/></policy>'), /no effect outside of <policy context>/],
  [
    bus('<policy at_console="true"><deny user="*"/></policy>'),
    /no effect outside of <policy context>/,
  ],
  [bus('<policy context="default">x</policy>'), /<policy> cannot have text/],
  [bus("x"), /<busconfig> cannot have text/],
  [bus("<policies/>"), /unknown element <policies>/],
  [
    bus('<listen><policy context="mandatory"/></listen>'),
    /<listen> cannot have the element <polic/,
  ],
  [bus("<allow_anonymous/>"), /a policy cannot allow anonymous clients/],
  [bus('<apparmor mode="required"/>'), /a policy cannot require AppArmor/],
  [
    bus('<selinux><associate own="a.b" context="c"/></selinux>'),
    /a policy cannot express the rules of SELinux/,
  ],
  [bus("<user>nobody-there</user>"), /there is no user "nobody-there"/],
  [bus("<user> bus</user>"), /may read the user " bus"/],
  [bus("<include>none.conf</include>"), /bus\.conf:2:1: there is no file ".*none\.conf"/],
  [bus("<include> bus.conf</include>"), /there is no file/],
  [bus('<include ignore_missing="maybe">none.conf</include>'), /ignore_missing must be yes or no/],
  [bus('<include ignore_missing="no">none.conf</include>'), /there is no file/],
  [bus("<include>none.conf<x/></include>"), /<include> cannot have the element <x>/],
  [bus("<includedir>none<x/></includedir>"), /<includedir> cannot have the element <x>/],
  [bus("<includedir>bus.conf</includedir>"), /bus\.conf:2:1: ENOTDIR/],
  [bus("<user>root<x/></user>"), /<user> cannot have the element <x>/],
  [bus("<apparmor><x/></apparmor>"), /<apparmor> cannot have the element <x>/],
  [bus('<include ignoremissing="yes">none.conf</include>'), /cannot have the attribute "ignorem/],
  [bus('<include selinux_root_relative="yes">none.conf</include>'), /rules of SELinux/],
  [bus("<include/>"), /<include> has no path/],
  [bus("<includedir/>"), /<includedir> has no path/],
  [bus("<include>bus.conf</include>"), /bus\.conf: the file includes itself/],
  [bus("<include>/dev/zero</include>"), /\/dev\/zero: it is not a regular file/],
  [bus("<include>.</include>"), /it is not a regular file/],
  ['<busconfig version="1"/>', /<busconfig> cannot have the attribute "version"/],
  ["<config/>", /the root element is <config>, not <busconfig>/],
  ['<x:busconfig xmlns:x="y"/>', /the root element is <x:busconfig>/],
  ["", /missing root element|has no element/],
  [bus("<policy"), /bus\.conf:\d+:\d+: /],
  [`<!DOCTYPE busconfig [<!ENTITY a "<deny own='*'/>">]>${bus("&a;")}`, /document type|entity/],
  [
    `<!DOCTYPE busconfig [<!ATTLIST policy context CDATA "default">]>${bus("<policy/>")}`,
    /its document type has declarations/,
  ],
  [
    `<!DOCTYPE busconfig SYSTEM "file:///etc/passwd" [ %x; ]>${bus("")}`,
    /bus\.conf:\d+:\d+: /,
  ],
  [bus("&file;"), /entity not found/],
  [`<?xml version="1.0" encoding="UTF-16"?>${bus("")}`, /declaration is not that of XML 1\.0/],
  [`<?xml version="1.1"?>${bus("")}`, /declaration is not that of XML 1\.0/],
  [bus("<x>".repeat(200) + "</x>".repeat(200)), /more than 100 elements are nested/],
  [bus('<policy\0context="default"/>'), /XML has no control characters/],
];

test("importBusPolicy() refuses files that a policy cannot express", () => {
  for (const [content, message] of REFUSED_FILES) {
    const file = join(write({ "bus.conf": content }), "bus.conf");
    assert.match(refusal(file), message, content);
  }
  const enabled = bus('<include if_selinux_enabled="yes">none.conf</include>');
  assert.match(refusal(join(write({ "bus.conf": enabled }), "bus.conf"), true), /rules of SELinux/);
  const latin = write({ "bus.conf": new Uint8Array([0x3c, 0xe9, 0x2f, 0x3e]) });
  assert.match(refusal(join(latin, "bus.conf")), /it is not in UTF-8/);
  assert.match(refusal(join(latin, "none.conf")), /none\.conf: ENOENT/);
  const sparse = join(write({ "bus.conf": "" }), "bus.conf");
  truncateSync(sparse, 16_000_001);
  assert.match(refusal(sparse), /the files have more than 16000000 bytes/);
});

test("importBusPolicy() refuses files that are too long, and too many rules and problems", () => {
  const wrong = (count: number) =>
    refusal(join(write({ "bus.conf": bus("<x/>".repeat(count)) }), "bus.conf"));
  assert.match(wrong(100), /<x>$/);
  assert.match(wrong(102), /<x>\n2 more$/);
  assert.equal(wrong(102).split("\n").length, 101);
  const large = write({ "bus.conf": bus(" ".repeat(4_000_001)) });
  assert.match(refusal(join(large, "bus.conf")), /more than 4000000 characters/);
  const rules = '<allow own="a.b"/>\n'.repeat(10_001);
  const many = write({ "bus.conf": bus(policy(DEFAULT, rules)) });
  assert.match(
    refusal(join(many, "bus.conf")),
    /bus\.conf:10003:1: there are more than 10000 rules/,
  );
});

test("importBusPolicy() refuses broken files of a folder, which dbus-daemon ignores", () => {
  const main = bus("<includedir>d</includedir>");
  const denying = bus(policy(DEFAULT, '<deny own="*"/>'));
  const folder = write({ "bus.conf": main, "d/a.conf": `${denying}<`, "d/b.conf": denying });
  assert.match(refusal(join(folder, "bus.conf")), /d\/a\.conf:\d+:\d+: /);
  const linked = write({ "bus.conf": main, "d/b.conf": denying });
  symlinkSync("nowhere", join(linked, "d/a.conf"));
  assert.match(refusal(join(linked, "bus.conf")), /d\/a\.conf: ENOENT/);
});

test("importBusPolicy() follows includes to a depth of 32 files", () => {
  const chain = (length: number) => {
    const files: { [name: string]: string } = { "bus.conf": bus("<include>1.conf</include>") };
    for (let at = 1; at < length; at++) {
      files[`${at}.conf`] = bus(at === length - 1 ? "" : `<include>${at + 1}.conf</include>`);
    }
    return join(write(files), "bus.conf");
  };
  assert.equal(convertBusPolicy([chain(32)], lookups(false)).rules.length, 2);
  assert.match(
    refusal(chain(33)),
    /32\.conf: there are more than 1000 files, or .* than 32 levels/,
  );
});

test("importBusPolicy() refuses cycles, also through links, and includes that multiply", () => {
  const folder = write({
    "bus.conf": bus("<include>a.conf</include>"),
    "a.conf": bus("<include>link.conf</include>"),
  });
  symlinkSync("bus.conf", join(folder, "link.conf"));
  assert.match(refusal(join(folder, "bus.conf")), /link\.conf: the file includes itself/);
  const files: { [name: string]: string } = { "bus.conf": bus("<include>0.conf</include>") };
  for (let at = 0; at < 20; at++) {
    files[`${at}.conf`] = bus(`<include>${at + 1}.conf</include>`.repeat(2));
  }
  files["20.conf"] = bus("");
  assert.match(refusal(join(write(files), "bus.conf")), /more than 1000 files/);
});

test("importBusPolicy() reports all problems with their places, also as data", () => {
  const folder = write({
    "bus.conf": bus(`<include>a.conf</include>\n  <policy user="x"/>`),
    "a.conf": bus('<policy context="default">\n  <deny own="*a"/><allow/></policy>'),
  });
  const file = join(folder, "bus.conf");
  assert.throws(() => convertBusPolicy([file], lookups(false)), (error: UcredError) => {
    const places = error.problems?.map(({ file, line, column }) => [file, line, column]);
    assert.deepEqual(places, [
      [join(folder, "a.conf"), 3, 3],
      [join(folder, "a.conf"), 3, 19],
      [file, 3, 3],
    ]);
    return true;
  });
});

const SYSTEM = "/usr/share/dbus-1/system.conf";

testWith(
  [{ name: "dbus-daemon's system.conf (Debian: dbus)", met: existsSync(SYSTEM) }],
  "importBusPolicy() imports the policy of the system bus",
  () => {
    const compiled = definePolicy(importBusPolicy([SYSTEM]), { vocabularies: [dbusVocabulary] });
    assert.ok(runTests(compiled).passed, String(runTests(compiled)));
    const [root, other] = [{ uid: 0, gid: 0, groups: [] }, { uid: 4321, gid: 4321, groups: [] }];
    const decide = (peer: typeof root, action: string, attributes = {}) =>
      compiled.decide(peer, { action, attributes }).allowed;
    const message = { requestedReply: false, unrequestedReply: false, eavesdropping: false };
    const toBus = { ...message, destinationNames: ["org.freedesktop.DBus"] };
    const called = (member: string, iface = "org.freedesktop.DBus") => ({
      ...toBus,
      interface: iface,
      member,
    });
    const update = "UpdateActivationEnvironment";
    const hello = "call org.freedesktop.DBus.Hello";
    assert.equal(decide(other, "connect"), true);
    assert.equal(decide(other, "see org.example.Free"), true);
    assert.equal(decide(other, "own org.example.Free"), false);
    assert.equal(decide(other, hello, called("Hello")), true);
    assert.equal(decide(other, `call org.freedesktop.DBus.${update}`, called(update)), false);
    const stats = "org.freedesktop.DBus.Debug.Stats";
    const getStats = called("GetStats", stats);
    assert.equal(decide(root, `call ${stats}.GetStats`, getStats), true);
    assert.equal(decide(other, `call ${stats}.GetStats`, getStats), false);
    const signal = "send signal org.example.I.Changed";
    assert.equal(decide(other, signal, { ...message, destinationNames: [":1.9"] }), true);
    assert.equal(decide(other, "send return", { ...message, unrequestedReply: true }), false);
  },
);

testWith(
  [{ name: "dbus-daemon", met: succeeds("dbus-daemon", "--version") }],
  "policy import dbus prints a policy whose tests pass",
  async () => {
    const content = bus(
      policy(DEFAULT, '<deny own="*"/>') + policy('user="root"', '<allow own="a.b"/>'),
    );
    const folder = write({ "bus.conf": content });
    const made = await ucred(["policy", "import", "dbus", join(folder, "bus.conf")]);
    assert.deepEqual([made.code, made.err], [0, ""]);
    writeFileSync(join(folder, "bus.yaml"), made.out);
    const tested = await ucred(["policy", "test", join(folder, "bus.yaml")]);
    assert.equal(tested.code, 0);
    assert.match(tested.out, /2 passed, 0 failed/);
    writeFileSync(join(folder, "bus.conf"), bus("<policy/>"));
    const wrong = await ucred(["policy", "import", "dbus", join(folder, "bus.conf")]);
    assert.equal(wrong.code, 2);
    assert.match(wrong.err, /bus\.conf:2:1: <policy> must have exactly one of/);
  },
);
