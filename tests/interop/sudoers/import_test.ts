/** Imports of sudoers files: what a policy cannot express is an error, and past defects of sudo stay fixed. */

import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { definePolicy, UcredError } from "../../../mod.ts";
import { convertSudoers } from "../../../interop/sudoers/import.ts";
import {
  importSudoers,
  readSudoers,
  type SudoersExport,
  sudoVocabulary,
} from "../../../interop/sudoers/mod.ts";
import { runTests } from "../../../policy/mod.ts";
import { accountName } from "../../../system/accounts.ts";
import { file, ucred } from "../../support/command.ts";
import { temporaryFolder } from "../../support/compile.ts";
import { needs, succeeds, testWith } from "../../support/suite.ts";

const cvtsudoers = {
  name: "cvtsudoers (Debian: sudo)",
  met: succeeds("cvtsudoers", "--version"),
};

const ROOT = { runasUser: "root", runasUid: 0, runasGroups: ["root"] };
const REQUEST = {
  ...ROOT,
  runasGroup: null,
  runasGroupIsOwn: false,
  host: "web1",
  arguments: null,
};

/** A user specification for uid 1000, with these commands. */
const specification = (commands: readonly unknown[], more: object = {}) => ({
  User_List: [{ userid: 1000 }],
  Host_List: [{ hostname: "ALL" }],
  Cmnd_Specs: [{ Commands: commands, ...more }],
});

const documentOf = (data: object, sudoers = "") =>
  importSudoers({ json: JSON.stringify(data), sudoers });

/** Decides about uid 1000. */
function allows(data: object, attributes: object, action = "run"): boolean {
  const policy = definePolicy(documentOf(data), { vocabularies: [sudoVocabulary] });
  assert.ok(runTests(policy).passed);
  const request = { ...REQUEST, ...attributes };
  return policy.decide({ uid: 1000, gid: 1000, groups: [] }, { action, attributes: request })
    .allowed;
}

const commandsOf = (...commands: readonly string[]) => ({
  User_Specs: [
    specification(
      commands.map((text) =>
        text.startsWith("!") ? { command: text.slice(1), negated: true } : { command: text }
      ),
    ),
  ],
});

