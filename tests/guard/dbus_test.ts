/** A guard in D-Bus mode in front of a dbus-daemon, and of a server without a bus. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import dbus from "dbus-native";
import { shadowPolicy } from "../../core/policy/shadow.ts";
import { authenticateAt, withTimeout } from "../../guard/dbus/handshake.ts";
import { ByteReader, MessageWriter } from "../../guard/byte_streams.ts";
import { createGuard, type GuardOptions } from "../../guard/mod.ts";
import { TYPE } from "../../interop/dbus/message.ts";
import { dbusVocabulary, importBusPolicy, peerOfSender } from "../../interop/dbus/mod.ts";
import { definePolicy } from "../../policy/define.ts";
import { parsePolicy, type Policy } from "../../policy/mod.ts";
import type { ServerEvent } from "../../servers/admission/events.ts";
import type { RequestReport } from "../../servers/http/request_report.ts";
import {
  as,
  busctl,
  connectTo,
  ONE,
  run,
  startDaemon,
  testBus,
  TWO,
} from "../interop/dbus/daemon.ts";
import { temporaryFolder } from "../support/compile.ts";
import { End, Guard, policyFile, tool } from "../support/guard.ts";
import { guardHere } from "../support/guard_here.ts";
import { freshPath } from "../support/peers.ts";
import { soak, until } from "../support/suite.ts";
import { BUS, directServer, messageOf, Wire } from "./dbus_wire.ts";

const CLOCK = "org.example.Clock";
const PATH = "/org/example/Clock";
const DENIED = `${BUS}.Error.AccessDenied`;

/** The rules of {@link start}, in which root may do everything. */
const RULES = `
  - { name: root, when: { uid: 0 }, allow: true }
  - name: clients
    when: { uid: [${ONE}, ${TWO}] }
    actions: [connect, "see ${CLOCK}"]
    allow: true
  - name: the bus itself
    when: { uid: [${ONE}, ${TWO}] }
    actions: "call ${BUS}.*"
    where: { destination: ${BUS} }
    allow: true
  - name: nobody sets
    actions: "call ${CLOCK}.Set"
    deny: Ask root
  - name: readers
    when: { uid: [${ONE}, ${TWO}] }
    actions: ["call ${CLOCK}.*", "call ${BUS}.Properties.Get*", "call ${BUS}.Introspectable.*"]
    where: { destinationNames: { some: ${CLOCK} }, path: [${PATH}, /] }
    allow: true
  - name: one owns
    when: { uid: ${ONE} }
    actions: ["own org.example.One", "receive call org.example.One.*", "send signal org.example.One.*"]
    allow: true
  - name: ticks
    when: { uid: [${ONE}, ${TWO}] }
    actions: "receive signal ${CLOCK}.Tick"
    where: { senderNames: { some: ${CLOCK} } }
    allow: true
`;

const policyOf = (rules: string) =>
  parsePolicy(`version: 1\nabout: dbus\nrules:${rules}`, { vocabularies: [dbusVocabulary] });

interface Started {
  readonly path: string;
  readonly address: string;
  readonly guard: Awaited<ReturnType<typeof guardHere>>["guard"];
  /** "action: reason" of denied actions. */
  readonly denied: string[];
  readonly requests: RequestReport[];
  readonly lines: string[];
}

/** Starts a guard in this process, to which every user may connect. */
async function start(options: Partial<GuardOptions> & { upstream: string }): Promise<Started> {
  const [denied, requests, lines]: [string[], RequestReport[], string[]] = [[], [], []];
  const audit = {
    dropped: 0,
    error: undefined,
    write: (event: ServerEvent) => {
      if (event.type === "decided" && !event.decision.allowed) {
        denied.push(`${event.action}: ${event.decision.reason}`);
      }
    },
    reopen: () => {},
    close: () => Promise.resolve(),
  };
  const { path, guard } = await guardHere({
    mode: "dbus",
    policy: policyOf(RULES),
    audit,
    onRequest: (request) => requests.push(request),
    report: (line) => lines.push(line),
    ...options,
  }, { mode: 0o666 });
  return { path, address: `unix:path=${path}`, guard, denied, requests, lines };
}

/** Starts a clock on a bus, not behind a guard. */
async function startClock(address: string): Promise<{ bus: dbus.MessageBus; sets: string[] }> {
  const bus = await connectTo(address);
  const sets: string[] = [];
  const definition = dbus.defineInterface({
    name: CLOCK,
    methods: {
      Now: { out: { text: "s" }, handler: () => "noon" },
      Echo: {
        in: { text: "s" },
        out: { text: "s" },
        handler: ([text]: readonly string[]) => text,
      },
      Set: { in: { text: "s" }, handler: ([text]: readonly string[]) => void sets.push(text!) },
    },
    properties: {
      Zone: { type: "s", get: () => "UTC", set: (zone) => void sets.push(String(zone)) },
    },
  });
  await bus.export(PATH, definition);
  const whoAmI = async ({ sender }: dbus.Message) => (await peerOfSender(bus, sender!)).uid;
  bus.setMethodCallHandler("/", CLOCK, "WhoAmI", [whoAmI, "u"]);
  await bus.requestName(CLOCK, 0);
  return { bus, sets };
}

