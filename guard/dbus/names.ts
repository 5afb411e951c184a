/** The names on the bus behind a guard, and their owners. The guard follows them on a connection of its own. */

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import process from "node:process";
import { displayName } from "../../core/socket_name.ts";
import { textOf, visible } from "../../core/text.ts";
import { BUS_NAME, isUniqueName } from "../../interop/dbus/bus.ts";
import {
  encodeHeader,
  encodeText,
  type Header,
  MalformedMessage,
  readTextArray,
  readTexts,
  TYPE,
} from "../../interop/dbus/message.ts";
import { ByteReader, Ended } from "../byte_streams.ts";
import type { Upstream } from "../upstream.ts";
import { isOwnerSignal, MAX_LIST_BYTES } from "./driver.ts";
import { authenticateAt, UPSTREAM_TIMEOUT_MS, withTimeout } from "./handshake.ts";
import { readBody, readUpstreamHeader, skip } from "./streams.ts";

const MATCH =
  `type='signal',sender='${BUS_NAME}',interface='${BUS_NAME}',member='NameOwnerChanged'`;

/** The serials of the first calls. Calls with higher serials request owners. */
const SERIAL = { hello: 1, addMatch: 2, listNames: 3 } as const;

/** Follows the names of a bus while it has users. */
export class BusNames {
  readonly #upstream: Upstream;
  readonly #report: (line: string) => void;
  #users = 0;
  #session: NameSession | undefined;
  #hasReported = false;

  constructor(upstream: Upstream, report: (line: string) => void) {
    this.#upstream = upstream;
    this.#report = report;
  }

  /** Follows the names until {@link release}. Resolves once they are known, or cannot be. */
  async acquire(): Promise<void> {
    this.#users++;
    this.#session ??= this.#start();
    await this.#session.ready;
  }

