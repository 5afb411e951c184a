/** A bus that gives the answers that a test chooses, including ones that no real bus gives. */

import { EventEmitter } from "node:events";
import { type Bus, BUS_NAME, type BusMessage } from "../../../interop/dbus/bus.ts";

/** Delivers a reply: a message, an error of the library, or none. */
export type Deliver = (reply: BusMessage | undefined, error?: Error | null) => void;

/** A call, and the options with which the library was called. */
export interface SentCall extends BusMessage {
  readonly options: { readonly timeout?: number; readonly signal?: AbortSignal };
}

export class FakeBus implements Bus {
  name: string | null | undefined = ":1.1";
  readonly names = new Set<string>();
  readonly connection: EventEmitter & { state?: string } = new EventEmitter();
  readonly calls: SentCall[] = [];
  /** The error replies to calls: their names and texts. */
  readonly errors: (readonly [name: string, text: string])[] = [];
  readonly #answer: (call: SentCall, deliver: Deliver) => void;

  constructor(answer: (call: SentCall, deliver: Deliver) => void) {
    this.#answer = answer;
  }

  invoke: Bus["invoke"] = (message, options, callback) => {
    const call: SentCall = { ...message, options };
    this.calls.push(call);
    this.#answer(call, (reply, error = null) => callback.call({ message: reply }, error));
  };

  sendError: Bus["sendError"] = (_message, name, text) => void this.errors.push([name, text]);

  /** Emits a signal of the bus about the owner of a name. */
  ownerChanged(change: object = {}, body: readonly unknown[] = [":1.7", ":1.7", ""]): void {
    const signal = { type: 4, sender: BUS_NAME, interface: BUS_NAME, member: "NameOwnerChanged" };
    this.connection.emit("message", { ...signal, body, ...change });
  }
}

/** A reply of the bus. */
export const replyOf = (signature: string, ...body: readonly unknown[]): BusMessage => ({
  ...{ type: 2, sender: BUS_NAME, signature, body },
});

/** An error reply of the bus, as dbus-native passes it. */
export function errorOf(name: string, sender: string = BUS_NAME): Error {
  return Object.assign(new Error(`the error ${name}`), {
    dbusName: name,
    reply: { type: 3, sender },
  });
}
