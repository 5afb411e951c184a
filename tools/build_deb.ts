/** `npm run build:deb`: builds a Debian package of the command, with dpkg-deb. */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  globSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { SHELLS } from "../cli/completions.ts";
import { manual } from "../cli/man.ts";
import { programFor } from "../cli/program.ts";
import { VERSION } from "../cli/version.ts";

const HELP = `Usage: npm run build:deb -- [--target TARGET] [--out FOLDER]

Builds ucred_VERSION-1_ARCHITECTURE.deb: the command as an executable made by Bun, its manual page,
completions for bash, zsh and fish, the systemd units of the guard, example policies and /etc/ucred.
The package has no maintainer script, and enables no unit. Requires dpkg-deb.

  --target TARGET  bun-linux-x64 or bun-linux-arm64 (default: this machine)
  --out FOLDER     the output folder (default: build)
  --help           print this help

SOURCE_DATE_EPOCH sets the time of all files, by default that of the last commit.
DPKG_DEB_COMPRESSOR_TYPE sets the compression: see dpkg-deb(1).
`;

/** Target → Debian's name of the architecture. */
const ARCHITECTURES: { readonly [target: string]: string } = {
  "bun-linux-x64": "amd64",
  "bun-linux-arm64": "arm64",
};

const MAINTAINER = "The ucred authors <ucred@users.noreply.github.com>";

const root = join(import.meta.dirname, "..");

function run(command: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
  });
  if (status === 0) return stdout;
  throw new Error(`${command} failed: ${error?.message ?? `${stdout}${stderr}`.trim()}`);
}

/** Returns the time of all files in the package, in seconds. */
function sourceDate(): number {
  const { SOURCE_DATE_EPOCH } = process.env;
  return Number(SOURCE_DATE_EPOCH ?? run("git", "log", "-1", "--format=%ct"));
}

/** Returns the newest version of the GNU C library that the executable names. */
function libcVersionOf(executable: string): string {
  const minors = readFileSync(executable, "latin1").matchAll(/GLIBC_2\.(\d+)(?!\d)/g);
  return `2.${Math.max(17, ...[...minors].map(([, minor]) => Number(minor)))}`;
}

/** The files of the package, under a folder. */
class Tree {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  path(name: string): string {
    const path = join(this.#folder, name);
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    return path;
  }

  write(name: string, content: string | Uint8Array, mode = 0o644): void {
    const path = this.path(name);
    writeFileSync(path, content);
    chmodSync(path, mode);
  }

  /** Writes compressed text without its time, so that each build has the same bytes. */
  compressed(name: string, text: string): void {
    this.write(name, gzipSync(text, { level: 9 }));
  }

