/** Tests of the analyses: each result is checked by decisions, and by a search for a counterexample. */

import fc from "../../support/properties.ts";
import assert from "node:assert/strict";
import { test } from "node:test";
import { UcredError } from "../../../core/errors.ts";
import { Budget, BudgetExceeded } from "../../../core/policy/analyze/budget.ts";
import { difference, equivalent, narrower } from "../../../core/policy/analyze/difference.ts";
import type { Finding } from "../../../core/policy/analyze/findings.ts";
import { lint, lintRules } from "../../../core/policy/analyze/lint.ts";
import { RuleRegions } from "../../../core/policy/analyze/reach.ts";
import { EVERYTHING, exampleIn, whereKnown } from "../../../core/policy/analyze/region.ts";
import { type Who, who, whoCan } from "../../../core/policy/analyze/who.ts";
import type { PlainPeer } from "../../../core/policy/decide/subject.ts";
import { checkPolicy } from "../../../core/policy/document/check.ts";
import type {
  Condition,
  PolicyDocument,
  RuleDocument,
} from "../../../core/policy/document/types.ts";
import { compilePolicy, type Policy } from "../../../core/policy/policy.ts";
import { needs, soak, testWith } from "../../support/suite.ts";
import { compile, peer, resolve, rules, RUNS, text } from "./policies.ts";

const about = (findings: readonly Finding[]) => findings.map(({ kind, rule }) => `${kind} ${rule}`);

const rule = (name: string, rest: Omit<RuleDocument, "name">): RuleDocument => ({ name, ...rest });

const rulesOf = (...rules: readonly RuleDocument[]) => {
  const result = checkPolicy({ version: 1, rules }, resolve);
  return "checked" in result ? result.checked.rules : assert.fail();
};

/** Peers with every fact known. */
const knownPeer = fc.tuple(peer, peer).map(([{ process, ...peer }, other]) => ({
  ...{ uid: 3, gid: 4, groups: [9], label: null, unchanged: true, ...other, ...peer },
  ambiguous: [],
  process: {
    ...{ exe: null, unit: "a", cgroup: null, container: "b", exeSha256: null, ...process },
    namespaces: Object.fromEntries(["user", "pid", "net"].map((kind) => [
      kind,
      { ours: process?.namespaces?.[kind as "user"]?.ours ?? true },
    ])),
  },
})) as fc.Arbitrary<PlainPeer & Parameters<Who["includes"]>[0]>;

const action = fc.option(text, { nil: undefined });

test("RuleRegions divides cases into parts whose examples the named rule decides", () => {
  fc.assert(
    fc.property(rules, fc.boolean(), (rules, isKnown) => {
      const policy = compile(...rules);
      const budget = new Budget(soak(2_000_000, 20_000_000));
      try {
        const reach = new RuleRegions(rulesOf(...rules), budget);
        reach.requireAll();
        const world = isKnown ? whereKnown(EVERYTHING, reach.facts, budget) : EVERYTHING;
        for (const [part, at] of reach.divide(world, budget)) {
          const { peer, action } = exampleIn(part, isKnown ? reach.facts : [], budget);
          const decision = policy.decide(peer, { action });
          assert.equal(decision.rule, at === undefined ? undefined : rules[at]!.name);
          if (isKnown) assert.deepEqual(decision.unknown, []);
        }
      } catch (error) {
        if (!(error instanceof BudgetExceeded)) throw error; // deeply nested conditions are skipped
      }
    }),
    { numRuns: RUNS.numRuns / 5 },
  );
});

test("lint() reports never only for rules that decide no case of a search", () => {
  fc.assert(
    fc.property(
      rules,
      fc.array(fc.tuple(peer, action), { minLength: 50, maxLength: 50 }),
      fc.array(fc.tuple(knownPeer, action), { minLength: 50, maxLength: 50 }),
      (rules, cases, known) => {
        const policy = compile(...rules);
        const findings = lint(policy);
        const kindsOf = (name: string) =>
          findings.filter(({ rule }) => rule === name).map(({ kind }) => kind);
        for (const [peer, action] of [...cases, ...known]) {
          const { rule, unknown } = policy.decide(peer, { action });
          if (rule === undefined) continue;
          assert.ok(!kindsOf(rule).includes("never"), rule);
          if (unknown.length === 0 && known.some(([each]) => each === peer)) {
            assert.ok(!kindsOf(rule).includes("only-unknown"), rule);
            assert.ok(!kindsOf(rule).includes("contradiction"), rule);
          }
        }
        for (const { kind, rule, example } of findings) {
          if (kind !== "only-unknown" && kind !== "shadowed" && kind !== "never") continue;
          const decided = policy.decide(example!.peer, { action: example!.action }).rule;
          assert.equal(decided === rule, kind === "only-unknown", kind);
        }
      },
    ),
    { numRuns: RUNS.numRuns / 10 },
  );
});

