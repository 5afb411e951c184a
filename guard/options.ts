/** The options of a guard, and its interface as a server. */

import type { Policy } from "../core/policy/policy.ts";
import type { ServerExpectation } from "../identity/verify_server.ts";
import type { AuditLog } from "../servers/admission/audit.ts";
import type { Limits } from "../servers/admission/limits.ts";
import type { RequestReport } from "../servers/http/request_report.ts";
import type { ListenOptions, SafeServer } from "../servers/listen/lifecycle.ts";
import type { GuardStats } from "./stats.ts";

/** Options of `createGuard()`. */
export interface GuardOptions {
  /**
   * `"stream"` decides each connection and passes bytes in both directions; `"http"` decides each
   * request by `METHOD /path` and adds the peer's identity as headers; `"docker"` decides each request to
   * a Docker engine by its action and attributes, and separates the containers of users; `"dbus"` decides
   * each message to and from a D-Bus message bus or server; `"mcp"` decides each message to a server of the Model
   * Context Protocol that has one JSON message on each line.
   */
  readonly mode: "stream" | "http" | "docker" | "dbus" | "mcp";
  /** The upstream's socket: a path, or an abstract name with "\0" first. */
  readonly upstream: string;
  /** The expected identity of the upstream, verified before the first byte is sent to it. */
  readonly expect?: ServerExpectation | undefined;
  /**
   * Whether the guard connects to the upstream with the client's effective uid, gid and supplementary
   * groups, so that the upstream's own SO_PEERCRED and SO_PEERGROUPS name the client. The pid is that of the
   * guard. Linux only; requires CAP_SETUID and CAP_SETGID. By default `false`.
   */
  readonly asPeer?: boolean | undefined;
  /** Decides connections or requests. By default only root and our own user are allowed. */
  readonly policy?: Policy | undefined;
  /** Limits for connections. By default those of `ucred/net`, or fewer if RLIMIT_NOFILE is too low. */
  readonly limits?: Limits | undefined;
  /** Records connections and decisions. */
  readonly audit?: AuditLog | undefined;
  /**
   * Whether clients may upgrade to HTTP/2 in `"http"` mode. The requests inside bypass the policy. By
   * default `false`.
   */
  readonly h2c?: boolean | undefined;
  /**
   * Milliseconds that may pass in `"http"` and `"docker"` mode without a byte of a request's body, before the client
   * receives 408. Time counts while the upstream could receive more and has not begun to respond. Upgrades
   * have no limit. By default 300,000; 0 disables the timeout.
   */
  readonly bodyTimeout?: number | undefined;
  /**
   * Whether clients and the upstream speak HTTP/2 with prior knowledge in `"http"` mode, beside HTTP/1.1. The
   * policy decides each stream. Not on Deno. By default `false`: such connections are refused.
   */
  readonly http2?: boolean | undefined;
  /**
   * A file that receives the requests of each client in `"http"` and `"docker"` mode, for `ucred policy suggest`. The
   * guard creates the file with mode `0o600`, or continues it. The file has at most 10,000 different requests, 2000
   * of each user, and no secret attributes. The policy still decides.
   */
  readonly learn?: string | undefined;
  /**
   * A file that keeps the owners of containers and execs in `"docker"` mode across restarts. The guard creates it
   * with mode `0o600`. Without this file, execs have no owner after a restart.
   */
  readonly state?: string | undefined;
  /** Names of headers to forward although only a trusted proxy should set them: `X-Forwarded-For`. */
  readonly keepHeaders?: readonly string[] | undefined;
  /**
   * Called for each request that has ended, for traces; not in `"stream"` mode. An error that it throws is
   * reported by `report`.
   */
  readonly onRequest?: ((request: RequestReport) => void) | undefined;
  /**
   * Called with one line for each problem that an operator should see: the upstream cannot be reached,
   * or the limits were lowered. Control characters are escaped. By default nothing is reported.
   */
  readonly report?: ((line: string) => void) | undefined;
}

/** A guard: a server like those of `ucred/net` and `ucred/http`. */
export type GuardServer = Omit<SafeServer, "stats" | "listen"> & {
  /** Listens on a Unix socket. `listen(path)` also works. */
  listen(options: ListenOptions, onListening?: () => void): GuardServer;
  /** Returns the guard's counters. */
  stats(): GuardStats;
  /**
   * Connects to the upstream once with the guard's own ids, verifies it, and closes the connection. For
   * readiness checks.
   *
   * @throws If it cannot be reached within 2 s, or is not the expected server.
   */
  probeUpstream(): Promise<void>;
  once(event: "error", run: (error: Error) => void): unknown;
  off(event: "error", run: (error: Error) => void): unknown;
  address(): unknown;
};
