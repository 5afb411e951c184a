/** Authentication on both sides of the guard, by the mechanism EXTERNAL. */

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { SaslServer } from "../../interop/dbus/sasl.ts";
import type { ByteReader } from "../byte_streams.ts";

/** Maximum duration of a client's authentication, as in dbus-daemon. */
export const CLIENT_TIMEOUT_MS = 30_000;

/** Maximum duration of the authentication at the upstream. */
export const UPSTREAM_TIMEOUT_MS = 10_000;

/** Maximum length of a line of the upstream. */
const MAX_LINE_BYTES = 4096;

const MAX_PART_BYTES = 4096;

/** An authentication failed. The message states the reason. */
export class NotAuthenticated extends Error {}

/**
 * Authenticates a client. File descriptors are refused, because the runtimes do not receive them.
 *
 * @param uid The effective uid of the client; `undefined` rejects every claim.
 * @throws {NotAuthenticated} If the client does not authenticate.
 */
export async function authenticateClient(
  socket: Socket,
  reader: ByteReader,
  { uid, guid }: { readonly uid: number | undefined; readonly guid: string },
): Promise<void> {
  const server = new SaslServer({ uid, guid, unixFd: false });
  while (true) {
    const bytes = await reader.some(MAX_PART_BYTES);
    if (bytes === undefined) throw new NotAuthenticated("it has hung up");
    const step = server.receive(bytes);
    if (step.reply !== "") socket.write(step.reply);
    if (step.state === "failed") throw new NotAuthenticated(step.reason);
    if (step.state === "authenticated") return reader.unread(step.rest);
  }
}

/**
 * Authenticates at the upstream.
 *
 * @param uid The claimed uid. The upstream compares it with the uid from the kernel.
 * @throws {NotAuthenticated} If the upstream does not accept it.
 */
export async function authenticateAt(
  socket: Socket,
  reader: ByteReader,
  uid: number,
): Promise<void> {
  socket.write(`\0AUTH EXTERNAL ${Buffer.from(String(uid)).toString("hex")}\r\n`);
  let line = "";
  while (!line.endsWith("\r\n")) {
    const bytes = await reader.some(MAX_LINE_BYTES);
    if (bytes === undefined) throw new NotAuthenticated("it hung up during the authentication");
    line += bytes.toString("latin1");
    if (line.length > MAX_LINE_BYTES) throw new NotAuthenticated("it sent a line that is too long");
  }
  if (!/^OK [0-9a-fA-F]{32}\r\n$/.test(line)) {
    throw new NotAuthenticated(`it does not accept the uid ${uid}: ${line.trimEnd()}`);
  }
  socket.write("BEGIN\r\n");
}

/** Runs a conversation, and destroys the socket if it takes too long. */
export async function withTimeout<T>(
  socket: Socket,
  timeoutMs: number,
  conversation: Promise<T>,
): Promise<T> {
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    socket.destroy();
  }, timeoutMs);
  try {
    return await conversation;
  } catch (error) {
    if (isLate) throw new NotAuthenticated("it took too long");
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
