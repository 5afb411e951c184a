/** What a policy document must look like: the one definition that checks it and makes its schema. */

import { isId, NO_ID } from "../../credentials.ts";
import type { AmbiguousId } from "../../peer.ts";
import { NAMESPACE_KINDS } from "../../process.ts";
import { spaceLikeIn, unseenIn } from "../../text.ts";
import { parseRange } from "../decide/id_ranges.ts";
import type { DocumentPath } from "./problems.ts";
import {
  anyOf,
  either,
  type Field,
  isObject,
  type JsonSchema,
  list,
  nested,
  object,
  PLAIN_PATTERN,
  type Report,
  SEEN_PATTERN,
  type Shape,
  show,
  subjectOf,
  suggest,
  value,
} from "./shape.ts";
import type { NamedKind } from "./types.ts";

const isText = (value: unknown): value is string => typeof value === "string" && value !== "";

const TEXT = { type: "string", minLength: 1, pattern: PLAIN_PATTERN };

/** A text that is not empty, and in which nothing is hidden: see {@link unseenIn}. */
const textAs = (
  expected: string,
  longest = Infinity,
  use: (text: string, path: DocumentPath, report: Report) => void = () => {},
  /** Whether people read it, and nothing compares it: any space will do. */
  isProse = false,
): Shape => ({
  schema: {
    ...TEXT,
    ...(isProse && { pattern: SEEN_PATTERN }),
    ...(longest < Infinity && { maxLength: longest }),
  },
  check: (value, path, report) => {
    const what = () => subjectOf(path);
    if (!isText(value)) {
      return report.problem(path, () => `${what()} is ${expected}, not ${show(value)}`);
    }
    const unseen = unseenIn(value);
    if (unseen !== undefined) {
      report.problem(
        path,
        () => `${what()} holds the character ${unseen.name}, which does not show`,
      );
      return;
    }
    const space = isProse ? undefined : spaceLikeIn(value);
    if (space !== undefined) {
      report.problem(
        path,
        () =>
          `${what()} holds the character ${space.name}, which looks like a space: write a space`,
      );
    } else if (value.length > longest) {
      report.problem(
        path,
        () => `${what()} has at most ${longest} characters, not ${value.length}`,
      );
    } else use(value, path, report);
  },
});

const text = textAs("a text");
const prose = (expected: string) => textAs(expected, Infinity, undefined, true);

/** In characters, as the longest path on Linux. A glob with a star for each takes so many steps a letter. */
const LONGEST_GLOB = 4096;
const globs = anyOf(textAs("a text or a list of them", LONGEST_GLOB));
const flag = value("true or false", (value) => typeof value === "boolean", { type: "boolean" });

const ID = { type: "integer", minimum: 0, maximum: NO_ID - 1 };
const id = value(`an id from 0 to ${NO_ID - 1}`, isId, ID);

const ids = anyOf(
  value(
    `an id from 0 to ${NO_ID - 1}, or a range like "1000-1999"`,
    (value) =>
      (typeof value === "number" || typeof value === "string") && parseRange(value) !== undefined,
    { anyOf: [ID, { type: "string", pattern: "^[0-9]{1,10}(-[0-9]{1,10})?$" }] },
  ),
  "at least one id",
);

/** The name of an account, which must exist. */
const name = (kind: NamedKind): Shape =>
  textAs("a name or a list of them", Infinity, (name, path, report) => {
    report.name(kind, name, path);
  });

const SHA256 = "^[0-9a-f]{64}$";
const sha256 = value(
  "64 hexadecimal digits in lower case",
  (value) => typeof value === "string" && new RegExp(SHA256).test(value),
  { type: "string", pattern: SHA256 },
);

/** One of these words. */
const oneOf = (what: string, words: readonly string[]): Shape => ({
  schema: { enum: words },
  check: (value, path, report) => {
    if ((words as readonly unknown[]).includes(value)) return;
    const meant = () => typeof value === "string" ? suggest(value, words) : "";
    report.problem(path, () => `no ${what} ${show(value)}${meant()}`);
  },
});

const namespaceKind = oneOf("namespace", NAMESPACE_KINDS);

/** @see AmbiguousId */
const AMBIGUOUS = ["uid", "gid", "groups"] as const satisfies readonly AmbiguousId[];

const condition = nested("condition", () => CONDITION);
const conditions = list(condition, "conditions", 1);
const field = (shape: Shape, about: string): Field => ({ shape, about });
const required = (shape: Shape, about: string): Field => ({ shape, about, isRequired: true });

const NO_PID = { pid: "no rule asks for a pid, which is nobody's for long" };

