/** Tests of `ucred inspect`: sockets of every kind, as root and as other users. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, type Socket } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, afterEach, test } from "node:test";
import { Child, freshPath, peerProgram } from "../support/peers.ts";
import { temporaryFolder } from "../support/compile.ts";
import { FILES, mountNamespaces, withAccounts } from "../support/accounts.ts";
import { removeSafeFolders, safeFolder, safeFolders } from "../support/safe_folder.ts";
import { needs, runtime, STRANGER, succeeds, testWith, until } from "../support/suite.ts";
import {
  assertPrintable,
  endTogether,
  type How,
  type Ran,
  serve,
  Terminal,
  tools,
  ucred,
  ucredTogether,
} from "../support/command.ts";

afterEach(removeSafeFolders);
after(endTogether);

const setfacl = { name: "setfacl (Debian: acl)", met: succeeds("setfacl", "--version") };
const peers = [needs.linux, needs.cc, needs.root, needs.native];

/** The output of `--json`, and the exit code. */
// deno-lint-ignore no-explicit-any
async function inspect(path: string, how?: How): Promise<any> {
  const args = ["inspect", "--json", path];
  const { code, out, err } = await (how === undefined ? ucredTogether(args) : ucred(args, how));
  assert.equal(err, "");
  return { code, ...JSON.parse(out) };
}

const kinds = (remarks: readonly { kind: string }[]) => remarks.map(({ kind }) => kind);

/** Connects as a user, and stays connected. */
async function connectAs(uid: number, path: string, program = peerProgram): Promise<Child> {
  const ids = ["--resgid", `${uid},${uid},${uid}`, "--resuid", `${uid},${uid},${uid}`];
  const child = new Child(program, [...ids, path]);
  await child.line();
  return child;
}

function connectHere(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket)).on("error", reject);
  });
}

test("inspect reports the server of a socket, and a mode that lets every user connect", async () => {
  using server = await serve();
  const { code, server: found, file, folders, findings } = await inspect(server.path);
  assert.equal(code, 1);
  assert.deepEqual([found.pid, found.uid], [process.pid, process.geteuid!()]);
  assert.deepEqual(file, {
    path: server.path,
    uid: process.geteuid!(),
    gid: process.getegid!(),
    mode: "0777",
  });
  assert.equal(folders[0].path, dirname(server.path));
  assert.equal(folders.at(-1).path, "/");
  assert.ok(kinds(findings).includes("everyone"));
});

test("inspect has no findings for our own socket in a private folder", async () => {
  const folder = temporaryFolder();
  chmodSync(folder, 0o700);
  using server = await serve(join(folder, "s"), 0o600);
  const { out } = await ucredTogether(["inspect", server.path]);
  assert.match(out, /may connect +root.*; only with search permission on .*\n/);
  assert.match(out, new RegExp(`listens +pid ${process.pid}, uid ${process.geteuid!()}`));
  assert.match(out, /connected +none in this network namespace\n/);
  const { code, findings } = await inspect(server.path);
  assert.deepEqual([code, findings], [0, []]);
});

testWith(peers, "inspect shows the clients, one line for the processes of a user", async () => {
  using server = await serve();
  const clients = await Promise.all([4001, 4001, 4002].map((uid) => connectAs(uid, server.path)));
  await until(() => server.connected() === 3);
  const { out } = await ucredTogether(["inspect", server.path]);
  const pids = clients.slice(0, 2).map(({ process }) => process.pid!).sort((a, b) => a - b);
  assert.match(out, /connected +3\n/);
  assert.match(out, new RegExp(`^ +2 pids ${pids.join(" ")}, uid 4001, ${peerProgram}$`, "m"));
  assert.match(
    out,
    new RegExp(`^ +pid ${clients[2]!.process.pid}, uid 4002, ${peerProgram}$`, "m"),
  );
  const { connections, clients: found } = await inspect(server.path);
  assert.equal(connections, 3);
  assert.deepEqual(
    found.map(({ uid }: { uid: number }) => uid).sort(),
    [4001, 4001, 4002],
  );
  await Promise.all(clients.map((client) => client.end()));
});

testWith(
  [needs.linux],
  "inspect counts several connections of one process",
  async () => {
    using server = await serve();
    const mine = await Promise.all([1, 2, 3].map(() => connectHere(server.path)));
    await until(() => server.connected() === 3);
    const { out } = await ucredTogether(["inspect", server.path]);
    assert.match(out, new RegExp(`connected +3\\n +pid ${process.pid}, uid `));
    mine.forEach((socket) => socket.destroy());
  },
);

