/** Converts the policies of dbus-daemon(1) to policies with `about: dbus`. */

import { existsSync } from "node:fs";
import type {
  PolicyDocument,
  RuleDocument,
  TestDocument,
  TestPeer,
} from "../../core/policy/document/types.ts";
import { accountName, idOf } from "../../system/accounts.ts";
import { all, any, type Formula, not } from "../formula.ts";
import {
  type Account,
  type BusRule,
  type BusRuleKind,
  type Lookups,
  MAX_DESCRIPTORS,
  readConfiguration,
  type Subject,
} from "./configuration.ts";

const LOOKUPS: Lookups = {
  idOf,
  nameOf: accountName,
  isSelinuxEnabled: () => existsSync("/sys/fs/selinux/enforce"),
};

/**
 * Converts the configuration files of a message bus to a policy with `about: dbus`.
 *
 * dbus-daemon's last match becomes the first rule that matches. Included files are read, too. The order of
 * groups depends on their gids on this system.
 *
 * @param files Paths, as if one file included them in this order. Usually one.
 * @throws {UcredError} `ERR_UCRED_POLICY`, with all problems and their places, if dbus-daemon would reject or
 * ignore a part, or if a policy cannot express it.
 * @see {@link https://dbus.freedesktop.org/doc/dbus-daemon.1.html dbus-daemon(1)}
 *
 * @example The name of one service
 * ```ts
 * import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
 * import { importBusPolicy } from "ucred/dbus";
 *
 * const folder = mkdtempSync("/tmp/bus-");
 * writeFileSync(`${folder}/bus.conf`, `<busconfig>
 *   <policy user="root"><allow own="org.example.Clock"/></policy>
 * </busconfig>`);
 * const { rules } = importBusPolicy([`${folder}/bus.conf`]);
 * rmSync(folder, { recursive: true });
 * console.log(rules[0]?.actions, rules[0]?.when?.user); // own org.example.Clock root
 * ```
 */
export function importBusPolicy(files: readonly string[]): PolicyDocument {
  return convertBusPolicy(files, LOOKUPS);
}

/** Implements {@link importBusPolicy} with the lookups of any system. */
export function convertBusPolicy(files: readonly string[], lookups: Lookups): PolicyDocument {
  const { rules, user } = readConfiguration(files, lookups);
  const ordered = inOrder(rules);
  // The last match of dbus-daemon is the first match of a policy.
  const effective = withoutReplaced(ordered.toReversed());
  const converted = effective.flatMap(rulesOf);
  const isConnectDecided = effective.some((rule) =>
    rule.kind === "connect" && replacesEarlier(rule)
  );
  if (!isConnectDecided) converted.push(ownerOfTheBus(user));
  converted.push(SEE);
  return {
    version: 1,
    about: "dbus",
    rules: withUniqueNames(converted),
    tests: testsOf(ordered),
  };
}

/** dbus-daemon's order: rules of the later kinds of subject override those of the earlier ones. */
const RANKS = { default: 0, group: 1, user: 2, console: 3, mandatory: 4 } as const;

function inOrder(rules: readonly BusRule[]): readonly BusRule[] {
  return rules.toSorted(({ subject: one }, { subject: other }) => {
    if (one.kind === "group" && other.kind === "group") return one.id - other.id;
    return RANKS[one.kind] - RANKS[other.kind];
  });
}

/**
 * Whether dbus-daemon drops all earlier rules of this kind for a client that this rule applies to. It ignores
 * here whether the rule is restricted to broadcasts, replies, eavesdropping or file descriptors.
 */
function replacesEarlier({ kind, attributes, account }: BusRule): boolean {
  if (kind === "connect") return account === undefined;
  if (kind === "own") return attributes.get("own") === "*";
  return !["type", "path", "interface", "member", "error", "destination", "destination_prefix"]
    .concat("sender").some((name) => attributes.has(`${kind}_${name}`));
}

/** Returns the rules without those that are dropped for every client. */
function withoutReplaced(reversed: readonly BusRule[]): readonly BusRule[] {
  const replaced = new Set<BusRuleKind>();
  return reversed.filter((rule) => {
    if (replaced.has(rule.kind)) return false;
    const { kind } = rule.subject;
    if ((kind === "default" || kind === "mandatory") && replacesEarlier(rule)) {
      replaced.add(rule.kind);
    }
    return true;
  });
}

