/** File locks, and hang-ups of peers. */

import assert from "node:assert/strict";
import { closeSync, mkdirSync, openSync, readdirSync, readlinkSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { isHungUp } from "../../identity/hangup.ts";
import { tryLock } from "../../system/file_lock.ts";
import { PrivateFolder, Purpose } from "../../system/private_folder.ts";
import { Child, freshPath } from "../support/peers.ts";
import { needs, testWith, until } from "../support/suite.ts";
import { ServerProcess } from "../support/servers.ts";

testWith([needs.linux], "tryLock() grants a lock to one descriptor, until it is closed", () => {
  const file = freshPath("lock");
  const [one, two] = [openSync(file, "w"), openSync(file, "w")];
  assert.equal(tryLock(one), true);
  assert.equal(tryLock(one), true); // it has the lock
  assert.equal(tryLock(two), false);
  closeSync(one);
  assert.equal(tryLock(two), true);
  closeSync(two);
  assert.throws(() => tryLock(two), { code: "ERR_UCRED_SYSCALL", errno: 9 });
});

testWith(
  [needs.linux, needs.cc],
  "tryLock() succeeds when the process that had the lock was killed",
  async () => {
    const path = freshPath();
    const server = await ServerProcess.start();
    // A starting server has the lock; its folder then stays unchanged.
    const script = 'mkdir -m 700 "$0" && exec 9>"$0/lock" && flock 9 && echo locked && sleep 60';

    const folder = path.replace(/s$/, ".s.ucred");
    const holder = new Child("bash", ["-c", script, folder]);
    assert.equal(await holder.line(), "locked");
    const first = await server.command<{ error?: { message: string } }>({ listen: { path } });
    assert.match(first.error!.message, /another server is starting there$/);
    const ended = new Promise((resolve) => holder.process.once("exit", resolve));
    process.kill(holder.process.pid!, "SIGKILL");
    await ended;
    let second: { listening?: string };
    do second = await server.command({ listen: { path } }); while (second.listening === undefined);
    assert.equal(second.listening, path);
    await server.kill();
  },
);

testWith(
  [needs.linux],
  "PrivateFolder.open() closes its descriptors when another server has the lock",
  () => {
    const path = freshPath().padEnd(105, "s"); // long, so that folders are opened
    const folder = join(dirname(path), `.${basename(path)}.ucred`);
    mkdirSync(folder, { mode: 0o700 });
    const lock = openSync(join(folder, "lock"), "w");
    assert.equal(tryLock(lock), true);
    const open = () => PrivateFolder.open(path, true, new Purpose("listen", path));
    for (let times = 0; times < 20; times++) {
      assert.throws(open, /another server is starting there$/);
    }
    const targets = readdirSync("/proc/self/fd").map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return ""; // the descriptor of readdirSync()
      }
    });
    const left = targets.filter((target) => target.startsWith(dirname(path)));
    assert.deepEqual(left, [join(folder, "lock")]);
    closeSync(lock);
    open().end();
    assert.deepEqual(readdirSync(dirname(path)), []);
  },
);

testWith(
  [needs.linux],
  "isHungUp() returns true only when the peer has closed both directions",
  async () => {
    const path = freshPath();
    let accepted: Socket | undefined;
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      accepted = socket.on("error", () => {});
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const client = connect({ path, allowHalfOpen: true }).on("error", () => {});
    await until(() => accepted !== undefined);
    assert.equal(isHungUp(accepted!), false);
    client.write("hello");
    assert.equal(isHungUp(accepted!), false);
    await new Promise<void>((resolve) => client.end(resolve)); // half-closed: the client still reads
    assert.equal(isHungUp(accepted!), false);
    client.destroy();
    await until(() => isHungUp(accepted!));
    accepted!.destroy();
    assert.equal(isHungUp(accepted!), true);
    server.close();
  },
);
