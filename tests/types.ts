/** Checked, but never run: the type check fails if a socket is wrongly accepted or rejected. */

import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { identify, peerCredentials } from "../mod.ts";
import type * as bun from "../servers/bun.ts";
import type * as client from "../client/mod.ts";
import type * as deno from "../servers/deno.ts";
import type * as http from "../servers/http.ts";
import type * as net from "../servers/net.ts";

/** Every runtime's own sockets are valid arguments. */
export function accepted(a: Socket, b: IncomingMessage, c: Bun.Socket<undefined>): void {
  for (const socket of [a, b, c, { fd: 3 }, 3]) {
    peerCredentials(socket);
    identify(socket);
  }
}

/** Objects that hide their descriptor are type errors. */
export function refused(a: Deno.UnixConn, b: Request, c: string): void {
  // @ts-expect-error: Deno.listen hides the descriptor
  peerCredentials(a);
  // @ts-expect-error: Deno.serve and Bun.serve hide it
  peerCredentials(b);
  // @ts-expect-error: no socket
  identify(c);
}

/** The types of handlers are exported where the servers are. */
export type Everywhere = [
  http.Peer | net.Peer | deno.Peer | bun.Peer,
  http.Decision | net.Decision | deno.Decision | bun.Decision,
  http.UcredError | net.UcredError | deno.UcredError | bun.UcredError | client.UcredError,
];
