/** The published command: in the npm package on each runtime, as a single file, and as a systemd service. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isListening, visitAs } from "../support/servers.ts";
import { temporaryFolder } from "../support/compile.ts";
import { type Need, needs, testWith } from "../support/suite.ts";
import { VERSION } from "../../cli/version.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const modules = join(root, "node_modules");

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function run(line: readonly string[], cwd = root, env = {}): Ran {
  const [command, ...args] = line as [string];
  const { NO_COLOR: _, FORCE_COLOR: __, ...rest } = process.env;
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: "utf8",
    env: { ...rest, ...env },
  });
  if (error !== undefined) throw error;
  return { code: status, out: stdout, err: stderr };
}

function succeeds(...line: string[]): boolean {
  try {
    return run(line).code === 0;
  } catch {
    return false;
  }
}

const json = (name: string) => JSON.parse(readFileSync(join(root, name), "utf8"));

test("package.json and the command report the same version", () => {
  assert.equal(json("package.json").version, VERSION);
});

/** Packages that tsup bundles into dist/. */
const BUNDLED = ["commander", "yaml"];

test("deno.json has caret ranges from the versions of package.json", () => {
  const { dependencies, peerDependencies, devDependencies } = json("package.json");
  const { koffi: _, ...peers } = peerDependencies; // Deno does not load it
  const { imports, exports, publish } = json("deno.json");
  const bundled = BUNDLED.map((name) => [name, `^${devDependencies[name]}`]);
  const ranges = { ...dependencies, ...peers, ...Object.fromEntries(bundled) };
  for (const [name, range] of Object.entries(ranges)) {
    assert.match(String(range), /^\^/, name);
    const found = Object.entries(imports).find(([key]) =>
      key === name || key.startsWith(`${name}/`)
    );
    assert.ok(String(found?.[1]).startsWith(`npm:${name}@${range}`), name);
  }
  for (const [name, version] of Object.entries(devDependencies)) {
    assert.match(String(version), /^[0-9.]+$/, `${name} is pinned`);
  }
  assert.equal(exports["./cli"], "./cli/main.ts");
  assert.ok(publish.include.includes("cli"));
});

/** The paths of all files that npm would pack. */
const packedFiles: readonly string[] = JSON.parse(
  run(["npm", "pack", "--dry-run", "--json", "--ignore-scripts"]).out,
)[0].files.map(({ path }: { path: string }) => path);

test("npm pack builds dist/ first", () => {
  const { scripts } = json("package.json");
  assert.deepEqual([scripts.prepack, scripts.build], ["npm run build", "tsup"]);
});

const isClone: Need = { name: "a git checkout", met: succeeds("git", "rev-parse", "HEAD") };

testWith([isClone], "npm pack fails and writes no package in a clone that cannot be built", () => {
  const folder = join(temporaryFolder(), "clone");
  assert.equal(run(["git", "clone", "--quiet", "--shared", root, folder]).code, 0);
  const path = (process.env["PATH"] ?? "").split(":").filter((name) =>
    !name.includes("node_modules")
  );
  const npm = [process.execPath, run(["which", "npm"]).out.trim(), "pack"];
  const { code, err } = run(npm, folder, { PATH: path.join(":") });
  assert.notEqual(code, 0);
  assert.match(err, /tsup/);
  assert.deepEqual(readdirSync(folder).filter((name) => name.endsWith(".tgz")), []);
});

testWith([needs.soak, isClone], "npm pack in a clone makes a complete package", () => {
  const folder = join(temporaryFolder(), "clone");
  assert.equal(run(["git", "clone", "--quiet", "--shared", root, folder]).code, 0);
  symlinkSync(modules, join(folder, "node_modules"));
  const { code, out, err } = run(["npm", "pack", "--json"], folder);
  assert.equal(code, 0, err);
  const [{ files }] = JSON.parse(out.slice(out.indexOf("[\n")));
  assert.deepEqual(missingIn(files.map(({ path }: { path: string }) => path)), []);
});

