/** The vocabulary `polkit`: requests for authorizations. */

import { defineVocabulary, type Vocabulary } from "../../core/policy/document/vocabulary.ts";

/**
 * The actions of polkit, for policies with `about: polkit`: what polkit's rules decide, without the
 * questions for a password.
 */
export const polkitVocabulary: Vocabulary = defineVocabulary({
  name: "polkit",
  actions: {
    "**": "The peer requests the authorization for the action with this id: `org.example.restart`.",
  },
  attributes: {
    id: {
      type: "text",
      description: "The id of the action, again: conditions can exclude it.",
    },
    active: {
      type: "boolean",
      description:
        "Whether the peer's session is the active one of its seat, as logind reports it.",
    },
    local: {
      type: "boolean",
      description: "Whether the peer's session is on a seat of this machine, as logind reports it.",
    },
  },
});
