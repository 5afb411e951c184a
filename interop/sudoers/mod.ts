/**
 * `ucred/sudoers`: policies from sudoers files.
 *
 * @module
 */

export { UcredError, type UcredErrorCode } from "../../core/errors.ts";
export type { PolicyDocument } from "../../core/policy/document/types.ts";
export { readSudoers, type SudoersExport } from "./cvtsudoers.ts";
export { importSudoers } from "./import.ts";
export { sudoVocabulary } from "./vocabulary.ts";
