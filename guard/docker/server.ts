/** The guard's Docker mode as a server. */

import { guardHttp } from "../http/server.ts";
import type { GuardOptions, GuardServer } from "../options.ts";
import { ENGINE_PATHS } from "./host_paths.ts";
import { DockerMediator } from "./mediator.ts";

/** Makes a guard in front of a Docker engine. It does not listen yet. */
export function guardDocker(options: GuardOptions): GuardServer {
  const never = options.upstream.startsWith("/")
    ? [...ENGINE_PATHS, options.upstream]
    : ENGINE_PATHS;
  return guardHttp(
    options,
    (admission, upstream, learn) =>
      new DockerMediator(admission, upstream, { hostPaths: { never }, learn }),
  );
}
