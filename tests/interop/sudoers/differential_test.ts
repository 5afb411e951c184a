/** Compares imported policies with the decisions of sudo itself, on generated sudoers files. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { definePolicy } from "../../../mod.ts";
import { readSudoers } from "../../../interop/sudoers/cvtsudoers.ts";
import { convertSudoers } from "../../../interop/sudoers/import.ts";
import { sudoVocabulary } from "../../../interop/sudoers/mod.ts";
import { temporaryFolder } from "../../support/compile.ts";
import fc from "../../support/properties.ts";
import { needs, soak, succeeds, testWith } from "../../support/suite.ts";

const sudo = {
  name: "sudo 1.9 with cvtsudoers (Debian: sudo), and leave to replace /etc/sudoers in a namespace",
  met: succeeds("cvtsudoers", "--version") &&
    succeeds("unshare", "-mu", "mount", "--bind", "/etc/sudoers", "/etc/sudoers"),
};

/** Users, each with its uid, its primary group and its other groups. */
const USERS: { readonly [name: string]: readonly [uid: number, group: string, others: string[]] } =
  {
    root: [0, "root", []],
    alice: [1001, "alice", ["staff"]],
    bob: [1002, "staff", ["adm"]],
    carol: [1003, "carol", ["adm", "wheel"]],
  };
const GROUPS: { readonly [name: string]: number } = {
  ...{ root: 0, adm: 4, wheel: 10, staff: 50, alice: 1001, carol: 1003 },
};
const HOST = "web1";

const folder = temporaryFolder();
chmodSync(folder, 0o755);
for (const name of ["a", "b", "c"]) mkdirSync(join(folder, name));
for (const name of ["a/x", "a/y", "a/.h", "b/y", "b/z"]) {
  writeFileSync(join(folder, name), `#!/bin/sh\n# ${name}\n`, { mode: 0o755 });
}
symlinkSync("a", join(folder, "l"));
symlinkSync("../a/x", join(folder, "c/x")); // the same file with the same name

const sha256Of = (name: string) =>
  createHash("sha256").update(readFileSync(join(folder, name))).digest("hex");

const oneOf = <T>(...values: readonly T[]) => fc.constantFrom(...values);
const negated = (text: fc.Arbitrary<string>) =>
  fc.tuple(fc.nat(3), text).map(([n, text]) => n === 0 ? `!${text}` : text);
const commas = (item: fc.Arbitrary<string>, maxLength: number) =>
  fc.array(item, { minLength: 1, maxLength }).map((items) => items.join(", "));

const user = negated(
  oneOf(
    "ALL",
    "root",
    "alice",
    "bob",
    "carol",
    "#1001",
    "%staff",
    "%adm",
    "%#10",
    "%wheel",
    "UA",
    "UB",
  ),
);
const runasUser = negated(
  oneOf("ALL", "root", "alice", "bob", "#1003", "%adm", "%staff"),
);
const runasGroup = negated(oneOf("ALL", "adm", "staff", "wheel"));
const host = negated(oneOf("ALL", "ALL", "ALL", HOST, "WEB*", "db1", "HA"));
const tags = oneOf("", "", "NOPASSWD: ", "PASSWD: ", "NOEXEC: ", "SETENV: ");
const command = fc.oneof(
  negated(
    oneOf(
      "ALL",
      ...["a/x", "a/y", "l/x", "b/y", 'a/x ""', "a/x -v", "a/x -v *", "a/y *"]
        .map((path) => `${folder}/${path}`),
    ),
  ),
  oneOf(
    `sha256:${sha256Of("a/x")} ${folder}/a/x`,
    `sha256:${sha256Of("b/y")} ALL`,
    `sha224:${"0".repeat(56)}, sha256:${sha256Of("b/z")} ${folder}/b/z`,
    `sha256:${"0".repeat(64)} ${folder}/a/y`,
  ),
  negated(oneOf("CA", "CB", "sudoedit", "sudoedit /etc/m*", "sudoedit /etc/motd", 'sudoedit ""')),
  oneOf(
    ...["a/", "l/", "*/x", "a/*", "*/.h", "a/*h", "b/z*", "*/*"].map((path) => `${folder}/${path}`),
  ),
);
const runas = fc.oneof(
  fc.constant(""),
  commas(oneOf("ALL", "alice", "RA", "!RA", "root"), 2).map((users) => `(${users}) `),
  fc.tuple(commas(runasUser, 3), commas(runasGroup, 2)).map(([users, groups]) =>
    `(${users} : ${groups}) `
  ),
  commas(runasUser, 3).map((users) => `(${users}) `),
  commas(runasGroup, 2).map((groups) => `(: ${groups}) `),
  oneOf("() ", "(ALL : ALL) "),
);
const privilege = fc.tuple(
  commas(host, 2),
  commas(fc.tuple(runas, tags, command).map((parts) => parts.join("")), 4),
).map(([hosts, commands]) => `${hosts} = ${commands}`);
const specification = fc.tuple(
  commas(user, 3),
  fc.array(privilege, { minLength: 1, maxLength: 2 }),
).map(([users, privileges]) => `${users} ${privileges.join(" : ")}`);
const sudoers = fc.tuple(
  commas(oneOf("alice", "!bob", "%adm", "root"), 2),
  commas(oneOf("root", "!alice", "%staff", "UA", "!UA"), 2),
  commas(oneOf("bob", "!root", "%adm"), 2),
  commas(oneOf(HOST, "!db1", "db*"), 2),
  commas(oneOf(`${folder}/a/x`, `!${folder}/a/y`, `${folder}/b/z`), 2),
  commas(oneOf("CA", "!CA", `${folder}/b/y`), 2),
  fc.array(specification, { minLength: 1, maxLength: 4 }),
).map(([ua, ub, ra, ha, ca, cb, specifications]) =>
  [
    "Defaults listpw=never, !pam_acct_mgmt, !pam_session",
    `User_Alias UA = ${ua}`,
    `User_Alias UB = ${ub}`,
    `Runas_Alias RA = ${ra}`,
    `Host_Alias HA = ${ha}`,
    `Cmnd_Alias CA = ${ca}`,
    `Cmnd_Alias CB = ${cb}`,
    ...specifications,
    "",
  ].join("\n")
);