test("lint() reports everyone only for rules that allow every peer of a search", () => {
  fc.assert(
    fc.property(rules, fc.array(knownPeer, { minLength: 20 }), (rules, peers) => {
      const everyone = lint(compile(...rules)).filter(({ kind }) => kind === "everyone");
      for (const { rule } of everyone) {
        const { actions: _, ...alone } = rules.find(({ name }) => name === rule)!;
        for (const peer of peers) assert.ok(compile(alone).decide(peer).allowed);
      }
    }),
    { numRuns: RUNS.numRuns / 10 },
  );
});

test("who() includes every allowed peer, and each clause has an example that is allowed", () => {
  fc.assert(
    fc.property(
      rules,
      action,
      fc.array(knownPeer, { minLength: 50, maxLength: 50 }),
      (rules, action, peers) => {
        const policy = compile(...rules);
        const found = who(policy, action);
        for (const { rule, grants, example } of found.clauses) {
          const decision = policy.decide(example, { action });
          assert.deepEqual([decision.rule, decision.grants], [rule, grants]);
          assert.ok(decision.allowed);
        }
        for (const peer of peers) {
          if (policy.decide(peer, { action }).allowed) assert.ok(found.includes(peer));
        }
      },
    ),
    { numRuns: RUNS.numRuns / 5 },
  );
});

/** A policy, and the same policy after a small edit. */
const edit = fc.tuple(rules, fc.nat(), fc.nat(), fc.constantFrom("swap", "drop", "copy", "same"))
  .map(([rules, a, b, how]): [RuleDocument[], RuleDocument[]] => {
    const edited = [...rules];
    const [at, to] = [a % (rules.length || 1), b % (rules.length || 1)];
    if (how === "swap" && rules.length > 0) [edited[at], edited[to]] = [edited[to]!, edited[at]!];
    if (how === "drop") edited.splice(at, 1);
    if (how === "copy" && rules.length > 0) edited.push({ ...edited[at]!, name: "copy" });
    return [[...rules], edited];
  });

test("equivalent() returns a case that differs, unless a search finds none either", () => {
  fc.assert(
    fc.property(
      edit,
      fc.array(fc.tuple(peer, action), { minLength: 50, maxLength: 50 }),
      ([before, after], cases) => {
        const [a, b] = [compile(...before), compile(...after)];
        const outcome = (policy: Policy, peer: PlainPeer, action: string | undefined) => {
          const { allowed, grants } = policy.decide(peer, { action });
          return { allowed, grants: [...new Set(grants)].sort() };
        };
        let found: ReturnType<typeof equivalent>;
        try {
          found = equivalent(a, b);
        } catch (error) {
          if ((error as UcredError).code !== "ERR_UCRED_POLICY") throw error;
          return; // too many combinations
        }
        if (found !== undefined) {
          const { peer, action } = found;
          assert.deepEqual(found.before, a.decide(peer, { action }));
          assert.deepEqual(found.after, b.decide(peer, { action }));
          assert.notDeepEqual(outcome(a, peer, action), outcome(b, peer, action));
        } else {
          for (const [peer, action] of cases) {
            assert.deepEqual(outcome(a, peer, action), outcome(b, peer, action));
          }
        }
      },
    ),
    { numRuns: RUNS.numRuns / 5 },
  );
});

test("narrower() returns a case in which the second policy gives more, unless a search finds none either", () => {
  fc.assert(
    fc.property(
      edit,
      fc.array(fc.tuple(peer, action), { minLength: 50, maxLength: 50 }),
      ([before, after], cases) => {
        const [a, b] = [compile(...before), compile(...after)];
        const givesMore = (peer: PlainPeer, action: string | undefined) => {
          const [was, is] = [a.decide(peer, { action }), b.decide(peer, { action })];
          return is.allowed &&
            (!was.allowed || is.grants.some((grant) => !was.grants.includes(grant)));
        };
        let found: ReturnType<typeof narrower>;
        try {
          found = narrower(a, b);
        } catch (error) {
          if ((error as UcredError).code !== "ERR_UCRED_POLICY") throw error;
          return; // too many combinations
        }
        if (found !== undefined) {
          const { peer, action } = found;
          assert.deepEqual(found.before, a.decide(peer, { action }));
          assert.deepEqual(found.after, b.decide(peer, { action }));
          assert.ok(givesMore(peer, action));
        } else {
          for (const [peer, action] of cases) assert.ok(!givesMore(peer, action));
        }
      },
    ),
    { numRuns: RUNS.numRuns / 5 },
  );
});

