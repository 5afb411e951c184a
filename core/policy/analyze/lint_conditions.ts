/** Finds doubtful conditions of a single rule, without regard to other rules. */

import { holdsContainers } from "../../cgroup.ts";
import { type CheckedCondition, type CheckedFact, partsOf } from "../decide/condition.ts";
import { hasId, type IdRange, intersect, others, unite, writeRanges } from "../decide/id_ranges.ts";
import { OVERFLOW_ID } from "../decide/subject.ts";
import type { CheckedRule } from "../document/check.ts";
import type { Budget } from "./budget.ts";
import type { ReportFinding } from "./findings.ts";
import { findText } from "./text_sets.ts";

/** Reports doubtful conditions of a rule. */
export function lintConditions(rule: CheckedRule, report: ReportFinding): void {
  for (const check of [lintExe, lintGroups, lintContainers, lintRecycled, lintHash, lintOverflow]) {
    check(rule, report);
  }
}

/** Finds rules that decide by the program. */
function lintExe({ name, when, grants }: CheckedRule, report: ReportFinding): void {
  const facts = partsOf(when);
  if (!facts.some(({ kind }) => kind === "exe" || kind === "exeSha256")) return;
  if (grants === undefined) {
    const message =
      `Rule "${name}" denies by program: a copy of the program with another path or other ` +
      "content is not denied";
    report("forgeable", "warning", message);
    return;
  }
  const testsIds = facts.some(isAboutIds);
  const message =
    `Rule "${name}" allows by program: any process with the same uid can make the program run ` +
    "other code" + (testsIds ? "" : ", and the rule tests no uid or group");
  report("forgeable", testsIds ? "note" : "warning", message);
}

/** The usual places where control groups are created and named by others than the system's manager. */
const CREATED_BY_OTHERS: readonly (readonly [glob: string, maker: string])[] = [
  [
    "/user.slice/user-*.slice/user@*.service/**",
    "a user's own manager can create below user@UID.service",
  ],
  ...[
    "/docker/*/**",
    "/system.slice/docker-*.scope/**",
    "/system.slice/nerdctl-*.scope/**",
    "/machine.slice/*/**", //           podman, systemd-nspawn, machines of machined and libvirt
    "/machine/*/**",
    "/libpod_parent/*/**",
    "/lxc/*/**",
    "/lxc.payload/*/**",
    "/lxc.payload.*/**",
    "/kubepods.slice/**.scope/**",
    "/kubelet.slice/**.scope/**",
    "/kubepods/pod*/*/**", //           Kubernetes with cgroupfs instead of systemd
    "/kubepods/*/pod*/*/**",
    "/kubelet/kubepods/**",
    "/default/*/**", //                 containerd's namespaces
    "/k8s.io/*/**",
    "/moby/*/**",
    "/buildkit/*/**",
    "/ecs/*/*/**",
    "/ecstasks.slice/**.scope/**",
    "/garden/*/**",
    "/nomad.slice/**.scope/**",
    "/nomad/**",
  ].map((glob) => [glob, "a container can create below its own"] as const),
];

/** Control groups below a service with `Delegate=`. */
const DELEGATED = ["/**.service/**", "a service can create below its own (Delegate=)"] as const;

/** Finds rules that allow by a control group that others can create. */
export function lintCgroup(
  { rule: { name, when, grants }, budget }: { readonly rule: CheckedRule; readonly budget: Budget },
  report: ReportFinding,
): void {
  const facts = partsOf(when);
  for (const fact of allowingFacts({ when, grants })) {
    if (fact.kind !== "cgroup") continue;
    for (const glob of fact.globs) {
      const creators = namesItsService(glob)
        ? CREATED_BY_OTHERS
        : [...CREATED_BY_OTHERS, DELEGATED];
      const creator = creators.find(([others]) =>
        findText({ in: [[glob], [others]], out: [] }, budget) !== undefined
      );
      if (creator === undefined) continue;
      const message =
        `Rule "${name}" tests the cgroup ${cutOff(glob)}, which also matches groups that ` +
        `${creator[1]}: start the glob with the whole path, or test the unit`;
      report("forgeable", facts.some(isAboutIds) ? "note" : "warning", message);
      return;
    }
  }
}

