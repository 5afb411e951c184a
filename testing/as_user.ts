/** Opens connections to a server or an application as any peer, through the decision of the server. */

import type { Duplex } from "node:stream";
import { UcredError } from "../core/errors.ts";
import { requireOptions } from "../core/options.ts";
import { show } from "../core/policy/document/shape.ts";
import type { Policy } from "../core/policy/policy.ts";
import type { UnixSocket } from "../identity/fd.ts";
import { Admission, isAdmitted } from "../servers/admission/admission.ts";
import { attachAdmission, attachDecision } from "../servers/admission/attach.ts";
import type { AuditLog } from "../servers/admission/audit.ts";
import {
  type Connection,
  decideRequest,
  isProblem,
  onProcessExit,
  requireUnread,
} from "../servers/http/decide_request.ts";
import type { FetchContext } from "../servers/http/fetch_context.ts";
import { BAD_HOST, forbidden, responseOf } from "../servers/http/problem.ts";
import { valueIn } from "../servers/http/request_attributes.ts";
import { isHost } from "../servers/http/request_target.ts";
import { SERVE_OPTIONS } from "../servers/http/serve.ts";
import { CONNECT_AS, type OpenFake } from "../servers/listen/admitting_server.ts";
import type { NetServer } from "../servers/net.ts";
import { type FakePeer, peerOfConnection } from "./fake_peer.ts";
import { socketPair } from "./fake_socket.ts";

/** Handles a request that the policy allows, like `fetch` of `serve()`. */
export type FetchHandler = (
  request: Request,
  context: FetchContext,
) => Response | Promise<Response>;

/**
 * An application: the options of `serve()`, or an object with a method `fetch()`, such as an application of
 * Hono. The other options of `serve()` have no effect.
 */
export interface FetchApp {
  /** Handles requests that the policy allows. */
  readonly fetch: FetchHandler;
  /** The policy, as in `serve()`: by default only root and the server's own user are allowed. */
  readonly policy?: Policy | "anyone" | undefined;
  /** Whether the peer is pinned, as in `serve()`. */
  readonly pin?: boolean | undefined;
  /** Whether changes of the peer are checked before each request, as in `serve()`. */
  readonly revalidate?: boolean | undefined;
  /** The audit log. Its records of fake peers have `"source": "test"`. */
  readonly audit?: AuditLog | undefined;
}

/** A connection of a fake peer to an application. */
export interface FakeConnection {
  /**
   * Sends a request. The response is the one that a client of `serve()` would receive: 403 for a denied
   * request, 400 for an ambiguous path, 500 if the handler fails.
   *
   * @param input A path with its query, which the server receives as it is, or a Request.
   * @param init Method, headers and body, as for `fetch()`.
   * @throws {UcredError} `ERR_UCRED_REFUSED` if the server would close the connection without a response:
   * the policy failed.
   * @throws {TypeError} If the path does not begin with "/".
   */
  fetch(input: string | Request, init?: RequestInit): Promise<Response>;
}

/** A process that can connect to a server of `ucred/net`. */
export interface FakeClient {
  /**
   * Opens a connection, and returns the client's end. The server has decided the connection when this
   * returns: the client receives what a handler, or `refusalMessage`, has written, and then the end. The
   * server does not have to listen.
   */
  connect(): Duplex;
}

/**
 * Connects to a server of `ucred/net` as a fake peer, without a socket. The policy and the limits decide each
 * connection, by the same code as for a socket. The handler receives a stream with the methods of
 * `net.Socket`, which has no descriptor and no addresses.
 *
 * @param server A server that `createServer()` of `ucred/net` has made.
 * @throws {TypeError} If `server` is another kind of server, or `peer` is not a fake peer.
 *
 * @example Test a line server as root, and as another user
 * ```ts
 * import { definePolicy } from "ucred";
 * import { createServer } from "ucred/net";
 * import { asUser, fakePeer } from "ucred/testing";
 *
 * const policy = definePolicy({
 *   version: 1,
 *   rules: [{ name: "root", when: { uid: 0 }, allow: true }],
 * });
 * const server = createServer(
 *   { policy, refusalMessage: "no\n" },
 *   (socket, peer) => void socket.end(`welcome, uid ${peer.uid}\n`),
 * );
 *
 * for (const uid of [0, 1000]) {
 *   let text = "";
 *   for await (const chunk of asUser(server, fakePeer({ uid })).connect()) text += chunk;
 *   console.log(text.trimEnd());
 * }
 * // welcome, uid 0
 * // no
 * ```
 */
export function asUser(server: NetServer, peer: FakePeer): FakeClient;
/**
 * Opens a connection of a fake peer to an application, without a socket. The policy decides the connection
 * and each request, by the same code as in `serve()`. All requests share the connection, on which the peer
 * has the facts and the pin that the server would see.
 *
 * @param app The options of `serve()`, an application of Hono, or a handler.
 * @throws {TypeError} If `app` is not an application, an option is unknown, or `peer` is not a fake peer.
 *
 * @example Test a server as a user, and as root
 * ```ts
 * import { definePolicy } from "ucred";
 * import { asUser, fakePeer, type FetchApp } from "ucred/testing";
 *
 * const policy = definePolicy({
 *   version: 1,
 *   rules: [{ name: "root", when: { uid: 0 }, actions: "GET /**", allow: true }],
 * });
 * const app: FetchApp = {
 *   policy,
 *   fetch: (_, { peer }) => new Response(`welcome, uid ${peer.uid}`),
 * };
 *
 * const welcome = await asUser(app, fakePeer({ uid: 0 })).fetch("/");
 * console.log(welcome.status, await welcome.text()); // 200 welcome, uid 0
 * const denied = await asUser(app, fakePeer({ uid: 1000 })).fetch("/");
 * console.log(denied.status); // 403
 * ```
 */
