/** Many pinned peers, too few descriptors, and servers with few permissions. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, readdirSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { dirname } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { identify, type Peer } from "../../mod.ts";
import { bytesInUse } from "../support/collector.ts";
import { assertFreed } from "../support/leak.ts";
import { needs, runtimeCommand, sample, soak, testWith, until } from "../support/suite.ts";
import { Child, freshPath, listen, peerProgram, startScript } from "../support/peers.ts";

const here = [needs.linux, needs.peerPidfd];
const CONNECTIONS = soak(512, 4096);
const AT_ONCE = 64;

/** Opens connections to ourselves, pinned or not, and closes them in any order and way. */
async function churn(pin: boolean): Promise<void> {
  const path = freshPath();
  const open: (readonly [Peer, Socket])[] = [];
  let count = 0;
  const server = createServer((socket) => {
    const peer = identify(socket.on("error", () => {}), { pin });
    open.push([peer, socket]);
    assert.deepEqual([peer.pid, peer.pinned], [process.pid, pin ? "connect" : undefined]);
    if (count % 3 === 0) assert.equal(peer.signal?.aborted, pin ? false : undefined);
    if (count % 7 === 0) assert.equal(peer.process.comm !== undefined, pin);
    count++;
  });
  await listen(server, path);
  for (let started = 0; started < CONNECTIONS; started += AT_ONCE) {
    const clients = Array.from({ length: AT_ONCE }, () => connect(path).on("error", () => {}));
    while (count < started + AT_ONCE) await sleep(0);
    while (open.length > AT_ONCE) {
      close(...open.splice(Math.floor(Math.random() * open.length), 1)[0]!);
    }
    for (const client of clients) if (Math.random() < 0.5) client.destroy();
  }
  for (const connection of open) close(...connection);
  await new Promise((resolve) => server.close(resolve));
}

function close(peer: Peer, socket: Socket): void {
  if (Math.random() < 0.5) peer.close();
  socket.destroy(); // which closes the peer, too
}

const descriptors = () => readdirSync("/proc/self/fd").length;

testWith(
  here,
  "identify() leaks neither memory nor descriptors for pinned connections",
  async () => {
    await churn(true); // the runtime opens descriptors of its own
    await sleep(1500);
    const before = descriptors();
    await assertFreed({
      pid: process.pid,
      round: () => churn(true),
      times: CONNECTIONS,
      used: bytesInUse,
      maxHeap: 1000, // Deno keeps 400 bytes of each socket without pins, too
      maxResident: 2000,
    });
    await until(() => descriptors() <= before); // an exit watch ends a second after its peer
  },
);

testWith(here, "identify() works without a free descriptor, and pins again afterwards", () => {
  const script = fileURLToPath(new URL("pins.ts", import.meta.url));
  const limited = [
    "-c",
    'ulimit -n 256; exec "$@"',
    "sh",
    ...runtimeCommand(),
    script,
    freshPath(),
  ];
  const { during, after, flood } = JSON.parse(execFileSync("sh", limited, { encoding: "utf8" }));
  const noDescriptors = "ERR_UCRED_SYSCALL 24";
  assert.deepEqual(during, {
    uid: process.geteuid!(),
    same: true,
    pinned: noDescriptors,
    alive: true,
    live: "ok",
    drift: noDescriptors, // never an empty list
    signal: noDescriptors,
    exe: "known", // a link is read without a descriptor
    comm: "unknown",
  });
  assert.equal(after.pinned, "connect");
  assert.equal(after.signal, "ok");
  assert.equal(typeof after.comm, "string");
  assert.equal(flood, 400, "the pins of closed connections use a bounded number of descriptors");
});

testWith(
  [...here, needs.cc, needs.strangers],
  "process.facts of root's process are unknown where a server without privileges may not read them",
  async () => {
    const path = freshPath();
    chmodSync(dirname(path), 0o777);
    const user = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups", "env", `HOME=/tmp`];
    const server = startScript(user, "live/look_at_root.ts", path);
    assert.equal(await server.json(), "ready");
    const client = new Child(peerProgram, [path]);
    const { states, live, ...peer } = await server.json<{
      uid: number;
      pinned: string;
      alive: boolean;
      live: { [name: string]: unknown };
      drift: unknown[];
      states: { [name: string]: string };
    }>();
    await client.end();
    await server.end();
    assert.deepEqual(peer, { uid: 0, pinned: "connect", alive: true, drift: [] });
    assert.deepEqual([live["uid"], live["suid"]], [0, 0]);
    for (const name of ["exe", "exeDeleted", "exeSha256", "namespaces"]) {
      assert.equal(states[name], "ERR_UCRED_PERMISSION", name);
      delete states[name];
    }
    for (
      const name of ["comm", "cmdline", "startTime", "cgroup", "capabilities", "seccomp", "key"]
    ) {
      assert.equal(states[name], "known", name);
    }
    // In a container, the last of these is unknown.
    for (const [name, state] of Object.entries(states)) {
      assert.match(state, /^(known|none|ERR_UCRED_UNSUPPORTED)$/, name);
    }
  },
);