test("narrower() accepts fewer peers and fewer grants, and rejects other grants", () => {
  const people = (uid: string, allow: true | string | string[]) =>
    compile(rule("people", { when: { uid }, allow }));
  const wide = people("1000-1999", ["read", "write"]);
  assert.equal(narrower(wide, wide), undefined);
  assert.equal(narrower(wide, people("1000-1499", ["write", "read"])), undefined);
  assert.equal(narrower(wide, people("1000-1999", "read")), undefined);
  assert.equal(narrower(wide, people("1000-1999", true)), undefined);
  assert.equal(narrower(wide, compile()), undefined);
  assert.deepEqual(narrower(wide, people("1000-2000", "read"))?.peer, { uid: 2000 });
  assert.deepEqual(narrower(wide, people("1000-1999", "admin"))?.after.grants, ["admin"]);
  assert.throws(
    () => narrower(wide, { ...wide, decide: wide.decide, admits: wide.admits }),
    { name: "TypeError", message: /^narrower\(\) takes a policy of definePolicy\(\).*`current`$/ },
  );
});

test("lint() reports each kind of doubtful rule, with an example", () => {
  const findings = lint(compile(
    rule("people", { when: { uid: "0-20" }, allow: "read" }),
    rule("late deny", { when: { uid: 5 }, deny: true }),
    rule("late allow", { when: { uid: 5 }, allow: "read" }),
    rule("nobody", { when: { uid: 1, any: [{ uid: 2 }, { uid: 3 }] }, allow: true }),
    rule("program", { when: { exe: "/usr/bin/node" }, allow: true }),
    rule("program of ada", { when: { exe: "/usr/bin/node", uid: 30 }, allow: true }),
    rule("bad program", { when: { exe: "/opt/old" }, deny: true }),
    rule("overflow", { when: { gid: 65534 }, allow: "x" }),
    rule("half", { when: { uid: "20-40" }, allow: "write" }),
    rule("all", { when: { any: [{ unit: "a" }, { not: { unit: "a" } }] }, allow: true }),
  ));
  assert.deepEqual(about(findings).filter((each) => !each.startsWith("shadowed")), [
    "only-unknown late deny",
    "never late allow",
    "contradiction nobody",
    "forgeable program",
    "never program of ada",
    "forgeable program of ada",
    "forgeable bad program",
    "overflow overflow",
    "everyone all",
  ]);
  const shadowed = findings.find(({ kind, rule }) => kind === "shadowed" && rule === "half")!;
  assert.equal(shadowed.example?.peer.uid, 20);
  assert.match(shadowed.message, /^The earlier rule "people" decides differently for some peers/);
  assert.deepEqual(shadowed.path, ["rules", 8]);
  const levels = findings.filter(({ kind }) => kind === "forgeable").map(({ level }) => level);
  assert.deepEqual(levels, ["warning", "note", "warning"]);
  const everyone = lint(compile(
    rule("a", { when: { any: [{ unit: "a" }, { not: { unit: "a" } }] }, allow: true }),
    rule("b", { actions: ["GET /", "PUT /"], allow: true }),
  )).filter(({ kind }) => kind === "everyone").map(({ message }) => message);
  assert.deepEqual(everyone, [
    'Rule "a" allows everything to every peer: every peer meets its conditions',
    'Rule "b" allows GET /, PUT / to every peer: it has no condition',
  ]);
  const late = findings.find(({ rule }) => rule === "late deny")!;
  assert.equal(late.example?.peer.uid, undefined);
  assert.match(late.message, /decides only if facts are unknown.*rule "people" decides/);
});

test("lint() reports nothing about a sound policy", () => {
  const policy = compile(
    rule("root", { when: { uid: 0, sameNamespaces: ["pid", "mnt"] }, allow: "full" }),
    rule("docker", { when: { user: "ben", group: "docker" }, allow: "full" }),
    rule("reader", {
      when: { user: "ada", not: { label: "unconfined" } },
      actions: "GET /**",
      allow: "read",
    }),
  );
  assert.deepEqual(lint(policy, { abstractSocket: true }), []);
});

