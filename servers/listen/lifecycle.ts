/** A server's life: it listens safely, is ready, and closes gracefully. For node:net and node:http. */

import { UcredError } from "../../core/errors.ts";
import { type OptionNames, requireOptions } from "../../core/options.ts";
import { takeInherited } from "../../system/sd_listen_fds.ts";
import { checkSupport } from "../../identity/support.ts";
import type { ServerStats } from "../admission/admission.ts";
import { Notification } from "./notification.ts";
import { bindSocketPath, type BoundPath, type SocketPathOptions } from "./socket_path.ts";

/** How to listen, wherever that is. */
export interface CommonListenOptions {
  /**
   * Connections that may wait to be accepted. By default 511. Node keeps to it, and Deno's node:net and
   * node:http; Deno's own engine and all of Bun have a number of their own (Deno 2.9.5, Bun 1.4.5).
   */
  readonly backlog?: number | undefined;
  /**
   * Whether to report READY=1 to the service manager once the server listens, and STOPPING=1 when it
   * closes, for `Type=notify`. A report for which there is no room is repeated for 10 s; one that fails
   * is a process warning, and the server goes on. By default `false`.
   */
  readonly notify?: boolean | undefined;
}

/** Listens at a path or an abstract name. */
export interface PathListenOptions extends CommonListenOptions, SocketPathOptions {
  /** Another way to listen. */
  readonly systemd?: undefined;
}

/** Listens on a socket that the service manager passed (systemd socket activation). */
export interface SystemdListenOptions extends CommonListenOptions {
  /** Its name, as `FileDescriptorName=` has it; `true`: the only one that is left. */
  readonly systemd: true | string;
  /** Another way to listen. */
  readonly path?: undefined;
}

/** Where and how a server listens. */
export type ListenOptions = PathListenOptions | SystemdListenOptions;

/** The options of {@link ListenOptions}. */
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

/** What Fastify's `listen()` passes on beside the options that it was given. */
const FROM_FASTIFY = { cb: true, listenTextResolver: true } as const;

/** How a server closes. */
export interface CloseOptions {
  /**
   * Milliseconds that connections have to end by themselves, before they are cut. By default they have
   * all the time that they take.
   */
  readonly timeout?: number | undefined;
}

const CLOSE_OPTIONS: OptionNames<CloseOptions> = { timeout: true };

/** What servers of `ucred` have beside the runtime's. */
export interface SafeServer {
  /** Also `listen(path)`; nothing but Unix sockets. */
  listen(options: ListenOptions, onListening?: () => void): this;
  /** Stops to listen, waits for connections, and cuts them once `timeout` is over. */
  close(options: CloseOptions): Promise<void>;
  /** What it has seen. */
  stats(): ServerStats;
}

/** A path, or options; then perhaps a backlog, and what runs once the server listens. */
export type ListenArguments = readonly [
  where: string | ListenOptions,
  ...rest: readonly (number | (() => void) | undefined)[],
];

/** What the runtime's own server does. */
export interface NativeServer {
  /** Starts to listen; `intercept` is told the "listening" or "error" that comes of it. */
  listen(where: { readonly path: string } | { readonly fd: number }, backlog: number): void;
  /** Stops to listen; calls back when the last connection has ended. */
  close(done: (error?: Error) => void): void;
  /** What it listens on, as `net.Server.address()` has it. */
  address(): unknown;
  /** Ends connections on which nothing is going on. */
  closeIdle(): void;
  /** Ends all connections. */
  cut(): void;
  /** Tells whoever listens to the server's events. */
  emit(event: "listening"): void;
  emit(event: "error", error: unknown): void;
}

/** One start and one end. */
export class Listening {
  readonly #native: NativeServer;
  /** Told to where the server listens, and what its connections are bound to. */
  readonly #onPlace: (path: string, boundTo: string) => void;
  #waiting: { resolve(): void; reject(error: unknown): void } | undefined;
  #started: Promise<void> | undefined;
  #place: BoundPath | undefined;
  #path: string | undefined;
  #notification: Notification | undefined;

  constructor(native: NativeServer, onPlace: (path: string, boundTo: string) => void) {
    this.#native = native;
    this.#onPlace = onPlace;
  }

  /** Where the server listens; `undefined` while it does not. */
  get path(): string | undefined {
    return this.#path;
  }

