/** The real system, but for calls that fail as an older kernel or a denied process sees it. */

import { host } from "../../adapters/host.ts";
import { openSystem, type System } from "../../adapters/select.ts";
import { compileLibrary } from "../support/compile.ts";

/** Opens it. @param calls Macro of denying_libc.c → errno. */
export function deny(calls: { readonly [call: string]: number | undefined }): System {
  const flags = Object.entries(calls).map(([call, errno]) => `-D${call}=${errno}`);
  const source = new URL("denying_libc.c", import.meta.url);
  // Linked with libc whether it needs it or not: the calls that it lacks are found there.
  return openSystem(host(), compileLibrary(source, "-Wl,--no-as-needed", ...flags));
}
