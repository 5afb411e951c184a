/** The check that a policy's actions are those of the guard's mode. */

import { UcredError } from "../core/errors.ts";
import { findSource, type Policy } from "../core/policy/policy.ts";
import { visible } from "../core/text.ts";

/**
 * Rejects a policy that tests actions without the `about` of the guard's mode: its names of actions are not
 * checked, and a rule with a misspelled one never matches, so that it denies nothing.
 *
 * @param about The name of the vocabulary: "docker", "dbus" or "mcp".
 * @throws {UcredError} `ERR_UCRED_POLICY`
 */
export function requireActionsOf(about: string, policy: Policy): void {
  const source = findSource(policy);
  if (source === undefined) {
    const { current } = policy as { current?: Policy }; // of a watched or shadowed policy
    if (current !== undefined) requireActionsOf(about, current);
    return;
  }
  const { rules, vocabulary } = source.checked;
  if (vocabulary?.name === about) return;
  const index = rules.findIndex(({ actions }) => actions !== undefined);
  if (index < 0) return;
  const place = source.context.where?.(["rules", index]) ?? `rules[${index}]`;
  throw new UcredError(
    "ERR_UCRED_POLICY",
    `Cannot use the policy: ${visible(place)}: actions are tested without "about: ${about}"`,
    { hint: `Add "about: ${about}", which checks the names of actions` },
  );
}
