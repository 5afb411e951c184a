/** The files of other systems that `ucred policy import` converts to policies: one line for each kind. */

import { readFileSync } from "node:fs";
import { UcredError } from "../core/errors.ts";
import type { PolicyDocument } from "../core/policy/document/types.ts";

/** Converts files. Rejects with an `UcredError` if a policy cannot express a part. */
export type Importer = (files: readonly string[]) => Promise<PolicyDocument>;

/** Kind → importer. The parsers are loaded on use, because all other commands would start later otherwise. */
export const IMPORTERS: { readonly [kind: string]: Importer } = {
  "dbus": async (files) => {
    const { importBusPolicy } = await import("./dbus/import.ts");
    return importBusPolicy(files);
  },
  "polkit-rules": async (files) => {
    const { importRules } = await import("./polkit/rules.ts");
    return importRules(files.map((file) => ({ file, text: read(file) })));
  },
  sudoers: async (files) => {
    const { importSudoers, readSudoers } = await import("./sudoers/mod.ts");
    return importSudoers(readSudoers(mainFile(files)));
  },
};

/** Returns the only file. The kinds that call this have one main file, which includes the others. */
function mainFile([file = "", ...others]: readonly string[]): string {
  if (others.length === 0) return file;
  const message = `Cannot import ${others.length + 1} files: one of them must include the others`;
  throw new UcredError("ERR_UCRED_POLICY", message, { hint: "Import only the main file" });
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
