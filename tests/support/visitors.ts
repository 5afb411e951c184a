/** Clients of several users that connect before the server accepts one of them. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { existsSync, rmSync } from "node:fs";
import { compileProgram } from "./compile.ts";
import { Child } from "./peers.ts";

/** A client, and whether the policy of a test allows it. */
export interface Client {
  readonly uid: number;
  readonly gid: number;
  /** A supplementary group. */
  readonly group?: number;
  readonly isAllowed: boolean;
}

/** The maximum time until all clients are connected, in pauses of at least a millisecond. */
const MAX_PAUSES = 3_000;

let program: string | undefined;

/**
 * Lets all clients connect before this thread can accept the first one. Returns what each has received.
 *
 * @param request The bytes that each client sends, in Latin-1.
 * @param end A text at which a client stops reading. Otherwise it reads until the server closes the connection.
 */
export async function visitAll(
  path: string,
  request: string,
  clients: readonly Client[],
  end = "",
): Promise<readonly string[]> {
  program ??= compileProgram(new URL("visitors.c", import.meta.url));
  const ids = clients.map(({ uid, gid, group }) => [uid, gid, ...(group ? [group] : [])].join(":"));
  const mark = `${path}.all`;
  const child = new Child(program, [
    path,
    Buffer.from(request, "latin1").toString("hex"),
    end,
    ...ids,
  ]);
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let waited = 0; !existsSync(mark); waited++) {
    assert.ok(waited < MAX_PAUSES, "the clients have not connected");
    Atomics.wait(pause, 0, 0, 1);
  }
  rmSync(mark);
  const received = await child.json<readonly string[]>();
  await child.end();
  return received;
}
