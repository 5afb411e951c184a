/** Calls on a message bus, through the client library of the application. */

import { UcredError } from "../../core/errors.ts";
import { show } from "../../core/policy/document/shape.ts";

/** The name of the message bus itself. It is the sender of the bus's own replies and signals. */
export const BUS_NAME = "org.freedesktop.DBus";

/** The object path of the message bus. */
const BUS_PATH = "/org/freedesktop/DBus";

/** The types of messages that this library sends or recognises. */
export const MESSAGE_TYPE = { methodCall: 1, signal: 4 } as const;

/** The flag of a method call whose caller expects no reply, not even an error. */
export const NO_REPLY_EXPECTED = 1;

/** A message, with its header fields, as `dbus-native` represents it. */
export interface BusMessage {
  /** 1: method call, 2: method return, 3: error, 4: signal. */
  readonly type?: number | undefined;
  /** Flags of the header. */
  readonly flags?: number | undefined;
  /** Serial number, unsigned 32-bit, not 0. */
  readonly serial?: number | undefined;
  /** Object path. */
  readonly path?: string | undefined;
  /** Interface. Optional in method calls. */
  readonly interface?: string | undefined;
  /** Method or signal. */
  readonly member?: string | undefined;
  /** The name to which the message was sent. */
  readonly destination?: string | undefined;
  /** Unique name of the sender. A bus sets it, whatever the sender wrote. */
  readonly sender?: string | undefined;
  /** Signature of the body; missing if the body is empty. */
  readonly signature?: string | undefined;
  /** The values of the body. */
  readonly body?: readonly unknown[] | undefined;
  /** File descriptors, if the transport of the library can receive them. */
  readonly fds?: readonly number[] | undefined;
}

/** The connection of a {@link Bus}. */
export interface BusConnection {
  /** `"disconnected"` after the transport has closed, and until it is connected again. */
  readonly state?: string | undefined;
  /** Emits an event, such as `"message"` with each message that arrives. */
  emit(event: string, ...values: unknown[]): boolean;
  /** Adds a listener: `"message"`, `"close"`, `"reconnect"`. */
  on(event: string, listener: (...values: unknown[]) => void): unknown;
}

/**
 * A connection to a message bus: what `systemBus()`, `sessionBus()` and `createClient()` of `dbus-native`
 * 0.16 and later return.
 */
export interface Bus {
  /** The transport. */
  readonly connection: BusConnection;
  /** Our unique name; missing before the bus has answered Hello, `null` on a connection without a bus. */
  readonly name?: string | null | undefined;
  /** Sends a method call. */
  invoke(
    message: object,
    options: { readonly timeout?: number; readonly signal?: AbortSignal },
    callback: (error: Error | null, ...values: unknown[]) => void,
  ): void;
  /** Sends an error as the reply to a call. */
  sendError(message: object, name: string, text: string): void;
}

/** A method call. Without `destination`, `path` and `interface` it is one of the bus itself. */
export interface BusCall {
  /** A unique or well-known name. */
  readonly destination?: string;
  /** Object path. */
  readonly path?: string;
  /** Interface. */
  readonly interface?: string;
  /** Method. */
  readonly member: string;
  /** Signature of `body`, such as `"sa{sv}"`. */
  readonly signature?: string;
  /** Arguments, in the shapes that the library writes. */
  readonly body?: readonly unknown[];
  /** Flags of the header, such as 4: the callee may ask the user for authorization. */
  readonly flags?: number;
}

/** Options of {@link callBus}. */
export interface BusCallOptions {
  /** How long to wait for the reply. Default: 25 s, as libdbus. */
  readonly timeoutMs?: number | undefined;
  /** Cancels the call. The callee may run it all the same. */
  readonly signal?: AbortSignal | undefined;
}

/** The default time limit of libdbus, GDBus and sd-bus. */
const CALL_TIMEOUT_MS = 25_000;

/** What `dbus-native` binds to `this` in the callback of a reply. */
interface ReplyContext {
  readonly message?: BusMessage;
}

/** What `dbus-native` passes as the error of a call. */
interface ReplyError {
  /** "org.freedesktop.DBus.Error.NameHasNoOwner"; also set for a timeout and a lost connection. */
  readonly dbusName?: unknown;
  /** The error reply; `undefined` if there was none. */
  readonly reply?: BusMessage;
}

/**
 * Calls a method and returns the reply.
 *
 * The reply must have the called name as its sender, if that is a unique name or the bus itself:
 * `dbus-native` accepts a reply of any sender, and a bus can be configured to deliver replies that were not
 * requested. Call other services by their unique name, from {@link ownerOf}.
 *
 * @throws {UcredError} `ERR_UCRED_BUS` for an error reply, a timeout, a lost connection, and a reply of
 * another sender. {@link busErrorName} returns the name of the D-Bus error.
 */
