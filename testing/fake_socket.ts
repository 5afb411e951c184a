/** Two connected streams with the methods of `net.Socket`, for connections of fake peers. */

import { Buffer } from "node:buffer";
import type { ServerOpts, Socket } from "node:net";
import { Duplex } from "node:stream";
import { clearTimeout, setTimeout } from "node:timers";

/** Returns both ends of a connection. The options are those of the server. */
export function socketPair(
  options: ServerOpts,
): { readonly server: Socket; readonly client: Duplex } {
  const server = new FakeSocket(options);
  const client = new FakeSocket({});
  if (options.pauseOnConnect) server.pause();
  server.other = client;
  client.other = server;
  return { server: server as unknown as Socket, client };
}

type Done = (error?: Error | null) => void;

class FakeSocket extends Duplex {
  other: FakeSocket | undefined;
  readonly connecting = false;
  readonly pending = false;
  bytesRead = 0;
  bytesWritten = 0;
  timeout = 0;
  /** The callback of the other end's last write, which this end has not read. */
  #onRead: Done | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor({ allowHalfOpen = false, highWaterMark }: ServerOpts) {
    super({ allowHalfOpen, ...(highWaterMark !== undefined && { highWaterMark }) });
  }

  override _read(): void {
    const done = this.#onRead;
    this.#onRead = undefined;
    done?.();
  }

  override _write(chunk: Uint8Array, _encoding: string, done: Done): void {
    this.#active();
    const other = this.other;
    if (other === undefined || other.destroyed) return done(brokenPipe());
    this.bytesWritten += chunk.length;
    if (chunk.length === 0) return done();
    other.#receive(Buffer.from(chunk), done);
  }

  override _final(done: Done): void {
    this.other?.receiveEnd();
    done();
  }

  override _destroy(error: Error | null, done: Done): void {
    clearTimeout(this.#timer);
    const pending = this.#onRead;
    this.#onRead = undefined;
    pending?.(brokenPipe());
    this.other?.receiveEnd();
    done(error);
  }

  #receive(bytes: Uint8Array, done: Done): void {
    this.#active();
    this.bytesRead += bytes.length;
    this.#onRead = done;
    this.push(bytes);
  }

  /** The other end sends no more. As in net.Socket, "end" is emitted even without a listener of "data". */
  receiveEnd(): void {
    if (this.destroyed || this.readableEnded) return;
    this.push(null);
    this.read(0);
  }

  #active(): void {
    clearTimeout(this.#timer);
    if (this.timeout === 0 || this.destroyed) return;
    this.#timer = setTimeout(() => this.emit("timeout"), this.timeout);
  }

  get readyState(): string {
    if (this.readable && this.writable) return "open";
    return this.readable ? "readOnly" : this.writable ? "writeOnly" : "closed";
  }

  setTimeout(milliseconds: number, run?: () => void): this {
    this.timeout = milliseconds;
    if (run !== undefined) {
      if (milliseconds === 0) this.removeListener("timeout", run);
      else this.once("timeout", run);
    }
    this.#active();
    return this;
  }

  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once("finish", () => this.destroy());
  }

  resetAndDestroy(): this {
    return this.destroy();
  }

  address(): object {
    return {};
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }
}

function brokenPipe(): Error {
  return Object.assign(new Error("write EPIPE"), { code: "EPIPE", syscall: "write" });
}