/** Files of the package that its users name: in imports, on a command line, in units, or to copy them. */
function missingIn(files: readonly string[]): readonly string[] {
  const { exports, bin, man } = json("package.json");
  const targets = Object.values(exports).flatMap((target) =>
    typeof target === "string" ? [target] : Object.values(target as object)
  );
  const expected = [...targets, bin.ucred, ...man].map((path: string) => join(path));
  for (const name of ["ucred.bash", "_ucred", "ucred.fish"]) {
    expected.push(`dist/completions/${name}`);
  }
  for (const folder of ["docs", "examples/systemd", "examples/docker", "examples/container"]) {
    const found = readdirSync(join(root, folder), { recursive: true, encoding: "utf8" });
    const isFile = (name: string) => statSync(join(root, folder, name)).isFile();
    expected.push(...found.filter(isFile).map((name) => join(folder, name)));
  }
  const scripts = files.filter((path) => /^dist\/.*\.js$/.test(path));
  expected.push(...scripts.map((path) => `${path}.map`));
  return expected.filter((path) => !files.includes(path));
}

test("the npm package contains entry points with types and source maps, units, completions, policies and documents", () => {
  assert.deepEqual(missingIn(packedFiles), []);
  assert.ok(missingIn(packedFiles.filter((path) => !path.startsWith("dist/"))).length > 40);
  assert.ok(missingIn([]).length > 80);
});

test("a source map leads from dist/ to the source, which it includes", () => {
  const map = JSON.parse(readFileSync(join(root, "dist/testing.js.map"), "utf8"));
  const at = map.sources.findIndex((path: string) => path.endsWith("testing/fake_peer.ts"));
  assert.equal(map.sourcesContent[at], readFileSync(join(root, "testing/fake_peer.ts"), "utf8"));
  assert.match(
    readFileSync(join(root, "dist/testing.js"), "utf8"),
    /\n\/\/# sourceMappingURL=testing\.js\.map\s*$/,
  );
});

