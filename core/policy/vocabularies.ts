/** The built-in vocabularies, which policies in text and files know by name. */

import { defineVocabulary, type Vocabulary } from "./document/vocabulary.ts";

/** HTTP requests, as servers decide them: the action is `METHOD /path`. */
export const httpVocabulary: Vocabulary = defineVocabulary({
  name: "http",
  actions: { "* /**": "A request: its method, a space, and the path." },
  attributes: {
    host: {
      type: "text",
      description: "The host of the request, in lower case, without the port.",
    },
    query: {
      type: "parameters",
      description: "The query parameters by name, decoded.",
      secret: true, // tokens, for example
    },
    contentType: {
      type: "text",
      description: "The media type of the body, in lower case, without parameters.",
    },
  },
});

/** All built-in vocabularies. */
export const BUILT_IN_VOCABULARIES: readonly Vocabulary[] = [httpVocabulary];