testWith(
  [...peers, needs.strangers],
  "inspect reports to an unprivileged user how many clients are hidden",
  async () => {
    using server = await serve();
    const client = await connectAs(4001, server.path);
    await until(() => server.connected() === 1);
    const { code, out } = await ucred(["inspect", server.path], { as: STRANGER });
    assert.equal(code, 1);
    assert.match(out, /connected +1, 1 of them visible only to root\n/);
    await client.end();
  },
);

/** Checks that holders, connections and clients are reported as undetermined. */
function assertUndetermined(
  { code, out }: Ran,
  json: { code: number; [name: string]: unknown },
): void {
  assert.deepEqual([code, json.code], [1, 1]);
  assert.match(out, /connected +cannot be determined\n/);
  assert.match(out, /finding +The processes that hold the socket, and the clients, cannot be /);
  assert.deepEqual([json["connections"], json["holders"], json["clients"]], [null, null, null]);
  assert.ok(kinds(json["findings"] as []).includes("unlisted"));
}

testWith(
  peers,
  "inspect reports undetermined clients when the server is in another network namespace",
  async () => {
    const folder = temporaryFolder();
    chmodSync(folder, 0o700);
    const path = join(folder, "s");
    const listener = new Child("unshare", ["-n", peerProgram, "--listen", path]);
    await listener.line();
    const client = await connectHere(path);
    const [text, json] = [await ucredTogether(["inspect", path]), await inspect(path)];
    assertUndetermined(text, json);
    assert.equal(json.server.pid, listener.process.pid);
    client.destroy();
    await listener.end();
  },
);

testWith(
  peers,
  "inspect counts connections from other network namespaces",
  async () => {
    using server = await serve();
    const start = () => new Child("unshare", ["-n", peerProgram, server.path]);
    const clients = [start(), start()];
    for (const client of clients) await client.line();
    await until(() => server.connected() === 2);
    const { out } = await ucredTogether(["inspect", server.path]);
    assert.match(
      out,
      /connected +none in this network namespace, 2 from other network namespaces\n/,
    );
    const here = await connectHere(server.path);
    await until(() => server.connected() === 3);
    const json = await inspect(server.path);
    assert.deepEqual([json.connections, json.connectionsElsewhere], [1, 2]);
    here.destroy();
    await Promise.all(clients.map((client) => client.end()));
  },
);

/** Serves at FOLDER/m/s, on an overlayfs over two devices, while a command runs. */
const ON_OVERLAY = `set -e
program=$1 folder=$2
shift 2
cd "$folder"
mkdir a b m
mount -t tmpfs none a
mount -t tmpfs none b
mkdir a/lower b/upper b/work
mount -t overlay none -o lowerdir=a/lower,upperdir=b/upper,workdir=b/work m
mkfifo input
"$program" --listen "$folder/m/s" < input > /dev/null &
exec 3> input
until [ -S m/s ]; do sleep 0.01; done
set +e
"$@" 3>&-`;

const overlay = {
  name: "permission to mount an overlayfs over two file systems",
  met: needs.root.met &&
    succeeds(
      "unshare",
      "-m",
      "sh",
      "-c",
      ON_OVERLAY.replace(/mkfifo[^]*/, ""),
      "sh",
      "",
      temporaryFolder(),
    ),
};

testWith(
  [...peers, overlay],
  "inspect reports undetermined clients on overlayfs over two devices",
  async () => {
    const run = (...args: string[]) => {
      const folder = temporaryFolder();
      chmodSync(folder, 0o700);
      const prefix = ["unshare", "-m", "sh", "-c", ON_OVERLAY, "sh", peerProgram, folder];
      return ucred(["inspect", ...args, join(folder, "m/s")], { prefix });
    };
    const [text, json] = [await run(), await run("--json")];
    assertUndetermined(text, { code: json.code!, ...JSON.parse(json.out) });
  },
);

testWith(
  [needs.linux],
  "inspect --json prints lists in one line, and no capabilities",
  async () => {
    using server = await serve();
    const client = await connectHere(server.path);
    await until(() => server.connected() === 1);
    const { out } = await ucredTogether(["inspect", "--json", server.path]);
    const { server: found, clients } = JSON.parse(out);
    assert.equal(found.process.capabilities, undefined);
    assert.equal(clients[0].process.capabilities, undefined);
    assert.ok(out.split("\n").length < 400, out);
    assert.match(out, /"groups": \[[0-9, ]*\],\n/);
    client.destroy();
  },
);

