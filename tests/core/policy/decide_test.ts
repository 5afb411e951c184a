/** Policies: what each condition means, and a search for disagreement with a naive evaluator. */

import fc from "../../support/properties.ts";
import assert from "node:assert/strict";
import { test } from "node:test";
import { UcredError } from "../../../core/errors.ts";
import type { Peer } from "../../../core/peer.ts";
import type { PlainPeer } from "../../../core/policy/decide/subject.ts";
import { checkPolicy } from "../../../core/policy/document/check.ts";
import type { Problem } from "../../../core/policy/document/problems.ts";
import { show, suggest } from "../../../core/policy/document/shape.ts";
import type { Condition, RuleDocument } from "../../../core/policy/document/types.ts";
import {
  compile,
  condition,
  decideNaively,
  glob,
  globMatches,
  GROUPS,
  holds,
  OWN_UID,
  peer,
  resolve,
  rules,
  RUNS,
  text,
} from "./policies.ts";

function problemsOf(document: unknown): readonly Problem[] {
  const result = checkPolicy(document, resolve);
  return "problems" in result ? result.problems.first : [];
}

const allows = (when: Condition, peer: PlainPeer) =>
  compile({ name: "r", when, allow: true }).decide(peer).allowed;

test("decide() uses the first rule that matches, and denies without a match", () => {
  const policy = compile(
    { name: "root", when: { uid: 0 }, allow: "full" },
    { name: "contractors never", when: { group: "docker" }, deny: "Use the bastion" },
    { name: "people", when: { uid: "1-5" }, allow: ["read", "write"] },
  );
  const root = policy.decide({ uid: 0, gid: 3, groups: [] });
  assert.deepEqual([root.allowed, root.rule, root.grants], [true, "root", ["full"]]);
  assert.equal(root.reason, 'Rule "root" allows it: full');
  const contractor = policy.decide({ uid: 1, gid: 6, groups: [3] });
  assert.deepEqual([contractor.allowed, contractor.rule], [false, "contractors never"]);
  assert.equal(contractor.reason, 'Rule "contractors never" denies it: Use the bastion');
  assert.deepEqual(policy.decide({ uid: 5, gid: 6, groups: [] }).grants, ["read", "write"]);
  const { message, reason } = compile({ name: "no", deny: true }).decide({});
  assert.deepEqual([message, reason], [undefined, 'Rule "no" denies it']);
  const stranger = policy.decide({ uid: 6, gid: 6, groups: [] });
  assert.deepEqual([stranger.allowed, stranger.rule, stranger.grants], [false, undefined, []]);
  assert.equal(stranger.reason, "No rule matches");
  assert.ok(Object.isFrozen(root) && Object.isFrozen(root.grants));
  assert.equal(compile().decide({ uid: 0 }).allowed, false, "no rules at all");
});

test("decide() matches unsigned 32-bit ids, and ranges include both ends", () => {
  for (const uid of [0, 4000000000, 4294967294]) assert.ok(allows({ uid }, { uid }));
  for (const [uid, allowed] of [[999, false], [1000, true], [1999, true], [2000, false]] as const) {
    assert.equal(allows({ uid: "1000-1999" }, { uid }), allowed, String(uid));
    assert.equal(allows({ gid: ["7", "1000-1999"] }, { gid: uid }), allowed, String(uid));
  }
  assert.ok(!allows({ uid: 0 }, { uid: 4294967296 }));
});

test("decide() matches group with the primary and supplementary groups, and gid with the primary one", () => {
  assert.ok(allows({ group: "docker" }, { gid: 3, groups: [] }));
  assert.ok(allows({ group: "docker" }, { gid: 9, groups: [1, 3] }));
  assert.ok(!allows({ group: "docker" }, { gid: 9, groups: [1] }));
  assert.ok(!allows({ gid: 3 }, { gid: 9, groups: [3] }));
});

