/** The input document of OPA: facts of a peer, the action and its attributes. */

import { UcredError } from "../../core/errors.ts";
import type { Fact } from "../../core/facts.ts";
import type { Peer, PeerFacts } from "../../core/peer.ts";
import type { Attributes } from "../../core/policy/decide/decision.ts";
import { plain } from "../../core/policy/document/plain_copy.ts";
import { isObject, show } from "../../core/policy/document/shape.ts";
import type { ProcessFacts } from "../../core/process.ts";

/** The name of a fact of a peer, or of the process of a pinned peer. */
export type OpaFact = Exclude<keyof PeerFacts, "pinned"> | keyof ProcessFacts;

/** Each fact, and whether it belongs to the process. */
const FACTS: { readonly [name in OpaFact]: "peer" | "process" } = {
  pid: "peer",
  uid: "peer",
  gid: "peer",
  groups: "peer",
  label: "peer",
  user: "peer",
  groupNames: "peer",
  key: "peer",
  exe: "process",
  exeDeleted: "process",
  exeSha256: "process",
  comm: "process",
  cmdline: "process",
  startTime: "process",
  cgroup: "process",
  slice: "process",
  unit: "process",
  userUnit: "process",
  container: "process",
  userContainer: "process",
  session: "process",
  auditUid: "process",
  auditSession: "process",
  capabilities: "process",
  noNewPrivs: "process",
  seccomp: "process",
  namespaces: "process",
};

/** The facts that are sent by default. Every peer has them, pinned or not. */
export const DEFAULT_FACTS: readonly OpaFact[] = ["uid", "gid", "groups", "user", "groupNames"];

/** Requires a list of names of facts. */
export function requireFacts(owner: string, facts: unknown): asserts facts is readonly OpaFact[] {
  const isFact = (name: unknown) => typeof name === "string" && Object.hasOwn(FACTS, name);
  if (Array.isArray(facts) && facts.length > 0 && facts.every(isFact)) return;
  const wrong = Array.isArray(facts) ? facts.find((name) => !isFact(name)) : facts;
  throw new TypeError(
    `${owner} takes a list of facts (${Object.keys(FACTS).join(", ")}), not ${show(wrong)}`,
  );
}

/**
 * Writes the body of a query of OPA's Data API: `{"input": {"peer": …, "action": …, "attributes": …}}`.
 *
 * A fact is `null` if it certainly has no value. An unknown fact is an error, because `not` in Rego holds for
 * a value that is missing.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if a fact is unknown.
 * @throws {TypeError} If the action or an attribute cannot be written as JSON without a change.
 */
export function bodyOf(
  peer: Peer,
  facts: readonly OpaFact[],
  action: string | undefined,
  attributes: Attributes,
): string {
  if (action !== undefined && typeof action !== "string") {
    throw new TypeError(`The action must be a text, not ${show(action)}`);
  }
  if (!isObject(attributes)) {
    throw new TypeError(`The attributes must be an object, not ${show(attributes)}`);
  }
  const needsProcess = facts.some((name) => FACTS[name] === "process");
  const { process } = needsProcess ? peer : {};
  const values = facts.map((name) => {
    const from: object | undefined = FACTS[name] === "peer" ? peer.facts : process?.facts;
    return [name, valueOf(name, (from as { readonly [name in OpaFact]: Fact<unknown> })[name])];
  });
  const copied = plain({ action: action ?? null, attributes });
  if ("problem" in copied) {
    const { path, message } = copied.problem;
    throw new TypeError(`Cannot send ${path.join(".")} to OPA: ${message}`);
  }
  const { copy } = copied;
  requireJson("input", copy);
  return JSON.stringify({ input: { peer: Object.fromEntries(values), ...copy as object } });
}

function valueOf(name: OpaFact, fact: Fact<unknown>): unknown {
  if (fact.state === "known") return fact.value;
  if (fact.state === "none") return null;
  throw new UcredError("ERR_UCRED_POLICY", `Cannot query OPA: ${name} is unknown`, {
    hint: `See the cause, or remove ${name} from \`facts\``,
    cause: fact.reason,
  });
}

/** A lone surrogate, which OPA would read as U+FFFD. */
const LONE_SURROGATE = /\p{Cs}/u;

/** Rejects what JSON.stringify() would leave out or replace: `undefined`, functions, NaN, lone surrogates. */
function requireJson(name: string, value: unknown): void {
  if (LONE_SURROGATE.test(name)) throw new TypeError(`Cannot send ${show(name)} to OPA`);
  if (typeof value === "object" && value !== null) {
    for (const [key, each] of Object.entries(value)) requireJson(key, each);
    return;
  }
  const isJson = value === null || typeof value === "boolean" ||
    Number.isFinite(value) ||
    (typeof value === "string" && !LONE_SURROGATE.test(value));
  if (!isJson) throw new TypeError(`Cannot send ${show(name)} to OPA: JSON has no ${show(value)}`);
}