test("lint() reports rules that allow root in containers, when the socket is abstract", () => {
  const root = compile(rule("root", { when: { uid: 0 }, allow: true }));
  assert.deepEqual(lint(root), []);
  const [finding] = lint(root, { abstractSocket: true });
  assert.equal(finding?.kind, "container");
  const { uid, process } = finding!.example!.peer;
  assert.deepEqual([uid, process?.namespaces?.pid, process?.namespaces?.user], [
    0,
    { ours: false },
    { ours: true },
  ]);
  const blocked = compile(
    rule("containers", { when: { not: { sameNamespaces: "mnt" } }, deny: true }),
    rule("root", { when: { uid: 0 }, allow: true }),
  );
  assert.deepEqual(about(lint(blocked, { abstractSocket: true })), ["shadowed root"]);
});

test("lint() reports names that share an id", () => {
  const twins = { ...resolve, uid: (name: string) => name === "toor" ? 0 : resolve.uid(name) };
  const document: PolicyDocument = {
    version: 1,
    rules: [rule("both", { when: { user: ["root", "toor"] }, allow: true })],
  };
  const result = checkPolicy(document, twins);
  assert.ok("checked" in result);
  const inDocument = lint(compilePolicy(result.checked));
  assert.deepEqual(inDocument.map(({ kind, path }) => [kind, path.join(".")]), [
    ["same-id", "rules.0.when.user.0"],
    ["same-id", "rules.0.when.user.1"],
  ]);
  const accounts = { ...twins, uid: () => 0, names: () => ["root", "admin", "root"] };
  const [first] = lint(compilePolicy(result.checked, { resolve: accounts }));
  assert.match(
    first!.message,
    /The user "root" has the same uid as "toor", "admin", 0: the kernel/,
  );
});

const CANNOT = "have the same id: Error: no directory";

test("lint() reports a failed lookup of names once for each kind, and continues", () => {
  const result = checkPolicy({
    version: 1,
    rules: [rule("names", { when: { user: ["root", "ada"], group: "docker" }, allow: true })],
  }, resolve);
  assert.ok("checked" in result);
  let asked = 0;
  const names = () => {
    asked++;
    throw new Error("no directory");
  };
  const findings = lint(compilePolicy(result.checked, { resolve: { ...resolve, names } }));
  assert.deepEqual(findings.map(({ kind, level, message }) => [kind, level, message]), [
    ["same-id", "note", `Cannot check whether other users ${CANNOT}`],
    ["same-id", "note", `Cannot check whether other groups ${CANNOT}`],
  ]);
  assert.equal(asked, 2);
});

test("lint() reports cgroup globs that match groups which users can name", () => {
  const said = (cgroup: string, rest: object = {}, not = false) => {
    const when = not ? { not: { cgroup }, ...rest } : { cgroup, ...rest };
    const effect = not ? { deny: true as const } : { allow: true as const };
    return lint(compile(rule("r", { when, ...effect })))
      .filter(({ kind }) => kind === "forgeable").map(({ level }) => level).join();
  };
  for (
    const glob of [
      ...["**/prometheus.service", "**", "/user.slice/**", "/*/*/*/*/prometheus.service"],
      ...["/user.slice/user-1000.slice/user@1000.service/app.slice/a.service"],
      ...["/system.slice/**/prometheus.service", "/docker/**", "/docker/*/a.service"],
    ]
  ) {
    assert.equal(said(glob), "warning", glob);
    assert.equal(said(glob, { uid: 5 }), "note", glob);
    assert.equal(said(glob, {}, true), "warning", `not ${glob}`);
  }
  for (const glob of ["/system.slice/prometheus.service", "/system.slice/*.service"]) {
    assert.equal(said(glob), "", glob);
    assert.equal(said(`${glob}x`, {}, true), "", glob);
  }
  assert.equal(said("/system.slice/prometheus.service/**"), "", "it divides its own group");
  const denied = lint(compile(rule("r", { when: { cgroup: "**" }, deny: true })));
  assert.ok(!denied.some(({ kind }) => kind === "forgeable"));
});