test("the npm package contains the targets of all relative links, and all documents that messages name", () => {
  const links = packedFiles.filter((path) => path.endsWith(".md")).flatMap((path) => {
    const text = readFileSync(join(root, path), "utf8");
    return [...text.matchAll(/\]\((?!https?:)([^)#]+)/g)]
      .map(([, to]) => ({ from: path, to: join(dirname(path), to!) }));
  });
  const folders = ["core", "ffi", "adapters", "identity", "policy", "servers", "cli"];
  const named = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts")).map((name) => join(folder, name))
  ).flatMap((from) =>
    [...readFileSync(join(root, from), "utf8").matchAll(/[a-z/-]+\.md\b/gi)]
      .map(([to]) => ({ from, to }))
  );
  assert.ok(links.length > 10 && named.length > 0);
  const isPacked = (to: string) =>
    packedFiles.some((path) => path === to || path.startsWith(`${to}/`));
  assert.deepEqual([...links, ...named].filter(({ to }) => !isPacked(to)), []);
});

test("the npm package contains an executable, and the manual page that the source generates", () => {
  const { bin, man } = json("package.json");
  assert.match(readFileSync(join(root, bin.ucred), "utf8"), /^#!\/usr\/bin\/env node\n/);
  assert.ok(Array.isArray(man), "npm installs manual pages from an array only");
  const page = readFileSync(join(root, man[0]), "utf8");
  assert.equal(run(["node", join(root, bin.ucred), "man"]).out, page);
});

/** The folder of an npm installation of the package. Its dependencies are links to this checkout's packages. */
const installed = (() => {
  const folder = temporaryFolder();
  if (!existsSync(join(root, "dist/cli.js")) || !succeeds("npm", "--version")) return undefined;
  run(["npm", "pack", "--ignore-scripts", "--pack-destination", folder]); // packs the existing build
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }');
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"))!;
  const links = Object.keys(json("package.json").dependencies).map((name) => join(modules, name));
  const flags = ["--offline", "--no-audit", "--no-fund", "--ignore-scripts"];
  const { code, err } = run(["npm", "install", ...flags, `./${tarball}`, ...links], folder);
  assert.equal(code, 0, err);
  return folder;
})();

const packed: Need = { name: "npm, and a build (npm run build)", met: installed !== undefined };
const STARTS: readonly (readonly [what: string, runtime: string, line: readonly string[]])[] = [
  ["its link", "Node", ["node_modules/.bin/ucred"]],
  ["npx", "Node", ["npx", "--offline", "ucred"]],
  ["bunx", "Bun", ["bunx", "--bun", "ucred"]],
  ["deno run, of the file", "Deno", ["deno", "run", "-A", "node_modules/ucred/dist/cli.js"]],
  ["deno run npm:", "Deno", ["deno", "run", "-A", "--node-modules-dir=manual", "npm:ucred"]],
];

for (const [what, runtime, line] of STARTS) {
  testWith([packed], `the installed command runs on ${runtime}, started by ${what}`, () => {
    assert.equal(run([...line, "--version"], installed).out, `${VERSION}\n`);
    const { code, out, err } = run([...line, "doctor"], installed);
    assert.match(out, new RegExp(`^${runtime} [0-9]`));
    assert.match(out, /^yes +peer credentials/m);
    assert.ok(code === 0 || code === 1, `${code}`);
    assert.equal(err, "");
    const wrong = run([...line, "inspct"], installed);
    assert.deepEqual([wrong.code, wrong.out], [2, ""]);
    assert.match(wrong.err, /Did you mean inspect\?/);
  });
}

testWith(
  [packed, { name: "man", met: succeeds("man", "--version") }],
  "npm install --global makes the command, and its manual page for man(1)",
  () => {
    const folder = temporaryFolder();
    cpSync(join(installed!, "node_modules/ucred"), join(folder, "package"), { recursive: true });
    // Without its dependency, which the command does not import: npm would request it from the registry.
    const { dependencies: _, ...rest } = json("package.json");
    writeFileSync(join(folder, "package/package.json"), JSON.stringify(rest));
    const prefix = join(folder, "prefix");
    const flags = ["--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", prefix];
    const { code, err } = run([
      "npm",
      "install",
      "--global",
      "--install-links",
      ...flags,
      "./package",
    ], folder);
    assert.equal(code, 0, err);
    const path = { PATH: `${prefix}/bin:${process.env["PATH"]}`, MANPATH: "" };
    assert.equal(run(["ucred", "--version"], folder, path).out, `${VERSION}\n`);
    // man(1) looks in share/man beside each bin of PATH.
    const page = run(["man", "--where", "ucred"], folder, path).out.trim();
    assert.equal(page, realpathSync(join(prefix, "share/man/man1/ucred.1")));
    assert.equal(readFileSync(page, "utf8"), readFileSync(join(root, "dist/ucred.1"), "utf8"));
  },
);

const doctor = ["node_modules/ucred/dist/cli.js", "doctor"];

testWith(
  [packed],
  "without node:ffi and koffi, doctor names the command that installs koffi",
  () => {
    const { code, out } = run(["node", "--no-experimental-ffi", ...doctor], installed);
    assert.equal(code, 2);
    assert.match(out, /^no +peer credentials .*npm install koffi/m);
  },
);

testWith(
  [packed],
  "on a Node without process.getBuiltinModule() the command prints the supported versions, and exits with 2",
  () => {
    const older = "data:text/javascript,process.getBuiltinModule = undefined";
    const { code, out, err } = run(["node", "--import", older, ...doctor], installed);
    assert.deepEqual([code, out], [2, ""]);
    assert.match(
      err,
      /^ucred: Node 20\.16, Node 22\.3 or later, Deno or Bun is required; this is Node [0-9.]+\n$/,
    );
  },
);

const build = ["node", "tools/build_binaries.ts"];

test("build:binaries --help prints the options, and an unknown target or option is an error", () => {
  const { code, out } = run([...build, "--help"]);
  assert.equal(code, 0);
  assert.match(out, /--target TARGET/);
  const { scripts } = json("package.json");
  assert.equal(scripts["build:binaries"], build.join(" "));
  for (const args of [["--target", "java"], ["--tarket", "bun"], ["--target", "bun; true"]]) {
    assert.equal(run([...build, ...args]).code, 2, args.join(" "));
  }
});

const built = temporaryFolder();
const binary = join(built, "ucred-bun");
let told: Ran | undefined;

test("build:binaries makes a bundle and an executable of Bun, and reports targets that failed", () => {
  told = run([...build, "--out", built]);
  assert.match(told.out, /^bundle: .*ucred\.mjs, [0-9.]+ MB$/m);
  assert.match(told.out, /^bun: .*ucred-bun, [0-9.]+ MB/m);
  const hasDeno = existsSync(join(built, "ucred-deno"));
  assert.equal(told.code, hasDeno ? 0 : 1, told.out);
  if (!hasDeno) {
    assert.match(
      told.out,
      /^deno: NOT built\n[\s\S]*A part of the executable could not be downloaded\./m,
    );
    assert.match(told.out, /deno run --allow-all .*ucred\.mjs/);
    assert.match(told.out, /^1 of 2 not built$/m);
  } else assert.match(run([join(built, "ucred-deno"), "doctor"]).out, /^Deno/);
});

test("build:binaries writes checksums, and a bill of materials that lists each bundled package", () => {
  const sums = readFileSync(join(built, "SHA256SUMS"), "utf8").trimEnd().split("\n");
  for (const line of sums) {
    const [sum, name] = line.split("  ") as [string, string];
    const expected = createHash("sha256").update(readFileSync(join(built, name))).digest("hex");
    assert.equal(sum, expected, name);
  }
  const names = sums.map((line) => line.split("  ")[1]);
  assert.deepEqual(names.slice(0, 3), ["ucred.mjs", "ucred.cdx.json", "ucred-bun"]);

  const { bomFormat, components } = JSON.parse(readFileSync(join(built, "ucred.cdx.json"), "utf8"));
  assert.equal(bomFormat, "CycloneDX");
  // Two packages may need different versions of a third, which is then in a folder of its own.
  const bundled = readFileSync(join(built, "ucred.mjs"), "utf8")
    .matchAll(/^\/\/ .*?(node_modules\/(?:.*node_modules\/)?((?:@[^/]+\/)?[^/]+))\//gm);
  const folders = new Map([...bundled].map(([, folder, name]) => [name!, folder!]));
  const listed = components.map(({ name }: { name: string }) => name);
  assert.deepEqual(listed.toSorted(), [...folders.keys(), "llhttp"].sort());
  assert.match(components.at(-1).purl, /^pkg:github\/nodejs\/llhttp@v9\.\d+\.\d+$/);
  for (const { name, purl } of components.slice(0, -1)) {
    const { version } = json(`${folders.get(name)}/package.json`);
    assert.equal(purl, `pkg:npm/${name.replace("@", "%40")}@${version}`);
  }
});

test("the bundle runs on each runtime, and on Deno with the permissions that the build prints", () => {
  const bundle = join(built, "ucred.mjs");
  const lines = [["node"], ["bun"], ["deno", "run", "--no-prompt", "--allow-all"]];
  for (const line of lines) {
    const { code, out, err } = run([...line, bundle, "doctor", "--json"], built);
    assert.equal(err, "");
    const failed = JSON.parse(out).capabilities.filter(({ ok }: { ok: boolean }) => !ok);
    assert.deepEqual([code, failed], [0, []], line[0]!);
  }
});

test("deno install of the bundle makes a command that inspects sockets", async () => {
  const folder = temporaryFolder();
  const install = ["deno", "install", "--global", "--allow-all", "--name", "ucred"];
  const made = run([...install, "--root", folder, join(built, "ucred.mjs")], folder);
  assert.equal(made.code, 0, made.err);
  const path = join(folder, "app.sock");
  const server = createServer().listen(path);
  await once(server, "listening");
  const { out, err } = run([join(folder, "bin/ucred"), "inspect", path], folder);
  server.close();
  assert.equal(err, "");
  assert.match(out, new RegExp(`^  listens +pid ${process.pid}, uid ${process.getuid!()}`, "m"));
});

testWith(
  [packed],
  "the policy commands run on Deno with the permissions in docs/command.md",
  () => {
    const text = readFileSync(join(root, "docs/command.md"), "utf8");
    const [, flags] = /deno run ((?:--allow-\S+ )+)\S*cli\.js policy /.exec(text)!;
    writeFileSync(
      join(installed!, "p.yaml"),
      "version: 1\n" +
        "rules: [{ name: root, when: { user: root }, allow: true }]\n" +
        "tests: [{ peer: { uid: 0 }, expect: { allow: true } }]\n",
    );
    const deno = ["deno", "run", "--no-prompt", ...flags!.trim().split(" ")];
    const ucred = [...deno, "node_modules/ucred/dist/cli.js", "policy"];
    for (
      const [args, code, output] of [
        [["check", "p.yaml", "--allow-unsafe-owner"], 0, /p\.yaml: ok/],
        [["test", "p.yaml"], 0, /1 passed, 0 failed/],
        [["explain", "p.yaml", "--user", "0", "--gid", "0"], 0, /Allowed/],
        [["check", "none.yaml"], 2, /none\.yaml: ENOENT/],
      ] as const
    ) {
      const ran = run([...ucred, ...args], installed);
      assert.match(ran.out + ran.err, output);
      assert.equal(ran.code, code, args[0]);
    }
  },
);

test("the executable ignores .env and bunfig.toml in the working directory", () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, ".env"), "FORCE_COLOR=1\n");
  writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./evil.ts"]\n');
  writeFileSync(join(folder, "evil.ts"), 'console.log("evil");\n');
  writeFileSync(join(folder, "p.yaml"), "version: 1\nrules: [{ name: all, allow: true }]\n");
  const { code, out } = run([binary, "policy", "lint", "p.yaml"], folder);
  assert.equal(code, 1);
  assert.ok(!out.includes("\u001b") && !out.includes("evil"), out);
});

