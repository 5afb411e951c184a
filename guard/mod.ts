/**
 * A reverse proxy that adds identity: `ucred/guard`. It listens on a socket of its own, identifies each
 * client, decides by a policy, and forwards allowed connections or requests to an upstream server.
 *
 * @example A guard in front of a server that does not identify its clients
 * ```ts
 * import { createServer } from "node:net";
 * import { createGuard } from "ucred/guard";
 *
 * const upstream = createServer((socket) => void socket.end("welcome\n")).listen("upstream.sock");
 * const guard = createGuard({
 *   mode: "stream",
 *   upstream: "upstream.sock",
 *   report: (line) => console.error(line),
 * });
 * guard.listen({ path: "app.sock" }, () => console.log("listening"));
 * process.once("SIGTERM", () => {
 *   guard.close({ timeout: 5000 }).then(() => upstream.close());
 * });
 * ```
 *
 * @module
 */

import { host } from "../adapters/host.ts";
import { UcredError } from "../core/errors.ts";
import { show } from "../core/policy/document/shape.ts";
import { type OptionNames, requireOptions } from "../core/options.ts";
import { guardDbus } from "./dbus/server.ts";
import { guardDocker } from "./docker/server.ts";
import { guardHttp } from "./http/server.ts";
import { limitsWithinFiles } from "./limits.ts";
import { guardMcp } from "./mcp/server.ts";
import type { GuardOptions, GuardServer } from "./options.ts";
import { guardStream } from "./stream.ts";

export type { GuardOptions, GuardServer } from "./options.ts";
export type { GuardStats } from "./stats.ts";
export { prometheusText } from "./prometheus.ts";
export type {
  Histogram,
  RequestOutcome,
  RequestReport,
  RequestStats,
} from "../servers/http/request_report.ts";

const OPTIONS: OptionNames<GuardOptions> = {
  mode: true,
  upstream: true,
  expect: true,
  asPeer: true,
  policy: true,
  limits: true,
  audit: true,
  h2c: true,
  http2: true,
  keepHeaders: true,
  bodyTimeout: true,
  learn: true,
  state: true,
  onRequest: true,
  report: true,
};

const GUARDS = {
  stream: guardStream,
  http: guardHttp,
  docker: guardDocker,
  dbus: guardDbus,
  mcp: guardMcp,
} as const;

/** Options that have no effect, by mode. Clients share a guard's connections to Docker, which has no identity. */
const IDLE_OPTIONS = {
  stream: ["h2c", "http2", "keepHeaders", "bodyTimeout", "learn", "state", "onRequest"],
  http: ["state"],
  docker: ["h2c", "http2", "keepHeaders", "asPeer"],
  dbus: ["h2c", "http2", "keepHeaders", "bodyTimeout", "learn", "state"],
  mcp: ["h2c", "http2", "keepHeaders", "bodyTimeout", "learn", "state"],
} as const;

/**
 * Makes a guard. It prints nothing, and does not listen yet: call its `listen()`.
 *
 * @throws {TypeError} If an option does not exist, has another type, or has no effect in this mode.
 * @throws {RangeError} If `bodyTimeout` is not a number of at least 0.
 * @throws {UcredError} `ERR_UCRED_LISTEN` if the process may open too few files for one connection;
 * `ERR_UCRED_PERMISSION` or `ERR_UCRED_UNSUPPORTED` if `asPeer` is set and this process cannot connect as
 * its clients, or if `http2` is set on Deno; `ERR_UCRED_POLICY` if `policy` tests actions without
 * the `about` of its mode.
 */
export function createGuard(options: GuardOptions): GuardServer {
  requireOptions("createGuard()", options, OPTIONS);
  const { mode } = options;
  if (typeof mode !== "string" || !Object.hasOwn(GUARDS, mode)) {
    const given = JSON.stringify(mode);
    const modes = Object.keys(GUARDS).map((name) => `"${name}"`).join(", ");
    throw new TypeError(`mode must be one of ${modes}, not ${given}`);
  }
  if (typeof options.upstream !== "string" || options.upstream === "") {
    throw new TypeError('upstream must be the path of a socket, or an abstract name after "\\0"');
  }
  if (options.asPeer !== undefined && typeof options.asPeer !== "boolean") {
    throw new TypeError(`asPeer must be a boolean, not ${JSON.stringify(options.asPeer)}`);
  }
  const { bodyTimeout = 0 } = options;
  if (!(typeof bodyTimeout === "number" && bodyTimeout >= 0)) {
    throw new RangeError(
      `bodyTimeout must be a number of milliseconds of at least 0, not ${show(bodyTimeout)}`,
    );
  }
  const given = IDLE_OPTIONS[mode].find((name) =>
    options[name] !== undefined && options[name] !== false
  );
  if (given !== undefined) throw new TypeError(`${given} has no effect in mode "${mode}"`);
  if (options.http2 !== undefined && typeof options.http2 !== "boolean") {
    throw new TypeError(`http2 must be a boolean, not ${JSON.stringify(options.http2)}`);
  }
  if (options.http2 === true) requireHttp2();
  const limits = limitsWithinFiles(options.limits ?? {}, options.report ?? (() => {}));
  return GUARDS[mode]({ ...options, limits });
}

/** Fails if this runtime cannot serve HTTP/2. */
function requireHttp2(): void {
  const { runtime, name } = host();
  if (runtime !== "deno") return;
  const message = `Cannot serve HTTP/2 on ${name}: a client can end the process with GOAWAY frames`;
  throw new UcredError("ERR_UCRED_UNSUPPORTED", message, { hint: "Use Node or Bun" });
}
