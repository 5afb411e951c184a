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

const MAIN = fileURLToPath(new URL("../../cli/main.ts", import.meta.url));

function ours(runtime: Runtime): Contender {
  let prepared: Prepared;
  return {
    name: `ucred guard on ${runtime}`,
    isOurs: true,
    modes: ["stream", "http"],
    how: "with a policy file of four rules, of which the last matches",
    async version() {
      prepared = await RUNTIMES[runtime](MAIN);
      return prepared.version;
    },
    command({ mode, listen, upstream, folder }) {
      const policy = `${folder}/policy.yaml`;
      writeFileSync(policy, POLICY, { mode: 0o600 });
      return [
        ...prepared.command,
        ...["guard", "--mode", mode, "--listen", listen, "--upstream", upstream],
        ...["--policy", policy, "--allow-unsafe-owner"],
      ];
    },
  };
}

const PROXYD = ["/usr/lib/systemd", "/lib/systemd"].map((path) => `${path}/systemd-socket-proxyd`);

export const CONTENDERS: readonly Contender[] = [
  ...(Object.keys(RUNTIMES) as Runtime[]).map(ours),
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
    modes: ["stream", "http"],
    how:
      "one thread, like the others; mode tcp or http with kept connections to the server; decides nothing",
    version: async () => /version (\S+)/.exec(await run("haproxy", "-v"))?.[1] ?? "?",
    command({ mode, listen, upstream, folder }) {
      const file = `${folder}/haproxy.cfg`;
      writeFileSync(
        file,
        `global
  nbthread 1
defaults
  mode ${mode === "http" ? "http" : "tcp"}
  timeout connect 10s
  timeout client 60s
  timeout server 60s
${mode === "http" ? "  http-reuse always\n" : ""}frontend guard
  bind unix@${listen}
  default_backend server
backend server
  server server unix@${upstream}
`,
      );
      return ["haproxy", "-q", "-db", "-f", file];
    },
  },
];
