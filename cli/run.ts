/** `ucred run`: runs a command through a privileged helper. */

import { constants } from "node:os";
import process from "node:process";
import { addressOf } from "../core/socket_name.ts";
import { FORWARDED_SIGNALS } from "../interop/sudoers/helper/request.ts";
import { runCommand } from "../interop/sudoers/helper/client.ts";
import { accountId } from "../system/accounts.ts";
import { UsageError } from "./output.ts";

/** The command's options, parsed. */
export interface RunCommandOptions {
  readonly socket: string;
  readonly user: string;
  readonly helperUser: string;
}

/** Runs the command. Returns its exit status, or 128 and the number of the signal that killed it. */
export async function runAs(
  command: string,
  args: readonly string[],
  { socket, user, helperUser }: RunCommandOptions,
): Promise<number> {
  const uid = accountId("user", helperUser);
  if (uid === undefined) throw new UsageError(`There is no user ${JSON.stringify(helperUser)}`);
  const { columns, rows } = process.stdout;
  const size = columns === undefined ? {} : { COLUMNS: String(columns), LINES: String(rows) };
  const { code, signal } = await runCommand({
    path: addressOf(socket),
    expect: { uid },
    command,
    args,
    user,
    variables: { ...process.env, ...size },
    stdin: process.stdin,
    stdout: (bytes) => writeTo(process.stdout, bytes),
    stderr: (bytes) => writeTo(process.stderr, bytes),
    started: (send) => {
      for (const name of FORWARDED_SIGNALS) process.on(name, () => send(name));
    },
  });
  process.stdin.destroy(); // the command may have ended before stdin
  if (code !== null) return code;
  return 128 + (constants.signals[signal as NodeJS.Signals] ?? 127);
}

function writeTo(stream: NodeJS.WriteStream, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(bytes, (error) => error ? reject(error) : resolve());
  });
}
