/** What a policy is written as: plain data, as it stands in code or in a file. */

import type { NamespaceKind } from "../../process.ts";
import type { PlainPeer } from "../decide/subject.ts";
import type { DocumentPath } from "./problems.ts";

/**
 * What must hold. All fields of one condition must; a list means any of it.
 *
 * Texts are anchored globs: `*` is any run of characters but "/", `**` any run at all. A condition on
 * a fact that is unknown is unknown, and so is its opposite.
 */
export interface Condition {
  /** Effective uid: a number, or a range, "1000-1999". */
  readonly uid?: number | string | readonly (number | string)[];
  /** Effective gid: a number, or a range. Not for a deny list: supplementary members have another one. */
  readonly gid?: number | string | readonly (number | string)[];
  /** Name of the account with the uid. */
  readonly user?: string | readonly string[];
  /** Name of a group, primary or supplementary. */
  readonly group?: string | readonly string[];
  /** Whether the uid is the server's own effective one, as it was when the policy was made. */
  readonly sameUser?: boolean;
  /** Path of the executable: advice, since whoever has the uid can make it run other code. */
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
  /** Container id. That there is none proves little: ask for `sameNamespaces`. */
  readonly container?: string | readonly string[];
  /** Security label. AppArmor's mode may be left out: "docker-default" is also "docker-default (enforce)". */
  readonly label?: string | readonly string[];
  /** Namespaces that the process must share with the server, each of them. */
  readonly sameNamespaces?: NamespaceKind | readonly NamespaceKind[];
  /** Whether ids and groups are as they were at connect, and the process runs. */
  readonly unchanged?: boolean;
  /** At least one holds. */
  readonly any?: readonly Condition[];
  /** All hold. */
  readonly all?: readonly Condition[];
  /** It does not hold. */
  readonly not?: Condition;
}

/** One rule: it has either `allow` or `deny`. */
export interface RuleDocument {
  /** Stands in decisions and logs; unique in its policy. */
  readonly name: string;
  /** Whom it is about; without, everyone. */
  readonly when?: Condition;
  /** Globs over the action, "GET /metrics"; without, every action, and decisions without one. */
  readonly actions?: string | readonly string[];
  /** `true`, or the grants that it gives, names of your choosing. */
  readonly allow?: true | string | readonly string[];
  /** `true`, or the reason that is given. */
  readonly deny?: true | string;
}

/** A peer in a test: plain data, in which names may stand for ids. */
export interface TestPeer extends Omit<PlainPeer, "groups"> {
  /** Name of the account with the uid, instead of `uid`. */
  readonly user?: string;
  /** Name of the primary group, instead of `gid`. */
  readonly group?: string;
  /** All groups, by gid or by name; the primary one counts in any case. */
  readonly groups?: readonly (number | string)[];
}

/** A case, and what the policy must say of it. */
export interface TestDocument {
  /** What it is about, for reports. */
  readonly name?: string;
  /** Who asks. A fact that is missing is unknown. */
  readonly peer: TestPeer;
  /** For what; without, a decision without an action. */
  readonly action?: string;
  /** What the policy says: either `allow` or `deny`. */
  readonly expect: {
    /** `true`, or exactly these grants. */
    readonly allow?: true | string | readonly string[];
    /** It is denied. */
    readonly deny?: true;
    /** The rule that decides; `null`: none matches. */
    readonly rule?: string | null;
  };
}

/** A policy: the first rule that matches decides; where none does, the answer is no. */
export interface PolicyDocument {
  /** The version of this language. */
  readonly version: 1;
  /** In order. */
  readonly rules: readonly RuleDocument[];
  /** Expected decisions, which `runTests()` checks. */
  readonly tests?: readonly TestDocument[];
}

/** Names → ids. Each gives `undefined` where there is no such name. */
export interface Accounts {
  /** The uid of a user. */
  uid(name: string): number | undefined;
  /** The gid of a group. */
  gid(name: string): number | undefined;
}

/** What a name is of. */
export type NamedKind = "user" | "group";

/** A name that was resolved. */
export interface Named {
  readonly kind: NamedKind;
  readonly name: string;
  readonly id: number;
  readonly path: DocumentPath;
}
