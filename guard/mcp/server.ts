/** The guard's MCP mode as a server: decides each message. */

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
import { McpConnection, type Shared } from "./connection.ts";
import { LineMemory } from "./lines.ts";

/**
 * Makes a guard in MCP mode. It does not listen yet.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if the policy tests actions without `about: mcp`.
 */
export function guardMcp(options: GuardOptions): GuardServer {
  if (options.policy !== undefined) requireActionsOf("mcp", options.policy);
  const upstream = new Upstream(options);
  const requests = new RequestCounters();
  const server = new McpGuard(options, upstream, requests) as unknown as SafeServer;
  return guardServerOf(server, upstream, options.limits, requests);
}

class McpGuard extends AdmittingServer {
  readonly #shared: Shared;

  constructor(options: GuardOptions, upstream: Upstream, requests: RequestCounters) {
    const { policy, limits, audit, onRequest, report = () => {} } = options;
    const admission = new Admission({ policy, limits, audit }, "action");
    super({ allowHalfOpen: true }, admission);
    this.#shared = { admission, upstream, memory: new LineMemory(), requests, onRequest, report };
  }

  protected override serve(socket: Socket, admitted: Admitted): true {
    void new McpConnection(socket, admitted, this.#shared).run();
    return true;
  }

  protected override refuse(socket: Socket, _refused: RefusedConnection): void {
    socket.destroy();
  }
}