const asUser = (...groups: string[]) => [
  "setpriv",
  "--reuid=4321",
  "--regid=4321",
  ...(groups.length > 0 ? [`--groups=${groups.join()}`] : ["--clear-groups"]),
  ...["env", "HOME=/tmp"],
];

for (
  const [options, user, hiding] of sample(
    [
      ["hidepid=2", asUser(), "invisible"],
      ["hidepid=1", asUser(), "noaccess"],
      ["hidepid=4", asUser(), "ptraceable"],
      ["hidepid=2,gid=4322", asUser("4322"), undefined],
      ["hidepid=2", [], undefined], // CAP_SYS_PTRACE
      ["hidepid=0", asUser(), undefined],
    ] as const,
  )
) {
  const who = user.length === 0 ? "root" : "a user";
  testWith(
    [...here, needs.cc, user.length === 0 ? needs.root : needs.strangers, needs.mountNamespace],
    `process.facts are known, or name the cause, when /proc is mounted with ${options}, for ${who}`,
    async () => {
      const path = freshPath();
      chmodSync(dirname(path), 0o777);
      const mount = `mount -t proc -o ${options} proc /proc && exec "$@"`;
      const command = ["unshare", "--mount", "sh", "-c", mount, "sh", ...user];
      const server = startScript(command, "live/look_hidden.ts", path);
      assert.equal(await server.json(), "ready");
      const client = new Child(peerProgram, [path]);
      const { reasons, drift, ...peer } = await server.json<{
        reasons: { [name: string]: string };
        drift: string;
      }>();
      await client.end();
      await server.end();
      assert.deepEqual(peer, {
        ...{ uid: 0, alive: true, pinned: "connect" },
        ...(hiding !== undefined && { hiding }),
      });
      const ofStatus = [reasons["comm"]!, reasons["capabilities"]!, reasons["unit"]!, drift];
      if (hiding === undefined) {
        assert.equal(reasons["comm"], "");
        assert.equal(drift, "none");
        return;
      }
      for (const text of [...ofStatus, reasons["exe"]!, reasons["namespaces"]!]) {
        assert.match(text, /^ERR_UCRED_PERMISSION .*ProtectProc=.* hidepid=/);
      }
    },
  );
}

interface Inside {
  readonly ours: number;
  readonly pid?: number;
  readonly pinned: string;
  readonly alive: boolean;
  readonly hasKey: boolean;
  readonly exe: string;
  readonly live: boolean | string;
  readonly drift: unknown;
}

testWith(
  [...here, needs.cc, needs.root, needs.pidNamespace],
  "identify() ignores /proc of another pid namespace, and pins peers outside its own",
  async () => {
    const path = freshPath();
    // Without --mount-proc, /proc/1 is not the server but the machine's init.
    const foreign = startScript(["unshare", "-fp", "--kill-child"], "live/look_inside.ts", path);
    assert.equal(await foreign.json(), "ready");
    foreign.process.stdin!.write("connect\n");
    const self = await foreign.json<Inside>();
    assert.deepEqual([self.ours, self.pid, self.pinned, self.alive], [1, 1, "connect", true]);
    assert.deepEqual([self.exe, self.live, self.drift], [
      "ERR_UCRED_UNSUPPORTED",
      true,
      "ERR_UCRED_UNSUPPORTED",
    ]);

    const client = new Child(peerProgram, [path]);
    const outside = await foreign.json<Inside>();
    assert.deepEqual([outside.pid, outside.pinned, outside.alive, outside.hasKey], [
      undefined,
      "connect",
      true,
      true,
    ]);
    assert.deepEqual([outside.exe, outside.live, outside.drift], [
      "ERR_UCRED_UNSUPPORTED",
      "ERR_UCRED_UNSUPPORTED",
      "ERR_UCRED_UNSUPPORTED",
    ]);
    await client.end();
    await foreign.end();

    const own = ["unshare", "-fp", "--kill-child", "--mount-proc"];
    const inside = startScript(own, "live/look_inside.ts", freshPath());
    assert.equal(await inside.json(), "ready");
    inside.process.stdin!.write("connect\n");
    const seen = await inside.json<Inside>();
    assert.deepEqual([seen.pid, seen.alive, seen.live, seen.drift], [1, true, true, []]);
    assert.ok(seen.exe.startsWith("/"), seen.exe);
    await inside.end();
  },
);
