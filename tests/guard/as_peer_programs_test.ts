/** Tests of `ucred guard --as-peer` in front of PostgreSQL, dbus-daemon and podman. */

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { startDaemon } from "../interop/dbus/daemon.ts";
import { startGuard } from "../support/as_peer.ts";
import { temporaryFolder } from "../support/compile.ts";
import { Guard, policyFile, testGuard, tool } from "../support/guard.ts";
import { Child } from "../support/peers.ts";
import { need, needs, succeeds, until } from "../support/suite.ts";

const setpriv = tool("setpriv");

/** Runs a program as an account of this system, with the groups of that account. */
async function runAs(user: string, ...command: readonly string[]): Promise<string> {
  const id = (flag: string) => execFileSync("id", [flag, user], { encoding: "utf8" }).trim();
  const ids = [
    `--reuid=${id("-u")}`,
    `--regid=${id("-g")}`,
    `--groups=${id("-G").replaceAll(" ", ",")}`,
  ];
  try {
    const { stdout } = await promisify(execFile)("setpriv", [...ids, ...command], { cwd: "/" });
    return stdout.trim();
  } catch (error) {
    return String((error as { stderr: string }).stderr).trim();
  }
}

/** Debian's folder of the server's programs. */
const POSTGRES = existsSync("/usr/lib/postgresql")
  ? join("/usr/lib/postgresql", readdirSync("/usr/lib/postgresql").at(-1) ?? "", "bin")
  : "";
const postgres = need(
  "PostgreSQL (Debian: postgresql)",
  () => existsSync(join(POSTGRES, "postgres")) && succeeds("id", "postgres"),
);

testGuard(
  "guard --as-peer in front of PostgreSQL gives each user the own role",
  async () => {
    const folder = temporaryFolder();
    const [data, sockets, guarded] = ["data", "sockets", "guarded"].map((name) =>
      join(folder, name)
    );
    for (const path of [data!, sockets!]) {
      mkdirSync(path, { mode: 0o755 });
      chownSync(path, Number(execFileSync("id", ["-u", "postgres"])), 0);
    }
    mkdirSync(guarded!, { mode: 0o755 });
    const initdb = [
      join(POSTGRES, "initdb"),
      "-D",
      data!,
      "--auth=peer",
      "--no-sync",
      "--locale=C",
    ];
    assert.match(await runAs("postgres", ...initdb), /Success/);
    const options = [
      "-c",
      "listen_addresses=",
      "-c",
      "unix_socket_permissions=0700",
      "-c",
      "fsync=off",
    ];
    const server = new Child("setpriv", [
      ...["--reuid=postgres", "--regid=postgres", "--init-groups"],
      ...[join(POSTGRES, "postgres"), "-D", data!, "-k", sockets!, ...options],
    ]);
    const name = ".s.PGSQL.5432";
    const psql = (user: string, at: string, command: string, ...args: string[]) =>
      runAs(
        user,
        join(POSTGRES, "psql"),
        "-h",
        at,
        "-d",
        "postgres",
        "-At",
        "-c",
        command,
        ...args,
      );
    const roles =
      "create role daemon login; create role bin login; create role games login; create role mail login";
    await until(async () => await psql("postgres", sockets!, "select 1") === "1");
    assert.match(await psql("postgres", sockets!, roles), /CREATE ROLE/);
    assert.match(
      await psql("daemon", sockets!, "select 1"),
      /Permission denied/,
      "the server's own socket",
    );

    const guard = await startGuard({
      upstream: join(sockets!, name),
      listen: join(guarded!, name),
      args: ["--upstream-user", "postgres"],
      policy: policyFile(
        "version: 1\nrules: [{ name: people, when: { user: [daemon, bin, games] }, allow: true }]\n",
      ),
    });
    for (const user of ["daemon", "bin", "games"]) {
      assert.equal(await psql(user, guarded!, "select current_user"), user);
    }
    const asBin = ["-U", "bin"];
    assert.match(
      await psql("daemon", guarded!, "select 1", ...asBin),
      /Peer authentication failed/,
    );
    assert.match(
      await psql("mail", guarded!, "select 1"),
      /closed the connection/,
      "by the policy",
    );

    await Guard.start({ upstream: join(sockets!, name), listen: join(folder, name) });
    assert.match(
      await psql("root", folder, "select 1", "-U", "daemon"),
      /Peer authentication failed/,
    );
    assert.doesNotMatch(guard.log, /cannot be used/);
    const ended = once(server.process, "exit");
    server.process.kill("SIGINT");
    await ended;
  },
  postgres,
  setpriv,
  needs.oneRuntime,
);

