/** Real engines with an image of one static program: dockerd, and podman's compatible API. */

import { type ChildProcess, execFileSync, spawn, type SpawnOptions } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { compileStatic, temporaryFolder } from "./compile.ts";
import { succeeds } from "./suite.ts";

/** The client of Docker that PATH has. */
const DOCKER = "docker";

/** What a program has written, and its exit code. */
export interface Ran {
  readonly code: number | null;
  readonly out: Buffer;
  readonly err: string;
}

/** A user of Docker's client: a uid, which is also its group, or with a supplementary group. */
export type User = number | { readonly uid: number; readonly group: number };

function asUser(user: User): readonly string[] {
  const uid = String(typeof user === "number" ? user : user.uid);
  const groups = typeof user === "number" ? "--clear-groups" : `--groups=${user.group}`;
  return ["setpriv", "--reuid", uid, "--regid", uid, groups];
}

function commandOf(user: User, socket: string, args: readonly string[]): readonly string[] {
  return [...asUser(user), DOCKER, "-H", `unix://${socket}`, ...args];
}

const clientEnv = () => ({
  ...{ PATH: process.env["PATH"], HOME: "/nonexistent", DOCKER_CONFIG: "/nonexistent" },
  DOCKER_BUILDKIT: "0",
});

/** Starts Docker's client as a user. */
export function startDocker(
  user: User,
  socket: string,
  args: readonly string[],
  options: SpawnOptions,
): ChildProcess {
  const [command, ...rest] = commandOf(user, socket, args);
  return spawn(command!, rest, { ...options, env: clientEnv() });
}

/** Starts Docker's client as a user in a terminal of 31 rows and 77 columns. */
export function startInTerminal(
  user: User,
  socket: string,
  args: readonly string[],
): ChildProcess {
  const line = `stty rows 31 cols 77; exec ${commandOf(user, socket, args).join(" ")}`;
  return spawn("script", ["-qefc", line, "/dev/null"], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...clientEnv(), SHELL: "/bin/sh", TERM: "xterm" },
    timeout: 60_000,
  });
}

/** Runs Docker's client as a user. */
export function docker(
  user: User,
  socket: string,
  args: readonly string[],
  input?: Uint8Array,
): Promise<Ran> {
  const stdin = input === undefined ? "ignore" : "pipe";
  const options = { stdio: [stdin, "pipe", "pipe"], timeout: 120_000 } satisfies SpawnOptions;
  return outcomeOf(startDocker(user, socket, args, options), input);
}

/** Runs another client of Docker as a user. */
export function otherClient(
  user: User,
  socket: string,
  [program, ...args]: readonly [program: string, ...args: string[]],
  { input, env }: {
    readonly input?: Uint8Array;
    readonly env?: { readonly [name: string]: string };
  },
): Promise<Ran> {
  const [command, ...rest] = [...asUser(user), program, "-H", `unix://${socket}`, ...args];
  const options = { stdio: "pipe", env: { ...clientEnv(), ...env }, timeout: 120_000 } as const;
  return outcomeOf(spawn(command!, rest, options), input);
}

/** A client of Docker that contains BuildKit. From version 23 on, clients need a plugin. */
export const buildKitClient: string | undefined = (process.env["PATH"] ?? "").split(":")
  .map((folder) => `${folder}/docker`)
  .find((file) => existsSync(file) && / 20\.10\./.test(String(execFileSync(file, ["--version"]))));

async function outcomeOf(child: ChildProcess, input: Uint8Array | undefined): Promise<Ran> {
  const out: Buffer[] = [];
  let err = "";
  child.stdout!.on("data", (bytes: Buffer) => out.push(bytes));
  child.stderr!.setEncoding("utf8").on("data", (text: string) => err += text);
  child.stdin?.on("error", () => {}).end(input);
  const [code] = await once(child, "close");
  return { code, out: Buffer.concat(out), err };
}

/** Returns the SHA-256 of bytes. */
export const hashOf = (bytes: Uint8Array): string =>
  createHash("sha256").update(bytes).digest("hex");

/** A running engine. */
export class RealEngine {
  readonly socket: string;
  /** The root file system of its image, as a tar archive. */
  readonly root: string;
  readonly #child: ChildProcess;

  private constructor(socket: string, root: string, child: ChildProcess) {
    this.socket = socket;
    this.root = root;
    this.#child = child;
  }

  /** Starts an engine. Returns `undefined` if it cannot run a container on this machine. */
  static async start(name: "dockerd" | "podman"): Promise<RealEngine | undefined> {
    const isPossible = process.getuid?.() === 0 && succeeds(name, "--version") &&
      succeeds(DOCKER, "--version") && succeeds("setpriv", "--version");
    if (!isPossible) return undefined;
    const folder = temporaryFolder();
    const program = compileStatic(new URL("box.c", import.meta.url));
    if (program === undefined) return undefined;
    const root = join(folder, "root");
    mkdirSync(root);
    copyFileSync(program, join(root, "box"));
    execFileSync("tar", ["-C", root, "-cf", join(folder, "root.tar"), "."]);
    const socket = join(folder, "engine.sock");
    const [args, env] = name === "podman" ? podman(folder, socket) : dockerd(folder, socket);
    const child = spawn(name, args, { stdio: "ignore", env: { ...process.env, ...env } });
    child.once("error", () => {});
    const engine = new RealEngine(socket, join(folder, "root.tar"), child);
    for (let i = 0; i < 150 && !existsSync(socket) && child.exitCode === null; i++) {
      await sleep(100);
    }
    const image = await docker(0, socket, ["import", engine.root, "box:latest"]);
    const run = await docker(0, socket, ["run", "--rm", "--network", "none", "box", "/box", "id"]);
    if (image.code === 0 && run.out.toString() === "uid 0\n") return engine;
    await engine.stop();
    return undefined;
  }

  /** Removes all containers, and ends the engine. */
  async stop(): Promise<void> {
    const { out } = await docker(0, this.socket, ["ps", "-aq"]);
    const ids = out.toString().split("\n").filter((id) => id !== "");
    if (ids.length > 0) await docker(0, this.socket, ["rm", "-f", ...ids]);
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    process.kill(this.#child.pid!, "SIGTERM");
    await Promise.race([ended, sleep(10_000, undefined, { ref: false })]);
    this.#child.kill("SIGKILL");
  }
}

type Start = readonly [args: string[], env: { readonly [name: string]: string }];

function dockerd(folder: string, socket: string): Start {
  const args = [
    ...["--storage-driver=vfs", "--iptables=false", "--bridge=none", "--host", `unix://${socket}`],
    ...["--data-root", join(folder, "data"), "--exec-root", join(folder, "exec")],
    ...["--pidfile", join(folder, "dockerd.pid")],
  ];
  return [args, {}];
}

function podman(folder: string, socket: string): Start {
  const file = join(folder, "containers.conf");
  writeFileSync(
    file,
    `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
exit_command_delay = 1
`,
  );
  const args = [
    ...["--root", join(folder, "store"), "--runroot", join(folder, "run")],
    ...["--storage-driver", "vfs", "system", "service", "--time=0", `unix://${socket}`],
  ];
  return [args, { CONTAINERS_CONF: file }];
}
