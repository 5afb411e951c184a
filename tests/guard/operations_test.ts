/** Tests of running `ucred guard`: files that change, signals, the service manager, logs, mistakes. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Child, freshPath } from "../support/peers.ts";
import { visitAs } from "../support/servers.ts";
import { Wire } from "../support/http.ts";
import { safeFolder } from "../support/safe_folder.ts";
import {
  answerAll,
  answerOf,
  Behind,
  End,
  Guard,
  policyFile,
  type Start,
  testGuard,
  tool,
  USERS,
} from "../support/guard.ts";
import { needs, sample, until } from "../support/suite.ts";

const allow = (...uids: number[]) =>
  `version: 1\nrules: [{ name: some, when: { uid: [${uids}] }, allow: true }]\n`;

function greeter(): Promise<Behind> {
  return Behind.start((end) => void end.send("welcome").end());
}

function web(): Promise<Behind> {
  return Behind.start((end) => answerAll(end, ({ first }) => answerOf(first.split(" ")[1]!)));
}

function replace(file: string, text: string): void {
  writeFileSync(`${file}.new`, text, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

testGuard("guard reloads its policy when the file changes, and upon SIGHUP", async () => {
  const file = policyFile(allow(USERS.one));
  const guard = await Guard.start({ upstream: (await greeter()).path, policy: file });
  assert.equal(await visitAs(USERS.two, guard.path), "");
  replace(file, allow(USERS.two));
  await guard.logs("the new policy is in force");
  assert.equal(await visitAs(USERS.two, guard.path), "welcome");
  assert.equal(await visitAs(USERS.one, guard.path), "");
  guard.signal("SIGHUP");
  await guard.logs("the new policy is in force");
  assert.equal(await visitAs(USERS.two, guard.path), "welcome");
});

testGuard("guard reloads its shadow policy upon SIGHUP", async () => {
  const [policy, shadow] = [policyFile(), policyFile()];
  const { path } = await greeter();
  const guard = await Guard.start({ upstream: path, policy, args: ["--shadow", shadow] });
  guard.signal("SIGHUP");
  await guard.logs(`${policy}: the new policy is in force`);
  await guard.logs(`${shadow}: the new policy is in force`);
}, needs.oneRuntime);

testGuard(
  "guard logs decisions that a shadow policy would change",
  async () => {
    const guard = await Guard.start({
      upstream: (await web()).path,
      mode: "http",
      policy: policyFile(
        `version: 1\nrules: [{ name: now, when: { uid: ${USERS.one} }, actions: "GET /**", allow: true }]\n`,
      ),
      args: [
        "--shadow",
        policyFile(
          `version: 1\nrules: [{ name: later, when: { uid: ${USERS.one} }, actions: "GET /public/**", allow: true }]\n`,
        ),
      ],
    });
    const wire = Wire.as(USERS.one, guard.path);
    assert.equal((await wire.get("/public/a")).status, 200);
    assert.equal((await wire.get("/private/\x61")).status, 200, "it decides nothing");
    await guard.logs(`shadow: uid ${USERS.one} "GET /private/a": allow (`);
    await guard.logs("the candidate would deny (");
    assert.doesNotMatch(guard.log, /\/public/);
  },
  needs.oneRuntime,
);

interface Line {
  readonly event: string;
  readonly connection?: number;
  readonly peer?: { uid: number; pid: number };
  readonly [name: string]: unknown;
}

const lines = (file: string) =>
  readFileSync(file, "utf8").split("\n").slice(0, -1).map((line) => JSON.parse(line) as Line);

testGuard(
  "guard --audit writes a line for each event, and reopens the file upon SIGHUP",
  async () => {
    const file = freshPath("audit.log");
    const guard = await Guard.start({
      upstream: (await web()).path,
      mode: "http",
      args: ["--audit", file],
    });
    const wire = Wire.as(USERS.two, guard.path);
    await wire.get("/a%20b");
    await wire.get("/c", "DELETE");
    wire.destroy();
    await until(() => lines(file).some(({ event }) => event === "closed"));
    await Wire.as(USERS.nobody, guard.path).send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").rest();
    await until(() => lines(file).some(({ event }) => event === "refused"));
    const all = lines(file);
    assert.deepEqual(all.map(({ event }) => event), [
      ...["accepted", "decided", "decided", "closed", "refused"],
    ]);
    const [accepted, read, denied, closed, refused] = all;
    assert.deepEqual([accepted!.peer!.uid, accepted!.peer!.pid], [USERS.two, wire.child!.pid]);
    assert.deepEqual([read!["action"], read!["allowed"], read!["rule"]], [
      "GET /a b",
      true,
      "two reads",
    ]);
    assert.deepEqual([denied!["action"], denied!["allowed"]], ["DELETE /c", false]);
    assert.equal(closed!.connection, accepted!.connection);
    assert.deepEqual([refused!["why"], refused!.peer!.uid], ["policy", USERS.nobody]);
    assert.equal(statSync(file).mode & 0o777, 0o600);

    renameSync(file, `${file}.1`);
    guard.signal("SIGHUP");
    await until(() => existsSync(file));
    await Wire.as(USERS.two, guard.path).get("/after");
    await until(() => lines(file).length === 2);
    assert.equal(lines(`${file}.1`).length, 5);
  },
);

testGuard(
  "guard --audit - --audit-denied writes only denials, to stderr",
  async () => {
    const guard = await Guard.start({
      upstream: (await web()).path,
      mode: "http",
      args: ["--audit", "-", "--audit-denied"],
    });
    const wire = Wire.as(USERS.two, guard.path);
    await wire.get("/fine");
    await wire.get("/%E2%80%AE", "POST");
    await guard.logs('"event":"decided"');
    const written = guard.log.split("\n").filter((line) => line.startsWith("{"));
    assert.equal(written.length, 1);
    assert.match(written[0]!, /"action":"POST \/\\u202e","allowed":false/);
  },
  needs.oneRuntime,
);

testGuard(
  "guard serves although audit lines are lost, and logs their number at the end",
  async () => {
    const guard = await Guard.start({
      upstream: (await web()).path,
      mode: "http",
      args: ["--audit", "/dev/full"],
    });
    const client = await End.open(guard.path);
    for (let i = 0; i < 20; i++) {
      assert.equal((await client.ask("/a")).body, "/a");
      await sleep(5);
    }
    await guard.logs("/dev/full: lines of the audit log are being lost: ");
    client.destroy();
    guard.signal("SIGTERM");
    assert.deepEqual(await guard.ended, { code: 0, signal: null });
    assert.match(guard.log, /^[1-9]\d* lines of the audit log were lost: .*no space left/im);
  },
);

testGuard("guard logs that its audit log cannot be reopened, and keeps writing", async () => {
  const folder = safeFolder();
  const file = join(folder, "audit", "log");
  mkdirSync(dirname(file));
  const guard = await Guard.start({ upstream: (await greeter()).path, args: ["--audit", file] });
  renameSync(dirname(file), join(folder, "gone"));
  guard.signal("SIGHUP");
  await guard.logs(`${file} cannot be reopened: ENOENT`);
  assert.equal(await visitAs(0, guard.path), "welcome");
  await until(() => lines(join(folder, "gone", "log")).length === 2);
}, needs.oneRuntime);

testGuard("guard --max-connections limits all users, and --accept-rate each user", async () => {
  const behind = await Behind.start((end) => void end.send("welcome"));
  const policy = policyFile("version: 1\nrules: [{ name: all, allow: true }]\n");
  const welcomed = async (guard: Guard, uid: number) => {
    const wire = Wire.as(uid, guard.path);
    return await wire.until("welcome").then(() => true, () => false);
  };
  const most = await Guard.start({
    upstream: behind.path,
    policy,
    args: ["--max-connections", "3"],
  });
  const found: boolean[] = [];
  for (const uid of [USERS.one, USERS.two, USERS.one, USERS.two]) {
    found.push(await welcomed(most, uid));
  }
  assert.deepEqual(found, [true, true, true, false]);

  const rate = await Guard.start({ upstream: behind.path, policy, args: ["--accept-rate", "3"] });
  const all = await Promise.all(Array.from({ length: 20 }, () => welcomed(rate, USERS.one)));
  assert.ok(all.includes(false), "20 at once are more than 3 in a second");
  assert.ok(await welcomed(rate, USERS.two), "which is no concern of somebody else's");
}, needs.oneRuntime);

/** A descriptor on which the service manager listens for what a service tells it. */
function manager(): { readonly path: string; readonly child: Child } {
  const path = freshPath("notify.sock");
  const child = new Child("python3", [
    "-uc",
    "import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\n" +
    "print('ready')\nwhile True: print(s.recv(4096).decode())",
    path,
  ]);
  return { path, child };
}

