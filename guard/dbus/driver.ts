/** The methods of the message bus itself, and the names in their arguments and replies. */

import { BUS_NAME } from "../../interop/dbus/bus.ts";
import { expectsReply } from "./replies.ts";
import { type Header, MalformedMessage, readTexts, TYPE } from "../../interop/dbus/message.ts";

/** The interface that turns a connection into a monitor of all messages. */
export const MONITORING = `${BUS_NAME}.Monitoring`;

/**
 * Maximum length of the arguments that the guard reads. Names have at most 255 bytes, and match rules in
 * dbus-daemon have at most 1024.
 */
export const MAX_ARGUMENT_BYTES = 16_384;

/** Maximum length of a list of names. */
export const MAX_LIST_BYTES: number = 1 << 20;

/** Methods with a name as their first argument, and their signatures. They report about its owner, or start it. */
const ABOUT_NAMES: { readonly [member: string]: string } = {
  GetNameOwner: "s",
  NameHasOwner: "s",
  ListQueuedOwners: "s",
  GetAdtAuditSessionData: "s",
  StartServiceByName: "su",
};

/** The types of the arguments of a method about a name. Distributions have further GetConnection methods. */
function argumentsAboutName(member: string): string | undefined {
  if (Object.hasOwn(ABOUT_NAMES, member)) return ABOUT_NAMES[member];
  return member.startsWith("GetConnection") ? "s" : undefined;
}

const LISTS = ["ListNames", "ListActivatableNames"];

/** The meaning of the arguments of a call to the bus. */
export type DriverCall =
  | { readonly kind: "own" | "see"; readonly name: string }
  | { readonly kind: "match"; readonly rule: string }
  | { readonly kind: "list" | "other" };

/** Returns whether a call is one of the bus itself. A bus also answers calls without a destination. */
export function isDriverCall({ type, destination = BUS_NAME, interface: name }: Header): boolean {
  return type === TYPE.call && destination === BUS_NAME && name === BUS_NAME;
}

/** Returns whether a message is a call of Hello, in any form that a bus might accept. */
export function isHello(header: Header): boolean {
  return isDriverCall(header) && header.member === "Hello";
}

/** Returns whether a call is a well-formed Hello, the first message of each client of a bus. */
export function isGreeting(header: Header): boolean {
  const { destination, signature } = header;
  return isHello(header) && destination === BUS_NAME && signature === "" && expectsReply(header);
}

/** Returns whether the arguments of a call to the bus decide about it. */
export function needsArguments({ member = "" }: Header): boolean {
  return member === "RequestName" || member === "AddMatch" ||
    argumentsAboutName(member) !== undefined;
}

/**
 * Reads the arguments of a call of the bus.
 *
 * @throws {MalformedMessage} If their signature is not that of the specification.
 */
export function driverCall(header: Header, body: Uint8Array): DriverCall {
  const { member = "", signature, isLittleEndian } = header;
  if (!needsArguments(header)) return { kind: LISTS.includes(member) ? "list" : "other" };
  const expected = { RequestName: "su", AddMatch: "s" }[member] ?? argumentsAboutName(member);
  if (signature !== expected) {
    throw new MalformedMessage(`${member} has the arguments ${JSON.stringify(signature)}`);
  }
  const text = readTexts(body, isLittleEndian, 1)[0]!;
  if (member === "AddMatch") return { kind: "match", rule: text };
  return { kind: member === "RequestName" ? "own" : "see", name: text };
}

/** Returns whether a match rule may select messages to others. Keys of match rules cannot be escaped. */
export function mayEavesdrop(rule: string): boolean {
  return /eavesdrop/i.test(rule);
}

/** Returns whether a message of the bus is a signal about names of the client itself. */
export function isOwnNameSignal(header: Header): boolean {
  const { type, sender, interface: name, member, signature } = header;
  return type === TYPE.signal && sender === BUS_NAME && name === BUS_NAME &&
    (member === "NameAcquired" || member === "NameLost") && signature === "s";
}

/** Returns whether a message is the signal of a bus about a change of owner. */
export function isOwnerSignal(header: Header): boolean {
  const { type, sender, interface: name, member, signature } = header;
  return type === TYPE.signal && sender === BUS_NAME && name === BUS_NAME &&
    member === "NameOwnerChanged" && signature === "sss";
}
