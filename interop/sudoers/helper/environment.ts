/** The environment of a command: it is made anew, and takes little from the client. */

import type { TargetUser } from "./target_user.ts";

/** Folders in which the command finds other programs. */
const PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Variables that a client may set. None of them names a file or is read by the dynamic linker. */
const ALLOWED = /^(?:TERM|COLORTERM|NO_COLOR|COLUMNS|LINES|LANG|LANGUAGE|LC_[A-Z]{1,32})$/;

/** Values without "/" and "%": sudo(8) rejects these in locales, which could name files or formats. */
const VALUE = /^[A-Za-z0-9_.,:@+-]{0,128}$/;

/** The variables of a client that reach the command. */
export function allowedVariables(
  variables: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(variables).filter((entry): entry is [string, string] =>
      ALLOWED.test(entry[0]) && typeof entry[1] === "string" && VALUE.test(entry[1])
    ),
  );
}

/**
 * The whole environment of a command.
 *
 * @param hasTerminal Whether the command has a terminal. COLUMNS and LINES are then left out: programs prefer them to
 * the size of the terminal, which can change.
 */
export function environmentOf(
  user: TargetUser,
  variables: Readonly<Record<string, string | undefined>>,
  hasTerminal: boolean,
): Record<string, string> {
  const { COLUMNS, LINES, ...others } = allowedVariables(variables);
  return {
    ...others,
    ...(!hasTerminal && COLUMNS !== undefined && { COLUMNS }),
    ...(!hasTerminal && LINES !== undefined && { LINES }),
    PATH,
    HOME: user.home,
    USER: user.name,
    LOGNAME: user.name,
    SHELL: "/bin/sh",
  };
}
