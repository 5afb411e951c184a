/** Tests of `ucred policy`: the text, the JSON and the exit code of each command. */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, chownSync, readFileSync } from "node:fs";
import process from "node:process";
import { after, test } from "node:test";
import { needs, testWith } from "../support/suite.ts";
import { assertPrintable, command, endTogether, file, ucredTogether } from "../support/command.ts";

after(endTogether);

const GOOD = file(
  "good.yaml",
  `version: 1
rules:
  - { name: root, when: { uid: 0 }, allow: full }
  - { name: no guests, when: { user: guest }, deny: Guests stay outside }
  - { name: readers, when: { group: staff }, actions: ["GET /**"], allow: read }
tests:
  - { peer: { uid: 0 }, expect: { allow: [full] } }
  - { peer: { uid: 7, gid: 7, groups: [50] }, action: GET /x, expect: { allow: [read] } }
  - { peer: { uid: 9, gid: 9, groups: [9] }, expect: { deny: true } }
`,
);
const DOUBTFUL = file(
  "doubtful.yaml",
  `version: 1
rules:
  - { name: all, allow: full }
  - { name: never, when: { uid: 0 }, deny: true }
tests:
  - { peer: { uid: 0 }, expect: { deny: true } }
`,
);
const WRONG = file(
  "wrong.yaml",
  "version: 1\nrules:\n  - { name: x, when: { uuid: 0 }, allow: a }\n",
);
const ACCOUNTS = file("accounts.yaml", "users: { guest: 9, ada: 7 }\ngroups: { staff: 50 }\n");

const policy = (name: string, ...args: string[]) =>
  ucredTogether(["policy", name, "--accounts", ACCOUNTS, ...args]);

/** Returns the exit code, and the output of `--json`. */
// deno-lint-ignore no-explicit-any
async function data(name: string, ...args: string[]): Promise<[code: number | null, data: any]> {
  const { code, out, err } = await policy(name, "--json", ...args);
  assert.equal(err, "");
  return [code, JSON.parse(out)];
}

test("policy check reports for each file whether it can be used, with the line of each problem", async () => {
  const { code, out, err } = await policy("check", "--allow-unsafe-owner", GOOD, WRONG);
  assert.deepEqual([code, out], [1, `${GOOD}: ok\n`]);
  assert.match(err, /wrong\.yaml:3:[0-9]+: .*uuid/);
  assert.match(err, /uid/); // the suggestion
  const [jsonCode, [good, wrong]] = await data("check", "--allow-unsafe-owner", GOOD, WRONG);
  assert.equal(jsonCode, 1);
  assert.deepEqual(good, { file: GOOD, result: { ok: true } });
  assert.equal(wrong.result.ok, false);
  assert.match(wrong.result.message, /wrong\.yaml:3:/);
});

test("policy lint prints findings with their lines, and exits with 1 if there are any", async () => {
  const { code, out } = await policy("lint", DOUBTFUL);
  assert.equal(code, 1);
  for (const line of out.trimEnd().split("\n")) {
    assert.match(line, /^.*doubtful\.yaml(:[0-9]+:[0-9]+)?: (error|warning|note): \S/);
  }
  assert.match(out, /doubtful\.yaml:4:[0-9]+: .*never/i);
  const [jsonCode, [{ result }]] = await data("lint", DOUBTFUL);
  assert.equal(jsonCode, 1);
  assert.equal(result.length, out.trimEnd().split("\n").length);
  const [goodCode, [good]] = await data("lint", GOOD);
  assert.equal(goodCode, 0, JSON.stringify(good));
});

test("policy lint exits with 0 when all findings are notes", async () => {
  const noted = file(
    "noted.yaml",
    "version: 1\nrules: [{ name: a, when: { uid: 1-9 }, allow: x }, { name: b, when: { uid: 5-20 }, allow: z }]\n",
  );
  const { code, out } = await policy("lint", noted);
  assert.match(out, /^.*noted\.yaml:2:\d+: note: /);
  assert.equal(code, 0);
});

/** Runs a policy command with this text on stdin. */
function withStdin(input: string | Uint8Array, ...args: string[]) {
  const [program, ...start] = command;
  const { status, stdout, stderr } = spawnSync(program!, [...start, "policy", ...args], {
    input,
    encoding: "utf8",
  });
  return { code: status, out: stdout, err: stderr };
}