const AT = [CLOCK, PATH, CLOCK];
const PROPERTIES = [CLOCK, PATH, `${BUS}.Properties`];
const DRIVER = [BUS, "/org/freedesktop/DBus", BUS];

testBus("dbus mode decides the calls of busctl by user, also of properties", async () => {
  const { path, address } = await startDaemon();
  const { sets } = await startClock(address);
  const guard = await start({ upstream: path });
  const call = (uid: number, ...args: string[]) => busctl(as(uid), guard.address, ...args);
  for (const uid of [0, ONE, TWO]) assert.equal(await call(uid, ...AT, "Now"), 's "noon"');
  assert.equal(await call(ONE, ...AT, "Set", "s", "x"), "Call failed: Access denied");
  assert.equal(await call(ONE, ...PROPERTIES, "Get", "ss", CLOCK, "Zone"), 'v s "UTC"');
  const zone = ["Set", "ssv", CLOCK, "Zone", "s", "CET"];
  assert.match(await call(ONE, ...PROPERTIES, ...zone), /^Call failed: Access denied/);
  assert.match(await call(ONE, CLOCK, "/other", CLOCK, "Now"), /Access denied/);
  assert.deepEqual(sets, []);
  assert.equal(await call(0, ...PROPERTIES, ...zone), "");
  assert.deepEqual(sets, ["CET"]);
  assert.doesNotMatch(await call(4001, ...AT, "Now"), /noon/, "no rule allows this user anything");
  assert.deepEqual(guard.denied, [
    `call ${CLOCK}.Set: Rule "nobody sets" denies it: Ask root`,
    `call ${BUS}.Properties.Set: No rule matches`,
    `call ${CLOCK}.Now: No rule matches`,
  ]);
  const { requests } = guard.guard.stats();
  assert.equal(requests!.outcomes.denied, 3);
  assert.equal(requests!.outcomes.aborted + requests!.outcomes.failed, 0);
  const report = guard.requests.find(({ outcome }) => outcome === "denied")!;
  assert.deepEqual([report.method, report.target, report.peer.uid], [`${CLOCK}.Set`, PATH, ONE]);
  assert.equal(report.decision!.rule, "nobody sets");
});

const messageOfGdbus = ["call", "--dest", CLOCK, "--object-path", PATH, "--method"];
const CLIENTS: readonly (readonly [name: string, (address: string, member: string) => string[]])[] =
  [
    ["gdbus", (address, member) => {
      return ["gdbus", ...messageOfGdbus, `${CLOCK}.${member}`, "--address", address];
    }],
    ["dbus-send", (address, member) => {
      const to = [`--dest=${CLOCK}`, PATH, `${CLOCK}.${member}`];
      return ["dbus-send", `--bus=${address}`, "--print-reply", ...to];
    }],
  ];
for (const [name, command] of CLIENTS) {
  testBus(`dbus mode serves ${name} as several users`, async () => {
    const { path, address } = await startDaemon();
    await startClock(address);
    const guard = await start({ upstream: path });
    for (const uid of [0, ONE]) {
      assert.match(await run(...as(uid), ...command(guard.address, "Now")), /noon/);
    }
    assert.match(await run(...as(ONE), ...command(guard.address, "Set")), /AccessDenied.*Ask root/);
  }, tool(name));
}

