/** Runs the recipes of docs/recipes.md with clients of several users. */

import assert from "node:assert/strict";
import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import process from "node:process";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { parse } from "yaml";
import { watchPolicy } from "../../policy/mod.ts";
import { receive } from "../../servers/datagram.ts";
import { temporaryFolder } from "../support/compile.ts";
import { tool } from "../support/guard.ts";
import { GuardHere } from "../support/guard_here.ts";
import { Wire } from "../support/http.ts";
import { packagesOf } from "../support/packages.ts";
import { Child, freshPath, withIds } from "../support/peers.ts";
import { removeSafeFolders, safeFolder, safeFolders } from "../support/safe_folder.ts";
import { isListening } from "../support/servers.ts";
import { endAfterEach, need, needs, succeeds, testWith, until } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const page = readFileSync(join(root, "docs/recipes.md"), "utf8");
const runtimeOf = (name: string) => join(root, "node_modules/.bin", name);

/** Returns a block of a section, by its language and place. */
function block(heading: string, language: string, place = 0): string {
  const start = page.indexOf(`\n${heading}\n`);
  assert.ok(start >= 0, heading);
  const section = page.slice(start + heading.length + 2).split(/^#{1,3} (?=[A-Z])/m, 1)[0]!;
  const blocks = [...section.matchAll(/^```(\w*)\n([^]*?)^```$/gm)];
  const found = blocks.filter(([, each]) => each === language)[place]?.[2];
  assert.ok(found !== undefined, `${heading}: no ${language} ${place}`);
  return found;
}

// A folder inside the project: there "ucred" resolves to this package.
const folder = mkdtempSync(join(root, ".examples-recipes-"));
after(() => rmSync(folder, { recursive: true, force: true }));
endAfterEach(removeSafeFolders);

/** Saves the program of a section. */
function program(name: string, heading: string, language = "ts"): string {
  const file = join(folder, name);
  writeFileSync(file, block(heading, language));
  return file;
}

const PERSON = 59_998;
const SERVICE = 999;

/** Starts a program that listens at "app.sock" in a folder that every user may enter. */
async function start(...[command, ...args]: readonly [string, ...string[]]) {
  const cwd = dirname(freshPath());
  const child = spawn(command, args, { cwd, stdio: ["ignore", "inherit", "inherit"] });
  const path = join(cwd, "app.sock");
  await until(() => {
    assert.equal(child.exitCode, null, "the program runs");
    return existsSync(path);
  });
  return { path, cwd, child };
}

/** Runs a command as an account, with further groups. Rejects if it fails. */
async function runAs(user: string, groups: readonly number[], ...command: readonly string[]) {
  const id = (flag: string) => Number(execFileSync("id", [flag, user], { encoding: "utf8" }));
  const [word, ...words] = withIds({ uid: id("-u"), gid: id("-g"), groups }) as [string];
  const { stdout } = await promisify(execFile)(word, [...words, ...command], { cwd: "/" });
  return stdout;
}

const here = [needs.linux, needs.cc, needs.root, needs.native];

testWith(
  [...here, tool("curl")],
  "the HTTP API for each group runs on Deno with the documented permissions",
  async () => {
    const heading = "## An HTTP API for each group, on Deno";
    const file = program("notes.ts", heading);
    const cwd = dirname(freshPath());
    const flags = block(heading, "sh").replace("\\\n", "").replaceAll("$PWD", cwd).split(/\s+/)
      .filter((word) => word.startsWith("--"));
    const child = spawn(runtimeOf("deno"), ["run", "--no-prompt", ...flags, file], {
      ...{ cwd, stdio: ["ignore", "inherit", "inherit"] },
    });
    try {
      const path = join(cwd, "app.sock");
      await until(() => existsSync(path) || child.exitCode !== null);
      const send = async (group: number, method: string, target: string) => {
        const ids = withIds({ uid: PERSON, gid: PERSON, groups: [group] });
        const args = ["-s", "-w", " %{http_code}", "-X", method, "--unix-socket", path];
        const line = [...ids, "curl", ...args, "-d", "hello", `http://x${target}`];
        const { stdout } = await promisify(execFile)(line[0]!, line.slice(1));
        return stdout.startsWith("{") ? Number(stdout.slice(-3)) : stdout;
      };
      const [editors, readers, others] = [4, 100, PERSON];
      assert.equal(await send(editors, "PUT", "/notes/a"), "hello 200");
      assert.equal(await send(readers, "GET", "/notes/a"), "hello 200");
      assert.equal(await send(readers, "PUT", "/notes/a"), 403);
      assert.equal(await send(readers, "GET", "/"), 403);
      assert.equal(await send(editors, "DELETE", "/notes/a"), 403);
      assert.equal(await send(others, "GET", "/notes/a"), 403);
      assert.equal(await send(editors, "GET", "/"), `welcome, uid ${PERSON}: edit\n 200`);
    } finally {
      child.kill("SIGKILL");
    }
  },
);

testWith(here, "the line daemon on Bun decides each command", async () => {
  const file = program("daemon.ts", "## A line daemon, on Bun");
  const { path, child } = await start(runtimeOf("bun"), file);
  try {
    const owner = Wire.as(0, path);
    assert.equal(await owner.until("\n"), "welcome, uid 0\n");
    owner.send("set a b c\nget a\n");
    assert.equal(await owner.until("c\nok b c\n"), "ok b c\nok b c\n");
    assert.equal(await owner.send("delete a\n").rest(), "");
    const person = Wire.as(PERSON, path);
    assert.equal(await person.until("\n"), `welcome, uid ${PERSON}\n`);
    person.send("set a x\nget a\n");
    assert.equal(await person.until("ok b c\n"), "denied: No rule matches\nok b c\n");
    assert.equal(await Wire.as(SERVICE, path).send("get a\n").rest(), "");
    person.send("x".repeat(3000));
    assert.equal(await person.rest(), "");
  } finally {
    child.kill("SIGKILL");
  }
});

const SYSTEMD = "## SIGTERM and systemd";

for (
  const command of [
    ["node", "--disable-warning=ExperimentalWarning"],
    ["deno", "run", "--no-prompt", "-A"],
    ["bun"],
  ] as const
) {
  testWith(
    [...here, needs.socketActivate],
    `the server for systemd reports to it and ends upon SIGTERM, on ${command[0]}`,
    async () => {
      const file = program(`app_${command[0]}.ts`, SYSTEMD);
      const path = freshPath();
      const messages = receive(freshPath("notify"));
      const args = ["-l", path, "-E", `NOTIFY_SOCKET=${messages.path}`];
      const child = new Child("systemd-socket-activate", [
        ...args,
        runtimeOf(command[0]),
        ...command.slice(1),
        file,
      ]);
      const seen: string[] = [];
      void (async () => {
        for await (const { data } of messages) seen.push(new TextDecoder().decode(data));
      })();
      try {
        await until(() => isListening(path));
        chmodSync(path, 0o666);
        const { body } = await Wire.as(PERSON, path).get("/");
        assert.equal(body, `welcome, uid ${PERSON}\n`);
        assert.equal(await child.line(), `listening at ${path}`);
        await until(() => /^READY=1$/m.test(seen.join("\n")));
        const ended = once(child.process, "exit");
        child.process.kill("SIGTERM");
        assert.deepEqual(await ended, [0, null]);
        await until(() => /^STOPPING=1$/m.test(seen.join("\n")));
      } finally {
        child.process.kill("SIGKILL");
        messages.close();
      }
    },
  );
}

testWith(
  [need("systemd-analyze", () => succeeds("systemd-analyze", "--version"))],
  "systemd-analyze verify accepts the units",
  () => {
    const units = temporaryFolder();
    const write = (name: string, place: number) => {
      const text = block(SYSTEMD, "ini", place).replace(/^ExecStart=.*$/m, "ExecStart=/bin/true");
      writeFileSync(join(units, name), text);
      return join(units, name);
    };
    const files = [write("app.socket", 0), write("app.service", 1)];
    const args = ["verify", "--man=no", ...files];
    assert.equal(execFileSync("systemd-analyze", args, { encoding: "utf8" }), "");
  },
);

const redis = need(
  "redis-server and redis-cli (Debian: redis-server)",
  () => succeeds("redis-server", "--version") && succeeds("id", "redis"),
);

testWith(
  [...here, redis],
  "the guard in front of Redis accepts the group of its policy",
  async () => {
    const id = Number(execFileSync("id", ["-u", "redis"], { encoding: "utf8" }));
    const own = temporaryFolder();
    chownSync(own, id, id);
    const upstream = join(own, "redis.sock");
    const config = block("### Redis", "").replace("/run/redis/redis.sock", upstream);
    writeFileSync(join(own, "redis.conf"), `${config}dir ${own}\nsave ""\n`);
    const [word, ...words] = withIds({ uid: id, gid: id, groups: [] }) as [string];
    const server = new Child(word, [...words, "redis-server", join(own, "redis.conf")]);
    try {
      await until(() => isListening(upstream));
      const policy = block("### Redis", "yaml").replaceAll("cache", "users");
      const guard = await GuardHere.start({
        mode: "stream",
        upstream,
        policy,
        expect: { uid: id },
      });
      const ping = (groups: number[], path: string) =>
        runAs("games", groups, "redis-cli", "-s", path, "ping");
      assert.equal(await ping([100], guard.path), "PONG\n");
      await assert.rejects(ping([], guard.path), /Connection|closed|Error/);
      await assert.rejects(ping([100], upstream), /Permission denied|Could not connect/);
    } finally {
      server.process.kill("SIGKILL");
    }
  },
);

testWith(
  [...here, need("ssh-agent (Debian: openssh-client)", () => tool("ssh-agent").met)],
  "the guard in front of ssh-agent lets the group of its policy sign with the key",
  async () => {
    const own = temporaryFolder();
    chownSync(own, 1, 1); // daemon
    const [upstream, key, text] = ["agent.sock", "key", "text"].map((name) => join(own, name)) as [
      string,
      string,
      string,
    ];
    const agent = new Child("setpriv", [
      ...["--reuid=daemon", "--regid=daemon", "--clear-groups", "ssh-agent", "-D", "-a", upstream],
    ]);
    try {
      await until(() => isListening(upstream));
      await runAs("daemon", [], "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key);
      await runAs("daemon", [], "env", `SSH_AUTH_SOCK=${upstream}`, "ssh-add", "-q", key);
      const policy = block("### ssh-agent", "yaml").replaceAll("deployers", "users");
      const guard = await GuardHere.start({
        ...{ mode: "stream", upstream, policy, expect: { uid: 1 } },
      });
      writeFileSync(text, "text");
      /** Signs on standard input and output, so that only the public key is read. */
      const sign = (groups: number[], path: string) => {
        const command = 'ssh-keygen -q -Y sign -n test -f "$1" < "$2"';
        const line = ["sh", "-c", command, "sh", `${key}.pub`, text];
        return runAs("games", groups, "env", `SSH_AUTH_SOCK=${path}`, ...line);
      };
      chmodSync(own, 0o755);
      assert.match(await sign([100], guard.path), /BEGIN SSH SIGNATURE/);
      await assert.rejects(sign([], guard.path), /agent|sign/i);
      await assert.rejects(sign([100], upstream), /agent|sign/i);
    } finally {
      agent.process.kill("SIGKILL");
    }
  },
);

testWith(
  [...here, packagesOf("bench")],
  "the server that moves from tokens to a socket gives the same answers on both",
  async () => {
    const project = temporaryFolder();
    mkdirSync(join(project, "node_modules"));
    symlinkSync(root, join(project, "node_modules/ucred"));
    symlinkSync(join(root, "bench/node_modules/jose"), join(project, "node_modules/jose"));
    writeFileSync(join(project, "app.mjs"), block("## From tokens on localhost", "js"));
    writeFileSync(join(project, "package.json"), '{ "type": "module" }');
    const secret = "a key of at least 256 bits, for HS256";
    const cwd = temporaryFolder();
    const child = spawn(runtimeOf("node"), [join(project, "app.mjs")], {
      ...{ cwd, stdio: ["ignore", "pipe", "inherit"] },
      env: { ...process.env, TOKEN_KEY: secret, PORT: "0", NODE_NO_WARNINGS: "1" },
    });
    try {
      let output = "";
      child.stdout.setEncoding("utf8").on("data", (more: string) => output += more);
      await until(() => output.split("\n").length === 3);
      const port = Number(/port (\d+)/.exec(output)![1]);
      const { SignJWT } = createRequire(join(root, "bench/package.json"))("jose");
      const token = (scope: string | undefined, key = secret) =>
        new SignJWT({ scope }).setProtectedHeader({ alg: "HS256" }).setSubject("x")
          .sign(new TextEncoder().encode(key));
      const before = async (method: string, bearer: string) => {
        const headers = { authorization: `Bearer ${bearer}` };
        return (await fetch(`http://127.0.0.1:${port}/`, { method, headers })).status;
      };
      const now = async (method: string, uid: number) =>
        (await Wire.as(uid, join(cwd, "app.sock")).get("/", method)).status;
      for (const method of ["GET", "POST"]) {
        assert.equal(await now(method, 0), await before(method, await token("read write")));
        assert.equal(await now(method, PERSON), await before(method, await token("read")));
        assert.equal(await now(method, SERVICE), 403);
        for (
          const wrong of [await token("read write", "x".repeat(32)), await token(undefined), ""]
        ) {
          assert.equal(await before(method, wrong), 401);
        }
      }
      assert.deepEqual([await now("GET", PERSON), await now("POST", PERSON)], [200, 403]);
    } finally {
      child.kill("SIGKILL");
    }
  },
);

/** Starts journald on a tmpfs at /run, in namespaces of its own. */
const JOURNAL = `
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journald.conf.d /run/log/journal
printf '[Journal]\\nStorage=volatile\\nAudit=no\\nReadKMsg=no\\n' > /run/systemd/journald.conf.d/test.conf
/lib/systemd/systemd-journald &
for try in $(seq 200); do test -S /run/systemd/journal/stdout && break; sleep 0.05; done
test -S /run/systemd/journal/stdout || exit 1
`;

/** Starts a service, and prints its entries at the next line of input. */
const SERVICE_LOG = `
systemd-cat -t app "$@" & service=$!
read line
has() { journalctl -D /run/log/journal -t app -o cat | grep -q "$1"; }
until has '^Refused' && has '"event":"refused"'; do sleep 0.05; done
kill $service
journalctl -D /run/log/journal -t app -o json
`;

/** The arguments of unshare for a script that runs beside journald. */
function journal(script: string, ...command: readonly string[]): string[] {
  const flags = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"];
  return [...flags, "sh", "-c", JOURNAL + script, "sh", ...command];
}

testWith(
  [
    ...here,
    needs.mountNamespace,
    need(
      "systemd-journald (Debian: systemd), and leave to run it",
      () => needs.mountNamespace.met && succeeds("unshare", ...journal("exit 0")),
    ),
  ],
  "the journal has the audit log, and the priority of refused connections",
  async () => {
    const file = program("logged.ts", "## Logging to journald");
    const cwd = dirname(freshPath());
    const node = [runtimeOf("node"), "--disable-warning=ExperimentalWarning", file];
    const child = spawn("unshare", journal(SERVICE_LOG, ...node), {
      ...{ cwd, stdio: ["pipe", "pipe", "ignore"] },
    });
    try {
      let output = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
      const path = join(cwd, "app.sock");
      await until(() => existsSync(path) || child.exitCode !== null);
      assert.equal(await Wire.as(0, path).rest(), "welcome, uid 0\n");
      assert.equal(await Wire.as(PERSON, path).rest(), "");
      const closed = once(child, "close");
      child.stdin.end("\n");
      await closed;
      const entries = output.trimEnd().split("\n").map((line) => JSON.parse(line));
      const refused = entries.filter(({ PRIORITY }) => PRIORITY === "4");
      assert.deepEqual(refused.map(({ MESSAGE }) => MESSAGE), [
        `Refused uid ${PERSON}: policy`,
      ]);
      const records = entries.filter(({ MESSAGE }) => MESSAGE.startsWith("{"));
      const events = records.map(({ MESSAGE }) => JSON.parse(MESSAGE).event);
      assert.ok(events.includes("accepted") && events.includes("refused"), events.join());
    } finally {
      child.kill("SIGKILL");
    }
  },
);

testWith(
  [needs.linux, safeFolders],
  "watchPolicy() follows the link swap of a ConfigMap in a folder with mode 0777",
  async () => {
    const volume = safeFolder();
    chmodSync(volume, 0o777);
    const publish = (version: string, uid: number) => {
      mkdirSync(join(volume, version));
      const rules = `[{ name: client, when: { uid: ${uid} }, allow: true }]`;
      writeFileSync(join(volume, version, "policy.yaml"), `version: 1\nrules: ${rules}\n`);
      symlinkSync(version, join(volume, "..data_tmp"));
      renameSync(join(volume, "..data_tmp"), join(volume, "..data"));
    };
    publish("..1", 2001);
    symlinkSync("..data/policy.yaml", join(volume, "policy.yaml"));
    const path = join(volume, "policy.yaml");
    assert.throws(() => watchPolicy(path), { hint: /^In Kubernetes/ });
    using policy = watchPolicy(path, { allowUnsafeOwner: true });
    const allowed = (uid: number) => policy.decide({ uid }).allowed;
    assert.deepEqual([allowed(2001), allowed(2002)], [true, false]);
    publish("..2", 2002);
    rmSync(join(volume, "..1"), { recursive: true });
    await until(() => allowed(2002));
    assert.equal(allowed(2001), false);
  },
);

testWith([], "the manifest for Kubernetes mounts each volume that it names", () => {
  const { spec } = parse(block("## Kubernetes", "yaml"));
  const volumes = spec.volumes.map(({ name }: { name: string }) => name);
  const mounts = spec.containers.flatMap(({ volumeMounts }: { volumeMounts: { name: string }[] }) =>
    volumeMounts.map(({ name }) => name)
  );
  assert.deepEqual([...new Set(mounts)].sort(), volumes.sort());
});

const compose = need(
  "docker-compose (Debian: docker-compose)",
  () => succeeds("docker-compose", "version"),
);

testWith([compose], "docker-compose accepts the file, and the guard its options", () => {
  const project = temporaryFolder();
  const text = block("## Docker Compose", "yaml");
  writeFileSync(join(project, "docker-compose.yaml"), text);
  const output = execFileSync("docker-compose", ["config"], {
    ...{ cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] },
  });
  const { guard } = parse(output).services;
  const command: string = guard.command;
  assert.match(command, /^ucred guard --mode http --listen \/run\/guard\/app\.sock /);
  // The help lists each option that exists.
  const words = command.trim().split(/\s+/).slice(1);
  const args = [join(root, "cli/main.ts"), "guard", "--help"];
  const help = execFileSync(runtimeOf("node"), args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  for (const word of words.filter((word) => word.startsWith("--"))) {
    assert.ok(help.includes(word), word);
  }
});