/**
 * Whether the glob names the service itself: it starts with the service's own path, or ends with a star.
 * Then the service can create no group that the glob matches unless it matches the service's own group.
 */
function namesItsService(glob: string): boolean {
  const [beginning = "", ...rest] = glob.split(/\*+/);
  return beginning.includes(".service/") || rest.every((text) => text === "");
}

/** Finds rules that deny by a group that a peer can leave. */
function lintGroups({ name, when, grants }: CheckedRule, report: ReportFinding): void {
  const facts = denyingFacts({ when, grants });
  const does = grants === undefined ? "denies" : "makes an exception";
  const groups = unite(facts.flatMap((fact) => fact.kind === "group" ? fact.ranges : []));
  const isMissed = (fact: CheckedFact) =>
    fact.kind === "gid" && intersect(fact.ranges, others(groups)).length > 0;
  const missed = facts.find(isMissed);
  if (missed !== undefined) {
    const message = `Rule "${name}" ${does} by ${cutOff(missed.text)}, which is only the primary ` +
      "group: it misses supplementary members, and newgrp(1) changes it. Use group";
    report("evadable", "warning", message);
  } else if (groups.length > 0) {
    const message =
      `Rule "${name}" ${does} by group: a user with subordinate gids (/etc/subgid) can ` +
      "drop groups in a user namespace, and connect without them. Allow by uid or group instead";
    report("evadable", "note", message);
  }
}

/** Finds rules that may match a process in a container as if it were one of the host. */
function lintContainers({ name, when, grants }: CheckedRule, report: ReportFinding): void {
  if (grants !== undefined && demandsOf(when).some(excludesContainers)) return;
  if (denyingFacts({ when, grants }).some(({ kind }) => kind === "container")) {
    const does = grants === undefined ? "denies by container" : "requires no container";
    const message =
      `Rule "${name}" ${does}: a container without a control group of its own reads as ` +
      "none. Use sameNamespaces: [pid, mnt]";
    report("container", "warning", message);
  }
  for (const fact of allowingFacts({ when, grants })) {
    const unit = fact.kind === "unit" ? fact.globs.find(isEngine) : undefined;
    if (unit === undefined) continue;
    const message = `Rule "${name}" tests the unit ${cutOff(unit)}, in which processes of ` +
      "containers may run: add sameNamespaces: [pid, mnt]";
    report("container", "warning", message);
    return;
  }
}

/** Whether a unit runs containers. A scope of an engine is one container, which a rule may name on purpose. */
const isEngine = (glob: string) => holdsContainers(glob) && !/\.scope$|nspawn/.test(glob);

const excludesContainers = (fact: CheckedFact) =>
  fact.kind === "sameNamespaces" && (fact.kinds.includes("pid") || fact.kinds.includes("mnt"));

/** systemd takes the ids of services with `DynamicUser=` from this range; systemd.exec(5). */
export const DYNAMIC_IDS: IdRange = { first: 61184, last: 65519 };

/** Finds rules on ids that the system reuses for services. */
function lintRecycled({ name, when }: CheckedRule, report: ReportFinding): void {
  const facts = partsOf(when);
  if (facts.some(({ kind }) => kind === "unit")) return;
  // A range that contains all of these ids is meant to match every such service.
  const isPart = ({ first, last }: IdRange) =>
    first >= DYNAMIC_IDS.first && last <= DYNAMIC_IDS.last &&
    last - first < DYNAMIC_IDS.last - DYNAMIC_IDS.first;
  for (const fact of facts) {
    const range = "ranges" in fact ? fact.ranges.find(isPart) : undefined;
    if (range === undefined) continue;
    const what = fact.kind === "uid" ? "uid" : "gid";
    const message =
      `Rule "${name}" tests ${what} ${writeRanges([range])}, which systemd gives to another ` +
      "service after this one has stopped (DynamicUser=): test the unit as well";
    report("recycled", "warning", message);
    return;
  }
}