test("decide() matches texts by anchored globs, and no glob when the fact is none", () => {
  const process = { exe: "/usr/bin/node", unit: null };
  assert.ok(allows({ exe: "/usr/bin/*" }, { process }));
  assert.ok(allows({ exe: "/usr/**" }, { process }));
  for (const exe of ["/usr/*", "usr/bin/node", "/usr/bin/nod", "*", "/usr/bin/node/**"]) {
    assert.ok(!allows({ exe }, { process }), exe);
  }
  assert.ok(!allows({ unit: "**" }, { process }));
  assert.ok(allows({ not: { unit: "**" } }, { process }), "no unit is not any unit");
  assert.ok(!allows({ not: { unit: "**" } }, { process: {} }), "an unknown unit may be any");
});

test("decide() gives only labels a mode and children", () => {
  for (const field of ["exe", "unit", "cgroup", "container"] as const) {
    const when = { [field]: "/a" };
    for (const value of ["/a (deleted)", "/a (enforce)", "/a//b", "b//&/a"]) {
      assert.ok(!allows(when, { process: { [field]: value } }), `${field} ${value}`);
      assert.ok(allows({ not: when }, { process: { [field]: value } }), `${field} ${value}`);
    }
  }
});

test("decide() denies when a fact of an allowing or denying rule is unknown", () => {
  const peer = { uid: 1, process: {} };
  assert.ok(!allows({ exe: "**" }, peer));
  assert.ok(!allows({ not: { exe: "/bin/evil" } }, peer));
  const policy = compile(
    { name: "never", when: { uid: 1, exe: "/bin/evil" }, deny: "No" },
    { name: "all", allow: true },
  );
  const { allowed, rule, unknown, reason } = policy.decide(peer);
  assert.deepEqual([allowed, rule, unknown], [false, "never", ["exe"]]);
  assert.equal(reason, 'Rule "never" may match, and denies it: No; unknown: exe');
  assert.ok(policy.decide({ uid: 2, process: {} }).allowed, "it is not about uid 2");
  assert.ok(!policy.decide({ process: {} }).allowed, "it may be about an unknown uid");
});

test("decide() lists the unknown facts of the conditions that are unknown, and no others", () => {
  const policy = compile(
    { name: "a", when: { any: [{ uid: 9 }], label: "z" }, allow: true },
    { name: "b", when: { any: [{ gid: 9 }, { label: "z" }], unit: "u" }, allow: true },
    { name: "c", when: { exe: "/a" }, allow: true },
    { name: "d", when: { any: [{ uid: 9 }, { label: "x" }] }, actions: "GET /", allow: true },
  );
  const peer = { label: "x", process: { unit: "u" } };
  const { rule, unknown, reason } = policy.decide(peer);
  assert.deepEqual([rule, unknown], [undefined, ["gid", "exe"]]);
  assert.equal(reason, "No rule matches; unknown: gid, exe");
  assert.throws(() => (unknown as string[]).push("uid"), TypeError);
  const allowed = policy.decide(peer, { action: "GET /" });
  assert.deepEqual([allowed.rule, allowed.unknown], ["d", ["gid", "exe"]]);
  const known = policy.decide({ ...peer, gid: 1, process: { unit: "u", exe: null } }, {
    action: "GET /",
  });
  assert.deepEqual([known.rule, known.unknown], ["d", []]);
});

test("decide() tests sameUser, sameNamespaces and unchanged", () => {
  assert.ok(
    allows({ sameUser: true }, { uid: OWN_UID }) && !allows({ sameUser: true }, { uid: 0 }),
  );
  assert.ok(!allows({ sameUser: false }, {}) && allows({ sameUser: false }, { uid: 0 }));
  const both: Condition = { sameNamespaces: ["user", "pid"] };
  const namespaces = { user: { ours: true }, pid: { ours: true } };
  assert.ok(allows(both, { process: { namespaces } }));
  assert.ok(!allows(both, { process: { namespaces: { ...namespaces, pid: { ours: false } } } }));
  assert.ok(!allows(both, { process: { namespaces: { user: { ours: true } } } }), "unknown");
  assert.ok(
    !allows({ not: both }, { process: { namespaces: { user: { ours: true } } } }),
    "unknown",
  );
  const policy = compile({ name: "r", when: both, allow: true });
  for (const process of [{}, { namespaces: { user: { ours: true } } }]) {
    assert.deepEqual(policy.decide({ process }).unknown, ["namespaces"]);
  }
  assert.ok(allows({ unchanged: true }, { unchanged: true }));
  assert.ok(!allows({ unchanged: true }, {}) && !allows({ unchanged: true }, { unchanged: false }));
});

