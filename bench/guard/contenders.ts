/** The contenders: `ucred guard`, and other proxies for Unix sockets. */

import { existsSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Prepared, run, type Runtime, RUNTIMES } from "../benchmark.ts";
import type { Load } from "./result.ts";

export interface Contender {
  readonly name: string;
  readonly isOurs: boolean;
  readonly modes: readonly Load["mode"][];
  /** How the benchmark uses it. */
  readonly how: string;
  /** Returns its version; throws if it is not installed. */
  version(): Promise<string>;
  /** Returns the command that starts it. */
  command(options: StartOptions): readonly [program: string, ...args: string[]];
}

export interface StartOptions {
  readonly mode: Load["mode"];
  readonly listen: string;
  readonly upstream: string;
  /** A folder for its configuration. */
  readonly folder: string;
}

/** The policy of the guard. The last rule matches. */
const POLICY = `version: 1
rules:
  - { name: nobody, when: { uid: 65000 }, deny: true }
  - { name: operators, when: { gid: 64999 }, allow: [read, write] }
  - { name: readers, when: { uid: "64000-64998" }, actions: ["GET /**", "HEAD /**"], allow: read }
  - { name: everybody, allow: full }
`;

/** The same for Docker: the third rule allows the creation of a container, and the last one everything else. */
const DOCKER_POLICY = `version: 1
about: docker
rules:
  - { name: nobody, when: { uid: 65000 }, deny: true }
  - { name: operators, when: { gid: 64999 }, actions: "container.*", allow: true }
  - { name: contained, actions: container.create, where: { dangers: { empty: true } }, allow: true }
  - name: everybody
    actions: [container.list, container.inspect, container.stop, "container.archive.*"]
    allow: true
`;

/** The same by method and path, without a look at bodies, as HAProxy and the guard's mode http decide. */
const PATHS_POLICY = `version: 1
rules:
  - { name: nobody, when: { uid: 65000 }, deny: true }
  - { name: operators, when: { gid: 64999 }, actions: "* /**", allow: true }
  - name: everybody
    actions:
      - GET /v1.*/containers/json
      - POST /v1.*/containers/create
      - POST /v1.*/containers/*/stop
      - PUT /v1.*/containers/*/archive
    allow: true
`;

const MAIN = fileURLToPath(new URL("../../cli/main.ts", import.meta.url));

const prepared = new Map<Runtime, Prepared>();

/** @param isBeside Whether it runs in mode http beside the guard in mode docker. */
function ours(runtime: Runtime, isBeside: boolean): Contender {
  return {
    name: `ucred guard on ${runtime}${isBeside ? ", mode http" : ""}`,
    isOurs: true,
    modes: isBeside ? ["docker"] : ["stream", "http", "docker"],
    how: isBeside
      ? "in front of the Docker engine, with a policy file of three rules by method and path"
      : "with a policy file of four rules, of which the last matches",
    async version() {
      if (!prepared.has(runtime)) prepared.set(runtime, await RUNTIMES[runtime](MAIN));
      return prepared.get(runtime)!.version;
    },
    command({ mode, listen, upstream, folder }) {
      const policy = `${folder}/policy.yaml`;
      const rules = mode !== "docker" ? POLICY : isBeside ? PATHS_POLICY : DOCKER_POLICY;
      writeFileSync(policy, rules, { mode: 0o600 });
      return [
        ...prepared.get(runtime)!.command,
        ...["guard", "--mode", isBeside ? "http" : mode, "--listen", listen],
        ...["--upstream", upstream, "--policy", policy, "--allow-unsafe-owner"],
      ];
    },
  };
}

/** Rules by method and path, as the proxies for Docker's socket that consist of HAProxy have them. */
const HAPROXY_RULES = `  acl list path_reg ^(/v[0-9.]+)?/containers/json
  acl create path_reg ^(/v[0-9.]+)?/containers/create
  acl stop path_reg ^(/v[0-9.]+)?/containers/[a-zA-Z0-9_.-]+/stop
  acl archive path_reg ^(/v[0-9.]+)?/containers/[a-zA-Z0-9_.-]+/archive
  http-request deny unless METH_GET list or METH_POST create or METH_POST stop or { method PUT } archive
`;

const PROXYD = ["/usr/lib/systemd", "/lib/systemd"].map((path) => `${path}/systemd-socket-proxyd`);

export const CONTENDERS: readonly Contender[] = [
  ...[false, true].flatMap((isBeside) =>
    (Object.keys(RUNTIMES) as Runtime[]).map((runtime) => ours(runtime, isBeside))
  ),
  {
    name: "socat",
    isOurs: false,
    modes: ["stream"],
    how: "UNIX-LISTEN with fork: one process per connection; decides nothing",
    version: async () => (await run("sh", "-c", "socat -V | grep -o 'version [0-9.]*'")).slice(8),
    command: ({ listen, upstream }) => [
      "socat",
      `UNIX-LISTEN:${listen},fork,backlog=511`,
      `UNIX-CONNECT:${upstream}`,
    ],
  },
  {
    name: "systemd-socket-proxyd",
    isOurs: false,
    modes: ["stream"],
    how: "started by systemd-socket-activate; decides nothing",
    async version() {
      if (!PROXYD.some(existsSync)) throw new Error("systemd-socket-proxyd is not installed");
      return (await run("systemd-socket-activate", "--version")).replace(/^systemd (\S+).*/, "$1");
    },
    command: ({ listen, upstream }) => [
      "systemd-socket-activate",
      ...["--listen", listen, PROXYD.find(existsSync)!, upstream],
    ],
  },
  {
    name: "HAProxy",
    isOurs: false,
    modes: ["stream", "http", "docker"],
    how:
      "one thread, like the others; mode tcp or http with kept connections to the server; decides nothing, but for Docker by method and path",
    version: async () => /version (\S+)/.exec(await run("haproxy", "-v"))?.[1] ?? "?",
    command({ mode, listen, upstream, folder }) {
      const file = `${folder}/haproxy.cfg`;
      writeFileSync(
        file,
        `global
  nbthread 1
defaults
  mode ${mode === "stream" ? "tcp" : "http"}
  timeout connect 10s
  timeout client 60s
  timeout server 60s
${mode === "stream" ? "" : "  http-reuse always\n"}frontend guard
  bind unix@${listen}
${mode === "docker" ? HAPROXY_RULES : ""}  default_backend server
backend server
  server server unix@${upstream}
`,
      );
      return ["haproxy", "-q", "-db", "-f", file];
    },
  },
];
