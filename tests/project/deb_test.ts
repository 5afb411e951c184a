/** The Debian package: its files, fields and installation, and its programs and units. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { SHELLS } from "../../cli/completions.ts";
import { manual } from "../../cli/man.ts";
import { programFor } from "../../cli/program.ts";
import { VERSION } from "../../cli/version.ts";
import { temporaryFolder } from "../support/compile.ts";
import { type Need, needs, soak, succeeds, testWith } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

function run(line: readonly string[], env = {}) {
  const [command, ...args] = line as [string];
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  if (error !== undefined) throw error;
  return { code: status, out: stdout, err: stderr };
}

const dpkg: Need = {
  name: "dpkg-deb and git, in a checkout, on a CPU for which Debian and Bun have builds",
  met: succeeds("dpkg-deb", "--version") && succeeds("git", "-C", root, "rev-parse", "HEAD") &&
    (process.arch === "x64" || process.arch === "arm64"),
};

const folder = temporaryFolder();
const files = join(folder, "files");

/** Builds the package, and extracts it. Compression takes a minute: only the long form compresses. */
const deb: string = (() => {
  if (!dpkg.met) return "";
  const env = { DPKG_DEB_COMPRESSOR_TYPE: soak(0, 1) === 1 ? "gzip" : "none" };
  // The umask must not change the modes in the package.
  const start = ["sh", "-c", 'umask 077 && exec "$@"', "sh"];
  const { code, out, err } = run([...start, "node", "tools/build_deb.ts", "--out", folder], env);
  assert.equal(code, 0, out + err);
  const file = /^package: (.*\.deb), /m.exec(out)![1]!;
  assert.equal(run(["dpkg-deb", "--extract", file, files]).code, 0);
  return file;
})();

test("build:deb --help prints the options, and an unknown target or option is an error", () => {
  const line = ["node", "tools/build_deb.ts"];
  assert.match(run([...line, "--help"]).out, /--target TARGET/);
  for (const args of [["--target", "bun"], ["--target", "../x"], ["--tarket", "bun-linux-x64"]]) {
    assert.equal(run([...line, ...args]).code, 2, args.join(" "));
  }
});

testWith([dpkg], "the Debian package has the fields of this version and CPU", () => {
  const field = (name: string) => run(["dpkg-deb", "--field", deb, name]).out.trim();
  assert.equal(field("Version"), `${VERSION}-1`);
  assert.equal(field("Architecture"), process.arch === "x64" ? "amd64" : "arm64");
  assert.match(field("Depends"), /^libc6 \(>= 2\.\d+\)$/);
  const bytes = globSync("**/*", { cwd: files }).map((name) => lstatSync(join(files, name)))
    .reduce((sum, stats) => stats.isFile() ? sum + stats.size : sum, 0);
  assert.equal(Number(field("Installed-Size")), Math.ceil(bytes / 1024));
  const ldd = run(["ldd", join(files, "usr/bin/ucred")]);
  const libraries = [...ldd.out.matchAll(/^\s+(?:\S*\/)?([a-z-]+)[^ ]*/gmi)].map(([, name]) =>
    name!
  );
  const ofLibc = [
    "ld-linux-x",
    "ld-linux-aarch",
    "libc",
    "libdl",
    "libm",
    "libpthread",
    "linux-vdso",
  ];
  assert.deepEqual(libraries.filter((name) => !ofLibc.includes(name)), [], ldd.out);
});

testWith([dpkg], "the Debian package has no maintainer script, and enables no unit", () => {
  const control = join(folder, "control");
  assert.equal(run(["dpkg-deb", "--control", deb, control]).code, 0);
  assert.deepEqual(readdirSync(control).sort(), ["control", "md5sums"]);
  const names = globSync("**/*", { cwd: files });
  assert.deepEqual(names.filter((name) => /\.wants\/|\.requires\/|cron|init\.d/.test(name)), []);
});

testWith(
  [dpkg],
  "the files of the Debian package belong to root, and only root can change them",
  () => {
    const lines = run(["dpkg-deb", "--contents", deb]).out.trim().split("\n");
    for (const line of lines) {
      assert.match(line, /^(?:drwxr-xr-x|-rw[-x]r-[-x]r-[-x]) root\/root /, line);
      if (line.includes("x root/root") && line.startsWith("-")) {
        assert.match(
          line,
          /usr\/bin\/ucred$/,
        );
      }
    }
    assert.ok(lines.some((line) => line.endsWith(" ./etc/ucred/")));
  },
);