testGuard("guard notifies the service manager when it is ready, and when it stops", async () => {
  const { path, child } = manager();
  assert.equal(await child.line(), "ready");
  const guard = await Guard.start({
    upstream: (await greeter()).path,
    env: { NOTIFY_SOCKET: path },
  });
  assert.equal(await child.line(), "READY=1");
  assert.equal(await visitAs(0, guard.path), "welcome");
  guard.signal("SIGTERM");
  assert.equal(await child.line(), "STOPPING=1");
  assert.deepEqual(await guard.ended, { code: 0, signal: null });
  child.process.kill();
}, tool("python3"));

for (const mode of ["stream", "http"] as const) {
  testGuard(
    `guard --systemd --mode ${mode} listens on the socket that systemd passes`,
    async () => {
      const path = freshPath("systemd.sock");
      const behind = await (mode === "http" ? web() : greeter());
      const guard = Guard.launch({
        upstream: behind.path,
        mode,
        listen: null,
        args: ["--systemd"],
        prefix: ["systemd-socket-activate", "--listen", path, "-E", "PATH", "-E", "HOME"],
      });
      await guard.logs(`Listening on ${path}`);
      const client = connect(path); // which starts it
      client.on("error", () => {});
      await guard.logs("listening at ");
      client.destroy();
      if (mode === "stream") assert.equal(await visitAs(0, path), "welcome");
      else assert.equal((await (await End.open(path)).ask("/a")).body, "/a");
      guard.signal("SIGTERM");
      assert.deepEqual(await guard.ended, { code: 0, signal: null });
      assert.ok(existsSync(path), "the socket's file is systemd's");
    },
    tool("systemd-socket-activate"),
  );
}

