/**
 * Socket paths: the socket is never exposed with a wider mode than requested, and files of others are never
 * replaced.
 */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { Buffer } from "node:buffer";
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer as createPlainServer } from "node:net";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { UcredError } from "../../mod.ts";
import { createServer, type NetServer, type PathListenOptions } from "../../servers/net.ts";
import { Child, freshPath } from "../support/peers.ts";
import { compileProgram } from "../support/compile.ts";
import { needs, runtime, runtimeCommand, sample, soak, testWith } from "../support/suite.ts";
import {
  listenErrorOf,
  listening,
  ServerProcess,
  visit,
  visitAs,
  Visitor,
} from "../support/servers.ts";

const linux = [needs.linux];
const here = [needs.linux, needs.cc];
const asRoot = [...here, needs.root];

const knockProgram = asRoot.every(({ met }) => met)
  ? compileProgram(new URL("knock.c", import.meta.url))
  : "";

const greeter = (): NetServer =>
  createServer({ policy: "anyone" }, (socket) => void socket.resume().end("welcome"));

/** Runs a callback while a server listens. */
async function at<T>(where: PathListenOptions, run: (server: NetServer) => T): Promise<Awaited<T>> {
  const server = greeter();
  await listening(server, where);
  try {
    return await run(server);
  } finally {
    await server.close({ timeout: 0 });
  }
}

/** Returns the error of `listen()`, which must contain the path. */
async function refusal(where: PathListenOptions): Promise<UcredError> {
  const error = await listenErrorOf(greeter(), where);
  assert.ok(error instanceof UcredError, String(error));
  assert.equal(error.code, "ERR_UCRED_LISTEN");
  assert.ok(error.message.includes(JSON.stringify(where.path)), error.message);
  assert.match(error.hint, /^[A-Z].*[^.]$/);
  return error;
}

/** Creates a stale socket. */
async function leaveStale(path: string): Promise<void> {
  const elsewhere = freshPath();
  const server = greeter();
  await listening(server, elsewhere);
  const visitor = await Visitor.at(elsewhere, ["--bind", path]);
  await visitor.text();
  await server.close({ timeout: 0 });
  assert.ok(lstatSync(path).isSocket());
}

const access = (path: string): string => {
  const { mode, uid, gid } = lstatSync(path);
  return `${(mode & 0o7777).toString(8)} ${uid} ${gid}`;
};

// ── mode, owner, group ──

testWith(
  asRoot,
  "listen() never exposes the socket with a wider mode than requested, with umask 0",
  async () => {
    const server = await ServerProcess.start({ umask: 0, policy: "anyone" });
    for (
      const [where, seen] of [
        [{}, "600 0 0"],
        [{ mode: 0o660, group: 1001 }, "660 0 1001"],
        [{ mode: 0o640, owner: 1001, group: 1000 }, "640 1001 1000"],
        [{ mode: 0o640, owner: "1001", group: "1000" }, "640 1001 1000"],
      ] as const
    ) {
      const path = freshPath();
      const knocker = new Child(knockProgram, ["1000", path]);
      await knocker.json();
      for (let times = 0; times < 40; times++) {
        assert.ok("listening" in await server.command<object>({ listen: { path, ...where } }));
        await server.command({ close: { timeout: 0 } });
      }
      knocker.process.stdin!.end();
      const found = await knocker.json<{ in: number; refused: number; seen: string[] }>();
      assert.deepEqual([found.in, found.seen], [0, [seen]]);
      assert.ok(found.refused > 0);
    }
    await server.kill();
  },
);

testWith(
  asRoot,
  "a client can connect before chmod() when a plain server binds its path itself",
  async () => {
    const path = freshPath();
    const before = process.umask(0);
    // Repeats until a client has connected too early.
    for (let isCaught = false; !isCaught;) {
      const knocker = new Child(knockProgram, ["1000", path]);
      await knocker.json();
      for (let times = 0; times < 30; times++) {
        const server = createPlainServer((socket) => void socket.on("error", () => {}).destroy());
        await new Promise<void>((resolve) => server.listen(path, resolve));
        await sleep(1); // makes it more likely
        chmodSync(path, 0o600);
        await new Promise((resolve) => server.close(resolve));
      }
      knocker.process.stdin!.end();
      const found = await knocker.json<{ in: number; seen: string[] }>();
      isCaught = found.in > 0 || found.seen.length > 1;
    }
    process.umask(before);
  },
);

