/** The real system, with calls that fail as on an older kernel or in a denied process. */

import { host } from "../../adapters/host.ts";
import { openSystem, type System } from "../../adapters/select.ts";
import { compileLibrary } from "../support/compile.ts";

/** Opens the system. @param calls Macro of denying_libc.c → errno. */
export function deny(calls: { readonly [call: string]: number | undefined }): System {
  const flags = Object.entries(calls).map(([call, errno]) => `-D${call}=${errno}`);
  const source = new URL("denying_libc.c", import.meta.url);
  // Always linked with libc, which has the calls that this library does not define.
  return openSystem(host(), compileLibrary(source, "-Wl,--no-as-needed", ...flags));
}