const ACTIONS: { readonly [kind in BusRuleKind]: readonly string[] } = {
  connect: ["connect"],
  own: ["own **"],
  send: ["call **", "send **"],
  receive: ["receive **"],
};

function rulesOf(rule: BusRule): readonly RuleDocument[] {
  const { kind, allow, attributes, title } = rule;
  const { when, where: ofSubject } = conditionsOf(rule.subject, rule.account);
  const { actions, where } = requestsOf(rule);
  const base = (actions: readonly string[], where: Formula) => ({
    ...(when === true ? {} : { when: when as NonNullable<RuleDocument["when"]> }),
    actions: actions.length === 1 ? actions[0]! : actions,
    ...(where === true ? {} : { where: where as NonNullable<RuleDocument["where"]> }),
  });
  const ofRequest = base(actions, all(ofSubject, where));
  const isReplacing = replacesEarlier(rule) && where !== true;
  const deny = { ...base(ACTIONS[kind], ofSubject), deny: true } as const;
  // A replacing rule leaves no earlier rule, so what it does not match is denied.
  if (!allow) return [{ name: title, ...(isReplacing ? deny : { ...ofRequest, deny: true }) }];
  const grant = attributes.get("log") === "true" ? "log" : true;
  const rules: RuleDocument[] = [{ name: title, ...ofRequest, allow: grant }];
  if (isReplacing) rules.push({ name: `${title}, which replaces earlier rules`, ...deny });
  return rules;
}

/** The conditions on the client. */
function conditionsOf(
  subject: Subject,
  account?: Subject,
): { readonly when: Formula; readonly where: Formula } {
  const when = all(whenOf(subject), account === undefined ? true : whenOf(account));
  return { when, where: subject.kind === "console" ? { atConsole: subject.atConsole } : true };
}

function whenOf(subject: Subject): Formula {
  if (subject.kind === "user") return userIs(subject.account);
  return subject.kind === "group" ? { group: subject.name } : true;
}

const userIs = ({ name, id }: Account): Formula =>
  name === undefined ? { uid: id } : { user: name };

/** The conditions on the request. */
function requestsOf({ kind, allow, attributes }: BusRule): {
  readonly actions: readonly string[];
  readonly where: Formula;
} {
  switch (kind) {
    case "connect":
      return { actions: ACTIONS.connect, where: true };
    case "own": {
      const [name, prefix] = [attributes.get("own"), attributes.get("own_prefix")];
      if (prefix !== undefined) {
        return { actions: [`own ${prefix}`, `own ${prefix}.**`], where: true };
      }
      return { actions: [`own ${name === "*" ? "**" : name}`], where: true };
    }
  }
  const get = (name: string) => attributes.get(`${kind}_${name}`);
  const type = get("type");
  const isTrue = (name: string, byDefault: boolean) =>
    (attributes.get(name) ?? String(byDefault)) === "true";

  /** An attribute of a message matches, too, if the message does not have this header field. */
  const field = (name: "path" | "member" | "error"): Formula => {
    const value = get(name);
    if (value === undefined) return true;
    return any({ [name]: value }, not({ [name]: "**" }));
  };
  const requested = isTrue(`${kind}_requested_reply`, allow);
  const eavesdrop = isTrue("eavesdrop", false);
  const conditions: Formula[] = [field("path"), field("member"), field("error")];
  const name = get("interface");
  if (name !== undefined) {
    // Without an interface, a message matches a rule that denies, and none that allows.
    conditions.push(allow ? { interface: name } : any({ interface: name }, NO_INTERFACE));
  }
  const destination = get("destination");
  const prefix = get("destination_prefix");
  if (destination !== undefined) conditions.push({ destinationNames: { some: destination } });
  if (prefix !== undefined) {
    conditions.push({ destinationNames: { some: [prefix, `${prefix}.**`] } });
  }
  const sender = get("sender");
  if (sender !== undefined) conditions.push({ senderNames: { some: sender } });
  const broadcast = get("broadcast");
  if (broadcast === "true") conditions.push(not(HAS_DESTINATION));
  if (broadcast === "false") conditions.push(HAS_DESTINATION);
  const [least, most] = [attributes.get("min_fds"), attributes.get("max_fds")];
  if (least !== undefined || most !== undefined) {
    conditions.push({ descriptors: `${least ?? 0}-${most ?? MAX_DESCRIPTORS}` });
  }
  if (allow && requested && !eavesdrop) conditions.push({ unrequestedReply: false });
  if (!allow && !requested) conditions.push({ requestedReply: false });
  if (kind === "receive" && allow !== eavesdrop) conditions.push({ eavesdropping: !allow });
  const ofType = type ?? (broadcast === "true" ? "signal" : undefined);
  return {
    actions: ofType === undefined ? ACTIONS[kind] : [actionOf(kind, ofType)],
    where: all(...conditions),
  };
}

