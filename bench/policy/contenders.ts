/**
 * The policy engines. Each has the same rules, in the form that its documentation recommends for
 * speed. A process imports only one of them, so that none increases the heap of another.
 */

import type { AttributeCondition } from "../../mod.ts";
import type { Vocabulary } from "../../policy/mod.ts";
import type { Ids, Rule } from "./workload.ts";

/** An engine with the rules of one policy. */
export interface Engine<Request, Reply> {
  /** Converts a peer to the form of the engine. The conversion is not timed. */
  request(ids: Ids): Request;
  decide(request: Request): Reply | Promise<Reply>;
  allowed(reply: Reply): boolean;
  /** The name of the rule that decided. */
  rule(reply: Reply): string | undefined;
}

// deno-lint-ignore no-explicit-any -- each engine has its own type of requests
export type AnyEngine = Engine<any, any>;

/** An engine, or a way to use one. */
export interface Contender {
  readonly name: string;
  /** Its package; `undefined` for ucred. */
  readonly package?: string;
  readonly how: string;
  load(rules: readonly Rule[]): Promise<AnyEngine>;
}

/** @param about Options of a policy about a vocabulary, with the condition of every rule on attributes. */
async function loadUcred(
  rules: readonly Rule[],
  about?: { readonly vocabulary: Vocabulary; readonly where: AttributeCondition },
) {
  const { definePolicy } = await import("../../mod.ts");
  const ids = new Map(rules.map(({ kind, id }) => [`${kind}${id}`, id]));
  const policy = definePolicy({
    version: 1,
    ...(about && { about: about.vocabulary.name }),
    rules: rules.map(({ name, kind, id, allows }) => ({
      name,
      when: { [kind]: kind === "user" || kind === "group" ? `${kind}${id}` : id },
      ...(about && { where: about.where }),
      ...(allows ? { allow: "use" } : { deny: true }),
    })),
  }, {
    accounts: { uid: (name) => ids.get(name), gid: (name) => ids.get(name) },
    vocabularies: about && [about.vocabulary],
  });
  type Peer = Parameters<typeof policy.decide>[0];
  type Decision = ReturnType<typeof policy.decide>;
  return {
    policy,
    request: (ids): Peer => ids,
    decide: (peer) => policy.decide(peer),
    allowed: ({ allowed }) => allowed,
    rule: ({ rule }) => rule,
  } satisfies Engine<Peer, Decision> & { policy: unknown };
}

const CASBIN_MODEL = `
[request_definition]
r = sub
[policy_definition]
p = kind, id, eft, name
[policy_effect]
e = priority(p.eft) || deny
[matchers]
m = meets(r.sub, p.kind, p.id)
`;

