/** Tests of the whole command: exit codes, errors, colours, closed pipes, doctor. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { freshPath } from "../support/peers.ts";
import { temporaryFolder } from "../support/compile.ts";
import { needs, runtime, STRANGER, testWith } from "../support/suite.ts";
import {
  assertPrintable,
  command,
  endTogether,
  file,
  type How,
  RunningCommand,
  serve,
  Terminal,
  tools,
  ucred,
  ucredTogether,
} from "../support/command.ts";

after(endTogether);

test("ucred --version and --help print on stdout and exit with 0", async () => {
  const [version, help, of] = await Promise.all([
    ucred(["--version"]),
    ucred(["--help"]),
    ucred(["help", "inspect"]),
  ]);
  const below = await ucred(["help", "policy", "explain"]);
  assert.match(below.out, /^Usage: ucred policy explain .*Examples:/s);
  assert.equal(below.code, 0);
  assert.match(version.out, /^[0-9]+\.[0-9]+\.[0-9]+\n$/);
  assert.match(help.out, /^Usage: ucred .*Examples:\n {2}ucred doctor\n/s);
  assert.match(of.out, /^Usage: ucred inspect .*Examples:/s);
  for (const { code, err } of [version, help, of]) assert.deepEqual([code, err], [0, ""]);
});

const MISTAKES: readonly (readonly [args: string, message: RegExp])[] = [
  ["", /^Usage: ucred/],
  ["inspct /x", /unknown command 'inspct'\n.*Did you mean inspect\?\n.*ucred --help/],
  ["policy chek x", /unknown command 'chek'\n.*Did you mean check\?\n.*ucred policy --help/],
  ["policy", /^Usage: ucred policy/],
  ["inspect", /missing required argument 'socket'\n.*ucred inspect --help/],
  ["inspect /x --jsn", /unknown option '--jsn'\n.*Did you mean --json\?/],
  ["inspect /x /y", /too many arguments/],
  ["help bogus", /^ucred: unknown command 'bogus'\n.*ucred --help/],
  ["help inspct", /unknown command 'inspct'\n.*Did you mean inspect\?/],
  ["help policy bogus", /unknown command 'bogus'\n.*ucred policy --help/],
  ["policy help bogus", /unknown command 'bogus'\n.*ucred policy --help/],
  ["bogus --help", /unknown command 'bogus'/],
  [`inspect @${"x".repeat(108)}`, /at most 107 bytes/],
  ["listen /x --socket-mode 9", /--socket-mode <octal>.*'9'.*octal mode/],
  ["listen /x --socket-mode", /--socket-mode <octal>.*argument missing/],
  ["listen @x --socket-mode 0600", /--socket-mode.*abstract socket/],
  ["listen /x --mode 0600", /unknown option '--mode'/],
  ["policy explain x --gid 4294967295", /--gid.*an id from 0 to 4294967294/],
  ["policy explain x --pid none", /--pid.*whole number above 0/],
  ["completions csh", /'csh'.*bash, zsh, fish/],
  ["guard --upstream /x", /exactly one of --listen and --systemd/],
  ["guard --listen /x", /required option '--upstream <socket>'/],
  ["guard --listen @ --upstream /x", /--listen <socket>.*a path, or @ and a name/],
  ["guard --listen= --upstream /x", /--listen <socket>.*a path, or @ and a name/],
  ["listen @", /a path, or @ and a name/],
  ["guard --listen /a/../x --upstream /x", /are the same socket/],
  ["guard --listen @a --upstream /x --socket-mode 0666", /--socket-mode.*abstract socket/],
  ["guard --systemd --upstream /x --socket-group 0", /--socket-group.*--systemd/],
  ["guard --listen /x --upstream /y --audit-denied", /--audit-denied requires --audit/],
  ["guard --listen /x --upstream /y --h2c", /--h2c requires --mode http/],
  ["guard --listen /x --upstream /y --learn /z", /--learn requires --mode http or --mode docker/],
  ["guard --listen /x --upstream /y --mode http --state /z", /--state requires --mode docker/],
  ["guard --listen /x --upstream /y --http2", /--http2 requires --mode http/],
  ["guard --listen /x --upstream /y --keep-header Forwarded", /--keep-header requires --mode http/],
  ["guard --listen /x --upstream /y --keep-header a:b", /must be the name of a header/],
  [
    "guard --listen /x --upstream /y --keep-header X_Ucred_Uid",
    /The guard sets this header itself/,
  ],
  ["guard --listen /x --upstream /y --upstream-user nosuchuser", /no user "nosuchuser"/],
  ["guard --listen /x --upstream /y --upstream-user 99999999999", /99999999999 is not an id/],
  ["policy explain x --pid 1 --user root", /'--pid <pid>' cannot be used with option '--user/],
];

test("ucred prints one error line with a suggestion, and exits with 2, for a wrong command line", async () => {
  await Promise.all(
    MISTAKES.map(async ([line, message]) => {
      const { code, out, err } = await ucredTogether(line === "" ? [] : line.split(" "));
      assert.deepEqual([code, out], [2, ""], line);
      assert.match(err, message, line);
    }),
  );
});

test("ucred prints one error line, and exits with 2, for files that it cannot use", async () => {
  const folder = temporaryFolder();
  const [bad, good, loop] = ["bad.yaml", "good.yaml", "loop"].map((name) => join(folder, name));
  writeFileSync(bad!, "version: 1\nrules: [\n");
  writeFileSync(good!, "version: 1\nrules: [{ name: all, when: { uid: 0 }, allow: true }]\n");
  symlinkSync("loop", loop!);
  const accounts = file("accounts.yaml", "users: { ada: one }\n");
  const list = file("list.yaml", "users: [ada]\n");
  const cases: readonly (readonly [args: readonly string[], message: RegExp])[] = [
    [["inspect", join(folder, "none")], /none does not exist\. There are no sockets in/],
    [["inspect", join(folder, "a/b/c")], /a\/b\/c does not exist: there is no folder .*\/a$/m],
    [["inspect", folder], /is a folder/],
    [["inspect", good!], /good\.yaml is not a socket/],
    [["inspect", loop!], /loop: too many symbolic links.*ELOOP/],
    [["inspect", join(good!, "x")], /ENOTDIR|does not exist/],
    [["listen", join(folder, "none/s")], /ENOENT/],
    [["listen", join(folder, "s".repeat(120))], /maximum/],
    [["listen", good!], /Cannot listen/],
    [["listen", freshPath(), "--policy", join(folder, "none")], /none.*ENOENT/],
    ...["lint", "test", "who", "explain"].map((name) =>
      [["policy", name, bad!], /bad\.yaml:[0-9]+:[0-9]+: /] as const
    ),
    [["policy", "check", join(folder, "none")], /none.*ENOENT/],
    [["policy", "lint", folder], /it is a folder and not a regular file/],
    [["policy", "diff", good!, join(folder, "none")], /none.*ENOENT/],
    [
      ["policy", "explain", good!, "--user", "nobody-of-that-name"],
      /no user "nobody-of-that-name"/,
    ],
    [["policy", "explain", good!, "--peer", "{"], /--peer is not JSON/],
    [["policy", "explain", good!, "--peer", "[]"], /--peer must be an object/],
    [["policy", "explain", good!, "--pid", "4194305"], /There is no process 4194305/],
    [["policy", "explain", good!, "--pid", "4000000000"], /There is no process 4000000000/],
    [["policy", "explain", good!, "--peer", '{"foo":1}'], /--peer\.foo: no field "foo"/],
    [["policy", "explain", good!, "--peer", '{"uid":"x"}'], /--peer\.uid: .*id from 0/],
    [["policy", "explain", good!, "--peer", '{"process":5}'], /--peer\.process: .*not 5/],
    [["policy", "explain", good!, "--peer", '{"user":"root"}'], /--peer takes ids only/],
    [["policy", "explain", good!, "--user", "99999999999"], /--user: 99999999999 is not an id/],
    [["policy", "explain", good!, "--group", "4294967295"], /--group: 4294967295 is not an id/],
    [["policy", "check", "--accounts", bad!, good!], /bad\.yaml:3:1: /],
    [["policy", "check", "--accounts", list, good!], /list\.yaml: it must map users and groups/],
    [
      ["policy", "explain", good!, "--accounts", accounts, "--user", "ada"],
      /ada must have an id from 0/,
    ],
    [["policy", "who", good!, "--accounts", join(folder, "none")], /none: .*ENOENT/],
  ];
  await Promise.all(
    cases.map(async ([args, message]) => {
      const { code, out, err } = await ucredTogether(args);
      assert.deepEqual([code, out], [2, ""], `${args.join(" ")}: ${err}`);
      assert.match(err, message, args.join(" "));
      assert.ok(err.split("\n").length <= 4, err);
      assertPrintable(err);
    }),
  );
});

testWith(
  [needs.strangers],
  "ucred prints one error line for files that the user may not read",
  async () => {
    const folder = temporaryFolder();
    const secret = join(folder, "secret");
    mkdirSync(secret, { mode: 0o700 });
    writeFileSync(join(secret, "policy.yaml"), "");
    using server = await serve(join(folder, "mine"), 0o600);
    const how = { as: STRANGER };
    const [socket, policy, deep, listen] = await Promise.all([
      ucred(["inspect", server.path], how),
      ucred(["policy", "check", join(secret, "policy.yaml")], how),
      ucred(["inspect", join(secret, "s")], how),
      ucred(["listen", join(folder, "s")], how),
    ]);
    assert.match(socket.out, /may connect +root\n/);
    assert.match(socket.out, /finding +Permission to connect is denied/);
    assert.equal(socket.code, 1);
    assert.match(policy.err, /EACCES/);
    assert.match(deep.err, /secret\/s: permission denied \(EACCES\)/);
    assert.match(listen.err, /EACCES/);
    for (const { code, err } of [policy, deep, listen]) assert.equal(code, 2, err);
  },
);

test("ucred escapes hostile arguments in its messages", async () => {
  const hostile = "\u001b[2J\n\u202eevil\u0007\u180e\ufff9\u{e0041}\u3164\u115f\u{1d173}";
  const cases = [
    [hostile],
    ["inspect", hostile],
    ["inspect", `@${hostile}`],
    ["inspect", `--${hostile}`],
    ["listen", "x", "--socket-mode", hostile],
    ["listen", `/none/${hostile}`],
    ["completions", hostile],
    ["policy", "check", hostile],
    ["policy", "explain", "x", "--peer", hostile],
  ];
  await Promise.all(
    cases.map(async (args) => {
      const { code, out, err } = await ucredTogether(args);
      assert.equal(code, 2, err);
      assertPrintable(out + err);
    }),
  );
});

/** A command whose output has colours. */
const lint = [
  "policy",
  "lint",
  file("p.yaml", "version: 1\nrules: [{ name: all, allow: true }]\n"),
];

