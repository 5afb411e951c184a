/** The shape of a policy document: one definition for checking it and for its JSON Schema. */

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
  type Report,
  type Shape,
  show,
  subjectOf,
  suggest,
  value,
} from "./shape.ts";
import type { NamedKind } from "./types.ts";

const isText = (value: unknown): value is string => typeof value === "string" && value !== "";

/** The names stand for regular expressions in json_schema.ts: only a JSON Schema needs their text. */
type PatternName = "plain" | "seen";
const pattern = (name: PatternName) => name;

const TEXT = { type: "string", minLength: 1, pattern: pattern("plain") };

/** A text that is not empty and has no invisible characters: see {@link unseenIn}. */
const textAs = (
  expected: string,
  longest = Infinity,
  use: (text: string, path: DocumentPath, report: Report) => void = () => {},
  /** Whether the text is for people only and never compared: then any kind of space is accepted. */
  isProse = false,
): Shape => ({
  schema: {
    ...TEXT,
    ...(isProse && { pattern: pattern("seen") }),
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
        () => `${what()} contains the invisible character ${unseen.name}`,
      );
      return;
    }
    const space = isProse ? undefined : spaceLikeIn(value);
    if (space !== undefined) {
      report.problem(
        path,
        () =>
          `${what()} contains the character ${space.name}, which looks like a space: write a space`,
      );
    } else if (value.length > longest) {
      report.problem(
        path,
        () => `${what()} has at most ${longest} characters, not ${value.length}`,
      );
    } else use(value, path, report);
  },
});

export const text: Shape = textAs("a text");
const prose = (expected: string) => textAs(expected, Infinity, undefined, true);

/** PATH_MAX of Linux. Matching takes at most one step per star and character of the text. */
export const MAX_GLOB_CHARACTERS = 4096;
export const glob: Shape = textAs("a text or a list of them", MAX_GLOB_CHARACTERS);
export const globs: Shape = anyOf(glob);
export const flag: Shape = value("true or false", (value) => typeof value === "boolean", {
  type: "boolean",
});

export const ID: JsonSchema = { type: "integer", minimum: 0, maximum: NO_ID - 1 };
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

/** The name of an existing account. */
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

/** One of `words`. */
export const oneOf = (what: string, words: readonly string[]): Shape => ({
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
export const field = (shape: Shape): Field => ({ shape });
export const required = (shape: Shape): Field => ({ shape, isRequired: true });

const NO_PID = { pid: "rules cannot test a pid: the kernel reuses it" };

/** The shape of `when`. */
export const CONDITION: Shape = object("a condition", {
  uid: field(ids),
  gid: field(ids),
  user: field(anyOf(name("user"), "at least one name")),
  group: field(anyOf(name("group"), "at least one name")),
  sameUser: field(flag),
  label: field(globs),
  unit: field(globs),
  cgroup: field(globs),
  container: field(globs),
  exe: field(globs),
  exeSha256: field(anyOf(sha256)),
  sameNamespaces: field(anyOf(namespaceKind)),
  unchanged: field(flag),
  any: field(conditions),
  all: field(conditions),
  not: field(condition),
}, {
  schema: { minProperties: 1 },
  none: NO_PID,
  check: (value, path, report) => {
    if (isObject(value) && Object.keys(value).length === 0) {
      report.problem(path, () => "a condition has at least one field");
    }
  },
});

/** Requires exactly one of `allow` and `deny`. */
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

const textOrNone = (shape: Shape): Shape => either(null, shape);
const PROCESS = object("a process", {
  exe: field(textOrNone(text)),
  exeSha256: field(textOrNone(sha256)),
  unit: field(textOrNone(text)),
  cgroup: field(textOrNone(text)),
  container: field(textOrNone(text)),
  namespaces: field(
    object(
      "namespaces",
      Object.fromEntries(
        NAMESPACE_KINDS.map((
          kind,
        ) => [kind, field(object("a namespace", { ours: required(flag) }))]),
      ),
    ),
  ),
});

const PEER = object("a peer", {
  uid: field(id),
  gid: field(id),
  user: field(name("user")),
  group: field(name("group")),
  groups: field(
    list({
      schema: { anyOf: [ID, TEXT] },
      check: (value, path, report) =>
        (isText(value) ? name("group") : id).check(value, path, report),
    }, "gids and names"),
  ),
  label: field(textOrNone(text)),
  ambiguous: field(list(oneOf("id that may be ambiguous", AMBIGUOUS), "uid, gid and groups")),
  unchanged: field(flag),
  process: field(PROCESS),
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

const EXPECTATION = object("an expectation", {
  allow: field(grants),
  deny: field(value("true", (value) => value === true, { const: true })),
  rule: field(textOrNone(text)),
}, allowOrDeny("an expectation"));

const WITH_ABOUT = "name a vocabulary in about";
const NO_ABOUT = { where: WITH_ABOUT, attributes: WITH_ABOUT };

/** Further fields of policies about a vocabulary. */
interface MoreFields {
  readonly policy?: { readonly about: Field };
  readonly rule?: { readonly where: Field; readonly actions: Field };
  readonly test?: { readonly attributes: Field; readonly action: Field };
}

/** The shape of a policy document. */
export const policyWith = ({ policy, rule, test }: MoreFields): Shape =>
  object("a policy", {
    version: required(value("1", (value) => value === 1, { const: 1 })),
    ...policy,
    rules: required(list(
      object("a rule", {
        name: required(text),
        when: field(condition),
        actions: field(globs),
        ...rule,
        allow: field(grants),
        deny: field(either(true, prose("true or a reason"))),
      }, { ...allowOrDeny("a rule"), none: NO_ABOUT }),
      "rules",
    )),
    tests: field(list(
      object("a test", {
        name: field(prose("a text")),
        peer: required(PEER),
        action: field(text),
        ...test,
        expect: required(EXPECTATION),
      }, { none: NO_ABOUT }),
      "tests",
    )),
  });

/** The shape of a policy document without a vocabulary. */
export const POLICY: Shape = policyWith({});
