/** Sockets that the real systemd-socket-activate passes, and notifications to the service manager. */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { connect } from "node:net";
import { dirname } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { openedSystem } from "../../adapters/select.ts";
import { type ListenVariables, takeInherited } from "../../system/sd_listen_fds.ts";
import { notifyAt } from "../../system/sd_notify.ts";
import type { UcredError } from "../../mod.ts";
import { type Datagram, receive } from "../../servers/datagram.ts";
import { Child, freshPath } from "../support/peers.ts";
import { needs, runtime, runtimeCommand, sample, testWith, until } from "../support/suite.ts";
import { ServerProcess, visit, visitAs } from "../support/servers.ts";
import type { Orders } from "../servers/server.ts";

const here = [needs.linux, needs.cc, needs.socketActivate, needs.native];

interface Answer {
  readonly listening?: string;
  readonly error?: UcredError;
}

/** Each kind of server that accepts a passed socket. */
const KINDS: { readonly [api: string]: Orders } = {
  "ucred/net": {},
  ...(runtime === "bun" && { "ucred/bun": { bun: true } }),
};

/** A server that systemd starts when a client connects. It prints nothing at its start. */
function activated(orders: Orders, ...options: string[]): ServerProcess {
  // Deno's cache in the home folder may lack these files.
  const prefix = ["systemd-socket-activate", ...options, "-E", "HOME", "-E", "PATH"];
  return new ServerProcess(orders, prefix);
}

/** Connects as soon as a server listens. */
async function visitSoon(path: string, ...options: string[]): Promise<string> {
  for (;;) {
    const text = await visit(path, ...options);
    if (!/^(ENOENT|ECONNREFUSED)$/.test(text)) return text;
  }
}

/** Returns whether a process listens on a socket of another family than AF_UNIX. */
function listensOnTcp(pid: number): boolean {
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return "";
    }
  });
  const sockets = new Set(links.map((link) => /^socket:\[(.*)\]$/.exec(link)?.[1]));
  return ["tcp", "tcp6"].some((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, "utf8").split("\n").slice(1).some((line) => {
      const fields = line.trim().split(/\s+/);
      return fields[3] === "0A" && sockets.has(fields[9]);
    })
  );
}

