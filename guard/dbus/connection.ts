/** One client of a guard in D-Bus mode. The guard decides each message, and writes its header anew. */

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import process from "node:process";
import type { Attributes, Decision } from "../../core/policy/decide/decision.ts";
import { BUS_NAME, isUniqueName } from "../../interop/dbus/bus.ts";
import {
  encodeHeader,
  encodeTextArray,
  type Header,
  MalformedMessage,
  readTextArray,
  readTexts,
  TYPE,
} from "../../interop/dbus/message.ts";
import type { Admission, Admitted } from "../../servers/admission/admission.ts";
import type { RequestOutcome } from "../../servers/http/request_report.ts";
import { ByteReader, Ended, MessageWriter } from "../byte_streams.ts";
import { requestEnded, type RequestObserver } from "../http/shared.ts";
import { finish } from "../pipe.ts";
import type { Upstream } from "../upstream.ts";
import {
  driverCall,
  isDriverCall,
  isGreeting,
  isHello,
  isOwnerSignal,
  isOwnNameSignal,
  MAX_ARGUMENT_BYTES,
  MAX_LIST_BYTES,
  mayEavesdrop,
  MONITORING,
  needsArguments,
} from "./driver.ts";
import {
  authenticateAt,
  authenticateClient,
  CLIENT_TIMEOUT_MS,
  NotAuthenticated,
  UPSTREAM_TIMEOUT_MS,
  withTimeout,
} from "./handshake.ts";
import type { BusNames } from "./names.ts";
import {
  booleanReply,
  CallsToClient,
  ERROR,
  errorReply,
  expectsReply,
  OpenCalls,
  type ReplyEnds,
} from "./replies.ts";
import { forward, readBody, readHeader, readUpstreamHeader, skip } from "./streams.ts";

/** The parts that all connections of a guard share. */
export interface Shared extends RequestObserver {
  readonly admission: Admission;
  readonly upstream: Upstream;
  /** Whether connections to the upstream have the uid of the client. */
  readonly asPeer: boolean;
  /** The guard's GUID: 32 hexadecimal digits. */
  readonly guid: string;
  /** The names on the bus. */
  readonly names: BusNames;
}

/** A call of the client that was forwarded. */
interface OpenCall {
  readonly header: Header;
  readonly startedAt: number;
  readonly decision: Decision | undefined;
  readonly kind: "hello" | "list" | "other";
  /** The owner of the called name, if it is known. */
  readonly owner: string | undefined;
}

/** The decision about a message of the client, and the reply if the guard does not forward it. */
type Verdict =
  | {
    readonly forward: true;
    readonly decision?: Decision | undefined;
    readonly kind?: OpenCall["kind"];
  }
  | { readonly forward: false; readonly decision: Decision; readonly reply?: Buffer | undefined };

/** A client's connection to the guard, with the guard's own connection to the upstream. */
export class DbusConnection {
  readonly #shared: Shared;
  readonly #admitted: Admitted;
  readonly #client: Socket;
  readonly #fromClient: ByteReader;
  readonly #toClient: MessageWriter;
  #server!: Socket;
  #fromServer!: ByteReader;
  #toServer!: MessageWriter;
  /** Whether the upstream is a bus: the first message was Hello. `undefined` before it. */
  #isBus: boolean | undefined;
  #followsNames = false;
  /** The client's unique name on a bus. */
  #name: string | undefined;
  /** All names of the client, as the bus reports them by signals. The destination of a message is one of them. */
  readonly #ownNames = new Set<string>();
  /** Called when the reply to Hello has arrived, or the connection ends. */
  #onGreeted: () => void = () => {};
  /** Calls of the client, by serial. */
  readonly #calls = new OpenCalls<OpenCall>();
  readonly #callsToClient = new CallsToClient();

  constructor(client: Socket, admitted: Admitted, shared: Shared) {
    this.#client = client;
    this.#admitted = admitted;
    this.#shared = shared;
    this.#fromClient = new ByteReader(client);
    this.#toClient = new MessageWriter(client);
  }