export function asUser(app: FetchApp | FetchHandler, peer: FakePeer): FakeConnection;
export function asUser(
  to: NetServer | FetchApp | FetchHandler,
  peer: FakePeer,
): FakeClient | FakeConnection {
  peerOfConnection(peer, false); // throws here rather than at the first request
  return isServer(to) ? clientOf(to, peer) : connectionTo(to, peer);
}

/** Whether it is a server, which has listen(), rather than an application. */
function isServer(to: object | undefined): to is NetServer {
  const { listen, fetch } = (to ?? {}) as { readonly listen?: unknown; readonly fetch?: unknown };
  return typeof listen === "function" && fetch === undefined;
}

function clientOf(server: NetServer, peer: FakePeer): FakeClient {
  const accepting = server as NetServer & { [CONNECT_AS]?(open: OpenFake): void };
  if (accepting[CONNECT_AS] === undefined || "probeUpstream" in server) {
    throw new TypeError(
      "asUser() cannot connect to this server: only a server of createServer() of ucred/net accepts " +
        "connections without a socket",
    );
  }
  return {
    connect: () => {
      let client: Duplex | undefined;
      accepting[CONNECT_AS]!(({ isPinned, ...options }) => {
        const ends = socketPair(options);
        client = ends.client;
        const own = peerOfConnection(peer, isPinned);
        ends.server.once("close", () => own.close());
        return { socket: ends.server, peer: own, handle: new Handle(ends.server) };
      });
      return client!;
    },
  };
}

/** The handle of a connection without a descriptor, as the server expects it. */
class Handle {
  readonly #socket: Duplex;

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  /** While it is open, a number that no descriptor has. */
  get fd(): number {
    return this.#socket.destroyed ? -1 : 0x7fffffff;
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

function connectionTo(app: FetchApp | FetchHandler, peer: FakePeer): FakeConnection {
  const { fetch, policy, pin, revalidate = false, audit = SILENT } = optionsOf(app);
  const admission = new Admission(
    { policy, pin: pin ?? (revalidate || undefined), audit },
    "action",
  );
  admission.server = "ucred/testing";
  let connection: Connection | undefined;
  const end = new AbortController();

  const connect = (): Connection | Response => {
    const own = peerOfConnection(peer, admission.pins());
    const answer = admission.admitPeer(own, NO_SOCKET, false);
    if (isAdmitted(answer)) {
      if (revalidate) onProcessExit(own, () => end.abort());
      return connection = { admitted: answer, hasRequested: false };
    }
    if (answer.why === "policy") return responseOf(forbidden(answer.decision!));
    const message =
      "Cannot send the request: the server closes the connection, since its policy failed";
    const hint = "Subscribe to the events of ucred/audit for the error";
    throw new UcredError("ERR_UCRED_REFUSED", message, { hint });
  };

  return {
    fetch: async (input, init) => {
      const { draft, target, host } = requestOf(input, init);
      const open = connection ?? connect();
      if (open instanceof Response) return open;
      const outcome = decideRequest(
        admission,
        open,
        draft.method,
        target,
        isHost(host) ? undefined : BAD_HOST,
        revalidate,
        (name) => name === "host" ? [host] : valueIn(draft.headers, name),
      );
      if (isProblem(outcome)) return responseOf(outcome);
      // Elysia assumes a host of at least four characters, so serve() replaces a shorter one.
      const origin = `http://${host.length < 4 ? "localhost" : host}`;
      const decided = new Request(origin + outcome.url, draft);
      const signal = revalidate ? AbortSignal.any([decided.signal, end.signal]) : undefined;
      const request = signal === undefined ? decided : new Request(decided, { signal });
      const { decision } = outcome;
      const { admitted } = open;
      attachAdmission(request, admitted);
      attachDecision(request, decision);
      try {
        return requireUnread(await fetch(request, { peer: admitted.peer, decision }));
      } catch (error) {
        admission.failed(admitted, error);
        return new Response(null, { status: 500 });
      }
    },
  };
}

/** A stand-in for the socket that fake peers lack. Only a limit on connections would close it, and there is none. */
const NO_SOCKET = {} as UnixSocket;

/** Without an audit log, each refused connection would emit a process warning. */
const SILENT: AuditLog = {
  dropped: 0,
  error: undefined,
  write: () => {},
  reopen: () => {},
  close: () => Promise.resolve(),
};

function optionsOf(app: FetchApp | FetchHandler): FetchApp {
  if (typeof app === "function") return { fetch: app };
  if (typeof app?.fetch !== "function") {
    const message =
      "asUser() requires the options of serve(), an object with a method fetch(), or a server of ucred/net";
    throw new TypeError(`${message}, not ${show(app)}`);
  }
  // An application of a framework has properties of its own.
  if (Object.getPrototypeOf(app) === Object.prototype) {
    requireOptions("asUser()", app, SERVE_OPTIONS);
  }
  const { policy, pin, revalidate, audit } = app;
  return {
    policy,
    pin,
    revalidate,
    audit,
    fetch: (request, context) => app.fetch(request, context),
  };
}

/** Returns a request with its target and host, as a client would send them. */
function requestOf(
  input: string | Request,
  init: RequestInit | undefined,
): { readonly draft: Request; readonly target: string; readonly host: string } {
  if (typeof input === "string" && !input.startsWith("/")) {
    throw new TypeError(
      `fetch() requires a path that begins with "/", or a Request, not ${show(input)}`,
    );
  }
  const draft = new Request(typeof input === "string" ? "http://localhost/" : input, init);
  const url = new URL(draft.url);
  return {
    draft,
    target: typeof input === "string" ? input : url.pathname + url.search,
    host: draft.headers.get("host") ?? url.host,
  };
}
