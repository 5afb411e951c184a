/** What is doubtful about the conditions of one rule, whatever other rules say. */

import { holdsContainers } from "../../cgroup.ts";
import type { CheckedCondition, CheckedFact } from "../decide/condition.ts";
import { hasId, type IdRange, intersect, others, unite, writeRanges } from "../decide/id_ranges.ts";
import { OVERFLOW_ID } from "../decide/subject.ts";
import type { CheckedRule } from "../document/check.ts";
import type { Budget } from "./budget.ts";
import type { Say } from "./findings.ts";
import { findText } from "./text_sets.ts";

/** Reports what is doubtful about a rule's conditions. */
export function lintConditions(rule: CheckedRule, say: Say): void {
  for (const look of [lintExe, lintGroups, lintContainers, lintRecycled, lintHash, lintOverflow]) {
    look(rule, say);
  }
}

/** Rules that rest on which program it is. */
function lintExe({ name, when, grants }: CheckedRule, say: Say): void {
  const facts = partsOf(when);
  if (!facts.some(({ kind }) => kind === "exe" || kind === "exeSha256")) return;
  if (grants === undefined) {
    const message =
      `Rule "${name}" denies by the program: a copy of it with another name or another ` +
      "byte is not denied";
    say("forgeable", "warning", message);
    return;
  }
  const asksWho = facts.some(isAboutIds);
  const message =
    `Rule "${name}" allows by the program: any process with the same uid can make that ` +
    "program run other code" + (asksWho ? "" : ", and the rule asks for no uid or group");
  say("forgeable", asksWho ? "note" : "warning", message);
}

/** Where others than the system's manager make and name control groups, as the usual ones place them. */
const MADE_BY_OTHERS: readonly (readonly [glob: string, maker: string])[] = [
  [
    "/user.slice/user-*.slice/user@*.service/**",
    "a user's own manager can make below user@UID.service",
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
  ].map((glob) => [glob, "a container can make below its own group"] as const),
];

/** Below a service with `Delegate=`. */
const DELEGATED = ["/**.service/**", "a service can make below its own group (Delegate=)"] as const;

/** Rules that rest on a control group that others can make. */
export function lintCgroup(
  { rule: { name, when, grants }, budget }: { readonly rule: CheckedRule; readonly budget: Budget },
  say: Say,
): void {
  const facts = partsOf(when);
  for (const fact of lettingIn({ when, grants })) {
    if (fact.kind !== "cgroup") continue;
    for (const glob of fact.globs) {
      const makers = namesItsService(glob) ? MADE_BY_OTHERS : [...MADE_BY_OTHERS, DELEGATED];
      const made = makers.find(([others]) =>
        findText({ in: [[glob], [others]], out: [] }, budget) !== undefined
      );
      if (made === undefined) continue;
      const message =
        `Rule "${name}" asks for the cgroup ${cutOff(glob)}, which also matches what ` +
        `${made[1]}: begin it with the whole path, or ask for the unit`;
      say("forgeable", facts.some(isAboutIds) ? "note" : "warning", message);
      return;
    }
  }
}

/**
 * Whether a service can make no group that such a glob matches and the service's own group does not:
 * the glob begins with the service's own path, or all that follows its first star is free.
 */
function namesItsService(glob: string): boolean {
  const [beginning = "", ...rest] = glob.split(/\*+/);
  return beginning.includes(".service/") || rest.every((text) => text === "");
}

/** Rules that keep people out by a group that they can leave. */
function lintGroups({ name, when, grants }: CheckedRule, say: Say): void {
  const facts = keepingOut({ when, grants });
  const does = grants === undefined ? "denies" : "makes an exception";
  const groups = unite(facts.flatMap((fact) => fact.kind === "group" ? fact.ranges : []));
  const isMissed = (fact: CheckedFact) =>
    fact.kind === "gid" && intersect(fact.ranges, others(groups)).length > 0;
  const missed = facts.find(isMissed);
  if (missed !== undefined) {
    const message =
      `Rule "${name}" ${does} by ${cutOff(missed.text)}, which is the primary group ` +
      "alone: it misses supplementary members, and newgrp(1) changes it. Use group";
    say("evadable", "warning", message);
  } else if (groups.length > 0) {
    const message =
      `Rule "${name}" ${does} by group: a user with subordinate gids (/etc/subgid) can ` +
      "drop groups in a user namespace, and connect without them. Allow by uid or group instead";
    say("evadable", "note", message);
  }
}