test("lint() reports cgroup globs that match groups which containers and services can name", () => {
  const isForgeable = (cgroup: string) =>
    lint(compile(rule("r", { when: { cgroup }, allow: true })))
      .some(({ kind }) => kind === "forgeable");
  for (
    const glob of [
      "/machine.slice/**/web.service",
      "/machine.slice/systemd-nspawn@c1.service/payload/system.slice/*",
      "/machine.slice/machine-*.scope/web.service",
      "/lxc/**",
      "/lxc/*/web",
      "/lxc.payload.c1/system.slice/web.service",
      "/system.slice/nerdctl-*.scope/web",
      "/kubepods/burstable/*/*/web",
      "/kubepods/pod1/**",
      "/kubelet.slice/**/web",
      "/default/*/web",
      "/k8s.io/**",
      "/ecs/**",
      "/ecstasks.slice/**/web",
      "/system.slice/*/worker",
      "/system.slice/**/worker",
      "/*/*/worker",
    ]
  ) assert.ok(isForgeable(glob), glob);
  for (const glob of ["/system.slice/web.service/*/worker", "/system.slice/web.service", "/a/*"]) {
    assert.ok(!isForgeable(glob), glob);
  }
});

// shadow CVE-2018-7169: a user with subordinate gids could leave a group that a rule denies.
test("lint() reports rules that deny by groups which a peer can leave", () => {
  const found = (when: Condition, effect: { deny: true } | { allow: true } = { deny: true }) =>
    lint(compile(rule("r", { when, ...effect })))
      .flatMap(({ kind, level }) => kind === "evadable" ? [level] : []).join();
  const allow = { allow: true } as const;
  assert.equal(found({ gid: 2000 }), "warning");
  assert.equal(found({ uid: 5, gid: "2000-2009" }), "warning");
  assert.equal(found({ not: { gid: 2000 } }, allow), "warning");
  assert.equal(found({ any: [{ gid: [3, 4] }, { group: "docker" }] }), "warning", "not of 4");
  assert.equal(found({ any: [{ gid: 3 }, { group: "docker" }] }), "note", "of docker, 3");
  assert.equal(found({ group: "docker" }), "note");
  assert.equal(found({ uid: 5, not: { group: "docker" } }, allow), "note");
  for (const when of [{ gid: 2000 }, { group: "docker" }]) {
    assert.equal(found(when, allow), "", "an allow-list");
    assert.equal(found({ not: when }), "", "an allow-list");
  }
  const messages = [{ gid: 2000 }, { group: "docker" }].map((when) =>
    lint(compile(rule("r", { when, deny: true }))).find(({ kind }) => kind === "evadable")?.message
  );
  assert.match(
    messages[0]!,
    /by gid 2000, .* misses supplementary members, and newgrp.* Use group$/,
  );
  assert.match(messages[1]!, /subordinate gids .* Allow by uid or group instead$/);
});

test("lint() reports rules that match processes in containers like those of the host", () => {
  const found = (when: Condition, effect: { deny: true } | { allow: true } = { allow: true }) =>
    lint(compile(rule("r", { when, ...effect })))
      .flatMap(({ kind, level }) => kind === "container" ? [level] : []).join();
  const deny = { deny: true } as const;
  const any = { container: "**" };
  assert.equal(found({ uid: 0, not: any }), "warning");
  assert.equal(found({ any: [{ uid: 5 }, { all: [{ not: any }] }] }), "warning");
  assert.equal(found(any, deny), "warning");
  assert.equal(found(any), "");
  assert.equal(found({ not: any }, deny), "");
  assert.equal(found({ uid: 0, not: any, sameNamespaces: ["pid", "mnt"] }), "");
  for (
    const unit of [
      ...["docker.service", "containerd.service", "docker*", "libvirtd.service", "k3s.service"],
      ...["snap.lxd.daemon.service", "ecs.service", "garden.service", "buildkit.service"],
    ]
  ) {
    assert.equal(found({ unit }), "warning", unit);
    assert.equal(found({ not: { unit } }, deny), "warning", unit);
    assert.equal(found({ unit, sameNamespaces: "pid" }), "", unit);
    assert.equal(found({ any: [{ unit }, { sameNamespaces: "pid" }] }), "warning", unit);
    assert.equal(found({ unit }, deny), "", unit);
  }
  for (const unit of ["nginx.service", "docker-*.scope", "specs.service", "*"]) {
    assert.equal(found({ unit }), "", unit);
  }
});

test("lint() reports ids that systemd reuses for services", () => {
  const found = (when: Condition) =>
    lint(compile(rule("r", { when, allow: true })))
      .flatMap(({ kind, level }) => kind === "recycled" ? [level] : []).join();
  const given: readonly Condition[] = [
    { uid: 61184 },
    { uid: [5, 65519] },
    { gid: "61200-61300" },
    { not: { uid: 62000 } },
  ];
  for (const when of given) assert.equal(found(when), "warning", JSON.stringify(when));
  for (const uid of [61183, 65520, "61184-65519", "1000-65533"]) {
    assert.equal(found({ uid }), "", `${uid}`);
  }
  assert.equal(found({ uid: 62000, unit: "metrics.service" }), "");
  const named = checkPolicy(
    { version: 1, rules: [rule("r", { when: { user: "metrics" }, allow: true })] },
    { ...resolve, uid: () => 63000 },
  );
  assert.ok("checked" in named);
  assert.match(
    lint(compilePolicy(named.checked))[0]!.message,
    /tests uid 63000, which systemd gives/,
  );
});