test("policy commands read stdin when the file is -", () => {
  const text = "version: 1\nrules: [{ name: root, when: { uid: 0 }, allow: full }]\n";
  assert.deepEqual(withStdin(text, "check", "-"), { code: 0, out: "stdin: ok\n", err: "" });
  assert.match(withStdin(text, "who", "-").out, /^uid 0/);
  assert.match(withStdin(text, "explain", "-", "--user", "0").out, /^Allowed: Rule "root"/m);
  assert.equal(withStdin(text, "diff", "-", GOOD, "--accounts", ACCOUNTS).code, 1);
  const wrong = withStdin(text.replace("uid", "uuid"), "check", "-");
  assert.equal(wrong.code, 1);
  assert.match(
    wrong.err,
    /stdin:2:31: no field "uuid" here; did you mean "uid"\?\n.*run the command again/,
  );
  const doubtful = withStdin("version: 1\nrules: [{ name: all, allow: full }]\n", "lint", "-");
  assert.deepEqual([doubtful.code, /^stdin:2:\d+: warning: /.test(doubtful.out)], [1, true]);
  const bytes = withStdin(new Uint8Array([0x76, 0xff]), "check", "-");
  assert.deepEqual([bytes.code, bytes.err], [2, "ucred: stdin is not in UTF-8\n"]);
  const twice = withStdin(text, "check", "-", "-");
  assert.equal(twice.code, 2);
  assert.match(twice.err, /one policy/);
  assert.equal(withStdin("", "check", "-").code, 1);
});

test("policy lint and test report each file as JSON, also those that cannot be read", async () => {
  for (const name of ["lint", "test"]) {
    const { code, out, err } = await policy(name, "--json", GOOD, WRONG, `${GOOD}.none`);
    assert.equal(code, 2);
    assert.match(err, /wrong\.yaml:3:[^]*good\.yaml\.none: .*ENOENT/);
    const [good, wrong, none] = JSON.parse(out);
    assert.equal(good.file, GOOD);
    assert.notEqual(good.result.ok, false);
    assert.match(wrong.result.message, /wrong\.yaml:3:/);
    assert.match(none.result.message, /ENOENT/);
    assert.deepEqual([wrong.result.ok, none.result.ok], [false, false]);
  }
});

test("policy check --json lists each problem with path, file, line and column", async () => {
  const broken = file(
    "broken.yaml",
    "version: 1\nrules:\n  - { name: a, when: { uid: x }, allow: true }\n",
  );
  const [code, [{ result }]] = await data("check", "--allow-unsafe-owner", broken);
  assert.equal(code, 1);
  assert.equal(result.problems.length, 1);
  const [{ message, ...place }] = result.problems;
  assert.match(message, /^uid is /);
  assert.deepEqual(place, {
    ...{ path: ["rules", 0, "when", "uid"], file: broken, line: 3, column: 29 },
  });
  const missing = await policy("check", "--json", "--allow-unsafe-owner", `${broken}.none`);
  const [none] = JSON.parse(missing.out);
  assert.deepEqual([missing.code, none.result.ok, none.result.problems], [2, false, []]);
});

test("policy explain rejects an --accounts file that YAML readers disagree on", async () => {
  const unclear = file("unclear.yaml", "users:\n  ada: 0100\n");
  const { code, err } = await ucredTogether([
    "policy",
    "explain",
    GOOD,
    "--user",
    "ada",
    "--accounts",
    unclear,
  ]);
  assert.equal(code, 2);
  assert.match(err, /unclear\.yaml:2:8: YAML 1.1 reads 0100 as octal/);
});

test("policy test runs the tests in the file, and exits with 1 if one fails", async () => {
  const [good, bad] = await Promise.all([policy("test", GOOD), policy("test", DOUBTFUL)]);
  assert.deepEqual([good.code, bad.code], [0, 1]);
  const [code, [{ result }]] = await data("test", GOOD);
  assert.deepEqual([code, result.passed, result.results.length], [0, true, 3]);
});