test("decide() tests every condition of an alternative with an id", () => {
  const other: Condition[] = [{ uid: 70, gid: 9 }, { group: "users" }];
  for (const id of [{ uid: 5 }, { uid: "0-50" }, { gid: 9 }, { group: "docker" }]) {
    const both: Condition = { ...id, label: "x" };
    for (
      const when of [
        both,
        { any: [both] },
        { any: [...other, both] },
        { any: [both, ...other] },
        { any: [{ any: [{ all: [id, { label: "x" }] }] }] },
        { all: [{ any: [id] }, { any: [{ label: "x" }] }] },
      ]
    ) {
      const peer = { uid: 5, gid: 9, groups: [3] };
      const labels = ["x", "y", null, undefined];
      assert.deepEqual(
        labels.map((label) => allows(when, label === undefined ? peer : { ...peer, label })),
        [true, false, false, false],
        JSON.stringify(when),
      );
    }
  }
});

test("needsPin is true when a rule tests a fact that only a pinned peer has", () => {
  const needs = (when: Condition) => compile({ name: "r", when, allow: true }).needsPin;
  const none: Condition[] = [{ uid: 1 }, { gid: 1 }, { group: "docker" }, { label: "x" }];
  const pinned: Condition[] = [{ exe: "/x" }, { exeSha256: "0".repeat(64) }, { unit: "x" }];
  pinned.push({ cgroup: "/x" }, { container: "x" }, { sameNamespaces: "pid" }, { unchanged: true });
  for (const when of [...none, { all: none }, { any: none }, { not: { any: none } }]) {
    assert.equal(needs(when), false, JSON.stringify(when));
  }
  for (const when of pinned) {
    for (const each of [when, { any: [...none, when] }, { not: { all: [when] } }]) {
      assert.equal(needs(each), true, JSON.stringify(each));
    }
  }
  assert.equal(compile({ name: "all", allow: true }).needsPin, false);
});

test("decide() matches actions by globs, and no rule with actions when there is no action", () => {
  const policy = compile(
    { name: "no secrets", actions: "GET /secrets/**", deny: true },
    { name: "reader", when: { uid: 1 }, actions: ["GET /**", "HEAD /**"], allow: "read" },
  );
  const ask = (action?: string) => policy.decide({ uid: 1 }, { action }).allowed;
  assert.deepEqual(["GET /x/y", "GET /secrets/x", "PUT /x", undefined].map(ask), [
    true,
    false,
    false,
    false,
  ]);
});

test("admits() is false only if no action could be allowed", () => {
  const policy = compile(
    { name: "blocked", when: { uid: 3 }, deny: true },
    { name: "one less", actions: "GET /x", deny: true },
    { name: "reader", when: { uid: "1-3" }, actions: "GET /**", allow: "read" },
  );
  assert.deepEqual([0, 1, 3].map((uid) => policy.admits({ uid })), [false, true, false]);
  assert.equal(compile({ name: "all", actions: "**", deny: true }).admits({ uid: 0 }), false);
  const except = compile(
    { name: "no", when: { label: "z" }, deny: true },
    { name: "all", allow: true },
  );
  assert.deepEqual([{ label: "x" }, { label: "z" }, {}].map((peer) => except.admits(peer)), [
    ...[true, false, false],
  ]);
  const labelled = compile(
    { name: "no", when: { label: "z" }, deny: true },
    { name: "yes", when: { label: ["x", "z"] }, actions: "GET /", allow: true },
  );
  const labels = ["x", "y", "z", null, undefined];
  assert.deepEqual(
    labels.map((label) => labelled.admits(label === undefined ? {} : { label })),
    [true, false, false, false, false],
  );
});