test("lint() reports an exception that an unknown fact bypasses", () => {
  const web: RuleDocument = {
    name: "web",
    when: { uid: 5, unit: "web.service" },
    allow: "read",
  };
  const found = (...rules: readonly RuleDocument[]) =>
    lint(compile(...rules)).filter(({ kind }) => kind === "widened");
  const wider = rule("wider", { when: { uid: "1-9" }, allow: ["read", "write"] });
  const [finding, ...more] = found(web, wider);
  assert.deepEqual(more, []);
  assert.deepEqual([finding!.rule, finding!.level], ["web", "warning"]);
  assert.match(
    finding!.message,
    /^If unit is unknown, rule "web" does not match, and rule "wider" gives more/,
  );
  const { peer, action } = finding!.example!;
  const decision = compile(web, wider).decide(peer, { action });
  assert.deepEqual([decision.rule, decision.unknown.join()], ["wider", "unit"]);

  assert.equal(found(web, rule("less", { when: { uid: 5 }, allow: "read" })).length, 0);
  assert.equal(found(web, rule("other", { when: { uid: 5 }, allow: "write" })).length, 0);
  assert.equal(
    found(web, rule("group", { when: { group: "docker" }, allow: ["read", "write"] })).length,
    0,
    "not of all of them",
  );
  assert.equal(
    found(web, rule("no", { when: { unit: "web*" }, deny: true }), wider).length,
    0,
    "a rule between denies where the unit is unknown",
  );
  const cut = rule("cut", {
    when: { uid: "1-9", unit: "web.service" },
    actions: "GET /**",
    allow: "read",
  });
  assert.equal(found(cut, wider).length, 1);
  assert.equal(found({ ...cut, actions: "**" }, { ...wider, actions: "GET /a" }).length, 0);
  assert.equal(found(rule("ids", { when: { uid: 5 }, allow: "read" }), wider).length, 0);
});

test("lint() reports rules that hash the executable of every peer", () => {
  const exeSha256 = "0".repeat(64);
  const isSlow = (when: Condition) =>
    lint(compile(rule("r", { when, allow: true }))).some(({ kind }) => kind === "slow");
  for (
    const when of [
      { exeSha256 },
      { exeSha256, unit: "a.service" },
      { exeSha256, not: { uid: 5 } },
      { exeSha256, any: [{ uid: 5 }, { unit: "a.service" }] },
      { any: [{ uid: 5 }, { exeSha256 }] },
      { not: { exeSha256 } },
    ]
  ) assert.ok(isSlow(when), JSON.stringify(when));
  for (
    const when of [
      { exeSha256, uid: 5 },
      { exeSha256, group: "docker" },
      { exeSha256, any: [{ uid: 5 }, { gid: 7 }] },
      { gid: 7, any: [{ unit: "a.service" }, { all: [{ exeSha256 }] }] },
    ]
  ) assert.ok(!isSlow(when), JSON.stringify(when));
});

testWith([needs.oneRuntime], "lint() and who() analyse ten thousand rules", () => {
  const many = Array.from({ length: 10_000 }, (_, at): RuleDocument =>
    rule(`rule ${at}`, {
      when: at % 3 === 0 ? { uid: at } : { uid: 20_000 + at, gid: at },
      ...(at % 2 === 0 ? { allow: "x" } : { deny: true }),
    }));
  const policy = compile(...many, rule("again", { when: { uid: 3 }, allow: "y" }));
  const found = lint(policy).filter(({ kind }) => kind === "only-unknown" || kind === "never");
  assert.deepEqual(about(found), ["never again"]);
  assert.equal(who(policy).clauses.length > 3000, true);
});