testWith(
  asRoot,
  "listen() applies mode, owner and group, by number or name",
  async () => {
    const path = freshPath();
    await at({ path }, async () => {
      assert.equal(access(path), "600 0 0");
      assert.equal(await visitAs(1000, path), "EACCES");
    });
    await at({ path, mode: 0o660, group: 1000 }, async () => {
      assert.equal(await visitAs(1000, path), "welcome");
      assert.equal(await visitAs(1001, path), "EACCES");
    });
    await at({ path, owner: 1001 }, async () => {
      assert.equal(await visitAs(1001, path), "welcome");
      assert.equal(await visitAs(1000, path), "EACCES");
    });
    await at({ path, mode: 0o666 }, async () => {
      assert.equal(await visitAs(65534, path), "welcome");
    });
    await at({ path, owner: "nobody", group: "daemon", mode: 0o620 }, () => {
      const id = (...args: string[]) => execFileSync("id", args, { encoding: "utf8" }).trim();
      assert.equal(access(path), `620 ${id("-u", "nobody")} ${id("-g", "daemon")}`);
    });
  },
);

testWith(
  linux,
  "listen() fails when the user or group is unknown, and leaves nothing behind",
  async () => {
    const path = freshPath();
    for (const where of [{ owner: "no-such-user" }, { group: "no-such-group" }]) {
      assert.match(
        (await refusal({ path, ...where })).message,
        /there is no (user|group) "no-such-/,
      );
    }
    for (const mode of [-1, 0o1000, 1.5, "600" as unknown as number]) {
      assert.ok(await listenErrorOf(greeter(), { path, mode }) instanceof RangeError);
    }
    assert.deepEqual(readdirSync(dirname(path)), []);
  },
);

testWith(asRoot, "listen() leaves nothing behind when chown() is not permitted", async () => {
  const path = freshPath();
  chownSync(dirname(path), 4321, 4321);
  const server = await ServerProcess.start({ uid: 4321, gid: 4321 });
  const { error } = await server.command<{ error: UcredError }>({ listen: { path, owner: 0 } });
  assert.equal(error.code, "ERR_UCRED_LISTEN");
  assert.match(error.message, /EPERM|not permitted/);
  assert.deepEqual(readdirSync(dirname(path)), []);
  assert.ok("listening" in await server.command<object>({ listen: { path } }));
  assert.equal(access(path), "600 4321 4321");
  await server.kill();
});

// ── existing files ──

testWith(here, "listen() replaces a stale socket", async () => {
  const path = freshPath();
  await leaveStale(path);
  const { ino } = lstatSync(path);
  await at({ path }, async () => {
    assert.notEqual(lstatSync(path).ino, ino);
    assert.equal(await visit(path), "welcome");
  });
  assert.deepEqual(readdirSync(dirname(path)), []);
});

testWith(
  here,
  "listen() fails when another server answers at the path, and does not disturb it",
  async () => {
    const path = freshPath();
    await at({ path }, async () => {
      const { ino } = lstatSync(path);
      const error = await refusal({ path });
      assert.match(error.message, /: a server answers there$/);
      assert.deepEqual([error.errno, error.syscall], [98, "bind"]);
      assert.equal(lstatSync(path).ino, ino);
      assert.equal(await visit(path), "welcome");
      assert.deepEqual(readdirSync(dirname(path)), ["s"]);
    });
  },
);

testWith(linux, "listen() fails when a plain server answers at the path", async () => {
  const path = freshPath();
  const plain = createPlainServer((socket) => void socket.end());
  await new Promise<void>((resolve) => plain.listen(path, resolve));
  assert.match((await refusal({ path })).message, /: a server answers there$/);
  await new Promise((resolve) => plain.close(resolve));
});

testWith(here, "listen() does not replace a file that is not a socket", async () => {
  const target = freshPath("target");
  writeFileSync(target, "precious");
  const stale = freshPath("stale");
  await leaveStale(stale);
  const plants: { readonly [name: string]: (path: string) => void } = {
    "a file": (path) => writeFileSync(path, "precious"),
    "an empty file": (path) => writeFileSync(path, ""),
    "a folder": (path) => mkdirSync(path),
    "a pipe": (path) => void execFileSync("mkfifo", [path]),
    "a link to a file": (path) => symlinkSync(target, path),
    "a link to a stale socket": (path) => symlinkSync(stale, path),
    "a link to nothing": (path) => symlinkSync("nowhere", path),
  };
  for (const [name, plant] of Object.entries(plants)) {
    const path = freshPath();
    plant(path);
    const before = lstatSync(path);
    assert.match((await refusal({ path })).message, /: the existing file is not a socket$/, name);
    const after = lstatSync(path);
    assert.deepEqual([after.ino, after.mode, after.size], [before.ino, before.mode, before.size]);
    assert.deepEqual(readdirSync(dirname(path)), ["s"], name);
  }
  assert.equal(readFileSync(target, "utf8"), "precious");
  assert.ok(lstatSync(stale).isSocket());
});