const REJECTED: readonly (readonly [what: string, data: object, message: RegExp])[] = [
  ["a digest of another length", {
    User_Specs: [specification([{ command: "/x/a", sha224: "AA==" }])],
  }, /not 28 bytes/],
  ["a digest of a denied command", {
    User_Specs: [specification([{ command: "/x/a", sha256: "0".repeat(64), negated: true }])],
  }, /digest of a negated command/],
  ["a digest of sudoedit", {
    User_Specs: [specification([{ command: "sudoedit /x", sha256: "0".repeat(64) }])],
  }, /digest of sudoedit/],
  ["a digest with another character", {
    User_Specs: [specification([{ command: "/x/a", sha384: `${"A".repeat(64)}!` }])],
  }, /not 48 bytes/],
  ["a digest after another character", {
    User_Specs: [specification([{ command: "/x/a", sha384: `!${"A".repeat(64)}` }])],
  }, /not 48 bytes/],
  ["a regular expression", commandsOf("^/x/.*$"), /regular expression/],
  ["regular arguments", commandsOf("/x/a ^b$"), /regular expression/],
  ["?", commandsOf("/x/a?"), /wildcard/],
  ["a class", commandsOf("/x/a [0-9]"), /wildcard/],
  ["a backslash", commandsOf("/x/a \\*"), /wildcard/],
  ["a folder with arguments", commandsOf("/x/ -v"), /folder with arguments/],
  ["a folder with wildcards", commandsOf("/x*/"), /folder with wildcards/],
  ["the folder of a folder", commandsOf("/x/.."), /ends with a dot/],
  ["a folder as its own name", commandsOf("/x/."), /ends with a dot/],
  ["a wildcard before ..", commandsOf("/x/*/../a"), /wildcards and "\.\."/],
  ["a wildcard before .", commandsOf("/x/*/./a"), /wildcards and "\.\."/],
  ["a denied folder", commandsOf("ALL", "!/x/"), /negated folder/],
  ["a denied wildcard", commandsOf("ALL", "!/x/*"), /negated path/],
  ["a denied wildcard before a name", commandsOf("ALL", "!/x/*a"), /negated path/],
  ["a pseudo-command", commandsOf("list"), /neither a path/],
  ["a netgroup", {
    User_Specs: [{ ...specification([{ command: "ALL" }]), User_List: [{ netgroup: "ng" }] }],
  }, /netgroup ng/],
  ["an address", {
    User_Specs: [{
      ...specification([{ command: "ALL" }]),
      Host_List: [{ networkaddr: "10.0.0.1" }],
    }],
  }, /networkaddr/],
  ["a qualified host", {
    User_Specs: [{
      ...specification([{ command: "ALL" }]),
      Host_List: [{ hostname: "a.example" }],
    }],
  }, /host a\.example/],
  ["an undefined alias of denied users", {
    User_Specs: [{
      ...specification([{ command: "ALL" }]),
      User_List: [{ username: "ALL" }, { useralias: "ADMINS", negated: true }],
    }],
  }, /no alias ADMINS/],
  ["an alias that contains itself", {
    User_Aliases: { A: [{ useralias: "A" }] },
    User_Specs: [{ ...specification([{ command: "ALL" }]), User_List: [{ useralias: "A" }] }],
  }, /nested deeper/],
  ["a name with letters in upper case", {
    User_Specs: [{
      ...specification([{ command: "ALL" }]),
      User_List: [{ username: "ALL" }, { username: "Bob", negated: true }],
    }],
  }, /case of letters/],
  ...([
    ["a number as a name", { username: 5 }, /the name 5/],
    ["a list as a name", { username: ["a"] }, /this member/],
    ["a name that ends with a star", { username: "a*" }, /the name a\*: it has other characters/],
    ["ALL as a group", { usergroup: "ALL" }, /case of letters/],
    ["a text as a uid", { userid: "5" }, /the userid 5/],
    ["a text as a gid", { usergid: "5" }, /the usergid 5/],
    ["a gid without a group", { usergid: 4_294_967_290 }, /no group with the gid 4294967290/],
    ["a member without a name", {}, /this member/],
    ["two names of a member", { username: "a", usergroup: "b" }, /this member/],
    ["a negation that is no boolean", { username: "a", negated: "yes" }, /this member/],
    ["a false negation", { username: "a", negated: false }, /this member/],
  ] as const).map(([what, user, message]) =>
    [what, {
      User_Specs: [{ ...specification([{ command: "ALL" }]), User_List: [user] }],
    }, message] as const
  ),
  ...([
    ["a number as a host", { Host_List: [{ hostname: 5 }] }, /the hostname 5/],
    ["an unknown field of a specification", { Until: 1 }, /unknown field Until/],
  ] as const).map(([what, more, message]) =>
    [what, { User_Specs: [{ ...specification([{ command: "ALL" }]), ...more }] }, message] as const
  ),
  ...([
    ["a gid as a target user", { runasusers: [{ usergid: 5 }] }, /the usergid 5/],
    ["a text as a target uid", { runasusers: [{ userid: "5" }] }, /the userid 5/],
    ["a netgroup as a target", { runasusers: [{ netgroup: "ng" }] }, /the netgroup ng/],
    ["a user as a target group", { runasgroups: [{ username: "adm" }] }, /the username adm/],
    ["all users as target groups", { runasgroups: [{ username: "ALL" }] }, /the username ALL/],
    ["an unknown field of commands", { role: "x" }, /cannot express role/],
    ["an option that is no boolean", { Options: [{ authenticate: 1 }] }, /option authenticate/],
    ["an unknown option", { Options: [{ authenticates: true }] }, /option authenticates/],
  ] as const).map(([what, more, message]) =>
    [what, { User_Specs: [specification([{ command: "ALL" }], more)] }, message] as const
  ),
  ["a pseudo-command as a member", {
    User_Specs: [specification([{ list: "x" }])],
  }, /cannot express the list x/],
  ["a name that is a glob", {
    User_Specs: [specification([{ command: "ALL" }], { runasusers: [{ username: "*" }] })],
  }, /the name \*/],
  ["an alias beside groups", {
    Runas_Aliases: { A: [{ username: "a" }] },
    User_Specs: [specification([{ command: "ALL" }], {
      runasusers: [{ runasalias: "A" }],
      runasgroups: [{ usergroup: "adm" }],
    })],
  }, /Runas_Alias/],
  ["an option", {
    User_Specs: [specification([{ command: "ALL" }], { Options: [{ notafter: "2020" }] })],
  }, /option notafter/],
  ["a default of another type", { Defaults: [{ Options: [{ authenticate: 1 }] }] }, /authenticate/],
  ["an unknown field of defaults", { Defaults: [{ Until: 1 }] }, /unknown field Until/],
  ["targetpw", { Defaults: [{ Options: [{ targetpw: true }] }] }, /targetpw/],
  ["runas_default", { Defaults: [{ Options: [{ runas_default: "x" }] }] }, /runas_default/],
  ["a default for one user", {
    Defaults: [{ Binding: [{ username: "a" }], Options: [{ authenticate: false }] }],
  }, /authenticate for some/],
  ["a specification that is no object", { User_Specs: ["x"] }, /"x" is not an object/],
  ["commands that are no list", {
    User_Specs: [specification({} as never)],
  }, /not that of cvtsudoers/],
  ["an empty list", { User_Specs: [specification([])] }, /not that of cvtsudoers/],
  ["a part of a later version", { Deny: [] }, /unknown part Deny/],
];

