/** Credentials of real processes with many identities, compared with those that the kernel reports. */

import assert from "node:assert/strict";
import { connect, createServer, type Socket } from "node:net";
import process from "node:process";
import { openedSystem } from "../../adapters/select.ts";
import { LINUX_OPTIONS } from "../../ffi/linux.ts";
import { fdOf } from "../../identity/fd.ts";
import { identify, peerCredentials } from "../../mod.ts";
import { needs, testWith } from "../support/suite.ts";
import {
  assertOurs,
  Child,
  freshPath,
  listen,
  meet,
  meetGone,
  peerProgram,
  type Self,
  startScript,
} from "../support/peers.ts";

const peers = [needs.linux, needs.cc];
const rootPeers = [...peers, needs.root];
const both = (socket: Socket) => [peerCredentials(socket), identify(socket)] as const;

testWith(
  peers,
  "peerCredentials() returns the pid, uid and gid of a process of our own user",
  async () => {
    const [[credentials, peer], self] = await meet([], both);
    assert.deepEqual(credentials, { pid: self.pid, uid: self.uid, gid: self.gid });
    assert.ok(Object.isFrozen(credentials) && Object.isFrozen(peer));
    assert.deepEqual({ ...peer, label: undefined }, {
      ...credentials,
      groups: [...new Set([...self.groups, self.gid])].sort((a, b) => a - b),
      label: undefined,
      ambiguous: [],
    });
  },
);

// polkit CVE-2018-19788: a uid above INT_MAX became negative.
for (const [uid, gid] of [[0, 0], [1, 2], [2147483648, 2147483647], [4000000000, 4294967294]]) {
  testWith(rootPeers, `peerCredentials() returns uid ${uid} and gid ${gid} unchanged`, async () => {
    const ids = ["--resgid", `${gid},${gid},${gid}`, "--resuid", `${uid},${uid},${uid}`];
    const [[credentials, peer], self] = await meet(ids, both);
    assert.deepEqual(credentials, { pid: self.pid, uid, gid });
    assert.deepEqual([peer.uid, peer.gid], [uid, gid]);
    assert.ok(peer.groups?.includes(gid!));
  });
}

testWith(
  rootPeers,
  "peerCredentials() returns effective ids when real and saved ones differ",
  async () => {
    const [[{ uid, gid }]] = await meet(["--resgid", "11,12,13", "--resuid", "21,22,23"], both);
    assert.deepEqual({ uid, gid }, { uid: 22, gid: 12 });
  },
);

testWith(
  peers,
  "peerCredentials() returns the pid of the process, not of the thread that connected",
  async () => {
    const [[{ pid }], self] = await meet(["--thread"], both);
    assert.equal(pid, self.pid);
  },
);

testWith(
  peers,
  "peerCredentials() returns the ids of a peer that ended before accept(2)",
  async () => {
    const [credentials, peer] = await meetGone(both);
    assertOurs(credentials);
    assertOurs(peer);
    assert.ok(credentials.pid! > 0);
  },
);

testWith(
  rootPeers,
  "peerCredentials() returns the process that connected when the socket was passed on",
  async () => {
    const ids = ["--resuid", "7,7,0", "--hand-on", "9"];
    const [[{ pid, uid }], self] = await meet(ids, both);
    assert.equal(self.uid, 9);
    assert.equal(uid, 7);
    assert.notEqual(pid, self.pid);
  },
);

testWith(peers, "peerCredentials() works on an abstract socket", async () => {
  const path = `\0ucred-${process.pid}-${Math.random()}`;
  const [[{ pid, uid }], self] = await meet([], both, path);
  assert.deepEqual([pid, uid], [self.pid, self.uid]);
});

