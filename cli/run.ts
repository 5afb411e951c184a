/** `ucred run`: runs a command through a privileged helper. */

import { constants, userInfo } from "node:os";
import process from "node:process";
import { addressOf } from "../core/socket_name.ts";
import { FORWARDED_SIGNALS } from "../interop/sudoers/helper/request.ts";
import { type CommandControls, runCommand } from "../interop/sudoers/helper/client.ts";
import { accountId } from "../system/accounts.ts";
import type { TerminalSize } from "../system/pseudo_terminal.ts";
import { UsageError } from "./output.ts";

/** The command's options, parsed. */
export interface RunCommandOptions {
  readonly socket: string;
  readonly user?: string;
  readonly group?: string;
  readonly helperUser: string;
}

/** Runs the command. Returns its exit status, or 128 and the number of the signal that killed it. */
export async function runAs(
  command: string,
  args: readonly string[],
  { socket, user, group, helperUser }: RunCommandOptions,
): Promise<number> {
  const uid = accountId("user", helperUser);
  if (uid === undefined) throw new UsageError(`There is no user ${JSON.stringify(helperUser)}`);
  if ([command, ...args].some((word) => word.includes("\ufffd"))) {
    throw new UsageError("An argument is not UTF-8");
  }
  // With one of them redirected, the command receives pipes, so that stderr stays separate.
  const { stdin, stdout, stderr } = process;
  const hasTerminal = stdin.isTTY && stdout.isTTY && stderr.isTTY;
  const { columns, rows } = stdout;
  const size = columns === undefined ? {} : { COLUMNS: String(columns), LINES: String(rows) };
  try {
    const { code, signal } = await runCommand({
      path: addressOf(socket),
      expect: { uid },
      command,
      args,
      user: user ?? (group === undefined ? "root" : userInfo().username), // as sudo(8) does
      group,
      terminal: hasTerminal ? terminalSize() : undefined,
      variables: { ...process.env, ...size },
      stdin,
      stdout: (bytes) => writeTo(stdout, bytes),
      stderr: (bytes) => writeTo(stderr, bytes),
      started: (controls) => control(controls, hasTerminal),
    });
    if (code !== null) return code;
    return 128 + (constants.signals[signal as NodeJS.Signals] ?? 127);
  } finally {
    if (hasTerminal) stdin.setRawMode(false);
    stdin.destroy(); // the command may have ended before stdin
  }
}

function control(controls: CommandControls, hasTerminal: boolean): void {
  for (const name of FORWARDED_SIGNALS) process.on(name, () => controls.signal(name));
  if (!hasTerminal) return;
  process.stdin.setRawMode(true); // Ctrl-C is a byte for the terminal of the command
  controls.resize(terminalSize()); // the size may have changed
  process.on("SIGWINCH", () => controls.resize(terminalSize()));
  process.stdin.once("end", () => controls.disconnect()); // the terminal is closed
}

/** The size of our terminal. */
function terminalSize(): TerminalSize {
  const [columns, rows] = process.stdout.getWindowSize();
  return { columns, rows };
}

function writeTo(stream: NodeJS.WriteStream, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(bytes, (error) => error ? reject(error) : resolve());
  });
}