testBus("dbus mode shows the services that a client may see to busctl and gdbus", async () => {
  const { path, address } = await startDaemon();
  const { bus } = await startClock(address);
  await bus.requestName("org.example.Secret", 0);
  const guard = await start({ upstream: path });
  const list = await run(...as(ONE), "busctl", `--address=${guard.address}`, "list", "--no-legend");
  assert.match(list, /org\.example\.Clock/);
  assert.doesNotMatch(list, /Secret/);
  const tree = ["busctl", `--address=${guard.address}`, "introspect", CLOCK, PATH];
  assert.match(await run(...as(ONE), ...tree), /\.Now +method/);
  const introspect = ["introspect", "--dest", CLOCK, "--object-path", PATH];
  const shown = await run(...as(ONE), "gdbus", ...introspect, "--address", guard.address);
  assert.match(shown, /Now\(out s text\)/);
  const call = (uid: number, ...args: string[]) =>
    busctl(as(uid), guard.address, ...DRIVER, ...args);
  assert.match(await call(0, "GetNameOwner", "s", "org.example.Secret"), /^s ":1/);
  assert.match(await call(ONE, "GetNameOwner", "s", CLOCK), /^s ":1/);
  assert.match(await call(ONE, "GetNameOwner", "s", "org.example.Secret"), /has no owner/);
  assert.equal(await call(ONE, "NameHasOwner", "s", "org.example.Secret"), "b false");
  assert.equal(await call(0, "NameHasOwner", "s", "org.example.Secret"), "b true");
  assert.match(
    await call(ONE, "GetConnectionUnixUser", "s", bus.name!),
    /^u 0/,
    "it owns the clock",
  );
  assert.match(await call(ONE, "GetConnectionUnixUser", "s", ":1.999"), /has no owner/);
  assert.match(
    await call(ONE, "StartServiceByName", "su", "org.example.Secret", "0"),
    /has no owner/,
  );
}, tool("gdbus"));

testBus("dbus mode reports changes of owners to clients that may see the name", async () => {
  const { path, address } = await startDaemon();
  const { bus } = await startClock(address);
  const guard = await start({
    upstream: path,
    policy: policyOf(
      RULES.replace("uid: 0", "uid: 9")
        .replaceAll(`[${ONE}, ${TWO}]`, "0"),
    ),
  });
  const { wire } = await Wire.onBus(guard.path);
  await wire.ask("AddMatch", "member='NameOwnerChanged'");
  await bus.requestName("org.example.Secret", 0);
  await bus.releaseName(CLOCK);
  const changed = await wire.next();
  assert.deepEqual([changed.member, changed.text], ["NameOwnerChanged", CLOCK]);
});

testBus("dbus mode lets a user own a name, and delivers the calls that are allowed", async () => {
  const { path, address } = await startDaemon();
  const guard = await start({ upstream: path });
  const own = (uid: number, name: string) =>
    busctl(as(uid), guard.address, ...DRIVER, "RequestName", "su", name, "0");
  assert.equal(await own(ONE, "org.example.One"), "u 1");
  assert.match(await own(TWO, "org.example.One"), /Access denied/);
  assert.match(await own(ONE, "org.example.One.More"), /Access denied/);
  assert.deepEqual(guard.denied, [
    "own org.example.One: No rule matches",
    "own org.example.One.More: No rule matches",
  ]);

  // A service of user one, with commands for each message that it gets.
  const rules = RULES.replace("uid: 0", "uid: 9").replaceAll(`uid: ${ONE}`, "uid: 0") +
    `  - { name: asks, when: { uid: 0 }, actions: ["connect", "call ${BUS}.*"], allow: true }\n`;
  const ofRoot = await start({ upstream: path, policy: policyOf(rules) });
  const { wire } = await Wire.onBus(ofRoot.path);
  const request = { path: "/", interface: BUS, member: "RequestName", destination: BUS };
  const reply = await wire.replyTo(wire.send(request, "org.example.One", 0));
  assert.equal(reply.type, TYPE.return);
  const client = await connectTo(address);
  const call = (member: string) =>
    new Promise<unknown>((resolve) => {
      const to = { destination: "org.example.One", path: "/" };
      client.invoke(
        {
          ...to,
          interface: member.startsWith("Get") ? "org.example.Other" : "org.example.One",
          member,
        },
        (error: unknown, value: unknown) => resolve(error ?? value),
      );
    });
  const denied = await call("Get") as { dbusName: string };
  assert.equal(denied.dbusName, DENIED, "it is not delivered");
  const answer = call("Do");
  const received = await wire.next();
  assert.deepEqual([received.member, received.sender], ["Do", client.name]);
  const back = { type: TYPE.return, replySerial: received.serial };
  wire.send({ ...back, destination: ":1.999" }, "to another client");
  wire.send(
    { ...back, replySerial: received.serial + 1, destination: client.name! },
    "to another call",
  );
  wire.send({ ...back, destination: client.name! }, "done");
  wire.send({ ...back, destination: client.name! }, "again");
  assert.equal(await answer, "done");
  await wire.ask("GetId");
  assert.deepEqual(ofRoot.denied, [
    "receive call org.example.Other.Get: No rule matches",
    ...[1, 2, 3].map(() => "send return: No call waits for this reply"),
  ]);
});

testBus("dbus mode decides signals in both directions", async () => {
  const { path, address } = await startDaemon();
  const { bus } = await startClock(address);
  const rules = RULES.replace("uid: 0", "uid: 9").replaceAll(`[${ONE}, ${TWO}]`, "0")
    .replaceAll(`uid: ${ONE}`, "uid: 0");
  const guard = await start({ upstream: path, policy: policyOf(rules) });
  const { wire, name } = await Wire.onBus(guard.path);
  await wire.ask("AddMatch", "type='signal',path='/tick'");
  await wire.ask("AddMatch", "type='signal',path='/tick'");
  const other = await connectTo(address);
  const tick = (from: dbus.MessageBus, member: string, destination?: string) =>
    from.connection.message({
      ...{ type: 4, path: "/tick", interface: CLOCK, member, serial: 99 },
      ...(destination === undefined ? {} : { destination }),
    });
  tick(other, "Tick"); // of a client that does not own the clock
  await new Promise((resolve) =>
    other.invoke({
      ...Object.fromEntries([
        ["destination", BUS],
        ["path", "/"],
        ["interface", BUS],
        ["member", "GetId"],
      ]),
    } as never, resolve)
  );
  tick(bus, "Alarm");
  tick(bus, "Tick", name);
  const got = await wire.next();
  assert.deepEqual([got.type, got.member, got.sender, got.destination], [
    4,
    "Tick",
    bus.name,
    name,
  ]);
  assert.deepEqual(guard.denied, [
    `receive signal ${CLOCK}.Tick: No rule matches`,
    `receive signal ${CLOCK}.Alarm: No rule matches`,
  ]);

  const seen: string[] = [];
  other.connection.on("message", (message) => {
    const { type, path, member, sender } = message as dbus.Message;
    if (type === 4 && path === "/out") seen.push(`${member} ${sender}`);
  });
  await new Promise<unknown>((resolve) => other.addMatch("type='signal',path='/out'", resolve));
  const signal = { type: TYPE.signal, path: "/out" };
  wire.send({ ...signal, interface: CLOCK, member: "Tick" });
  wire.send({ ...signal, interface: "org.example.One", member: "Done", sender: CLOCK });
  await until(() => seen.length > 0);
  assert.deepEqual(seen, [`Done ${name}`]);
  assert.equal(guard.denied.at(-1), `send signal ${CLOCK}.Tick: No rule matches`);
});

testBus(
  "dbus mode forwards neither monitors nor messages to others, whatever the policy",
  async () => {
    const { path, address } = await startDaemon(undefined, '<allow eavesdrop="true"/>');
    await startClock(address);
    const guard = await start({ upstream: path });
    const { wire } = await Wire.onBus(guard.path);
    assert.equal((await wire.ask("AddMatch", "eavesdrop=true,type='signal'")).errorName, DENIED);
    assert.equal((await wire.ask("AddMatch", " eavesdrop = 'true'")).errorName, DENIED);
    const to = { path: "/org/freedesktop/DBus", destination: BUS };
    const monitoring = { ...to, interface: `${BUS}.Monitoring`, member: "BecomeMonitor" };
    assert.equal((await wire.replyTo(wire.send(monitoring, "", 0))).errorName, DENIED);
    const bare = { ...to, interface: undefined };
    for (const member of ["BecomeMonitor", "RequestName", "GetId", "Hello"]) {
      const reply = await wire.replyTo(wire.send({ ...bare, member }));
      assert.deepEqual([reply.errorName, reply.sender], [DENIED, BUS], member);
    }
    assert.equal((await wire.ask("Hello")).errorName, DENIED, "a second one");
    const nowhere = wire.send({ path: "/", interface: BUS, member: "GetId" });
    assert.equal((await wire.replyTo(nowhere)).errorName, DENIED, "no destination");
    const monitor = await run("timeout", "20", "busctl", `--address=${guard.address}`, "monitor");
    assert.match(monitor, /Failed to become a monitor|Access denied/i);
  },
);

testBus("dbus mode forwards no Hello but the usual one, whatever the policy", async () => {
  const { path } = await startDaemon();
  const guard = await start({ upstream: path });
  const to = { path: "/", interface: BUS, member: "Hello", destination: BUS };
  for (const odd of [{ flags: 1 }, { destination: undefined }, { interface: undefined }, "text"]) {
    const wire = await Wire.open(guard.path);
    if (typeof odd === "string") wire.send(to, odd);
    else wire.send({ ...to, ...odd });
    assert.equal((await wire.ask("Hello")).errorName, DENIED, JSON.stringify(odd));
    assert.match(
      (await wire.ask("GetId")).text!,
      /Hello|registered|doesn't exist/,
      "the bus does not know it",
    );
  }
});

testBus("dbus mode answers denied calls, unless no reply is expected", async () => {
  const { path } = await startDaemon();
  const policy = policyOf(
    `\n  - { name: r, actions: [connect, "call ${BUS}.GetId"], allow: true }\n`,
  );
  const guard = await start({ upstream: path, policy });
  const { wire, name } = await Wire.onBus(guard.path);
  wire.send({ destination: CLOCK, flags: 1 }, "dropped");
  const serials = Array.from(
    { length: 1000 },
    () => wire.send({ destination: CLOCK }, "x".repeat(99)),
  );
  for (const serial of serials) {
    const { errorName, sender, destination, replySerial, text } = await wire.replyTo(serial);
    assert.deepEqual([errorName, sender, destination], [DENIED, BUS, name]);
    assert.deepEqual([replySerial, text], [serial, "The policy does not allow it"]);
  }
  assert.equal((await wire.ask("GetId")).type, TYPE.return);
  assert.equal((await wire.ask("ListNames")).errorName, DENIED);
  assert.equal(guard.guard.stats().requests!.outcomes.denied, 1002);
});

testBus("dbus mode rejects the connection of a user whom no rule lets connect", async () => {
  const { path } = await startDaemon();
  const guard = await start({
    upstream: path,
    policy: policyOf(`\n  - { name: r, actions: "call **", allow: true }\n`),
  });
  const end = await End.open(guard.path);
  end.send("\0AUTH EXTERNAL 30\r\nAUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
  assert.equal(await end.rest(), "REJECTED EXTERNAL\r\nDATA\r\nREJECTED EXTERNAL\r\n");
  assert.deepEqual(guard.denied, ["connect: No rule matches"]);
});

testBus("dbus mode accepts only the uid from the kernel, and no file descriptors", async () => {
  const { path } = await startDaemon();
  const guard = await start({ upstream: path });
  const end = await End.open(guard.path);
  end.send("\0AUTH EXTERNAL 31\r\nAUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n");
  assert.equal(await end.until("\r\n"), "REJECTED EXTERNAL\r\n");
  assert.match(await end.until("\r\n"), /^OK [0-9a-f]{32}/);
  assert.equal(await end.until("\r\n"), 'ERROR "File descriptors are not supported"\r\n');
  end.send(messageOf({ destination: BUS, descriptors: 1 }).toString("latin1"));
  assert.equal(await end.rest(), "");
  assert.deepEqual(guard.denied, ["message: Malformed message: it has file descriptors"]);
  assert.equal(guard.guard.stats().requests!.outcomes.malformed, 1);
});

const HOSTILE: readonly (readonly [what: string, text: string, reason: RegExp])[] = [
  ["no NUL", "AUTH EXTERNAL 30\r\n", /does not authenticate: the first byte is not NUL/],
  ["an endless line", `\0${"A".repeat(5000)}`, /a line is too long/],
  ["HTTP", "GET / HTTP/1.1\r\n\r\n", /the first byte is not NUL/],
  ["BEGIN at once", "\0BEGIN\r\n", /BEGIN before authentication/],
  ["garbage", "\0AUTH EXTERNAL 30\r\nBEGIN\r\n" + "garbage!".repeat(9), /unknown byte order/],
  [
    "a huge header",
    "\0AUTH EXTERNAL 30\r\nBEGIN\r\nl\x01\0\x01\0\0\0\0\x01\0\0\0\0\0\0\x04",
    /the header is too long/,
  ],
  [
    "a huge body",
    "\0AUTH EXTERNAL 30\r\nBEGIN\r\nl\x01\0\x01\0\0\0\xff\x01\0\0\0\x08\0\0\0",
    /the message is too long/,
  ],
];
for (const [what, text, reason] of HOSTILE) {
  testBus(`dbus mode closes the connection of a client that sends ${what}`, async () => {
    const { path, behind } = await directServer();
    const guard = await start({ upstream: path });
    const end = await End.open(guard.path);
    end.send(text);
    const server = text.includes("BEGIN\r\nl") || what === "garbage"
      ? (await Wire.accept(await behind.next())).wire
      : undefined;
    assert.doesNotMatch(await end.rest(), /org/);
    if (server !== undefined) assert.equal(await server.end.rest(), "", "nothing is forwarded");
    else assert.equal(behind.count, 0, "no connection to the upstream");
    await until(() => guard.denied.length > 0);
    assert.match(guard.denied.join("\n"), reason);
  });
}

testBus("dbus mode forwards messages without a bus, in both directions, byte by byte", async () => {
  const { path, next } = await directServer();
  const policy = policyOf(`
  - { name: r, actions: [connect, "call ${CLOCK}.*", "receive call ${CLOCK}.*"], allow: true }
`);
  const guard = await start({ upstream: path, policy });
  const client = await Wire.open(guard.path);
  const { wire: server, claim } = await next();
  assert.equal(claim, "\0AUTH EXTERNAL 30".trim());
  const message = messageOf({ serial: 5, sender: ":1.1" }, "hello");
  for (const byte of message) {
    client.end.socket.write(Buffer.of(byte));
    await new Promise((resolve) => setImmediate(resolve));
  }
  const received = await server.next();
  assert.deepEqual([received.serial, received.text, received.sender], [5, "hello", undefined]);
  server.send({ type: TYPE.return, replySerial: 6 }, "to no call");
  server.send({ type: TYPE.error, errorName: "a.b", replySerial: 5 }, "back");
  server.send({ type: TYPE.return, replySerial: 5 }, "again");
  server.send({ serial: 77 }, "call");
  server.send({ serial: 78, interface: "a.b" }, "denied");
  const reply = await client.next();
  assert.deepEqual([reply.errorName, reply.text], ["a.b", "back"]);
  assert.equal((await client.next()).text, "call");
  const denied = await server.next();
  assert.deepEqual([denied.errorName, denied.replySerial, denied.sender], [DENIED, 78, undefined]);
  client.send({ type: TYPE.return, replySerial: 77 }, "answer");
  assert.equal((await server.next()).text, "answer");
  client.send({ member: "Hello", interface: BUS, destination: BUS });
  assert.equal((await client.next()).errorName, DENIED, "a bus begins with Hello");
  assert.deepEqual(guard.denied, [
    "receive return: No call waits for this reply",
    "receive return: No call waits for this reply",
    "receive call a.b.Now: No rule matches",
    `call ${BUS}.Hello: Hello must be the first message`,
  ]);
  client.send({}, "before the end");
  client.end.end();
  assert.equal((await server.next()).text, "before the end");
  assert.equal(await server.end.rest(), "");
  server.send({ type: TYPE.return, replySerial: 3 }, "after the half-close");
  server.end.end();
  assert.equal((await client.next()).text, "after the half-close");
  assert.equal(await client.end.rest(), "");
});

testBus(
  "dbus mode closes the connection of a client that repeats the serial of an open call",
  async () => {
    const { path, next } = await directServer();
    const guard = await start({ upstream: path });
    const client = await Wire.open(guard.path);
    const { wire: server } = await next();
    client.send({ serial: 5 }, "one");
    assert.equal((await server.next()).text, "one");
    client.send({ serial: 5 }, "two");
    assert.equal(await client.end.rest(), "");
    assert.equal(await server.end.rest(), "");
    assert.deepEqual(guard.denied, ["message: Malformed message: a serial was used again"]);
    assert.equal(guard.guard.stats().requests!.outcomes.aborted, 1);
  },
);

testBus(
  "dbus mode forwards large bodies with backpressure, and errors of the guard between them",
  async () => {
    const { path, next } = await directServer();
    const policy = policyOf(
      `\n  - { name: r, actions: [connect, "call ${CLOCK}.Now"], allow: true }\n`,
    );
    const guard = await start({ upstream: path, policy });
    const client = await Wire.open(guard.path);
    const { wire: server } = await next();
    const body = "0123456789abcdef".repeat(1 << 16);
    const serial = client.send({}, body);
    const received = await server.next();
    assert.equal(received.text, body);
    const reply = messageOf({ type: TYPE.return, replySerial: serial }, body).toString("latin1");
    server.end.send(reply.slice(0, 1 << 19));
    const start1 = await client.end.bytes(1 << 16);
    const denied = client.send({ member: "Set" });
    await until(() => guard.denied.length > 0);
    server.end.send(reply.slice(1 << 19));
    assert.equal(start1 + await client.end.bytes(reply.length - (1 << 16)), reply);
    const error = await client.next();
    assert.deepEqual([error.errorName, error.replySerial], [DENIED, denied]);
  },
);

testBus("dbus mode drops replies of another client than the called one", async () => {
  const { path, behind, next } = await directServer(); // a bus that forwards replies which were not requested
  const guard = await start({ upstream: path });
  const opening = Wire.onBus(guard.path);
  const { wire: bus } = await next();
  const { serial } = await bus.next();
  bus.send({ type: TYPE.return, replySerial: serial, sender: BUS, destination: ":1.7" }, ":1.7");
  (await behind.next()).destroy(); // the guard's own connection, for the names
  const { wire: client } = await opening;
  const called = client.send({ destination: ":1.5" });
  assert.equal((await bus.next()).serial, called);
  const back = { type: TYPE.return, replySerial: called };
  bus.send({ ...back, sender: ":1.6", destination: ":1.7" }, "forged");
  bus.send({ ...back, sender: ":1.5", destination: ":1.8" }, "to another client");
  bus.send({ ...back, sender: ":1.5", destination: ":1.7" }, "right");
  assert.equal((await client.next()).text, "right");
  assert.deepEqual(guard.denied, [
    "receive return: The reply is from another client than the called one",
    "receive return: The message was sent to another client",
  ]);
});

testBus("dbus mode ends the client if the upstream rejects it or sends garbage", async () => {
  const { path, behind, next } = await directServer();
  const guard = await start({ upstream: path });
  const rejected = await Wire.open(guard.path);
  const end = await behind.next();
  await end.until("\r\n");
  end.send("REJECTED EXTERNAL\r\n");
  assert.equal(await rejected.end.rest(), "");
  assert.match(guard.lines[0]!, /it does not accept the uid 0: REJECTED EXTERNAL$/);
  const client = await Wire.open(guard.path);
  const { wire: server } = await next();
  server.end.send("garbage, garbage, garbage");
  assert.equal(await client.end.rest(), "");
  assert.equal(guard.guard.stats().upstream.failures, 2);
  await until(() => guard.guard.stats().open === 0);
});

test("dbus mode rejects a policy that tests actions without about: dbus", () => {
  const rules = (text: string) => parsePolicy(`version: 1\nrules:${text}`);
  const policies = [
    rules('\n  - { name: misspelled, actions: "cal org.example.Vault.*", deny: "no" }\n'),
    parsePolicy('version: 1\nabout: http\nrules: [{ name: a, actions: "GET /x", allow: true }]\n'),
  ];
  for (const policy of policies) {
    assert.throws(() => createGuard({ mode: "dbus", upstream: freshPath(), policy }), {
      code: "ERR_UCRED_POLICY",
      message: /actions are tested without "about: dbus"$/,
    });
  }
  const policy = rules(" [{ name: root, when: { uid: 0 }, allow: true }]\n");
  createGuard({ mode: "dbus", upstream: freshPath(), policy }); // needs no names of actions
});

testBus("dbus mode denies all if the policy fails", async () => {
  const { path } = await startDaemon();
  const all = policyOf("\n  - { name: all, allow: true }\n");
  const decide: Policy["decide"] = (peer, options) => {
    if (options?.action?.startsWith("call") === true) throw new Error("broken");
    return all.decide(peer, options);
  };
  const policy: Policy = { ...all, needsPin: false, admits: () => true, decide };
  const guard = await start({ upstream: path, policy });
  const { wire } = await Wire.onBus(guard.path);
  assert.equal((await wire.ask("GetId")).errorName, DENIED);
  assert.equal(guard.guard.stats().failed, 1);
});

testBus("ucred guard --mode dbus --as-peer shows the caller to the bus", async () => {
  const { path, address } = await startDaemon();
  await startClock(address);
  const text = `version: 1\nabout: dbus\nrules:${RULES}`;
  const guard = await Guard.start({
    upstream: path,
    mode: "dbus",
    policy: policyFile(text),
    args: ["--as-peer", "--audit", "-", "--audit-denied"],
  });
  const guarded = `unix:path=${guard.path}`;
  for (const uid of [ONE, TWO]) {
    assert.equal(await busctl(as(uid), guarded, CLOCK, "/", CLOCK, "WhoAmI"), `u ${uid}`);
  }
  assert.match(await busctl(as(ONE), guarded, ...AT, "Set", "s", "x"), /Access denied/);
  await guard.logs('"action":"call org.example.Clock.Set"');
  assert.match(guard.log, /"uid":1,/);
  const plain = await start({ upstream: path });
  assert.equal(await busctl(as(ONE), plain.address, CLOCK, "/", CLOCK, "WhoAmI"), "u 0");
});

testBus("dbus mode enforces a policy that was imported from the files of dbus-daemon", async () => {
  const file = join(temporaryFolder(), "imported.conf");
  const rules = [
    '<allow user="*"/>',
    '<deny own="*"/>',
    '<deny send_type="method_call"/>',
    '<allow send_requested_reply="true" send_type="method_return"/>',
    '<allow receive_type="method_return"/>',
    `<allow send_destination="${BUS}" send_interface="${BUS}"/>`,
    `<allow send_destination="${CLOCK}" send_interface="${CLOCK}" send_member="Now"/>`,
  ];
  const others = '<policy user="1"><allow own="org.example.One"/></policy>';
  writeFileSync(
    file,
    `<busconfig><policy context="default">${rules.join("")}</policy>${others}</busconfig>`,
  );
  const policy = definePolicy(importBusPolicy([file]), { vocabularies: [dbusVocabulary] });
  const { path, address } = await startDaemon();
  const { bus } = await startClock(address);
  const guard = await start({ upstream: path, policy });
  const call = (uid: number, ...args: string[]) => busctl(as(uid), guard.address, ...args);
  assert.equal(await call(ONE, ...AT, "Now"), 's "noon"');
  assert.equal(await call(ONE, bus.name!, PATH, CLOCK, "Now"), 's "noon"');
  assert.match(await call(ONE, ...AT, "Set", "s", "x"), /Access denied/);
  const own = [...DRIVER, "RequestName", "su", "org.example.One", "0"];
  assert.equal(await call(ONE, ...own), "u 1");
  assert.match(await call(TWO, ...own), /Access denied/);
});

testBus("dbus mode serves dbus-native", async () => {
  const { path, address } = await startDaemon();
  await startClock(address);
  const rules = RULES.replace("uid: 0", "uid: 9").replaceAll(`[${ONE}, ${TWO}]`, "0");
  const guard = await start({ upstream: path, policy: policyOf(rules) });
  const bus = await connectTo(guard.address);
  const call = (member: string) =>
    new Promise<unknown>((resolve) => {
      const to = { destination: CLOCK, path: PATH, interface: CLOCK };
      bus.invoke({ ...to, member }, (error: unknown, value: unknown) => resolve(error ?? value));
    });
  assert.equal(await call("Now"), "noon");
  const denied = await call("Set") as Error & { dbusName: string };
  assert.deepEqual([denied.dbusName, denied.message], [DENIED, "Ask root"]);
});

testBus("dbus mode follows the owners of names", async () => {
  const { path, address } = await startDaemon();
  const { bus: first } = await startClock(address);
  const rules = RULES.replace("uid: 0", "uid: 9").replaceAll(`[${ONE}, ${TWO}]`, "0");
  const guard = await start({ upstream: path, policy: policyOf(rules) });
  const { wire } = await Wire.onBus(guard.path);
  const now = (destination: string) => {
    const to = { destination, path: PATH, interface: CLOCK, member: "Now" };
    return wire.replyTo(wire.send(to));
  };
  assert.equal((await now(first.name!)).text, "noon");
  await first.releaseName(CLOCK);
  const { bus: second } = await startClock(address);
  await until(async () => (await now(second.name!)).text === "noon");
  await until(async () => (await now(first.name!)).errorName === DENIED);
});

testBus(
  "dbus mode denies calls by names of their recipients if the bus does not report them",
  async () => {
    const { path, behind, next } = await directServer(); // a bus that rejects the guard itself
    const rules = RULES.replace("uid: 0", "uid: 9").replaceAll(`[${ONE}, ${TWO}]`, "0");
    const guard = await start({ upstream: path, policy: policyOf(rules) });
    const opening = Wire.onBus(guard.path);
    const { wire: bus } = await next();
    const { serial } = await bus.next();
    bus.send({ type: TYPE.return, replySerial: serial, sender: BUS, destination: ":1.7" }, ":1.7");
    const own = await behind.next();
    await own.until("\r\n");
    own.send("REJECTED\r\n");
    const { wire: client } = await opening;
    const called = client.send({ destination: CLOCK, path: PATH });
    assert.equal((await client.replyTo(called)).errorName, DENIED);
    assert.match(
      guard.lines.join("\n"),
      /^the owners of names on the bus .* are unknown: .*REJECTED/,
    );
  },
);

testBus("dbus mode closes all connections of clients that leave at any time", async () => {
  const { path } = await startDaemon();
  const guard = await start({ upstream: path });
  const hello = messageOf({ path: "/", destination: BUS, interface: BUS, member: "Hello" });
  const whole = "\0AUTH EXTERNAL 30\r\nBEGIN\r\n" + hello.toString("latin1");
  const step = soak(13, 1);
  for (let length = 0; length <= whole.length; length += step) {
    const end = await End.open(guard.path);
    end.send(whole.slice(0, length));
    if (length % 2 === 0) end.end();
    else end.destroy();
  }
  await until(() => guard.guard.stats().open === 0);
  const { stats } = guard.guard;
  assert.equal(stats.call(guard.guard).failed, 0);
  // The bus has no connection left but that of the query.
  await until(async () => {
    const list = await run(
      "busctl",
      `--address=unix:path=${path}`,
      "list",
      "--no-legend",
      "--unique",
    );
    return list.split("\n").filter((line) => line.startsWith(":")).length === 1;
  });
});

testBus("dbus mode reports the decisions in which a candidate policy differs", async () => {
  const { path } = await startDaemon();
  const differences: string[] = [];
  const policy = shadowPolicy(policyOf(RULES), policyOf(RULES.replace("uid: 0", "uid: 9")), {
    onDifference: ({ action }) => void differences.push(String(action)),
  });
  const guard = await start({ upstream: path, policy });
  const { wire } = await Wire.onBus(guard.path);
  assert.equal((await wire.ask("GetId")).type, TYPE.return);
  assert.ok(differences.includes(`call ${BUS}.GetId`), differences.join());
});

testBus("MessageWriter waits while the other side does not read", async () => {
  const path = freshPath("up.sock");
  const server = createServer({ pauseOnConnect: true }).listen(path);
  const accepted = once(server, "connection");
  const { socket } = await End.open(path);
  const [other] = await accepted as [Socket];
  const writer = new MessageWriter(socket);
  const [part, parts] = [Buffer.alloc(65_536), 512];
  let written = 0;
  const writing = (async () => {
    writer.begin(part.length * parts);
    for (; written < parts; written++) await writer.write(part);
  })();
  let [seen, turns] = [-1, 0];
  while (turns++ < 100) {
    if (seen !== written) [seen, turns] = [written, 0];
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(written < parts / 2, `${written} of ${parts} parts`);
  other.resume();
  await writing;
  assert.equal(written, parts);
  await writer.insert(Buffer.from("x"));
  other.destroy();
  server.close();
});

testBus("withTimeout() destroys a socket whose conversation takes too long", async () => {
  const { path, behind } = await directServer();
  const end = await End.open(path);
  const reader = new ByteReader(end.socket);
  await behind.next();
  const conversation = authenticateAt(end.socket, reader, 0);
  await assert.rejects(withTimeout(end.socket, 20, conversation), /it took too long/);
  assert.equal(end.socket.destroyed, true);
});