testWith([needs.root], "inspect shows who may connect, by mode, owner and group", async () => {
  using server = await serve();
  const cases = [
    [0o660, 4001, 4002, /may connect +root, 4001, group 4002\n/],
    [0o620, 0, 4002, /may connect +root, group 4002\n/],
    [0o600, 0, 0, /may connect +root\n/],
    [0o066, 4001, 4002, /may connect +every user\n/],
  ] as const;
  for (const [mode, uid, gid, line] of cases) {
    execFileSync("chown", [`${uid}:${gid}`, server.path]);
    chmodSync(server.path, mode);
    assert.match((await ucredTogether(["inspect", server.path])).out, line);
  }
});

testWith(
  [needs.root],
  "inspect reports sockets and folders that neither root nor the server owns",
  async () => {
    const folder = temporaryFolder();
    using server = await serve(join(folder, "s"), 0o600);
    execFileSync("chown", ["4001", server.path, folder]);
    const { code, findings } = await inspect(server.path);
    assert.equal(code, 1);
    assert.deepEqual(kinds(findings).sort(), ["folder", "owner"]);
  },
);

test("inspect reports a socket without a server, and a symbolic link", async () => {
  const path = freshPath();
  // Killed, so that its socket is not unlinked.
  const script =
    `require("net").createServer().listen(process.argv[1], () => process.kill(process.pid, 9))`;
  try {
    execFileSync("node", ["-e", script, path], { stdio: "ignore" });
  } catch {
    assert.ok(lstatSync(path).isSocket());
  }
  symlinkSync(path, `${path}.link`);
  const [dead, link] = await Promise.all([inspect(path), inspect(`${path}.link`)]);
  assert.ok(kinds(dead.findings).includes("dead"));
  assert.equal(dead.server, undefined);
  assert.ok(kinds(link.findings).includes("link"));
  assert.deepEqual([dead.code, link.code], [1, 1]);
});

testWith(
  [needs.root, safeFolders],
  "inspect reports a folder of others that contains or precedes a link on the path",
  async () => {
    const folder = safeFolder();
    for (const name of ["real", "theirs", "via"]) mkdirSync(join(folder, name));
    using _server = await serve(join(folder, "real/s"), 0o600);
    symlinkSync(join(folder, "real"), join(folder, "theirs/link"));
    symlinkSync("../theirs/link", join(folder, "via/link"));
    symlinkSync("real", join(folder, "link"));
    const path = join(folder, "via/link/s");
    const safe = await inspect(path);
    assert.deepEqual([safe.code, kinds(safe.findings)], [0, []]);
    chownSync(join(folder, "theirs"), STRANGER, STRANGER);
    const through = await inspect(path);
    assert.deepEqual([through.code, kinds(through.findings)], [1, ["folder"]]);
    assert.match(through.findings[0]!.message, /theirs belongs to uid/);
    assert.deepEqual(kinds((await inspect(join(folder, "link/s"))).findings), []);
    lchownSync(join(folder, "link"), STRANGER, STRANGER);
    assert.deepEqual(kinds((await inspect(join(folder, "link/s"))).findings), ["link"]);
  },
);

for (
  const [name, group, acl, isSafe] of [
    ["the group has only the server's user", FILES.group, "", true],
    [
      "the group has another member",
      FILES.group.replace("ann:x:4321:", "ann:x:4321:bob"),
      "",
      false,
    ],
    ["an ACL grants write to another user", FILES.group, "u:4322:rwx", false],
  ] as const
) {
  testWith(
    [...peers, safeFolders, mountNamespaces, setfacl],
    `inspect ${isSafe ? "accepts" : "reports"} a folder with mode 0775, when ${name}`,
    async () => {
      const folder = join(safeFolder(), "project");
      mkdirSync(folder);
      chownSync(folder, 4321, 4321);
      chmodSync(folder, 0o775);
      if (acl !== "") execFileSync("setfacl", ["-m", acl, folder]);
      const path = join(folder, "s");
      const ids = ["--resgid", "4321,4321,4321", "--resuid", "4321,4321,4321"];
      const server = new Child(peerProgram, [...ids, "--listen", path]);
      await server.line();
      chmodSync(path, 0o600);
      const prefix = withAccounts({ ...FILES, group });
      const { findings } = await inspect(path, { prefix });
      assert.deepEqual(kinds(findings), isSafe ? [] : ["folder"]);
      await server.end();
    },
  );
}