test("explain() reports for each rule the conditions that held, near misses and unknown facts", () => {
  const policy = compile(
    { name: "root", when: { uid: 0 }, allow: "full" },
    { name: "writers", when: { uid: "1-5", group: "docker" }, actions: "PUT *", allow: "write" },
    { name: "node", when: { uid: 1, exe: "/usr/bin/node" }, allow: "node" },
    { name: "operators", when: { uid: "1-5", group: ["docker", "wheel"] }, allow: "read" },
    { name: "rest", when: { not: { any: [{ uid: 9 }, { unit: "x" }] } }, deny: "No" },
    { name: "never", allow: true },
  );
  const peer = { uid: 1, gid: 9, groups: [], process: { unit: null } };
  const explanation = policy.explain(peer, { action: "GET /" });
  assert.deepEqual(explanation.decision, policy.decide(peer, { action: "GET /" }));
  assert.deepEqual(
    explanation.rules.map(({ rule, outcome, nearMiss }) => [rule, outcome, nearMiss]),
    [
      ["root", "no match", "would match if its uid were 0"],
      ["writers", "other action", undefined],
      ["node", "unknown", "would match if it were known that its exe is /usr/bin/node"],
      ["operators", "no match", "would match if the peer were in group docker or wheel"],
      ["rest", "decided", undefined],
      ["never", "not reached", undefined],
    ],
  );
  assert.deepEqual(explanation.rules[2]!.conditions, [
    { text: "uid 1", holds: true, unknown: [], why: [] },
    { text: "exe /usr/bin/node", holds: undefined, unknown: ["exe"], why: ["exe is not known"] },
  ]);
  assert.equal(
    String(explanation),
    [
      "root       allow  no match",
      "             uid 0: no",
      "             would match if its uid were 0",
      "writers    allow  other action",
      "node       allow  unknown",
      "             uid 1: yes",
      "             exe /usr/bin/node: unknown (exe is not known)",
      "             would match if it were known that its exe is /usr/bin/node",
      "operators  allow  no match",
      "             uid 1-5: yes",
      "             group docker or wheel: no",
      "             would match if the peer were in group docker or wheel",
      "rest       deny   decided",
      "             not (any of (uid 9; unit x)): yes",
      "never      allow  not reached",
      'Denied: Rule "rest" denies it: No',
    ].join("\n"),
  );
});

test("explain() writes a near miss as a sentence", () => {
  const process = { unit: "a.service", namespaces: { pid: { ours: false } } };
  const peer = { uid: 1, gid: 9, groups: [3], unchanged: false, process };
  const cases: readonly (readonly [Condition, string | undefined])[] = [
    [{ uid: "5-9", gid: 9 }, "its uid were 5-9"],
    [{ uid: [5, "7-9"] }, "its uid were 5 or 7-9"],
    [{ user: "ben" }, "its user were ben"],
    [{ sameUser: true }, `its uid were ${OWN_UID}, the server's own`],
    [{ not: { user: "ada" }, unit: "a*" }, "its user were not ada"],
    [{ group: "users" }, "the peer were in group users"],
    [{ not: { group: ["docker", "users"] } }, "the peer were not in group docker or users"],
    [{ all: [{ group: "users" }, { group: "docker" }] }, "the peer were in group users"],
    [{ unit: "x.service" }, "its unit were x.service"],
    [{ sameNamespaces: ["pid"] }, "it were in the server's namespaces: pid"],
    [{ unchanged: true }, "it were as it was at connect"],
    [{ not: { unchanged: false } }, "it were as it was at connect"],
    [{ any: [{ uid: 0 }, { group: "users" }] }, "its uid were 0 or the peer were in group users"],
    [{ not: { any: [{ uid: 1 }, { gid: 9 }] } }, "its uid were not 1 and its gid were not 9"],
    [{ exe: "/b" }, "it were known that its exe is /b"],
    [{ not: { exe: "/b" } }, "it were known that its exe is not /b"],
    // Two things in the way, or one that is not free to be otherwise.
    [{ uid: 5, gid: 7 }, undefined],
    [{ uid: 5, unit: "b" }, undefined],
    [{ user: "root", uid: "1-9" }, undefined],
    [{ uid: 0, not: { user: "root" } }, undefined],
    [{ all: [{ group: "docker" }, { not: { group: "docker" } }] }, undefined],
    // A gid is one of the groups.
    [{ not: { group: "docker" }, gid: 3 }, undefined],
    [{ group: "docker", gid: 3 }, undefined],
    [{ group: "docker", gid: 9 }, undefined],
    [{ group: "users", gid: 9 }, "the peer were in group users"],
    [{ not: { gid: 9 }, uid: 1 }, "its gid were not 9"],
    [{ any: [{ all: [{ gid: 6 }, { not: { group: "users" } }] }] }, undefined],
    [{ any: [{ uid: 0, all: [{ uid: 5 }] }] }, undefined],
    [{ not: { any: [{ uid: 1 }, { not: { uid: 2 } }] } }, undefined],
  ];
  for (const [when, wish] of cases) {
    const { rules } = compile({ name: "r", when, allow: true }).explain(peer);
    const expected = wish && `would match if ${wish}`;
    assert.equal(rules[0]!.nearMiss, expected, JSON.stringify(when));
  }
});