// snapd CVE-2019-7304: the path of a client was parsed together with its credentials.
testWith(
  rootPeers,
  "peerCredentials() ignores paths that look like credentials",
  async () => {
    const ids = ["--resgid", "12,12,12", "--resuid", "65533,65533,65533"];
    const bound = freshPath("c;uid=0;pid=1;\nuid=0\n");
    const listening = freshPath('s;uid=0;\n{"uid":0}\n');
    const [[credentials, peer], self] = await meet(["--bind", bound, ...ids], both, listening);
    assert.deepEqual(credentials, { pid: self.pid, uid: 65533, gid: 12 });
    assert.equal(peer.uid, 65533);
    assert.doesNotMatch(JSON.stringify(peer), /"uid":0/);
  },
);

testWith(
  rootPeers,
  "peerCredentials() returns the process that called listen(2), on the client's side",
  async () => {
    const name = `ucred-${process.pid}-${Math.random()}`;
    const server = new Child(peerProgram, ["--resuid", "33,33,33", "--listen", `@${name}`]);
    const self = await server.json<Self>();
    const client = connect(`\0${name}`).on("error", () => {});
    await new Promise((resolve) => client.once("connect", resolve));
    const { pid, uid } = peerCredentials(client);
    assert.deepEqual({ pid, uid }, { pid: self.pid, uid: 33 });
    client.destroy();
    await server.end();
  },
);

for (const [count, text] of [[0, ""], [1, "7"], [9, "1,2,3,4,5,6,7,8,9"]] as const) {
  const list = count > 1 ? [...rootPeers, needs.native] : rootPeers;
  testWith(list, `identify() returns the gid and ${count} supplementary groups`, async () => {
    const [peer] = await meet(["--groups", text, "--resgid", "100,100,100"], identify);
    const expected = text === "" ? [100] : [...text.split(",").map(Number), 100];
    assert.deepEqual(peer.groups, expected);
    assert.equal(peer.facts.groups.state, "known");
    assert.ok(Object.isFrozen(peer.groups));
  });
}

testWith(
  [...rootPeers, needs.native],
  "identify() returns 65536 supplementary groups",
  async () => {
    const [peer, self] = await meet(["--many-groups", "65536", "--resgid", "5,5,5"], identify);
    assert.equal(self.groups.length, 65536);
    assert.deepEqual(peer.groups, [5, ...self.groups]);
    assert.equal(peer.facts.groupNames.state, "unknown"); // would take seconds to look up
  },
);

testWith(
  [...rootPeers, needs.native],
  "identify() lists a gid that is also supplementary once",
  async () => {
    const [peer] = await meet(
      ["--groups", "4294967294,100,7", "--resgid", "100,100,100"],
      identify,
    );
    assert.deepEqual(peer.groups, [7, 100, 4294967294]);
  },
);

testWith(
  rootPeers,
  "identify() returns the user of a uid with an account, and none without one",
  async () => {
    const [nobodyKnows] = await meet(["--resuid", "4000000001,4000000001,4000000001"], identify);
    assert.equal(nobodyKnows.user, undefined);
    assert.equal(nobodyKnows.facts.user.state, "none");
    const [root] = await meet([], identify);
    assert.equal(root.user, "root");
    assert.deepEqual(root.facts.user, { state: "known", value: "root", source: "accounts@now" });
  },
);

testWith(peers, "identify() returns a label, or none", async () => {
  const [peer] = await meet([], identify);
  assert.notEqual(peer.facts.label.state, "unknown");
  assert.equal(peer.label === undefined, peer.facts.label.state === "none");
});

testWith(
  [...rootPeers, needs.pidNamespace],
  "peerCredentials() returns the pid in our pid namespace for a peer in a child namespace",
  async () => {
    const [{ pid }, self] = await meet(["--unshare-pid"], identify);
    assert.equal(self.pid, 1);
    assert.ok(pid! > 1 && pid !== process.pid);
  },
);

testWith(
  [...rootPeers, needs.userNamespace],
  "peerCredentials() returns the uid of a peer that unmaps itself in its user namespace",
  async () => {
    const [{ uid, ambiguous }, self] = await meet(["--unshare-user"], identify);
    assert.equal(self.uid, 65534);
    assert.deepEqual({ uid, ambiguous }, { uid: 0, ambiguous: [] });
  },
);