/** The libraries that the dynamic loader of this machine loads for a program. */
function librariesOf(program: string): readonly string[] {
  return [...run(["ldd", program]).out.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path!);
}

testWith(
  [needs.root, needs.linux, {
    name: "ldd and chroot",
    met: succeeds("ldd", "--version") && succeeds("chroot", "--version"),
  }],
  "the executable runs in a root file system with only itself, libc and /proc",
  () => {
    const folder = temporaryFolder();
    for (const path of librariesOf(binary)) {
      mkdirSync(join(folder, dirname(path)), { recursive: true });
      copyFileSync(path, join(folder, path));
    }
    copyFileSync(binary, join(folder, "ucred"));
    chmodSync(join(folder, "ucred"), 0o755);
    for (const name of ["tmp", "proc"]) mkdirSync(join(folder, name));
    // Bun aborts without /proc.
    const inside = (line: string) =>
      run([
        "unshare",
        "--mount",
        "sh",
        "-c",
        `mount -t proc proc ${folder}/proc && TMPDIR=/tmp ${line}`,
      ]);
    assert.equal(inside(`chroot ${folder} /ucred --version`).out, `${VERSION}\n`);
    const { out, code, err } = inside(`chroot ${folder} /ucred doctor --json`);
    assert.deepEqual([code, err], [0, ""]);
    const failed = JSON.parse(out).capabilities.filter(({ ok }: { ok: boolean }) => !ok);
    assert.deepEqual(failed, []);
    const lint = inside(`chroot ${folder} /ucred policy check /none`);
    assert.deepEqual([lint.code, lint.err.split("\n").length], [2, 3]);
  },
);

