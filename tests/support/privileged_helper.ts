/** Starts a privileged helper in this process, and its clients. */

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { encodeFrame, FRAME, FrameDecoder } from "../../interop/sudoers/helper/frames.ts";
import {
  type CommandRecord,
  createHelper,
  type HelperOptions,
  runCommand,
  type RunOptions,
} from "../../interop/sudoers/helper/mod.ts";
import { sudoVocabulary } from "../../interop/sudoers/vocabulary.ts";
import { definePolicy } from "../../policy/define.ts";
import { createServer, type NetServer } from "../../servers/net.ts";
import { freshPath } from "./peers.ts";
import { endAfterEach, needs, STRANGER, succeeds } from "./suite.ts";

const programs = {
  name: "setpriv, prlimit (Debian: util-linux) and the user daemon",
  met: succeeds("/usr/bin/setpriv", "--version") && succeeds("/usr/bin/prlimit", "--version") &&
    succeeds("/usr/bin/id", "daemon"),
};
/** Needs of tests that run commands as other users. */
export const privileged = [needs.linux, needs.root, needs.native, programs];

/** Allows some commands to root and to a stranger. */
export const document = {
  version: 1 as const,
  about: "sudo",
  rules: [
    {
      name: "root runs listed commands",
      when: { uid: [0, STRANGER] },
      actions: "run",
      where: {
        command: [
          "/usr/bin/id",
          "/usr/bin/env",
          "/usr/bin/cat",
          "/usr/bin/sleep",
          "/usr/bin/sh",
          "/usr/bin/head",
          "/opt/ucred-*/*",
        ],
        runasUser: ["root", "daemon"],
      },
      allow: "NOPASSWD",
    },
  ],
};
export const policy = definePolicy(document, { vocabularies: [sudoVocabulary] });

const servers = new Set<NetServer>();
const folders = new Set<string>();
endAfterEach(async () => {
  for (const server of servers) await server.close({ timeout: 0 });
  servers.clear();
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  folders.clear();
});

/** Starts a helper. */
export async function startHelper(options: Partial<HelperOptions> = {}) {
  const path = freshPath();
  const records: CommandRecord[] = [];
  const handler = createHelper({ policy, report: (record) => records.push(record), ...options });
  const server = createServer(
    { policy: options.policy ?? policy, decideAt: "action", pin: true },
    handler,
  );
  servers.add(server);
  await new Promise<void>((resolve) => server.listen({ path, mode: 0o666 }, () => resolve()));
  const run = async (
    command: string,
    args: readonly string[] = [],
    more: Partial<RunOptions> = {},
  ) => {
    let [out, err] = ["", ""];
    const exit = await runCommand({
      path,
      command,
      args,
      stdout: (bytes) => void (out += new TextDecoder().decode(bytes)),
      stderr: (bytes) => void (err += new TextDecoder().decode(bytes)),
      ...more,
    });
    return { ...exit, out, err };
  };
  return { path, records, run };
}

/** Removes a folder after the test. */
export function removeAfterTest(folder: string): void {
  folders.add(folder);
}

/** The error of a client whose command is refused. */
export const refusedBy = (message: RegExp) => ({ code: "ERR_UCRED_REFUSED", message });

/** A folder of root in which a policy allows commands. */
export function commandFolder(): string {
  const folder = mkdtempSync("/opt/ucred-");
  chmodSync(folder, 0o755);
  folders.add(folder);
  return folder;
}

/** Writes a script. Returns its path. */
export function script(path: string, text: string, mode = 0o755): string {
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

/** A frame with a request. */
export function request(
  fields: { command: string; args?: string[]; user?: string; variables?: object },
) {
  return encodeFrame(
    FRAME.request,
    JSON.stringify({ args: [], user: "root", variables: {}, ...fields }),
  );
}

/** Sends bytes, and reads all frames. */
export async function raw(path: string, chunks: readonly Uint8Array[]) {
  const socket: Socket = connect(path);
  socket.on("error", () => {});
  for (const chunk of chunks) socket.write(chunk);
  const decoder = new FrameDecoder();
  let [out, refusal, started] = ["", "", false];
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    for (const { type, content } of decoder.decode(chunk)) {
      if (type === FRAME.stdout) out += content;
      if (type === FRAME.started) started = true;
      if (type === FRAME.refused) refusal += content;
    }
  }
  return { out, refusal, started };
}

/** Bytes in one part. */
export async function* bytesOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes);
}

/** Whether a process runs: a zombie does not. */
export function isRunning(pid: string): boolean {
  return succeeds("sh", "-c", `test -e /proc/${pid} && ! grep -q '^State:.Z' /proc/${pid}/status`);
}
