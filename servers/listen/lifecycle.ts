/**
 * The lifecycle of a `node:net` or `node:http` server: it binds its socket, reports readiness, counts
 * connections, and closes gracefully.
 */

import { MAX_TIMER_MS } from "../../core/timers.ts";
import { UcredError } from "../../core/errors.ts";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import { refuseDescriptors } from "../../system/socket_option.ts";
import { takeInherited } from "../../system/sd_listen_fds.ts";
import { checkSupport } from "../../identity/support.ts";
import type { ServerStats } from "../admission/admission.ts";
import { Notification } from "./notification.ts";
import { bindSocketPath, type BoundPath, type SocketPathOptions } from "./socket_path.ts";

/** Options of all ways to listen. */
export interface CommonListenOptions {
  /**
   * Length of the queue of connections that wait for accept(2). By default 511. Node, and Deno's node:net
   * and node:http, apply it; Deno's own engine and Bun use a fixed length (Deno 2.9.5, Bun 1.4.5).
   */
  readonly backlog?: number | undefined;
  /**
   * Whether to send READY=1 to the service manager once the server listens, and STOPPING=1 when it closes,
   * for `Type=notify`. A notification is retried for 10 s while the manager's queue is full. A failure
   * emits a process warning, and the server continues. By default `false`.
   */
  readonly notify?: boolean | undefined;
}

/** Options for listening at a path or an abstract name. */
export interface PathListenOptions extends CommonListenOptions, SocketPathOptions {
  /** Excluded: a server listens either at a path or on an inherited socket. */
  readonly systemd?: undefined;
}

/** Options for listening on a socket that the service manager passed (systemd socket activation). */
export interface SystemdListenOptions extends CommonListenOptions {
  /** The socket's name, as set by `FileDescriptorName=`; `true` for the only remaining one. */
  readonly systemd: true | string;
  /** Excluded: a server listens either at a path or on an inherited socket. */
  readonly path?: undefined;
}

/** Options of `listen()`. */
export type ListenOptions = PathListenOptions | SystemdListenOptions;

/** The option names of {@link ListenOptions}. */
export const LISTEN_OPTIONS: OptionNames<PathListenOptions> & OptionNames<SystemdListenOptions> = {
  path: true,
  mode: true,
  owner: true,
  group: true,
  allowUnsafeFolder: true,
  systemd: true,
  backlog: true,
  notify: true,
};

/** Properties that Fastify's `listen()` adds to its caller's options. */
const FROM_FASTIFY = { cb: true, listenTextResolver: true } as const;

/** Options of `close()`. */
export interface CloseOptions {
  /**
   * Milliseconds that connections may take to end before they are cut off. By default unlimited.
   */
  readonly timeout?: number | undefined;
}

const CLOSE_OPTIONS: OptionNames<CloseOptions> = { timeout: true };

/** The members that servers of `ucred` add to those of the runtime. */
export interface SafeServer {
  /** Listens on a Unix socket. `listen(path)` also works. */
  listen(options: ListenOptions, onListening?: () => void): this;
  /** Stops listening, waits for connections, and cuts them off after `timeout`. */
  close(options: CloseOptions): Promise<void>;
  /** Returns the server's counters. */
  stats(): ServerStats;
}

/** Arguments of `listen()`: a path or options, then optionally a backlog and a callback. */
export type ListenArguments = readonly [
  where: string | ListenOptions,
  ...rest: readonly (number | (() => void) | undefined)[],
];

/** The operations of the runtime's own server. */
export interface NativeServer {
  /**
   * Starts listening. The server passes the resulting "listening" or "error" event to
   * `consumeStartEvent()`.
   */
  listen(where: { readonly path: string } | { readonly fd: number }, backlog: number): void;
  /** Stops listening. Calls back when the runtime has closed the last connection. */
  close(done: (error?: Error) => void): void;
  /** The listener's descriptor; `undefined` if the runtime hides it. */
  descriptor(): number | undefined;
  /** The address, as returned by `net.Server.address()`. */
  address(): unknown;
  /** Closes idle connections. */
  closeIdle(): void;
  /** Closes all connections. */
  cut(): void;
  /** Emits an event to the server's listeners. */
  emit(event: "listening"): void;
  emit(event: "error", error: unknown): void;
}

