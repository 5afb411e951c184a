/** Docker mode in front of real engines, with Docker's own client: what users can do, and cannot. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { docker, hashOf, RealEngine, startDocker } from "../support/engines.ts";
import { Guard, policyFile, testGuard } from "../support/guard.ts";
import { safeFolder } from "../support/safe_folder.ts";
import { runtime, soak, until } from "../support/suite.ts";

const ALICE = 4101, BOB = 4102;

const policyFor = (home: string) => `
version: 1
about: docker
rules:
  - { name: root, when: { uid: 0 }, allow: full }
  - name: users create contained objects
    when: { uid: ${ALICE}-${BOB} }
    actions: [container.create, volume.create, network.create, build]
    where: { dangers: { empty: true } }
    allow: true
  - name: one user mounts her home
    when: { uid: ${ALICE} }
    actions: container.create
    where:
      dangers: { every: ["HostConfig.Binds", "HostConfig.VolumesFrom*"] }
      binds: { every: ["${home}/**", "${home}"] }
      privileged: false
    allow: true
  - name: users act on their own
    when: { uid: ${ALICE}-${BOB} }
    actions: ["container.*", "exec.*", "volume.*", "network.*"]
    where: { owner: self, privileged: false }
    allow: true
  - name: users list and read
    when: { uid: ${ALICE}-${BOB} }
    actions: [system.version, system.info, system.events, image.list, image.inspect]
    allow: true
  - name: users list their own
    when: { uid: ${ALICE}-${BOB} }
    actions: ["*.list"]
    where: { owner: self }
    allow: true
`;

/** Returns a tar archive of `/suid`, a program that belongs to root and has the setuid bit. */
function setuidProgram(root: string): Buffer {
  const folder = mkdtempSync(join(safeFolder(), "suid-"));
  execFileSync("tar", ["-C", folder, "-xf", root]);
  renameSync(join(folder, "box"), join(folder, "suid"));
  chmodSync(join(folder, "suid"), 0o4755);
  return tarOf(folder, "suid");
}

/** Returns the context of a build that extracts an archive. COPY would remove the setuid bit. */
function contextWith(archive: Buffer): Buffer {
  const folder = mkdtempSync(join(safeFolder(), "context-"));
  writeFileSync(join(folder, "Dockerfile"), "FROM box\nADD suid.tar /\nUSER 0\nVOLUME /h\n");
  writeFileSync(join(folder, "suid.tar"), archive);
  return tarOf(folder, "Dockerfile", "suid.tar");
}

function tarOf(folder: string, ...names: string[]): Buffer {
  return execFileSync("tar", ["-C", folder, "--owner=0", "--group=0", "-cf", "-", ...names]);
}

const NONE = ["--network", "none"];

/** Engines and containers cost seconds, and the guard's other tests run on each runtime. */
const isHere = runtime === "node" || soak(0, 1) === 1;