const NO_INTERFACE: Formula = { not: { interface: "**" } };
const HAS_DESTINATION: Formula = { destination: "**" };

/** The messages of a type, as it is named in configuration files. */
function actionOf(kind: "send" | "receive", type: string): string {
  switch (type) {
    case "method_call":
      return kind === "send" ? "call **" : "receive call **";
    case "method_return":
      return `${kind} return`;
    default:
      return `${kind} ${type} **`;
  }
}

/** Returns the default of dbus-daemon, if no rule about connections matches: it accepts only its own user. */
function ownerOfTheBus(user: Account | undefined): RuleDocument {
  const when = user === undefined ? { sameUser: true } : userIs(user);
  return {
    name: "the user of the bus",
    when: when as NonNullable<RuleDocument["when"]>,
    actions: "connect",
    allow: true,
  };
}

const SEE: RuleDocument = {
  name: "dbus-daemon hides no names",
  actions: "see **",
  allow: true,
};

function withUniqueNames(rules: readonly RuleDocument[]): readonly RuleDocument[] {
  const counts = new Map<string, number>();
  return rules.map((rule) => {
    const count = (counts.get(rule.name) ?? 0) + 1;
    counts.set(rule.name, count);
    return count === 1 ? rule : { ...rule, name: `${rule.name}, number ${count}` };
  });
}

/** The maximum number of generated tests: people do not read more. */
const MAX_TESTS = 50;

/** A uid and gid that no account has. */
const OTHER = 4_294_967_000;

/** Tests of who may own which names. The last rule that matches decides, as in dbus-daemon. */
function testsOf(ordered: readonly BusRule[]): readonly TestDocument[] {
  const owning = ordered.filter(({ kind }) => kind === "own");
  const names = new Set(owning.flatMap(({ attributes }) => {
    const [name, prefix] = [attributes.get("own"), attributes.get("own_prefix")];
    if (prefix !== undefined) return [`${prefix}.Example`];
    return name === undefined || name === "*" ? [] : [name];
  }));
  const isConsoleTested = owning.some(({ subject }) => subject.kind === "console");
  const tests = [...names].flatMap((name) => {
    const subjects = owning.filter((rule) => owns(rule, name)).map(({ subject }) => subject)
      .filter(({ kind }) => kind === "user" || kind === "group");
    const byTitle = new Map([...subjects, OTHERS].map((each) => [titleOf(each), each]));
    return [...byTitle].map(([title, subject]): TestDocument => {
      const last = owning.findLast((rule) => applies(rule.subject, subject) && owns(rule, name));
      return {
        name: `${title}: own ${name}`,
        peer: peerOf(subject),
        action: `own ${name}`,
        ...(isConsoleTested && { attributes: { atConsole: false } }),
        expect: last?.allow === true ? { allow: true } : { deny: true },
      };
    });
  });
  return tests.slice(0, MAX_TESTS);
}

const OTHERS: Subject = { kind: "default" };

function titleOf(subject: Subject): string {
  if (subject.kind === "user") return `user ${subject.account.name ?? subject.account.id}`;
  return subject.kind === "group" ? `group ${subject.name}` : "other users";
}

function peerOf(subject: Subject): TestPeer {
  const peer = { uid: OTHER, gid: OTHER, groups: [] };
  if (subject.kind === "group") return { ...peer, groups: [subject.name] };
  if (subject.kind !== "user") return peer;
  const { name, id } = subject.account;
  return name === undefined ? { ...peer, uid: id } : { user: name, gid: OTHER, groups: [] };
}

/** Whether a rule for one subject applies to a peer of the other. */
function applies(one: Subject, other: Subject): boolean {
  switch (one.kind) {
    case "user":
      return other.kind === "user" && one.account.id === other.account.id;
    case "group":
      return other.kind === "group" && one.id === other.id;
    case "console":
      return !one.atConsole;
    default:
      return true;
  }
}

function owns({ attributes }: BusRule, name: string): boolean {
  const [own, prefix] = [attributes.get("own"), attributes.get("own_prefix")];
  if (prefix !== undefined) return name === prefix || name.startsWith(`${prefix}.`);
  return own === "*" || own === name;
}