  /** Serves the client until its connection ends. Never rejects. */
  async run(): Promise<void> {
    const { admission, upstream } = this.#shared;
    try {
      if (!await this.#authenticate()) return;
      try {
        await this.#connect();
      } catch (error) {
        if (!this.#client.destroyed) upstream.reportFailure(error);
        return void this.#client.destroy();
      }
      await Promise.all([
        this.#forwardClient(),
        this.#forwardServer().catch((error) => this.#endServer(error)),
      ]);
    } catch (error) {
      this.#destroy();
      if (error instanceof MalformedMessage) {
        admission.deny(this.#admitted, "message", `Malformed message: ${error.message}`);
        this.#count("malformed", undefined);
      } else if (!(error instanceof Ended)) admission.failed(this.#admitted, error);
    } finally {
      for (const call of this.#calls.clear()) this.#count("aborted", call);
      if (this.#followsNames) this.#shared.names.release();
    }
  }

  #destroy(): void {
    this.#client.destroy();
    this.#server?.destroy();
    this.#onGreeted();
  }

  /** Ends both connections after the upstream has failed or hung up. */
  #endServer(error: unknown): void {
    const isExpected = error instanceof Ended || this.#client.destroyed;
    this.#destroy();
    if (!isExpected) this.#shared.upstream.reportFailure(error);
  }

  async #authenticate(): Promise<boolean> {
    const { admission, guid } = this.#shared;
    const { peer } = this.#admitted;
    const { allowed } = this.#decide("connect", {});
    const isCertain = allowed && !peer.ambiguous.includes("uid");
    const parameters = { uid: isCertain ? peer.uid : undefined, guid };
    try {
      const conversation = authenticateClient(this.#client, this.#fromClient, parameters);
      await withTimeout(this.#client, CLIENT_TIMEOUT_MS, conversation);
      return true;
    } catch (error) {
      if (!(error instanceof NotAuthenticated)) throw error;
      const reason = `The client does not authenticate: ${error.message}`;
      if (allowed) admission.deny(this.#admitted, "connect", reason);
      this.#finish(this.#client);
      return false;
    }
  }

  async #connect(): Promise<void> {
    const { upstream, asPeer } = this.#shared;
    const { peer } = this.#admitted;
    this.#server = await upstream.connect({ socket: this.#client, peer });
    this.#fromServer = new ByteReader(this.#server);
    this.#toServer = new MessageWriter(this.#server);
    // The upstream compares the claim with the uid from the kernel.
    const uid = asPeer ? peer.uid : process.geteuid!();
    try {
      const conversation = authenticateAt(this.#server, this.#fromServer, uid);
      await withTimeout(this.#server, UPSTREAM_TIMEOUT_MS, conversation);
    } catch (error) {
      this.#server.destroy();
      throw error;
    }
    this.#client.once("close", () => this.#finish(this.#server));
    this.#server.once("close", () => this.#finish(this.#client));
    if (this.#client.destroyed) this.#server.destroy();
  }

  #finish(side: Socket): void {
    this.#onGreeted();
    side.removeAllListeners("readable"); // with such a listener, resume() does nothing
    finish(side);
  }

  async #forwardClient(): Promise<void> {
    const { admission } = this.#shared;
    for (let header; (header = await readHeader(this.#fromClient)) !== undefined;) {
      await admission.drained(this.#admitted);
      const { bodyLength } = header;
      const isRead = isDriverCall(header) && needsArguments(header) &&
        bodyLength <= MAX_ARGUMENT_BYTES;
      const body = isRead ? await readBody(this.#fromClient, bodyLength) : undefined;
      const startedAt = performance.now();
      const verdict = this.#judgeClient(header, body);
      const { decision } = verdict;
      const call = {
        header,
        startedAt,
        decision,
        kind: verdict.forward && verdict.kind || "other",
        owner: header.destination && this.#shared.names.ownerOf(header.destination),
      };
      if (!verdict.forward) {
        if (body === undefined) await skip(this.#fromClient, bodyLength);
        if (header.type === TYPE.call) this.#count("denied", call as OpenCall);
        if (verdict.reply !== undefined) await this.#toClient.insert(verdict.reply);
        continue;
      }
      if (expectsReply(header)) this.#calls.add(call as OpenCall);
      else if (header.type === TYPE.call) this.#count("allowed", call as OpenCall);
      const greeted = call.kind === "hello"
        ? new Promise<void>((resolve) => this.#onGreeted = resolve)
        : undefined;
      // The client could forge the sender. Without a bus, servers ignore the destination, and the policy
      // does not test it.
      const destination = this.#isBus ? header.destination : undefined;
      const head = encodeHeader({ ...header, destination, sender: undefined });
      await forward(head, body, bodyLength, this.#fromClient, this.#toServer);
      // The next replies of the guard need the client's unique name as their destination.
      if (greeted === undefined) continue;
      await greeted;
      if (!this.#isBus) continue;
      this.#followsNames = true;
      await this.#shared.names.acquire();
    }
    this.#server.end();
  }

  async #forwardServer(): Promise<void> {
    const reader = this.#fromServer;
    const drop = ({ message }: MalformedMessage) => {
      this.#refuse("receive", `Malformed message: ${message}`);
    };
    for (let header; (header = await readUpstreamHeader(reader, drop)) !== undefined;) {
      const { bodyLength } = header;
      const isReply = header.type === TYPE.return || header.type === TYPE.error;
      const call = isReply ? this.#calls.get(header.replySerial!) : undefined;
      const limit = call?.kind === "list" ? MAX_LIST_BYTES : MAX_ARGUMENT_BYTES;
      const isRead = (this.#isBus && (isOwnerSignal(header) || isOwnNameSignal(header))) ||
        (header.type === TYPE.return && call !== undefined && call.kind !== "other");
      if (isRead && bodyLength > limit) {
        throw new MalformedMessage("the bus sent a list that is too long");
      }
      let body = isRead ? await readBody(reader, bodyLength) : undefined;
      if (!this.#judgeServer(header, body, call)) {
        if (body === undefined) await skip(reader, bodyLength);
        if (isReply && call !== undefined && this.#calls.get(header.replySerial!) === undefined) {
          await this.#toClient.insert(
            this.#error(call.header, ERROR.accessDenied, "The reply is denied"),
          );
        } else if (expectsReply(header)) {
          const text = "The policy does not allow it";
          const ends = { destination: header.sender };
          await this.#toServer.insert(errorReply(header, ERROR.accessDenied, text, ends));
        }
        continue;
      }
      if (call !== undefined && header.type === TYPE.return) {
        if (call.kind === "list") body = this.#visibleNames(header, body!);
        if (call.kind === "hello") this.#ownNames.add(this.#name = ownNameIn(header, body!));
      }
      const length = body?.length ?? bodyLength;
      const head = encodeHeader({ ...header, bodyLength: length });
      await forward(head, body, length, reader, this.#toClient);
      if (call?.kind !== "hello") continue;
      // A server that rejects Hello is no bus, or ends the connection.
      if (header.type === TYPE.error) this.#isBus = false;
      this.#onGreeted();
    }
    this.#onGreeted();
    this.#client.end();
  }

  /** Decides a message of the client. */
  #judgeClient(header: Header, body: Buffer | undefined): Verdict {
    requireNoDescriptors(header);
    const { type, serial, interface: name, member } = header;
    if (type === TYPE.return || type === TYPE.error) return this.#judgeReplyOfClient(header);
    const isFirst = this.#isBus === undefined;
    this.#isBus ??= isGreeting(header);
    if (type === TYPE.signal) {
      const decision = this.#decideMessage("send", header);
      return decision.allowed ? { forward: true, decision } : { forward: false, decision };
    }
    // A reply to a repeated serial could be the one to the earlier call.
    if (this.#calls.get(serial) !== undefined) {
      throw new MalformedMessage("a serial was used again");
    }
    const action = `call ${name ?? ""}.${member}`;
    if (isHello(header)) {
      if (isFirst && this.#isBus) return { forward: true, kind: "hello" };
      return this.#denyCall(header, this.#refuse(action, "Hello must be the first message"));
    }
    // Without an interface, the recipient may choose a method of any interface.
    if (name === undefined) {
      return this.#denyCall(header, this.#refuse(action, "The call names no interface"));
    }
    if (name === MONITORING) {
      return this.#denyCall(
        header,
        this.#refuse(action, "The guard does not forward calls of the interface Monitoring"),
      );
    }
    if (this.#isBus && header.destination === undefined) {
      return this.#denyCall(header, this.#refuse(action, "The call names no destination"));
    }
    if (this.#calls.isFull && expectsReply(header)) {
      const reason = "Too many calls wait for a reply";
      return this.#denyCall(header, this.#refuse(action, reason), ERROR.limitsExceeded);
    }
    const decision = this.#decideMessage("call", header);
    if (!decision.allowed) return this.#denyCall(header, decision);
    if (!isDriverCall(header)) return { forward: true, decision };
    return this.#judgeDriverCall(header, body, decision);
  }

  /** Decides a call to the bus by its arguments. The policy allows the method already. */
  #judgeDriverCall(header: Header, body: Buffer | undefined, decision: Decision): Verdict {
    const action = `call ${header.interface}.${header.member}`;
    if (needsArguments(header) && body === undefined) {
      return this.#denyCall(header, this.#refuse(action, "The arguments are too long"));
    }
    let call;
    try {
      call = driverCall(header, body ?? Buffer.alloc(0));
    } catch (error) {
      const { message } = error as Error;
      return this.#denyCall(header, this.#refuse(action, `Malformed arguments: ${message}`));
    }
    if (call.kind === "list") {
      if (expectsReply(header)) return { forward: true, decision, kind: "list" };
      // dbus-daemon replies nevertheless, and with the serial of another open call, the list would not be filtered.
      return this.#denyCall(header, this.#refuse(action, "A list of names needs a reply"));
    }
    if (call.kind === "own") {
      const own = this.#decide(`own ${call.name}`, {});
      return own.allowed ? { forward: true, decision } : this.#denyCall(header, own);
    }
    if (call.kind === "match" && mayEavesdrop(call.rule)) {
      const reason = "The guard forwards only messages to this client";
      return this.#denyCall(header, this.#refuse(action, reason));
    }
    if (call.kind !== "see" || this.#maySee(call.name)) return { forward: true, decision };
    return this.#denyInvisible(header, call.name);
  }

  /** Hides a name from the client: a call about it gets the same answer as one about a name without an owner. */
  #denyInvisible(header: Header, name: string): Verdict {
    const decision = this.#refuse(`see ${name}`, "The client may not see the name");
    if (!expectsReply(header)) return { forward: false, decision };
    if (header.member === "NameHasOwner") {
      return { forward: false, decision, reply: booleanReply(header, false, this.#ends()) };
    }
    const isStart = header.member === "StartServiceByName";
    const error = isStart ? ERROR.unknownService : ERROR.noOwner;
    const text = `The name ${name} has no owner`;
    return { forward: false, decision, reply: this.#error(header, error, text) };
  }

  #judgeReplyOfClient(header: Header): Verdict {
    const action = actionOf("send", header);
    if (!this.#callsToClient.delete(header.destination, header.replySerial!)) {
      return { forward: false, decision: this.#refuse(action, "No call waits for this reply") };
    }
    const denied = this.#denialOfReply("send", header);
    if (denied === undefined) return { forward: true };
    const [serial, isLittleEndian] = [header.replySerial!, header.isLittleEndian];
    const ends = { destination: header.destination };
    const error = errorReply(
      { serial, isLittleEndian },
      ERROR.accessDenied,
      "The reply is denied",
      ends,
    );
    void this.#toServer.insert(error);
    return { forward: false, decision: denied };
  }

  /** Decides a message to the client. */
  #judgeServer(header: Header, body: Buffer | undefined, call: OpenCall | undefined): boolean {
    requireNoDescriptors(header);
    const { type, destination, sender, serial } = header;
    const action = actionOf("receive", header);
    if (call?.kind !== "hello" && this.#isBus && destination !== undefined) {
      if (!this.#ownNames.has(destination)) {
        this.#refuse(action, "The message was sent to another client");
        return false;
      }
    }
    if (type === TYPE.return || type === TYPE.error) return this.#judgeReply(header, call);
    if (this.#isBus && isOwnNameSignal(header)) {
      const name = readTexts(body!, header.isLittleEndian, 1)[0]!;
      if (header.member === "NameAcquired") this.#ownNames.add(name);
      else this.#ownNames.delete(name);
      return true;
    }
    if (this.#isBus && isOwnerSignal(header)) {
      return this.#maySee(readTexts(body!, header.isLittleEndian, 1)[0]!);
    }
    if (type === TYPE.call && header.interface === undefined) {
      this.#refuse(action, "The call names no interface");
      return false;
    }
    if (!this.#decideMessage("receive", header).allowed) return false;
    if (expectsReply(header)) this.#callsToClient.add(sender, serial);
    return true;
  }

  /** Decides a reply to the client. A rule can deny it. */
  #judgeReply(header: Header, call: OpenCall | undefined): boolean {
    const action = actionOf("receive", header);
    const serial = header.replySerial!;
    if (call === undefined) {
      this.#refuse(action, "No call waits for this reply");
      return false;
    }
    if (this.#isBus && call.kind !== "hello" && !this.#mayAnswer(header.sender, call)) {
      this.#refuse(action, "The reply is from another client than the called one");
      return false;
    }
    this.#calls.delete(serial);
    if (call.kind !== "hello" && this.#denialOfReply("receive", header) !== undefined) {
      this.#count("denied", call);
      return false;
    }
    this.#shared.requests.responded(performance.now() - call.startedAt);
    this.#count("allowed", call);
    return true;
  }

  /**
   * Returns whether a client of a bus may answer a call. The bus answers for recipients that do not exist. A
   * well-known name may have got another owner meanwhile. If no owner is known, any client may answer.
   */
  #mayAnswer(sender: string | undefined, { header, owner }: OpenCall): boolean {
    const { destination } = header;
    if (sender === BUS_NAME || sender === destination) return true;
    if (destination === undefined || destination === BUS_NAME || isUniqueName(destination)) {
      return false;
    }
    const current = this.#shared.names.ownerOf(destination);
    return [owner, current].includes(sender) || (owner === undefined && current === undefined);
  }

  /** Returns the decision of a rule that denies a requested reply; `undefined`: the reply may pass. */
  #denialOfReply(direction: "send" | "receive", header: Header): Decision | undefined {
    const action = actionOf(direction, header);
    const attributes = this.#attributesOf(direction, header, true);
    try {
      const decision = this.#shared.admission.policy.decide(this.#admitted.peer, {
        action,
        attributes,
      });
      if (decision.allowed || decision.rule === undefined) return undefined;
      return this.#refuse(action, decision.reason);
    } catch (error) {
      this.#shared.admission.failed(this.#admitted, error);
      return this.#refuse(action, UNDECIDED);
    }
  }

  #maySee(name: string): boolean {
    if (name === BUS_NAME || this.#ownNames.has(name)) return true;
    try {
      const { admission: { policy }, names } = this.#shared;
      const maySee = (each: string) =>
        policy.decide(this.#admitted.peer, { action: `see ${each}` }).allowed;
      // A client with a visible name is also visible by its unique name.
      return maySee(name) || (isUniqueName(name) && names.namesOf(name)?.some(maySee) === true);
    } catch (error) {
      this.#shared.admission.failed(this.#admitted, error);
      return false;
    }
  }

  #visibleNames({ signature, isLittleEndian }: Header, body: Buffer): Buffer {
    if (signature !== "as") throw new MalformedMessage("the bus returned no list of names");
    const names = readTextArray(body, isLittleEndian).filter((name) => this.#maySee(name));
    return encodeTextArray(names, isLittleEndian);
  }

  #decideMessage(kind: "call" | "send" | "receive", header: Header): Decision {
    const direction = kind === "receive" ? "receive" : "send";
    return this.#decide(actionOf(kind, header), this.#attributesOf(direction, header, false));
  }

  #attributesOf(direction: "send" | "receive", header: Header, isReply: boolean): Attributes {
    const { destination, path, interface: name, member, errorName, signature, sender } = header;
    const isSent = direction === "send";
    const other = isSent ? destination : sender;
    const names = this.#isBus && other !== undefined
      ? this.#shared.names.namesOf(other)
      : undefined;
    return {
      destination: this.#isBus && destination || null,
      path: path ?? null,
      interface: name ?? null,
      member: member ?? null,
      error: errorName ?? null,
      signature,
      descriptors: 0,
      requestedReply: isReply,
      unrequestedReply: false,
      eavesdropping: false,
      ...(names && { [isSent ? "destinationNames" : "senderNames"]: names }),
    };
  }

  /** Decides an action. An error of the policy denies. */
  #decide(action: string, attributes: Attributes): Decision {
    const { admission } = this.#shared;
    try {
      return admission.decide(this.#admitted, action, attributes);
    } catch (error) {
      admission.failed(this.#admitted, error);
      return this.#refuse(action, UNDECIDED);
    }
  }

  #refuse(action: string, reason: string): Decision {
    return this.#shared.admission.deny(this.#admitted, action, reason);
  }

  #denyCall(header: Header, decision: Decision, error: string = ERROR.accessDenied): Verdict {
    if (!expectsReply(header)) return { forward: false, decision };
    const text = decision.message ?? "The policy does not allow it";
    return { forward: false, decision, reply: this.#error(header, error, text) };
  }

  #error(call: Header, name: string, text: string): Buffer {
    return errorReply(call, name, text, this.#ends());
  }

  /** The ends of the guard's replies to the client. */
  #ends(): ReplyEnds {
    return this.#isBus ? { sender: BUS_NAME, destination: this.#name } : {};
  }

  /** Counts a call that has ended, and reports it. */
  #count(outcome: RequestOutcome, call: OpenCall | undefined): void {
    requestEnded(this.#shared, outcome, () => ({
      peer: this.#admitted.peer,
      method: call && `${call.header.interface ?? ""}.${call.header.member}`,
      target: call?.header.path,
      decision: call?.decision,
      status: undefined,
      milliseconds: call === undefined ? 0 : performance.now() - call.startedAt,
      traceparent: undefined,
    }));
  }
}

const UNDECIDED = "The policy has failed";

/** Returns the action of a message: "call org.example.Clock.Now", "receive signal org.example.Clock.Tick". */
function actionOf(kind: "call" | "send" | "receive", header: Header): string {
  const { type, interface: name = "", member, errorName } = header;
  const prefix = kind === "call" ? "" : `${kind} `;
  switch (type) {
    case TYPE.call:
      return `${prefix}call ${name}.${member}`;
    case TYPE.signal:
      return `${prefix}signal ${name}.${member}`;
    case TYPE.error:
      return `${prefix}error ${errorName}`;
    default:
      return `${prefix}return`;
  }
}

/** The runtimes drop descriptors, and neither side has negotiated them. */
function requireNoDescriptors({ descriptors }: Header): void {
  if (descriptors > 0) throw new MalformedMessage("it has file descriptors");
}

function ownNameIn({ signature, isLittleEndian }: Header, body: Buffer): string {
  const name = signature === "s" ? readTexts(body, isLittleEndian, 1)[0] : undefined;
  if (!isUniqueName(name)) throw new MalformedMessage("the bus returned no unique name");
  return name;
}