test("ucred prints no colours into a pipe, unless FORCE_COLOR is set", async () => {
  const [piped, forced, both, not] = await Promise.all([
    ucred(lint),
    ucred(lint, { env: { FORCE_COLOR: "1" } }),
    ucred(lint, { env: { FORCE_COLOR: "1", NO_COLOR: "1" } }),
    ucred(lint, { env: { FORCE_COLOR: "0" } }),
  ]);
  assert.equal(piped.code, 1);
  assertPrintable(piped.out);
  assert.ok(forced.out.includes("\u001b["));
  assert.equal(both.out, piped.out);
  assert.equal(not.out, piped.out);
});

testWith(
  [tools.tmux],
  "ucred prints colours on a terminal, unless NO_COLOR or TERM=dumb is set",
  async () => {
    for (
      const [env, isColoured] of [[{}, true], [{ NO_COLOR: "1" }, false], [
        { TERM: "dumb" },
        false,
      ]] as const
    ) {
      using terminal = new Terminal(80, lint, env);
      const { code } = await terminal.ended();
      assert.equal(code, 1);
      assert.equal(terminal.shown("colours").includes("\u001b["), isColoured, JSON.stringify(env));
    }
  },
);

test("ucred ends silently with its usual exit code when its pipe closes", async () => {
  const cases = [[["--help"], 0], [["man"], 0], [["completions", "bash"], 0], [lint, 1]] as const;
  for (const [args, code] of cases) {
    const quoted = [...command, ...args].map((word) => `'${word}'`).join(" ");
    const child = spawn("bash", ["-c", `${quoted} | head -c 1; echo " \${PIPESTATUS[0]}"`]);
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (chunk: string) => text += chunk);
    }
    await new Promise((resolve) => child.once("close", resolve));
    assert.equal(text.slice(1), ` ${code}\n`, args.join(" "));
  }
});

