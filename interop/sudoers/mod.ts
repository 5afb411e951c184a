/**
 * `ucred/sudoers`: policies from sudoers files, and a privileged helper that needs no setuid program.
 *
 * @module
 */

export { UcredError, type UcredErrorCode } from "../../core/errors.ts";
export type { PolicyDocument } from "../../core/policy/document/types.ts";
export { readSudoers, type SudoersExport } from "./cvtsudoers.ts";
export { importSudoers } from "./import.ts";
export { sudoVocabulary } from "./vocabulary.ts";
export * from "./helper/mod.ts";