testGuard(
  "guard keeps a stream open after SIGTERM, accepts no new one, and ends with it",
  async () => {
    const behind = await Behind.start();
    const guard = await Guard.start({ upstream: behind.path });
    const client = (await End.open(guard.path)).send("before");
    const server = await behind.next();
    await server.bytes(6);
    guard.signal("SIGTERM");
    await guard.logs("SIGTERM: no new connections; open connections end within 10 s");
    await until(() => !existsSync(guard.path));
    assert.equal(await visitAs(0, guard.path), "ENOENT");
    client.send("after");
    assert.equal(await server.bytes(5), "after");
    server.send("bye").end();
    assert.equal(await client.rest(), "bye");
    client.end();
    assert.deepEqual(await guard.ended, { code: 0, signal: null });
  },
);

testGuard(
  "guard completes a request after SIGTERM, and closes idle connections",
  async () => {
    const behind = await Behind.start();
    const guard = await Guard.start({ upstream: behind.path, mode: "http" });
    const [busy, idle] = [await End.open(guard.path), await End.open(guard.path)];
    idle.send("GET /idle HTTP/1.1\r\nHost: x\r\n\r\n");
    const first = await behind.next();
    await first.message();
    first.send(answerOf("idle"));
    await idle.message();
    busy.send("GET /busy HTTP/1.1\r\nHost: x\r\n\r\n");
    const second = await Promise.race([behind.next(), first.message().then(() => first)]);
    if (second !== first) await second.message();
    guard.signal("SIGTERM");
    await guard.logs("SIGTERM");
    assert.equal(await idle.rest(), "", "it is ended at once");
    second.send(answerOf("in flight"));
    assert.equal((await busy.message()).body, "in flight");
    assert.deepEqual(await guard.ended, { code: 0, signal: null });
  },
);

testGuard("guard closes open connections after --drain", async () => {
  const behind = await Behind.start();
  const guard = await Guard.start({ upstream: behind.path, args: ["--drain", "0.2"] });
  const client = await End.open(guard.path);
  const server = await behind.next();
  guard.signal("SIGINT");
  await guard.logs("SIGINT: no new connections; open connections end within 0.2 s");
  assert.equal(await client.rest(), "");
  assert.equal(await server.rest(), "");
  assert.deepEqual(await guard.ended, { code: 0, signal: null });
});

testGuard("guard keeps draining after SIGTERM when SIGHUP arrives", async () => {
  const behind = await Behind.start();
  const guard = await Guard.start({ upstream: behind.path });
  const client = (await End.open(guard.path)).send("before");
  const server = await behind.next();
  await server.bytes(6);
  guard.signal("SIGTERM");
  await guard.logs("no new connections");
  guard.signal("SIGHUP");
  await guard.logs("the new policy is in force");
  server.send("bye").end();
  assert.equal(await client.rest(), "bye");
  client.end();
  assert.deepEqual(await guard.ended, { code: 0, signal: null });
});

for (
  const [first, second, code] of sample(
    [
      ["SIGTERM", "SIGTERM", 143],
      ["SIGINT", "SIGINT", 130],
      ["SIGINT", "SIGTERM", 143],
    ] as const,
  )
) {
  testGuard(`guard ends at once upon ${second} after ${first}`, async () => {
    const behind = await Behind.start();
    const guard = await Guard.start({ upstream: behind.path, args: ["--drain", "1000"] });
    const client = (await End.open(guard.path)).send("hello");
    await behind.next();
    guard.signal(first);
    await guard.logs("no new connections");
    guard.signal(second);
    await guard.logs("ended at once");
    assert.deepEqual(await guard.ended, { code, signal: null });
    await client.rest();
  });
}