// ── folders ──

testWith(
  asRoot,
  "listen() rejects folders in which other users could replace the socket",
  async () => {
    const path = freshPath();
    const folder = dirname(path);
    const cases: [mode: number, owner: number, isSafe: boolean][] = [
      [0o755, 0, true],
      [0o700, 0, true],
      [0o1777, 0, true], // like /tmp: users may remove only their own files
      [0o775, 0, false],
      [0o757, 0, false],
      [0o777, 0, false],
      [0o755, 1000, false],
      [0o1777, 1000, false],
    ];
    for (const [mode, owner, isSafe] of cases) {
      chmodSync(folder, mode);
      chownSync(folder, owner, 0);
      const name = `${mode.toString(8)} of uid ${owner}`;
      if (isSafe) await at({ path }, () => assert.ok(lstatSync(path).isSocket(), name));
      else {
        const { message } = await refusal({ path });
        assert.match(
          message,
          /: its folder .* (belongs to uid 1000|may be written by others): /,
          name,
        );
        await at(
          { path, allowUnsafeFolder: true },
          () => assert.ok(lstatSync(path).isSocket(), name),
        );
      }
      assert.deepEqual(readdirSync(folder), []);
    }
  },
);

testWith(asRoot, "listen() rejects folders that other users could rename", async () => {
  const open = dirname(freshPath());
  const safe = join(open, "safe");
  mkdirSync(safe, { mode: 0o755 });
  chmodSync(open, 0o777);
  const path = join(safe, "s");
  assert.match((await refusal({ path })).message, /: its folder .* may be written by others: /);
  chmodSync(open, 0o1777);
  await at({ path }, () => assert.ok(lstatSync(path).isSocket()));
  chownSync(safe, 1000, 1000);
  assert.match((await refusal({ path })).message, /: its folder .* belongs to uid 1000: /);
});

testWith(
  asRoot,
  "listen() rejects symbolic links that other users could change",
  async () => {
    const open = dirname(freshPath());
    chmodSync(open, 0o1777);
    const target = dirname(freshPath());
    const link = join(open, "link");
    const path = join(link, "s");
    execFileSync("ln", ["-s", target, link], { uid: 1000, gid: 1000 });
    assert.match((await refusal({ path })).message, /: its folder .*link belongs to uid 1000: /);
    unlinkSync(link);
    symlinkSync(target, link);
    await at({ path }, async () => {
      assert.ok(lstatSync(join(target, "s")).isSocket());
      assert.equal(await visit(path), "welcome");
    });
    chmodSync(target, 0o777);
    assert.match((await refusal({ path })).message, /: its folder .* may be written by others: /);
  },
);

testWith(
  linux,
  "listen() fails when the folder is missing or is a file",
  async () => {
    const file = freshPath();
    writeFileSync(file, "");
    const missing = await refusal({ path: join(dirname(file), "none", "s") });
    assert.match(missing.message, /ENOENT/);
    assert.equal(missing.errno, 2);
    const wrong = await refusal({ path: join(file, "s") });
    assert.match(wrong.message, /ENOTDIR/);
    assert.equal(wrong.errno, 20);
  },
);

testWith(asRoot, "listen() fails when the folder is not writable", async () => {
  const path = freshPath();
  const server = await ServerProcess.start({ uid: 4321, gid: 4321 });
  const { error } = await server.command<{ error: UcredError }>({ listen: { path } });
  assert.deepEqual([error.code, error.errno], ["ERR_UCRED_LISTEN", 13]);
  await server.kill();
});

