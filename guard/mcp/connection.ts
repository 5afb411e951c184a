/** One client of a guard in MCP mode. The guard decides each message, and writes it anew. */

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import type { Attributes, Decision } from "../../core/policy/decide/decision.ts";
import { type JsonValue, readJson, writeJson } from "../../interop/json.ts";
import { ownField } from "../../interop/mcp/arguments.ts";
import {
  CODE,
  filterResult,
  judge,
  mayNotify,
  type Message,
  messageOf,
  type RequestId,
  type RpcError,
} from "../../interop/mcp/judge.ts";
import type { Admission, Admitted } from "../../servers/admission/admission.ts";
import type { RequestOutcome } from "../../servers/http/request_report.ts";
import { ByteReader, Ended, MessageWriter } from "../byte_streams.ts";
import { requestEnded, type RequestObserver } from "../http/shared.ts";
import { finish } from "../pipe.ts";
import type { Upstream } from "../upstream.ts";
import { type LineMemory, lineOf, LineReader, LineTooLong } from "./lines.ts";
import { plainOf } from "./plain.ts";

/** The parts that all connections of a guard share. */
export interface Shared extends RequestObserver {
  readonly admission: Admission;
  readonly upstream: Upstream;
  readonly memory: LineMemory;
}

/** Maximum bytes of a message of a client: 4 MiB, as in the official SDK. */
const MAX_CLIENT_BYTES = 4 << 20;

/** Maximum bytes of a message of the upstream. Results can contain files. */
const MAX_SERVER_BYTES = 64 << 20;

/** Maximum requests in one direction that wait for their responses. */
const MAX_OPEN = 1000;

/** A request of the client that was forwarded. */
interface OpenRequest {
  readonly method: string;
  readonly startedAt: number;
  readonly decision: Decision;
}

type Call = Extract<Message, { kind: "request" | "notification" }>;

/**
 * What the guard sends because of a message of the client. While a socket is full, only its bytes are kept: the
 * parsed message takes up to a hundred times the memory.
 */
type Outgoing =
  /** An error for the client. */
  | { readonly kind: "answer"; readonly bytes: Buffer }
  /** A response for the upstream. */
  | { readonly kind: "response"; readonly bytes: Buffer }
  | {
    readonly kind: "request";
    readonly bytes: Buffer;
    readonly id: RequestId;
    readonly call: OpenRequest;
  }
  | {
    readonly kind: "notification";
    readonly bytes: Buffer;
    /** The id of the request that it cancels. */
    readonly cancels: unknown;
  };

/** The connection of a client, and the one to the upstream for it. */
export class McpConnection {
  readonly #shared: Shared;
  readonly #admitted: Admitted;
  readonly #client: Socket;
  readonly #fromClient: LineReader;
  readonly #toClient: MessageWriter;
  #server: Socket | undefined;
  #toServer: MessageWriter | undefined;
  /** Requests of the client, by id. */
  readonly #open = new Map<RequestId, OpenRequest>();
  /** The ids of the upstream's requests. */
  readonly #openOfServer = new Set<RequestId>();

  constructor(client: Socket, admitted: Admitted, shared: Shared) {
    this.#client = client;
    this.#admitted = admitted;
    this.#shared = shared;
    this.#fromClient = this.#linesOf(client, MAX_CLIENT_BYTES);
    this.#toClient = new MessageWriter(client);
  }

