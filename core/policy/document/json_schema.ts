/** The JSON Schema of policy documents, with a description of each field for editors. */

import { CONDITION, POLICY } from "./schema.ts";
import type { JsonSchema } from "./shape.ts";

/** The JSON Schema (2020-12) of policy documents. */
export function policySchema(): JsonSchema {
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "ucred policy",
    ...described(POLICY.schema, POLICY_FIELDS),
    $defs: { condition: described(CONDITION.schema, CONDITION_FIELDS) },
  };
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
  any: "At least one of these holds.",
  all: "All of these hold.",
  not: "This does not hold.",
};

const RULE_FIELDS: Descriptions = {
  name: "Name of the rule, for decisions and logs; unique in the policy.",
  when: "The peers that the rule applies to. Default: everyone.",
  actions: 'Globs for the action, "GET /metrics". Default: every action.',
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
  rules: ["The first rule that matches decides; without a match the peer is denied.", RULE_FIELDS],
  tests: ["Expected decisions, which can be checked with the policy.", {
    name: "Name of the test, for reports.",
    peer: ["The peer. A missing fact is unknown.", PEER_FIELDS],
    action: "The action. Default: a decision without an action.",
    expect: ["The expected decision.", {
      allow: "true, or exactly these grants.",
      deny: "The decision denies.",
      rule: "The rule that decides; null: no rule matches.",
    }],
  }],
};