testWith(
  [needs.linux],
  "ucred prints one error line, and exits with 2, when stdout cannot be written",
  async () => {
    for (const args of [["--help"], ["man"], ["policy", "who", lint[2]!]]) {
      const quoted = [...command, ...args].map((word) => `'${word}'`).join(" ");
      const child = spawn("bash", ["-c", `${quoted} > /dev/full; echo "$?"`]);
      let text = "";
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (chunk: string) => text += chunk);
      }
      await new Promise((resolve) => child.once("close", resolve));
      assert.match(text, /^ucred: cannot write the output: .*no space left.*\n2\n$/i);
    }
  },
);

testWith(
  [needs.strangers],
  "doctor shows an unprivileged user the effect of each failure, and exits with 0 or 1",
  async () => {
    const room = temporaryFolder();
    chmodSync(room, 0o777); // doctor creates sockets there
    const { code, out } = await ucred(["doctor"], { as: STRANGER, env: { TMPDIR: room } });
    assert.match(out, new RegExp(`^yes +peer credentials +uid ${STRANGER}, gid ${STRANGER} `, "m"));
    const failed = out.split("\n").filter((line) => line.startsWith("no"));
    assert.equal(code, failed.length === 0 ? 0 : 1);
    for (const line of failed) assert.match(line, /Effect: /);
  },
);