  #linesOf(socket: Socket, maxBytes: number): LineReader {
    const { uid } = this.#admitted.peer;
    const { memory } = this.#shared;
    return new LineReader(
      new ByteReader(socket),
      maxBytes,
      (from, to) => memory.resize(uid, from, to),
    );
  }

  /** Serves the client until its connection ends. Never rejects. */
  async run(): Promise<void> {
    const { admission } = this.#shared;
    try {
      await this.#forwardClient();
      if (this.#server === undefined) this.#finish(this.#client);
      else this.#server.end(); // the upstream may still answer
    } catch (error) {
      if (error instanceof LineTooLong) {
        this.#refuse("message", `The message is too long: ${error.message}`);
        this.#count("tooLarge", undefined);
        const problem = { code: CODE.invalidRequest, message: "The message is too long" };
        await this.#toClient.insert(errorLine(null, problem));
        this.#finish(this.#client);
      } else if (!(error instanceof Ended)) {
        admission.failed(this.#admitted, error);
        this.#client.destroy();
      } else this.#client.destroy();
      this.#server?.destroy();
    } finally {
      this.#fromClient.release();
    }
  }

  #finish(side: Socket): void {
    side.removeAllListeners("readable"); // with such a listener, resume() does nothing
    finish(side);
  }

  async #forwardClient(): Promise<void> {
    const { admission } = this.#shared;
    for (let line; (line = await this.#fromClient.next()) !== undefined;) {
      if (isBlank(line)) continue;
      await admission.drained(this.#admitted);
      const outgoing = this.#decide(line);
      if (outgoing?.kind === "answer") await this.#toClient.insert(outgoing.bytes);
      else if (outgoing !== undefined) await this.#forward(outgoing);
    }
  }

  /** Decides a message. Returns `undefined` if it is dropped. */
  #decide(line: Buffer): Outgoing | undefined {
    const read = readJson(line);
    if ("problem" in read) return this.#rejectMessage(null, CODE.parseError, read.problem);
    const value = plainOf(read.value);
    const message = messageOf(value);
    if (message.kind === "malformed") {
      return this.#rejectMessage(message.id, CODE.invalidRequest, message.problem);
    }
    if (message.kind !== "response") return this.#decideCall(message, value, read.value);
    if (this.#openOfServer.delete(message.id)) {
      return { kind: "response", bytes: lineOf(writeJson(read.value)) };
    }
    this.#refuse("response", "No request of the server waits for this response");
    return undefined;
  }

  #rejectMessage(id: RequestId | null, code: number, problem: string): Outgoing {
    this.#refuse("message", problem);
    this.#count("malformed", undefined);
    return { kind: "answer", bytes: errorLine(id, { code, message: problem }) };
  }

  /** Decides a request or notification. */
  #decideCall(message: Call, value: unknown, json: JsonValue): Outgoing | undefined {
    const startedAt = performance.now();
    const { params } = value as { readonly params?: unknown };
    const { decision, error } = this.#verdict(message, params);
    const call = { method: copyOf(message.method), startedAt, decision };
    if (error !== undefined) {
      if (message.kind === "notification") return undefined;
      this.#count("denied", call);
      return { kind: "answer", bytes: errorLine(message.id, error) };
    }
    const bytes = lineOf(writeJson(json));
    if (message.kind === "request") {
      const { id } = message;
      return { kind: "request", bytes, id: typeof id === "string" ? copyOf(id) : id, call };
    }
    const isCancellation = message.method === "notifications/cancelled";
    const cancels = isCancellation ? ownField(params, "requestId") : undefined;
    return { kind: "notification", bytes, cancels };
  }

  async #forward(outgoing: Exclude<Outgoing, { kind: "answer" }>): Promise<void> {
    const { kind, bytes } = outgoing;
    if (this.#server === undefined) {
      // Only a request or a notification connects: a response answers a request of a connected upstream.
      await this.#connect(kind === "request" ? outgoing.id : undefined);
    }
    if (kind === "request") this.#open.set(outgoing.id, outgoing.call);
    else if (kind === "notification") this.#forget(outgoing.cancels);
    await this.#toServer!.insert(bytes);
  }

  #verdict(message: Call, params: unknown): { decision: Decision; error: RpcError | undefined } {
    const { kind, method } = message;
    const refused = (problem: string) => ({
      decision: this.#refuse(method, problem),
      error: { code: CODE.invalidRequest, message: problem },
    });
    if (message.kind === "request") {
      // A response could be the one to the earlier request.
      if (this.#open.has(message.id)) return refused("The id belongs to a request that is open");
      if (this.#open.size >= MAX_OPEN) return refused("Too many requests are open");
    }
    return judge(this.#judge, kind, method, params);
  }

  /** The decisions about the client. An error of the policy denies. */
  readonly #judge = {
    decide: (action: string, attributes: Attributes): Decision => {
      const { admission } = this.#shared;
      try {
        return admission.decide(this.#admitted, action, attributes);
      } catch (error) {
        admission.failed(this.#admitted, error);
        return this.#refuse(action, "The policy has failed");
      }
    },
    peek: (action: string, attributes: Attributes): Decision => {
      const { admission } = this.#shared;
      try {
        return admission.policy.decide(this.#admitted.peer, { action, attributes });
      } catch (error) {
        admission.failed(this.#admitted, error);
        // The judge ignores some denials without a rule. This one must count.
        return { ...this.#refuse(action, "The policy has failed"), rule: "" };
      }
    },
    refuse: (action: string, reason: string): Decision => this.#refuse(action, reason),
  };

  /**
   * Connects to the upstream. A client without an allowed message costs no connection, and no process.
   *
   * @param id The id of the request, if it is one.
   */
  async #connect(id: RequestId | undefined): Promise<void> {
    const { upstream } = this.#shared;
    const client = this.#client;
    try {
      this.#server = await upstream.connect({ socket: client, peer: this.#admitted.peer });
    } catch (error) {
      if (!client.destroyed) upstream.reportFailure(error);
      if (id !== undefined) {
        const text = "The server cannot be reached";
        await this.#toClient.insert(errorLine(id, { code: CODE.internalError, message: text }));
      }
      this.#finish(client);
      throw new Ended("the upstream cannot be reached");
    }
    const server = this.#server;
    this.#toServer = new MessageWriter(server);
    client.once("close", () => this.#finish(server));
    server.once("close", () => this.#finish(client));
    if (client.destroyed) server.destroy();
    void this.#forwardServer(server);
  }

  async #forwardServer(server: Socket): Promise<void> {
    const lines = this.#linesOf(server, MAX_SERVER_BYTES);
    try {
      for (let line; (line = await lines.next()) !== undefined;) {
        if (isBlank(line)) continue;
        const text = this.#forClient(line.toString());
        if (text !== undefined) await this.#toClient.insert(lineOf(text));
      }
      this.#client.end();
    } catch (error) {
      if (!(error instanceof Ended) && !this.#client.destroyed) {
        this.#shared.upstream.reportFailure(error);
      }
      this.#client.destroy();
      server.destroy();
    } finally {
      lines.release();
      for (const call of this.#open.values()) this.#count("aborted", call);
      this.#open.clear();
    }
  }

  /** Returns a message of the upstream as the client receives it; `undefined` if it receives nothing. */
  #forClient(text: string): string | undefined {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      this.#shared.upstream.reportFailure(new Error("it sent a line that is not JSON"));
      return undefined;
    }
    const message = messageOf(value);
    switch (message.kind) {
      case "malformed":
        this.#shared.upstream.reportFailure(new Error(`it sent no message: ${message.problem}`));
        return undefined;
      case "request":
        if (this.#openOfServer.size >= MAX_OPEN) return undefined;
        this.#openOfServer.add(message.id);
        return text;
      case "notification": {
        const { params } = value as { readonly params?: unknown };
        return mayNotify(this.#judge, message.method, params) ? text : undefined;
      }
    }
    const call = this.#open.get(message.id);
    if (call === undefined) return undefined; // cancelled, or never requested
    this.#open.delete(message.id);
    this.#shared.requests.responded(performance.now() - call.startedAt);
    this.#count("allowed", call);
    const { result } = value as { readonly result?: unknown };
    const filtered = filterResult(this.#judge, result);
    return filtered === result ? text : JSON.stringify({ ...value as object, result: filtered });
  }

  /** Forgets a request that the client has cancelled: its result is dropped. */
  #forget(id: unknown): void {
    const call = this.#open.get(id as RequestId);
    if (call === undefined) return;
    this.#open.delete(id as RequestId);
    this.#count("aborted", call);
  }

  #refuse(action: string, reason: string): Decision {
    return this.#shared.admission.deny(this.#admitted, action, reason);
  }

  /** Counts a request that has ended, and reports it. */
  #count(outcome: RequestOutcome, call: OpenRequest | undefined): void {
    requestEnded(this.#shared, outcome, () => ({
      peer: this.#admitted.peer,
      method: call?.method,
      target: undefined,
      decision: call?.decision,
      status: undefined,
      milliseconds: call === undefined ? 0 : performance.now() - call.startedAt,
      traceparent: undefined,
    }));
  }
}

const errorLine = (id: RequestId | null, error: RpcError): Buffer =>
  lineOf(JSON.stringify({ jsonrpc: "2.0", id, error }));

/** Copies a text: V8 keeps the whole line as long as a part of it is kept. */
const copyOf = (text: string): string => Buffer.from(text).toString();

/** Whether a line has only white space. Some programs send such lines to keep a connection alive. */
const isBlank = (line: Uint8Array): boolean =>
  line.length < 1024 && line.every((byte) => byte === 32 || byte === 9 || byte === 13);