testWith(
  [needs.linux],
  "inspect reports the server of an abstract socket, and a finding",
  async () => {
    const name = `ucred-inspect-${process.pid}`;
    using _ = await serve(`\0${name}`);
    const { code, path, file, server: found, findings } = await inspect(`@${name}`);
    assert.deepEqual([code, path, file, found.pid], [1, `@${name}`, undefined, process.pid]);
    assert.deepEqual(kinds(findings), ["abstract"]);
    const { out } = await ucredTogether(["inspect", `@${name}`]);
    assert.match(out, /may connect +every process in this network namespace\n/);
  },
);

testWith(
  [needs.linux],
  "inspect exits with 2 when no server listens at an abstract name",
  async () => {
    const { code, err } = await ucredTogether(["inspect", "@ucred-none"]);
    assert.deepEqual([code, /No server listens at @ucred-none/.test(err)], [2, true]);
  },
);

test("inspect lists the sockets of the folder when the path is wrong", async () => {
  const folder = temporaryFolder();
  using _ = await serve(join(folder, "one.sock"));
  using __ = await serve(join(folder, "two.sock"));
  writeFileSync(join(folder, "file"), "");
  for (const path of [join(folder, "won.sock"), folder, join(folder, "file")]) {
    const { code, err } = await ucredTogether(["inspect", path]);
    assert.equal(code, 2);
    assert.match(err, /[Ss]ockets in .*: one\.sock, two\.sock$/m);
  }
});

testWith(
  [needs.linux, needs.cc],
  "inspect reports a socket that is not a stream socket",
  async () => {
    const path = freshPath();
    const listener = new Child(peerProgram, ["--seqpacket", "--listen", path]);
    await listener.line();
    const { code, findings } = await inspect(path);
    assert.equal(code, 1);
    // Bun reports the same code for every failure of connect(2).
    const kind = runtime === "bun" ? "busy" : "unreachable";
    const finding = findings.find((finding: { kind: string }) => finding.kind === kind);
    assert.match(finding.message, /not a stream socket/);
    await listener.end();
  },
);

testWith(peers, "inspect escapes the names of sockets, folders and programs", async () => {
  const hostile = "\u001b[2J\u202e\nfolder\u0085";
  const folder = join(temporaryFolder(), hostile);
  mkdirSync(folder);
  const program = join(folder, "pro\u001b[31mgram\n");
  copyFileSync(peerProgram, program);
  chmodSync(program, 0o755);
  using server = await serve(join(folder, "s\u001b[1m"));
  const client = await connectAs(4001, server.path, program);
  await until(() => server.connected() === 1);
  const { out, err } = await ucredTogether(["inspect", server.path]);
  assertPrintable(out + err);
  assert.ok(out.includes("pro\\u001b[31mgram\\u000a"), out);
  assert.ok(out.includes("\\u001b[2J\\u202e\\u000afolder\\u0085"), out);
  const missing = await ucredTogether(["inspect", join(folder, "x")]);
  assertPrintable(missing.err);
  const json = await ucredTogether(["inspect", "--json", server.path]);
  assertPrintable(json.out);
  const { clients } = JSON.parse(json.out);
  assert.deepEqual([clients[0].uid, clients[0].process.exe], [4001, program]);
  await client.end();
});

testWith(
  [tools.tmux, needs.root],
  "inspect wraps its lines on terminals of 80 and 120 columns",
  async () => {
    // Independent of TMPDIR, because the line breaks depend on the length of the path.
    const folder = mkdtempSync("/tmp/ucred-a-folder-with-a-long-name-");
    chmodSync(folder, 0o1777);
    using server = await serve(join(folder, "s"));
    using _folder = { [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
    for (const columns of [80, 120]) {
      await until(() => server.connected() === 0); // the connection of the previous inspect has ended
      using terminal = new Terminal(columns, ["inspect", server.path]);
      const { text, code } = await terminal.ended();
      assert.equal(code, 1);
      const lines = text.split("\n").map((line) => line.trimEnd());
      // The terminal broke no line: continuation lines start in the second column.
      assert.ok(
        lines.slice(1).every((line) => line === "" || /^ {2}(?:\w| {12}\S)/.test(line)),
        text,
      );
      assert.match(text, /connected +none in this network namespace$/m);
      assert.match(text.replaceAll(/\s+/g, " "), /finding Every user can create files in \S+/);
    }
  },
);

test("inspect closes its connection", async () => {
  using server = await serve();
  await ucred(["inspect", server.path]);
  await until(() => server.connected() === 0);
});
