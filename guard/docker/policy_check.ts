/** The check that a policy's actions are those of Docker. */

import { UcredError } from "../../core/errors.ts";
import { findSource, type Policy } from "../../core/policy/policy.ts";
import { visible } from "../../core/text.ts";
import { dockerVocabulary } from "../../interop/docker/vocabulary.ts";

/**
 * Rejects a policy that tests actions without `about: docker`: its names of actions are not checked, and a
 * rule with a misspelled one never matches, so that it denies nothing.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY`
 */
export function requireDockerActions(policy: Policy): void {
  const source = findSource(policy);
  if (source === undefined) {
    const { current } = policy as { current?: Policy }; // of a watched or shadowed policy
    if (current !== undefined) requireDockerActions(current);
    return;
  }
  const { rules, vocabulary } = source.checked;
  if (vocabulary?.name === dockerVocabulary.name) return;
  const index = rules.findIndex(({ actions }) => actions !== undefined);
  if (index < 0) return;
  const place = source.context.where?.(["rules", index]) ?? `rules[${index}]`;
  throw new UcredError(
    "ERR_UCRED_POLICY",
    `Cannot use the policy: ${visible(place)}: actions are tested without "about: docker"`,
    { hint: 'Add "about: docker", which checks the names of actions' },
  );
}
