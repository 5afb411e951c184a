/** A client that verifies the server before it sends the first byte. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { openedSystem } from "../../adapters/select.ts";
import { fdOf } from "../../identity/fd.ts";
import { identify, type ServerExpectation, verifyServer } from "../../mod.ts";
import { failCalls } from "../../testing/mod.ts";
import { needs, testWith } from "../support/suite.ts";
import { Child, freshPath, listen, peerProgram, startScript } from "../support/peers.ts";

const here = [needs.linux];
const [uid, gid] = [process.geteuid?.() ?? -1, process.getegid?.() ?? -1];

/** Connects to a server of ours; returns the client's end, and the bytes that the server received. */
async function connected(look: (client: Socket) => void): Promise<string> {
  const server = createServer();
  const path = freshPath();
  await listen(server, path);
  let received = "";
  const ended = new Promise<void>((resolve) => {
    server.once("connection", (socket) => {
      socket.setEncoding("utf8").on("data", (text: string) => received += text);
      socket.on("error", () => {}).on("close", () => resolve());
    });
  });
  const client = connect(path).on("error", () => {});
  await once(client, "connect");
  try {
    look(client);
  } finally {
    client.end();
    await ended;
    server.close();
  }
  return received;
}

testWith(
  here,
  "verifyServer() returns the expected server, and leaves the socket open",
  async () => {
    const received = await connected((client) => {
      const { user, groupNames, groups } = identify(client);
      const group = groupNames?.[groups?.indexOf(gid) ?? -1];
      const right: readonly ServerExpectation[] = [
        { uid },
        { uid: [uid + 1, uid] },
        { gid },
        { uid, gid: [gid] },
        { user: String(uid), group: String(gid) },
        { uid, user: undefined } as never,
        ...(user === undefined ? [] : [{ user }, { user: ["nobody-at-all", user], uid }]),
        ...(group ? [{ group }, { group: [group], gid }] : []),
      ];
      for (const expected of right) assert.equal(verifyServer(client, expected).uid, uid);
      client.write("a secret");
    });
    assert.equal(received, "a secret");
  },
);

testWith(
  [...here, needs.root, needs.mountNamespace],
  "verifyServer() accepts each name of an account, and the digits of its id",
  async () => {
    // A second name for root, like BSD's toor, and a second name for a group.
    const folder = dirname(freshPath());
    const files = ["passwd", "group"].map((name) => {
      const line = name === "group" ? "wheels:x:0:" : "toor:x:0:0::/root:/bin/sh";
      const file = join(folder, name);
      writeFileSync(file, `${readFileSync(`/etc/${name}`, "utf8")}${line}\n`);
      return `mount --bind ${file} /etc/${name}`;
    });
    const command = ["unshare", "--mount", "sh", "-c", `${files.join(" && ")} && exec "$@"`, "sh"];
    const child = startScript(command, "live/verify_names.ts", freshPath());
    assert.deepEqual(await child.json(), {
      "user root": "root",
      "user toor": "root",
      "user 0": "root",
      "user no-such-name,toor": "root",
      "group root": "root",
      "group wheels": "root",
      "group 0": "root",
      "user daemon": "ERR_UCRED_REFUSED",
      "user 00": "ERR_UCRED_REFUSED",
      "user 4294967296": "ERR_UCRED_REFUSED",
      "user no-such-name": "ERR_UCRED_REFUSED",
      "group daemon": "ERR_UCRED_REFUSED",
    });
    await child.end();
  },
);

testWith(
  [...here, needs.root, needs.mountNamespace],
  "definePolicy() and identify() find groups after one with very many members",
  async () => {
    const path = freshPath();
    const file = join(dirname(path), "group");
    const members = Array.from({ length: 200_000 }, (_, at) => `member-${at}`).join();
    const text = readFileSync("/etc/group", "utf8");
    writeFileSync(file, `crowd:x:4321:${members}\n${text}later:x:4322:\n`);
    assert.ok(members.length > 2 << 20);
    const command = [
      "unshare",
      "--mount",
      "sh",
      "-c",
      `mount --bind ${file} /etc/group && exec "$@"`,
    ];
    const child = startScript([...command, "sh"], "live/long_group.ts", path);
    assert.deepEqual(await child.json(), { crowd: true, later: true, names: ["crowd", "later"] });
    await child.end();
  },
);

for (
  const expected of [
    { uid: uid + 1 },
    { gid: gid + 1 },
    { uid, gid: gid + 1 },
    { user: "nobody-at-all" },
    { group: "nobody-at-all" },
    { uid, user: ["nobody-at-all"] },
    { uid: NaN },
  ] as const
) {
  testWith(
    here,
    `verifyServer() closes the socket when ${JSON.stringify(expected)} is expected`,
    async () => {
      const received = await connected((client) => {
        assert.throws(() => verifyServer(client, expected), {
          name: "UcredError",
          code: "ERR_UCRED_REFUSED",
          message: /^Cannot trust the server: \w+ .+ where .+ was expected$/,
        });
        assert.equal(client.destroyed, true);
        client.write("a secret");
      });
      assert.equal(received, "");
    },
  );
}

