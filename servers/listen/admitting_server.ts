/** A `net.Server` that admits each connection by a policy: the base of `ucred/net` and of the guard. */

import { Server, type ServerOpts, type Socket } from "node:net";
import type { Peer } from "../../core/peer.ts";
import { listenerFdOf, type UnixSocket } from "../../identity/fd.ts";
import {
  type Admission,
  type Admitted,
  isAdmitted,
  type RefusedConnection,
  type ServerStats,
} from "../admission/admission.ts";
import { type CloseOptions, Lifecycle } from "./lifecycle.ts";

const ignore = () => {};

/** Key of the method by which `ucred/testing` opens a connection on a server of `ucred/net`. */
export const CONNECT_AS: unique symbol = Symbol("ucred.connectAs");

/** Makes the connection of a fake peer. */
export type OpenFake = (options: { readonly isPinned: boolean } & ServerOpts) => {
  readonly socket: Socket;
  readonly peer: Peer;
  /** What the server closes, and whether it is closed. */
  readonly handle: UnixSocket;
};

/** Its public methods have the types of `SafeServer`, which differ from those of `net.Server`. */
export abstract class AdmittingServer extends Server {
  readonly #admission: Admission;
  readonly #lifecycle: Lifecycle;

  constructor(options: ServerOpts, admission: Admission) {
    super(options);
    this.#admission = admission;
    this.#lifecycle = new Lifecycle({
      listen: (where, backlog) => super.listen({ ...where, backlog }),
      close: (done) => super.close(done),
      descriptor: () => listenerFdOf(this),
      address: () => super.address(),
      closeIdle: () => this.closeIdle(),
      cut: () => admission.closeAll(),
      emit: (event: string, error?: unknown) => void super.emit(event, error),
    }, (path) => admission.server = path);
  }

  /** Serves an admitted connection. Returns what `emit("connection")` returns. */
  protected abstract serve(socket: Socket, admitted: Admitted): boolean;

  /** Closes a refused connection, with or without a response. */
  protected abstract refuse(socket: Socket, refused: RefusedConnection): void;

  /** Closes connections that wait for nothing, when the server closes. */
  protected closeIdle(): void {}

  protected get admission(): Admission {
    return this.#admission;
  }

  /** Whether the server waits for its last connections to end. */
  protected get isClosing(): boolean {
    return this.#lifecycle.isClosing;
  }

  override emit(event: string | symbol, ...args: unknown[]): boolean {
    if (event === "connection") return this.#admit(args[0] as Socket);
    return this.#lifecycle.consumeStartEvent(event, args[0]) ||
      super.emit(event as string, ...args);
  }

  override listen(...args: unknown[]): this {
    this.#lifecycle.listen(args, (run) => this.once("listening", run));
    return this;
  }

  override close(how?: CloseOptions | ((error?: Error) => void)): this {
    return (this.#lifecycle.close(how) ?? this) as unknown as this;
  }

  override address(): string | null {
    return this.#lifecycle.path ?? null;
  }

  stats(): ServerStats {
    return this.#admission.stats();
  }

  /** Emits "connection" to the listeners of the application. */
  protected emitConnection(socket: Socket): boolean {
    return super.emit("connection", socket);
  }

  #admit(socket: Socket): boolean {
    socket.on("error", ignore); // an error ends only this connection
    return this.#serveOrRefuse(socket, this.#admission.admit(socket));
  }

  /** Serves a connection without a descriptor, with a peer that a test has made. */
  protected connectAs(open: OpenFake, options: ServerOpts): void {
    const admission = this.#admission;
    if (admission.server === "") admission.server = "ucred/testing";
    const { socket, peer, handle } = open({ ...options, isPinned: admission.pins() });
    socket.on("error", ignore);
    this.#serveOrRefuse(socket, admission.admitPeer(peer, handle, false));
  }

  #serveOrRefuse(socket: Socket, answer: Admitted | RefusedConnection): boolean {
    if (!isAdmitted(answer)) {
      this.refuse(socket, answer);
      return true;
    }
    this.#lifecycle.opened();
    socket.once("close", () => {
      this.#admission.ended(answer);
      this.#lifecycle.closed();
    });
    return this.serve(socket, answer);
  }
}