testWith(
  asRoot,
  "listen() rejects a private folder of another user, and leaves it alone",
  async () => {
    const path = freshPath();
    const folder = dirname(path);
    const planted = join(folder, ".s.ucred");
    chmodSync(folder, 0o1777);
    const target = dirname(freshPath());
    const plants: { readonly [name: string]: () => void } = {
      "another's folder": () =>
        execFileSync("mkdir", ["-m", "700", planted], { uid: 1000, gid: 1000 }),
      "another's open folder": () => execFileSync("mkdir", ["-m", "777", planted], { uid: 1000 }),
      "another's link": () => execFileSync("ln", ["-s", target, planted], { uid: 1000, gid: 1000 }),
      "another's link to a folder of ours": () => {
        mkdirSync(join(target, "ours"), { mode: 0o700 });
        execFileSync("ln", ["-s", join(target, "ours"), planted], { uid: 1000, gid: 1000 });
      },
      "another's file": () => execFileSync("touch", [planted], { uid: 1000, gid: 1000 }),
      "a folder of ours that is open": () => {
        mkdirSync(planted);
        chmodSync(planted, 0o755);
      },
    };
    for (const [name, plant] of Object.entries(plants)) {
      plant();
      const before = access(planted);
      const { message, hint } = await refusal({ path });
      const why = "(belongs to uid 1000|is not a folder|has mode 0755 and not 0700)";
      assert.match(message, new RegExp(`"\\.s\\.ucred" is in its folder, and ${why}$`), name);
      assert.match(hint, name.startsWith("another's") ? /^Use a folder / : /^Move it away/, name);
      assert.deepEqual([readdirSync(folder), access(planted)], [[".s.ucred"], before], name);
      rmSync(planted, { recursive: true });
    }
    assert.deepEqual(readdirSync(target), ["ours"]);
    assert.deepEqual(readdirSync(join(target, "ours")), []);
  },
);

testWith(
  here,
  "listen() rejects a private folder with other contents, and leaves it alone",
  async () => {
    const target = freshPath("target");
    const plants: { readonly [name: string]: (planted: string) => void } = {
      id_ed25519: (planted) => writeFileSync(join(planted, "id_ed25519"), "precious"),
      lock: (planted) => writeFileSync(join(planted, "lock"), "precious"),
      s: (planted) => writeFileSync(join(planted, "s"), "precious"),
      0: (planted) => mkdirSync(join(planted, "0")),
      9: (planted) => symlinkSync(target, join(planted, "9")),
      ".hidden": (planted) => writeFileSync(join(planted, ".hidden"), ""),
    };
    const links = { lock: (planted: string) => symlinkSync(target, join(planted, "lock")) };
    for (const [name, plant] of [...Object.entries(plants), ...Object.entries(links)]) {
      const path = freshPath();
      const planted = join(dirname(path), ".s.ucred");
      mkdirSync(planted, { mode: 0o700 });
      plant(planted);
      const before = lstatSync(join(planted, name));
      const { message, hint } = await refusal({ path });
      assert.ok(
        message.endsWith(`and contains ${JSON.stringify(name)}, which no server creates`),
        message,
      );
      assert.equal(hint, "Move it away, or use another path");
      assert.deepEqual(readdirSync(planted), [name]);
      const after = lstatSync(join(planted, name));
      assert.deepEqual([after.ino, after.size], [before.ino, before.size]);
    }
    assert.throws(() => lstatSync(target), { code: "ENOENT" });
  },
);

testWith(
  here,
  "listen() does not use an existing folder with a dot before the socket's name",
  async () => {
    const path = freshPath("ssh");
    const planted = join(dirname(path), ".ssh");
    mkdirSync(planted, { mode: 0o700 });
    for (const name of ["lock", "s", "id_ed25519"]) writeFileSync(join(planted, name), "precious");
    await leaveStale(join(planted, "0"));
    await at({ path }, async () => assert.equal(await visit(path), "welcome"));
    assert.deepEqual(readdirSync(planted).toSorted(), ["0", "id_ed25519", "lock", "s"]);
    assert.equal(readFileSync(join(planted, "s"), "utf8"), "precious");
  },
);

/** Returns the addresses of the sockets that were bound in the private folder of a path. */
const boundNames = (path: string): string[] =>
  readFileSync("/proc/net/unix", "utf8").split("\n").flatMap((line) => {
    const name = line.split(" ").at(-1)!;
    return name.startsWith(join(dirname(path), ".s.ucred/")) ? [basename(name)] : [];
  });

testWith(
  [...here, needs.hiddenDescriptors],
  "listen() does not bind a path to which a socket of the process is still bound",
  async () => {
    const path = freshPath();
    const former = createServer({ policy: "anyone" }, (socket) => void socket.write("welcome"));
    await listening(former, path);
    assert.deepEqual(boundNames(path), ["s"]);
    unlinkSync(path); // or a program that considers it stale
    await at({ path }, async () => {
      assert.deepEqual(boundNames(path).toSorted(), ["0", "s"]);
      unlinkSync(path);
      await at({ path }, async () => {
        assert.deepEqual(boundNames(path).toSorted(), ["0", "1", "s"]);
        assert.equal(await visit(path), "welcome");
      });
    });
    await former.close({});
    await at({ path }, () => assert.deepEqual(boundNames(path), ["s"]));
    assert.deepEqual(readdirSync(dirname(path)), []);
  },
);