const CONDITION = object("a condition", {
  uid: field(ids, 'Effective uid: a number, or a range, "1000-1999".'),
  gid: field(ids, "Effective gid: a number, or a range."),
  user: field(anyOf(name("user"), "at least one name"), "Name of the account with the uid."),
  group: field(
    anyOf(name("group"), "at least one name"),
    "Name of a group, primary or supplementary.",
  ),
  sameUser: field(
    flag,
    "Whether the uid is the server's own effective one, as it was when the policy was made.",
  ),
  label: field(globs, "Security label: a glob."),
  unit: field(globs, "systemd unit: a glob."),
  cgroup: field(globs, "Path of the control group: a glob."),
  container: field(globs, "Container id: a glob."),
  exe: field(globs, "Path of the executable, advice and no boundary: a glob."),
  exeSha256: field(anyOf(sha256), "SHA-256 of the executable."),
  sameNamespaces: field(
    anyOf(namespaceKind),
    "Namespaces that the process must share with the server, each of them.",
  ),
  unchanged: field(flag, "Whether ids and groups are as they were at connect."),
  any: field(conditions, "At least one of these holds."),
  all: field(conditions, "All of these hold."),
  not: field(condition, "This does not hold."),
}, {
  schema: { minProperties: 1 },
  none: NO_PID,
  check: (value, path, report) => {
    if (isObject(value) && Object.keys(value).length === 0) {
      report.problem(path, () => "a condition has at least one field");
    }
  },
});

/** Of `allow` and `deny`, one and only one. */
const allowOrDeny = (what: string) => ({
  schema: { oneOf: [{ required: ["allow"] }, { required: ["deny"] }] },
  check: ((value, path, report) => {
    const { allow, deny } = value as { allow?: unknown; deny?: unknown };
    if ((allow === undefined) === (deny === undefined)) {
      report.problem(
        path,
        () =>
          allow === undefined
            ? `${what} has neither allow nor deny`
            : `${what} has both allow and deny`,
      );
    }
  }) satisfies Shape["check"],
});

const named = either(true, anyOf(textAs("true, a text or a list of them")));
const grants: Shape = {
  schema: named.schema,
  check: (value, path, report) => {
    if (value !== false) return named.check(value, path, report);
    report.problem(path, () => "allow is never false: use deny: true");
  },
};

const RULE = object("a rule", {
  name: required(text, "Stands in decisions and logs; unique in its policy."),
  when: field(condition, "Whom it is about; without, everyone."),
  actions: field(globs, 'Globs over the action, "GET /metrics"; without, every action.'),
  allow: field(grants, "true, or the grants that it gives."),
  deny: field(either(true, prose("true or a reason")), "true, or the reason."),
}, allowOrDeny("a rule"));

const textOrNone = (shape: Shape): Shape => either(null, shape);
const PEER = object("a peer", {
  uid: field(id, "Effective uid."),
  gid: field(id, "Effective gid."),
  user: field(name("user"), "Name of the account with the uid, instead of uid."),
  group: field(name("group"), "Name of the primary group, instead of gid."),
  groups: field(
    list({
      schema: { anyOf: [ID, TEXT] },
      check: (value, path, report) =>
        (isText(value) ? name("group") : id).check(value, path, report),
    }, "gids and names"),
    "All groups, by gid or by name; the primary one counts in any case.",
  ),
  label: field(textOrNone(text), "Security label; null: there is none."),
  ambiguous: field(
    list(oneOf("id that may be ambiguous", AMBIGUOUS), "uid, gid and groups"),
    "Ids that read 65534 and may stand for others.",
  ),
  unchanged: field(flag, "Whether nothing has changed since connect."),
  process: field(
    object("a process", {
      exe: field(textOrNone(text), "Path of the executable."),
      exeSha256: field(textOrNone(sha256), "SHA-256 of the executable."),
      unit: field(textOrNone(text), "systemd unit; null: there is none."),
      cgroup: field(textOrNone(text), "Path of the control group."),
      container: field(textOrNone(text), "Container id; null: there is none."),
      namespaces: field(
        object(
          "namespaces",
          Object.fromEntries(NAMESPACE_KINDS.map((kind) => [
            kind,
            field(
              object("a namespace", { ours: required(flag, "Whether it is the server's.") }),
              "",
            ),
          ])),
        ),
        "Of each kind, whether it is the server's too.",
      ),
    }),
    "Facts of its process.",
  ),
}, {
  none: NO_PID,
  schema: { not: { anyOf: [{ required: ["uid", "user"] }, { required: ["gid", "group"] }] } },
  check: (value, path, report) => {
    for (const [id, name] of [["uid", "user"], ["gid", "group"]] as const) {
      if (isObject(value) && value[id] !== undefined && value[name] !== undefined) {
        report.problem([...path, name], () => `a peer has either ${id} or ${name}`);
      }
    }
  },
});

const TEST = object("a test", {
  name: field(prose("a text"), "What it is about, for reports."),
  peer: required(PEER, "Who asks. A fact that is missing is unknown."),
  action: field(text, "For what; without, a decision without an action."),
  expect: required(
    object("an expectation", {
      allow: field(grants, "true, or exactly these grants."),
      deny: field(value("true", (value) => value === true, { const: true }), "It is denied."),
      rule: field(textOrNone(text), "The rule that decides; null: none matches."),
    }, allowOrDeny("an expectation")),
    "What the policy says.",
  ),
});

/** A policy document. */
export const POLICY: Shape = object("a policy", {
  version: required(
    value("1", (value) => value === 1, { const: 1 }),
    "The version of this language.",
  ),
  rules: required(
    list(RULE, "rules"),
    "In order: the first that matches decides; where none does, the answer is no.",
  ),
  tests: field(list(TEST, "tests"), "What the policy must say, to be run with it."),
});

/** The JSON Schema (2020-12) of policy documents. */
export function policySchema(): JsonSchema {
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "ucred policy",
    ...POLICY.schema,
    $defs: { condition: CONDITION.schema },
  };
}