export function callBus(
  bus: Bus,
  call: BusCall,
  { timeoutMs = CALL_TIMEOUT_MS, signal }: BusCallOptions = {},
): Promise<BusMessage> {
  const { destination = BUS_NAME, path = BUS_PATH, interface: name = BUS_NAME, ...rest } = call;
  const what = `call ${name}.${call.member} of ${destination}`;
  const message = {
    type: MESSAGE_TYPE.methodCall,
    destination,
    path,
    interface: name,
    ...rest,
    ...(rest.body && { body: [...rest.body] }),
  };
  return new Promise((resolve, reject) => {
    // Until it is connected again, dbus-native queues calls, and sends them before Hello.
    if (bus.connection.state === "disconnected") return reject(disconnected(what));
    bus.invoke(
      message,
      { timeout: timeoutMs, ...(signal && { signal }) },
      function (this: ReplyContext | undefined, error: Error | null): void {
        const { reply = this?.message } = (error ?? {}) as ReplyError;
        const isStrict = destination === BUS_NAME || destination.startsWith(":");
        if (reply !== undefined && isStrict && reply.sender !== destination) {
          return reject(busError(what, `the reply has the sender ${show(reply.sender)}`, error));
        }
        if (error !== null) return reject(busError(what, error.message, error));
        if (reply === undefined) return reject(busError(what, "the library hides the reply", null));
        resolve(reply);
      },
    );
  });
}

/** Returns the name of the D-Bus error behind an error of {@link callBus}. */
export function busErrorName(error: unknown): string | undefined {
  const { cause } = (error ?? {}) as { readonly cause?: ReplyError | null };
  const name = cause?.dbusName;
  return typeof name === "string" ? name : undefined;
}

/**
 * Returns the unique name of the connection that owns a name.
 *
 * @throws {UcredError} `ERR_UCRED_PEER_GONE` if no connection owns it; as {@link callBus}.
 */
export async function ownerOf(
  bus: Bus,
  name: string,
  options: BusCallOptions = {},
): Promise<string> {
  const call = { member: "GetNameOwner", signature: "s", body: [name] };
  let owner: unknown;
  try {
    owner = (await callBus(bus, call, options)).body?.[0];
  } catch (error) {
    throw orGone(error, name);
  }
  if (typeof owner === "string" && (isUniqueName(owner) || owner === BUS_NAME)) return owner;
  throw busError(`look up the owner of ${name}`, `the bus returned ${show(owner)}`, null);
}

/** Replaces the bus's error for a name without an owner. */
export function orGone(error: unknown, name: string): unknown {
  if (busErrorName(error) !== `${BUS_NAME}.Error.NameHasNoOwner`) return error;
  const message = `Cannot identify ${show(name)}: no connection of the bus has this name`;
  const hint = "Reject the message: its sender has left the bus";
  return new UcredError("ERR_UCRED_PEER_GONE", message, { hint, cause: error });
}

/** The maximum length of a bus name, in bytes. */
const MAX_NAME_BYTES = 255;

/** Returns whether a text is a unique name, which a bus assigns and never reuses: ":1.42". */
export function isUniqueName(name: unknown): name is string {
  return typeof name === "string" && name.length <= MAX_NAME_BYTES &&
    /^:[\w-]+(?:\.[\w-]+)+$/.test(name);
}

/** Returns whether a text is a well-known name: "org.example.Service". */
export function isWellKnownName(name: unknown): name is string {
  return typeof name === "string" && name.length <= MAX_NAME_BYTES &&
    /^[A-Za-z_-][\w-]*(?:\.[A-Za-z_-][\w-]*)+$/.test(name);
}

/**
 * Checks that a connection belongs to a bus, which sets the sender of each message. On a direct connection
 * the other side writes any sender that it likes.
 *
 * @param what Completes "Cannot …".
 */
export function requireBus(bus: Bus, what: string): void {
  if (isUniqueName(bus.name)) return;
  const isDirect = bus.name === null;
  const message = isDirect
    ? `Cannot ${what}: the connection is direct, and has no bus that sets the sender`
    : `Cannot ${what}: the bus has not answered Hello`;
  const hint = isDirect
    ? "Identify the peer of the connection's socket, with authenticate() or identify()"
    : "Wait for the first message of the bus";
  throw new UcredError("ERR_UCRED_NO_PEER", message, { hint });
}

function disconnected(what: string): UcredError {
  const cause = Object.assign(new Error("Disconnected"), {
    dbusName: `${BUS_NAME}.Error.Disconnected`,
  });
  return busError(what, "the connection to the bus is closed", cause);
}

/** Builds the error for a call that failed. */
export function busError(what: string, why: string, cause: unknown): UcredError {
  const hint = "Check the connection to the bus, and the policy of the bus";
  return new UcredError("ERR_UCRED_BUS", `Cannot ${what}: ${why}`, { hint, cause });
}