test("importSudoers() rejects what a policy cannot express, also where it denies", () => {
  for (const [what, data, message] of REJECTED) {
    assert.throws(() => documentOf(data), (error) => {
      assert.ok(error instanceof UcredError, what);
      assert.equal(error.code, "ERR_UCRED_POLICY", what);
      assert.match(error.message, message, what);
      return true;
    }, what);
  }
});

test("importSudoers() rejects words that the JSON of cvtsudoers lacks, and JSON with errors", () => {
  const data = commandsOf("/x/a", "/x/b");
  for (const word of ["NOTAFTER", "NOTBEFORE", "TIMEOUT", "CWD", "CHROOT", "ROLE", "TYPE"]) {
    const sudoers = `#1000 ALL = /x/a, ${word}=1 /x/b\n`;
    assert.throws(() => documentOf(data, sudoers), new RegExp(`cannot express ${word}=`));
  }
  assert.throws(() => documentOf(data, "#1000 ALL = /x/a\\ b\n"), /has a space/);
  const digests = "#1000 ALL = sha256:AAAA, sha256 : BBBB /x/a\n";
  assert.throws(() => documentOf(data, digests), /two digests of one kind/);
  const wrapped = "#1000 ALL = sha256:AAAA, \\\n    sha256 : BBBB /x/a\n";
  assert.throws(() => documentOf(data, wrapped), /two digests of one kind/);
  documentOf(data, "#1000 ALL = sha224:AAAA, sha256:BBBB /x/a\n");
  assert.throws(() => importSudoers({ json: '{"User_Specs": [', sudoers: "" }), /not that of/);
});

test("importSudoers() makes the last match the first", () => {
  const x = { command: "/x/a" };
  assert.equal(allows(commandsOf("ALL", "!/x/a"), x), false);
  assert.equal(allows(commandsOf("!/x/a", "ALL"), x), true);
  const other = specification([{ command: "/x/a", negated: true }]);
  const all = specification([{ command: "ALL" }]);
  assert.equal(allows({ User_Specs: [all, other] }, x), false);
  assert.equal(allows({ User_Specs: [other, all] }, x), true);
});

test("importSudoers() matches paths and arguments as sudo does", () => {
  const rows: readonly (readonly [sudoers: string, path: string, args: string | null, boolean])[] =
    [
      ["/x/a", "/x/a", "-v", true],
      ['/x/a ""', "/x/a", null, true],
      ['/x/a ""', "/x/a", "", false], // one empty argument
      ["/x/a -v", "/x/a", null, false],
      ["/x/a -v *", "/x/a", "-v /etc/x y", true],
      ["/x/a -v *", "/x/a", "-w /etc/x y", false],
      ["/x/a *v", "/x/a", "-v", true],
      ["/x/a *v", "/x/a", "-w", false],
      ["/x/a ^v", "/x/a", "^v", true],
      ["/x/a v$", "/x/a", "v$", true],
      ["/x/a v$", "/x/a", "v", false],
      ["/x/a *", "/x/a", null, true],
      ["/x//a", "/x/a", null, true],
      ["/x**/a", "/xy/a", null, true],
      ["/x**/a", "/x/y/a", null, false],
      ["/x/", "/x/a", null, true],
      ["/x/", "/x/y/a", null, false],
      ["/x/*", "/x/y/a", null, false],
      ["/x/*", "/x/.a", null, false],
      ["/x/*.a", "/x/.a", null, false],
      ["/*/a", "/.x/a", null, false],
      ["/*/a", "/x/a", null, true],
      ["/x/a**", "/x/a/b", null, false],
      ["ALL", "/x/../y", null, false],
      ["ALL", "x", null, false],
      ["/usr/bin/", "/usr/bin/sudoedit", null, false],
    ];
  for (const [sudoers, command, args, expected] of rows) {
    const row = `${sudoers} ${command} ${args}`;
    assert.equal(allows(commandsOf(sudoers), { command, arguments: args }), expected, row);
  }
});

