/** Decides each method call that a service receives on a bus. */

import { UcredError } from "../../core/errors.ts";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import type { Decision } from "../../core/policy/decide/decision.ts";
import type { Policy } from "../../core/policy/policy.ts";
import { closeDescriptors } from "../../identity/peer_of_bus.ts";
import {
  type Bus,
  BUS_NAME,
  type BusMessage,
  isUniqueName,
  MESSAGE_TYPE,
  NO_REPLY_EXPECTED,
  requireBus,
} from "./bus.ts";
import { type Callers, callersOf } from "./caller.ts";

/** The caller of a method, and the decision about the call. */
export interface Caller {
  /** The client of the bus that sent the call. */
  readonly peer: Peer;
  /** The decision that allowed the call. */
  readonly decision: Decision;
}

/** A call that was denied. */
export interface DeniedCall {
  /** The call, as the client sent it. Its file descriptors are closed. */
  readonly message: BusMessage;
  /** The caller; `undefined` if it could not be identified. */
  readonly peer: Peer | undefined;
  /** The policy's decision; `undefined` if the policy was not queried, or failed. */
  readonly decision: Decision | undefined;
  /** Why the call could not be decided. */
  readonly error: unknown;
}

/** Options of {@link requireCaller}. */
export interface RequireCallerOptions {
  /** Runs for each denied call, for logs. */
  readonly onDenied?: ((denied: DeniedCall) => void) | undefined;
}

const OPTIONS: OptionNames<RequireCallerOptions> = { onDenied: true };

/**
 * Makes a policy decide every method call that arrives on a bus, before any handler of `dbus-native` runs:
 * calls of exported interfaces, of `setMethodCallHandler()`, and of the standard interfaces
 * `org.freedesktop.DBus.Properties`, `Introspectable`, `ObjectManager` and `Peer`.
 *
 * The action is `call INTERFACE.METHOD`; the attributes are `destination`, `path`, `interface`, `member`,
 * `signature` and `descriptors`. A denied call gets `org.freedesktop.DBus.Error.AccessDenied` with the
 * rule's `deny` text, and reaches no handler. A call is denied, too, if its caller cannot be identified, if
 * the policy fails, and if it names no interface: services choose the method of such a call differently.
 *
 * Calls of one caller keep their order. Signals and replies are not affected, and may overtake a call whose
 * caller is still being identified.
 *
 * @param bus A bus of `dbus-native`. Call this function before you request a name.
 * @param policy Usually one with `about: dbus`. Its rules by process facts need `ProcessFD`: see
 * {@link peerOfSender}.
 * @throws {TypeError} If `policy` is not a policy, or an option is unknown.
 *
 * @example Root may set the clock, everybody may read it
 * ```ts
 * import type { MessageBus } from "dbus-native";
 * import { definePolicy } from "ucred";
 * import { dbusVocabulary, requireCaller } from "ucred/dbus";
 *
 * const policy = definePolicy({
 *   version: 1,
 *   about: "dbus",
 *   rules: [
 *     { name: "root", when: { uid: 0 }, allow: true },
 *     { name: "readers", actions: "call org.example.Clock.Now", allow: true },
 *   ],
 * }, { vocabularies: [dbusVocabulary] });
 * const action = "call org.example.Clock.Set";
 * console.log(policy.decide({ uid: 1000 }, { action }).reason); // No rule matches
 * export const protect = (bus: MessageBus) => requireCaller(bus, policy);
 * ```
 */
export function requireCaller(
  bus: Bus,
  policy: Policy,
  options: RequireCallerOptions = {},
): void {
  if (typeof policy?.decide !== "function") {
    throw new TypeError('requireCaller() requires a Policy from definePolicy() or "ucred/policy"');
  }
  requireOptions("requireCaller()", options, OPTIONS);
  const { connection } = bus;
  const gate = new Gate(bus, policy, options, connection.emit.bind(connection));
  // The library and the application add their listeners at any time. None may receive a call undecided.
  connection.emit = (event, ...values) => gate.emit(event, values);
}

/** The library treats every message as a call unless its type is return, error or signal. */
const isCall = ({ type }: BusMessage) => type !== 2 && type !== 3 && type !== MESSAGE_TYPE.signal;

const decided = new WeakMap<object, Caller>();