test("decide() matches a label without a mode in any mode, and denies stacks and children as well", () => {
  const decide = (when: Condition, effect: { deny: true } | { allow: true }, label: string) =>
    compile({ name: "r", when, ...effect }, { name: "rest", allow: "rest" })
      .decide({ label }).grants.length === 0;
  const evil = { label: "snap.evil.app" };
  const deny = { deny: true } as const;
  const allow = { allow: true } as const;
  const modes = ["", " (enforce)", " (complain)", " (kill)", " (unconfined)", " (mixed)"];
  for (const mode of modes) {
    for (
      const profile of [
        "snap.evil.app",
        "snap.evil.app//child",
        "snap.evil.app//&other",
        "a//&snap.evil.app",
        "a//&snap.evil.app//&z",
        "a//&snap.evil.app//child",
      ]
    ) {
      const label = `${profile}${mode}`;
      assert.ok(decide(evil, deny, label), label);
      assert.ok(decide({ any: [{ uid: 7 }, evil] }, deny, label), label);
      assert.ok(!decide({ not: evil }, allow, label), label);
      // What lets in is that profile, and no other.
      assert.equal(decide(evil, allow, label), profile === "snap.evil.app", label);
      assert.equal(decide({ not: evil }, deny, label), profile !== "snap.evil.app", label);
    }
    for (const profile of ["snap.evil.app2", "a.snap.evil.app", "snap.evil", "unconfined"]) {
      assert.ok(!decide(evil, deny, `${profile}${mode}`), `${profile}${mode}`);
      assert.ok(!decide(evil, allow, `${profile}${mode}`), `${profile}${mode}`);
    }
  }
  const enforced = { label: "snap.evil.app (enforce)" };
  assert.ok(decide(enforced, deny, "snap.evil.app//child (enforce)"));
  assert.ok(!decide(enforced, deny, "snap.evil.app//child (complain)"));
  assert.ok(decide({ label: "a (b)c" }, allow, "a (b)c"));
  assert.ok(!decide({ label: "a (b)c" }, allow, "a (b)"));
  assert.ok(decide(enforced, allow, "snap.evil.app (enforce)"));
  assert.ok(!decide(enforced, allow, "snap.evil.app (complain)"));
  assert.ok(!decide(enforced, allow, "snap.evil.app"));
  assert.ok(decide(enforced, deny, "a//&snap.evil.app (enforce)"));
  const selinux = "system_u:system_r:httpd_t:s0";
  assert.ok(decide({ label: selinux }, deny, selinux));
  assert.ok(!decide({ label: selinux }, deny, `${selinux}:c1`));
});

test("explain() suggests no gid that would break the rule's condition on groups", () => {
  const when = { not: { group: "docker" }, gid: GROUPS["docker"]! };
  const policy = compile({ name: "r", when, allow: true });
  for (const [gid, groups] of [[3, []], [5, [3]], [5, []]] as const) {
    assert.equal(policy.explain({ gid, groups }).rules[0]!.nearMiss, undefined, `${gid} ${groups}`);
  }
});