test("importSudoers() matches digests of the command's file, in hexadecimal and Base64", () => {
  const hex = "ab".repeat(32);
  const base64 = Buffer.from(hex, "hex").toString("base64");
  for (const sha256 of [hex, hex.toUpperCase(), base64]) {
    const data = { User_Specs: [specification([{ command: "/x/a", sha256 }])] };
    assert.equal(allows(data, { command: "/x/a", sha256: hex }), true);
    assert.equal(allows(data, { command: "/x/a", sha256: "cd".repeat(32) }), false);
    assert.equal(allows(data, { command: "/x/a" }), false); // unknown
    assert.equal(allows(data, { command: "/x/b", sha256: hex }), false);
  }
  const sha224 = "ef".repeat(28);
  for (const [name, bytes] of [["sha224", 28], ["sha384", 48], ["sha512", 64]] as const) {
    const file = Buffer.alloc(bytes, 0xa5);
    const command = { command: "/x/a", [name]: file.toString("base64") };
    const data = { User_Specs: [specification([command])] };
    assert.equal(allows(data, { command: "/x/a", [name]: file.toString("hex") }), true, name);
    assert.equal(allows(data, { command: "/x/a", [name]: "00".repeat(bytes) }), false, name);
  }
  const either = { User_Specs: [specification([{ command: "ALL", sha224, sha256: hex }])] };
  const of = (digests: object) => allows(either, { command: "/x/a", ...digests });
  assert.equal(of({ sha224, sha256: "cd".repeat(32) }), true);
  assert.equal(of({ sha224: "cd".repeat(28), sha256: hex }), true);
  assert.equal(of({ sha224: "cd".repeat(28), sha256: "cd".repeat(32) }), false);
  assert.equal(allows(either, { arguments: "/x", sha224, sha256: hex }, "edit"), false);
});

test("importSudoers() matches the files of sudoedit with * that does not match a slash", () => {
  const files = (text: string) => ({ arguments: text });
  assert.equal(allows(commandsOf("sudoedit /etc/*"), files("/etc/motd"), "edit"), true);
  assert.equal(allows(commandsOf("sudoedit /etc/*"), files("/etc/x/motd"), "edit"), false);
  assert.equal(allows(commandsOf("sudoedit /etc/**"), files("/etc/x/motd"), "edit"), false);
  for (const [names, expected] of [["motd", true], [null, true], ["/etc/motd", false]] as const) {
    const request = { arguments: names };
    assert.equal(allows(commandsOf("sudoedit *"), request, "edit"), expected, `${names}`);
  }
  assert.equal(allows(commandsOf("/x/sudoedit"), files("/etc/motd"), "edit"), false);
  assert.equal(allows(commandsOf("ALL"), files("/etc/motd"), "edit"), true);
  assert.equal(allows(commandsOf("ALL", "!sudoedit"), files("/etc/motd"), "edit"), false);
});

test("importSudoers() denies a name with a wildcard in each folder, as sudo does with links", () => {
  const data = commandsOf("ALL", "!/x/a*");
  assert.equal(allows(data, { command: "/y/ab" }), false);
  assert.equal(allows(data, { command: "/y/b" }), true);
});

/** Converts one command with the links `/link` → `/real` and `/star` → `/a*b`. */
const resolved = (command: string) => {
  const json = JSON.stringify(commandsOf(command));
  const links: { readonly [folder: string]: string } = {
    ...{ "/link": "/real", "/link/sub": "/real/sub", "/star": "/a*b", "/link/": "/real/" },
  };
  const lookups = { groupName: () => undefined, resolveFolder: (at: string) => links[at] ?? at };
  return convertSudoers({ json, sudoers: "" }, lookups).rules.at(-1)!.where;
};

test("importSudoers() resolves the folders of commands, up to the first wildcard", () => {
  const any = [{ runasUser: "root" }, { runasUid: "self", runasGroupIsOwn: true }];
  const rows = [
    ["/link/a", "/real/a"],
    ["/link/sub/a", "/real/sub/a"],
    ["/link/", "/real/*"],
    ["/link/x*/a", "/real/x*/a"],
  ] as const;
  for (const [text, command] of rows) assert.deepEqual(resolved(text), { any, command }, text);
  assert.throws(() => resolved("/star/a"), /folder with \* in its name/);
});