testWith(
  [dpkg],
  "the Debian package has what the source generates, at the paths where Debian looks",
  () => {
    const program = programFor(() => {});
    const read = (name: string) => readFileSync(join(files, name), "utf8");
    const unzip = (name: string) => String(gunzipSync(readFileSync(join(files, name))));
    assert.equal(unzip("usr/share/man/man1/ucred.1.gz"), `${manual(program)}\n`);
    const { bash, zsh, fish } = SHELLS;
    for (
      const [name, { script }] of [
        ["usr/share/bash-completion/completions/ucred", bash],
        ["usr/share/zsh/vendor-completions/_ucred", zsh],
        ["usr/share/fish/vendor_completions.d/ucred.fish", fish],
      ] as const
    ) assert.equal(read(name), `${script(program)}\n`);
    for (const [manager, from] of [["system", ""], ["user", "user/"]] as const) {
      for (const unit of ["ucred-guard@.service", "ucred-guard@.socket"]) {
        const source = readFileSync(join(root, `examples/systemd/${from}${unit}`), "utf8");
        assert.equal(read(`usr/lib/systemd/${manager}/${unit}`), source);
      }
    }
    const documents = "usr/share/doc/ucred";
    for (const policy of globSync("examples/docker/*.yaml", { cwd: root })) {
      assert.ok(existsSync(join(files, documents, policy)), policy);
    }
    assert.match(
      unzip(`${documents}/changelog.Debian.gz`),
      new RegExp(`^ucred \\(${VERSION}-1\\) `),
    );
    assert.match(read(`${documents}/copyright`), /^License: MIT\n MIT License\n/m);
    assert.equal(JSON.parse(read(`${documents}/ucred.cdx.json`)).bomFormat, "CycloneDX");
  },
);

testWith([dpkg], "the command of the Debian package runs", () => {
  const command = join(files, "usr/bin/ucred");
  assert.equal(run([command, "--version"]).out, `${VERSION}\n`);
  const { out } = run([command, "doctor"]);
  assert.match(out, /^yes +peer credentials/m);
});

testWith(
  [dpkg, { name: "systemd-analyze", met: succeeds("systemd-analyze", "--version") }],
  "systemd-analyze verify accepts the units of the Debian package with its command",
  () => {
    for (const [manager, flags] of [["system", []], ["user", ["--user"]]] as const) {
      const units = join(files, "usr/lib/systemd", manager);
      const here = join(folder, manager);
      mkdirSync(here);
      for (const name of readdirSync(units)) {
        const text = readFileSync(join(units, name), "utf8");
        writeFileSync(
          join(here, name),
          text.replace("=/usr/bin/ucred ", `=${files}/usr/bin/ucred `),
        );
      }
      const names = readdirSync(here).map((name) => join(here, name));
      const { code, out, err } = run(
        ["systemd-analyze", ...flags, "verify", "--man=no", ...names],
        {
          SYSTEMD_UNIT_PATH: `${here}:`,
          XDG_RUNTIME_DIR: folder,
          HOME: folder,
        },
      );
      assert.deepEqual([code, out, err], [0, "", ""], manager);
    }
  },
);

testWith(
  [dpkg, needs.root],
  "dpkg installs the Debian package into an empty root, keeps policies, and removes the rest",
  () => {
    const system = join(folder, "system");
    mkdirSync(join(system, "var/lib/dpkg/updates"), { recursive: true });
    mkdirSync(join(system, "var/lib/dpkg/info"));
    writeFileSync(join(system, "var/lib/dpkg/status"), "");
    const ours = (...args: readonly string[]) => {
      const { code, out, err } = run(["dpkg", `--root=${system}`, "--force-depends", ...args]);
      assert.equal(code, 0, out + err);
    };
    ours("--install", deb);
    assert.equal(run([join(system, "usr/bin/ucred"), "--version"]).out, `${VERSION}\n`);
    assert.equal(run(["dpkg", `--root=${system}`, "--verify", "ucred"]).out, "");
    writeFileSync(join(system, "etc/ucred/app.yaml"), "version: 1\nrules: []\n");
    ours("--install", deb);
    ours("--purge", "ucred");
    assert.equal(existsSync(join(system, "usr/bin/ucred")), false);
    const left = globSync("{etc,usr}/**/*", { cwd: system }).filter((name) =>
      lstatSync(join(system, name)).isFile()
    );
    assert.deepEqual(left, ["etc/ucred/app.yaml"]);
  },
);

testWith(
  [dpkg, needs.soak, { name: "lintian", met: succeeds("lintian", "--version") }],
  "lintian finds no error and no warning in the Debian package",
  () => {
    const { code, out, err } = run(["lintian", "--allow-root", "--fail-on=error,warning", deb]);
    assert.deepEqual([code, out, err], [0, "", ""]);
  },
);