test("policy explain prints the decision about a peer, and exits with 1 if it is denied", async () => {
  const cases: readonly (readonly [args: readonly string[], code: number, output: RegExp])[] = [
    [["--user", "0"], 0, /^Allowed: Rule "root" allows it: full$/m],
    [["--user", "guest"], 1, /^Denied: .*Guests stay outside$/m],
    [["--user", "ada", "--group", "staff", "--action", "GET /x"], 0, /^Allowed: .*readers/m],
    [["--user", "ada", "--group", "50", "9", "--gid", "7", "--action", "GET /x"], 0, /^Allowed/m],
    [["--user", "ada", "--group", "staff", "--action", "POST /x"], 1, /^Denied/m],
    [["--peer", '{"uid":7,"gid":7,"groups":[]}', "--action", "GET /x"], 1, /would match if/],
    [["--action", "GET /x"], 1, /unknown/],
  ];
  await Promise.all(cases.map(async ([args, code, output]) => {
    const ran = await policy("explain", GOOD, ...args);
    assert.equal(ran.code, code, args.join(" "));
    assert.match(ran.out, output, args.join(" "));
  }));
  const [code, { decision, rules }] = await data("explain", GOOD, "--user", "0");
  assert.deepEqual([code, decision.allowed, decision.rule, rules.length], [0, true, "root", 3]);
});

test("policy diff --only-narrower exits with 1 only if the edit allows more", async () => {
  const of = (name: string, uid: string, allow = "true") =>
    file(name, `version: 1\nrules: [{ name: r, when: { uid: ${uid} }, allow: ${allow} }]\n`);
  const [wide, narrow, granting] = [
    of("wide.yaml", '"1-9"'),
    of("narrow.yaml", '"1-8"'),
    of("granting.yaml", '"1-9"', "[write]"),
  ];
  const cases: readonly (readonly [before: string, after: string, code: number])[] = [
    [wide, narrow, 0],
    [wide, wide, 0],
    [narrow, wide, 1],
    [wide, granting, 1],
    [granting, wide, 0],
  ];
  for (const [before, after, code] of cases) {
    const ran = await policy("diff", "--only-narrower", before, after);
    assert.equal(ran.code, code, `${before} ${after}`);
    assert.match(
      ran.out,
      code === 0 ? /^The edit allows nothing more$/m : /^The edit allows more$/m,
    );
  }
  const [code, found] = await data("diff", "--only-narrower", narrow, wide);
  assert.deepEqual([code, found.peer.uid], [1, 9]);
});

test("policy explain --attributes decides by attributes of the request, from JSON or a file", async () => {
  const policyFile = file(
    "about.yaml",
    `version: 1
about: http
rules:
  - { name: first page, where: { query: { page: { every: "1" } } }, allow: true }
`,
  );
  const attributesFile = file("attributes.json", '{ "query": { "page": ["1"] } }');
  const request = ["--user", "0", "--action", "GET /x", "--attributes"];
  const cases: readonly (readonly [attributes: string, code: number, output: RegExp])[] = [
    ['{"query":{"page":["1"]}}', 0, /^Allowed: Rule "first page" allows it$/m],
    [attributesFile, 0, /^Allowed/m],
    ['{"query":{"page":["1","2"]}}', 1, /query\.page every 1: no\n.*would match if/],
    ["{}", 1, /^Denied: No rule matches; unknown: attributes\.query\.page$/m],
    ['{"qeury":{}}', 2, /--attributes\.qeury: no field "qeury" here; did you mean "query"\?/],
    ['{"query":[]}', 2, /--attributes\.query: parameters is an object, not \[\]/],
    ['{"query"', 2, /--attributes: /],
    ["/nonexistent/file", 2, /ENOENT/],
  ];
  await Promise.all(cases.map(async ([attributes, code, output]) => {
    const ran = await policy("explain", policyFile, ...request, attributes);
    assert.equal(ran.code, code, ran.err);
    assert.match(ran.out + ran.err, output);
  }));
  const wider = file(
    "wider.yaml",
    "version: 1\nabout: http\nrules: [{ name: r, where: { query: { page: {} } }, allow: true }]\n"
      .replace("{}", '{ every: ["1", "2"] }'),
  );
  const diff = await policy("diff", policyFile, wider);
  assert.equal(diff.code, 1, diff.err);
  assert.match(diff.out, /^attributes: +\{"query":\{"page":\["2"\]\}\}$/m);
  const none = await policy("explain", GOOD, ...request, "{}");
  assert.equal(none.code, 2);
  assert.match(none.err, /the policy has no about/);
});

