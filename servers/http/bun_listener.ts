/** The parts of a `node:http` server that only Bun needs, checked on Bun 1.4.5. */

import { createServer as createNetServer, type Server as NetServer, type Socket } from "node:net";
import { hidesFd, httpHidesFd } from "../../identity/fd.ts";
import { DescriptorFinder, type FoundSocket } from "../../system/accepted_sockets.ts";
import type { Admission, Admitted, RefusedConnection } from "../admission/admission.ts";

/**
 * Works around two limits of Bun's `http.Server`. It hides the descriptors of its connections, so they are
 * searched for. It cannot listen on an inherited descriptor, so a `net.Server` listens instead.
 */
export class BunListener {
  /** Finds the descriptors of connections. */
  #finder: DescriptorFinder | undefined;
  /** The address that the listener was bound to; the descriptor search looks for it. */
  #boundTo: string | undefined;
  /** Listens on an inherited descriptor. */
  #inner: NetServer | undefined;

  /** Sets the address that the listener was bound to. */
  searchFor(boundTo: string): void {
    if (!httpHidesFd() || boundTo === this.#boundTo) return;
    this.#finder = new DescriptorFinder(boundTo);
    this.#boundTo = boundTo;
  }

  /**
   * Listens on an inherited descriptor. Bun's http.Server ignores a descriptor and opens a random TCP port
   * (oven-sh/bun 22559).
   *
   * @returns `false` if the server can listen itself.
   */
  listen(
    where: { readonly path: string } | { readonly fd: number },
    backlog: number,
    onConnection: (socket: Socket) => void,
    onStart: (event: string, error: unknown) => void,
  ): boolean {
    if (!("fd" in where && httpHidesFd())) return false;
    const inner = this.#inner = createNetServer(onConnection);
    for (const event of ["listening", "error"]) {
      inner.on(event, (error) => onStart(event, error));
    }
    inner.listen({ ...where, backlog });
    return true;
  }

  /** The `net.Server` that listens on an inherited descriptor; `undefined` if there is none. */
  get inner(): NetServer | undefined {
    return this.#inner;
  }

  /** Stops listening on an inherited descriptor. Returns `false` if there is none. */
  close(done: (error?: Error) => void): boolean {
    const inner = this.#inner;
    this.#inner = undefined;
    inner?.close(done);
    return inner !== undefined;
  }

  /** Admits a connection, after searching for its descriptor where the runtime hides it. */
  admit(socket: Socket, admission: Admission): Admitted | RefusedConnection {
    if (this.#finder === undefined || !hidesFd(socket)) return admission.admit(socket);
    let found: FoundSocket;
    try {
      found = this.#finder.find(socket);
    } catch (error) {
      return admission.unidentified(error);
    }
    socket.on("close", () => found.close());
    return admission.admit(socket, true, found.fd);
  }
}