testGuard(
  "guard replaces the socket of a killed guard, but not that of a running one",
  async () => {
    const behind = await greeter();
    const first = await Guard.start({ upstream: behind.path });
    const second = Guard.launch({ upstream: behind.path, listen: first.path });
    assert.deepEqual(await second.ended, { code: 2, signal: null });
    assert.match(second.log, /^ucred: Cannot listen [^]*\n {7}\S/);
    first.child.kill("SIGKILL");
    await first.ended;
    const third = await Guard.start({ upstream: behind.path, listen: first.path });
    assert.equal(await visitAs(0, third.path), "welcome");
  },
);

const mistakes: readonly [string, RegExp, Partial<Start>][] = [
  ["neither --listen nor --systemd", /exactly one of --listen and --systemd/, { listen: null }],
  ["both --listen and --systemd", /exactly one of --listen and --systemd/, { args: ["--systemd"] }],
  ["a shadow without a policy", /--shadow requires --policy/, {
    policy: null,
    args: ["--shadow", "x.yaml"],
  }],
  ["an unknown flag", /unknown option '--polcy'[^]*--policy/, { args: ["--polcy", "x"] }],
  ["an unknown mode", /Allowed choices are stream, http/, { args: ["--mode", "tcp"] }],
  ["a wrong mode", /It must be an octal mode/, { args: ["--socket-mode", "rw"] }],
  ["a wrong number", /It must be a whole number above 0/, { args: ["--max-per-user", "-1"] }],
  ["a missing policy file", /Cannot [^]*nowhere\.yaml/, { policy: "/nonexistent/nowhere.yaml" }],
  ["--systemd without a passed socket", /^ucred: Cannot [^]*\n {7}\S/, {
    listen: null,
    args: ["--systemd"],
  }],
  ["a missing folder", /ENOENT|Cannot listen/, { listen: "/nonexistent/s" }],
  ["an audit log that cannot be written", /nonexistent/, { args: ["--audit", "/nonexistent/log"] }],
  ["an unknown user", /noo-one/, { args: ["--socket-owner", "noo-one"] }],
];
for (const [what, text, start] of sample(mistakes)) {
  testGuard(`guard prints an error, and exits with 2, for ${what}`, async () => {
    const guard = Guard.launch({ upstream: "/nonexistent/up", ...start });
    assert.deepEqual(await guard.ended, { code: 2, signal: null });
    assert.match(guard.log, text);
    assert.doesNotMatch(guard.log, /^ {4}at |bug in ucred|Warning/m, "no stack trace");
  });
}

testGuard("guard exits with 2 for a wrong policy, and prints its line", async () => {
  const policy = policyFile("version: 1\nrules:\n  - { name: a, wehn: { uid: 0 }, allow: true }\n");
  const guard = Guard.launch({ upstream: "/nonexistent/up", policy });
  assert.deepEqual(await guard.ended, { code: 2, signal: null });
  assert.match(guard.log, /policy\.yaml:3:16: [^]*when/);
  assert.ok(!existsSync(guard.path));
}, needs.oneRuntime);

testGuard(
  "guard warns at its start that the upstream does not exist, and serves it later",
  async () => {
    const upstream = freshPath("later.sock");
    const guard = await Guard.start({ upstream });
    await guard.logs(`warning: ${upstream} does not exist`);
    assert.equal(await visitAs(USERS.one, guard.path), "");
    await Behind.start((end) => void end.send("welcome").end(), upstream);
    assert.equal(await visitAs(USERS.one, guard.path), "welcome");
  },
  needs.oneRuntime,
);

testGuard("guard does not warn about an upstream that exists, or an abstract name", async () => {
  for (const upstream of [(await greeter()).path, "@ucred-test-missing"]) {
    const guard = await Guard.start({ upstream });
    guard.signal("SIGTERM");
    await guard.ended;
    assert.doesNotMatch(guard.log, /warning/);
  }
}, needs.oneRuntime);

testGuard("guard listens at an abstract name, in front of another one", async () => {
  const name = `@${dirname(freshPath()).split("/").at(-1)}`;
  const server = spawn("python3", [
    "-c",
    "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.bind('\\0'+sys.argv[1])\ns.listen()\nprint('up',flush=True)\n" +
    "while True:\n c=s.accept()[0]\n c.sendall(b'welcome')\n c.shutdown(1)\n c.recv(1)\n c.close()",
    `${name.slice(1)}-up`,
  ]);
  try {
    await once(server.stdout!, "data");
    const guard = Guard.launch({
      upstream: `${name}-up`,
      listen: null,
      args: ["--listen", `${name}-guard`],
    });
    await guard.logs(`guards ${name}-up, listening at ${name}-guard\n`);
    assert.equal(await visitAs(USERS.one, `\0${name.slice(1)}-guard`), "welcome");
    assert.equal(await visitAs(USERS.nobody, `\0${name.slice(1)}-guard`), "");
  } finally {
    server.kill();
  }
}, tool("python3"));