  /** Whether an event is the native server's own, and not yet the server's. */
  intercept(event: unknown, error?: unknown): boolean {
    const waiting = this.#waiting;
    if (waiting === undefined || (event !== "listening" && event !== "error")) return false;
    this.#waiting = undefined;
    if (event === "listening") waiting.resolve();
    else waiting.reject(error);
    return true;
  }

  /** @throws {UcredError} `ERR_UCRED_LISTEN` if it listens already. */
  start(options: ListenOptions): void {
    if (this.#started !== undefined) {
      const hint = "Make one server for each socket";
      throw new UcredError("ERR_UCRED_LISTEN", "Cannot listen twice", { hint });
    }
    this.#started = this.#start(options).then(
      () => queueMicrotask(() => this.#native.emit("listening")),
      (error) => {
        this.#started = undefined;
        // Where nobody listens to errors this ends the program, as with any server.
        queueMicrotask(() => this.#native.emit("error", error));
      },
    );
  }

  async #start(options: ListenOptions): Promise<void> {
    checkSupport(); // not with the first connection
    const { backlog = 511 } = options;
    if (options.systemd !== undefined) {
      const name = options.systemd === true ? undefined : options.systemd;
      const { fd, path, giveBack } = takeInherited(name);
      try {
        this.#onPlace(path, path);
        await this.#listen({ fd }, backlog);
      } catch (error) {
        giveBack();
        throw error;
      }
      this.#path = path;
    } else {
      let isBound = false;
      try {
        this.#place = await bindSocketPath(options, async (path) => {
          this.#onPlace(options.path, path);
          await this.#listen({ path }, backlog);
          isBound = true;
        });
      } catch (error) {
        if (isBound) this.#native.close(() => {});
        throw error;
      }
      this.#path = this.#place.path;
      this.#onPlace(this.#path, this.#place.boundTo);
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
    this.#native.close(() => {}); // some runtimes take a descriptor for "any TCP port"
    const message = "Cannot listen: the runtime opened a TCP port instead of the socket";
    const hint = "Report this with your runtime's version";
    throw new UcredError("ERR_UCRED_LISTEN", message, { hint });
  }

  /**
   * Stops to listen, removes the socket's file if it is still ours, and waits for connections.
   *
   * @param done Called when the last has ended.
   */
  close(options: CloseOptions, done: (error?: Error) => void): void {
    const startTimer = closeTimer(options);
    const close = () => {
      this.#place?.remove(); // while the socket is open: until then its inode is nobody else's
      this.#place = undefined;
      this.#path = undefined;
      this.#notification?.stopping();
      this.#notification = undefined;
      const stopTimer = startTimer(() => this.#native.cut());
      this.#native.close((error) => {
        stopTimer();
        this.#started = undefined;
        done(error);
      });
      this.#native.closeIdle();
    };
    if (this.#started === undefined || this.#path !== undefined) close();
    else void this.#started.then(close);
  }
}

/** The longest that timers of the runtimes know: of more they make 1 ms. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * What starts the time that connections have, given what cuts them; that gives what stops it.
 *
 * @throws {RangeError} If the time is none.
 * @throws {TypeError} If there is no option of a name.
 */
export function closeTimer(options: CloseOptions): (cut: () => void) => () => void {
  requireOptions("close()", options, CLOSE_OPTIONS);
  const { timeout = Infinity } = options;
  if (!(typeof timeout === "number" && timeout >= 0)) {
    throw new RangeError(`timeout is a number of milliseconds from 0, not ${timeout}`);
  }
  return (cut) => {
    const timer = timeout > MAX_TIMER_MS ? undefined : setTimeout(cut, timeout);
    return () => clearTimeout(timer);
  };
}

/** Takes `listen()`'s arguments apart. @throws {TypeError} If they ask for something else. */
export function parseListen(
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
    throw new TypeError("listen() takes either a path or systemd");
  }
  return { options: { ...options, ...(backlog !== undefined && { backlog }) }, onListening };
}

function notUnix(): TypeError {
  return new TypeError(
    "listen() takes a path, or { path, mode, … }, or { systemd: true }: no port, and no descriptor",
  );
}

/** How often to look for connections beyond a timeout, in ms; 0 is none. */
export function checkingInterval(most: number, ...timeouts: readonly number[]): number {
  return Math.max(
    20,
    Math.min(most, ...timeouts.filter((each) => each > 0).map((each) => each / 4)),
  );
}