for (const name of ["dockerd", "podman"] as const) {
  const engine = isHere ? await RealEngine.start(name) : undefined;
  const running = {
    name: `${name} that can run containers, and Docker's client; Node, or npm run test:soak`,
    met: engine !== undefined,
  };

  testGuard(`guard separates users of ${name}, and none becomes root by a mount`, async () => {
    try {
      const home = join(mkdtempSync(join(safeFolder(), "home-")), "alice");
      mkdirSync(home, { mode: 0o755 });
      chownSync(home, ALICE, ALICE);
      const policy = policyFile(policyFor(home));
      const start = () =>
        Guard.start({ upstream: engine!.socket, mode: "docker", policy, args: ["--drain", "1"] });
      const guard = await start();
      const as = (uid: number, ...args: string[]) => docker(uid, guard.path, args);
      const succeeds = async (uid: number, expected: RegExp, ...args: string[]) => {
        const { code, out, err } = await as(uid, ...args);
        assert.equal(code, 0, `${args.join(" ")}: ${err}`);
        assert.match(out.toString(), expected);
      };
      const fails = async (uid: number, expected: RegExp, ...args: string[]) => {
        const { code, out, err } = await as(uid, ...args);
        assert.notEqual(code, 0, `${args.join(" ")}: ${out}`);
        assert.match(err, expected);
      };

      /** Makes images that contain a program that belongs to root and has the setuid bit. */
      const makeSetuidImages = async () => {
        await succeeds(ALICE, /^/, "run", "-d", "--name", "maker", ...NONE, "box", "/box", "sleep");
        const archive = setuidProgram(engine!.root);
        const sent = await docker(ALICE, guard.path, ["cp", "-", "maker:/"], archive);
        assert.equal(sent.code, 0, sent.err);
        const changes = ["--change", "USER 0", "--change", "VOLUME /h"];
        await succeeds(ALICE, /./, "commit", ...changes, "maker", "alice/commit");
        const forged = ["--change", `LABEL io.ucred.owner=${BOB}`];
        await fails(ALICE, /ucred: /, "commit", ...forged, "maker", "alice/forged");
        await fails(BOB, /No such container/, "commit", "maker", "bob/stolen");
        await succeeds(ALICE, /maker/, "rm", "-f", "maker");

        const context = contextWith(archive);
        const build = ["build", ...NONE, "-t", "alice/build", "-"];
        const built = await docker(ALICE, guard.path, build, context);
        assert.equal(built.code, 0, built.err);
        for (const option of ["--security-opt=seccomp=unconfined", "--network=host"]) {
          const risky = ["build", option, "-t", "alice/risky", "-"];
          const refused = await docker(ALICE, guard.path, risky, context);
          assert.match(refused.err, /ucred: build is not allowed/);
        }
        return ["alice/commit", "alice/build"];
      };

      await succeeds(ALICE, /^[0-9.]+/, "version", "--format", "{{.Server.Version}}");
      await succeeds(ALICE, /^uid 0\n$/, "run", "--rm", ...NONE, "box", "/box", "id");
      const bytes = Buffer.alloc(soak(2 << 20, 100 << 20), "0123456789abcdef\n");
      const cat = ["run", "--rm", "-i", ...NONE, "box", "/box", "cat"];
      const echoed = await docker(ALICE, guard.path, cat, bytes);
      assert.equal(echoed.code, 0, echoed.err);
      assert.equal(hashOf(echoed.out), hashOf(bytes));

      const listening = ["events", "--format", "{{.Actor.Attributes.name}}"];
      const listener = startDocker(BOB, guard.path, listening, {
        stdio: ["ignore", "pipe", "ignore"],
      });
      let events = "";
      listener.stdout!.setEncoding("utf8").on("data", (text: string) => events += text);
      for (const [uid, container] of [[ALICE, "one"], [BOB, "two"]] as const) {
        await succeeds(
          uid,
          /^[0-9a-f]{64}\n$/,
          "run",
          "-d",
          "--name",
          container,
          ...NONE,
          "box",
          "/box",
          "sleep",
        );
      }
      await succeeds(ALICE, /^one\n$/, "ps", "--format", "{{.Names}}");
      await succeeds(BOB, /^two\n$/, "ps", "-a", "--format", "{{.Names}}");
      await succeeds(0, /^(one\ntwo|two\none)\n$/, "ps", "--format", "{{.Names}}");
      await succeeds(ALICE, /^uid 0\n$/, "exec", "one", "/box", "id");
      const piped = await docker(ALICE, guard.path, ["exec", "-i", "one", "/box", "cat"], bytes);
      assert.equal(hashOf(piped.out), hashOf(bytes), piped.err);
      await succeeds(ALICE, /^\/one\n$/, "inspect", "--format", "{{.Name}}", "one");
      await succeeds(ALICE, /box/, "cp", "one:/box", "-");
      // Docker's client pulls the image if the engine answers 404 to a new container.
      const gone = /[Nn]o such container|no container with name|image\.pull is not allowed/;
      const acts = [
        ["exec", "one", "/box", "id"],
        ["logs", "one"],
        ["cp", "one:/box", "-"],
        ["stop", "one"],
        ["rename", "one", "mine"],
        ["run", "--rm", "--network", "container:one", "box", "/box", "id"],
        ["run", "--rm", ...NONE, "--volumes-from", "one", "box", "/box", "id"],
        ["commit", "one", "stolen"],
      ];
      for (const act of acts) await fails(BOB, gone, ...act);

      const denied = /ucred: /;
      const dangers = [
        ["--privileged"],
        ["-v", "/:/h"],
        ["-v", "/etc:/h:ro"],
        ["--pid", "host"],
        ["--cap-add", "SYS_ADMIN"],
        // Without the operating system in podman's ping, the client parses no devices.
        ...(name === "podman" ? [] : [["--device", "/dev/null"]]),
        ["--security-opt", "seccomp=unconfined"],
        [
          "--mount",
          `type=volume,dst=/h,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/`,
        ],
      ];
      for (const danger of dangers) {
        await fails(BOB, denied, "run", "--rm", ...NONE, ...danger, "box", "/box", "id");
      }
      await fails(
        BOB,
        denied,
        "volume",
        "create",
        "-o",
        "type=none",
        "-o",
        "o=bind",
        "-o",
        "device=/",
        "v",
      );

      // A writable mount of a home.
      const file = join(home, "root-shell");
      const mount = ["-v", `${home}:/h`];
      const self = ["--user", `${ALICE}:${ALICE}`, "--cap-drop", "ALL"];
      const contained = [...self, "--security-opt", "no-new-privileges"];
      const make = ["box", "/box", "setuid", "/h/root-shell"];
      await fails(ALICE, denied, "run", "--rm", ...NONE, ...mount, ...make);
      await fails(ALICE, denied, "run", "--rm", ...NONE, ...mount, ...self, ...make);
      symlinkSync("/etc", join(home, "link"));
      mkdirSync(join(home, "own"));
      for (const inner of ["link", "own"]) {
        const below = ["-v", `${home}/${inner}:/h`];
        await fails(ALICE, denied, "run", "--rm", ...NONE, ...below, ...contained, ...make);
      }
      await succeeds(
        ALICE,
        /./,
        "run",
        "-d",
        "--name",
        "homely",
        ...NONE,
        ...mount,
        ...contained,
        "box",
        "/box",
        "sleep",
      );
      await fails(ALICE, denied, "exec", "-u", "0", "homely", "/box", "setuid", "/h/root-shell");
      await fails(
        ALICE,
        denied,
        "exec",
        "--privileged",
        "homely",
        "/box",
        "setuid",
        "/h/root-shell",
      );
      for (const user of ["root", String(ALICE), `${ALICE}:0`, `${ALICE}:root`]) {
        await fails(ALICE, denied, "exec", "-u", user, "homely", "/box", "setuid", "/h/root-shell");
      }
      await fails(ALICE, denied, "cp", "/etc/hostname", "homely:/h/root-shell");
      await fails(ALICE, denied, "run", "--rm", ...NONE, "--volumes-from", "homely", ...make);
      assert.ok(!existsSync(file));
      await succeeds(
        ALICE,
        /^$/,
        "exec",
        "-u",
        `${ALICE}:${ALICE}`,
        "homely",
        "/box",
        "setuid",
        "/h/root-shell",
      );
      assert.equal(statSync(file).uid, ALICE); // her own file: nothing that she could not do herself

      // podman 4.3 answers Docker's client with "Decode(): EOF" to a commit.
      if (name === "dockerd") {
        const images = await makeSetuidImages();
        for (const [index, image] of images.entries()) {
          const path = join(home, `of-image-${index}`);
          const make = [image, "/suid", "setuid", `/h/of-image-${index}`];
          await succeeds(ALICE, /^/, "run", "--rm", ...NONE, ...make); // in a volume
          const asRoot = ["--user", "0", ...contained.slice(self.indexOf("--cap-drop"))];
          const inRootsGroup = [...contained, "--group-add", "0"];
          const others = ["--volumes-from", "homely"];
          for (const options of [mount, [...mount, ...self], [...mount, ...asRoot], others]) {
            await fails(ALICE, denied, "run", "--rm", ...NONE, ...options, ...make);
          }
          await fails(ALICE, denied, "run", "--rm", ...NONE, ...mount, ...inRootsGroup, ...make);
          assert.ok(!existsSync(path));
          await succeeds(ALICE, /^/, "run", "--rm", ...NONE, ...mount, ...contained, ...make);
          const { uid, gid } = statSync(path);
          assert.deepEqual([uid, gid], [ALICE, ALICE]); // the setuid bit had no effect
          // Past the guard, the same image makes a file of root.
          unlinkSync(path);
          const past = ["run", "--rm", ...NONE, ...mount, "--user", String(ALICE), ...make];
          assert.equal((await docker(0, engine!.socket, past)).code, 0);
          assert.equal(statSync(path).uid, 0);
          unlinkSync(path);
        }
      }

      // A guard that was restarted knows the owners by the labels.
      const second = await start();
      const list = await docker(ALICE, second.path, ["ps", "--format", "{{.Names}}"]);
      assert.match(list.out.toString(), /^(one\nhomely|homely\none)\n$/);
      const foreign = await docker(BOB, second.path, ["rm", "-f", "one"]);
      assert.match(foreign.err, gone);

      await succeeds(ALICE, /one/, "stop", "-t", "0", "one");
      await succeeds(ALICE, /one/, "rm", "one");
      await succeeds(BOB, /two/, "rm", "-f", "two");
      await until(() => events.includes("two"));
      assert.ok(!events.includes("one") && !events.includes("homely"), events);
      guard.signal("SIGTERM"); // with the events open
      assert.equal((await guard.ended).code, 0);
      listener.kill();
    } finally {
      await engine?.stop();
    }
  }, running);
}
