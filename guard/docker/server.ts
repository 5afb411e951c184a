/** The guard's Docker mode as a server. */

import { guardHttp } from "../http/server.ts";
import { resolve } from "node:path";
import type { GuardOptions, GuardServer } from "../options.ts";
import { requireActionsOf } from "../policy_check.ts";
import { ENGINE_PATHS } from "./host_paths.ts";
import { Ledger } from "./ledger.ts";
import { DockerMediator } from "./mediator.ts";

/**
 * Makes a guard in front of a Docker engine. It does not listen yet.
 *
 * @throws {UcredError} `ERR_UCRED_POLICY` if the policy tests actions without `about: docker`.
 */
export function guardDocker(options: GuardOptions): GuardServer {
  if (options.policy !== undefined) requireActionsOf("docker", options.policy);
  const { state, learn: file, report = () => {}, upstream: engine } = options;
  const own = [state, file].filter((path) => path !== undefined).map((path) => resolve(path));
  const never = [...ENGINE_PATHS, ...own, ...engine.startsWith("/") ? [engine] : []];
  return guardHttp(
    options,
    (admission, upstream, learn) => {
      const ledger = state === undefined ? undefined : new Ledger(state, report);
      return new DockerMediator(admission, upstream, { hostPaths: { never }, learn, ledger });
    },
  );
}
