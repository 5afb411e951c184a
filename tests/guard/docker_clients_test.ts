/** Docker's own client in front of dockerd, as users of each policy in examples/docker. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readyPolicy } from "../support/docker_policies.ts";
import {
  buildKitClient,
  docker,
  hashOf,
  otherClient,
  RealEngine,
  startDocker,
  startInTerminal,
  type User,
} from "../support/engines.ts";
import { guardHere } from "../support/guard_here.ts";
import { testGuard, tool } from "../support/guard.ts";
import { Registry } from "../support/registry.ts";
import { temporaryFolder } from "../support/compile.ts";
import { runtime, soak, until } from "../support/suite.ts";

const NONE = ["--network", "none"];

const soaks = soak(0, 1) === 1;

/** Engines and containers cost seconds, and the guard's other tests run on each runtime. */
const isHere = runtime === "node" || soaks;

/** A user of Docker's client at a guard. */
class Session {
  readonly #user: User;
  readonly #path: string;

  constructor(user: User, path: string) {
    this.#user = user;
    this.#path = path;
  }

  async succeeds(expected: RegExp, ...args: string[]): Promise<void> {
    const { code, out, err } = await docker(this.#user, this.#path, args);
    assert.equal(code, 0, `${args.join(" ")}: ${err}`);
    assert.match(out.toString(), expected, args.join(" "));
  }

  async fails(expected: RegExp, ...args: string[]): Promise<void> {
    const { code, out, err } = await docker(this.#user, this.#path, args);
    assert.ok(code !== 0, `${args.join(" ")}: ${out}`);
    assert.match(err, expected, args.join(" "));
  }

  run(args: readonly string[], input?: Uint8Array) {
    return docker(this.#user, this.#path, args, input);
  }

  /** Runs docker-compose with a project. */
  compose(project: Uint8Array, ...args: string[]) {
    const command = ["docker-compose", "-p", "project", "-f", "-", ...args] as const;
    return otherClient(this.#user, this.#path, command, { input: project });
  }

  /** Builds the folder by BuildKit, which keeps files in the client's folder. */
  buildByKit(tag: string, folder: string) {
    const config = mkdtempSync(join(tmpdir(), "ucred-kit-"));
    chmodSync(config, 0o777);
    const command = [buildKitClient!, "build", ...NONE, "-t", tag, folder] as const;
    const env = { DOCKER_BUILDKIT: "1", DOCKER_CONFIG: config };
    return otherClient(this.#user, this.#path, command, { env })
      .finally(() => rmSync(config, { recursive: true }));
  }

  /** Starts the client; its output is collected. */
  start(...args: string[]) {
    return reading(startDocker(this.#user, this.#path, args, {
      stdio: ["pipe", "pipe", "inherit"],
      timeout: 120_000,
    }));
  }

  inTerminal(...args: string[]) {
    return reading(startInTerminal(this.#user, this.#path, args));
  }

  /** Sends bytes through a container and back. */
  async echoes(bytes: Uint8Array): Promise<void> {
    const cat = ["run", "--rm", "-i", ...NONE, "box", "/box", "cat"];
    const { code, out, err } = await this.run(cat, bytes);
    assert.equal(code, 0, err);
    assert.equal(hashOf(out), hashOf(bytes));
  }
}

function reading(child: ReturnType<typeof startDocker>) {
  const process = { child, text: "", ended: once(child, "close") };
  child.stdout!.setEncoding("utf8").on("data", (text: string) => process.text += text);
  child.stdin!.on("error", () => {});
  return process;
}

/** What a user does with own containers: runs, terminals, attachments, logs, files, and the end. */
async function usesContainers(session: Session, name: string): Promise<void> {
  await session.succeeds(/^[0-9.]+/, "version", "--format", "{{.Server.Version}}");
  await session.succeeds(/^uid 0\n$/, "run", "--rm", ...NONE, "box", "/box", "id");
  await session.echoes(Buffer.alloc(soak(1 << 20, 100 << 20), "0123456789abcdef\n"));

  // A terminal: its size reaches the container, and its input and end of file.
  const sized = session.inTerminal("run", "--rm", "-it", ...NONE, "box", "/box", "size");
  assert.equal((await sized.ended)[0], 0, sized.text);
  assert.match(sized.text, /^31 rows, 77 columns\r\n$/);
  const typed = session.inTerminal("run", "--rm", "-it", ...NONE, "box", "/box", "cat");
  typed.child.stdin!.write("hello\n");
  await until(() => (typed.text.match(/hello/g) ?? []).length >= 2); // by the terminal, and by cat
  typed.child.stdin!.write("\u0004");
  assert.equal((await typed.ended)[0], 0, typed.text);

  // A container that runs in the background, with an input.
  const events = session.start("events", "--format", "{{.Action}} {{.Actor.Attributes.name}}");
  await session.succeeds(
    /^[0-9a-f]{64}\n$/,
    "run",
    "-di",
    "--name",
    name,
    ...NONE,
    "box",
    "/box",
    "cat",
  );
  const logs = session.start("logs", "-f", name);
  const attached = session.start("attach", name);
  attached.child.stdin!.write("first\n");
  await until(() => attached.text === "first\n" && logs.text === "first\n");
  await session.succeeds(/^uid 0\n$/, "exec", name, "/box", "id");
  const inside = session.inTerminal("exec", "-it", name, "/box", "size");
  assert.equal((await inside.ended)[0], 0, inside.text);
  assert.match(inside.text, /^31 rows, 77 columns\r\n$/);
  await session.succeeds(new RegExp(`^/${name}\n$`), "inspect", "--format", "{{.Name}}", name);
  await session.succeeds(new RegExp(`^${name}$`, "m"), "ps", "--format", "{{.Names}}");

  // Files, both ways.
  const folder = mkdtempSync(join(temporaryFolder(), "cp-"));
  writeFileSync(join(folder, "file"), "some text\n");
  const sent = await session.run(["cp", "-", `${name}:/`], tarOf(folder));
  assert.equal(sent.code, 0, sent.err);
  const tar = await session.run(["cp", `${name}:/file`, "-"]);
  assert.equal(tar.code, 0, tar.err);
  assert.ok(tar.out.includes("some text\n"));

  attached.child.stdin!.write("second\n");
  const both = "first\nsecond\n";
  await until(() => attached.text === both && logs.text === both);
  await session.succeeds(new RegExp(name), "stop", "-t", "0", name);
  await Promise.all([attached.ended, logs.ended]);
  await session.succeeds(new RegExp(name), "start", name);
  await session.succeeds(new RegExp(name), "stop", "-t", "0", name);
  await session.succeeds(new RegExp(name), "rm", name);
  await until(() => events.text.includes(`destroy ${name}`));
  assert.match(events.text, new RegExp(`start ${name}\n`));
  events.child.kill();
}

/** Builds an image with the classic builder, and runs it. */
async function builds(session: Session, tag: string): Promise<void> {
  const folder = mkdtempSync(join(temporaryFolder(), "build-"));
  writeFileSync(
    join(folder, "Dockerfile"),
    'FROM box\nCOPY Dockerfile /copy\nCMD ["/box", "id"]\n',
  );
  const context = tarOf(folder);
  const built = await session.run(["build", ...NONE, "-t", tag, "-"], context);
  assert.equal(built.code, 0, built.err);
  assert.match(built.out.toString(), /Successfully tagged/);
  await session.succeeds(/^uid 0\n$/, "run", "--rm", ...NONE, tag);
}

/** Builds an image by BuildKit, and runs it. Users without `build.session` see the denial. */
async function buildsByKit(allowed: Session, denied: Session): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "ucred-build-"));
  try {
    chmodSync(folder, 0o755);
    const text = 'FROM box\nCOPY Dockerfile /copy\nRUN ["/box", "id"]\nCMD ["/box", "id"]\n';
    writeFileSync(join(folder, "Dockerfile"), text);
    const built = await allowed.buildByKit("members/kit", folder);
    assert.equal(built.code, 0, built.err);
    assert.match(built.err, /naming to docker\.io\/members\/kit/);
    await allowed.succeeds(/^uid 0\n$/, "run", "--rm", ...NONE, "members/kit");
    const refused = await denied.buildByKit("developers/kit", folder);
    assert.notEqual(refused.code, 0, refused.err);
    assert.match(refused.err, /Error response from daemon: ucred: build\.session is not allowed/);
    await allowed.fails(/No such image/, "image", "inspect", "developers/kit");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Starts two containers by docker-compose, and removes them. */
async function composes(session: Session): Promise<void> {
  const service = { image: "box", network_mode: "none" };
  const services = {
    web: { ...service, command: ["/box", "sleep"] },
    once: { ...service, command: ["/box", "id"] },
  };
  const project = Buffer.from(JSON.stringify({ version: "2.4", services }));
  const succeeds = async (expected: RegExp, ...args: string[]) => {
    const { code, out, err } = await session.compose(project, ...args);
    assert.equal(code, 0, `${args.join(" ")}: ${err}`);
    assert.match(out.toString(), expected);
  };
  await succeeds(/^/, "up", "-d");
  await succeeds(/project_web_1 .* Up/, "ps");
  await session.succeeds(/^0\n$/, "wait", "project_once_1");
  await succeeds(/uid 0/, "logs", "--no-color", "once");
  await succeeds(/^uid 0\n$/, "exec", "-T", "web", "/box", "id");
  await succeeds(/^/, "down", "-t", "0");
  await session.succeeds(/^$/, "ps", "-aq");
  const risky = { web: { ...services.web, privileged: true } };
  const denied = await session.compose(
    Buffer.from(JSON.stringify({ version: "2.4", services: risky })),
    ...["up", "-d"],
  );
  assert.notEqual(denied.code, 0);
  assert.match(denied.err, /container\.create is not allowed: HostConfig\.Privileged/);
}

function tarOf(folder: string): Buffer {
  return execFileSync("tar", ["-C", folder, "-cf", "-", "."]);
}

const engine = isHere ? await RealEngine.start("dockerd") : undefined;
const running = {
  name: "dockerd that can run containers, and Docker's client; Node, or npm run test:soak",
  met: engine !== undefined,
};

const DENIED = /ucred: [a-z.]+ is not allowed/;

testGuard(
  "Docker's client works through guard as users of each policy in examples/docker",
  async () => {
    const registry = await Registry.start(readFileSync(engine!.root));
    try {
      const at = async (policy: string) => {
        const { path } = await guardHere({
          ...{ mode: "docker", upstream: engine!.socket, policy: readyPolicy(policy) },
          report: () => {},
        }, { mode: 0o666 });
        return (user: User) => new Session(user, path);
      };

      // Root and the group docker do everything.
      const classic = await at("classic.yaml");
      const users = [["members", { uid: 4110, group: 970 }], ["roots", 0]] as const;
      for (const [name, user] of users.slice(0, soak(1, 2))) {
        const session = classic(user);
        await usesContainers(session, name);
        await session.succeeds(/./, "info", "--format", "{{.ServerVersion}}");
        await session.succeeds(/Downloaded newer image|up to date/, "pull", registry.image);
        await session.succeeds(/^uid 0\n$/, "run", "--rm", ...NONE, registry.image);
        const saved = await session.run(["save", registry.image]);
        assert.equal(saved.code, 0, saved.err);
        await session.succeeds(/Untagged/, "rmi", registry.image);
        const loaded = await session.run(["load"], saved.out);
        assert.match(loaded.out.toString(), /Loaded image/, loaded.err);
        await session.succeeds(/Untagged/, "rmi", registry.image);
        await builds(session, `${name}/app`);
      }
      const nobody = classic(4111);
      await nobody.fails(/403 Forbidden|ucred: /, "ps");

      // Users of their own containers.
      const agent = (await at("agent.yaml"))(2000);
      if (soaks) await usesContainers(agent, "agents");
      await builds(agent, "agent/app");
      await agent.fails(DENIED, "pull", registry.image);
      await agent.fails(DENIED, "run", "--rm", ...NONE, "-v", "/:/h", "box", "/box", "id");
      await agent.fails(DENIED, "run", ...NONE, "--restart", "always", "box", "/box", "id");

      const ci = (await at("ci.yaml"))(998);
      if (soaks) await usesContainers(ci, "jobs");
      await ci.succeeds(/^cache\n$/, "volume", "create", "cache");
      await ci.succeeds(/^uid 0\n$/, "run", "--rm", ...NONE, "-v", "cache:/c", "box", "/box", "id");
      await ci.succeeds(/^cache\n$/, "volume", "rm", "cache");
      await ci.fails(DENIED, "pull", registry.image);
      await ci.fails(DENIED, "run", "--rm", ...NONE, "--privileged", "box", "/box", "id");
      if (soaks && tool("docker-compose").met) await composes(ci); // 14 s

      const developers = await at("developers.yaml");
      const developer = developers({ uid: 4112, group: 971 });
      if (buildKitClient !== undefined) {
        await buildsByKit(classic({ uid: 4110, group: 970 }), developer);
      }
      await usesContainers(developer, "hers");
      await builds(developer, "developers/app");
      await developer.succeeds(/Downloaded newer image/, "pull", registry.image);
      await developer.succeeds(/./, "run", "-d", "--name", "hers", ...NONE, "box", "/box", "sleep");
      const other = developers({ uid: 4113, group: 971 });
      await other.succeeds(/^$/, "ps", "-aq");
      await other.fails(/No such container: hers/, "rm", "hers");

      // Readers.
      const readers:
        readonly (readonly [policy: string, group: number, can: string[][], cannot: string[][]])[] =
          [
            [
              "monitoring.yaml",
              972,
              [["ps"], ["info"], ["inspect", "hers"], ["top", "hers"], [
                "stats",
                "--no-stream",
                "hers",
              ], ["images"]],
              [["logs", "hers"], ["exec", "hers", "/box", "id"], ["stop", "hers"], [
                "cp",
                "hers:/box",
                "-",
              ]],
            ],
            [
              "prometheus.yaml",
              973,
              [["ps"], ["network", "ls"]],
              [["inspect", "hers"], ["logs", "hers"], ["images"], ["stop", "hers"]],
            ],
            [
              "traefik.yaml",
              974,
              [["ps"], ["version"], ["inspect", "hers"], [
                "events",
                "--since",
                "1h",
                "--until",
                "0s",
              ]],
              [["logs", "hers"], ["exec", "hers", "/box", "id"], ["rm", "hers"]],
            ],
            [
              "dozzle.yaml",
              975,
              [["ps"], ["logs", "hers"], ["inspect", "hers"], ["stats", "--no-stream", "hers"]],
              [["exec", "hers", "/box", "id"], ["attach", "hers"], ["stop", "hers"], ["images"]],
            ],
          ];
      for (const [policy, group, can, cannot] of readers) {
        const session = (await at(policy))({ uid: 4114, group });
        for (const args of can) await session.succeeds(/^/, ...args);
        await session.succeeds(/^hers$/m, "ps", "--format", "{{.Names}}");
        for (const args of cannot) await session.fails(/ucred: |403/, ...args);
        await session.fails(DENIED, "run", "--rm", ...NONE, "box", "/box", "id");
      }
      await developer.succeeds(/hers/, "rm", "-f", "hers");
    } finally {
      registry.stop();
      await engine?.stop();
    }
  },
  running,
  tool("script"),
);