test("doctor --json has each capability with the effect of its absence", async () => {
  const { code, out, err } = await ucred(["doctor", "--json"]);
  const { runtime, os, kernel, capabilities } = JSON.parse(out);
  assert.match(runtime, /^(Node|Deno|Bun) [0-9]/);
  assert.ok(os.length > 0 && kernel.length > 0);
  assert.deepEqual(capabilities[0].name, "peer credentials");
  for (const { name, ok, detail, effect } of capabilities) {
    assert.equal(typeof ok, "boolean", name);
    assert.ok(detail.length > 0 && effect.length > 0, name);
  }
  const all = capabilities.every(({ ok }: { ok: boolean }) => ok);
  assert.deepEqual([code, err], [all ? 0 : 1, ""]);
});

/** The capabilities in the output of doctor, by name. */
async function doctor(how: How): Promise<Map<string, { ok: boolean; detail: string }>> {
  const { out, err } = await ucred(["doctor", "--json"], how);
  assert.equal(err, "");
  const { capabilities } = JSON.parse(out) as {
    capabilities: readonly { name: string; ok: boolean; detail: string }[];
  };
  return new Map(capabilities.map((capability) => [capability.name, capability]));
}

testWith(
  [needs.linux, needs.native, needs.userNamespace],
  "doctor reports unmapped ids and readable processes, in a user namespace",
  async () => {
    for (const flags of [["-U"], ["-Ur"]]) {
      const found = await doctor({ prefix: ["unshare", ...flags] });
      const ids = found.get("all ids mapped")!;
      assert.equal(ids.ok, false);
      assert.match(ids.detail, /^our user namespace maps only some uids and gids/);
      const scope = flags[0] === "-U"
        ? /^of our own user; /
        : /^of processes in our user namespace$/;
      for (const name of ["programs", "namespaces"]) {
        assert.match(found.get(name)!.detail, scope, `${flags}, ${name}`);
      }
    }
  },
);

testWith(
  [needs.linux, needs.native, needs.root],
  "doctor reports the programs of other users only with CAP_SYS_PTRACE",
  async () => {
    const drop = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
    const [all, own] = await Promise.all([doctor({}), doctor({ prefix: drop })]);
    assert.equal(all.get("programs")!.detail, "of all users");
    assert.match(own.get("programs")!.detail, /^of our own user; .* require CAP_SYS_PTRACE$/);
  },
);

