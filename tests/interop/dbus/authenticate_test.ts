/** Clients of several users, and of several authors, authenticate to a server. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, createServer, type Server, type Socket } from "node:net";
import process from "node:process";
import { fileURLToPath } from "node:url";
import dbus from "dbus-native";
import { openedSystem } from "../../../adapters/select.ts";
import {
  authenticate,
  type AuthenticateOptions,
  authorizePeer,
  connectionCredentials,
} from "../../../interop/dbus/mod.ts";
import { tool } from "../../support/guard.ts";
import { packagesOf } from "../../support/packages.ts";
import { freshPath } from "../../support/peers.ts";
import {
  endAfterEach,
  type Need,
  needs,
  runtimeCommand,
  testWith,
  until,
} from "../../support/suite.ts";
import { as, busctl, ONE, run, TWO } from "./daemon.ts";

/** The framing of messages, from dbus-native. */
const wire = createRequire(import.meta.url)("dbus-native/lib/message.js") as {
  marshall(message: dbus.Message): Uint8Array;
  unmarshalMessages(
    stream: Socket,
    onMessage: (message: dbus.Message) => void,
    options: object,
  ): void;
};

const servers = new Set<Server>();
endAfterEach(() => {
  for (const server of servers) server.close();
  servers.clear();
});

async function listen(onConnection: (socket: Socket) => void): Promise<string> {
  const path = freshPath("bus.sock");
  const server = createServer(onConnection);
  servers.add(server);
  server.listen({ path, writableAll: true });
  await once(server, "listening");
  return path;
}

interface Log {
  readonly uids: number[];
  readonly refused: string[];
}

/** A server that answers Hello, WhoAmI and GetConnectionCredentials, as a bus would. */
async function startServer(options: AuthenticateOptions = {}): Promise<{ path: string; log: Log }> {
  const log: Log = { uids: [], refused: [] };
  const path = await listen(async (socket) => {
    try {
      const { peer } = await authenticate(socket, options);
      socket.on("error", () => {});
      log.uids.push(peer.uid);
      const reply = (to: dbus.Message, signature?: string, body?: unknown[]) => {
        const answer = {
          type: 2,
          serial: 1,
          replySerial: to.serial!,
          sender: "org.freedesktop.DBus",
        };
        socket.write(wire.marshall({ ...answer, ...(signature && { signature, body: body! }) }));
      };
      wire.unmarshalMessages(socket, (message) => {
        if (message.type !== 1) return;
        if (message.member === "Hello") return reply(message, "s", [":1.7"]);
        if (message.member === "WhoAmI") return reply(message, "u", [peer.uid]);
        if (message.member === "GetConnectionCredentials") {
          return reply(message, "a{sv}", [Object.entries(connectionCredentials(peer))]);
        }
        if (message.member === "AddMatch") return reply(message);
        const { serial } = message;
        const errorName = "org.freedesktop.DBus.Error.UnknownMethod";
        socket.write(wire.marshall({ type: 3, serial: 1, replySerial: serial!, errorName }));
      }, {});
    } catch (error) {
      log.refused.push((error as Error).message);
    }
  });
  return { path, log };
}

const here = [needs.linux, needs.root, needs.native, tool("setpriv")];
const BUS = ["org.example.Bus", "/", "org.example.Bus"];

testWith([...here, tool("busctl")], "authenticate() accepts busctl as several users", async () => {
  const { path, log } = await startServer();
  for (const uid of [0, ONE, 4001, 4294967294]) {
    assert.equal(await busctl(as(uid), `unix:path=${path}`, ...BUS, "WhoAmI"), `u ${uid}`);
  }
  const groups = [11, 12, 13, 14, 15, 16, 17, 18, 4001];
  const driver = ["org.freedesktop.DBus", "/", "org.freedesktop.DBus", "GetConnectionCredentials"];
  const credentials = await busctl(
    as(4001, [4001, ...groups.slice(0, 8)]),
    `unix:path=${path}`,
    ...driver,
  );
  assert.match(credentials, /"UnixUserID" u 4001\b/);
  assert.match(credentials, new RegExp(`"UnixGroupIDs" au 9 ${groups.join(" ")}\\b`));
  assert.match(credentials, /"ProcessID" u \d+/);
  assert.deepEqual(log, { uids: [0, ONE, 4001, 4294967294, 4001], refused: [] });
});