/** The user that runs the tests, and the ids and names of its groups. Empty without an account. */
const me = outputOf("id", "-un");
const groups = outputOf("id", "-G", "--", me).split(" ");
const names = outputOf("id", "-Gn", "--", me).split(" ");

function outputOf(program: string, ...args: string[]): string {
  try {
    return execFileSync(program, args, { encoding: "utf8" }).trim();
  } catch {
    return "";
  }
}

testWith(
  [{ name: "an account for the tests' user", met: me !== "" && groups[0] !== "" }],
  "policy explain --user uses and prints the groups of the account; who and diff print names",
  async () => {
    const group = names.at(-1)!;
    const path = file(
      "groups.yaml",
      `version: 1\nrules: [{ name: in, when: { group: ${JSON.stringify(group)} }, allow: x }]\n`,
    );
    const run = (...args: string[]) => ucredTogether(["policy", ...args]);
    for (const user of [me, outputOf("id", "-u")]) {
      const { code, out } = await run("explain", path, "--user", user);
      assert.equal(code, 0, out);
      const [first] = out.split("\n");
      assert.match(first!, new RegExp(`^${me} now has uid \\d+, gid ${groups[0]} and the groups `));
      assert.ok(first!.includes(`${groups.at(-1)} (${group})`), out);
    }
    const json = JSON.parse((await run("explain", path, "--user", me, "--json")).out);
    assert.deepEqual(json.peer.groups.map(String), groups);
    // --gid and --group replace the groups of the account.
    const given = await run(
      "explain",
      path,
      "--user",
      me,
      "--gid",
      "4294967",
      "--group",
      "4294967",
    );
    assert.equal(given.code, 1);
    const stranger = await run("explain", path, "--user", "4294967");
    assert.equal(stranger.code, 1);
    assert.match(stranger.out, /^The groups of 4294967 are unknown \(there is no such account\)/);
    const who = await run("who", path);
    assert.ok(who.out.includes(`in group ${groups.at(-1)} (${group})`), who.out);
    const none = file("nobody.yaml", "version: 1\nrules: []\n");
    const diff = await run("diff", path, none);
    assert.ok(diff.out.includes(`gid ${groups.at(-1)} is ${group}`), diff.out);
  },
);

test("policy who and diff print the names of --accounts", async () => {
  assert.match((await policy("who", GOOD, "--action", "GET /x")).out, /in group 50 \(staff\)/);
  const guests = file(
    "guests.yaml",
    "version: 1\nrules: [{ name: g, when: { uid: 9 }, allow: x }]\n",
  );
  const none = file("none.yaml", "version: 1\nrules: []\n");
  assert.match((await policy("diff", guests, none)).out, /^ +uid 9 is guest/m);
  assert.match(
    (await policy("explain", GOOD, "--user", "ada")).out,
    /^The groups of ada are unknown \(--accounts lists no members of groups\): set them with --gid/,
  );
});

testWith(
  [needs.linux, needs.root],
  "policy explain --pid explains the decision about a running process",
  async () => {
    const { code, out } = await policy("explain", GOOD, "--pid", `${process.pid}`);
    assert.equal(code, 0);
    assert.match(out, /^Allowed: Rule "root"/m);
  },
);

test("policy who lists the peers that a policy allows", async () => {
  const [root, readers, nobody] = await Promise.all([
    policy("who", GOOD),
    policy("who", GOOD, "--action", "GET /x"),
    policy(
      "who",
      file("none.yaml", "version: 1\nrules: [{ name: none, when: { uid: 1 }, deny: true }]\n"),
    ),
  ]);
  assert.match(root.out, /0/);
  assert.match(readers.out, /50|staff/);
  assert.deepEqual([nobody.code, nobody.out, nobody.err], [0, "no peer\n", ""]);
  assert.match(root.err, /^note: this list leaves out rules with actions; --action ACTION /);
  assert.equal(readers.err, "");
  const [code, { clauses }] = await data("who", GOOD, "--action", "GET /x");
  assert.equal(code, 0);
  assert.ok(clauses.length >= 2);
});

