/** Groups with one user: umask 002 makes files and folders writable by the group. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type AccountFiles, hasOneUser } from "../../system/private_group.ts";
import { FILES, mountNamespaces, withAccounts } from "../support/accounts.ts";
import { removeSafeFolders, safeFolder, safeFolders } from "../support/safe_folder.ts";
import { needs, runtimeCommand, succeeds, testWith } from "../support/suite.ts";

afterEach(removeSafeFolders);

const ann = (change: Partial<AccountFiles> = {}) => hasOneUser({ ...FILES, ...change }, 4321, 4321);
const group = (line: string) => ({ group: FILES.group.replace("ann:x:4321:", line) });
const passwd = (line: string) => ({ passwd: `${FILES.passwd}${line}\n` });

test("hasOneUser() accepts a group that has only its user", () => {
  assert.equal(ann(), true);
  assert.equal(ann({ nsswitch: "", subgid: "" }), true);
  assert.equal(ann(group("ann:x:4321:ann")), true);
  assert.equal(ann(group("ann:!:4321:ann")), true);
  assert.equal(ann(passwd("again:x:4321:4321::/home/ann:/bin/sh")), true); // the same uid
});

test("hasOneUser() rejects a group that another user has", () => {
  assert.equal(ann(group("ann:x:4321:bob")), false);
  assert.equal(ann(group("ann:x:4321:ann,bob")), false);
  assert.equal(ann(group("ann:x:4321:ann,nobody-knows")), false);
  assert.equal(ann(group("ann:x:4321:\nalias:x:4321:bob")), false);
  assert.equal(ann(passwd("eve:x:4323:4321::/home/eve:/bin/sh")), false);
  assert.equal(ann(group("ann:secret:4321:")), false);
  assert.equal(ann({ subgid: "bob:4000:1000" }), false);
  assert.equal(hasOneUser(FILES, 4321, 4322), false);
  assert.equal(hasOneUser(FILES, 4321, 4400), false);
  assert.equal(hasOneUser(FILES, 4321, 4500), false); // it is no user's primary group
  assert.equal(hasOneUser(FILES, 4321, 4600), false); // there is no such group
  assert.equal(hasOneUser(FILES, 4999, 4321), false);
});

test("hasOneUser() rejects every group when the files may not list all accounts", () => {
  for (
    const nsswitch of [
      "passwd: files sss\ngroup: files",
      "passwd: files\ngroup: files ldap",
      "passwd: compat",
      "group: files winbind",
      "passwd: files [NOTFOUND=return] ldap",
      "initgroups: sss",
      "passwd:\tfiles\tnis",
    ]
  ) assert.equal(ann({ nsswitch }), false, nsswitch);
  assert.equal(ann({ userRecords: ["io.systemd.Home"] }), false);
  assert.equal(ann(passwd("+::::::")), false);
  assert.equal(ann(passwd("+@friends:x:1:1:::")), false);
  assert.equal(ann(group("ann:x:4321:\n+:::")), false);
  assert.equal(ann(passwd("half:x:1")), false);
  assert.equal(ann(passwd("odd:x:1:group:::")), false);
  assert.equal(ann({ passwd: "" }), false);
  assert.equal(ann({ group: "" }), false);
});

test("hasOneUser() reads nsswitch.conf as glibc and shadow do", () => {
  const accepted = [
    "",
    "# passwd: ldap",
    "passwd files systemd",
    "passwd : files",
    "PASSWD: files",
    "\tgroup\t:\tfiles\t[ !UNAVAIL=return notfound=continue ]\tsystemd\t# ldap",
    "passwd: files\r\ngroup: files\r",
    "group:files[SUCCESS=merge]systemd",
    "initgroups: files",
    "subid: files",
    "passwd_compat: ldap\ngroups: ldap\nshadow: files ldap\nnetgroup: nis",
  ];
  const refused = [
    "passwd files ldap",
    "passwd : files ldap",
    "passwd\tfiles\tldap",
    "passwd\t:\tfiles\tldap",
    "passwd::ldap",
    "PASSWD: files ldap",
    "group:files sss",
    "group files:sss",
    "  group: files sss # users",
    "initgroups: nis",
    "initgroups nis",
    "subid: sss",
    "Subid: sss",
    "passwd: files\npasswd: files ldap\ngroup: files",
    "passwd: files ldap\npasswd: files",
    "passwd: files\r\ngroup: files ldap\r\n",
    "group: files [SUCCESS=merge]sss",
    "group: files [SUCCESS=merge",
    "group: files [ldap] systemd",
    "group: files [SUCCESS=other]",
    "group: files []",
    "group: FILES",
    "passwd: files \\\n  ldap",
    "passwd:",
    "passwd",
  ];
  for (const nsswitch of accepted) assert.equal(ann({ nsswitch }), true, nsswitch);
  for (const nsswitch of refused) assert.equal(ann({ nsswitch }), false, nsswitch);
});

const here = [
  safeFolders,
  needs.strangers,
  needs.native,
  mountNamespaces,
];

/** Runs load_and_listen.ts as uid 4321 with these account files of the system. */
function asAnn(folder: string, change: Partial<AccountFiles>): unknown {
  const script = fileURLToPath(new URL("load_and_listen.ts", import.meta.url));
  const command = [
    ...withAccounts({ ...FILES, ...change }),
    ...["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups", ...runtimeCommand(), script],
    folder,
  ] as [string];
  const { stdout, stderr } = spawnSync(command[0], command.slice(1), { encoding: "utf8" });
  assert.notEqual(stdout, "", stderr);
  return JSON.parse(stdout);
}

for (
  const [name, change, gid, acl, accepted] of [
    ["the group has only its user", {}, 4321, "", true],
    ["the group has another member", group("ann:x:4321:bob"), 4321, "", false],
    ["a directory may have members", { nsswitch: "group: files ldap" }, 4321, "", false],
    ["such a line has no colon", { nsswitch: "group files ldap" }, 4321, "", false],
    ["an ACL lets another user write", {}, 4321, "u:4322:rwx", false],
    ["the group is another's", {}, 4322, "", false],
  ] as const
) {
  testWith(
    [...here, { name: "setfacl (Debian: acl)", met: succeeds("setfacl", "--version") }],
    `Policies and sockets in a folder with mode 0775 are ${
      accepted ? "accepted" : "refused"
    }, when ${name}`,
    () => {
      const folder = join(safeFolder(), "project");
      mkdirSync(folder);
      const policy = join(folder, "policy.yaml");
      writeFileSync(policy, "version: 1\nrules: [{ name: root, when: { uid: 0 }, allow: true }]\n");
      for (const path of [folder, policy]) {
        chownSync(path, 4321, gid);
        chmodSync(path, path === folder ? 0o775 : 0o664);
        if (acl !== "") spawnSync("setfacl", ["-m", acl, path]);
      }
      assert.deepEqual(
        asAnn(folder, change),
        accepted ? { policy: true, socket: true } : {
          policy: "ERR_UCRED_POLICY: may be written by others",
          socket: "ERR_UCRED_LISTEN: may be written by others",
        },
      );
    },
  );
}