/**
 * Returns the caller of a method, and the decision that allowed the call.
 *
 * @param message The message: the last argument of a classic handler, `context.message` in
 * `defineInterface()`.
 * @throws {UcredError} `ERR_UCRED_NO_PEER` if {@link requireCaller} has not allowed this message.
 */
export function callerOf(message: object): Caller {
  const found = decided.get(message);
  if (found !== undefined) return found;
  const text = "Cannot return the caller: requireCaller() has not allowed this message";
  const hint =
    "Call requireCaller() before the bus delivers messages, and pass the original message";
  throw new UcredError("ERR_UCRED_NO_PEER", text, { hint });
}

const INTERFACE = /^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$/;
const MEMBER = /^[A-Za-z_]\w*$/;
const PATH = /^\/(?:\w+(?:\/\w+)*)?$/;

class Gate {
  readonly #bus: Bus;
  readonly #policy: Policy;
  readonly #options: RequireCallerOptions;
  readonly #emit: (event: string, ...values: unknown[]) => boolean;
  readonly #callers: Callers;

  constructor(
    bus: Bus,
    policy: Policy,
    options: RequireCallerOptions,
    emit: (event: string, ...values: unknown[]) => boolean,
  ) {
    this.#bus = bus;
    this.#policy = policy;
    this.#options = options;
    this.#emit = emit;
    this.#callers = callersOf(bus);
  }

  emit(event: string, values: unknown[]): boolean {
    const message = values[0] as BusMessage | undefined;
    if (event !== "message" || message === undefined || !isCall(message)) {
      return this.#emit(event, ...values);
    }
    void this.#decide(message);
    return true;
  }

  async #decide(message: BusMessage): Promise<void> {
    const { epoch } = this.#callers;
    let peer: Peer | undefined;
    let decision: Decision | undefined;
    let error: unknown;
    try {
      const request = requestIn(message);
      requireBus(this.#bus, "identify the caller");
      peer = await this.#callers.peer(request.sender);
      decision = this.#policy.decide(peer, request);
    } catch (thrown) {
      error = thrown;
    }
    // After a reconnect the caller's name may belong to another client, which must not receive a reply.
    if (epoch !== this.#callers.epoch) return closeDescriptors(message.fds ?? []);
    if (peer === undefined || decision?.allowed !== true) {
      return this.#deny({ message, peer, decision, error });
    }
    decided.set(message, Object.freeze({ peer, decision }));
    this.#run(() => this.#emit("message", message));
  }

  #deny(denied: DeniedCall): void {
    const { message, decision } = denied;
    closeDescriptors(message.fds ?? []); // no handler receives them
    const text = decision?.message ??
      (decision === undefined ? "The caller could not be checked" : "The policy does not allow it");
    this.#run(() => {
      if (((message.flags ?? 0) & NO_REPLY_EXPECTED) === 0 && this.#isOurs(message)) {
        this.#bus.sendError(message, `${BUS_NAME}.Error.AccessDenied`, text);
      }
      this.#options.onDenied?.(denied);
    });
  }

  /** An eavesdropper also receives calls of other services, and must not reply to them. */
  #isOurs({ destination }: BusMessage): boolean {
    const { name, names } = this.#bus as { readonly name?: unknown; readonly names?: unknown };
    return destination === undefined || destination === name ||
      !(names instanceof Set) || names.has(destination);
  }

  /** Reports an exception of a listener as the library does: to "handlerError", or as uncaught. */
  #run(run: () => void): void {
    try {
      run();
    } catch (error) {
      if (this.#emit("handlerError", error)) return;
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

/** Returns the action and the attributes of a call. */
function requestIn(
  { sender, destination, path, interface: name, member, signature, fds }: BusMessage,
) {
  const isComplete = isUniqueName(sender) && name !== undefined && INTERFACE.test(name) &&
    member !== undefined && MEMBER.test(member) && path !== undefined && PATH.test(path);
  if (!isComplete) {
    const text =
      "Cannot decide a call: it lacks a sender, path, interface or member, or one is malformed";
    const hint = "Reject the call";
    throw new UcredError("ERR_UCRED_BUS", text, { hint });
  }
  const attributes = {
    destination: destination ?? null,
    path,
    interface: name,
    member,
    signature: signature ?? "",
    descriptors: fds?.length ?? 0,
  };
  return { sender, action: `call ${name}.${member}`, attributes };
}
