/** The guard's D-Bus mode as a server: decides each message. */

import type { Socket } from "node:net";
import {
  Admission,
  type Admitted,
  type RefusedConnection,
} from "../../servers/admission/admission.ts";
import { AdmittingServer } from "../../servers/listen/admitting_server.ts";
import type { SafeServer } from "../../servers/listen/lifecycle.ts";
import { guardServerOf } from "../guard_server.ts";
import type { GuardOptions, GuardServer } from "../options.ts";
import { requireActionsOf } from "../policy_check.ts";
import { RequestCounters } from "../stats.ts";
import { Upstream } from "../upstream.ts";
import { DbusConnection, type Shared } from "./connection.ts";
import { BusNames } from "./names.ts";

/**
 * Makes a guard in D-Bus mode. It does not listen yet.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if the policy tests actions without `about: dbus`.
 */
export function guardDbus(options: GuardOptions): GuardServer {
  if (options.policy !== undefined) requireActionsOf("dbus", options.policy);
  const upstream = new Upstream(options);
  const requests = new RequestCounters();
  const server = new DbusGuard(options, upstream, requests) as unknown as SafeServer;
  return guardServerOf(server, upstream, options.limits, requests);
}

class DbusGuard extends AdmittingServer {
  readonly #shared: Shared;

  constructor(options: GuardOptions, upstream: Upstream, requests: RequestCounters) {
    const { policy, limits, audit, onRequest, asPeer = false, report = () => {} } = options;
    const admission = new Admission({ policy, limits, audit }, "action");
    super({ allowHalfOpen: true }, admission);
    const guid = crypto.randomUUID().replaceAll("-", "");
    const names = new BusNames(upstream, report);
    this.#shared = { admission, upstream, requests, onRequest, report, asPeer, guid, names };
  }

  protected override serve(socket: Socket, admitted: Admitted): true {
    void new DbusConnection(socket, admitted, this.#shared).run();
    return true;
  }

  protected override refuse(socket: Socket, _refused: RefusedConnection): void {
    socket.destroy();
  }
}