for (const [api, kind] of Object.entries(KINDS)) {
  testWith(here, `${api} listens on the only socket that systemd passed`, async () => {
    const path = freshPath();
    const server = activated({ ...kind, listen: { systemd: true } }, "-l", path);
    const first = visitSoon(path);
    assert.deepEqual(await server.child.json<Answer>(), { listening: path });
    assert.equal(await first, `${process.getuid!()}\n`);
    assert.equal(await visit(path), `${process.getuid!()}\n`);
    assert.equal(listensOnTcp(server.child.process.pid!), false);
    // There is no second socket.
    const { error } = await server.command<Answer>({ listen: { systemd: true } });
    assert.equal(error?.code, "ERR_UCRED_NO_FD");
    assert.match(error!.message, /: no socket is left; available: none$/);
    await server.kill();
  });

  testWith(here, `${api} keeps the service manager's socket file when it closes`, async () => {
    const path = freshPath();
    const server = activated({ ...kind, listen: { systemd: true } }, "-l", path);
    const first = visitSoon(path);
    await server.child.json();
    await first;
    await server.command({ close: { timeout: 0 } });
    assert.equal(existsSync(path), true);
    await server.kill();
  });

  testWith([...here, needs.root], `${api} refuses other users on a passed socket`, async () => {
    const path = `\0${freshPath()}`;
    const name = path.replace("\0", "@");
    const server = activated({ ...kind, listen: { systemd: true } }, "-l", name);
    assert.equal(await visitSoon(path), "0\n");
    assert.deepEqual(await server.child.json<Answer>(), { listening: name });
    for (const uid of [1, 1000, 65534]) assert.equal(await visitAs(uid, path), "");
    await server.kill();
  });

  testWith(here, `${api} takes each of several passed sockets by its name`, async () => {
    const paths = [freshPath(), freshPath(), freshPath()] as const;
    const listens = paths.flatMap((path) => ["-l", path]);
    const server = activated(kind, ...listens, "--fdname=one:two:two");
    const first = visitSoon(paths[0]);
    const second = visitSoon(paths[1]);
    const ask = (systemd: true | string) => server.command<Answer>({ listen: { systemd } });

    assert.match(
      (await ask(true)).error!.message,
      /3 sockets are left; available: "one", "two", "two"$/,
    );
    assert.match((await ask("two")).error!.message, /2 sockets have this name; available: /);
    // Programs that the server starts inherit none of the sockets.
    for (const fd of [3, 4, 5]) {
      const info = readFileSync(`/proc/${server.child.process.pid}/fdinfo/${fd}`, "utf8");
      assert.ok(parseInt(/^flags:\s*([0-7]+)$/m.exec(info)![1]!, 8) & 0o2000000, info);
    }
    assert.match((await ask("three")).error!.message, /no socket is named "three"; available: /);
    assert.match((await ask("")).error!.message, /no socket is named ""; available: /);
    assert.deepEqual(await ask("one"), { listening: paths[0] });
    assert.equal(await first, `${process.getuid!()}\n`);
    assert.match(
      (await ask("one")).error!.message,
      /no socket is named "one"; available: "two", /,
    );

    const left = await Promise.race([second.then(() => "served"), visit(paths[0])]);
    assert.equal(left, `${process.getuid!()}\n`); // no server accepts on the second
    await server.kill();
    assert.equal(await second, "");
  });

  testWith(here, `${api} fails when the passed socket is TCP`, async () => {
    const port = 20_000 + process.pid % 40_000;
    const server = activated({ ...kind, text: "served" }, "-l", `127.0.0.1:${port}`);
    let received = "";
    for (;;) { // until it listens
      const socket = connect({ port, host: "127.0.0.1" }).on("data", (data) => received += data);
      const isOpen = await new Promise((resolve) =>
        socket.once("connect", () => resolve(true)).once("error", () => resolve(false))
      );
      if (isOpen) break;
    }
    const { error } = await server.command<Answer>({ listen: { systemd: true } });
    assert.equal(error?.code, "ERR_UCRED_NOT_UNIX");
    assert.match(error!.message, /: fd 3 is not a Unix socket$/);
    await server.kill();
    assert.equal(received, "");
  });

  for (
    const [name, options, visitor, message] of sample(
      [
        ["a packet socket", ["--seqpacket"], "--seqpacket", /it is not a stream socket$/],
        ["a datagram socket", ["--datagram"], "--datagram", /it is not a stream socket$/],
        ["a connection", ["--accept"], "", /it does not listen$/],
      ] as const,
    )
  ) {
    testWith(here, `${api} fails when it is given ${name}`, async () => {
      const path = freshPath();
      const server = activated(kind, "-l", path, ...options);
      const visitors = visitSoon(path, ...(visitor === "" ? [] : ["--type", visitor.slice(2)]));
      const { error } = await server.command<Answer>({ listen: { systemd: true } });
      assert.equal(error?.code, "ERR_UCRED_NO_PEER");
      assert.match(error!.message, message);
      await server.kill();
      void visitors.catch(() => {});
    });
  }

  testWith(
    here,
    `${api} fails when no socket is passed, or the descriptor is not a socket`,
    async () => {
      for (
        const [set, code, message] of sample(
          [
            ["", "ERR_UCRED_NO_FD", /LISTEN_FDS and LISTEN_PID are not set$/],
            ["LISTEN_FDS=1 LISTEN_PID=1", "ERR_UCRED_NO_FD", /LISTEN_PID is "1", and our pid is/],
            ["LISTEN_FDS=1 LISTEN_PID=$$", "ERR_UCRED_NO(T_UNIX|_FD)", /fd 3.*(ENOTSOCK|EBADF)/],
          ] as const,
        )
      ) {
        const prefix = ["bash", "-c", `export ${set} UCRED=1; exec "$@"`, "-"];
        const server = await ServerProcess.start(kind, prefix);
        const { listening, error } = await server.command<Answer>({ listen: { systemd: true } });
        assert.equal(listening, undefined);
        assert.match(error!.code, new RegExp(`^${code}$`));
        assert.match(error!.message, message);
        assert.equal(listensOnTcp(server.child.process.pid!), false);
        await server.kill();
      }
    },
  );

  for (const where of sample(["a path", "an abstract name"])) {
    testWith(
      [...here, needs.peerPidfd],
      `${api} notifies the service manager of its start and stop, at ${where}`,
      async () => {
        const path = freshPath();
        const notifyPath = where === "a path" ? freshPath() : `\0${freshPath()}`;
        using receiver = receive(notifyPath);
        const prefix = ["env", `NOTIFY_SOCKET=${notifyPath.replace("\0", "@")}`];
        const server = await ServerProcess.start(kind, prefix);
        const told = async () => {
          const datagram = (await receiver.next())!;
          return [new TextDecoder().decode(datagram.data), datagram.sender.pid];
        };
        const { pid } = server.child.process;

        assert.deepEqual(await server.command<Answer>({ listen: { path, notify: true } }), {
          listening: path,
        });
        assert.deepEqual(await told(), ["READY=1", pid]);
        assert.ok(existsSync(path), "it listens by then");
        await server.command({ close: {} });
        assert.deepEqual(await told(), ["STOPPING=1", pid]);

        // Without the option, no notification is sent.
        await server.command({ listen: { path } });
        await server.command({ close: {} });
        await server.command({ listen: { path, notify: true } });
        assert.deepEqual(await told(), ["READY=1", pid]);
        await server.kill();
      },
    );
  }

  testWith(here, `${api} listens and warns when it cannot notify the service manager`, async () => {
    for (const notifySocket of ["/nowhere/notify", "relative", "vsock:2:1"]) {
      const path = freshPath();
      const server = await ServerProcess.start(kind, ["env", `NOTIFY_SOCKET=${notifySocket}`]);
      const errors: string[] = [];
      server.child.process.stderr!.on("data", (text: string) => errors.push(text));
      assert.deepEqual(await server.command<Answer>({ listen: { path, notify: true } }), {
        listening: path,
      });
      assert.equal(await visit(path), `${process.getuid!()}\n`);
      await until(() =>
        /Cannot report to the service manager that a server listens/.test(errors.join())
      );
      await server.kill();
    }
  });

  testWith(
    [...here, needs.peerPidfd],
    `${api} listens at once, and retries the notification while the manager's queue is full`,
    async () => {
      const path = freshPath();
      const notifyPath = freshPath();
      using receiver = receive(notifyPath);
      assert.throws(() => {
        for (;;) notifyAt(openedSystem(), notifyPath, "STATUS=full"); // any user could fill the queue
      }, { errno: 11 });
      const server = await ServerProcess.start(kind, ["env", `NOTIFY_SOCKET=${notifyPath}`]);
      assert.deepEqual(await server.command<Answer>({ listen: { path, notify: true } }), {
        listening: path,
      });
      assert.equal(await visit(path), `${process.getuid!()}\n`);
      const texts = new Set<string>();
      for (const sender of [process.pid, server.child.process.pid]) {
        let datagram: Datagram | undefined;
        do {
          datagram = (await receiver.next())!;
          texts.add(new TextDecoder().decode(datagram.data));
        } while (datagram.sender.pid !== sender);
      }
      assert.deepEqual([...texts], ["STATUS=full", "READY=1"]);
      await server.kill();
    },
  );

  testWith(here, `${api} closes when it cannot notify the service manager`, async () => {
    const path = freshPath();
    const notifyPath = freshPath();
    const receiver = receive(notifyPath);
    const server = await ServerProcess.start(kind, ["env", `NOTIFY_SOCKET=${notifyPath}`]);
    await server.command({ listen: { path, notify: true } });
    receiver.close();
    assert.deepEqual(await server.command({ close: {} }), { closed: true });
    assert.deepEqual(readdirSync(dirname(path)), []);
    await server.kill();
  });

  testWith(
    here,
    `${api} listens without a notification when NOTIFY_SOCKET is not set`,
    async () => {
      const path = freshPath();
      const server = await ServerProcess.start(kind, ["env", "-u", "NOTIFY_SOCKET"]);
      assert.deepEqual(await server.command({ listen: { path, notify: true } }), {
        listening: path,
      });
      await server.command({ close: {} });
      await server.kill();
    },
  );
}

