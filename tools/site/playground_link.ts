/** Makes links that open a policy of a document in the playground. */

import { deflateRawSync } from "node:zlib";
import { parse } from "yaml";
import { UcredError } from "../../core/errors.ts";
import type { PolicyDocument } from "../../core/policy/document/types.ts";
import { VOCABULARIES } from "../../interop/vocabularies.ts";
import { parsePolicy } from "../../policy/parse.ts";
import { PREFIX, type State } from "./client/state.ts";

/**
 * Returns the fragment of the playground for a text; `undefined` if it is no policy that the playground
 * can use. The peer and its request are those of the first test.
 */
export function fragmentOfPolicy(text: string): string | undefined {
  if (!/^version: 1$/m.test(text) || !/^rules:/m.test(text)) return undefined;
  const { users, groups } = accountsIn(parse(text));
  try {
    const accounts = {
      uid: (name: string) => users.get(name),
      gid: (name: string) => groups.get(name),
    };
    // A test may depend on the id of a name, which is unknown here.
    parsePolicy(text, { accounts, vocabularies: VOCABULARIES, runTests: true });
  } catch (error) {
    if (error instanceof UcredError && error.code === "ERR_UCRED_POLICY") return undefined;
    throw error;
  }
  const { tests: [test] = [] } = parse(text) as PolicyDocument;
  const json = (value: unknown) => value === undefined ? "" : JSON.stringify(value, null, 2);
  const state: State = {
    policy: text,
    edited: "",
    peer: json(test?.peer),
    action: test?.action ?? "",
    attributes: json(test?.attributes),
    accounts: `users: ${flow(users)}\ngroups: ${flow(groups)}\n`,
  };
  return PREFIX + deflateRawSync(JSON.stringify(state)).toString("base64url");
}

const flow = (names: ReadonlyMap<string, number>) => JSON.stringify(Object.fromEntries(names));

/** The names of accounts in a document, each with an id. */
function accountsIn(document: unknown): {
  readonly users: ReadonlyMap<string, number>;
  readonly groups: ReadonlyMap<string, number>;
} {
  const users = new Map([["root", 0]]);
  const groups = new Map([["root", 0]]);
  const add = (names: Map<string, number>, value: unknown, first: number) => {
    for (const name of [value].flat()) {
      if (typeof name === "string" && !names.has(name)) names.set(name, first + names.size);
    }
  };
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) return value.forEach(visit);
    if (typeof value !== "object" || value === null) return;
    for (const [name, inner] of Object.entries(value)) {
      if (name === "user") add(users, inner, 1999);
      else if (name === "group" || name === "groups") add(groups, inner, 900);
      else visit(inner);
    }
  };
  visit(document);
  return { users, groups };
}