testWith([...here, tool("gdbus")], "authenticate() accepts gdbus as several users", async () => {
  const { path } = await startServer();
  for (const uid of [0, ONE, 4001]) {
    const args = ["call", `--address=unix:path=${path}`, `--dest=${BUS[0]}`, "--object-path=/"];
    const answer = await run(...as(uid), "gdbus", ...args, `--method=${BUS[0]}.WhoAmI`);
    assert.equal(answer.replace("uint32 ", ""), `(${uid},)`);
  }
});

testWith(
  [...here, tool("dbus-send")],
  "authenticate() accepts dbus-send as several users",
  async () => {
    const { path } = await startServer();
    for (const uid of [0, ONE, 4001]) {
      const args = [`--bus=unix:path=${path}`, "--print-reply", `--dest=${BUS[0]}`, "/"];
      const answer = await run(...as(uid), "dbus-send", ...args, `${BUS[0]}.WhoAmI`);
      assert.match(answer, new RegExp(`uint32 ${uid}$`));
    }
  },
);

const root = fileURLToPath(new URL("../../..", import.meta.url));
const packages: readonly [name: string, folder: string, need: readonly Need[]][] = [
  ["dbus-native", root, []],
  ["@homebridge/dbus-native", `${root}/tests/packages`, [packagesOf("tests/packages")]],
];
for (const [name, folder, need] of packages) {
  testWith(
    [...here, needs.strangers, ...need],
    `authenticate() accepts the client ${name} as several users`,
    async () => {
      const { path, log } = await startServer();
      const script = fileURLToPath(new URL("npm_client.ts", import.meta.url));
      for (const uid of [0, ONE, TWO]) {
        const args = [folder, name, `unix:path=${path}`];
        assert.equal(await run(...as(uid), ...runtimeCommand(), script, ...args), String(uid));
      }
      assert.deepEqual(log, { uids: [0, ONE, TWO], refused: [] });
    },
  );
}

const python: Need = { name: "/usr/bin/python3", met: existsSync("/usr/bin/python3") };
const hex = (text: string) => Buffer.from(text).toString("hex");

/** Sends bytes as a client of this process, which is root, and returns the answer. */
async function say(path: string, text: string): Promise<string> {
  const client = connect(path);
  let answer = "";
  client.setEncoding("latin1").on("data", (more: string) => answer += more).on("error", () => {});
  client.end(text, "latin1");
  await new Promise((resolve) => client.once("close", resolve)); // once() would reject after an error
  return answer;
}

/** Sends bytes as another user, with Python. */
const SAY = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n" +
  "s.sendall(sys.argv[2].encode().decode('unicode_escape').encode('latin1'))\n" +
  "s.shutdown(socket.SHUT_WR)\nout=b''\nwhile True:\n  b=s.recv(999)\n  if not b: break\n  out+=b\n" +
  "print(out.decode())";
const sayAs = (uid: number, path: string, text: string) =>
  run(...as(uid), "/usr/bin/python3", "-c", SAY, path, text);

testWith(
  [...here, python],
  "authenticate() rejects a client that claims the uid of another, also the server's own",
  async () => {
    const { path, log } = await startServer();
    for (const claim of ["0", "2", String(process.getuid!()), "4294967295", "-1", "", "01"]) {
      const response = claim === "" ? "" : ` ${hex(claim)}`;
      const text = `\\0AUTH EXTERNAL${response}\\r\\n`;
      const answer = await sayAs(ONE, path, text);
      assert.equal(answer.trim(), claim === "" ? "DATA" : "REJECTED EXTERNAL", claim);
    }
    assert.match(
      await sayAs(ONE, path, `\\0AUTH EXTERNAL ${hex("1")}\\r\\n`),
      /^OK [0-9a-f]{32}\r?\n?$/,
    );
    assert.deepEqual(log.uids, []);
    await until(() => log.refused.length === 8);
  },
);