const musl = `/lib/ld-musl-${process.arch === "x64" ? "x86_64" : "aarch64"}.so.1`;

testWith(
  [needs.root, needs.linux, { name: `${musl} (Debian: musl)`, met: existsSync(musl) }],
  "the executable for musl runs, or the loader reports which library is missing",
  () => {
    const target = `bun-linux-${process.arch}-musl`;
    const { code, out } = run([...build, "--target", target, "--out", built]);
    if (code !== 0) return assert.match(out, /could not be/); // Bun downloads its runtime for musl
    const folder = temporaryFolder();
    mkdirSync(join(folder, "lib"));
    mkdirSync(join(folder, "tmp"));
    copyFileSync(musl, join(folder, musl));
    copyFileSync(join(built, `ucred-${target}`), join(folder, "ucred"));
    const ran = run(["chroot", folder, "/ucred", "--version"]);
    if (ran.code === 0) assert.equal(ran.out, `${VERSION}\n`);
    else assert.match(ran.err, /^Error loading shared library libstdc\+\+\.so\.6: No such file/);
  },
);

const systemd: Need = { name: "systemd-analyze", met: succeeds("systemd-analyze", "--version") };
const units = join(root, "examples/systemd");
const SERVICE = "ucred-guard@.service";

/** Writes the units to a folder, with the path of an existing executable. */
function unitsHere(): string {
  const folder = temporaryFolder();
  const text = readFileSync(join(units, SERVICE), "utf8");
  assert.match(text, /^ExecStart=\/usr\/bin\/ucred guard --systemd /m);
  writeFileSync(join(folder, SERVICE), text.replace("=/usr/bin/ucred ", `=${binary} `));
  copyFileSync(join(units, "ucred-guard@.socket"), join(folder, "ucred-guard@.socket"));
  return folder;
}

/** Writes the units of a user's service manager to a folder, with the path of an existing executable. */
function userUnitsHere(): string {
  const folder = temporaryFolder();
  const text = readFileSync(join(units, "user", SERVICE), "utf8");
  writeFileSync(join(folder, SERVICE), text.replace("=/usr/bin/ucred ", `=${binary} `));
  copyFileSync(join(units, "user/ucred-guard@.socket"), join(folder, "ucred-guard@.socket"));
  return folder;
}