test("equivalent() distinguishes policies that differ from those that are only written differently", () => {
  const of = (...rules: readonly Omit<RuleDocument, "name">[]) =>
    compile(...rules.map((each, at) => rule(`r${at}`, each)));
  const people = { when: { uid: "1-9" }, allow: ["a", "b"] };
  for (
    const [before, after] of [
      [of(people), of({ when: { uid: ["5-9", "1-4"] }, allow: ["b", "a", "b"] })],
      [of(people), of({ ...people, when: { any: [{ uid: "1-3" }, { uid: "3-9" }] } })],
      [of(people), of(people, { when: { uid: 3 }, allow: "c" }, { deny: true })],
      [of(people), of({ when: { gid: 3, not: { gid: "0-7" } }, allow: true }, people)],
      [of(), of({ when: { exe: "/**" }, deny: true })],
    ] as const
  ) {
    assert.equal(equivalent(before, after), undefined);
    assert.equal(equivalent(after, before), undefined);
  }
  const cases: readonly (readonly [Policy, unknown, string | undefined])[] = [
    [of({ ...people, allow: "a" }), { uid: 1 }, undefined],
    [of({ ...people, when: { uid: "1-8" } }), { uid: 9 }, undefined],
    [of({ when: { uid: 7 }, deny: true }, people), { uid: 7 }, undefined],
    [of({ actions: "x", deny: true }, people), { uid: 1 }, "x"],
    [of({ when: { label: "x" }, allow: ["a", "b"] }, people), { label: "x", uid: 1000 }, undefined],
    [of({ when: { uid: "1-9", not: { label: "x" } }, deny: true }, people), {
      uid: 1,
      label: "a",
    }, undefined],
  ];
  for (const [after, peer, action] of cases) {
    const found = equivalent(of(people), after)!;
    assert.deepEqual([found.peer, found.action], [peer, action]);
    assert.notDeepEqual(found.before.grants, found.after.grants);
  }
  // Only equal rules at the beginning and at the end are skipped by the comparison.
  const [one, two, three] = [1, 2, 3].map((uid) => ({ when: { uid }, allow: `${uid}` }));
  const twice = { when: { uid: [1, 1] }, allow: "1" };
  for (const [more, fewer] of [[of(one!, two!, three!), of(twice, two!)]] as const) {
    assert.deepEqual(equivalent(more, fewer)!.peer, { uid: 3 });
    assert.deepEqual(equivalent(fewer, more)!.peer, { uid: 3 });
  }
  assert.equal(equivalent(of(one!, two!, three!), of(twice, two!, three!)), undefined);
  const others = { when: { not: { unit: "x" } }, allow: true } as const;
  const all = of({ when: { unit: "x" }, allow: true }, others);
  assert.deepEqual(equivalent(all, of({ allow: true }))!.peer, {}, "an unknown unit is neither");
  assert.equal(equivalent(of({ when: { unit: "x" }, deny: true }, others), of(others)), undefined);
  // A label in a denying condition also matches stacks and children; in an allowing one it does not.
  const either = of({ when: { label: "x" }, allow: true }, {
    when: { not: { label: "x" } },
    allow: true,
  });
  assert.match(equivalent(either, of({ allow: true }))!.peer.label!, /^x\/\//);
});

test("lint(), who() and equivalent() report conditions with too many combinations, and end", () => {
  const fields = ["exe", "unit", "cgroup", "label"] as const;
  const any = (at: number) =>
    Array.from({ length: 6 }, (_, i) => ({ [fields[at % 4]!]: `**${at}*${i}**` }));
  const hard = Array.from({ length: 12 }, (_, at): RuleDocument =>
    rule(`hard ${at}`, {
      when: { all: Array.from({ length: 12 }, (_, i) => ({ any: any(i + at) })) },
      deny: true,
    }));
  const rules = rulesOf(
    rule("first", { when: { uid: 1 }, allow: "x" }),
    ...hard,
    rule("again", { when: { uid: 1 }, allow: true }),
    rule("nobody", { when: { uid: 2, not: { uid: "0-9" } }, allow: true }),
    rule("last", { when: { uid: 3, exe: "/x" }, allow: true }),
  );
  const little = () => new Budget(10_000_000);
  const findings = lintRules(rules, { named: [], namesakes: () => [], where: undefined }, little());
  assert.deepEqual(about(findings.filter(({ kind }) => kind !== "forgeable")), [
    ...hard.map(({ name }) => `unsettled ${name}`),
    "never again", // whatever the hard rules match
    "contradiction nobody",
    "unsettled last",
  ]);
  assert.equal(findings.filter(({ kind }) => kind === "forgeable").length, hard.length + 1);
  const unsettled = findings.find(({ kind }) => kind === "unsettled")!;
  assert.deepEqual([unsettled.level, unsettled.path], ["warning", ["rules", 1]]);
  assert.match(unsettled.message, /^Rule "hard 0" was not analysed completely: .* too many ways$/);
  const cannot = (what: string) => ({
    code: "ERR_UCRED_POLICY",
    message: `Cannot ${what}: the conditions of rule "hard 0" and of earlier rules ` +
      "can be combined in too many ways",
  });
  assert.throws(() => whoCan(rules, undefined, little()), cannot("list who may do it"));
  assert.throws(() => difference(rules, [], little()), cannot("compare the policies"));
  assert.throws(() => difference([], rules, little()), cannot("compare the policies"));
});

testWith(
  [needs.oneRuntime],
  "who() and equivalent() end when simple rules have too many combinations",
  () => {
    const simple = Array.from({ length: 1000 }, (_, at): RuleDocument =>
      rule(`r${at}`, {
        when: { uid: `${at * 37 % 5000}-${at * 37 % 5000 + 900}`, gid: `${at * 91 % 5000}-6000` },
        ...(at % 2 === 0 ? { allow: "x" } : { deny: true }),
      }));
    const rules = rulesOf(...simple);
    const rotated = rulesOf(...simple.slice(1), simple[0]!, rule("last", { allow: "y" }));
    const tooMany =
      /^Cannot [a-z ]+: the conditions( of rule "r\d+" and of earlier rules)? can be combined in/;
    const ask = (question: (budget: Budget) => unknown, kind: "steps" | "cells") => {
      const refusals: string[] = [];
      for (let size = 1024;; size *= 2) {
        const budget = kind === "steps" ? new Budget(size) : new Budget(undefined, size);
        try {
          question(budget);
          assert.ok(budget.steps >= 0 && budget.cells >= 0);
          return refusals;
        } catch (error) {
          assert.ok(error instanceof UcredError, String(error));
          refusals.push(error.message);
        }
      }
    };
    for (const kind of ["steps", "cells"] as const) {
      for (
        const question of [
          (budget: Budget) => whoCan(rules, undefined, budget),
          (budget: Budget) => assert.ok(difference(rules, rotated, budget)),
        ]
      ) {
        const refusals = ask(question, kind);
        assert.match(refusals.at(-1)!, tooMany);
        assert.ok(refusals.length > 5, "the cost is counted");
      }
    }
  },
);

test("lint() lists a few of many names, and cuts off long texts", () => {
  const users = Object.fromEntries(Array.from({ length: 2000 }, (_, at) => [`user${at}`, 7]));
  const named = { ...resolve, uid: (name: string) => users[name] };
  const user = Object.keys(users);
  const exe = `/${"x".repeat(4000)}`;
  const rules = [
    rule("names", { when: { user }, allow: true }),
    rule("long", { when: { exe }, actions: exe, allow: true }),
    rule("again", { when: { exe }, actions: exe, allow: true }),
  ];
  const result = checkPolicy({ version: 1, rules }, named);
  assert.ok("checked" in result);
  let asked = 0;
  const names = () => (asked++, ["user0", "other"]);
  const accounts = { ...named, uid: () => 7, names };
  const findings = lint(compilePolicy(result.checked, { resolve: accounts }));
  const same = findings.filter(({ kind }) => kind === "same-id");
  assert.deepEqual([same.length, asked], [2000, 1]);
  assert.match(same[0]!.message, /has the same uid as ("user\d", ){4}"user5", 7:/);
  assert.match(
    same[3]!.message,
    /has the same uid as "user0", "user1", "user2", "user4", "user5",/,
  );
  const never = findings.find(({ kind }) => kind === "never")!;
  assert.ok(never.message.length < 1000 && never.message.includes("x…"));
  assert.equal(never.example?.action, exe);
});

test("String(who()) has a line for each clause, with its rule and grants", () => {
  const policy = compile(
    rule("blocked", { when: { group: "users" }, deny: true }),
    rule("root", { when: { uid: 0 }, allow: "full" }),
    rule("web", {
      when: { uid: ["10-12", 14], unit: "web.service" },
      actions: "GET /**",
      allow: "read",
    }),
  );
  assert.equal(
    String(who(policy, "GET /status")),
    [
      'uid 0; not in group 6 (rule "root": full)',
      'uid 10-12, 14; not in group 6; unit web.service (rule "web": read)',
    ].join("\n"),
  );
  assert.equal(String(who(policy, "PUT /")), 'uid 0; not in group 6 (rule "root": full)');
  assert.equal(who(policy, "GET /").includes({ uid: 11, gid: 1, groups: [6] }), false);
  assert.equal(String(who(compile())), "no peer");
});
