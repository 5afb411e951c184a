/** Sockets on file systems, and in folders, that change the mode, owner or ACL of new files. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, lstatSync, mkdirSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { UcredError } from "../../mod.ts";
import { receive } from "../../servers/datagram.ts";
import { createServer, type PathListenOptions } from "../../servers/net.ts";
import { freshPath } from "../support/peers.ts";
import { endAfterEach, needs, succeeds, testWith } from "../support/suite.ts";
import { listenErrorOf, listening, visitAs } from "../support/servers.ts";

const setfacl = { name: "setfacl (Debian: acl)", met: succeeds("setfacl", "--version") };
const bindfs = {
  name: "bindfs (Debian: bindfs) and leave to mount FUSE file systems",
  met: canMount(),
};
const asRoot = [needs.linux, needs.cc, needs.root];

const greeter = () =>
  createServer({ policy: "anyone" }, (socket) => void socket.resume().end("welcome"));

/** Runs something while a server listens. */
async function at(where: PathListenOptions, run: () => unknown): Promise<void> {
  const server = greeter();
  await listening(server, where);
  try {
    await run();
  } finally {
    await server.close({ timeout: 0 });
  }
}

const aclOf = (path: string) => execFileSync("getfacl", ["-cp", path], { encoding: "utf8" }).trim();

// --- Access control lists

for (
  const [entries, mode, acl] of [
    ["u:1000:rwx", 0o660, "user::rw-\ngroup::rw-\nother::---"],
    ["u:1000:rw,g:1001:rw", 0o660, "user::rw-\ngroup::rw-\nother::---"],
    ["g:1000:rwx,m::rwx", 0o620, "user::rw-\ngroup::-w-\nother::---"],
    ["u::rwx,g::rwx,o::rwx", 0o600, "user::rw-\ngroup::---\nother::---"],
  ] as const
) {
  testWith(
    [...asRoot, setfacl],
    `listen() exposes the socket only by its mode when the folder's default ACL is ${entries}`,
    async () => {
      const path = freshPath();
      execFileSync("setfacl", ["-d", "-m", entries, dirname(path)]);
      await at({ path, mode }, async () => {
        assert.equal(aclOf(path), acl);
        for (const uid of [1000, 1001]) assert.equal(await visitAs(uid, path), "EACCES");
      });
      await at({ path, mode: 0o660, group: 1001 }, async () => {
        assert.equal(await visitAs(1000, path), "EACCES");
        assert.equal(await visitAs(1001, path), "welcome");
      });
      assert.deepEqual(readdirSync(dirname(path)), []);
      using receiver = receive(path, { mode });
      assert.equal(aclOf(receiver.path), acl);
    },
  );
}

testWith(
  [...asRoot, setfacl],
  "listen() rejects folders that an ACL makes writable for other users",
  async () => {
    const path = freshPath();
    execFileSync("setfacl", ["-m", "u:1000:rwx", dirname(path)]);
    const error = await listenErrorOf(greeter(), { path });
    assert.ok(error instanceof UcredError);
    assert.equal(error.code, "ERR_UCRED_LISTEN");
    assert.match(error.message, /: its folder .* may be written by others: /);
    assert.deepEqual(readdirSync(dirname(path)), []);
  },
);

// --- File systems

const mounts: string[] = [];
endAfterEach(() => {
  for (const folder of mounts.splice(0)) execFileSync("umount", ["--lazy", folder]);
});

/** Mounts a FUSE file system that changes modes or owners, and returns its folder. */
function fuseFolder(...options: string[]): string {
  const [from, to] = [dirname(freshPath()), dirname(freshPath())];
  execFileSync("bindfs", ["-o", "allow_other", ...options, from, to]);
  mounts.push(to);
  return to;
}

function canMount(): boolean {
  if (process.getuid?.() !== 0 || !succeeds("bindfs", "--version")) return false;
  const folder = join(dirname(freshPath()), "mount");
  mkdirSync(folder);
  return succeeds("bindfs", folder, folder) && succeeds("umount", folder);
}

for (
  const [name, options, where, message] of [
    ["ignores chmod", ["--chmod-ignore"], { mode: 0o660 }, /gives the socket mode 0[0-7]{3} and /],
    ["widens modes", ["--perms=0777"], {}, /creates a folder that has mode 0777 and not 0700$/],
    ["widens files", ["--perms=0666:d-wx:du+rwx"], {}, /(mode 0666 and not 0600|has mode )/],
    [
      "ignores chown",
      ["--chown-ignore"],
      { owner: 1000 },
      /gives the socket owner 0 and not 1000$/,
    ],
    [
      "ignores chgrp",
      ["--chgrp-ignore"],
      { group: 1000 },
      /gives the socket group 0 and not 1000$/,
    ],
  ] as const
) {
  testWith([...asRoot, bindfs], `listen() rejects a file system that ${name}`, async () => {
    const folder = fuseFolder(...options);
    const path = join(folder, "s");
    const before = process.umask(0);
    try {
      const error = await listenErrorOf(greeter(), { path, allowUnsafeFolder: true, ...where });
      assert.ok(error instanceof UcredError, String(error));
      assert.equal(error.code, "ERR_UCRED_LISTEN");
      assert.match(error.message, message);
      assert.match(error.hint, /^Use a folder on a file system that keeps modes and owners/);
      assert.deepEqual(readdirSync(folder), []);
    } finally {
      process.umask(before);
    }
  });
}

testWith(
  [...asRoot, bindfs],
  "listen() succeeds on a FUSE file system that keeps modes",
  async () => {
    const folder = fuseFolder();
    chmodSync(folder, 0o755);
    const path = join(folder, "s");
    await at({ path, mode: 0o660, group: 1001 }, async () => {
      assert.equal(lstatSync(path).mode & 0o7777, 0o660);
      assert.equal(await visitAs(1001, path), "welcome");
      assert.equal(await visitAs(1000, path), "EACCES");
    });
    assert.deepEqual(readdirSync(folder), []);
  },
);
