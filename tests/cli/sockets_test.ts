/** Tests of `ucred sockets`: real sockets of every kind, as root and as another user. */

import assert from "node:assert/strict";
import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { afterEach, test } from "node:test";
import { createServer as createUcredServer } from "../../servers/net.ts";
import { serve, ucred } from "../support/command.ts";
import { temporaryFolder } from "../support/compile.ts";
import { removeSafeFolders, safeFolder } from "../support/safe_folder.ts";
import { needs, STRANGER, testWith } from "../support/suite.ts";

afterEach(removeSafeFolders);

/** The entry of one socket in the output of `--json`. */
// deno-lint-ignore no-explicit-any
async function listed(path: string, as?: number): Promise<any> {
  const { code, out, err } = await ucred(["sockets", "--json"], as === undefined ? {} : { as });
  assert.equal(err, "");
  const all = JSON.parse(out);
  // deno-lint-ignore no-explicit-any
  const hasFindings = all.some(({ findings }: any) => findings.length > 0);
  assert.equal(code, hasFindings ? 1 : 0);
  return all.find((each: { path: string }) => each.path === path);
}

const kinds = ({ findings }: { findings: readonly { kind: string }[] }) =>
  findings.map(({ kind }) => kind);

/** Our process among the holders. Deno's node:net sockets are also open in the child that runs the command. */
const SERVER = `([0-9]+ pids|pid) [0-9 ]*\\b${process.pid}\\b[0-9 ]*,`;

const linux = [needs.linux, needs.native];

testWith(linux, "sockets lists a socket with its owner, mode, server and findings", async () => {
  using server = await serve();
  const found = await listed(server.path);
  assert.deepEqual([found.type, found.file.mode, found.file.uid], [
    "stream",
    "0777",
    process.geteuid!(),
  ]);
  assert.ok(found.holders.some(({ pid }: { pid: number }) => pid === process.pid));
  assert.ok(kinds(found).includes("everyone"));
  const { out } = await ucred(["sockets"]);
  const row = out.split("\n").find((line) => line.startsWith(`${server.path} `))!;
  assert.match(row, new RegExp(` 0777 .* every user +${SERVER} .* everyone`));
  assert.match(
    out,
    /^[0-9]+ sockets?, [0-9]+ with findings\. ucred inspect SOCKET explains them$/m,
  );
});

testWith(linux, "sockets lists no connections, and no sockets of other types", async () => {
  using server = await serve();
  const client = connect(server.path);
  await new Promise((resolve) => client.once("connect", resolve));
  const { out } = await ucred(["sockets", "--json"]);
  const all: readonly { path: string }[] = JSON.parse(out);
  assert.equal(all.filter(({ path }) => path === server.path).length, 1);
  client.destroy();
});

testWith(linux, "sockets finds the file of a server that renames its socket", async () => {
  const folder = safeFolder();
  const path = join(folder, "app.sock");
  await using server = createUcredServer({ policy: "anyone" }, (socket) => void socket.end());
  server.listen({ path, mode: 0o600 });
  await new Promise((resolve) => server.once("listening", resolve));
  const found = await listed(path);
  assert.equal(found.file.mode, "0600");
  assert.deepEqual(kinds(found), []);
});

testWith(linux, "sockets reports a path that is missing, or that has another file", async () => {
  const path = join(temporaryFolder(), "gone.sock");
  using _server = await serve(path);
  renameSync(path, `${path}.moved`);
  assert.equal((await listed(`${path}.moved`)).file.mode, "0777");
  rmSync(`${path}.moved`);
  assert.deepEqual(kinds(await listed(path)), ["unreachable"]);
  assert.match((await listed(path)).findings[0].message, /does not exist/);
  writeFileSync(path, "");
  const found = await listed(path);
  assert.equal(found.file, null);
  assert.match(found.findings[0].message, /has another file/);
  const { out } = await ucred(["sockets"]);
  const row = out.split("\n").find((line) => line.startsWith(`${path} `))!;
  assert.match(row, new RegExp(` - +\\? +${SERVER} .*unreachable$`));
});

testWith([...linux, needs.root], "sockets reports files that others can replace", async () => {
  const folder = join(temporaryFolder(), "open");
  mkdirSync(folder);
  chmodSync(folder, 0o777);
  const path = join(folder, "s");
  using server = await serve(path, 0o600);
  const found = await listed(server.path);
  assert.ok(kinds(found).includes("folder"), JSON.stringify(found.findings));
});

testWith(
  [...linux, needs.root],
  "sockets lists the sockets of other users without their servers to a user",
  async () => {
    using server = await serve();
    const found = await listed(server.path, STRANGER);
    assert.equal(found.file.mode, "0777");
    assert.ok(found.holders.every(({ uid }: { uid: number }) => uid === STRANGER));
    const { out } = await ucred(["sockets"], { as: STRANGER });
    const row = out.split("\n").find((line) => line.startsWith(`${server.path} `))!;
    assert.match(row, / every user +(\?|pid .* uid 4321\b)/);
  },
);

testWith(linux, "sockets lists an abstract socket, and escapes its name", async () => {
  const name = `ucred-test-${process.pid}-\u001b[31m`;
  const server = createServer().listen(`\0${name}`);
  await new Promise((resolve) => server.once("listening", resolve));
  try {
    const found = await listed(`@${name}`);
    assert.equal(found.file, null);
    assert.deepEqual(kinds(found), ["abstract"]);
    const { out } = await ucred(["sockets"]);
    assert.ok(!out.includes("\u001b"));
    assert.match(out, /every process in this network namespace/);
  } finally {
    server.close();
  }
});

test("sockets rejects arguments, and reports systems whose kernel lists no sockets", async () => {
  assert.equal((await ucred(["sockets", "extra"])).code, 2);
  if (process.platform === "linux") return;
  const { code, err } = await ucred(["sockets"]);
  assert.equal(code, 2);
  assert.match(err, /only Linux supports that/);
});
