/** Asks polkitd whether a peer is authorized for an action. */

import { UcredError } from "../../core/errors.ts";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import type { Peer } from "../../core/peer.ts";
import { show } from "../../core/policy/document/shape.ts";
import { MAX_TIMER_MS } from "../../core/timers.ts";
import { keepsEveryUid } from "../../system/overflow_ids.ts";
import {
  type Bus,
  type BusCall,
  busError,
  busErrorName,
  type BusMessage,
  callBus,
  isUniqueName,
  ownerOf,
  requireBus,
} from "../dbus/bus.ts";
import { isActionId } from "./action_id.ts";

/** The sender of a message on the bus: polkitd requests its credentials from the bus. */
export interface BusSender {
  /** A unique name: the message's `sender` field, ":1.42". */
  readonly sender: string;
}

/** Options of {@link checkAuthorization}. */
export interface CheckAuthorizationOptions {
  /** The system bus, from `systemBus()` of `dbus-native`. */
  readonly bus: Bus;
  /**
   * Variables of the action, for polkit's rules and for the message of the password dialog. polkitd accepts
   * them from root and from the owner of the action (`org.freedesktop.policykit.owner`).
   */
  readonly details?: { readonly [name: string]: string } | undefined;
  /** Whether an authentication agent may ask the user for a password. Default: `false`. */
  readonly interactive?: boolean | undefined;
  /** Cancels the check, and closes the dialog. The promise rejects with the reason of the signal. */
  readonly signal?: AbortSignal | undefined;
  /** The maximum duration in milliseconds. Default: 25 s, and 10 minutes if `interactive`. */
  readonly timeoutMs?: number | undefined;
}

export const OPTIONS: OptionNames<CheckAuthorizationOptions> = {
  bus: true,
  details: true,
  interactive: true,
  signal: true,
  timeoutMs: true,
};

/** The answer of polkitd. */
export interface Authorization {
  /** Whether the peer may do it now. */
  readonly authorized: boolean;
  /**
   * - `authorized`: the peer is authorized.
   * - `challenge`: the user has to authenticate first; `interactive` was not set, or there is no agent.
   * - `dismissed`: the user closed the dialog.
   * - `denied`: neither the actions nor the rules allow it, or the authentication failed.
   */
  readonly outcome: "authorized" | "challenge" | "dismissed" | "denied";
  /** What polkitd adds, such as `polkit.temporary_authorization_id`, and the details of the request. */
  readonly details: { readonly [name: string]: string };
}

const SERVICE = "org.freedesktop.PolicyKit1";

const AUTHORITY = {
  path: "/org/freedesktop/PolicyKit1/Authority",
  interface: "org.freedesktop.PolicyKit1.Authority",
};

/** The flag of CheckAuthorization that lets an agent ask the user. */
const ALLOW_USER_INTERACTION = 1;

/** The time limit of a call without a dialog: that of libdbus. */
const TIMEOUT_MS = 25_000;

/** How long a user may take to enter a password. */
const INTERACTIVE_TIMEOUT_MS = 600_000;

/** Added to the library's own time limit, which must not end a call before ours. */
const SPARE_MS = 1000;

/** The largest time limit. */
const MAX_TIMEOUT_MS = MAX_TIMER_MS - SPARE_MS;

/** The largest uid that polkit's D-Bus interface can carry, an int32. */
const MAX_POLKIT_UID = 2 ** 31 - 1;

/** The kernel reports start times in ticks, of which each architecture has 100 in a second. */
const MS_PER_TICK = 10;

/**
 * Asks the running polkitd whether a peer is authorized for an action.
 *
 * The peer's process is named by pid, start time and the uid at connect(2). The process must be pinned, and
 * still run when the answer arrives, so that no other process can have had the pid meanwhile. Each call
 * queries polkitd: polkitd alone remembers what `auth_admin_keep` and `auth_self_keep` permit.
 *
 * @param peer A pinned peer (`identify(socket, { pin: true })`, or a server with `pin`), or the sender of a
 * message on the same bus.
 * @param actionId The id of the action: "org.freedesktop.systemd1.manage-units".
 * @throws {UcredError} `ERR_UCRED_NOT_PINNED` if the peer has no pin; `ERR_UCRED_PEER_GONE` if its process
 * has ended; `ERR_UCRED_NO_PEER` if the pid or uid is unknown, ambiguous, or too large for polkit;
 * `ERR_UCRED_BUS` if polkitd is missing, restarts meanwhile, does not answer in time, or refuses the query,
 * as it does for actions that it does not know. None of them is an authorization.
 * @throws {TypeError} If an argument has another type, or an option is unknown.
 * @see {@link https://polkit.pages.freedesktop.org/polkit/eggdbus-interface-org.freedesktop.PolicyKit1.Authority.html org.freedesktop.PolicyKit1.Authority}
 *
 * @example Restart a service for users whom polkit allows it
 * ```js
 * import dbus from "dbus-native";
 * import { createServer } from "ucred/net";
 * import { checkAuthorization } from "ucred/polkit";
 *
 * const bus = dbus.systemBus();
 * createServer({ pin: true, policy: "anyone" }, async (socket, peer) => {
 *   const { authorized } = await checkAuthorization(peer, "org.example.restart", { bus });
 *   socket.end(authorized ? "restarting\n" : "denied\n");
 * });
 * ```
 */