  copy(from: string, name: string, mode = 0o644): void {
    const path = this.path(name);
    copyFileSync(resolve(root, from), path);
    chmodSync(path, mode);
  }
}

/** Adds everything but the control files. */
function install(tree: Tree, executable: string, bom: string, date: number): void {
  const program = programFor(() => {});
  tree.copy(executable, "usr/bin/ucred", 0o755);
  tree.compressed("usr/share/man/man1/ucred.1.gz", `${manual(program)}\n`);
  const completions = {
    bash: "usr/share/bash-completion/completions/ucred",
    zsh: "usr/share/zsh/vendor-completions/_ucred",
    fish: "usr/share/fish/vendor_completions.d/ucred.fish",
  } as const;
  for (const [shell, file] of Object.entries(completions)) {
    tree.write(file, `${SHELLS[shell as keyof typeof SHELLS].script(program)}\n`);
  }
  for (const unit of ["ucred-guard@.service", "ucred-guard@.socket"]) {
    tree.copy(`examples/systemd/${unit}`, `usr/lib/systemd/system/${unit}`);
    tree.copy(`examples/systemd/user/${unit}`, `usr/lib/systemd/user/${unit}`);
  }
  mkdirSync(tree.path("etc/ucred"), { mode: 0o755 });
  const documents = "usr/share/doc/ucred";
  tree.copy("examples/systemd/as-peer.conf", `${documents}/examples/as-peer.conf`);
  tree.copy("examples/privileged-helper/policy.yaml", `${documents}/examples/sudo.yaml`);
  for (const policy of globSync("examples/docker/*.yaml", { cwd: root })) {
    tree.copy(policy, `${documents}/examples/docker/${basename(policy)}`);
  }
  tree.write(`${documents}/copyright`, copyright());
  tree.copy(bom, `${documents}/ucred.cdx.json`);
  const changes = `ucred (${VERSION}-1) unstable; urgency=medium\n\n  * See changelog.gz.\n\n` +
    ` -- ${MAINTAINER}  ${new Date(date * 1000).toUTCString().replace("GMT", "+0000")}\n`;
  tree.compressed(`${documents}/changelog.Debian.gz`, changes);
  tree.compressed(`${documents}/changelog.gz`, readFileSync(join(root, "CHANGELOG.md"), "utf8"));
  tree.write("usr/share/lintian/overrides/ucred", OVERRIDES);
}

/** Findings of lintian about Bun's runtime, and about packages in Debian's archive. */
const OVERRIDES =
  `# The executable is Bun's runtime, with the program appended: strip(1) would remove it.
ucred: unstripped-binary-or-object [usr/bin/ucred]
# Bun is linked and includes libraries in this way.
ucred: embedded-library *
ucred: hardening-no-pie [usr/bin/ucred]
ucred: hardening-no-relro [usr/bin/ucred]
ucred: hardening-no-bindnow [usr/bin/ucred]
ucred: spelling-error-in-binary *
# The package is not in Debian's archive.
ucred: initial-upload-closes-no-bugs *
`;

/** The licence in Debian's format. */
function copyright(): string {
  const text = readFileSync(join(root, "LICENSE"), "utf8").trimEnd();
  const lines = text.split("\n").map((line) => line.trim() === "" ? " ." : ` ${line}`);
  const holder = /^Copyright \(c\) (.*)$/im.exec(text)?.[1] ?? "The ucred authors";
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ucred
Source: https://github.com/ucred/ucred
Comment: The executable contains Bun's runtime, and the libraries in ucred.cdx.json.

Files: *
Copyright: ${holder}
License: MIT
${lines.join("\n")}
`;
}

function control(architecture: string, libc: string, bytes: number): string {
  return `Package: ucred
Version: ${VERSION}-1
Architecture: ${architecture}
Maintainer: ${MAINTAINER}
Installed-Size: ${Math.ceil(bytes / 1024)}
Depends: libc6 (>= ${libc})
Section: admin
Priority: optional
Homepage: https://github.com/ucred/ucred
Description: identifies the peers of Unix domain sockets
 The kernel records the process that made each connection to a Unix domain
 socket. This command shows the servers and the clients of sockets, puts a
 policy in front of servers that do not check their clients (systemd units
 are included), and checks, tests and queries policy files.
`;
}

function main(): number {
  const { values } = parseArgs({
    options: {
      target: { type: "string", default: `bun-linux-${process.arch}` },
      out: { type: "string", default: join(root, "build") },
      help: { type: "boolean" },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const architecture = ARCHITECTURES[values.target];
  if (architecture === undefined) {
    throw new Error(`No target "${values.target}": use ${Object.keys(ARCHITECTURES).join(" or ")}`);
  }
  const date = sourceDate();
  const out = resolve(values.out);
  const isOurs = values.target === `bun-linux-${process.arch}`;
  const target = isOurs ? "bun" : values.target; // Bun downloads a runtime for a named machine, but not for "bun"
  const { execPath } = process;
  console.log(run(execPath, "tools/build_binaries.ts", "--target", target, "--out", out).trimEnd());

  const folder = join(out, `ucred_${VERSION}-1_${architecture}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  const tree = new Tree(folder);
  const executable = join(out, `ucred-${target}`);
  install(tree, executable, join(out, "ucred.cdx.json"), date);

  const files = globSync("**/*", { cwd: folder }).filter((name) =>
    statSync(join(folder, name)).isFile()
  ).sort();
  const sums = files.map((name) => {
    const sum = createHash("md5").update(readFileSync(join(folder, name))).digest("hex");
    return `${sum}  ${name}\n`;
  });
  const bytes = files.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  tree.write("DEBIAN/control", control(architecture, libcVersionOf(executable), bytes));
  tree.write("DEBIAN/md5sums", sums.join(""));
  for (const name of ["", ...globSync("**/*", { cwd: folder })]) {
    utimesSync(join(folder, name), date, date);
  }
  const file = `${folder}.deb`;
  process.env["SOURCE_DATE_EPOCH"] = String(date);
  run("dpkg-deb", "--root-owner-group", "--build", folder, file);
  rmSync(folder, { recursive: true });
  console.log(`package: ${file}, ${(statSync(file).size / 1e6).toFixed(1)} MB`);
  return 0;
}

process.umask(0o022);
try {
  process.exitCode = main();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 2;
}