test("policy diff prints a decision that an edit changes, and exits with 1, or with 0 if there is none", async () => {
  const [same, other] = await Promise.all([
    policy("diff", GOOD, GOOD),
    policy("diff", GOOD, DOUBTFUL),
  ]);
  assert.deepEqual([same.code, same.out], [0, "No decision changes\n"]);
  assert.equal(other.code, 1);
  assert.match(
    other.out,
    /^A decision changes\npeer: +\{.*\}\n[\s\S]*good\.yaml: +denied[\s\S]*doubtful\.yaml: +allowed/,
  );
  const [code, found] = await data("diff", GOOD, DOUBTFUL);
  assert.equal(code, 1);
  assert.notEqual(found.before.allowed, found.after.allowed);
});

test("policy commands escape the names in a policy", async () => {
  const hostile = String.raw`"\e[2J\u202E\aevil\nname"`;
  const rule = `{ name: ${hostile}, when: { exe: ${hostile} }, deny: ${hostile} }`;
  const path = file("hostile.yaml", `version: 1\nrules: [${rule}]\n`);
  for (const args of [["lint"], ["explain", "--user", "0"], ["who"], ["test"]]) {
    const [name, ...rest] = args as [string];
    const { out, err } = await policy(name, path, ...rest);
    assertPrintable(out + err);
  }
});

const RECORDING = file(
  "learned.jsonl",
  [
    { recording: 1, mode: "docker" },
    ...["nginx:1", "app:1"].map((image) => ({
      ...{ caller: { uid: 7, gid: 7, groups: [7, 50] }, action: "container.create", allowed: true },
      attributes: { image, dangers: [], restartPolicy: "no" },
    })),
    {
      ...{ caller: { uid: 7, gid: 7 }, action: "container.stop", allowed: true },
      attributes: { owner: 7, dangers: [] },
    },
    {
      ...{ caller: { uid: 7, gid: 7 }, action: "volume.create", allowed: true },
      attributes: { driver: "local", dangers: ["DriverOpts"] },
    },
    { ...{ caller: { uid: 7, gid: 7 }, action: "system.\u202einfo", allowed: false } },
    { entry: 1, count: 2 },
  ].map((line) => `${JSON.stringify(line)}\n`).join(""),
);