testWith(
  [systemd],
  "systemd-analyze --user verify accepts the units of a user, which make no user namespace",
  () => {
    const folder = userUnitsHere();
    const files = [`./${SERVICE}`, "./ucred-guard@.socket"];
    const line = ["systemd-analyze", "--user", "verify", "--man=no", ...files];
    const { code, out, err } = run(line, folder, {
      SYSTEMD_UNIT_PATH: `${folder}:`,
      XDG_RUNTIME_DIR: folder,
      HOME: folder,
    });
    assert.deepEqual([code, out, err], [0, "", ""]);
    const text = readFileSync(join(folder, SERVICE), "utf8");
    // In a user's manager, these imply PrivateUsers=, with which all other users have one uid.
    assert.doesNotMatch(text, /^(?:Private|Protect|Bind|ReadOnly|Inaccessible|Dynamic|RootD)\w*=/m);
    assert.match(text, /^ExecStart=\S+ guard --systemd .* --policy %E\/ucred\/%i\.yaml/m);
  },
);

/** Adds the drop-in for `--as-peer`. */
function withDropIn(folder: string): string {
  const text = readFileSync(join(units, "as-peer.conf"), "utf8");
  assert.match(text, /^ExecStart=\/usr\/bin\/ucred guard --as-peer --systemd /m);
  mkdirSync(join(folder, `${SERVICE}.d`));
  const file = join(folder, `${SERVICE}.d/as-peer.conf`);
  writeFileSync(file, text.replace("=/usr/bin/ucred ", `=${binary} `));
  return folder;
}

testWith(
  [systemd],
  "the drop-in for --as-peer adds an option to the command of the service",
  () => {
    const commandOf = (file: string) =>
      /^ExecStart=(\S+ .*)$/m.exec(readFileSync(join(units, file), "utf8"))![1]!;
    assert.equal(commandOf("as-peer.conf").replace(" --as-peer", ""), commandOf(SERVICE));
  },
);

for (
  const [what, folderOf] of [["units", unitsHere], [
    "units with the drop-in for --as-peer",
    () => withDropIn(unitsHere()),
  ]] as const
) {
  testWith([systemd], `systemd-analyze verify accepts the ${what}`, () => {
    const folder = folderOf();
    const files = [`./${SERVICE}`, "./ucred-guard@.socket"];
    const { code, out, err } = run(["systemd-analyze", "verify", "--man=no", ...files], folder, {
      SYSTEMD_UNIT_PATH: `${folder}:`,
    });
    assert.deepEqual([code, out, err], [0, "", ""]);
  });
}

testWith(
  [systemd],
  "systemd-analyze security rates the exposure of the service at most 1.0 of 10",
  () => {
    const args = ["security", "--offline=true", "--threshold=10", `./${SERVICE}`];
    const { code, out } = run(["systemd-analyze", ...args], unitsHere());
    assert.equal(code, 0);
    const level = Number(/Overall exposure level .*: ([0-9.]+)/.exec(out)?.[1]);
    assert.ok(level <= 1.0, out);
  },
);

testWith(
  [
    needs.root,
    needs.cc,
    { name: "systemd-socket-activate", met: succeeds("systemd-socket-activate", "--version") },
  ],
  "the command line of the service guards the socket that systemd passes",
  async () => {
    const folder = temporaryFolder();
    const behind = join(folder, "app.sock");
    const server = createServer((socket) => socket.on("error", () => {}).end("from behind"));
    await new Promise<void>((resolve) => server.listen(behind, resolve));
    after(() => server.close());
    const policy = join(folder, "policy.yaml");
    writeFileSync(policy, "version: 1\nrules: [{ name: one, when: { uid: 4001 }, allow: true }]\n");
    const text = readFileSync(join(units, SERVICE), "utf8");
    const line = /^ExecStart=\S+ (.*)$/m.exec(text)![1]!.replaceAll("/etc/ucred/%i.yaml", policy)
      .replaceAll("${MODE}", /^Environment=MODE=(.*)$/m.exec(text)![1]!)
      .replaceAll("${UPSTREAM}", behind).split(" ");
    const listen = join(folder, "guarded.sock");
    const args = ["-l", listen, binary, ...line, "--allow-unsafe-owner"];
    const manager = spawn("systemd-socket-activate", args, { stdio: "ignore" });
    after(() => manager.kill("SIGKILL"));
    while (!isListening(listen)) await sleep(10);
    chmodSync(listen, 0o666);
    assert.equal(await visitAs(4001, listen), "from behind");
    assert.equal(await visitAs(4002, listen), "");
    const ended = new Promise((resolve) => manager.once("exit", resolve));
    manager.kill("SIGTERM");
    assert.equal(await ended, 0);
  },
);
