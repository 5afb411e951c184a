/** The built package on versions of Node that lack node:ffi: with koffi, and without it. */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { temporaryFolder } from "../support/compile.ts";
import { packagesOf } from "../support/packages.ts";
import { testWith } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Major version → its executable. */
const NODES: { readonly [major: string]: string } = Object.fromEntries(
  ["20", "22", "24"].map((major) => [
    major,
    join(root, `tests/packages/node_modules/node-${major}/bin/node`),
  ]),
);
const installed = [packagesOf("tests/packages")];

/** A user's project with the built package, and with these packages. */
function projectWith(...packages: readonly string[]): string {
  const folder = temporaryFolder();
  const modules = join(folder, "node_modules");
  mkdirSync(modules);
  cpSync(join(root, "dist"), join(modules, "ucred/dist"), { recursive: true });
  cpSync(join(root, "package.json"), join(modules, "ucred/package.json"));
  for (const name of packages) symlinkSync(join(root, "node_modules", name), join(modules, name));
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  return folder;
}
const withKoffi = projectWith("srvx", "koffi");
const withoutKoffi = projectWith("srvx");

/** A program that uses servers, a client, a policy with a pinned peer, and a guard that connects as its peers. */
const PROGRAM = `
import { createServer } from "node:net";
import { rmSync } from "node:fs";
import { createClient } from "ucred/client";
import { createGuard } from "ucred/guard";
import { serve } from "ucred/http";
import { parsePolicy } from "ucred/policy";
import { identify, peerCredentials } from "ucred";

const policy = parsePolicy("version: 1\\nrules: [{ name: we, when: { sameUser: true, exe: '/**' }, allow: true }]");
const server = await serve({
  path: "app.sock",
  policy,
  fetch: (_, { peer }) => Response.json({ uid: peer.uid, pid: peer.pid, exe: peer.process.exe }),
});
const seen = createServer((socket) => {
  const { pid } = peerCredentials(socket);
  const { facts } = identify(socket, { pin: true });
  socket.end(JSON.stringify({ pid, pinned: facts.pinned.state, groups: facts.groups.state }));
}).listen("seen.sock");
const asPeer = process.getuid() === 0;
const guard = createGuard({ mode: "http", upstream: "app.sock", policy, asPeer, report: console.error });
await new Promise((resolve) => guard.listen({ path: "guard.sock" }, resolve));
const answers = [];
for (const path of ["app.sock", "guard.sock"]) {
  const client = createClient({ path, expect: { uid: process.getuid() } });
  answers.push(await (await client.fetch("http://localhost/")).json());
  client.close();
}
const { connect } = await import("node:net");
const text = await connect("seen.sock").setEncoding("utf8").toArray();
answers.push(JSON.parse(text.join("")));
console.log(JSON.stringify({ answers, pid: process.pid, exe: process.execPath, uid: process.getuid() }));
await guard.close();
await server.close();
seen.close();
`;
writeFileSync(join(withKoffi, "program.mjs"), PROGRAM);
writeFileSync(
  join(withoutKoffi, "program.mjs"),
  `import { checkSupport } from "ucred";
   try { checkSupport(); } catch ({ code, message, hint }) { console.log(JSON.stringify({ code, message, hint })); }`,
);

/** Runs a script in a project, and returns the JSON that it prints. */
function run(node: string, cwd: string, ...args: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(node, args, { cwd, encoding: "utf8" });
  assert.deepEqual([status, stderr], [0, ""]);
  return JSON.parse(stdout);
}

/** Checks the output of PROGRAM. */
function assertIdentified({ answers, pid, exe, uid }: ReturnType<typeof run>): void {
  const ours = { uid, pid, exe };
  assert.deepEqual(answers, [ours, ours, { pid, pinned: "known", groups: "known" }]);
}

for (const [major, node] of Object.entries(NODES)) {
  testWith(
    installed,
    `servers, clients, policies and guards run on Node ${major} with koffi`,
    () => {
      assert.match(
        execFileSync(node, ["--version"], { encoding: "utf8" }),
        RegExp(`^v${major}\\.`),
      );
      assertIdentified(run(node, withKoffi, "program.mjs"));
    },
  );

  testWith(installed, `the command runs on Node ${major} with koffi`, () => {
    const command = "node_modules/ucred/dist/cli.js";
    const { status, stdout } = spawnSync(node, [command, "doctor", "--json"], {
      cwd: withKoffi,
      encoding: "utf8",
    });
    assert.ok(status === 0 || status === 1, stdout);
    const { runtime, capabilities } = JSON.parse(stdout);
    assert.match(runtime, RegExp(`^Node ${major}\\.`));
    assert.deepEqual([capabilities[0].name, capabilities[0].ok], ["peer credentials", true]);
  });

  testWith(
    installed,
    `checkSupport() names the command that installs koffi, on Node ${major}`,
    () => {
      const { code, message, hint } = run(node, withoutKoffi, "program.mjs");
      assert.equal(code, "ERR_UCRED_UNSUPPORTED");
      assert.match(
        message,
        RegExp(
          `^Cannot call libc: Node ${major}\\.\\S+ has no node:ffi, and koffi cannot be loaded: `,
        ),
      );
      assert.match(hint, /^Run "npm install koffi"/);
    },
  );
}

// Applications of Electron are often such bundles. Their import.meta has no url.
testWith(
  installed,
  "a CommonJS bundle finds koffi beside it, and not in the working directory",
  async () => {
    const outfile = join(withKoffi, "bundle.cjs");
    const stdin = {
      contents: `import { checkSupport } from "ucred";
      try { checkSupport(); console.log('"supported"'); } catch ({ hint }) { console.log(JSON.stringify(hint)); }`,
      resolveDir: withKoffi,
    };
    await build({
      stdin,
      bundle: true,
      platform: "node",
      format: "cjs",
      outfile,
      logLevel: "error",
    });
    assert.equal(run(NODES["24"]!, withoutKoffi, outfile), "supported");
    cpSync(outfile, join(withoutKoffi, "bundle.cjs"));
    assert.match(
      run(NODES["24"]!, withKoffi, join(withoutKoffi, "bundle.cjs")),
      /npm install koffi/,
    );
  },
);
