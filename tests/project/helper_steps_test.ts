/** The steps of docs/sudo-helper.md set up a privileged helper, on each runtime. */

import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { temporaryFolder } from "../support/compile.ts";
import { freshPath } from "../support/peers.ts";
import { commandFolder, privileged } from "../support/privileged_helper.ts";
import { needs, succeeds, testWith } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const page = readFileSync(join(root, "docs/sudo-helper.md"), "utf8");
const block = (language: string) => new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(page)![1]!;

/** Inside the project: there "ucred" resolves to this package. */
const folder = mkdtempSync(join(root, ".examples-helper-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const server = join(folder, "server.mjs");
writeFileSync(server, block("js"));
const cli = join(root, "dist/cli.js");

const accounts = {
  name: "the group adm and the user www-data",
  met: succeeds("getent", "group", "adm") && succeeds("id", "www-data"),
};

const STARTS: { readonly [name: string]: readonly string[] } = {
  Node: ["node", "--disable-warning=ExperimentalWarning"],
  Bun: ["bun"],
  Deno: ["deno", "run", "-A"],
};

for (const [name, [command, ...flags]] of Object.entries(STARTS)) {
  testWith(
    [...privileged, needs.strangers, accounts],
    `the helper of docs/sudo-helper.md runs the commands of its policy, on ${name}`,
    async () => {
      const path = freshPath();
      const policy = join(commandFolder(), "helper.yaml");
      writeFileSync(policy, block("yaml"), { mode: 0o644 });
      const child = spawn(command!, [...flags, server, path, policy], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      let log = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => log += text);
      try {
        await new Promise((resolve, reject) =>
          child.once("exit", reject).stdout.once("data", resolve)
        );
        const as = (group: string, ...words: string[]) => {
          const ids = ["--reuid=4321", `--regid=${group}`, "--clear-groups"];
          const client = [process.execPath, cli, "run", "--socket", path, ...words];
          return execFileSync("setpriv", [...ids, ...client], {
            encoding: "utf8",
            stdio: ["ignore", "pipe", "pipe"],
          });
        };
        assert.match(as("adm", "--", "/usr/bin/id"), /^uid=0\(root\) gid=0\(root\)/);
        const other = as("adm", "--user", "www-data", "--", "/usr/bin/id", "-un");
        assert.equal(other, "www-data\n");
        assert.throws(() => as("adm", "--", "/usr/bin/cat", "\u009b"), /policy denies the command/);
        assert.throws(() => as("4321", "--", "/usr/bin/id"), /disconnected/);
        const ended = new Promise((resolve) => child.once("exit", resolve));
        child.kill("SIGTERM");
        assert.equal(await ended, 0);
      } finally {
        child.kill("SIGKILL");
      }
      const [first, ...records] = log.trim().split("\n");
      assert.equal(first, "listening");
      assert.deepEqual(
        records.map((line) => JSON.parse(line)).map(({ event, user }) => `${event} ${user}`),
        [
          ...["started root", "ended root", "started www-data", "ended www-data"],
          "refused root",
        ],
      );
      assert.match(log, /^[ -~\n]*$/); // no sequence for terminals
    },
  );
}

const systemd = {
  name: "systemd-analyze (Debian: systemd)",
  met: succeeds("systemd-analyze", "--version"),
};

testWith([systemd], "systemd-analyze verify accepts the unit of the helper", () => {
  const unit = readFileSync(join(root, "examples/privileged-helper/ucred-helper.service"), "utf8");
  const start = /^ExecStart=\/usr\/bin\/node \/opt\/ucred-helper\/server\.mjs (\S+) (\S+)$/m.exec(
    unit,
  )!;
  assert.ok(page.includes(start[1]!) && page.includes(start[2]!));
  const file = join(temporaryFolder(), "ucred-helper.service");
  writeFileSync(file, unit.replace("=/usr/bin/node ", `=${process.execPath} `));
  const { status, stdout, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", file], {
    encoding: "utf8",
  });
  assert.deepEqual([status, stdout, stderr], [0, "", ""]);
});

test("docs/sudo-helper.md shows the policy and the server of the example", () => {
  const example = (name: string) =>
    readFileSync(join(root, "examples/privileged-helper", name), "utf8");
  assert.ok(block("yaml").startsWith(example("policy.yaml")));
  const statements = (text: string) =>
    text.replaceAll(/\s+/g, "").replace(/^.*?(?=constpolicy)/, "");
  const typed = example("server.ts").replaceAll(/: (?:string|CommandRecord)(?=\))/g, "");
  assert.equal(statements(typed), statements(block("js")));
});