export async function checkAuthorization(
  peer: Peer | BusSender,
  actionId: string,
  options: CheckAuthorizationOptions,
): Promise<Authorization> {
  requireOptions("checkAuthorization()", options, OPTIONS);
  requireActionId("checkAuthorization()", actionId);
  requireValues("checkAuthorization()", options);
  const { bus, details = {}, interactive = false, signal } = options;
  const { timeoutMs = interactive ? INTERACTIVE_TIMEOUT_MS : TIMEOUT_MS } = options;
  const what = `check the authorization for ${actionId}`;
  requireBus(bus, what);
  signal?.throwIfAborted();
  const subject = "sender" in peer ? senderSubject(peer, what) : processSubject(peer, what);
  const deadline = AbortSignal.timeout(timeoutMs);
  const cancel = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
  let destination: string;
  try {
    destination = await authority(bus, cancel);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
  const id = crypto.randomUUID();
  const call = {
    ...AUTHORITY,
    destination,
    member: "CheckAuthorization",
    signature: "(sa{sv})sa{ss}us",
    body: [
      subject,
      actionId,
      Object.entries(details),
      interactive ? ALLOW_USER_INTERACTION : 0,
      id,
    ],
  };
  let reply: BusMessage;
  try {
    // `cancel` comes before this time limit, and closes the dialog.
    reply = await callBus(bus, call, { timeoutMs: timeoutMs + SPARE_MS, signal: cancel });
  } catch (error) {
    if (cancel.aborted) {
      cancelCheck(bus, destination, id);
      signal?.throwIfAborted();
    }
    throw explained(error, what);
  }
  // If the process still runs, the pid was its own while polkitd read it.
  if (!("sender" in peer)) requireAlive(peer, what);
  return authorizationIn(reply, what);
}

/** Checks the id of an action. */
export function requireActionId(owner: string, actionId: unknown): asserts actionId is string {
  if (isActionId(actionId)) return;
  throw new TypeError(
    `${owner} takes the id of an action, such as "org.example.restart", not ${show(actionId)}`,
  );
}

/** Checks the types of options: `interactive: "false"` must not open a dialog. */
export function requireValues(owner: string, options: CheckAuthorizationOptions): void {
  const { bus, details = {}, interactive = false, signal, timeoutMs = 0 } = options;
  const isPlain = typeof details === "object" && details !== null && !Array.isArray(details) &&
    Object.values(details).every((value) => typeof value === "string");
  const isTime = Number.isInteger(timeoutMs) && timeoutMs >= 0 && timeoutMs <= MAX_TIMEOUT_MS;
  const isSignal = signal === undefined || signal instanceof AbortSignal;
  const required: readonly (readonly [boolean, string])[] = [
    [typeof bus === "object" && bus !== null, "bus must be a bus of dbus-native"],
    [isPlain, "details must be an object of texts"],
    [typeof interactive === "boolean", "interactive must be true or false"],
    [isSignal, "signal must be an AbortSignal"],
    [isTime, `timeoutMs must be a whole number of milliseconds, at most ${MAX_TIMEOUT_MS}`],
  ];
  const wrong = required.find(([isMet]) => !isMet);
  if (wrong !== undefined) throw new TypeError(`${owner}: ${wrong[1]}`);
}

/** Returns the unique name of polkitd, and starts it if it does not run and the bus can start it. */
async function authority(bus: Bus, signal: AbortSignal): Promise<string> {
  try {
    return await ownerOf(bus, SERVICE, { signal });
  } catch (error) {
    if (!(error instanceof UcredError) || error.code !== "ERR_UCRED_PEER_GONE") throw error;
  }
  const start = { member: "StartServiceByName", signature: "su", body: [SERVICE, 0] };
  try {
    await callBus(bus, start, { signal });
    return await ownerOf(bus, SERVICE, { signal });
  } catch (error) {
    const hint = "Install polkit, and start its daemon, polkitd";
    const why = (error as Error).message;
    throw new UcredError("ERR_UCRED_BUS", `Cannot reach polkitd: ${why}`, { hint, cause: error });
  }
}

/** A variant, as `dbus-native` writes it: a signature and a value. */
type Variant = readonly [string, unknown];

type Subject = readonly [string, readonly (readonly [string, Variant])[]];

function senderSubject({ sender }: BusSender, what: string): Subject {
  if (isUniqueName(sender)) return ["system-bus-name", [["name", ["s", sender]]]];
  throw new TypeError(
    `Cannot ${what}: ${show(sender)} is no unique name of a bus, such as ":1.42"`,
  );
}

function processSubject(peer: Peer, what: string): Subject {
  const { pid, uid, pinned } = peer.facts;
  if (pinned.state === "unknown") throw pinned.reason;
  if (pinned.state === "none") throw notPinned(what);
  if (pid.state === "unknown") throw pid.reason;
  if (pid.state === "none") {
    throw noPeer(what, "its process has no pid in our pid namespace", "Share the pid namespace");
  }
  // polkitd trusts the uid that we send, and takes it as one of the initial user namespace.
  if (!keepsEveryUid()) {
    const why = "our user namespace may number users otherwise than polkitd";
    throw noPeer(what, why, "Run the server in the initial user namespace");
  }
  if (uid.state !== "known") {
    const why = "its uid is unknown, or stands for any uid outside our user namespace";
    throw noPeer(what, why, "Run the server in the initial user namespace");
  }
  if (uid.value > MAX_POLKIT_UID) {
    throw noPeer(
      what,
      `polkit cannot represent the uid ${uid.value}`,
      "Decide by a policy instead",
    );
  }
  requireAlive(peer, what);
  const { startTime } = peer.process.facts;
  if (startTime.state === "unknown") throw startTime.reason;
  if (startTime.state === "none") throw gone(what);
  return ["unix-process", [
    ["pid", ["u", pid.value]],
    ["start-time", ["t", startTime.value / MS_PER_TICK]],
    ["uid", ["i", uid.value]],
  ]];
}

function requireAlive(peer: Peer, what: string): void {
  if (peer.alive !== true) throw gone(what);
}

function gone(what: string): UcredError {
  const message = `Cannot ${what}: the peer's process has ended, or the peer is closed`;
  return new UcredError("ERR_UCRED_PEER_GONE", message, { hint: "Reject the request" });
}

function notPinned(what: string): UcredError {
  const message = `Cannot ${what}: the peer's process is not pinned`;
  const hint = "Identify the peer with { pin: true }: a pid alone may belong to another process";
  return new UcredError("ERR_UCRED_NOT_PINNED", message, { hint });
}

function noPeer(what: string, why: string, hint: string): UcredError {
  return new UcredError("ERR_UCRED_NO_PEER", `Cannot ${what}: ${why}`, { hint });
}

/** Closes the dialog of a check that is no longer needed. */
function cancelCheck(bus: Bus, destination: string, id: string): void {
  const call: BusCall = {
    ...AUTHORITY,
    destination,
    member: "CancelCheckAuthorization",
    signature: "s",
    body: [id],
  };
  callBus(bus, call).catch(() => {}); // the check may have ended meanwhile
}

/** Reads the reply of CheckAuthorization: `(bba{ss})`. */
function authorizationIn({ signature, body = [] }: BusMessage, what: string): Authorization {
  const found = body[0];
  if (signature !== "(bba{ss})" || !Array.isArray(found) || found.length !== 3) throw odd(what);
  const [authorized, challenge, dictionary] = found as unknown[];
  if (typeof authorized !== "boolean" || typeof challenge !== "boolean") throw odd(what);
  const details = textsIn(dictionary, what);
  const outcome = authorized
    ? "authorized"
    : details["polkit.dismissed"] === "true"
    ? "dismissed"
    : challenge
    ? "challenge"
    : "denied";
  return Object.freeze({ authorized, outcome, details });
}

/** Reads `a{ss}`, in each of the shapes in which `dbus-native` returns dictionaries. */
function textsIn(dictionary: unknown, what: string): { readonly [name: string]: string } {
  if (typeof dictionary !== "object" || dictionary === null) throw odd(what);
  const entries =
    (Array.isArray(dictionary) ? dictionary : Object.entries(dictionary)) as unknown[];
  const texts: { [name: string]: string } = Object.create(null);
  for (const entry of entries) {
    const [name, value] = Array.isArray(entry) ? entry as unknown[] : [];
    if (typeof name !== "string" || typeof value !== "string") throw odd(what);
    texts[name] = value;
  }
  return Object.freeze(texts);
}

function odd(what: string): UcredError {
  return busError(what, "polkitd returned another type than its interface has", null);
}

/** Returns the error with an explanation if polkitd has refused to answer. */
function explained(error: unknown, what: string): unknown {
  if (busErrorName(error) !== `${SERVICE}.Error.NotAuthorized`) return error;
  const why = "polkitd answers this question only for root and the owner of the action";
  const hint = "Run the service as root, or annotate the action with " +
    "org.freedesktop.policykit.owner";
  return new UcredError("ERR_UCRED_BUS", `Cannot ${what}: ${why}`, { hint, cause: error });
}
