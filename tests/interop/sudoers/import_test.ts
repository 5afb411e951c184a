/** Imports of sudoers files: what a policy cannot express is an error, and past defects of sudo stay fixed. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { definePolicy, UcredError } from "../../../mod.ts";
import { importSudoers, sudoVocabulary } from "../../../interop/sudoers/mod.ts";
import { runTests } from "../../../policy/mod.ts";
import { file, ucred } from "../../support/command.ts";
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
  ["a regular expression", commandsOf("^/x/.*$"), /regular expression/],
  ["regular arguments", commandsOf("/x/a ^b$"), /regular expression/],
  ["?", commandsOf("/x/a?"), /wildcard/],
  ["a class", commandsOf("/x/a [0-9]"), /wildcard/],
  ["a backslash", commandsOf("/x/a \\*"), /wildcard/],
  ["a denied folder", commandsOf("ALL", "!/x/"), /negated folder/],
  ["a denied wildcard", commandsOf("ALL", "!/x/*"), /negated path/],
  ["a pseudo-command", commandsOf("list"), /not a path/],
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
  ["targetpw", { Defaults: [{ Options: [{ targetpw: true }] }] }, /targetpw/],
  ["runas_default", { Defaults: [{ Options: [{ runas_default: "x" }] }] }, /runas_default/],
  ["a default for one user", {
    Defaults: [{ Binding: [{ username: "a" }], Options: [{ authenticate: false }] }],
  }, /authenticate for some/],
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
      ["/x/a *", "/x/a", null, true],
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
  assert.equal(allows(commandsOf("/x/sudoedit"), files("/etc/motd"), "edit"), false);
  assert.equal(allows(commandsOf("ALL"), files("/etc/motd"), "edit"), true);
  assert.equal(allows(commandsOf("ALL", "!sudoedit"), files("/etc/motd"), "edit"), false);
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
  ["a gid", entry({ users: [{ usergid: 0 }] }), [{ peer: "root" }], [{}]],
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
    const policy = definePolicy(documentOf(data), { vocabularies: [sudoVocabulary], accounts });
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

test("importSudoers() names the dialect in the policy", () => {
  assert.match(documentOf(commandsOf("ALL")).rules[0]!.name!, /^sudo 1\.9: /);
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
