/** The README's first example: it starts again over a stale socket, and gives both responses. */

import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { createClient } from "../../client/mod.ts";
import { until } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const readme = readFileSync(join(root, "README.md"), "utf8");
const [, example] = /```ts\n([^]*?)```/.exec(readme)!;

/** Inside the project: there "ucred" resolves to this package. */
const folder = mkdtempSync(join(root, ".examples-first-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const file = join(folder, "server.ts");
writeFileSync(file, example!);

/** The Deno permissions in the README's row for a server at app.sock. */
const [, flags] = /a server of ucred at .*?\| `(--[^`]*)`/.exec(readme)!;
const permissions = flags!.replaceAll("$PWD", folder).split(" ");

const children = new Set<ChildProcess>();
after(() => children.forEach((child) => child.kill("SIGKILL")));

async function start([command, ...args]: readonly string[]): Promise<ChildProcess> {
  const child = spawn(command!, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  children.add(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => output += text);
  }
  await until(() => output.includes("\n") || child.exitCode !== null);
  assert.match(output, /^listening at .*app\.sock\n$/);
  return child;
}

const STARTS: { readonly [name: string]: readonly string[] } = {
  Node: ["node", "--disable-warning=ExperimentalWarning", file],
  Bun: ["bun", file],
  "Deno with the documented permissions": [
    ...["deno", "run", "--no-prompt", "--allow-ffi", ...permissions],
    file,
  ],
};

for (const [name, line] of Object.entries(STARTS)) {
  test(`the README's first server runs twice and gives both responses, on ${name}`, async () => {
    for (let times = 0; times < 2; times++) {
      const child = await start(line);
      const expect = { uid: process.getuid!() };
      const client = createClient({ path: join(folder, "app.sock"), expect });
      const ask = async (method: string) => {
        const response = await client.fetch("http://localhost/", { method });
        return [response.status, await response.text()];
      };
      assert.deepEqual(await ask("GET"), [200, `welcome, uid ${expect.uid}\n`]);
      const [status, body] = await ask("DELETE");
      assert.deepEqual([status, JSON.parse(`${body}`).detail], [403, "nothing is deleted here"]);
      client.close();
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL"); // leaves a stale socket
      await ended;
    }
  });
}

test("the README's first server fails to start on Deno without --allow-ffi", () => {
  const others = permissions.filter((flag) => !flag.startsWith("--allow-ffi"));
  assert.throws(
    () =>
      execFileSync("deno", ["run", "--no-prompt", ...others, file], {
        cwd: folder,
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
        timeout: 60_000,
      }),
    /ERR_UCRED_PERMISSION|Deno denies FFI/,
  );
});
