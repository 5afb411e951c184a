/** Policy documents: policies as plain data, in code or in a file. */

import type { NamespaceKind } from "../../process.ts";
import type { Attributes } from "../decide/decision.ts";
import type { PlainPeer } from "../decide/subject.ts";
import type { DocumentPath } from "./problems.ts";

/**
 * A condition on the peer. All of its fields must hold; a list holds if any of its values does.
 *
 * Texts are anchored globs: `*` matches any characters except "/", `**` any characters. A condition on an
 * unknown fact is unknown, and so is its `not`.
 */
export interface Condition {
  /** Effective uid: a number, or a range, "1000-1999". */
  readonly uid?: number | string | readonly (number | string)[];
  /** Effective gid: a number, or a range. A deny list by gid misses supplementary members. */
  readonly gid?: number | string | readonly (number | string)[];
  /** Name of the account with the uid. */
  readonly user?: string | readonly string[];
  /** Name of a group, primary or supplementary. */
  readonly group?: string | readonly string[];
  /** Whether the uid is the server's own effective uid, at the time the policy was made. */
  readonly sameUser?: boolean;
  /** Path of the executable. Advice only: every process with the same uid can make it run other code. */
  readonly exe?: string | readonly string[];
  /**
   * SHA-256 of the executable, 64 hexadecimal digits. The whole file is hashed for each decision that
   * needs it: put a condition on ids into the same rule.
   */
  readonly exeSha256?: string | readonly string[];
  /** systemd unit. */
  readonly unit?: string | readonly string[];
  /** Path of the control group. */
  readonly cgroup?: string | readonly string[];
  /** Container id. The absence of one proves little: use `sameNamespaces`. */
  readonly container?: string | readonly string[];
  /** Security label. A glob without AppArmor's mode matches every mode: "docker-default". */
  readonly label?: string | readonly string[];
  /** Namespaces that the process must share with the server, all of them. */
  readonly sameNamespaces?: NamespaceKind | readonly NamespaceKind[];
  /** Whether ids and groups are the same as at connect, and the process runs. */
  readonly unchanged?: boolean;
  /** At least one of these holds. */
  readonly any?: readonly Condition[];
  /** All of these hold. */
  readonly all?: readonly Condition[];
  /** This does not hold. */
  readonly not?: Condition;
}

/**
 * A condition on attributes of the request, for a policy with `about`. All of its fields must hold; a list
 * holds if any of its values does. A condition on an unknown attribute is unknown, and so is its `not`.
 */
export interface AttributeCondition {
  /** At least one of these holds. */
  readonly any?: readonly AttributeCondition[];
  /** All of these hold. */
  readonly all?: readonly AttributeCondition[];
  /** This does not hold. */
  readonly not?: AttributeCondition;
  /**
   * The condition on an attribute, by its type.
   *
   * - boolean: `true` or `false`.
   * - number: a number, or a range, "0-1023".
   * - text: a glob. `null`, a text that is known to be absent, matches no glob.
   * - id: an id, a range, or "self", the uid of the peer.
   * - texts: a {@link TextsCondition}.
   * - parameters: a {@link TextsCondition} for each name. A name without values has an empty list.
   */
  readonly [attribute: string]:
    | boolean
    | number
    | string
    | readonly (number | string)[]
    | TextsCondition
    | { readonly [name: string]: TextsCondition }
    | AttributeCondition
    | readonly AttributeCondition[]
    | undefined;
}

/** A condition on a list of texts. All of its fields must hold. */
export interface TextsCondition {
  /** Each text of the list matches one of these globs. Holds for an empty list. */
  readonly every?: string | readonly string[];
  /** At least one text of the list matches one of these globs. */
  readonly some?: string | readonly string[];
  /** No text of the list matches any of these globs. */
  readonly none?: string | readonly string[];
  /** Whether the list is empty. */
  readonly empty?: boolean;
}

/** A rule. It has either `allow` or `deny`. */
export interface RuleDocument {
  /** Name of the rule, for decisions and logs; unique in the policy. */
  readonly name: string;
  /** The peers that the rule applies to. Default: every peer. */
  readonly when?: Condition;
  /** Globs for the action: "GET /metrics". Default: every action, and decisions without an action. */
  readonly actions?: string | readonly string[];
  /** The attributes of the request that the rule applies to. Default: any. Needs `about`. */
  readonly where?: AttributeCondition;
  /** `true`, or the grants that the rule gives: names of your choice. */
  readonly allow?: true | string | readonly string[];
  /** `true`, or the reason, meant for the peer. */
  readonly deny?: true | string;
}

/** A peer in a test: plain data, with names as well as ids. */
export interface TestPeer extends Omit<PlainPeer, "groups"> {
  /** Name of the account with the uid, instead of `uid`. */
  readonly user?: string;
  /** Name of the primary group, instead of `gid`. */
  readonly group?: string;
  /** All groups, by gid or by name; the primary group always counts. */
  readonly groups?: readonly (number | string)[];
}

/** A test: a peer, an action and the expected decision. */
export interface TestDocument {
  /** Name of the test, for reports. */
  readonly name?: string;
  /** The peer. A missing fact is unknown. */
  readonly peer: TestPeer;
  /** The action. Default: a decision without an action. */
  readonly action?: string;
  /** The attributes of the request. A missing attribute is unknown. Needs `about`. */
  readonly attributes?: Attributes;
  /** The expected decision: either `allow` or `deny`. */
  readonly expect: {
    /** `true`, or exactly these grants. */
    readonly allow?: true | string | readonly string[];
    /** The decision denies. */
    readonly deny?: true;
    /** The rule that decides; `null`: no rule matches. */
    readonly rule?: string | null;
  };
}

/** A policy: the first rule that matches decides; without a match the peer is denied. */
export interface PolicyDocument {
  /** Version of this language. */
  readonly version: 1;
  /** Name of the vocabulary of actions and attributes. Default: any action, and no attributes. */
  readonly about?: string;
  /** The rules, in order. */
  readonly rules: readonly RuleDocument[];
  /** Expected decisions, which `runTests()` checks. */
  readonly tests?: readonly TestDocument[];
}

/** Resolves names to ids. Each function returns `undefined` if the name does not exist. */
export interface Accounts {
  /** Returns the uid of a user. */
  uid(name: string): number | undefined;
  /** Returns the gid of a group. */
  gid(name: string): number | undefined;
}

/** The kind of an account. */
export type NamedKind = "user" | "group";

/** An account name in a document, with its id. */
export interface Named {
  readonly kind: NamedKind;
  readonly name: string;
  readonly id: number;
  readonly path: DocumentPath;
}