test("explain() suggests only ids that make the rule match", () => {
  let said = 0;
  fc.assert(
    fc.property(condition, peer, (when, peer) => {
      const policy = compile({ name: "r", when, allow: true });
      const wish = policy.explain(peer).rules[0]!.nearMiss ?? "";
      const uid = /^would match if (?:it were known that )?its uid (?:is|were) (\d+)/.exec(wish);
      const group = /^would match if (?:it were known that )?the peer (?:is|were) in group (\w+)/
        .exec(wish);
      const gid = /^would match if its gid were (\d+)/.exec(wish);
      if (
        uid === null && gid === null && group === null || / (and|or) (its|it|the peer) /.test(wish)
      ) return;
      said++;
      const ambiguous = (peer.ambiguous ?? []).filter((id) => uid === null || id !== "uid");
      const added = GROUPS[group?.[1] ?? ""];
      const other = uid !== null
        ? { ...peer, ambiguous, uid: Number(uid[1]) }
        : gid !== null
        ? { ...peer, gid: Number(gid[1]) }
        : { ...peer, ambiguous: [], groups: [added!, ...peer.groups ?? []] };
      assert.equal(holds(when, other), true, wish);
    }),
    RUNS,
  );
  assert.ok(said > 20 || RUNS.numRuns < 1000, `${said}`);
});

test("explain() reports why a fact is unknown, if the peer knows", () => {
  const reason = (message: string) => ({
    state: "unknown",
    reason: new UcredError("ERR_UCRED_SYSCALL", message, { hint: "" }),
  });
  const facts = {
    ...{ uid: reason("uid 65534 is anybody"), label: reason("No label") },
    groups: { state: "known", value: [7] },
  };
  const process = { facts: { unit: reason("Not in the host's namespace"), exe: reason("Gone") } };
  const real = {
    ...{ uid: 65534, gid: 7, groups: [7], ambiguous: ["uid"], facts, process },
    drift: () => {
      throw reason("Ended").reason;
    },
  } as unknown as Peer;
  const policy = compile(
    { name: "a", when: { uid: 5, label: "x", unit: "u", unchanged: true }, allow: true },
    { name: "b", when: { any: [{ exe: "/a" }, { unit: "v" }, { gid: 8 }] }, allow: true },
  );
  const { rules: [a, b] } = policy.explain(real);
  assert.deepEqual(a!.conditions.map(({ why }) => why.join()), [
    ...["uid 65534 is anybody", "No label", "Not in the host's namespace", "Ended"],
  ]);
  assert.deepEqual(b!.conditions[0]!.why, ["Gone", "Not in the host's namespace"]);
  for (const not of [{ all: [{ unit: "u" }, { exe: "/a" }] }, { unit: "u", exe: "/a" }]) {
    const { rules: [rule] } = compile({ name: "r", when: { not }, allow: true }).explain({});
    assert.deepEqual(rule!.conditions[0]!.unknown, ["unit", "exe"]);
  }
  const lines = String(policy.explain(real)).split("\n");
  assert.equal(lines[3]!.trim(), "unit u: unknown (Not in the host's namespace)");
  assert.match(String(policy.explain({ uid: 5 })), /label x: unknown \(label is not known\)/);
  const lost = { gid: reason("No gid"), groups: reason("No groups") };
  const unmapped = { ...real, ambiguous: ["gid", "groups"], facts: lost } as unknown as Peer;
  const { rules: [byGroup] } = compile(
    { name: "r", when: { gid: 5, group: "docker" }, allow: true },
  ).explain(unmapped);
  assert.deepEqual(byGroup!.conditions.map(({ why }) => why.join()), ["No gid", "No groups"]);
  const odd = { ...real, facts: { ...facts, label: { state: "known", value: 5 } } };
  assert.deepEqual(policy.explain(odd as unknown as Peer).rules[0]!.conditions[1]!.why, [
    "label is not known",
  ]);
});