testWith(
  [needs.linux, needs.native, needs.strangers],
  "doctor reports that /proc hides the processes of other users",
  async () => {
    for (const [options, flag] of [["hidepid=2", "invisible"], ["hidepid=1", "noaccess"]]) {
      const script = `mount -t proc -o ${options} proc /proc && exec "$@"`;
      const hide = ["unshare", "-m", "sh", "-c", script, "sh"];
      const stranger = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups"];
      const [root, other] = await Promise.all([
        doctor({ prefix: hide }),
        doctor({ prefix: [...hide, ...stranger], env: { TMPDIR: "/tmp" } }),
      ]);
      const name = "other users' processes";
      assert.equal(root.get(name)!.ok, true);
      assert.equal(other.get(name)!.ok, false);
      assert.match(other.get(name)!.detail, new RegExp(`hidepid=${flag} or ProtectProc=`));
    }
    assert.equal((await doctor({})).get("other users' processes")!.ok, true);
  },
);

testWith(
  [needs.deno],
  "doctor tests every capability although Deno denies a permission",
  async () => {
    for (const denied of ["net", "read", "write", "sys", "ffi"]) {
      const flags = ["run", "-A", "--no-prompt", `--deny-${denied}`];
      const found = await doctor({ flags });
      assert.equal(found.size, 15, denied);
      assert.equal(found.get("peer credentials")!.ok, denied === "sys", denied);
    }
  },
);

test("policy check rejects a file that others can write, unless --allow-unsafe-owner is given", async () => {
  const path = file(
    "open.yaml",
    "version: 1\nrules: [{ name: root, when: { uid: 0 }, allow: true }]\n",
  );
  chmodSync(path, 0o666);
  const [refused, read] = await Promise.all([
    ucred(["policy", "check", path]),
    ucred(["policy", "check", "--allow-unsafe-owner", path]),
  ]);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /may be written by others/);
  assert.match(refused.err, /^ +Run chmod go-w on .*\(--allow-unsafe-owner\)$/m);
  assert.deepEqual([read.code, read.out], [0, `${path}: ok\n`]);
});

test("listen removes its socket and exits with 0 upon SIGINT and SIGTERM", async () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const path = freshPath();
    const running = new RunningCommand(["listen", path]);
    await running.says("err", "listening at");
    const { code, out } = await running.end(signal);
    assert.deepEqual([code, out], [0, ""], signal);
    assert.equal((await ucred(["inspect", path])).code, 2);
  }
});

const without = {
  deno: [
    "run",
    "--no-prompt",
    "--allow-read",
    "--allow-write",
    "--allow-net",
    "--allow-env",
    "--allow-sys",
  ],
  node: [...(needs.nodeFfi.met ? ["--no-experimental-ffi"] : []), "--no-addons"],
};

testWith(
  [needs.denoOrNode, needs.native],
  "doctor prints a common cause once, and exits with 2, when nothing works",
  async () => {
    const flags = runtime === "deno" ? without.deno : without.node;
    const { code, out, err } = await ucred(["doctor"], { flags });
    assert.deepEqual([code, err], [2, ""]);
    assert.match(
      out,
      /^no +peer credentials +Cannot call libc: .*(--allow-ffi=|--no-addons|npm install koffi).*Effect: nothing works$/m,
    );
    assert.match(out, /^no +groups +\(same cause\) Effect: rules on groups never allow$/m);
    const inspected = await ucred(["inspect", "@none"], { flags });
    assert.equal(inspected.code, 2);
    assert.match(
      inspected.err,
      /^ucred: Cannot call libc: .*\n +\S.*(allow-ffi|no-addons|npm install koffi)/,
    );
  },
);

testWith(
  [needs.deno],
  "ucred prints one error line, and exits with 2, when Deno denies a permission",
  async () => {
    for (const denied of ["--deny-env", "--deny-read"]) {
      const flags = ["run", "-A", "--no-prompt", denied]; // without -A, a Deno that starts it adds that
      const { code, err } = await ucred(["inspect", "/run/x"], { flags });
      assert.equal(code, 2);
      assert.match(err, /^ucred: Requires \w+ access to .*--allow-\w+/);
    }
  },
);