test("importSudoers() denies a target without an account, as for CVE-2019-14287", () => {
  const users = [{ username: "ALL" }, { username: "root", negated: true }];
  const data = { User_Specs: [specification([{ command: "ALL" }], { runasusers: users })] };
  const www = { command: "/x/a", runasUser: "www", runasUid: 33, runasGroups: ["www"] };
  assert.equal(allows(data, www), true);
  assert.equal(allows(data, { command: "/x/a" }), false);
  assert.equal(allows(data, { ...www, runasUser: "#-1", runasUid: -1 }), false);
  assert.equal(allows(data, { ...www, runasUser: "#4294967295", runasUid: 2 ** 32 - 1 }), false);
  assert.equal(allows(data, { ...www, runasUser: null }), false);
});

/** A user specification with these lists. */
const entry = (
  lists: { users?: unknown[]; hosts?: unknown[]; runas?: object; commands?: unknown[] },
  more: object = {},
) => ({
  ...more,
  User_Specs: [{
    User_List: lists.users ?? [{ username: "alice" }],
    Host_List: lists.hosts ?? [{ hostname: "ALL" }],
    Cmnd_Specs: [{ ...lists.runas, Commands: lists.commands ?? [{ command: "/x/a" }] }],
  }],
});
const not = (member: object) => ({ ...member, negated: true });
const ALL = { username: "ALL" };
const runas = (runasusers: unknown[], runasgroups?: unknown[]) => ({
  runas: { runasusers, ...(runasgroups !== undefined && { runasgroups }) },
});

/** Peers, and requests, that each construct allows or denies. */
type Case = readonly [what: string, data: object, allowed: object[], denied: object[]];
const CONSTRUCTS: readonly Case[] = [
  ["a user", entry({}), [{}], [{ peer: "bob" }]],
  ["a group", entry({ users: [{ usergroup: "adm" }] }), [{ peer: "bob" }], [{}]],
  ["a gid", entry({ users: [{ usergid: 4 }] }), [{ peer: "bob" }], [{}, { peer: "root" }]],
  ["a uid", entry({ users: [{ userid: 1001 }] }), [{}], [{ peer: "bob" }]],
  // polkit CVE-2018-19788: a uid above INT_MAX became negative, and was another user's.
  ["a uid above INT_MAX", entry({ users: [{ userid: 4000000000 }] }), [{ peer: "large" }], [{}]],
  ["all users but one", entry({ users: [ALL, not({ username: "bob" })] }), [{}], [{ peer: "bob" }]],
  ["negation before all users", entry({ users: [not({ username: "bob" }), ALL] }), [{
    peer: "bob",
  }], []],
  [
    "an alias of users",
    entry({ users: [{ useralias: "A" }] }, {
      User_Aliases: { A: [{ useralias: "B" }, not({ username: "bob" })], B: [ALL] },
    }),
    [{}],
    [{ peer: "bob" }],
  ],
  [
    "a negated alias of users",
    entry({ users: [ALL, not({ useralias: "A" })] }, {
      User_Aliases: { A: [ALL, not({ username: "bob" })] },
    }),
    [{ peer: "bob" }],
    [{}],
  ],
  ["a host", entry({ hosts: [{ hostname: "WEB1" }] }), [{}], [{ host: "web2" }]],
  ["a glob of hosts", entry({ hosts: [{ hostname: "web*" }] }), [{}], [{ host: "db1" }]],
  ["two stars in a host", entry({ hosts: [{ hostname: "w**1" }] }), [{}], [{ host: "db1" }]],
  [
    "an alias of hosts",
    entry({ hosts: [{ hostalias: "H" }] }, {
      Host_Aliases: { H: [{ hostname: "ALL" }, not({ hostname: "db1" })] },
    }),
    [{}],
    [{ host: "db1" }],
  ],
  ["no target: root", entry({}), [{}], [{ target: "www" }]],
  ["a target user", entry(runas([{ username: "www" }])), [{ target: "www" }], [{}]],
  ["a target uid", entry(runas([{ userid: 33 }])), [{ target: "www" }], [{}]],
  ["a group of target users", entry(runas([{ usergroup: "web" }])), [{ target: "www" }], [{}]],
  [
    "all target users but root",
    entry(runas([ALL, not({ username: "root" })])),
    [{ target: "www" }],
    [{}],
  ],
  [
    "an alias of target users",
    entry(runas([{ runasalias: "R" }]), { Runas_Aliases: { R: [{ username: "www" }] } }),
    [{ target: "www" }],
    [{}],
  ],
  ["the peer itself as target", entry(runas([{ username: "" }])), [{ target: "alice" }], [{}]],
  [
    "a target group",
    entry(runas([{ username: "www" }], [{ usergroup: "adm" }])),
    [{ target: "www", group: "adm" }, { target: "www" }],
    [{ target: "www", group: "wheel" }, { group: "adm" }],
  ],
  [
    "a target group alone",
    entry({ runas: { runasgroups: [{ usergroup: "adm" }] } }),
    [{ target: "alice", group: "adm" }],
    [{ target: "www", group: "adm" }, { target: "alice", group: "wheel" }],
  ],
  [
    "all target groups but one",
    entry(runas([{ username: "www" }], [{ usergroup: "ALL" }, not({ usergroup: "adm" })])),
    [{ target: "www", group: "wheel" }],
    [{ target: "www", group: "adm" }],
  ],
  [
    "an alias of commands",
    entry({ commands: [{ cmndalias: "C" }] }, {
      Command_Aliases: { C: [{ command: "ALL" }, not({ command: "/x/b" })] },
    }),
    [{}],
    [{ command: "/x/b" }],
  ],
  [
    "a negated alias of commands",
    entry({ commands: [{ command: "ALL" }, not({ cmndalias: "C" })] }, {
      Command_Aliases: { C: [{ command: "/x/a" }] },
    }),
    [{ command: "/x/b" }],
    [{}],
  ],
];