testWith(
  [...here, python],
  "authorizePeer() makes a server of dbus-native reject what it accepts by itself",
  async () => {
    const accept = (authorize?: (socket: Socket) => object) => {
      return listen((stream) => {
        const options = { stream, server: true, authMethods: ["EXTERNAL"], ...authorize?.(stream) };
        dbus.createConnection(options).on("error", () => {});
      });
    };
    const claim = `\\0AUTH EXTERNAL ${hex("0")}\\r\\n`;
    const plain = await accept();
    assert.match(await sayAs(ONE, plain, claim), /^OK /, "dbus-native 0.16.1 trusts the claim");
    const safe = await accept((stream) => ({ authorize: authorizePeer(stream) }));
    assert.match(await sayAs(ONE, safe, claim), /^REJECTED EXTERNAL/);
    assert.match(await sayAs(ONE, safe, `\\0AUTH EXTERNAL ${hex("1")}\\r\\n`), /^OK /);
    assert.match(await sayAs(ONE, safe, "\\0AUTH ANONYMOUS\\r\\n"), /^REJECTED EXTERNAL/);
    assert.match(await say(safe, `\0AUTH EXTERNAL ${hex("0")}\r\n`), /^OK /);
    const decided: boolean[] = [];
    const path = await listen((socket) => {
      const authorize = authorizePeer(socket);
      for (const uid of [0, null, 1, NaN]) decided.push(authorize({ mechanism: "EXTERNAL", uid }));
      for (const mechanism of ["ANONYMOUS", "DBUS_COOKIE_SHA1", null]) {
        decided.push(authorize({ mechanism, uid: 0 }), authorize({ mechanism, uid: null }));
      }
      socket.destroy();
    });
    await say(path, "");
    assert.deepEqual(decided, [true, true, ...Array(8).fill(false)]);
  },
);

testWith(
  here,
  "authenticate() and authorizePeer() accept no client with an ambiguous uid",
  async () => {
    // The kernel reports uids that our user namespace does not map as the overflow uid.
    const { mapsEvery, overflowIds } = openedSystem().remembered;
    const own = process.getuid!();
    const { uid: before } = mapsEvery;
    mapsEvery.uid = false;
    overflowIds.uid.add(own);
    try {
      const { path, log } = await startServer();
      const claims = `\0AUTH EXTERNAL ${hex(String(own))}\r\nAUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n`;
      const answer = await say(path, claims);
      assert.equal(answer, "REJECTED EXTERNAL\r\nDATA\r\nREJECTED EXTERNAL\r\n");
      await until(() => log.refused.length === 1);
      assert.deepEqual(log.uids, []);
      const decided: boolean[] = [];
      const native = await listen((socket) => {
        const authorize = authorizePeer(socket);
        for (const uid of [own, null]) decided.push(authorize({ mechanism: "EXTERNAL", uid }));
        socket.destroy();
      });
      await say(native, "");
      assert.deepEqual(decided, [false, false]);
    } finally {
      if (before === undefined) delete mapsEvery.uid;
      else mapsEvery.uid = before;
      overflowIds.uid.delete(own);
    }
  },
);

testWith(
  here,
  "authenticate() uses the GUID of its option, or one for all connections",
  async () => {
    const claim = `\0AUTH EXTERNAL ${hex(String(process.getuid!()))}\r\n`;
    const guids: string[] = [];
    for (const guid of ["0123456789abcdefABCDEF0123456789", undefined, undefined]) {
      const { path } = await startServer({ guid });
      guids.push((await say(path, claim)).slice(3, -2));
    }
    assert.equal(guids[0], "0123456789abcdefABCDEF0123456789");
    assert.match(guids[1]!, /^[0-9a-f]{32}$/);
    assert.equal(guids[1], guids[2]);
  },
);