testWith(here, "takeInherited() takes a socket that children do not inherit", async () => {
  const path = freshPath();
  const server = activated({ listen: { systemd: true } }, "-l", path);
  const first = visitSoon(path);
  await server.child.json();
  await first;
  const flags = readFileSync(`/proc/${server.child.process.pid}/fdinfo/3`, "utf8");
  const value = parseInt(/^flags:\s*([0-7]+)$/m.exec(flags)![1]!, 8);
  assert.equal(value & 0o2000000, 0o2000000); // O_CLOEXEC
  await server.kill();
});

testWith(
  here,
  "takeInherited() lets processes with the same socket share its connections",
  async () => {
    const path = freshPath();
    const script = fileURLToPath(new URL("../servers/server.ts", import.meta.url));
    const orders = JSON.stringify({ policy: "anyone", pid: true, listen: { systemd: true } });
    // As docs/troubleshooting.md shows: each process must find its own pid in LISTEN_PID.
    const start = 'LISTEN_PID=$$ exec "$@"';
    const one = `sh -c '${start}' - "$@" <&9 &`; // they end with their input
    const both = `exec 9<&0; ${one} ${one} wait`;
    const child = new Child("systemd-socket-activate", [
      ...["-l", path, "-E", "HOME", "-E", "PATH", "sh", "-c", both, "-"],
      ...[...runtimeCommand(), script, orders],
    ]);
    const first = visitSoon(path);
    await child.json();
    await child.json(); // both listen
    const pids = new Set([await first]);
    await until(async () => {
      for (const pid of await Promise.all(Array.from({ length: 16 }, () => visit(path)))) {
        pids.add(pid);
      }
      return pids.size === 2;
    });
    await child.end();
  },
);

