/** The vocabularies that the command knows, beside those of `ucred/policy`: one line for each. */

import type { Vocabulary } from "../core/policy/document/vocabulary.ts";
import { dbusVocabulary } from "./dbus/vocabulary.ts";
import { dockerVocabulary } from "./docker/vocabulary.ts";
import { mcpVocabulary } from "./mcp/vocabulary.ts";
import { polkitVocabulary } from "./polkit/vocabulary.ts";
import { sudoVocabulary } from "./sudoers/vocabulary.ts";

/** The vocabularies of other systems. */
export const VOCABULARIES: readonly Vocabulary[] = [
  dbusVocabulary,
  dockerVocabulary,
  mcpVocabulary,
  polkitVocabulary,
  sudoVocabulary,
];
