/** `ucred mcp-bridge`: connects an MCP client that starts processes to a server at a Unix socket. */

import process from "node:process";
import { createClient } from "../client/mod.ts";
import { connectVerified } from "../client/connect.ts";
import { addressOf } from "../core/socket_name.ts";
import type { ServerExpectation } from "../identity/verify_server.ts";
import { bridgeHttp, bridgeLines, SessionLost } from "../interop/mcp/bridge.ts";
import { accountId } from "../system/accounts.ts";
import { type ExitCode, log, printable, UsageError } from "./output.ts";
import { untilSignal } from "./signals.ts";

/** The command's options, parsed. */
export interface McpBridgeOptions {
  readonly socket: string;
  readonly http?: true | string;
  readonly serverUser?: string;
}

/** Runs the bridge until the input ends, the server hangs up, or a signal arrives. */
export async function bridge({ socket, http, serverUser }: McpBridgeOptions): Promise<ExitCode> {
  const expect = expectationOf(serverUser);
  if (typeof http === "string" && !/^\/[!-~]*$/.test(http)) {
    throw new UsageError("--http: the path of a URL begins with / and has no spaces");
  }
  const path = addressOf(socket);
  const { stdin: input, stdout: output } = process;
  const ending = new AbortController();
  void untilSignal(() => {}).then(() => ending.abort());
  try {
    if (http === undefined) {
      const connection = await connectVerified({ path, expect, allowHalfOpen: true });
      ending.signal.addEventListener("abort", () => connection.destroy());
      if (ending.signal.aborted) connection.destroy(); // a signal has arrived while it connected
      const hasEnded = await bridgeLines(connection, { input, output });
      if (hasEnded || ending.signal.aborted) return 0;
      log(`the server at ${printable(socket)} has closed the connection`);
      return 1;
    }
    const client = createClient({ path, expect });
    const target = http === true ? "/mcp" : http;
    await bridgeHttp({ client, path: target, input, output, signal: ending.signal });
    return 0;
  } catch (error) {
    if (!(error instanceof SessionLost)) throw error;
    log(`${printable(socket)}: ${error.message}`);
    return 1;
  } finally {
    input.destroy(); // the server may have ended before the input
  }
}

/** @throws {UsageError} If there is no such user. */
function expectationOf(user: string | undefined): ServerExpectation {
  if (user === undefined) return { uid: [0, process.geteuid!()] };
  const uid = accountId("user", user) ?? (/^[0-9]+$/.test(user) ? Number(user) : undefined);
  if (uid === undefined) throw new UsageError(`There is no user ${JSON.stringify(user)}`);
  return { uid };
}