testWith(
  [...here, needs.hiddenDescriptors],
  "listen() fails when too many sockets of the process are bound at a path",
  async () => {
    const path = freshPath();
    const servers: NetServer[] = [];
    for (let count = 0; count < 11; count++) {
      servers.push(greeter());
      await listening(servers.at(-1)!, path);
      unlinkSync(path);
    }
    const { message } = await refusal({ path });
    assert.match(message, /: 11 sockets of this process are still bound there$/);
    assert.deepEqual(readdirSync(dirname(path)), []);
    for (const server of servers) await server.close({});
    await at({ path }, async () => assert.equal(await visit(path), "welcome"));
  },
);

testWith(
  here,
  "listen() removes the leftovers of killed servers from its private folder",
  async () => {
    const path = freshPath();
    const folder = join(dirname(path), ".s.ucred");
    mkdirSync(folder, { mode: 0o700 });
    for (const name of ["s", "0", "9"]) await leaveStale(join(folder, name));
    writeFileSync(join(folder, "lock"), "");
    await at({ path }, async () => assert.equal(await visit(path), "welcome"));
    assert.deepEqual(readdirSync(dirname(path)), []);
  },
);

// ── closing ──

testWith(here, "close() removes the socket's file only if it is the server's own", async () => {
  const path = freshPath();
  await at({ path }, () => {});
  assert.deepEqual(readdirSync(dirname(path)), []);

  await at({ path }, () => unlinkSync(path)); // another process has removed the file
  assert.deepEqual(readdirSync(dirname(path)), []);

  await at({ path }, () => {
    unlinkSync(path);
    writeFileSync(path, "precious");
  });
  assert.equal(readFileSync(path, "utf8"), "precious");
  unlinkSync(path);

  const other = greeter();
  await at({ path }, async () => {
    unlinkSync(path);
    await listening(other, path);
  });
  assert.equal(await visit(path), "welcome");
  await other.close({});

  const moved = `${path}-moved`;
  await at({ path }, () => renameSync(path, moved));
  assert.deepEqual(readdirSync(dirname(path)), ["s-moved"]);
});

// ── names ──

testWith(here, "listen() accepts abstract names, which have no file", async () => {
  const path = `\0${freshPath()}`;
  await at({ path }, async (server) => {
    assert.equal(server.address() as unknown, path);
    assert.equal(await visit(path), "welcome");
    assert.equal((await refusal({ path })).errno, 98);
    assert.equal(await visit(path), "welcome");
  });
  assert.equal(await visit(path), "ECONNREFUSED");
  for (const where of [{ mode: 0o600 }, { owner: 0 }, { group: 0 }]) {
    assert.ok(await listenErrorOf(greeter(), { path, ...where }) instanceof TypeError);
  }
});

testWith(
  here,
  "listen() accepts abstract names of 1 to 107 bytes, and rejects longer ones",
  async () => {
    const unique = `ucred-${process.pid}-`;
    for (let length = 100; length <= 110; length++) {
      const path = `\0${unique.padEnd(length, "x")}`;
      // Bun 1.4.5 has a limit that is one byte lower.
      if (length <= (runtime === "bun" ? 106 : 107)) {
        await at({ path }, async () => assert.equal(await visit(path), "welcome"));
      } else if (length > 107) {
        assert.match((await refusal({ path })).message, /it has more than 108 bytes$/);
      } else await refusal({ path });
    }
  },
);

testWith(here, "listen() accepts paths of up to 107 bytes, and rejects longer ones", async () => {
  const folder = dirname(freshPath());
  for (const letter of ["x", "ü"]) {
    for (let length = 100; length <= 110; length++) {
      const left = length - Buffer.byteLength(`${folder}/`);
      const name = letter.repeat(Math.floor(left / Buffer.byteLength(letter)));
      const path = `${folder}/${name.padEnd(name.length + left - Buffer.byteLength(name), "-")}`;
      assert.equal(Buffer.byteLength(path), length);
      if (length <= 107) {
        await at({ path }, async () => assert.equal(await visit(path), "welcome"));
      } else {
        const { message } = await refusal({ path });
        assert.match(message, new RegExp(`: it has ${length} bytes; the maximum is 107$`));
      }
      assert.deepEqual(readdirSync(folder), []);
    }
  }
});