test("importSudoers() converts each construct of user specifications", () => {
  const uids: { readonly [name: string]: number } = {
    ...{ root: 0, alice: 1001, bob: 1002, large: 4000000000, www: 33 },
  };
  const gids: { readonly [name: string]: number } = { root: 0, adm: 4, wheel: 10, web: 33 };
  const accounts = { uid: (name: string) => uids[name], gid: (name: string) => gids[name] };
  const groupsOf: { readonly [name: string]: string[] } = {
    ...{ root: ["root"], alice: [], bob: ["adm"], large: [], www: ["web"] },
  };
  for (const [what, data, allowed, denied] of CONSTRUCTS) {
    const exported = { json: JSON.stringify(data), sudoers: "" };
    const groupName = (gid: number) => Object.keys(gids).find((name) => gids[name] === gid);
    const document = convertSudoers(exported, { groupName, resolveFolder: (folder) => folder });
    const policy = definePolicy(document, { vocabularies: [sudoVocabulary], accounts });
    const decides = (query: object) => {
      const { peer = "alice", target = "root", group = null, ...others } = query as {
        [name: string]: string;
      };
      const groups = groupsOf[peer]!.map((name) => gids[name]!);
      const attributes = {
        ...REQUEST,
        command: "/x/a",
        runasUser: target,
        runasUid: uids[target],
        runasGroups: groupsOf[target],
        runasGroup: group,
        ...others,
      };
      const plain = { uid: uids[peer]!, gid: groups[0] ?? 1001, groups };
      return policy.decide(plain, { action: "run", attributes }).allowed;
    };
    for (const query of allowed) assert.ok(decides(query), `${what}: ${JSON.stringify(query)}`);
    for (const query of denied) assert.ok(!decides(query), `${what}: ${JSON.stringify(query)}`);
  }
});

test("importSudoers() names the dialect in the policy, and the specification of each rule", () => {
  const namesOf = (data: object) => documentOf(data).rules.map(({ name }) => name);
  assert.match(namesOf(commandsOf("ALL"))[0]!, /^sudo 1\.9: /);
  const users = [not({ username: "a" }), { userid: 5 }, { usergroup: "b" }];
  const commands = [{ command: "/x/a" }, not({ command: "/x/b" })];
  assert.deepEqual(namesOf(entry({ users, commands })).slice(2), [
    "1.1.2 !a, #5, %b: !/x/b",
    "1.1.1 !a, #5, %b: /x/a",
  ]);
  const [name] = namesOf(commandsOf(`/x/${"a".repeat(100)}`)).slice(2);
  assert.equal(name, `1.1.1 #1000: /x/${"a".repeat(69)}…`);
  assert.equal(namesOf(commandsOf(`/x/${"a".repeat(70)}`)).at(-1)!.endsWith("a"), true);
});