test("checkPolicy() reports every problem, with its path and a suggestion", () => {
  const problems = problemsOf({
    version: 2,
    extra: 1,
    rules: [
      { name: "a", when: { usr: "x" }, allow: true },
      { name: "a", when: {}, deny: "" },
      { name: "b", when: { uid: [4294967295, "9-1", -1, "x"] } },
      { name: "c", when: { user: "adaa", sameNamespaces: "usr" }, allow: true, deny: true },
      { when: { any: [], all: 1, exeSha256: "AB", unchanged: "yes" }, allow: [] },
      7,
    ],
  });
  assert.deepEqual(problems.map(({ path, message }) => `${path.join(".")}: ${message}`), [
    'extra: no field "extra" here',
    "version: version is 1, not 2",
    'rules.0.when.usr: no field "usr" here; did you mean "user"?',
    "rules.1.when: a condition has at least one field",
    'rules.1.deny: deny is true or a reason, not ""',
    ...["4294967295", '"9-1"', "-1", '"x"'].map((id, index) =>
      `rules.2.when.uid.${index}: uid is an id from 0 to 4294967294, or a range like "1000-1999", not ${id}`
    ),
    "rules.2: a rule has neither allow nor deny",
    'rules.3.when.user: no user "adaa"; did you mean "ada"?',
    'rules.3.when.sameNamespaces: no namespace "usr"; did you mean "user"?',
    "rules.3: a rule has both allow and deny",
    "rules.4.name: name is a text, not nothing",
    'rules.4.when.exeSha256: exeSha256 is 64 hexadecimal digits in lower case, not "AB"',
    'rules.4.when.unchanged: unchanged is true or false, not "yes"',
    "rules.4.when.any: any is a list of conditions, not []",
    "rules.4.when.all: all is a list of conditions, not 1",
    "rules.4.allow: allow is at least one text, not []",
    "rules.5: a rule is an object, not 7",
    'rules.1.name: two rules have the name "a"',
  ]);
  for (const document of [null, [], "x", 7, undefined]) {
    assert.equal(problemsOf(document).length, 1);
  }
});

test("suggest() returns the most similar word, unless too much differs", () => {
  const rows: readonly (readonly [string, readonly string[], string | undefined])[] = [
    ["usr", ["uid", "user"], "user"],
    ["userr", ["user"], "user"],
    ["ab", ["ac", "ad"], "ac"],
    ["badc", ["abcd"], "abcd"],
    ["abcd", ["bcda", "badc"], "bcda"],
    ["badcfe", ["abcdef"], undefined],
    ["xbcxefxh", ["abcdefgh"], undefined],
    ["xbcxefxhi", ["abcdefghi"], "abcdefghi"],
    ["uid", ["exe", "label", ""], undefined],
    ["uid", [], undefined],
    ["a".repeat(64), ["a".repeat(63)], "a".repeat(63)],
    ["a".repeat(65), ["a".repeat(64)], undefined],
    ["a".repeat(64), ["a".repeat(65)], undefined],
    // At most 100,000 characters are compared.
    ["usr", ["x".repeat(99_996), "user"], "user"],
    ["usr", ["x".repeat(99_997), "user"], undefined],
  ];
  for (const [wrong, right, meant] of rows) {
    const expected = meant === undefined ? "" : `; did you mean ${show(meant)}?`;
    assert.equal(suggest(wrong, right), expected, wrong);
  }
});

test("show() writes any value in a few characters", () => {
  const rows: readonly (readonly [unknown, string])[] = [
    [undefined, "nothing"],
    [null, "null"],
    [() => {}, "a function"],
    [1n, "1n"],
    [-0.5, "-0.5"],
    [true, "true"],
    ["a\n\u202e", '"a\\n\\u202e"'],
    ["x".repeat(60), `"${"x".repeat(60)}"`],
    ["x".repeat(61), `"${"x".repeat(60)}…"`],
    [Symbol("a\u202e"), "Symbol(a\\u202e)"],
    [[], "[]"],
    [{}, "{}"],
    [[0], "a list"],
    [{ a: 0 }, "an object"],
  ];
  for (const [value, expected] of rows) assert.equal(show(value), expected);
});