/** Finds rules that hash the executable of every peer. */
function lintHash({ name, when }: CheckedRule, report: ReportFinding): void {
  if (when === undefined || !hashesEveryPeer(when)) return;
  const message =
    `Rule "${name}" needs exeSha256 of every peer, and a peer can make that slow: add a uid, ` +
    "gid, user or group to the same condition, which is tested first";
  report("slow", "warning", message);
}

/** Whether a hash is needed without a condition on an id that is tested first. */
function hashesEveryPeer(condition: CheckedCondition): boolean {
  switch (condition.kind) {
    case "not":
      return hashesEveryPeer(condition.of);
    case "all":
      return !requiresId(condition) && condition.of.some(hashesEveryPeer);
    case "any":
      return condition.of.some(hashesEveryPeer);
  }
  return condition.kind === "exeSha256";
}

/** Whether only peers with certain ids can meet the condition. */
function requiresId(condition: CheckedCondition): boolean {
  switch (condition.kind) {
    case "uid":
    case "gid":
    case "group":
      return true;
    case "all":
      return condition.of.some(requiresId);
    case "any":
      return condition.of.every(requiresId);
  }
  return false;
}

/** Finds rules on the overflow id, which every unmapped id reads as. */
function lintOverflow({ name, when }: CheckedRule, report: ReportFinding): void {
  const has = (ranges: readonly IdRange[]) => hasId(ranges, OVERFLOW_ID);
  for (const fact of partsOf(when)) {
    if (!("ranges" in fact) || !has(fact.ranges)) continue;
    const isAlone = fact.ranges.some(({ first, last }) => first === last && first === OVERFLOW_ID);
    const message =
      `Rule "${name}" tests ${OVERFLOW_ID}, the default overflow id: in a user namespace every ` +
      "unmapped id reads as this one, and the condition is then unknown; elsewhere unrelated " +
      "programs share it";
    report("overflow", isAlone ? "warning" : "note", message);
    return;
  }
}

const isAboutIds = ({ kind }: CheckedFact): boolean =>
  kind === "uid" || kind === "gid" || kind === "group";

type Effect = Pick<CheckedRule, "when" | "grants">;

/** The conditions on single facts that help to allow a peer if they hold. */
function allowingFacts({ when, grants }: Effect): readonly CheckedFact[] {
  return when === undefined ? [] : wantedOf(when, grants !== undefined);
}

/** The conditions on single facts that help to deny a peer if they hold. */
function denyingFacts({ when, grants }: Effect): readonly CheckedFact[] {
  return when === undefined ? [] : wantedOf(when, grants === undefined);
}

/** The conditions on single facts that help a condition to hold (`isMet`), or not to hold. */
function wantedOf(condition: CheckedCondition, isMet: boolean): readonly CheckedFact[] {
  switch (condition.kind) {
    case "not":
      return wantedOf(condition.of, !isMet);
    case "all":
    case "any":
      return condition.of.flatMap((each) => wantedOf(each, isMet));
  }
  return isMet ? [condition] : [];
}

/** The conditions on single facts that must all hold. */
function demandsOf(condition: CheckedCondition | undefined): readonly CheckedFact[] {
  if (condition === undefined) return [];
  switch (condition.kind) {
    case "not":
    case "any":
      return [];
    case "all":
      return condition.of.flatMap(demandsOf);
  }
  return [condition];
}

/** Quotes in messages have at most this many characters. */
const MAX_QUOTED_CHARACTERS = 300;

/** Cuts off a long text. */
export function cutOff(text: string): string {
  return text.length > MAX_QUOTED_CHARACTERS ? `${text.slice(0, MAX_QUOTED_CHARACTERS)}…` : text;
}