/** The lifecycle of one server. */
export class Lifecycle {
  readonly #native: NativeServer;
  /** Receives the server's path, and the address that its connections are bound to. */
  readonly #onBound: (path: string, boundTo: string) => void;
  /** Accepted sockets that have not emitted "close". */
  #open = 0;
  readonly #onEmpty: (() => void)[] = [];
  #isClosing = false;
  #waiting: { resolve(): void; reject(error: unknown): void } | undefined;
  #started: Promise<void> | undefined;
  #bound: BoundPath | undefined;
  #path: string | undefined;
  #notification: Notification | undefined;

  constructor(native: NativeServer, onBound: (path: string, boundTo: string) => void) {
    this.#native = native;
    this.#onBound = onBound;
  }

  /** The path at which the server listens; `undefined` while it does not. */
  get path(): string | undefined {
    return this.#path;
  }

  /** The number of accepted sockets that have not emitted "close". */
  get open(): number {
    return this.#open;
  }

  /** Whether the server stops listening and waits for connections. */
  get isClosing(): boolean {
    return this.#isClosing;
  }

  /** Counts an accepted socket. */
  opened(): void {
    this.#open++;
  }

  /** Subtracts a counted socket that has emitted "close". */
  closed(): void {
    this.#open--;
    if (this.#open === 0) { for (const run of this.#onEmpty.splice(0)) run(); }
  }

  /** Implements `listen()` of the server. `once` adds a listener of "listening". */
  listen(args: readonly unknown[], once: (onListening: () => void) => void): void {
    const { options, onListening } = parseListen(args as unknown as ListenArguments);
    if (onListening !== undefined) once(onListening);
    this.#listenOnce(options);
  }

  /** Implements `close()` of the server. Returns a promise if it is called with options. */
  close(how?: CloseOptions | ((error?: Error) => void)): Promise<void> | undefined {
    if (typeof how !== "object") {
      this.#close({}, how ?? (() => {}));
      return undefined;
    }
    return new Promise<void>((resolve, reject) => {
      this.#close(how, (error) => error === undefined ? resolve() : reject(error));
    });
  }

  /** Consumes "listening" or "error" of the native server during start-up; returns whether it did. */
  consumeStartEvent(event: unknown, error?: unknown): boolean {
    const waiting = this.#waiting;
    if (waiting === undefined || (event !== "listening" && event !== "error")) return false;
    this.#waiting = undefined;
    if (event === "listening") waiting.resolve();
    else waiting.reject(error);
    return true;
  }

  /** Starts listening. @throws {UcredError} `ERR_UCRED_LISTEN` if the server listens already. */
  #listenOnce(options: ListenOptions): void {
    if (this.#started !== undefined) {
      const hint = "Create one server for each socket";
      throw new UcredError("ERR_UCRED_LISTEN", "Cannot listen: the server listens already", {
        hint,
      });
    }
    this.#started = this.#start(options).then(
      () => queueMicrotask(() => this.#native.emit("listening")),
      (error) => {
        this.#started = undefined;
        // Without an "error" listener this ends the program, as with any server.
        queueMicrotask(() => this.#native.emit("error", error));
      },
    );
  }

  async #start(options: ListenOptions): Promise<void> {
    checkSupport(); // fails here rather than at the first connection
    const { backlog = 511 } = options;
    if (options.systemd !== undefined) {
      const name = options.systemd === true ? undefined : options.systemd;
      const { fd, path, giveBack } = takeInherited(name);
      try {
        this.#onBound(path, path);
        await this.#listen({ fd }, backlog);
      } catch (error) {
        giveBack();
        throw error;
      }
      this.#path = path;
    } else {
      let isBound = false;
      try {
        this.#bound = await bindSocketPath(options, async (path) => {
          this.#onBound(options.path, path);
          await this.#listen({ path }, backlog);
          isBound = true;
          refuseAttached(this.#native.descriptor());
        });
      } catch (error) {
        if (isBound) this.#native.close(() => {});
        throw error;
      }
      this.#path = this.#bound.path;
      this.#onBound(this.#path, this.#bound.boundTo);
    }
    this.#notification = options.notify === true ? new Notification() : undefined;
    this.#notification?.ready();
  }

  async #listen(where: { path: string } | { fd: number }, backlog: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#native.listen(where, backlog);
    });
    const address = this.#native.address();
    if (typeof address !== "object" || address === null || !("port" in address)) return;
    this.#native.close(() => {}); // some runtimes ignore a descriptor and open a TCP port
    const message = "Cannot listen: the runtime opened a TCP port instead of the socket";
    const hint = "Report this with your runtime's version";
    throw new UcredError("ERR_UCRED_LISTEN", message, { hint });
  }

  /**
   * Stops listening, removes the socket's file if it is still ours, and waits for connections.
   *
   * @param done Called when the last connection has ended.
   */
  #close(options: CloseOptions, done: (error?: Error) => void): void {
    const startTimer = closeTimer(options);
    const close = () => {
      this.#bound?.remove(); // before the socket closes: until then its inode number is not reused
      this.#bound = undefined;
      this.#path = undefined;
      this.#notification?.stopping();
      this.#notification = undefined;
      const stopTimer = startTimer(() => this.#native.cut());
      this.#isClosing = true;
      const end = (error?: Error) => {
        stopTimer();
        this.#isClosing = false;
        this.#started = undefined;
        done(error);
      };
      this.#native.close((error) => {
        // The runtime's connection count reaches 0 before the last socket emits "close", so we keep our own.
        if (this.#open === 0) end(error);
        else this.#onEmpty.push(() => end(error));
      });
      this.#native.closeIdle();
    };
    if (this.#started === undefined || this.#path !== undefined) close();
    else void this.#started.then(close);
  }
}

