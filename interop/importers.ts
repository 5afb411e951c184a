/** The files of other systems that `ucred policy import` converts to policies: one line for each kind. */

import { readFileSync } from "node:fs";
import { UcredError } from "../core/errors.ts";
import type { PolicyDocument } from "../core/policy/document/types.ts";
import { importRules } from "./polkit/rules.ts";
import { readSudoers } from "./sudoers/cvtsudoers.ts";
import { importSudoers } from "./sudoers/import.ts";

/** Converts files. Throws an `UcredError` if a policy cannot express a part. */
export type Importer = (files: readonly string[]) => PolicyDocument;

/** Kind → importer. */
export const IMPORTERS: { readonly [kind: string]: Importer } = {
  "polkit-rules": (files) => importRules(files.map((file) => ({ file, text: read(file) }))),
  sudoers: mainFile((file) => importSudoers(readSudoers(file))),
};

/** For systems with one main file, which includes the others. */
function mainFile(convert: (file: string) => PolicyDocument): Importer {
  return ([file = "", ...others]) => {
    if (others.length === 0) return convert(file);
    const message = `Cannot import ${others.length + 1} files: one of them must include the others`;
    throw new UcredError("ERR_UCRED_POLICY", message, { hint: "Import only the main file" });
  };
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const message = `Cannot read ${file}: ${(cause as Error).message}`;
    const hint = "Check the path, and that this user may read the file";
    throw new UcredError("ERR_UCRED_POLICY", message, { hint, cause });
  }
}