testGuard(
  "guard --as-peer in front of dbus-daemon authenticates each user",
  async () => {
    const folder = temporaryFolder();
    const { path, child: bus } = await startDaemon(undefined, '<deny user="games"/>');
    const guard = await startGuard({ upstream: path });
    const call = (user: string, at: string, method: string, ...args: string[]) => {
      const to = ["org.freedesktop.DBus", "/", "org.freedesktop.DBus", method];
      return runAs(user, "busctl", `--address=unix:path=${at}`, "call", ...to, ...args);
    };
    // Connections are numbered from 0, so each caller knows the name of its own.
    assert.equal(await call("daemon", guard.path, "GetConnectionUnixUser", "s", ":1.0"), "u 1");
    assert.equal(await call("bin", guard.path, "GetConnectionUnixUser", "s", ":1.1"), "u 2");
    const credentials = await call("daemon", guard.path, "GetConnectionCredentials", "s", ":1.2");
    assert.match(credentials, /"UnixUserID" u 1\b/);
    assert.match(credentials, /"UnixGroupIDs" au 1 1\b/);
    assert.match(credentials, new RegExp(`"ProcessID" u ${guard.child.pid}\\b`));
    assert.doesNotMatch(
      await call("games", guard.path, "GetId"),
      /^s /,
      "by the policy of the bus",
    );
    assert.match(await call("root", guard.path, "GetId"), /^s /);

    const plain = await Guard.start({
      upstream: path,
      policy: null,
      args: ["--listen", join(folder, "p")],
      listen: null,
    });
    chmodSync(join(folder, "p"), 0o777);
    assert.doesNotMatch(await call("daemon", join(folder, "p"), "GetId"), /^s /, plain.log);
    bus.process.kill();
  },
  setpriv,
  tool("dbus-daemon"),
  tool("busctl"),
  needs.oneRuntime,
);

testGuard(
  "guard --as-peer --mode http serves podman's API",
  async () => {
    const folder = temporaryFolder();
    const path = join(folder, "podman.sock");
    const storage = ["--root", join(folder, "root"), "--runroot", join(folder, "run")];
    const service = new Child("podman", [
      ...storage,
      ...["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file"],
      ...["system", "service", "--time=0", `unix://${path}`],
    ]);
    await until(() => existsSync(path));
    const guard = await startGuard({
      upstream: path,
      mode: "http",
      policy: policyFile(
        'version: 1\nrules: [{ name: ping, when: { user: daemon }, actions: ["GET /v4.0.0/libpod/*"], allow: true }]\n',
      ),
    });
    const get = (user: string, target: string) =>
      runAs(user, "curl", "-s", "--unix-socket", guard.path, `http://podman${target}`);
    assert.equal(await get("daemon", "/v4.0.0/libpod/_ping"), "OK");
    assert.match(await get("daemon", "/v4.0.0/libpod/info"), /"buildahVersion"/);
    assert.match(await get("bin", "/v4.0.0/libpod/_ping"), /Forbidden|denied/i);
    service.process.kill();
  },
  setpriv,
  tool("podman"),
  tool("curl"),
  needs.oneRuntime,
);