test("policy suggest prints a policy that can be used as it is, and passes its tests", async () => {
  const { code, out, err } = await policy("suggest", RECORDING);
  assert.deepEqual([code, err], [0, ""]);
  assertPrintable(out);
  assert.match(out, /^# Suggested from .*learned\.jsonl\..*\n# 1 request was denied/);
  assert.match(out, /\n# Not allowed: line 5, volume\.create: .* DriverOpts\n/);
  assert.match(out, /\n {2}# Seen 4 times\n {2}- name: "uid 7: container\.create"\n/);
  assert.match(out, /where: \{ image: \[ "?app:1"?, "?nginx:1"? \], /);
  assert.match(out, /where: \{ owner: self, dangers: \{ empty: true \} \}/);
  assert.match(out, /\n# {3}- name: "uid 7: volume\.create"\n/);
  const saved = file("suggested.yaml", out);
  const [checked, tested, linted] = await Promise.all([
    policy("check", "--allow-unsafe-owner", saved),
    policy("test", saved),
    policy("lint", saved),
  ]);
  assert.deepEqual([checked.code, linted.code], [0, 0]);
  assert.equal(tested.code, 0);
  assert.match(tested.out, /another caller is denied/);
  const [jsonCode, document] = await data("suggest", RECORDING);
  assert.equal(jsonCode, 0);
  assert.equal(document.about, "docker");
  const byGroup = await policy("suggest", RECORDING, "--by", "group");
  assert.match(byGroup.out, /when: \{ group: staff \}/);
  assert.match(byGroup.out, /# Not allowed: line 4, .*: its caller has no group with a name/);
});

test("policy suggest fails for a file that is no recording, and exits with 1 if nothing is allowed", async () => {
  const empty = file("empty.jsonl", '{"recording":1,"mode":"http"}\n');
  const broken = file("broken.jsonl", '{"recording":1,"mode":"docker"}\n{}\n');
  const [nothing, wrong, by] = await Promise.all([
    policy("suggest", empty),
    policy("suggest", broken),
    policy("suggest", empty, "--by", "pid"),
  ]);
  assert.equal(nothing.code, 1);
  assert.match(nothing.err, /has no request to allow/);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /broken\.jsonl:2:1: it is not an entry of a recording/);
  assert.equal(by.code, 2);
});

test("policy suggest warns of users that could have added requests to the recording", async () => {
  const recording = file("others.jsonl", readFileSync(RECORDING, "utf8"));
  const warning = /could have added requests to the recording/;
  chmodSync(recording, 0o622);
  const open = await policy("suggest", recording);
  assert.equal(open.code, 0);
  assert.match(open.err, warning);
  assert.match(
    open.out,
    /^# Suggested .*\n# Other users could have added requests to the recording\.\n/,
  );
  if (process.getuid!() !== 0) return;
  chmodSync(recording, 0o600);
  chownSync(recording, 4321, 0);
  const { code, out, err } = await policy("suggest", recording);
  assert.equal(code, 0);
  assert.match(err, /others\.jsonl: uid 4321 could have added requests/);
  assert.match(out, /^# Suggested .*\n# uid 4321 could have added requests to the recording\.\n/);
});

const DOCKER = file(
  "docker.yaml",
  `version: 1
about: docker
rules:
  - name: contained containers
    when: { uid: 7 }
    actions: container.create
    where: { dangers: { empty: true }, image: "docker.io/library/*:latest" }
    allow: true
  - { name: own, when: { group: staff }, actions: "container.*", where: { owner: self }, allow: true }
`,
);

test("policy explain --request explains a record of an audit log, with the attributes that it has", async () => {
  const record = (attributes: object, more: object = {}) => ({
    ...{
      time: "2026-01-01T00:00:00.000Z",
      event: "decided",
      connection: 1,
      action: "container.create",
    },
    ...{ peer: { pid: 4, uid: 7, gid: 7 }, attributes, allowed: true, rule: "x", reason: "Rule x" },
    ...more,
  });
  const image = "docker.io/library/nginx:latest";
  const log = file(
    "audit.log",
    [
      record({ dangers: [], image, labels: 2 }),
      record({ dangers: ["HostConfig.Binds"], image }),
      record({ dangers: [], image: "x".repeat(256) }),
      record({ dangers: Array(16).fill("a"), image }),
      record({ dangers: [], image }, { peer: { uid: 7, gid: 7, ambiguous: ["uid"] } }),
      { ...record({}), event: "closed" },
    ].map((line) => `${JSON.stringify(line)}\n`).join(""),
  );
  const explain = (line: number, ...more: string[]) =>
    policy("explain", DOCKER, "--request", `${log}:${line}`, ...more);
  const [good, bound, long, many, ambiguous, other, whole] = await Promise.all([
    ...[1, 2, 3, 4, 5, 6].map((line) => explain(line)),
    policy("explain", DOCKER, "--request", log),
  ]);
  assert.equal(good!.code, 0, good!.err);
  assert.match(good!.out, /^The record: allowed\. Rule x\n/);
  assert.match(
    good!.out,
    /It has no value of labels\nAction: container\.create\nAttributes: \{"dangers":\[\],"image"/,
  );
  assert.match(good!.out, /contained containers/);
  // What is shortened or missing in the record is unknown, and does not allow.
  for (const { code } of [bound!, long!, many!, ambiguous!]) assert.equal(code, 1);
  assert.match(long!.out, /It has no value of image/);
  assert.equal(other!.code, 2);
  assert.match(other!.err, /--request must be a record of an audit log/);
  assert.equal(whole!.code, 2);
  assert.match(whole!.err, /has 6 lines: choose one with .*audit\.log:LINE/);
  const [, json] = await data("explain", DOCKER, "--request", `${log}:1`);
  assert.deepEqual([json.peer.uid, json.action, json.attributes.image], [
    7,
    "container.create",
    image,
  ]);
  const nobody = await explain(1, "--peer", '{"uid":8}');
  assert.equal(nobody.code, 1);
});

test("policy explain --request explains an entry of guard --learn", async () => {
  const entry = (line: number) => policy("explain", DOCKER, "--request", `${RECORDING}:${line}`);
  const [stop, header, none] = await Promise.all([entry(4), entry(1), entry(99)]);
  assert.equal(stop.code, 1);
  assert.match(stop.out, /Action: container\.stop\nAttributes: \{"owner":7,"dangers":\[\]\}\n/);
  const staff = await policy(
    "explain",
    DOCKER,
    "--request",
    `${RECORDING}:4`,
    "--peer",
    '{"uid":7,"gid":50}',
  );
  assert.equal(staff.code, 0, staff.out);
  assert.equal(header.code, 2);
  assert.equal(none.code, 2);
  assert.match(none.err, /has no line 99/);
});

test("policy explain --request explains a request of MCP, and what else it needs", async () => {
  const mcp = file(
    "mcp.yaml",
    `version: 1
about: mcp
rules:
  - name: read
    actions: tools/call read
    where: { arguments: { path: { every: /srv/*, empty: false } } }
    allow: true
  - { name: complete, actions: completion/complete, allow: true }
`,
  );
  const explain = (request: object) =>
    policy("explain", mcp, "--request", JSON.stringify(request), "--peer", '{"uid":7}');
  const call = (path: string) => ({
    ...{ jsonrpc: "2.0", id: 1, method: "tools/call" },
    params: { name: "read", arguments: { path } },
  });
  const ref = { type: "ref/prompt", name: "p" };
  const [allowed, denied, more, malformed, unknown] = await Promise.all([
    explain(call("/srv/a")),
    explain(call("/etc/a")),
    explain({ method: "completion/complete", params: { ref } }),
    explain({ method: "tools/call", params: { name: 1 } }),
    explain({ method: "tools/list", path: "/" }),
  ]);
  assert.deepEqual([allowed.code, denied.code, more.code], [0, 1, 0], allowed.err);
  assert.match(more.out, /It also needs prompts\/get p\n/);
  assert.match(malformed.err, /the guard answers -32602: The parameter name is a string/);
  assert.match(unknown.err, /unknown field "path"/);
});

test("policy explain --request explains a request of Docker's API, and what else it needs", async () => {
  const explain = (request: object, ...more: string[]) =>
    policy(
      "explain",
      DOCKER,
      "--request",
      JSON.stringify(request),
      "--peer",
      '{"uid":7,"gid":50}',
      ...more,
    );
  const create = (body: object) => ({ method: "POST", path: "/v1.46/containers/create", body });
  const [plain, joined, refused, act, own, unknown] = await Promise.all([
    explain(create({ Image: "nginx" })),
    explain(create({ Image: "nginx", HostConfig: { Privileged: true, PidMode: "container:db" } })),
    explain(create({ Image: "nginx", HostConfig: { Privileeged: true } })),
    explain({ method: "POST", path: "/containers/web/stop" }),
    explain({ method: "POST", path: "/containers/web/stop" }, "--attributes", '{"owner":7}'),
    explain({ method: "POST", path: "/containers/web/stop", host: "x" }),
  ]);
  assert.equal(plain.code, 0, plain.out + plain.err);
  assert.equal(joined.code, 1);
  assert.match(
    joined.out,
    /It also needs container\.join of the container "db": HostConfig\.PidMode\n/,
  );
  assert.match(joined.out, /"dangers":\["HostConfig\.Privileged"\]/);
  assert.equal(refused.code, 2);
  assert.match(refused.err, /the guard answers 400: .*Privileeged/);
  assert.deepEqual([act.code, own.code], [1, 0]);
  assert.match(act.out, /--attributes/);
  assert.equal(unknown.code, 2);
  assert.match(unknown.err, /unknown field "host"/);
  const http = await policy(
    "explain",
    GOOD,
    "--request",
    '{"method":"GET","path":"/a/../x?q=1"}',
    "--peer",
    '{"uid":1,"gid":50,"groups":[]}',
  );
  assert.equal(http.code, 0, http.err);
  assert.match(http.out, /Action: GET \/x\n/);
  const both = await policy("explain", GOOD, "--request", "{}", "--action", "GET /");
  assert.equal(both.code, 2);
});