testWith(here, "verifyServer() reports the found and the expected values", async () => {
  await connected((client) => {
    const socket = fdOf(client); // stays open
    const { user = uid, groupNames, groups } = identify(socket);
    const group = groupNames?.[groups?.indexOf(gid) ?? -1] ?? "unknown";
    for (
      const [expected, found, wanted] of [
        [{ uid: [uid + 1, uid + 2] }, `uid ${uid}`, `${uid + 1} or ${uid + 2}`],
        [{ uid, gid: gid + 1 }, `gid ${gid}`, gid + 1],
        [{ user: ["nobody-at-all", "no-one"] }, `user ${user}`, "nobody-at-all or no-one"],
        [{ group: "nobody-at-all" }, `group ${group}`, "nobody-at-all"],
      ] as const
    ) {
      const message = `Cannot trust the server: ${found} where ${wanted} was expected`;
      const error = { code: "ERR_UCRED_REFUSED", message, hint: /^Check the process / };
      assert.throws(() => verifyServer(socket, expected), error);
    }
    using _ = failCalls({ getpwnam_r: "EIO" });
    const expected = { user: ["nobody-at-all", "no-one"] };
    assert.throws(() => verifyServer(socket, expected), { errno: 5, message: /"nobody-at-all"/ });
  });
});

testWith(
  [...here, needs.cc, needs.root],
  "verifyServer() throws when the server's ids may be those of another user",
  async () => {
    const path = freshPath();
    chmodSync(dirname(path), 0o777);
    const server = new Child(peerProgram, [
      ...["--listen", "--resgid", "0,65534,0", "--resuid", "0,65534,0"],
      path,
    ]);
    await server.json();
    const client = connect(path).on("error", () => {});
    await once(client, "connect");
    const socket = fdOf(client); // stays open
    assert.equal(verifyServer(socket, { uid: 65534, gid: 65534 }).uid, 65534);
    const { mapsEvery } = openedSystem().remembered;
    const before = { ...mapsEvery };
    try {
      Object.assign(mapsEvery, { uid: false, gid: false }); // as in a user namespace
      for (
        const expected of [
          ...[{ uid: 65534 }, { gid: 65534 }, { user: "65534" }, { group: "65534" }],
          ...[{ user: "nobody-at-all" }, { group: "nobody-at-all" }],
        ]
      ) {
        assert.throws(() => verifyServer(socket, expected), {
          code: "ERR_UCRED_REFUSED",
          message: /^Cannot trust the server: \w+ unknown where /,
        }, JSON.stringify(expected));
      }
    } finally {
      Object.assign(mapsEvery, before);
      client.destroy();
      await server.end();
    }
  },
);

testWith(
  here,
  "verifyServer() throws TypeError when nothing is expected, or a field has another type",
  async () => {
    const wrong = [
      ...[{}, { uid: undefined }, { uid: "0" }, { user: 0 }, { uid: [] }, { user: [] }],
      ...[{ uid: [uid, "0"] }, { gid: "0" }, { group: 0 }, { uid, pid: 1 }, { pid: "1" }],
    ];
    const message = /^Set the expected|^\w+ must be a |^The expected server has no option /;
    for (const expected of wrong) {
      await connected((client) => {
        const error = { name: "TypeError", message };
        assert.throws(() => verifyServer(client, expected as never), error);
        assert.equal(client.destroyed, true, "the connection is closed");
      });
    }
  },
);

testWith([], "verifyServer() closes a socket without a peer", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = connect((server.address() as { port: number }).port, "127.0.0.1");
  await once(client, "connect");
  assert.throws(() => verifyServer(client, { uid }), { code: "ERR_UCRED_NOT_UNIX" });
  assert.equal(client.destroyed, true);
  server.close();
});

testWith(
  [...here, needs.cc, needs.root],
  "verifyServer() throws for another user's server",
  async () => {
    const path = freshPath();
    const ids = ["--listen", "--resgid", "0,0,0", "--resuid", "0,4000000000,0"];
    const folder = path.slice(0, path.lastIndexOf("/"));
    chmodSync(folder, 0o777);
    const server = new Child(peerProgram, [...ids, path]);
    await server.json();
    const [trusted, deceived] = [connect(path), connect(path)];
    await Promise.all([once(trusted, "connect"), once(deceived, "connect")]);
    assert.equal(verifyServer(trusted, { uid: 4000000000 }).uid, 4000000000);
    assert.equal(verifyServer(trusted, { user: "4000000000", group: "0" }).gid, 0);
    assert.throws(() => verifyServer(deceived, { uid: 0 }), {
      message: "Cannot trust the server: uid 4000000000 where 0 was expected",
    });
    assert.deepEqual([trusted.destroyed, deceived.destroyed], [false, true]);
    trusted.destroy();
    await server.end();
  },
);

testWith(
  [...here, needs.bun],
  "verifyServer() closes a Bun.Socket when another server is expected",
  async () => {
    const { Bun } = globalThis as unknown as { Bun: typeof import("bun") };
    const path = freshPath();
    const server = Bun.listen({ unix: path, socket: { data() {} } });
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const socket = { data() {}, close: () => resolve() };
    const client = await Bun.connect({ unix: path, socket });
    assert.throws(() => verifyServer(client, { uid: uid + 1 }), { code: "ERR_UCRED_REFUSED" });
    await closed;
    server.stop(true);
  },
);