testWith(
  linux,
  "listen() resolves a relative path once, for the whole life of the server",
  async () => {
    const path = freshPath();
    const before = process.cwd();
    const server = greeter();
    try {
      process.chdir(dirname(path));
      await listening(server, "s");
    } finally {
      process.chdir(before);
    }
    assert.equal(server.address() as unknown, path);
    await server.close({});
    assert.deepEqual(readdirSync(dirname(path)), []);
  },
);

testWith(linux, "listen() fails when the path is not valid", async () => {
  for (const path of ["", "a\0b", "\0a\0b", 5 as unknown as string]) {
    if (path === "") continue;
    const server = greeter();
    let error: unknown;
    try {
      error = await listenErrorOf(server, { path });
    } catch (thrown) {
      error = thrown;
    }
    assert.ok(error instanceof TypeError, JSON.stringify(path));
  }
});

// ── concurrent starts and killed servers ──

testWith(
  [...linux, needs.node],
  "listen() has a hint for node:cluster when another worker listens at the path",
  async () => {
    const path = freshPath();
    const [command, ...args] = runtimeCommand();
    const script = fileURLToPath(new URL("cluster.ts", import.meta.url));
    const child = new Child(command, [...args, script, path]);
    assert.deepEqual(await child.json(), { listening: path });
    const { hint, ...error } = await child.json<UcredError>();
    assert.deepEqual(error, { code: "ERR_UCRED_LISTEN", errno: 98 });
    assert.match(
      hint,
      /^Pass one listening socket to all workers/,
    );
  },
);

for (const instances of sample([6, 2])) {
  testWith(
    here,
    `listen() succeeds for exactly one of ${instances} servers that start at once`,
    async () => {
      const servers = await Promise.all(
        Array.from({ length: instances }, () => ServerProcess.start({ text: null })),
      );
      const path = freshPath();
      for (let round = 0; round < 12; round++) {
        if (round % 2 === 1) await leaveStale(path);
        const answers = await Promise.all(
          servers.map((server) =>
            server.command<{ listening?: string; error?: UcredError }>({ listen: { path } })
          ),
        );
        const winners = servers.filter((_, at) => answers[at]!.listening !== undefined);
        assert.equal(winners.length, 1, JSON.stringify(answers));
        for (const { error } of answers) {
          if (error === undefined) continue;
          assert.deepEqual([error.code, error.errno], ["ERR_UCRED_LISTEN", 98]);
          assert.ok(error.message.startsWith(`Cannot listen at ${JSON.stringify(path)}: `));
          assert.match(error.message, /: (another server is starting|a server answers) there$/);
        }
        const before = (await winners[0]!.command<{ accepted: number }>({ stats: true })).accepted;
        await new Promise<void>((resolve) => {
          const socket = connect(path, () => resolve(void socket.destroy())).on("error", () => {});
        });
        let after = before;
        while (after === before) {
          after = (await winners[0]!.command<{ accepted: number }>({ stats: true })).accepted;
        }
        await winners[0]!.command({ close: { timeout: 0 } });
        assert.deepEqual(readdirSync(dirname(path)), []);
      }
      await Promise.all(servers.map((server) => server.kill()));
    },
  );
}

testWith(
  here,
  "listen() succeeds after the previous server was killed at any moment",
  async () => {
    const path = freshPath();
    const left = new Set<string>();
    // Repeats until a server was also killed between two steps.
    for (let round = 0; round < soak(6, 40) || left.size === 0; round++) {
      const victim = await ServerProcess.start({ policy: "anyone" });
      const orders = `${JSON.stringify({ listen: { path } })}\n`;
      const ends = `${JSON.stringify({ close: { timeout: 0 } })}\n`;
      const done = (async () => {
        try {
          for (;;) {
            victim.child.process.stdin!.write(orders);
            await victim.child.line();
            victim.child.process.stdin!.write(ends);
            await victim.child.line();
          }
        } catch { /* it was killed */ }
      })();
      victim.child.process.stdin!.on("error", () => {});
      await sleep(Math.random() * 60);
      await victim.kill();
      await done;
      for (const name of readdirSync(dirname(path), { recursive: true })) left.add(String(name));
      await at({ path }, async () => assert.equal(await visit(path), "welcome"));
      assert.deepEqual(readdirSync(dirname(path)), [], `round ${round}`);
    }
  },
);
