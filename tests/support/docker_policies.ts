/** The policies of examples/docker, with the accounts of their tests. */

import { readFileSync } from "node:fs";
import { dockerVocabulary } from "../../interop/docker/mod.ts";
import type { RulePolicy } from "../../policy/mod.ts";
import { parsePolicy, readData } from "../../policy/parse.ts";

export const policyFolder = new URL("../../examples/docker/", import.meta.url);

const textOf = (name: string) => readFileSync(new URL(name, policyFolder), "utf8");

const accountsFile = readData(textOf("accounts.yaml")) as {
  data: { [kind in "users" | "groups"]: { [name: string]: number } };
};
const accounts = {
  uid: (name: string) => accountsFile.data.users[name],
  gid: (name: string) => accountsFile.data.groups[name],
};

/** Loads a policy of examples/docker. */
export function readyPolicy(name: string): RulePolicy {
  return parsePolicy(textOf(name), {
    ...{ accounts, file: name, vocabularies: [dockerVocabulary] },
  });
}