  #start(): NameSession {
    const session = new NameSession(this.#upstream, (error) => {
      if (this.#session !== session) return;
      this.#session = undefined; // the next client starts another one
      if (this.#hasReported) return;
      this.#hasReported = true;
      const path = visible(displayName(this.#upstream.path));
      this.#report(`the owners of names on the bus ${path} are unknown: ${visible(textOf(error))}`);
    });
    session.ready.then(() => this.#hasReported &&= session.namesOf(BUS_NAME) === undefined);
    return session;
  }

  /** Ends the use that a call of {@link acquire} has begun. */
  release(): void {
    if (--this.#users > 0) return;
    this.#session?.close();
    this.#session = undefined;
  }

  /**
   * Returns all names of the client that owns a name, the unique one first; only the name itself if it has no
   * owner. `undefined` if the names are unknown. Names for which a client waits in the queue are missing.
   */
  namesOf(name: string): readonly string[] | undefined {
    return this.#session?.namesOf(name);
  }

  /** Returns the unique name of the owner of a well-known name; `undefined` if it has none, or if it is unknown. */
  ownerOf(name: string): string | undefined {
    const owner = this.#session?.namesOf(name)?.[0];
    return isUniqueName(owner) ? owner : undefined;
  }
}

/** One connection that follows names. */
class NameSession {
  /** Resolves when the names are known, or cannot be. */
  readonly ready: Promise<void>;
  #onReady!: () => void;
  #isReady = false;
  #isClosed = false;
  #socket: Socket | undefined;
  readonly #owners = new Map<string, string>();
  readonly #owned = new Map<string, Set<string>>();
  /** Serial of a request for an owner → the name. */
  readonly #requests = new Map<number, string>();
  #hasList = false;
  #serial: number = SERIAL.listNames;

  /** @param onEnd Called when the connection has ended. */
  constructor(upstream: Upstream, onEnd: (error: unknown) => void) {
    this.ready = new Promise((resolve) => this.#onReady = resolve);
    this.#run(upstream).catch((error) => {
      onEnd(error);
      this.#onReady();
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#socket?.destroy();
  }

  namesOf(name: string): readonly string[] | undefined {
    if (!this.#isReady) return undefined;
    if (name === BUS_NAME) return [name];
    const owner = isUniqueName(name) ? name : this.#owners.get(name);
    return owner === undefined ? [name] : [owner, ...this.#owned.get(owner) ?? []];
  }

  async #run(upstream: Upstream): Promise<never> {
    const socket = this.#socket = await upstream.connectAsGuard();
    try {
      if (this.#isClosed) throw new Ended("the connection was closed");
      const reader = new ByteReader(socket);
      const conversation = authenticateAt(socket, reader, process.geteuid!());
      await withTimeout(socket, UPSTREAM_TIMEOUT_MS, conversation);
      this.#call("Hello", SERIAL.hello);
      this.#call("AddMatch", SERIAL.addMatch, MATCH);
      this.#call("ListNames", SERIAL.listNames);
      for (let header; (header = await readUpstreamHeader(reader, () => {})) !== undefined;) {
        const { bodyLength, sender } = header;
        if (sender !== BUS_NAME) await skip(reader, bodyLength);
        else if (bodyLength <= MAX_LIST_BYTES) {
          this.#receive(header, await readBody(reader, bodyLength));
        } else throw new MalformedMessage("the bus sent a list that is too long");
      }
      throw new Ended("the bus closed the connection");
    } finally {
      this.#isReady = false;
      socket.destroy();
    }
  }

  #call(member: string, serial: number, argument?: string): void {
    const body = argument === undefined ? Buffer.alloc(0) : encodeText(argument, true);
    const head = encodeHeader({
      isLittleEndian: true,
      type: TYPE.call,
      flags: 0,
      bodyLength: body.length,
      serial,
      path: "/org/freedesktop/DBus",
      interface: BUS_NAME,
      member,
      destination: BUS_NAME,
      signature: argument === undefined ? "" : "s",
      descriptors: 0,
    });
    this.#socket!.write(Buffer.concat([head, body]));
  }

  /** Handles a message of the bus. Signals and replies arrive in the order of the changes. */
  #receive(header: Header, body: Buffer): void {
    const { type, isLittleEndian, signature, replySerial, errorName } = header;
    if (isOwnerSignal(header)) {
      const [name, , owner] = readTexts(body, isLittleEndian, 3);
      return this.#set(name!, owner!);
    }
    if (replySerial === undefined) return;
    const name = this.#requests.get(replySerial);
    if (name === undefined && type === TYPE.error) {
      throw new MalformedMessage(`the bus returned the error ${errorName}`);
    }
    if (replySerial === SERIAL.listNames && signature === "as") {
      this.#hasList = true;
      for (const each of readTextArray(body, isLittleEndian)) {
        if (isUniqueName(each) || each === BUS_NAME) continue;
        this.#requests.set(++this.#serial, each);
        this.#call("GetNameOwner", this.#serial, each);
      }
    } else if (name !== undefined) {
      this.#requests.delete(replySerial);
      const isOwned = type === TYPE.return && signature === "s"; // else it has lost its owner
      this.#set(name, isOwned ? readTexts(body, isLittleEndian, 1)[0]! : "");
    }
    if (!this.#hasList || this.#requests.size > 0) return;
    this.#isReady = true;
    this.#onReady();
  }

  /** Records the owner of a well-known name; "" if it has none. */
  #set(name: string, owner: string): void {
    if (isUniqueName(name)) return;
    const before = this.#owners.get(name);
    if (before !== undefined) {
      const names = this.#owned.get(before)!;
      names.delete(name);
      if (names.size === 0) this.#owned.delete(before);
    }
    if (owner === "") return void this.#owners.delete(name);
    this.#owners.set(name, owner);
    const names = this.#owned.get(owner);
    if (names === undefined) this.#owned.set(owner, new Set([name]));
    else names.add(name);
  }
}