testWith(rootPeers, "identify() returns 65534 as certain when every id is mapped", async () => {
  const ids = [
    "--groups",
    "65534",
    "--resgid",
    "65534,65534,65534",
    "--resuid",
    "65534,65534,65534",
  ];
  const [peer] = await meet(ids, identify);
  assert.deepEqual([peer.uid, peer.gid, peer.groups], [65534, 65534, [65534]]);
  assert.deepEqual(peer.ambiguous, []);
  assert.equal(peer.facts.uid.state, "known");
});

/** Lets peer.c connect to serve.ts, which `prefix` starts. */
async function meetInside(prefix: string[], options: string[], pin?: "pin") {
  const path = freshPath();
  const server = startScript(prefix, "live/serve.ts", path, ...(pin ? [pin] : []));
  assert.equal(await server.json(), "ready");
  const client = new Child(peerProgram, [...options, path]);
  const self = await client.json<Self>();
  const seen = await server.json<
    Self & {
      ambiguous: string[];
      states: { [fact: string]: string };
      user?: string;
      live?: { uid: number; ambiguous: string[] };
    }
  >();
  await client.end();
  await server.end();
  return [seen, self] as const;
}

testWith(
  [...rootPeers, needs.pidNamespace],
  "peerCredentials() returns no pid for a peer outside our pid namespace",
  async () => {
    const [seen, self] = await meetInside(["unshare", "--pid", "--fork"], ["--resuid", "8,8,8"]);
    assert.equal(seen.pid, undefined);
    assert.equal(seen.states["pid"], "none");
    assert.equal(seen.uid, self.uid);
  },
);

testWith(
  [...rootPeers, needs.userNamespace, needs.peerPidfd],
  "live() marks each id outside our user namespace as ambiguous",
  async () => {
    const ids = ["--resgid", "0,12,12", "--resuid", "0,1000,0"];
    const [{ live }] = await meetInside(["unshare", "--user", "--map-root-user"], ids, "pin");
    assert.equal(live?.uid, 65534);
    const marked = ["uid", "gid", "euid", "fsuid", "egid", "sgid", "fsgid"];
    assert.deepEqual(live.ambiguous.toSorted(), marked.toSorted());
  },
);

testWith(
  [...rootPeers, needs.userNamespace],
  "identify() marks all ids outside our user namespace as ambiguous",
  async () => {
    const ids = ["--groups", "", "--resgid", "12,12,12", "--resuid", "1000,1000,1000"];
    const [seen] = await meetInside(["unshare", "--user", "--map-root-user"], ids);
    assert.deepEqual([seen.uid, seen.gid, seen.groups], [65534, 65534, [65534]]);
    assert.deepEqual(seen.ambiguous, ["uid", "gid", "groups"]);
    const { uid, gid, user, groups } = seen.states;
    assert.deepEqual({ uid, gid, user, groups }, {
      uid: "unknown",
      gid: "unknown",
      user: "unknown",
      groups: "unknown",
    });
  },
);

testWith(
  [needs.linux, needs.root],
  "identify() returns ids that are comparable with the server's own",
  async () => {
    const path = freshPath();
    const server = createServer();
    await listen(server, path);
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    const client = connect(path);
    const socket = await accepted;
    const peer = identify(socket);
    assert.equal(peer.pid, process.pid);
    assertOurs(peer);
    client.destroy();
    socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  },
);

testWith(
  [...peers, needs.native],
  "getsockopt() reports success for a short answer, and leaves the rest of the memory unchanged",
  async () => {
    const { SOL_SOCKET, SO_PEERCRED } = LINUX_OPTIONS[process.arch]!;
    const { libc, value, size } = openedSystem();
    for (const length of [0, 4, 8]) {
      const [left] = await meet([], (socket) => {
        value.bytes.fill(0xff);
        size.words[0] = length;
        assert.equal(libc.getsockopt(fdOf(socket), SOL_SOCKET, SO_PEERCRED, value, size), 0);
        assert.equal(size.words[0], length);
        return [...value.bytes.subarray(length, 16)];
      });
      assert.deepEqual(left, Array(16 - length).fill(0xff));
    }
  },
);