/** All contenders. The others are compared with the first one. */
export const CONTENDERS: readonly Contender[] = [
  {
    name: "ucred",
    how: "policy.decide(), peers as plain objects",
    load: loadUcred,
  },
  {
    name: "ucred, peers",
    how: "policy.decide(), peers of the class that identify() returns",
    async load(rules) {
      const { openedSystem: system } = await import("../../adapters/select.ts");
      const { known, none } = await import("../../core/facts.ts");
      const { CapturedPeer } = await import("../../identity/peer.ts");
      const source = "kernel@connect";
      return {
        ...await loadUcred(rules),
        request: ({ uid, gid, groups }) =>
          new CapturedPeer(system(), {
            credentials: { pid: undefined, uid, gid },
            groups: known(groups, source),
            label: none(source),
            ...{ pinned: undefined, source },
          }),
      };
    },
  },
  {
    name: "ucred, attributes",
    how: "policy.decide() with an action and attributes; every rule tests one attribute",
    async load(rules) {
      const { defineVocabulary } = await import("../../policy/mod.ts");
      const vocabulary = defineVocabulary({
        name: "bench",
        actions: { use: "Uses the server." },
        attributes: { secret: { type: "boolean", description: "Whether the request is secret." } },
      });
      const { policy, ...engine } = await loadUcred(rules, {
        vocabulary,
        where: { secret: false },
      });
      const attributes = { secret: false };
      return { ...engine, decide: (peer) => policy.decide(peer, { action: "use", attributes }) };
    },
  },
  {
    name: "Casbin",
    package: "casbin",
    how: "enforceExSync(), effect by priority, a function as the matcher",
    async load(rules) {
      const { newEnforcer, newModelFromString, StringAdapter } = await import("casbin");
      const model = newModelFromString(CASBIN_MODEL);
      const lines = rules.map(({ name, kind, id, allows }) =>
        `p, ${kind}, ${id}, ${allows ? "allow" : "deny"}, ${name}`
      );
      const enforcer = await newEnforcer(model, new StringAdapter(lines.join("\n")));
      // Policies are text in Casbin. Comparisons in the matcher took 4 times as long (measured).
      interface Texts {
        readonly uid: string;
        readonly gid: string;
        readonly groups: ReadonlySet<string>;
      }
      await enforcer.addFunction(
        "meets",
        ({ uid, gid, groups }: Texts, kind: string, id: string) => {
          if (kind === "group") return groups.has(id);
          return id === (kind === "gid" ? gid : uid);
        },
      );
      return {
        request: ({ uid, gid, groups }) => ({
          uid: `${uid}`,
          gid: `${gid}`,
          groups: new Set(groups.map(String)),
        }),
        decide: (peer) => enforcer.enforceExSync(peer),
        allowed: ([allowed]) => allowed,
        rule: ([, found]) => found[3],
      } satisfies Engine<Texts, [boolean, string[]]>;
    },
  },
  {
    name: "CASL",
    package: "@casl/ability",
    how: "relevantRuleFor(); rules in reverse order, because the last match decides",
    async load(rules) {
      const { createMongoAbility, subject } = await import("@casl/ability");
      const ability = createMongoAbility(
        rules.toReversed().map(({ name, kind, id, allows }) => ({
          action: "use",
          subject: "Peer",
          conditions: { [{ uid: "uid", user: "uid", gid: "gid", group: "groups" }[kind]]: id },
          inverted: !allows,
          reason: name,
        })),
      );
      type Reply = ReturnType<typeof ability.relevantRuleFor>;
      return {
        request: (ids) => subject("Peer", { ...ids }),
        decide: (peer) => ability.relevantRuleFor("use", peer),
        allowed: (rule) => rule !== null && !rule.inverted,
        rule: (rule) => rule?.reason,
      } satisfies Engine<ReturnType<typeof subject>, Reply>;
    },
  },
  {
    name: "Cedar",
    package: "@cedar-policy/cedar-wasm",
    how: "statefulIsAuthorized(), with parsed policies; groups are parents of the user",
    async load(rules) {
      const { preparsePolicySet, statefulIsAuthorized } = await import(
        "@cedar-policy/cedar-wasm/nodejs"
      );
      const name = `rules${rules.length}`;
      const scopes = { uid: "== User", user: "== User", gid: "in Primary", group: "in Group" };
      const staticPolicies = Object.fromEntries(rules.map(({ kind, id, allows }, position) => [
        `${position}`,
        `${allows ? "permit" : "forbid"} (principal ${scopes[kind]}::"${id}", action, resource);`,
      ]));
      const answer = preparsePolicySet(name, { staticPolicies });
      if (answer.type === "failure") throw new Error(answer.errors[0]!.message);
      type Call = Parameters<typeof statefulIsAuthorized>[0];
      return {
        request: ({ uid, gid, groups }) => {
          const principal = { type: "User", id: `${uid}` };
          const parents = [
            { type: "Primary", id: `${gid}` },
            ...groups.map((group) => ({ type: "Group", id: `${group}` })),
          ];
          return {
            principal,
            action: { type: "Action", id: "use" },
            resource: { type: "Socket", id: "app" },
            context: {},
            preparsedPolicySetId: name,
            entities: [{ uid: principal, attrs: {}, parents }],
          };
        },
        decide: (call) => {
          const answer = statefulIsAuthorized(call);
          if (answer.type === "failure") throw new Error(answer.errors[0]!.message);
          return answer.response;
        },
        allowed: ({ decision }) => decision === "allow",
        // Cedar's policies have no order. It returns all that apply.
        rule: ({ diagnostics: { reason } }) =>
          reason.length === 0 ? undefined : rules[Math.min(...reason.map(Number))]!.name,
      } satisfies Engine<
        Call,
        Extract<ReturnType<typeof statefulIsAuthorized>, { type: "success" }>["response"]
      >;
    },
  },
  {
    name: "json-rules-engine",
    package: "json-rules-engine",
    how: "run(); each rule has a priority, and the first match stops the engine",
    async load(rules) {
      const { Engine: RulesEngine } = await import("json-rules-engine");
      const engine = new RulesEngine(
        rules.map(({ name, kind, id, allows }, position) => ({
          conditions: {
            all: [
              kind === "group"
                ? { fact: "groups", operator: "contains", value: id }
                : { fact: kind === "gid" ? "gid" : "uid", operator: "equal", value: id },
            ],
          },
          event: { type: allows ? "allow" : "deny", params: { name } },
          priority: rules.length - position,
        })),
      );
      engine.on("success", () => void engine.stop()); // one priority for all rules took longer (measured)
      type Reply = Awaited<ReturnType<typeof engine.run>>;
      return {
        request: (ids) => ({ ...ids }),
        decide: (facts) => engine.run(facts),
        allowed: ({ events }) => events[0]?.type === "allow",
        rule: ({ events }) => events[0]?.params?.["name"] as string | undefined,
      } satisfies Engine<Record<string, unknown>, Reply>;
    },
  },
];