/**
 * Validates `timeout`. The returned function starts the timer, which calls `cut`, and returns a function
 * that stops it.
 *
 * @throws {RangeError} If `timeout` is not a number of at least 0.
 * @throws {TypeError} If an option is unknown.
 */
export function closeTimer(options: CloseOptions): (cut: () => void) => () => void {
  requireOptions("close()", options, CLOSE_OPTIONS);
  const { timeout = Infinity } = options;
  if (!(typeof timeout === "number" && timeout >= 0)) {
    throw new RangeError(`timeout must be a number of milliseconds of at least 0, not ${timeout}`);
  }
  return (cut) => {
    const timer = timeout > MAX_TIMER_MS ? undefined : setTimeout(cut, timeout);
    return () => clearTimeout(timer);
  };
}

/** Parses the arguments of `listen()`. @throws {TypeError} If they do not describe a Unix socket. */
function parseListen(
  [where, ...rest]: ListenArguments,
): { readonly options: ListenOptions; readonly onListening: (() => void) | undefined } {
  const onListening = rest.find((each) => typeof each === "function");
  const backlog = rest.find((each) => typeof each === "number");
  const given: unknown = typeof where === "string" ? { path: where } : where;
  if (typeof given !== "object" || given === null) throw notUnix();
  const options = given as ListenOptions & { readonly port?: unknown; readonly fd?: unknown };
  if (options.port !== undefined || options.fd !== undefined) throw notUnix();
  requireOptions("listen()", options, { ...LISTEN_OPTIONS, ...FROM_FASTIFY });
  if ((options.path === undefined) === (options.systemd === undefined)) {
    throw new TypeError("listen() requires either path or systemd");
  }
  return { options: { ...options, ...(backlog !== undefined && { backlog }) }, onListening };
}

function notUnix(): TypeError {
  return new TypeError(
    "listen() requires a path, { path, mode, … } or { systemd: true }; a port or a descriptor is not supported",
  );
}

/**
 * Returns how often to check timeouts: four times per shortest timeout, and at least every `most`
 * milliseconds. A timeout of 0 is disabled.
 */
export function checkingInterval(most: number, ...timeouts: readonly number[]): number {
  return Math.max(
    20,
    Math.min(most, ...timeouts.filter((each) => each > 0).map((each) => each / 4)),
  );
}

/** Makes the kernel reject descriptors that clients pass, unless the runtime hides the listener's descriptor. */
export function refuseAttached(listener: number | undefined): void {
  if (listener !== undefined) refuseDescriptors(listener);
}