test("importSudoers() makes no rule of an entry that matches no request", () => {
  const rulesOf = (data: object) => documentOf(data).rules.slice(2);
  assert.deepEqual(rulesOf(entry({ users: [not(ALL)] })), []);
  assert.deepEqual(rulesOf(entry({ hosts: [not({ hostname: "ALL" })] })), []);
  const where = { any: [{ not: { runasGroup: "**" } }, { runasGroupIsOwn: true }] };
  assert.deepEqual(rulesOf(entry({ ...runas([ALL]), commands: [{ command: "ALL" }] })), [{
    name: "1.1.1 alice: ALL",
    when: { user: "alice" },
    actions: ["run", "edit"],
    where,
    allow: true,
  }]);
  const groups = [{ usergroup: "ALL" }];
  assert.deepEqual(rulesOf(entry({ ...runas([ALL], groups), users: [ALL] })), [{
    ...{ name: "1.1.1 ALL: /x/a", actions: "run", where: { command: "/x/a" }, allow: true },
  }]);
  const everything = { ...runas([ALL], groups), users: [ALL], commands: [{ command: "ALL" }] };
  assert.deepEqual(rulesOf(entry(everything)), [{
    ...{ name: "1.1.1 ALL: ALL", actions: ["run", "edit"], allow: true },
  }]);
});

/** The problems of an import, and the message. */
function problemsOf(exported: SudoersExport) {
  try {
    importSudoers(exported);
  } catch (error) {
    assert.ok(error instanceof UcredError);
    return { message: error.message, problems: error.problems! };
  }
  return assert.fail("it was imported");
}

test("importSudoers() reports the line of a problem, if only one line has its text", () => {
  const netgroup = (name: string) => ({
    ...specification([{ command: "ALL" }]),
    User_List: [{ netgroup: name }],
  });
  const data = { User_Specs: [netgroup("one"), netgroup("two")], Defaults: [{ Until: 1 }] };
  const text = "# +one\nDefaults x\n  # +one\n+one ALL = ALL\n+two ALL = ALL\n+two x = ALL\n";
  const json = JSON.stringify(data);
  const { message, problems } = problemsOf({ json, sudoers: "", text, file: "f" });
  assert.deepEqual(problems.map(({ path, file, line }) => [path, file, line]), [
    [["Defaults", 0], "f", undefined],
    [["User_Specs", 0], "f", 4],
    [["User_Specs", 1], "f", undefined],
  ]);
  assert.equal(
    message,
    "Cannot import the sudoers file: f: Defaults: unknown field Until\n" +
      "f:4: user specification 1 (+one): a policy cannot express the netgroup one\n" +
      "f: user specification 2 (+two): a policy cannot express the netgroup two",
  );
  const command = problemsOf({ json: JSON.stringify(commandsOf("^x")), sudoers: "" });
  assert.deepEqual(command.problems[0]!.path, ["User_Specs", 0, "Cmnd_Specs", 0]);
  assert.match(command.message, /^Cannot import the sudoers file: sudoers: user specification 1 /);
  const unknown = problemsOf({ json: '{"Deny":[]}', sudoers: "", text: "Deny" });
  assert.equal(unknown.message, "Cannot import the sudoers file: sudoers:1: unknown part Deny");
  const many = JSON.stringify(commandsOf(...Array<string>(101).fill("^x")));
  assert.equal(problemsOf({ json: many, sudoers: "" }).problems.length, 100);
});

test("importSudoers() rejects aliases that multiply", () => {
  const aliases = Object.fromEntries(
    Array.from({ length: 17 }, (_, at) => [`A${at}`, Array(2).fill({ useralias: `A${at + 1}` })]),
  );
  const data = entry({ users: [{ useralias: "A0" }] }, {
    User_Aliases: { ...aliases, A17: [ALL] },
  });
  assert.throws(() => documentOf(data), /more than 100000 members/);
});

test("importSudoers() names a gid by the account of its group", () => {
  // On most systems, other names than those of the users with these uids.
  for (let gid = 0; gid < 10; gid++) {
    const group = accountName("group", gid);
    if (group === undefined) continue;
    const { rules } = documentOf(entry({ users: [{ usergid: gid }] }));
    assert.deepEqual(rules.at(-1)!.when, { group });
  }
});

/** Runs a function with another PATH. */
function withPath<T>(path: string, run: () => T): T {
  const { PATH } = process.env;
  process.env["PATH"] = path;
  try {
    return run();
  } finally {
    process.env["PATH"] = PATH;
  }
}