testWith(
  here,
  "takeInherited() throws in the other threads when one has taken the socket",
  async () => {
    const path = freshPath();
    const script = fileURLToPath(new URL("activated_threads.ts", import.meta.url));
    const args = ["-l", path, "-E", "HOME", "-E", "PATH", ...runtimeCommand(), script];
    const child = new Child("systemd-socket-activate", args);
    const first = visitSoon(path);
    assert.deepEqual(await child.json(), { main: "listening" });
    assert.equal(await first, "main\n");
    const { code, message } = await child.json<{ code: string; message: string }>();
    assert.equal(code, "ERR_UCRED_NO_FD");
    assert.match(message, /: another thread of this process has taken fd 3$/);
    assert.deepEqual(await child.json(), { worker: "ended" });
    assert.equal(await visit(path), "main\n");
    assert.equal(await visit(path), "main\n");
    await child.end();
  },
);

testWith(
  [needs.linux],
  "takeInherited() throws when the variables are malformed",
  () => {
    const own = String(process.pid);
    for (
      const [variables, message] of [
        [{}, /LISTEN_FDS and LISTEN_PID are not set$/],
        [{ LISTEN_PID: own }, /LISTEN_FDS and LISTEN_PID are not set$/],
        [{ LISTEN_FDS: "1" }, /LISTEN_FDS and LISTEN_PID are not set$/],
        [{ LISTEN_FDS: "1", LISTEN_PID: "1" }, /LISTEN_PID is "1", and our pid is [0-9]+$/],
        [{ LISTEN_FDS: "1", LISTEN_PID: "x" }, /LISTEN_PID is "x", and our pid is/],
        [{ LISTEN_FDS: "1", LISTEN_PID: "" }, /LISTEN_PID is "", and our pid is/],
        [{ LISTEN_FDS: "1", LISTEN_PID: `${own}e0` }, /LISTEN_PID is "[0-9]+e0", and our pid is/],
        [
          { LISTEN_FDS: "1", LISTEN_PID: `${own}.0` },
          /LISTEN_PID is "[0-9]+\.0", and our pid is/,
        ],
        [{ LISTEN_FDS: "1", LISTEN_PID: ` ${own}` }, /LISTEN_PID is " [0-9]+", and our pid is/],
        [{ LISTEN_FDS: "1", LISTEN_PID: `0${own}` }, /LISTEN_PID is "0[0-9]+", and our pid is/],
        [
          { LISTEN_FDS: "1", LISTEN_PID: `0x${process.pid.toString(16)}` },
          /LISTEN_PID is "0x[0-9a-f]+", and our pid is/,
        ],
        [{ LISTEN_FDS: "1e0", LISTEN_PID: own }, /LISTEN_FDS is "1e0"$/],
        [{ LISTEN_FDS: "1", LISTEN_PID: `-${own}` }, /LISTEN_PID is "-[0-9]+", and our pid is/],
        [{ LISTEN_FDS: "0", LISTEN_PID: own }, /no socket is left; available: none$/],
        [{ LISTEN_FDS: "", LISTEN_PID: own }, /LISTEN_FDS is ""$/],
        [{ LISTEN_FDS: " 1", LISTEN_PID: own }, /LISTEN_FDS is " 1"$/],
        [{ LISTEN_FDS: "-1", LISTEN_PID: own }, /LISTEN_FDS is "-1"$/],
        [{ LISTEN_FDS: "1.5", LISTEN_PID: own }, /LISTEN_FDS is "1.5"$/],
        [{ LISTEN_FDS: "0x1", LISTEN_PID: own }, /LISTEN_FDS is "0x1"$/],
        [{ LISTEN_FDS: "one", LISTEN_PID: own }, /LISTEN_FDS is "one"$/],
        [{ LISTEN_FDS: "4294967297", LISTEN_PID: own }, /LISTEN_FDS is "4294967297"$/],
        [
          { LISTEN_FDS: "2", LISTEN_PID: own },
          /2 sockets are left; available: "unknown", "unknown"$/,
        ],
        [{ LISTEN_FDS: "2", LISTEN_PID: own, LISTEN_FDNAMES: "a" }, /available: "a", "unknown"$/],
        [{ LISTEN_FDS: "2", LISTEN_PID: own, LISTEN_FDNAMES: "a:b:c" }, /available: "a", "b"$/],
      ] satisfies [ListenVariables, RegExp][]
    ) {
      assert.throws(() => takeInherited(undefined, openedSystem(), variables), {
        code: "ERR_UCRED_NO_FD",
        message,
      });
    }
  },
);