testWith(here, "authenticate() leaves the bytes after BEGIN in the socket", async () => {
  for (const size of [0, 10, 200_000]) {
    let received = Buffer.alloc(0);
    let unixFd: boolean | undefined;
    const path = await listen(async (socket) => {
      ({ unixFd } = await authenticate(socket, { unixFd: true }));
      await new Promise((resolve) => setImmediate(resolve)); // the bytes wait for a late reader
      socket.on("data", (more: Buffer) => received = Buffer.concat([received, more]));
      socket.on("end", () => socket.end("bye"));
    });
    const bytes = Buffer.from(Array.from({ length: size }, (_, at) => at * 7 % 256));
    const client = connect({ path, allowHalfOpen: true });
    let answer = "";
    client.setEncoding("latin1").on("data", (more: string) => answer += more);
    const uid = hex(String(process.getuid!()));
    const commands = `\0AUTH EXTERNAL ${uid}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n`;
    client.end(Buffer.concat([Buffer.from(commands), bytes]));
    await once(client, "close");
    assert.match(answer, /^OK [0-9a-f]{32}\r\nAGREE_UNIX_FD\r\nbye$/);
    assert.deepEqual([received.equals(bytes), unixFd], [true, true]);
  }
  const refused: string[] = [];
  const path = await listen((socket) => {
    const pending = authenticate(socket.setEncoding("latin1"));
    pending.catch((error) => refused.push((error as Error).message));
  });
  assert.equal(await say(path, `\0AUTH EXTERNAL ${hex("0")}\r\n`), "");
  await until(() => refused.length === 1);
  assert.match(refused[0]!, /setEncoding/);
});

testWith(
  here,
  "authenticate() disconnects clients that fail, hang up, or take too long",
  async () => {
    const { path, log } = await startServer({ timeoutMs: 300 });
    assert.equal(await say(path, "AUTH EXTERNAL\r\n"), "");
    assert.equal(await say(path, "\0BEGIN\r\n"), "");
    assert.equal(await say(path, ""), "");
    const slow = connect(path);
    slow.resume().on("error", () => {}).write("\0AUTH EXTERNAL\r\n");
    await once(slow, "close");
    await until(() => log.refused.length === 4);
    const reasons = log.refused.map((message) => message.replace(/.*: /, ""));
    assert.deepEqual(reasons.sort(), [
      "BEGIN before authentication",
      "it has hung up",
      "it took too long",
      "the first byte is not NUL",
    ]);
    assert.deepEqual(log.uids, []);
  },
);

testWith(here, "authenticate() rejects wrong options, and sockets that have no peer", async () => {
  const path = await listen(() => {});
  const socket = connect(path);
  await once(socket, "connect");
  const guids = ["x", "0".repeat(31), "0".repeat(33), `${"0".repeat(31)}g`];
  for (const options of [{ uid: 0 }, ...guids.map((guid) => ({ guid }))]) {
    await assert.rejects(authenticate(socket, options as never), TypeError);
  }
  for (const timeoutMs of [0, -1, NaN, 2 ** 31]) {
    await assert.rejects(authenticate(socket, { timeoutMs }), RangeError);
  }
  const pending = authenticate(socket, { timeoutMs: 2 ** 31 - 1 });
  socket.destroy();
  await assert.rejects(pending, {
    code: "ERR_UCRED_REFUSED",
    message: "Cannot authenticate the D-Bus client: it has hung up",
    hint: "Connect as the user that the client claims to be, with the mechanism EXTERNAL",
  });
  await assert.rejects(authenticate(socket), { code: "ERR_UCRED_NO_FD" });
  assert.throws(() => authorizePeer(socket), { code: "ERR_UCRED_NO_FD" });
});