/** Rules by which a process of a container may get in as one of the host's. */
function lintContainers({ name, when, grants }: CheckedRule, say: Say): void {
  if (grants !== undefined && demandsOf(when).some(isAboutContainers)) return;
  if (keepingOut({ when, grants }).some(({ kind }) => kind === "container")) {
    const does = grants === undefined ? "denies by container" : "asks for no container";
    const message =
      `Rule "${name}" ${does}: a container without a control group of its own reads as ` +
      "none. Ask for sameNamespaces: [pid, mnt]";
    say("container", "warning", message);
  }
  for (const fact of lettingIn({ when, grants })) {
    const unit = fact.kind === "unit" ? fact.globs.find(isEngine) : undefined;
    if (unit === undefined) continue;
    const message = `Rule "${name}" asks for the unit ${cutOff(unit)}, in which processes of ` +
      "containers may be, too: add sameNamespaces: [pid, mnt]";
    say("container", "warning", message);
    return;
  }
}

/** A scope of an engine is one container, and a rule that names it means that. */
const isEngine = (glob: string) => holdsContainers(glob) && !/\.scope$|nspawn/.test(glob);

const isAboutContainers = (fact: CheckedFact) =>
  fact.kind === "sameNamespaces" && (fact.kinds.includes("pid") || fact.kinds.includes("mnt"));

/** systemd takes the ids of services with `DynamicUser=` from here; systemd.exec(5). */
const DYNAMIC: IdRange = { first: 61184, last: 65519 };

/** Rules on ids that the system gives to one service after the other. */
function lintRecycled({ name, when }: CheckedRule, say: Say): void {
  const facts = partsOf(when);
  if (facts.some(({ kind }) => kind === "unit")) return;
  // A range that has all of them means whatever services they are of.
  const isPart = ({ first, last }: IdRange) =>
    first >= DYNAMIC.first && last <= DYNAMIC.last && last - first < DYNAMIC.last - DYNAMIC.first;
  for (const fact of facts) {
    const range = "ranges" in fact ? fact.ranges.find(isPart) : undefined;
    if (range === undefined) continue;
    const what = fact.kind === "uid" ? "uid" : "gid";
    const message =
      `Rule "${name}" is about ${what} ${writeRanges([range])}, which systemd gives to ` +
      "another service when the present one has stopped (DynamicUser=): ask for the unit as well";
    say("recycled", "warning", message);
    return;
  }
}

/** Rules that read a whole file of any peer. */
function lintHash({ name, when }: CheckedRule, say: Say): void {
  if (when === undefined || !hashesAnyone(when)) return;
  const message =
    `Rule "${name}" asks for exeSha256 of every peer, and a peer can make that slow: ` +
    "add a uid, gid, user or group to the same condition, which is asked first";
  say("slow", "warning", message);
}

/** Whether a hash is asked for where no id has to be met before. */
function hashesAnyone(condition: CheckedCondition): boolean {
  switch (condition.kind) {
    case "not":
      return hashesAnyone(condition.of);
    case "all":
      return !asksId(condition) && condition.of.some(hashesAnyone);
    case "any":
      return condition.of.some(hashesAnyone);
  }
  return condition.kind === "exeSha256";
}

/** Whether nobody meets it without certain ids. */
function asksId(condition: CheckedCondition): boolean {
  switch (condition.kind) {
    case "uid":
    case "gid":
    case "group":
      return true;
    case "all":
      return condition.of.some(asksId);
    case "any":
      return condition.of.every(asksId);
  }
  return false;
}

/** Rules on the id that stands for all that have none here. */
function lintOverflow({ name, when }: CheckedRule, say: Say): void {
  const has = (ranges: readonly IdRange[]) => hasId(ranges, OVERFLOW_ID);
  for (const fact of partsOf(when)) {
    if (!("ranges" in fact) || !has(fact.ranges)) continue;
    const isAlone = fact.ranges.some(({ first, last }) => first === last && first === OVERFLOW_ID);
    const message =
      `Rule "${name}" is about ${OVERFLOW_ID}: in a user namespace every id without ` +
      "a number there reads so, and the rule is then unknown; elsewhere unrelated programs share it";
    say("overflow", isAlone ? "warning" : "note", message);
    return;
  }
}

const isAboutIds = ({ kind }: CheckedFact): boolean =>
  kind === "uid" || kind === "gid" || kind === "group";

type Effect = Pick<CheckedRule, "when" | "grants">;

/** The conditions on single facts that can let a peer in where they hold. */
function lettingIn({ when, grants }: Effect): readonly CheckedFact[] {
  return when === undefined ? [] : wantedOf(when, grants !== undefined);
}

/** The conditions on single facts that can keep a peer out where they hold. */
function keepingOut({ when, grants }: Effect): readonly CheckedFact[] {
  return when === undefined ? [] : wantedOf(when, grants === undefined);
}

/** The conditions on single facts that help to meet a condition, or to miss it. */
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

/** The conditions on single facts. */
function partsOf(condition: CheckedCondition | undefined): readonly CheckedFact[] {
  if (condition === undefined) return [];
  switch (condition.kind) {
    case "not":
      return partsOf(condition.of);
    case "all":
    case "any":
      return condition.of.flatMap(partsOf);
  }
  return [condition];
}

/** In characters, of what is quoted in a message. */
const LONGEST = 300;

/** A text in a message, cut off where it is long. */
export function cutOff(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}