/** Runs a function with a program that has the name of cvtsudoers. */
function withProgram<T>(script: string, run: () => T): T {
  const folder = temporaryFolder();
  writeFileSync(join(folder, "cvtsudoers"), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return withPath(`${folder}:${process.env["PATH"]}`, run);
}

const isElsewhere = {
  name: "no cvtsudoers in /usr/sbin",
  met: !existsSync("/usr/sbin/cvtsudoers") && !existsSync("/usr/local/sbin/cvtsudoers"),
};

testWith([needs.linux, isElsewhere], "readSudoers() rejects each file without cvtsudoers", () => {
  const path = file("sudoers", "root ALL = ALL\n");
  assert.throws(() => withPath("/nowhere", () => readSudoers(path)), {
    code: "ERR_UCRED_POLICY",
    message: `Cannot import the sudoers file ${path}: cvtsudoers is missing`,
    hint: "Install sudo 1.9 or later, which has cvtsudoers",
  });
});

testWith([needs.linux], "readSudoers() rejects what cvtsudoers reports, also a warning", () => {
  const path = file("sudoers", "root ALL = ALL\n");
  const read = () => readSudoers(path);
  const failure = { code: "ERR_UCRED_POLICY", hint: /visudo/ };
  const warns = "echo warning >&2; echo {}";
  assert.throws(() => withProgram(warns, read), { ...failure, message: /: warning$/ });
  const fails = "echo {}; exit 3";
  assert.throws(() => withProgram(fails, read), {
    ...failure,
    message: /cvtsudoers ended with 3$/,
  });
  // No configuration file of the machine applies, and the name of a file is no option.
  const { json, sudoers } = withProgram('echo "$@ $LC_ALL"', read);
  assert.equal(json, `-c /dev/null -f json -- ${path} C\n`);
  assert.equal(sudoers, `-c /dev/null -f sudoers -- ${path} C\n`);
});

testWith([cvtsudoers], "readSudoers() reads a file with cvtsudoers", () => {
  const text = "root ALL = /bin/ls\n";
  const path = file("sudoers", text);
  const { json, sudoers, ...others } = readSudoers(path);
  assert.deepEqual(others, { text, file: path });
  assert.deepEqual(JSON.parse(json).User_Specs[0].User_List, [{ username: "root" }]);
  assert.match(sudoers, /^root ALL = \/bin\/ls$/m);
  assert.throws(() => readSudoers(file("broken", "root ALL = \n")), { message: /syntax error/ });
});

test("importSudoers() turns tags and defaults into grants", () => {
  const Options = [{ noexec: true }, { authenticate: true }];
  const data = {
    Defaults: [{ Options: [{ authenticate: false }, { env_reset: true }] }],
    User_Specs: [
      specification([{ command: "/x/a" }]),
      specification([{ command: "/x/b" }], { Options }),
    ],
  };
  const { rules } = documentOf(data);
  assert.deepEqual(rules.slice(-2).map(({ allow }) => allow), [["NOEXEC"], ["NOPASSWD"]]);
});

testWith(
  [cvtsudoers],
  "policy import sudoers prints a policy that policy test accepts",
  async () => {
    const sudoers = file(
      "sudoers",
      "User_Alias OPS = root, !#4\nDefaults env_reset\nOPS ALL = (ALL) NOPASSWD: /x/a *, !/x/b\n",
    );
    const { code, out, err } = await ucred(["policy", "import", "sudoers", sudoers]);
    assert.deepEqual([code, err], [0, ""]);
    assert.match(out, /^version: 1\nabout: sudo\n/);
    const tested = await ucred(["policy", "test", file("sudo.yaml", out)]);
    assert.equal(tested.code, 0, tested.err);
  },
);

testWith(
  [needs.node, cvtsudoers],
  "policy import reports the lines of what it cannot import",
  async () => {
    const wrong = file("wrong", "# +ng\nroot ALL = ALL\n+ng ALL = ALL\n");
    const { code, out, err } = await ucred(["policy", "import", "sudoers", wrong]);
    assert.deepEqual([code, out], [2, ""]);
    assert.match(err, /wrong:3: user specification 2 \(\+ng\): .*netgroup ng/);
    const late = file("late", "root ALL = /x/a, NOTAFTER=20200101000000Z /x/b\n");
    assert.match((await ucred(["policy", "import", "sudoers", late])).err, /late:1: .*NOTAFTER=/);
    const broken = file("broken", "root ALL = \n");
    assert.match((await ucred(["policy", "import", "sudoers", broken])).err, /syntax error/);
    assert.equal((await ucred(["policy", "import", "sudoers", wrong, late])).code, 2);
    assert.equal((await ucred(["policy", "import", "sudo", wrong])).code, 2);
  },
);
