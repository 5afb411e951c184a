/** The client of a privileged helper. */

import type { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { UcredError } from "../../../core/errors.ts";
import { type OptionNames, requireOptions } from "../../../core/options.ts";
import { connectVerified } from "../../../client/connect.ts";
import type { ServerExpectation } from "../../../identity/verify_server.ts";
import { allowedVariables } from "./environment.ts";
import { encodeFrame, FRAME, FrameDecoder, frameParts, MAX_FRAME_BYTES } from "./frames.ts";
import type { TerminalSize } from "../../../system/pseudo_terminal.ts";
import type { ForwardedSignal } from "./request.ts";

/** Options of {@link runCommand}. */
export interface RunOptions {
  /** The helper's socket: a path, or an abstract name that begins with "\0". */
  readonly path: string;
  /** Who the helper must be. Default: root. */
  readonly expect?: ServerExpectation | undefined;
  /** An absolute path. */
  readonly command: string;
  /** Its arguments, without the name. Default: none. */
  readonly args?: readonly string[] | undefined;
  /** The target user. Default: "root". */
  readonly user?: string | undefined;
  /** The group, as with `sudo -g`. Default: the groups of the target user. */
  readonly group?: string | undefined;
  /**
   * Runs the command on a new terminal of this size. All its output, also that of stderr, is then passed to `stdout`.
   * Default: the command runs with pipes.
   */
  readonly terminal?: TerminalSize | undefined;
  /** Variables for the command. Only those for terminal and language are sent. */
  readonly variables?: Readonly<Record<string, string | undefined>> | undefined;
  /** Bytes for stdin, or for the keyboard of the terminal. Default: none. */
  readonly stdin?: AsyncIterable<Uint8Array> | undefined;
  /** Receives stdout. The next bytes are read after its promise has resolved. */
  readonly stdout?: ((bytes: Uint8Array) => void | Promise<void>) | undefined;
  /** Receives stderr, in the same way. */
  readonly stderr?: ((bytes: Uint8Array) => void | Promise<void>) | undefined;
  /** Called when the command runs. */
  readonly started?: ((controls: CommandControls) => void) | undefined;
}

/** The controls of a running command. */
export interface CommandControls {
  /** Sends a signal to its process group. */
  signal(name: ForwardedSignal): void;
  /** Changes the size of its terminal. */
  resize(size: TerminalSize): void;
  /** Ends the connection, and with it the command. */
  disconnect(): void;
}

/** How a command ended: `code`, or `signal` if a signal killed it. */
export interface CommandExit {
  /** The exit code; `null` if a signal ended the command. */
  readonly code: number | null;
  /** The signal that ended the command. */
  readonly signal: string | null;
}

const OPTIONS: OptionNames<RunOptions> = {
  path: true,
  expect: true,
  command: true,
  args: true,
  user: true,
  group: true,
  terminal: true,
  variables: true,
  stdin: true,
  stdout: true,
  stderr: true,
  started: true,
};

/**
 * Runs a command through a privileged helper.
 *
 * @throws {UcredError} `ERR_UCRED_REFUSED` if the helper refuses the command, is not the expected server, or
 * disconnects before the command has ended.
 * @throws {Error} As `net.connect()` reports, if the connection fails.
 */
export async function runCommand(options: RunOptions): Promise<CommandExit> {
  requireOptions("runCommand()", options, OPTIONS);
  const { path, expect = { uid: 0 }, command, args = [], user = "root", group, terminal } = options;
  const variables = allowedVariables(options.variables ?? {});
  const request = JSON.stringify({ command, args, user, group, terminal, variables });
  if (new TextEncoder().encode(request).length > MAX_FRAME_BYTES) {
    throw refused(`the request is larger than ${MAX_FRAME_BYTES} bytes`);
  }
  const socket = await connectVerified({ path, expect, allowHalfOpen: false });
  socket.on("error", () => {}); // the iteration below reports it
  let accepted = () => {};
  const gone = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  const sendStdin = async () => {
    for await (const bytes of options.stdin ?? []) {
      for (const part of frameParts(bytes)) {
        if (socket.destroyed) return;
        const isAccepted = new Promise<void>((resolve) => accepted = resolve);
        socket.write(encodeFrame(FRAME.stdin, part));
        await Promise.race([isAccepted, gone]);
      }
    }
    if (socket.writable) socket.write(encodeFrame(FRAME.stdinEnd));
  };
  const decoder = new FrameDecoder();
  let sending: Promise<void> | undefined;
  let failure: { readonly error: unknown } | undefined;
  const fail = (error: unknown) => {
    failure ??= { error };
    socket.destroy();
  };
  try {
    socket.write(encodeFrame(FRAME.request, request));
    for await (const chunk of chunksOf(socket)) {
      for (const { type, content } of decoder.decode(chunk)) {
        if (type === FRAME.stdout) await options.stdout?.(content);
        else if (type === FRAME.stderr) await options.stderr?.(content);
        else if (type === FRAME.accepted) accepted();
        else if (type === FRAME.refused) throw refused(content.toString());
        else if (type === FRAME.started && sending === undefined) {
          const send = (frame: number, content: string) => {
            if (socket.writable) socket.write(encodeFrame(frame, content));
          };
          options.started?.({
            signal: (name) => send(FRAME.signal, name),
            resize: (size) => send(FRAME.resize, JSON.stringify(size)),
            disconnect: () => fail(refused("the client disconnected")),
          });
          sending = sendStdin();
          sending.catch(fail);
        } else if (type === FRAME.exit) return exitOf(content.toString());
        else throw refused("the helper sent an unexpected frame");
      }
      if (failure !== undefined) break;
    }
    throw failure === undefined
      ? refused("the helper disconnected before the command ended")
      : failure.error;
  } finally {
    socket.destroy();
  }
}

/** The chunks that a socket receives. An error ends them, too: the command then has no exit status. */
async function* chunksOf(socket: Socket): AsyncGenerator<Buffer> {
  try {
    yield* socket as AsyncIterable<Buffer>;
  } catch (error) {
    if (!socket.destroyed) throw error;
  }
}

function exitOf(json: string): CommandExit {
  const { code, signal } = JSON.parse(json);
  // Callers compare the status with 0: an exit that cannot be read must not look like a success.
  if (Number.isInteger(code) && signal === null) return { code, signal };
  if (code === null && typeof signal === "string") return { code, signal };
  throw refused("the helper sent no exit status");
}

function refused(why: string): UcredError {
  return new UcredError("ERR_UCRED_REFUSED", `Cannot run the command: ${why}`, {
    hint: "Ask the administrator of the helper which commands its policy allows",
  });
}
