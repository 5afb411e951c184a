/** The server side of D-Bus authentication, as a state machine without input and output. */

/** Parameters of {@link SaslServer}. */
export interface SaslParameters {
  /** The effective uid of the client, from the kernel; `undefined` if it is not known for certain. */
  readonly uid: number | undefined;
  /** The server's GUID: 32 hexadecimal digits. */
  readonly guid: string;
  /** Whether the client may send file descriptors. */
  readonly unixFd: boolean;
}

/** The answer of a {@link SaslServer} to some bytes of the client. */
export type SaslStep =
  | { readonly state: "waiting"; readonly reply: string }
  | {
    readonly state: "authenticated";
    readonly reply: string;
    /** Whether the client has negotiated file descriptors. */
    readonly unixFd: boolean;
    /** The bytes after BEGIN. */
    readonly rest: Uint8Array;
  }
  | { readonly state: "failed"; readonly reply: string; readonly reason: string };

/** Maximum length of one command, with its line end. The longest useful one has 36 bytes. */
const MAX_LINE_BYTES = 4096;

/** Maximum number of bytes before the end of BEGIN, as in libdbus. */
const MAX_TOTAL_BYTES = 16_384;

/** Maximum number of replies REJECTED and ERROR, as in libdbus. */
const MAX_FAILURES = 6;

const NUL = 0;
const CR = 13;
const LF = 10;

/**
 * Authenticates one client by the mechanism EXTERNAL, the only one that it offers. The client may claim a
 * uid, which must be the one from the kernel.
 *
 * @see {@link https://dbus.freedesktop.org/doc/dbus-specification.html#auth-protocol D-Bus specification}
 */
export class SaslServer {
  readonly #parameters: SaslParameters;
  #state: "auth" | "data" | "begin" | "ended" = "auth";
  /** Whether the NUL byte has arrived, with which each connection starts. */
  #hasStarted = false;
  #line: number[] = [];
  #total = 0;
  #failures = 0;
  #unixFd = false;

  constructor(parameters: SaslParameters) {
    this.#parameters = parameters;
  }

  /**
   * Handles bytes of the client. Send `reply`, which may be empty, whatever the state is. After the states
   * "authenticated" and "failed" the machine takes no further bytes.
   */
  receive(bytes: Uint8Array): SaslStep {
    if (this.#state === "ended") throw new TypeError("The authentication has ended");
    let reply = "";
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]!;
      if (++this.#total > MAX_TOTAL_BYTES) return this.#fail(reply, "too many bytes before BEGIN");
      if (!this.#hasStarted) {
        if (byte !== NUL) return this.#fail(reply, "the first byte is not NUL");
        this.#hasStarted = true;
        continue;
      }
      this.#line.push(byte);
      if (byte !== LF || this.#line.at(-2) !== CR) {
        if (this.#line.length < MAX_LINE_BYTES) continue;
        return this.#fail(reply, "a line is too long");
      }
      const line = String.fromCharCode(...this.#line.splice(0).slice(0, -2));
      const [command, argument] = parse(line);
      if (command === "BEGIN") {
        if (this.#state !== "begin") return this.#fail(reply, "BEGIN before authentication");
        this.#state = "ended";
        const rest = bytes.subarray(at + 1);
        return { state: "authenticated", reply, unixFd: this.#unixFd, rest };
      }
      reply += `${this.#answer(command, argument)}\r\n`;
      if (this.#failures >= MAX_FAILURES) return this.#fail(reply, "too many failed commands");
    }
    return { state: "waiting", reply };
  }

  #fail(reply: string, reason: string): SaslStep {
    this.#state = "ended";
    return { state: "failed", reply, reason };
  }

  #answer(command: string | undefined, argument: string): string {
    switch (this.#state) {
      case "auth": {
        if (command === "ERROR") return this.#reject();
        if (command !== "AUTH") break;
        const [, mechanism, response = ""] = /^([^ ]*) *(.*)$/.exec(argument)!;
        return mechanism === "EXTERNAL" ? this.#external(response) : this.#reject();
      }
      case "data":
        if (command === "CANCEL" || command === "ERROR") return this.#reject();
        if (command === "DATA") return this.#external(argument);
        break;
      case "begin":
        if (command === "CANCEL" || command === "ERROR") return this.#reject();
        if (command !== "NEGOTIATE_UNIX_FD") break;
        if (!this.#parameters.unixFd) return this.#error("File descriptors are not supported");
        this.#unixFd = true;
        return "AGREE_UNIX_FD";
    }
    return this.#error("Unexpected command");
  }

  /** Checks the identity that the client claims, in hexadecimal. Without one it is that of the kernel. */
  #external(response: string): string {
    const { uid, guid } = this.#parameters;
    // An AUTH command has the same text with an empty and without an initial response. The server sends DATA.
    if (response === "" && this.#state === "auth") {
      this.#state = "data";
      return "DATA";
    }
    const claim = response === "" ? String(uid) : fromHex(response);
    if (claim === undefined) return this.#error("The response is not hexadecimal");
    // The text is compared: "00" and "0x0" are no uid.
    if (uid === undefined || claim !== String(uid)) return this.#reject();
    this.#state = "begin";
    return `OK ${guid}`;
  }

  #reject(): string {
    this.#failures++;
    this.#state = "auth";
    this.#unixFd = false;
    return "REJECTED EXTERNAL";
  }

  #error(text: string): string {
    this.#failures++;
    return `ERROR "${text}"`;
  }
}

/** Splits a line into its command and argument. A line with other characters than ASCII has no command. */
function parse(line: string): [command: string | undefined, argument: string] {
  const found = /^([A-Z_]+)(?: +([ -~]*))?$/.exec(line);
  const [, command, argument = ""] = found ?? [];
  const takesNone = command === "BEGIN" || command === "CANCEL" || command === "NEGOTIATE_UNIX_FD";
  return [takesNone && argument !== "" ? undefined : command, argument.trimEnd()];
}

function fromHex(text: string): string | undefined {
  if (!/^(?:[0-9a-fA-F]{2})+$/.test(text)) return undefined;
  return String.fromCharCode(...text.match(/../g)!.map((byte) => parseInt(byte, 16)));
}
