/** The JSON Schema of policy documents, with a description of each field for editors. */

import { BUILT_IN_VOCABULARIES } from "../vocabularies.ts";
import { CONDITION, field, globs, oneOf, policyWith, text } from "./schema.ts";
import type { JsonSchema } from "./shape.ts";
import type { Vocabulary } from "./vocabulary.ts";

/**
 * The characters of {@link unseenIn} for JSON Schemas: as ranges, since some regular expression engines
 * have no Unicode properties. Characters above U+FFFF are literal, since engines escape them differently.
 */
const UNSEEN_RANGES =
  "\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u0600-\\u0605\\u061c\\u06dd\\u070f" +
  "\\u0890-\\u0891\\u08e2\\u115f-\\u1160\\u17b4-\\u17b5\\u180b-\\u180f\\u200b-\\u200f" +
  "\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb" +
  "\u{110bd}\u{110cd}\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}";
const SPACE_LIKE_RANGES = "\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u2800\\u3000";

/** Matches texts without the characters of {@link unseenIn}. */
export const SEEN_PATTERN = `^[^${UNSEEN_RANGES}]*$`;

/** Matches texts without the characters of {@link unseenIn} and {@link spaceLikeIn}. */
export const PLAIN_PATTERN = `^[^${UNSEEN_RANGES}${SPACE_LIKE_RANGES}]*$`;

/**
 * Returns the JSON Schema (2020-12) of policy documents.
 *
 * @param vocabularies Vocabularies that `about` can name, beside the built-in ones.
 */
export function policySchema(vocabularies: readonly Vocabulary[] = []): JsonSchema {
  const all = [...vocabularies, ...BUILT_IN_VOCABULARIES];
  const anObject = field({ schema: { type: "object" }, check: () => {} });
  const shape = policyWith({
    policy: { about: field(oneOf("vocabulary", [...new Set(all.map(({ name }) => name))])) },
    rule: { actions: field(globs), where: anObject },
    test: { action: field(text), attributes: anObject },
  });
  const schema = {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "ucred policy",
    ...described(shape.schema, POLICY_FIELDS),
    allOf: [
      fieldsIf({ not: { required: ["about"] } }, false, false),
      ...all.map(({ name }) =>
        fieldsIf(
          { properties: { about: { const: name } }, required: ["about"] },
          { $ref: `#/$defs/where-${name}` },
          { $ref: `#/$defs/attributes-${name}` },
        )
      ),
    ],
    $defs: {
      condition: described(CONDITION.schema, CONDITION_FIELDS),
      ...Object.fromEntries(
        all.toReversed().flatMap(({ name, schema, attributes }) => {
          const fields = Object.fromEntries(
            Object.entries(attributes).map(([name, { description }]) => [name, description]),
          );
          return [
            [`where-${name}`, described(schema.where, { ...NESTED_FIELDS, ...fields })],
            [`attributes-${name}`, described(schema.attributes, fields)],
          ];
        }),
      ),
    },
  };
  return withPatterns(schema);
}

/** Requires schemas of `where` and `attributes` in policies that match another schema. */
function fieldsIf(
  condition: JsonSchema,
  where: JsonSchema | false,
  attributes: JsonSchema | false,
): JsonSchema {
  const listOf = (properties: object) => ({
    type: "array",
    items: { type: "object", properties },
  });
  return {
    if: { type: "object", ...condition },
    then: {
      type: "object",
      properties: { rules: listOf({ where }), tests: listOf({ attributes }) },
    },
  };
}

/** Replaces the names of patterns by regular expressions. */
function withPatterns(schema: JsonSchema): JsonSchema {
  return JSON.parse(JSON.stringify(schema), (key, value) => {
    if (key !== "pattern") return value;
    return value === "plain" ? PLAIN_PATTERN : value === "seen" ? SEEN_PATTERN : value;
  });
}

/** A field's description, and those of the fields of its object, or of the objects in its list. */
interface Descriptions {
  readonly [field: string]: string | readonly [own: string, inner: Descriptions];
}

/** Adds descriptions to the properties of a schema. */
function described(schema: JsonSchema, fields: Descriptions): JsonSchema {
  const { items, properties } = schema as {
    readonly items?: JsonSchema;
    readonly properties?: { readonly [name: string]: JsonSchema };
  };
  if (items !== undefined) return { ...schema, items: described(items, fields) };
  const named = Object.entries(properties ?? {}).map(([name, property]) => {
    const text = fields[name];
    if (text === undefined) return [name, property] as const;
    const [description, inner] = typeof text === "string" ? [text, {}] : text;
    return [name, { description, ...described(property, inner) }] as const;
  });
  return properties === undefined ? schema : { ...schema, properties: Object.fromEntries(named) };
}

const NESTED_FIELDS: Descriptions = {
  any: "At least one of these holds.",
  all: "All of these hold.",
  not: "This does not hold.",
};

const CONDITION_FIELDS: Descriptions = {
  uid: 'Effective uid: a number, or a range, "1000-1999".',
  gid: "Effective gid: a number, or a range.",
  user: "Name of the account with the uid.",
  group: "Name of a group, primary or supplementary.",
  sameUser: "Whether the uid is the server's own effective uid, at the time the policy was made.",
  label: "Security label: a glob.",
  unit: "systemd unit: a glob.",
  cgroup: "Path of the control group: a glob.",
  container: "Container id: a glob.",
  exe: "Path of the executable: a glob. Advice only, not a security boundary.",
  exeSha256: "SHA-256 of the executable.",
  sameNamespaces: "Namespaces that the process must share with the server, all of them.",
  unchanged: "Whether ids and groups are the same as at connect.",
  ...NESTED_FIELDS,
};

const RULE_FIELDS: Descriptions = {
  name: "Name of the rule, for decisions and logs; unique in the policy.",
  when: "The peers that the rule applies to. Default: everyone.",
  actions: 'Globs for the action, "GET /metrics". Default: every action.',
  where: "The attributes that the rule applies to. Default: any. Needs about.",
  allow: "true, or the grants that the rule gives.",
  deny: "true, or the reason.",
};

const PEER_FIELDS: Descriptions = {
  uid: "Effective uid.",
  gid: "Effective gid.",
  user: "Name of the account with the uid, instead of uid.",
  group: "Name of the primary group, instead of gid.",
  groups: "All groups, by gid or by name; the primary group always counts.",
  label: "Security label; null: there is none.",
  ambiguous: "Ids that read 65534 and may stand for others.",
  unchanged: "Whether nothing has changed since connect.",
  process: ["Facts of the process.", {
    exe: "Path of the executable.",
    exeSha256: "SHA-256 of the executable.",
    unit: "systemd unit; null: there is none.",
    cgroup: "Path of the control group.",
    container: "Container id; null: there is none.",
    namespaces: "For each kind, whether it is also the server's namespace.",
  }],
};

const POLICY_FIELDS: Descriptions = {
  version: "Version of this language.",
  about: "Name of the vocabulary of actions and attributes. Default: any action, no attributes.",
  rules: ["The first rule that matches decides; without a match the peer is denied.", RULE_FIELDS],
  tests: ["Expected decisions, which can be checked with the policy.", {
    name: "Name of the test, for reports.",
    peer: ["The peer. A missing fact is unknown.", PEER_FIELDS],
    action: "The action. Default: a decision without an action.",
    attributes: "The attributes of the request. A missing attribute is unknown. Needs about.",
    expect: ["The expected decision.", {
      allow: "true, or exactly these grants.",
      deny: "The decision denies.",
      rule: "The rule that decides; null: no rule matches.",
    }],
  }],
};