test("checkPolicy() rejects a field without a value", () => {
  const wrong: object[] = [
    { name: "r", when: undefined, allow: true },
    { name: "r", when: { uid: undefined }, allow: true },
    { name: "r", when: { uid: 0, exe: undefined }, allow: true },
    { name: "r", when: { uid: [] }, allow: true },
    { name: "r", when: { any: [{ uid: 0 }, { user: undefined }] }, allow: true },
    { name: "r", when: { uid: 0 }, actions: undefined, allow: true },
    { name: "r", when: { uid: 0 }, actions: [], allow: true },
    { name: "r", when: Object.create({ uid: 0 }), allow: true },
  ];
  for (const rule of wrong) {
    assert.equal(problemsOf({ version: 1, rules: [rule] }).length, 1, JSON.stringify(rule));
  }
});

test("decide() agrees with the naive evaluator", () => {
  fc.assert(
    fc.property(rules, peer, fc.option(text, { nil: undefined }), (rules, peer, action) => {
      const { allowed, rule, grants } = compile(...rules).decide(peer, { action });
      const expected = decideNaively({ version: 1, rules }, peer, action);
      assert.deepEqual({ allowed, rule, grants }, expected);
    }),
    RUNS,
  );
});

test("admits() is false only if decide() allows no action", () => {
  fc.assert(
    fc.property(rules, peer, fc.array(text), (rules, peer, actions) => {
      const policy = compile(...rules);
      if (policy.admits(peer)) return;
      for (const action of [undefined, ...actions]) {
        assert.equal(policy.decide(peer, { action }).allowed, false);
      }
    }),
    RUNS,
  );
});

test("explain() marks only the deciding rule as decided", () => {
  fc.assert(
    fc.property(rules, peer, fc.option(text, { nil: undefined }), (rules, peer, action) => {
      const policy = compile(...rules);
      const { decision, rules: explained } = policy.explain(peer, { action });
      const decided = explained.filter(({ outcome }) => outcome === "decided");
      assert.deepEqual(
        decided.map(({ rule }) => rule),
        decision.rule === undefined ? [] : [decision.rule],
      );
      assert.equal(explained.length, rules.length);
    }),
    RUNS,
  );
});

test("compileGlob() agrees with regular expressions", () => {
  fc.assert(
    fc.property(glob, text, (glob, text) => {
      const matched = allows({ label: glob }, { label: text });
      assert.equal(matched, globMatches(glob, text));
    }),
    RUNS,
  );
});

test("decide() agrees with the naive evaluator for many overlapping ranges", () => {
  const rules = Array.from({ length: 400 }, (_, at): RuleDocument => ({
    name: `r${at}`,
    when: { uid: `${at}-${100_000 - at}`, gid: at },
    allow: true,
  }));
  const policy = compile(...rules);
  for (const at of [0, 1, 200, 399]) {
    assert.equal(policy.decide({ uid: 50_000, gid: at, groups: [] }).rule, `r${at}`);
    assert.equal(policy.decide({ uid: at - 1, gid: at, groups: [] }).rule, undefined);
  }
});

test("decide() finds rules by uid, gid and group in their order", () => {
  const policy = compile(
    { name: "first", when: { any: [{ uid: 7 }, { group: "docker" }] }, deny: true },
    { name: "second", when: { all: [{ any: [{ gid: 4 }, { uid: "5-50" }] }] }, allow: "second" },
    { name: "third", when: { any: [{ uid: 8 }, { label: "x" }] }, allow: "third" },
  );
  const ask = (uid?: number, gid?: number, groups?: number[]) =>
    policy.decide({ label: "x", uid, gid, groups } as PlainPeer).rule;
  assert.deepEqual([ask(7, 9, []), ask(9, 9, [3]), ask(9, 3, [])], ["first", "first", "first"]);
  assert.deepEqual([ask(9, 9, []), ask(60, 4, []), ask(60, 9, [])], ["second", "second", "third"]);
  assert.deepEqual([ask(9, 9), ask(9), ask(undefined, 9, []), ask(7)], Array(4).fill("first"));
});
