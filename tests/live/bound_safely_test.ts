/** Receivers and servers that are bound while another user changes their folder. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { UcredError } from "../../mod.ts";
import { receive } from "../../servers/datagram.ts";
import { createServer } from "../../servers/net.ts";
import { compileProgram } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";
import { Child, freshPath } from "../support/peers.ts";

const asRoot = [needs.linux, needs.cc, needs.root];
const program = asRoot.every(({ met }) => met)
  ? compileProgram(new URL("meddle.c", import.meta.url))
  : "";

/** Runs something while another user changes the folder; returns what that user printed. */
async function meanwhile(args: readonly string[], run: () => Promise<void>): Promise<number> {
  const meddler = new Child(program, args);
  await meddler.json();
  await run();
  meddler.process.stdin!.end();
  return await meddler.json<number>();
}

testWith(
  asRoot,
  "receive() never exposes the socket with a wider mode than requested, with umask 0",
  async () => {
    const path = freshPath();
    const before = process.umask(0);
    try {
      const taken = await meanwhile(["send", "1000", path], async () => {
        for (let times = 0; times < 100; times++) {
          using receiver = receive(path, times % 2 === 0 ? { mode: 0o600 } : {});
          assert.equal(lstatSync(path).mode & 0o7777, 0o600);
          assert.equal(receiver.read(), undefined);
          await new Promise((resolve) => setTimeout(resolve));
        }
      });
      assert.equal(taken, 0);
    } finally {
      process.umask(before);
    }
  },
);

testWith(
  asRoot,
  "receive() accepts another user's datagrams when its mode admits that user",
  async () => {
    const path = freshPath();
    const taken = await meanwhile(["send", "1000", path], async () => {
      using receiver = receive(path, { mode: 0o666 });
      assert.equal((await receiver.next())?.sender.uid, 1000);
    });
    assert.ok(taken > 0);
  },
);

/** Functions that bind a socket at a path, and close it. */
const BINDERS: { readonly [name: string]: (path: string) => Promise<void> } = {
  "receive()": (path) => {
    receive(path, { mode: 0o666, allowUnsafeFolder: true }).close();
    return Promise.resolve();
  },
  "listen()": async (path) => {
    const server = createServer({ policy: "anyone" }, (socket) => void socket.destroy());
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ path, mode: 0o666, allowUnsafeFolder: true }, resolve);
    });
    await server.close({ timeout: 0 });
  },
};

for (const [name, bind] of Object.entries(BINDERS)) {
  testWith(
    [...asRoot, needs.native], // an emulated start is too slow to win the race
    `${name} changes no other file, when the owner of its folder puts links in its way`,
    async () => {
      const path = freshPath();
      chownSync(dirname(path), 1000, 1000);
      const target = join(dirname(freshPath()), "target");
      mkdirSync(target, { mode: 0o755 });
      for (const file of ["s", "lock"]) {
        writeFileSync(join(target, file), "precious");
        chmodSync(join(target, file), 0o600);
      }
      const look = () =>
        readdirSync(target).map((name) => {
          const { mode, uid, ino } = lstatSync(join(target, name));
          return [name, mode, uid, ino, readFileSync(join(target, name), "utf8")];
        });
      const before = look();
      let isBound = 0;
      const swaps = await meanwhile(["swap", "1000", dirname(path), target], async () => {
        // On a busy machine the other user can interfere with each of the 400 starts.
        const deadline = performance.now() + 60_000;
        const goesOn = (times: number) =>
          times < 400 || (isBound === 0 && performance.now() < deadline);
        for (let times = 0; goesOn(times); times++) {
          try {
            await bind(path);
            isBound++;
          } catch (error) {
            assert.ok(error instanceof UcredError, String(error));
          }
        }
      });
      assert.deepEqual(look(), before);
      assert.ok(swaps > 0, "the folder was changed");
      assert.ok(isBound > 0, "some starts succeed");
    },
  );
}

testWith(asRoot, "receive() rejects folders in which other users could replace the socket", () => {
  const path = freshPath();
  chmodSync(dirname(path), 0o777);
  assert.throws(() => receive(path), {
    code: "ERR_UCRED_LISTEN",
    message: /: its folder .* may be written by others: other users could replace the socket$/,
  });
  const receiver = receive(path, { allowUnsafeFolder: true });
  assert.deepEqual(readdirSync(dirname(path)), ["s"]);
  receiver.close();
  assert.deepEqual(readdirSync(dirname(path)), []);
});

testWith(
  [needs.linux, needs.logger],
  "receive() replaces the file of a killed receiver",
  () => {
    const path = freshPath();
    const former = receive(path);
    assert.throws(() => receive(path), { code: "ERR_UCRED_LISTEN", errno: 98 });
    renameSync(path, `${path}-moved`);
    former.close(); // its file stays, as after a kill
    renameSync(`${path}-moved`, path);
    using receiver = receive(path);
    execFileSync("logger", ["--socket", path, "--", "hello"]);
    assert.match(new TextDecoder().decode(receiver.read()!.data), /hello/);
  },
);

testWith(
  [needs.linux],
  "receive() resolves a relative path once, for the whole life of the receiver",
  () => {
    const path = freshPath();
    const before = process.cwd();
    let receiver;
    try {
      process.chdir(dirname(path));
      receiver = receive("s");
    } finally {
      process.chdir(before);
    }
    assert.equal(receiver.path, path);
    assert.deepEqual(readdirSync(dirname(path)), ["s"]);
    receiver.close();
    assert.deepEqual(readdirSync(dirname(path)), []);
  },
);

testWith(
  [needs.linux],
  "receive() throws when the mode is out of range, or given for an abstract name",
  () => {
    for (const mode of [-1, 0o1000, 1.5, NaN]) {
      assert.throws(() => receive(freshPath(), { mode }), RangeError);
    }
    assert.throws(() => receive(`\0ucred-${process.pid}`, { mode: 0o600 }), TypeError);
  },
);
