/** Requests of the guard itself to the Docker engine: inspections of the objects that clients name. */

import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import type { Response } from "../http/message.ts";
import type { MediatedClient } from "../http/mediator.ts";
import { type Receiver, UpstreamConnection } from "../http/upstream.ts";
import type { Upstream } from "../upstream.ts";

/** Maximum bytes of a response to the guard. */
const MAX_BYTES = 16 << 20;

/** Maximum idle connections that are kept. */
const MAX_IDLE = 8;

/** A response of the engine to the guard. */
export interface EngineResponse {
  readonly status: number;
  readonly reason: string;
  readonly lines: readonly string[];
  readonly body: Buffer;
}

/** The engine, as the guard queries it. Connections are reused for all clients: they carry no identity. */
export class Engine {
  readonly #upstream: Upstream;
  readonly #idle: EngineConnection[] = [];
  #isClosed = false;

  constructor(upstream: Upstream) {
    this.#upstream = upstream;
  }

  /**
   * Sends a request, and returns the response.
   *
   * @param client The client that the request is for. The request is cancelled when the client hangs up.
   * @param body A JSON text.
   * @throws If the engine cannot be reached, or its response is malformed or too long.
   */
  async query(
    client: MediatedClient,
    method: string,
    url: string,
    body?: string,
  ): Promise<EngineResponse> {
    for (;;) {
      const idle = this.#idle.pop();
      if (idle !== undefined && !idle.isFree) continue;
      const connection = idle ?? new EngineConnection(
        await this.#upstream.connect({ socket: client.socket, peer: client.admitted.peer }),
      );
      try {
        const response = await connection.send(client.socket, method, url, body);
        const isKept = connection.isFree && !this.#isClosed && this.#idle.length < MAX_IDLE;
        if (isKept) this.#idle.push(connection);
        else connection.destroy();
        return response;
      } catch (error) {
        connection.destroy();
        // The engine may close an idle connection at any time: RFC 9112, 9.3.1.
        if (idle === undefined || !connection.wasReset) throw error;
      }
    }
  }

  /** Inspects an object. Returns `undefined` with status 404. @throws If the response is another one. */
  async inspect(client: MediatedClient, url: string): Promise<unknown> {
    const { status, body } = await this.query(client, "GET", url);
    if (status === 404) return undefined;
    if (status !== 200) throw new Error(`it answers ${status} to GET ${url}`);
    return jsonOf(body);
  }

  /** Closes idle connections from now on: they would keep the process running. */
  close(): void {
    this.#isClosed = true;
    for (const connection of this.#idle.splice(0)) connection.destroy();
  }
}

/** Parses JSON of the engine. @throws If it is no JSON. */
export function jsonOf(body: Buffer): unknown {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
}

class EngineConnection implements Receiver {
  /** Whether the last request failed before the engine sent anything. */
  wasReset = false;
  readonly #link: UpstreamConnection;
  #response: Response | undefined;
  #parts: Buffer[] = [];
  #bytes = 0;
  #settle: ((outcome: EngineResponse | Error) => void) | undefined;

  constructor(socket: Socket) {
    this.#link = new UpstreamConnection(socket, this);
  }

  get isFree(): boolean {
    return this.#link.isFree;
  }

  destroy(): void {
    this.#link.destroy();
  }

  send(client: Socket, method: string, url: string, body?: string): Promise<EngineResponse> {
    this.#response = undefined;
    this.#parts = [];
    this.#bytes = 0;
    return new Promise((resolve, reject) => {
      const leave = () => this.#finish(new Error("the client has hung up"));
      this.#settle = (outcome) => {
        client.off("close", leave);
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      };
      client.once("close", leave);
      if (client.destroyed) return leave();
      const bytes = body === undefined ? undefined : Buffer.from(body);
      const fields = bytes === undefined
        ? ""
        : `Content-Type: application/json\r\nContent-Length: ${bytes.length}\r\n`;
      const head = `${method} ${url} HTTP/1.1\r\nHost: docker\r\n${fields}\r\n`;
      this.#link.begin(
        bytes === undefined ? head : Buffer.concat([Buffer.from(head, "latin1"), bytes]),
        method === "HEAD",
      );
    });
  }

  #finish(outcome: EngineResponse | Error): void {
    const settle = this.#settle;
    this.#settle = undefined;
    if (outcome instanceof Error) this.#link.destroy();
    settle?.(outcome);
  }

  onResponse(response: Response | undefined, parts: readonly Buffer[], isEnd: boolean): void {
    this.#response ??= response;
    for (const part of parts) {
      this.#bytes += part.length;
      this.#parts.push(part);
    }
    if (this.#bytes > MAX_BYTES) return this.#finish(new Error("its response is too long"));
    if (!isEnd) return;
    const { status, reason, lines } = this.#response!;
    this.#finish({ status, reason, lines, body: Buffer.concat(this.#parts) });
  }

  onSwitch(_response: Response, socket: Socket): void {
    socket.destroy();
    this.#finish(new Error("it answers 101 to a request without an upgrade"));
  }

  onFailure(error: Error, isReset: boolean): void {
    this.wasReset = isReset;
    this.#finish(error);
  }

  onDrain(): void {}

  attempt(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#finish(error as Error);
    }
  }
}