interface Query {
  readonly user: string;
  readonly target: string;
  readonly group: string | null;
  /** The path and the arguments. */
  readonly command: readonly string[];
}

const query: fc.Arbitrary<Query> = fc.record({
  user: oneOf("alice", "alice", "bob", "carol", "root"),
  target: oneOf("root", "root", "alice", "bob", "carol"),
  group: oneOf(null, null, null, "adm", "staff", "alice"),
  // `sudo -l` of sudo 1.9.13 does not decide about sudoedit.
  command: fc.tuple(
    oneOf("a/x", "a/x", "a/y", "a/.h", "b/y", "b/z", "c/x").map((path) => `${folder}/${path}`),
    oneOf([], [], ["-v"], ["-v", "/a b"], [""]),
  ).map(([path, args]) => [path, ...args]),
});

/** A generated file with queries. */
interface Case {
  readonly text: string;
  readonly queries: readonly Query[];
}

/** Runs `sudo -l` for all queries in one namespace. Each query may be written in several ways. */
function decisionsOfSudo(cases: readonly Case[]): boolean[][][] {
  const etc = join(folder, "etc");
  mkdirSync(etc, { recursive: true });
  const passwd = Object.entries(USERS).map(([name, [uid, group]]) =>
    `${name}:x:${uid}:${GROUPS[group]}::/:/bin/sh\n`
  );
  const group = Object.entries(GROUPS).map(([name, gid]) =>
    `${name}:x:${gid}:${Object.keys(USERS).filter((user) => USERS[user]![2].includes(name))}\n`
  );
  writeFileSync(join(etc, "passwd"), passwd.join(""));
  writeFileSync(join(etc, "group"), group.join(""));
  writeFileSync(join(etc, "hosts"), `127.0.0.1 ${HOST} localhost\n`); // sudo looks up its name
  writeFileSync(join(etc, "sudoers"), "", { mode: 0o440 });
  const quote = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;
  const lines = [
    "set -e",
    `hostname ${HOST}`,
    ...["passwd", "group", "hosts", "sudoers"].map((name) =>
      `mount --bind ${etc}/${name} /etc/${name}`
    ),
    "mount -t tmpfs -o mode=755 none /etc/sudoers.d",
    "set +e",
  ];
  const counts: number[][] = [];
  for (const [at, { text, queries }] of cases.entries()) {
    writeFileSync(join(etc, `sudoers${at}`), text);
    lines.push(`cat ${etc}/sudoers${at} > /etc/sudoers`);
    counts.push(queries.map((query) => {
      const variants = variantsOf(query);
      const as = [`--reuid=${query.user}`, `--regid=${USERS[query.user]![1]}`, "--init-groups"];
      for (const options of variants) {
        const words = ["setpriv", ...as, "sudo", "-n", "-l", ...options, ...query.command];
        lines.push(`output=$(${words.map(quote).join(" ")} 2>&1); status=$?`);
        lines.push('[ $status = 0 ] && echo 0 || echo "$status $output" | tr "\\n" " "; echo');
      }
      return variants.length;
    }));
  }
  const script = join(etc, "queries.sh");
  writeFileSync(script, lines.join("\n"));
  const { status, stdout, stderr } = spawnSync("unshare", ["-mu", "sh", script], {
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  assert.equal(status, 0, stderr);
  const results = stdout.split("\n").filter((line) => line !== "").map((line) => {
    if (line === "0") return true;
    assert.match(
      line,
      /^1 (Sorry, user [a-z]+ may not run sudo on web1\. )? *$/,
      "sudo reports an error instead of a decision",
    );
    return false;
  });
  assert.equal(results.length, counts.flat().reduce((sum, count) => sum + count, 0));
  let next = 0;
  return counts.map((of) => of.map((count) => results.slice(next, next += count)));
}

/** The options of sudo for a target. `sudo -g` keeps the own user, also without -u. */
function variantsOf({ user, target, group }: Query): string[][] {
  const asUser = ["-u", target];
  if (group === null) return [asUser];
  const both = [...asUser, "-g", group];
  return user === target ? [["-g", group], both] : [both];
}

function policyOf(text: string) {
  const file = join(folder, "generated");
  writeFileSync(file, text);
  const lookups = {
    groupName: (gid: number) => Object.keys(GROUPS).find((name) => GROUPS[name] === gid),
    resolveFolder: (path: string) => realpathSync(path),
  };
  return definePolicy(convertSudoers(readSudoers(file), lookups), {
    vocabularies: [sudoVocabulary],
    accounts: { uid: (name) => USERS[name]?.[0], gid: (name) => GROUPS[name] },
  });
}

const groupsOf = (user: string) => [USERS[user]![1], ...USERS[user]![2]];

function decisionOf(
  policy: ReturnType<typeof policyOf>,
  { user, target, group, command: [path, ...args] }: Query,
) {
  const [uid, primary] = USERS[user]!;
  const peer = { uid, gid: GROUPS[primary]!, groups: groupsOf(user).map((name) => GROUPS[name]!) };
  const attributes = {
    command: path!,
    sha224: "unused",
    sha256: sha256Of(relative(folder, path!)),
    arguments: args.length === 0 ? null : args.join(" "),
    runasUser: target,
    runasUid: USERS[target]![0],
    runasGroups: groupsOf(target),
    runasGroup: group,
    runasGroupIsOwn: group !== null && groupsOf(target).includes(group),
    host: HOST,
  };
  return policy.decide(peer, { action: "run", attributes });
}

/** The differences that docs/sudo.md lists. In each of them, the policy denies. */
type Difference = "a link elsewhere" | "the name of a denied command" | "-g with and without -u";

testWith([needs.root, needs.node, sudo], "importSudoers() decides as sudo does", () => {
  const samples = fc.sample(
    fc.tuple(sudoers, fc.array(query, { minLength: 15, maxLength: 15 })),
    soak(5, 140),
  );
  const expected = samples.map(([text]) => policyOf(text));
  const decided = decisionsOfSudo(samples.map(([text, queries]) => ({ text, queries })));
  const differences: { [kind in Difference]?: number } = {};
  let allowed = 0;
  for (const [at, [text, queries]] of samples.entries()) {
    for (const [nth, query] of queries.entries()) {
      const variants = decided[at]![nth]!;
      const bySudo = variants.includes(true);
      const decision = decisionOf(expected[at]!, query);
      if (bySudo) allowed++;
      if (decision.allowed === bySudo) continue;
      const report = JSON.stringify({ query, bySudo, by: decision.reason }) + `\n${text}`;
      assert.equal(decision.allowed, false, `the policy allows more than sudo: ${report}`);
      const [path] = query.command;
      const denied = / !(\S+)/.exec(decision.rule ?? "")?.[1];
      const kind: Difference | undefined = path === `${folder}/c/x`
        ? "a link elsewhere"
        : denied !== undefined && realpathSync(denied.split(" ")[0]!) !== path
        ? "the name of a denied command"
        : variants.includes(false)
        ? "-g with and without -u"
        : undefined;
      assert.notEqual(kind, undefined, `the policy denies what sudo allows: ${report}`);
      differences[kind!] = (differences[kind!] ?? 0) + 1;
    }
  }
  const total = samples.length * 15;
  assert.ok(allowed > 0 && allowed < total, `sudo allows ${allowed} of ${total}`);
  const different = Object.values(differences).reduce((sum, count) => sum + count, 0);
  assert.ok(different < total / 20, JSON.stringify(differences));
});
