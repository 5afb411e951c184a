/** The container image of the guard: built from scratch, and run by podman in front of a server. */

import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { VERSION } from "../../cli/version.ts";
import { compileStatic, temporaryFolder } from "../support/compile.ts";
import { need, needs, STRANGER, succeeds, testWith, until } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const CONTAINERFILE = join(root, "examples/container/Containerfile");

test("build:image --help prints the options, and an unknown engine or option is an error", () => {
  const run = (...args: string[]) =>
    spawnSync("node", [join(root, "tools/build_image.ts"), ...args], { encoding: "utf8" });
  assert.match(run("--help").stdout, /--engine PROGRAM/);
  for (const args of [["--engine", "sh"], ["--engin", "podman"]]) {
    assert.equal(run(...args).status, 2, args.join(" "));
  }
});

test("the image has no base image, and contains nothing but its build context", () => {
  const lines = readFileSync(CONTAINERFILE, "utf8").split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  const [from, copy, ...rest] = lines;
  assert.deepEqual([from, copy], ["FROM scratch", "COPY . /"]);
  assert.ok(rest.every((line) => /^(?:ENTRYPOINT|CMD) /.test(line)));
});

/** podman with a store of its own, without systemd. */
class Podman {
  readonly #flags: readonly string[];
  readonly #env: NodeJS.ProcessEnv;

  constructor(folder: string) {
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
`,
    );
    const stores = ["--root", join(folder, "store"), "--runroot", join(folder, "run")];
    this.#flags = [...stores, "--storage-driver", "vfs"];
    this.#env = { ...process.env, CONTAINERS_CONF: file };
  }

  run(...args: readonly string[]): string {
    const { status, stdout, stderr } = spawnSync("podman", [...this.#flags, ...args], {
      encoding: "utf8",
      env: this.#env,
    });
    assert.equal(status, 0, `podman ${args[0]}: ${stderr}`);
    return stdout;
  }
}

/** Sends a request as a user. Our own process serves the upstream, so it must not wait. */
function request(uid: number, socket: string): Promise<string> {
  const ids = [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];
  const line = [...ids, "curl", "-s", "--unix-socket", socket, "http://app/x"];
  return new Promise((resolve) => execFile("setpriv", line, (_, stdout) => resolve(stdout)));
}

const folder = temporaryFolder();
let podman: Podman | undefined;

/** Whether podman runs a container here: with another program than that of the image under test. */
const containers = need(
  "podman, runc, setpriv, ldd, curl, a static libc, and leave to run containers",
  () => {
    const tools = ["podman", "runc", "setpriv", "ldd", "curl"];
    if (!tools.every((name) => succeeds(name, "--version"))) return false;
    const program = compileStatic(new URL("../support/box.c", import.meta.url));
    if (program === undefined) return false;
    const context = join(folder, "box");
    mkdirSync(context);
    copyFileSync(program, join(context, "box"));
    writeFileSync(join(folder, "Containerfile"), "FROM scratch\nCOPY . /\n");
    podman = new Podman(folder);
    try {
      podman.run("build", "--tag", "box", "--file", join(folder, "Containerfile"), context);
      return podman.run("run", "--rm", "--network", "none", "box", "/box", "id") === "uid 0\n";
    } catch {
      return false;
    }
  },
);

testWith(
  [needs.soak, needs.root, containers],
  "the image runs a guard without capabilities; rules on programs need the host's pid namespace",
  async () => {
    const made = spawnSync("node", ["tools/build_image.ts", "--engine", "none"], {
      cwd: root,
      encoding: "utf8",
    });
    assert.equal(made.status, 0, made.stderr);
    assert.ok(podman !== undefined);
    podman.run("build", "--tag", "ucred", "--file", CONTAINERFILE, join(root, "build/image"));
    const network = ["--network", "none"];
    assert.equal(podman.run("run", "--rm", ...network, "ucred", "--version"), `${VERSION}\n`);
    for (const name of ["app", "etc", "out"]) mkdirSync(join(folder, name));
    writeFileSync(
      join(folder, "etc/app.yaml"),
      "version: 1\nrules:\n  - { name: root, when: { uid: 0 }, allow: true }\n" +
        `  - { name: curl, when: { exe: /usr/bin/curl }, actions: "GET /**", allow: true }\n`,
    );
    chmodSync(join(folder, "etc/app.yaml"), 0o644);
    const upstream = createServer((_, response) => void response.end("from behind"));
    await new Promise<void>((resolve) => upstream.listen(join(folder, "app/app.sock"), resolve));
    const socket = join(folder, "out/app.sock");
    try {
      for (const pids of [[], ["--pid=host", "--cap-add=SYS_PTRACE"]]) {
        podman.run(
          ...["run", "--detach", "--name", "guard", ...network, "--read-only", "--cap-drop=all"],
          ...[...pids, "--volume", `${folder}/app:/run/app`],
          ...["--volume", `${folder}/etc:/etc/ucred:ro`, "--volume", `${folder}/out:/run/ucred`],
          ...["ucred", "guard", "--mode", "http", "--listen", "/run/ucred/app.sock"],
          ...["--socket-mode", "0666", "--upstream", "/run/app/app.sock"],
          ...["--policy", "/etc/ucred/app.yaml"],
        );
        await until(() => existsSync(socket));
        assert.equal(await request(0, socket), "from behind");
        const stranger = await request(STRANGER, socket);
        if (pids.length === 0) assert.match(stranger, /"status":403/);
        else assert.equal(stranger, "from behind");
        podman.run("stop", "guard");
        podman.run("rm", "guard");
        assert.equal(existsSync(socket), false);
      }
    } finally {
      upstream.close();
      podman.run("rm", "--all", "--force");
      podman.run("rmi", "--all", "--force");
    }
  },
);
