/** Callers of a service on a real dbus-daemon, as several users. */

import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { openSync } from "node:fs";
import dbus from "dbus-native";
import type { Peer } from "../../../core/peer.ts";
import {
  type Bus,
  type BusMessage,
  callerOf,
  connectionCredentials,
  dbusVocabulary,
  type DeniedCall,
  peerOfSender,
  requireCaller,
} from "../../../interop/dbus/mod.ts";
import { callersOf } from "../../../interop/dbus/caller.ts";
import { definePolicy } from "../../../policy/define.ts";
import { tool } from "../../support/guard.ts";
import { Child, freshPath } from "../../support/peers.ts";
import fc from "../../support/properties.ts";
import { descriptorLinks } from "../../support/servers.ts";
import { cases, until } from "../../support/suite.ts";
import { as, busctl, connectTo, ONE, run, startDaemon, testBus, TWO } from "./daemon.ts";

const SERVICE = "org.example.Clock";
const PATH = "/org/example/Clock";
const AT = [SERVICE, PATH, SERVICE];

/** Exports a service with methods that return the caller's uid, and counts calls of its handlers. */
async function clock(bus: dbus.MessageBus, uidOf: (message: dbus.Message) => unknown) {
  const state = { zone: "UTC", calls: [] as string[] };
  const handler = (_: unknown, { message, member }: dbus.HandlerContext) => {
    state.calls.push(member!);
    return uidOf(message!);
  };
  const definition = dbus.defineInterface({
    name: SERVICE,
    methods: {
      Now: { out: { uid: "u" }, handler },
      Set: { in: { time: "s" }, out: { uid: "u" }, handler },
    },
    properties: {
      Zone: { type: "s", get: () => state.zone, set: (zone) => state.zone = String(zone) },
    },
  });
  await bus.export(PATH, definition);
  const plain = (message: dbus.Message) => {
    state.calls.push("Plain");
    return uidOf(message);
  };
  bus.setMethodCallHandler("/plain", SERVICE, "Plain", [plain, "u"]);
  await bus.requestName(SERVICE, 0);
  return state;
}

testBus("peerOfSender() identifies callers of several users, with all groups", async () => {
  const { address } = await startDaemon();
  const bus = await connectTo(address);
  const peers: Peer[] = [];
  await clock(bus, async ({ sender }) => {
    const peer = await peerOfSender(bus, sender!);
    peers.push(peer);
    return peer.uid;
  });
  assert.equal(await busctl(as(ONE), address, ...AT, "Now"), `u ${ONE}`);
  assert.equal(await busctl([], address, ...AT, "Now"), "u 0");

  // The primary group is the highest one, and neither the first nor the last in the list of setpriv.
  const groups = [11, 12, 13, 14, 15, 16, 17, 18, 4294967294];
  await busctl(as(TWO, [4294967294, ...groups.slice(0, 8)]), address, ...AT, "Now");
  const peer = peers.at(-1)!;
  const { facts } = peer;
  assert.deepEqual([peer.uid, peer.groups], [TWO, groups]);
  assert.deepEqual(facts.uid, { state: "known", value: TWO, source: "bus@connect" });
  assert.equal(facts.groups.state === "known" && facts.groups.source, "bus@connect");
  assert.equal(facts.pid.state === "known" && facts.pid.source, "bus@connect");
  assert.deepEqual([facts.gid.state, peer.ambiguous, peer.gid], ["unknown", ["gid"], 0xffffffff]);
  assert.equal(facts.label.state, "unknown", "a label that is not reported may exist");
  assert.deepEqual([facts.pinned.state, peer.alive, peer.process.exe], [
    "unknown",
    undefined,
    undefined,
  ]);
  assert.throws(() => peer.drift(), { code: "ERR_UCRED_NOT_PINNED" });
  assert.equal(peer.toJSON().unknown?.["gid"]?.includes("does not report it"), true);
  assert.deepEqual(connectionCredentials(peer), {
    UnixUserID: ["u", TWO],
    UnixGroupIDs: ["au", groups],
    ProcessID: ["u", peer.pid],
  });
}, tool("busctl"));

testBus("a policy decides callers of a bus by uid and groups, and never by gid", async () => {
  const { address } = await startDaemon();
  const bus = await connectTo(address);
  let peer: Peer | undefined;
  await clock(bus, async ({ sender }) => (peer = await peerOfSender(bus, sender!)).uid);
  await busctl(as(ONE, [ONE, 20]), address, ...AT, "Now");
  const decides = (when: object, allow: boolean) => {
    const rule = allow ? { allow: true } : { deny: "denied" };
    const others = { name: "others", allow: true } as const;
    const rules = [{ name: "rule", when, ...rule }, ...(allow ? [] : [others])];
    const accounts = { uid: Number, gid: Number };
    return definePolicy({ version: 1, rules } as never, { accounts }).decide(peer!).allowed;
  };
  assert.deepEqual([decides({ group: "20" }, true), decides({ group: "1" }, true)], [true, true]);
  assert.deepEqual([decides({ group: "21" }, true), decides({ group: "21" }, false)], [
    false,
    true,
  ]);
  assert.equal(decides({ group: "1" }, false), false);
  assert.deepEqual([decides({ gid: ONE }, true), decides({ gid: ONE }, false)], [false, false]);
  assert.deepEqual([decides({ exe: "/bin/x" }, true), decides({ label: "x" }, true)], [
    false,
    false,
  ]);
}, tool("busctl"));

testBus("peerOfSender() caches a client until it leaves the bus", async () => {
  const { address } = await startDaemon();
  const [bus, client] = [await connectTo(address), await connectTo(address)];
  const name = client.name!;
  const [first, second] = await Promise.all([peerOfSender(bus, name), peerOfSender(bus, name)]);
  assert.equal(first, second);
  await client.requestName("org.example.Client", 0);
  assert.equal(await peerOfSender(bus, "org.example.Client"), first, "by a well-known name");
  await client.releaseName("org.example.Client");
  await assert.rejects(peerOfSender(bus, "org.example.Client"), { code: "ERR_UCRED_PEER_GONE" });
  assert.equal(await peerOfSender(bus, name), first);

  // Another client can send a signal of this name, but not as the bus.
  const forger = await connectTo(address);
  let forged = 0;
  bus.connection.on("message", ({ member, sender }) => {
    if (member === "NameOwnerChanged" && sender === forger.name) forged++;
  });
  forger.connection.message({
    ...{ type: 4, serial: 99, destination: bus.name!, path: "/org/freedesktop/DBus" },
    ...{ interface: "org.freedesktop.DBus", member: "NameOwnerChanged" },
    ...{ signature: "sss", body: [name, name, ""] },
  });
  await until(() => forged === 1);
  assert.equal(await peerOfSender(bus, name), first);

  assert.equal(callersOf(bus).size, 1);
  await client.close();
  await until(() => callersOf(bus).size === 0);
  await assert.rejects(peerOfSender(bus, name), { code: "ERR_UCRED_PEER_GONE" });
  assert.equal(callersOf(bus).size, 0, "a failure is not cached");
});

testBus("peerOfSender() rejects names that are none, and connections without a bus", async () => {
  const { address } = await startDaemon();
  const bus = await connectTo(address);
  for (const name of ["", "x", ":", ":1", ":1.", "org..x", "org.x;uid=0", "a.b\n", ":1.1\0"]) {
    await assert.rejects(peerOfSender(bus, name), TypeError, JSON.stringify(name));
  }
  const direct: Bus = Object.assign(Object.create(bus), { name: null });
  await assert.rejects(peerOfSender(direct, ":1.1"), { code: "ERR_UCRED_NO_PEER" });
  const early: Bus = Object.assign(Object.create(bus), { name: undefined });
  await assert.rejects(peerOfSender(early, ":1.1"), { code: "ERR_UCRED_NO_PEER" });
  await bus.close();
  await assert.rejects(peerOfSender(bus, ":1.1"), { code: "ERR_UCRED_BUS" });
});

testBus("peerOfSender() starts again after a reconnect to another bus", async () => {
  const daemon = await startDaemon();
  const bus = await connectTo(daemon.address, {
    reconnect: { minDelay: 10, maxDelay: 50 },
    fdTransport: false, // on Bun, the transport for descriptors does not reconnect (dbus-native 0.16.1)
  });
  const client = await connectTo(daemon.address);
  const name = client.name!;
  const first = await peerOfSender(bus, name);
  let reconnected = false;
  bus.on("reconnected", () => reconnected = true);
  await daemon.end();
  await until(() => callersOf(bus).size === 0);
  await assert.rejects(peerOfSender(bus, name), { code: "ERR_UCRED_BUS" }, "while disconnected");
  await startDaemon(daemon.path);
  await until(() => reconnected);
  // The new bus assigns the same names again, here to a client of another user.
  const [command, ...rest] = [...as(ONE), "gdbus", "monitor", "--dest=a.b"];
  new Child(command!, [...rest, `--address=${daemon.address}`]);
  await until(async () => (await bus.listNames()).includes(name));
  const second = await peerOfSender(bus, name);
  assert.deepEqual([first.uid, second.uid], [0, ONE]);
}, tool("gdbus"));

const policy = definePolicy({
  version: 1,
  about: "dbus",
  rules: [
    {
      name: "root",
      when: { uid: 0 },
      actions: ["call org.example.**", "call org.freedesktop.**"],
      allow: true,
    },
    {
      name: "readers",
      when: { uid: ONE },
      actions: [`call ${SERVICE}.Now`, `call ${SERVICE}.Plain`],
      allow: "read",
    },
    {
      name: "properties",
      when: { uid: ONE },
      actions: "call org.freedesktop.DBus.Properties.*",
      where: { member: ["Get", "GetAll"], path: PATH },
      allow: "read",
    },
    { name: "others", deny: "only for members" },
  ],
}, { vocabularies: [dbusVocabulary] });

testBus("requireCaller() decides each call before any handler runs", async () => {
  const { address } = await startDaemon();
  const bus = await connectTo(address);
  const denied: DeniedCall[] = [];
  requireCaller(bus, policy, { onDenied: (call) => denied.push(call) });
  const state = await clock(bus, (message) => {
    const { peer, decision } = callerOf(message);
    assert.equal(decision.allowed, true);
    return peer.uid;
  });
  const call = (uid: number, ...args: string[]) => busctl(as(uid), address, SERVICE, ...args);
  const PROPERTIES = "org.freedesktop.DBus.Properties";
  const DENIED = /only for members|Access denied/;
  assert.equal(await call(ONE, PATH, SERVICE, "Now"), "u 1");
  assert.equal(await call(0, PATH, SERVICE, "Set", "s", "x"), "u 0");
  assert.equal(await call(ONE, "/plain", SERVICE, "Plain"), "u 1");
  assert.equal(await call(ONE, PATH, PROPERTIES, "Get", "ss", SERVICE, "Zone"), 'v s "UTC"');
  assert.deepEqual(state.calls.splice(0), ["Now", "Set", "Plain"]);
  assert.equal(denied.length, 0);

  assert.match(await call(ONE, PATH, SERVICE, "Set", "s", "x"), DENIED);
  assert.match(await call(TWO, PATH, SERVICE, "Now"), DENIED);
  assert.match(await call(TWO, "/plain", SERVICE, "Plain"), DENIED);
  const set = ["ssv", SERVICE, "Zone", "s", "stolen"];
  assert.match(await call(ONE, PATH, PROPERTIES, "Set", ...set), DENIED);
  assert.match(await call(TWO, PATH, PROPERTIES, "Get", "ss", SERVICE, "Zone"), DENIED);
  for (const [name, member] of [["Introspectable", "Introspect"], ["Peer", "GetMachineId"]]) {
    assert.match(await call(TWO, PATH, `org.freedesktop.DBus.${name}`, member!), DENIED);
  }
  const raw = [`--bus=${address}`, `--dest=${SERVICE}`, "--print-reply", PATH, `${SERVICE}.Set`];
  const send = await run(...as(ONE), "dbus-send", ...raw, "string:x");
  assert.match(send, /org\.freedesktop\.DBus\.Error\.AccessDenied: only for members/);
  const gdbus = ["call", `--address=${address}`, `--dest=${bus.name}`, `--object-path=${PATH}`];
  const set2 = await run(...as(ONE), "gdbus", ...gdbus, `--method=${SERVICE}.Set`, "x");
  assert.match(set2, /AccessDenied: only for members/, "by the unique name");
  const calls = denied.map(({ peer, message, decision }) => {
    assert.equal(decision?.rule, "others");
    return `${peer?.uid} ${message.member}`;
  });
  // gdbus introspects the object before it calls the method.
  assert.equal(
    calls.join(),
    "1 Set,2 Now,2 Plain,1 Set,2 Get,2 Introspect,2 GetMachineId,1 Set,1 Introspect,1 Set",
  );
  assert.deepEqual([state.calls, state.zone], [[], "UTC"]);
}, ...["busctl", "gdbus", "dbus-send"].map(tool));

testBus(
  "requireCaller() denies calls that it cannot decide, and keeps the order of calls",
  async () => {
    const { address } = await startDaemon();
    const [bus, client] = [await connectTo(address), await connectTo(address)];
    const denied: DeniedCall[] = [];
    const anyone = definePolicy({ version: 1, rules: [{ name: "anyone", allow: true }] });
    requireCaller(bus, anyone, { onDenied: (call) => denied.push(call) });
    const order: unknown[] = [];
    bus.setMethodCallHandler("/", SERVICE, "Count", [
      (count: unknown) => void order.push(count),
      "",
    ]);
    const reach: string[] = [];
    bus.connection.on("message", ({ type, member }) => type === 1 && reach.push(member!));
    for (let count = 0; count < 20; count++) {
      client.invoke({
        ...{ destination: bus.name!, path: "/", interface: SERVICE, member: "Count" },
        ...{ signature: "u", body: [count] },
      }, () => {});
    }
    await until(() => order.length === 20);
    assert.deepEqual(order, [...order.keys()]);
    reach.length = 0;

    // A call without an interface: the service would choose one.
    const bare = { type: 1, destination: bus.name!, path: "/", member: "Count" };
    await assert.rejects(Promise.resolve(client.invoke(bare)), /AccessDenied|could not be checked/);
    const flags = 1; // no reply expected
    client.connection.message({ ...bare, serial: 77, flags });
    await until(() => denied.length === 2);
    assert.deepEqual(denied.map(({ peer, decision }) => [peer, decision]), [
      [undefined, undefined],
      [undefined, undefined],
    ]);

    const failing = {
      needsPin: false,
      admits: () => true,
      decide: (): never => {
        throw new Error("a mistake");
      },
    };
    requireCaller(bus, failing, { onDenied: (call) => denied.push(call) });
    const ping = { ...bare, interface: SERVICE };
    await assert.rejects(Promise.resolve(client.invoke(ping)), /could not be checked/);
    assert.match(String(denied.at(-1)!.error), /a mistake/);
    assert.deepEqual(reach, [], "no listener of the connection receives a denied call");
    assert.throws(() => callerOf(ping), { code: "ERR_UCRED_NO_PEER" });
    assert.throws(() => requireCaller(bus, undefined as never), TypeError);
    assert.throws(() => requireCaller(bus, anyone, { onDeny: 1 } as never), /no option/);
  },
);

testBus("requireCaller() denies callers that the bus does not identify", async () => {
  const deny = '<deny send_destination="org.freedesktop.DBus" ' +
    'send_interface="org.freedesktop.DBus" send_member="GetConnectionCredentials"/>';
  const { address } = await startDaemon(undefined, deny);
  const [bus, client] = [await connectTo(address), await connectTo(address)];
  const denied: DeniedCall[] = [];
  const anyone = definePolicy({ version: 1, rules: [{ name: "anyone", allow: true }] });
  requireCaller(bus, anyone, { onDenied: (call) => denied.push(call) });
  let calls = 0;
  bus.setMethodCallHandler("/", SERVICE, "Count", [() => void calls++, ""]);
  const call = { destination: bus.name!, path: "/", interface: SERVICE, member: "Count" };
  await assert.rejects(Promise.resolve(client.invoke(call)), /could not be checked/);
  assert.equal((denied[0]!.error as { code: string }).code, "ERR_UCRED_BUS");
  assert.equal(calls, 0);
});

testBus("peerOfSender() accepts credentials only from the bus", async () => {
  // This bus delivers replies that were not requested.
  const { address } = await startDaemon(
    undefined,
    '<allow send_requested_reply="false" send_type="method_return"/>' +
      '<allow receive_requested_reply="false" receive_type="method_return"/>',
  );
  const [bus, forger] = [await connectTo(address), await connectTo(address)];
  const denied: DeniedCall[] = [];
  const rules = [{ name: "4242", when: { uid: 4242 }, allow: true }] as const;
  requireCaller(bus, definePolicy({ version: 1, rules }), {
    onDenied: (call) => denied.push(call),
  });
  let replies = 0;
  bus.connection.on("message", ({ type, sender }) => {
    if (type === 2 && sender === forger.name) replies++;
  });
  const to = { destination: bus.name! };
  const call = { ...to, path: "/", interface: SERVICE, member: "Now" };
  const refused = Promise.resolve(forger.invoke(call));
  for (let serial = 0; serial < 20; serial++) {
    const body = [[["UnixUserID", ["u", 4242]]]];
    const forged = { type: 2, serial: 900 + serial, replySerial: bus.serial + serial };
    forger.connection.message({ ...forged, ...to, signature: "a{sv}", body });
  }
  await assert.rejects(refused, /could not be checked/);
  await until(() => replies === 20);
  assert.match(String(denied[0]!.error), /the reply has the sender ":1\.1"/);
});

testBus(
  "requireCaller() decides messages of unknown types, which dbus-native runs as calls",
  async () => {
    const { address } = await startDaemon();
    const [bus, client] = [await connectTo(address), await connectTo(address)];
    let calls = 0;
    bus.setMethodCallHandler("/", SERVICE, "Now", [() => void calls++, ""]);
    const rules = [{ name: "nobody", deny: "no" }] as const;
    const denied: DeniedCall[] = [];
    requireCaller(bus, definePolicy({ version: 1, rules }), {
      onDenied: (call) => denied.push(call),
    });
    const message = { serial: 1, flags: 1, sender: client.name, path: "/", interface: SERVICE };
    for (const type of [0, 1, 5, undefined]) {
      bus.connection.emit("message", { ...message, type, member: "Now" });
    }
    for (
      const broken of [{ path: "x" }, { path: "/a//b" }, { sender: "org.x" }, { sender: undefined }]
    ) {
      bus.connection.emit("message", { ...message, ...broken, type: 1, member: "Now" });
    }
    for (
      const [name, member] of [["a", "B"], ["a.b", "B.C"], ["a.b\n", "B"], ["a..b", "B"], ["", "B"]]
    ) {
      bus.connection.emit("message", { ...message, type: 1, interface: name, member });
    }
    const file = freshPath();
    const fd = openSync(file, "w");
    bus.connection.emit("message", { ...message, type: 1, member: "Now", fds: [fd] });
    await until(() => denied.length === 14);
    assert.equal(calls, 0);
    const isOpen = descriptorLinks().some(([, link]) => link === file);
    assert.equal(isOpen, false, "descriptors of a denied call are closed");
  },
);

testBus(
  "a call of an undeclared member throws in dbus-native 0.16.1, if the policy allows it",
  async () => {
    const { address } = await startDaemon();
    const [bus, client] = [await connectTo(address), await connectTo(address)];
    const errors: Error[] = [];
    bus.connection.on("handlerError", (error) => errors.push(error));
    const actions = { all: `call ${SERVICE}.*`, declared: `call ${SERVICE}.Now` };
    const allowing = (actions: string) =>
      definePolicy({ version: 1, rules: [{ name: "anyone", actions, allow: true }] });
    const clock = Object.assign(new EventEmitter(), { Now: () => 1 });
    bus.exportInterface(clock, PATH, { name: SERVICE, methods: { Now: ["", "u", [], []] } });
    const call = { destination: bus.name!, path: PATH, interface: SERVICE };
    const emit = { ...call, member: "emit", signature: "s", body: ["x"] };
    requireCaller(bus, allowing(actions.all));
    client.invoke({ ...emit }, () => {});
    await until(() => errors.length === 1);
    assert.match(errors[0]!.message, /undefined/);
    requireCaller(bus, allowing(actions.declared));
    await assert.rejects(Promise.resolve(client.invoke({ ...emit })), /does not allow/);
    assert.equal(await client.invoke({ ...call, member: "Now" }), 1);
    assert.equal(errors.length, 1);
  },
);

testBus("requireCaller() runs a handler only for messages that the policy allows", async () => {
  const { address } = await startDaemon();
  const [bus, client] = [await connectTo(address), await connectTo(address)];
  const rule = {
    name: "one",
    actions: "call a.B.Run",
    where: { path: "/x", signature: "s" },
  } as const;
  const rules = [{ ...rule, allow: true }] as const;
  const options = { vocabularies: [dbusVocabulary] };
  let denied = 0;
  requireCaller(bus, definePolicy({ version: 1, about: "dbus", rules }, options), {
    onDenied: () => denied++,
  });
  const ran: BusMessage[] = [];
  const isCall = ({ type }: BusMessage) => type !== 2 && type !== 3 && type !== 4;
  bus.connection.on("message", (message) => isCall(message) && ran.push(message));
  const field = (right: string, ...wrong: (string | undefined)[]) =>
    fc.oneof(
      { weight: 8, arbitrary: fc.constant(right) },
      { weight: 2, arbitrary: fc.constantFrom(...wrong) },
    );
  const message = fc.record({
    type: fc.constantFrom(0, 1, 5, 255),
    path: field("/x", "/", "/x/", "/x\n", undefined),
    interface: field("a.B", "a.B.Run", "a", "a.b", "a.B\0", "__proto__.B", undefined),
    member: field("Run", "run", "B.Run", "", "Run\n", "constructor", undefined),
    signature: field("s", "", "ss", undefined),
    sender: field(client.name!, ":9.9", "a.B", "org.freedesktop.DBus", undefined),
    destination: field(bus.name!, "a.B", undefined),
  }, { noNullPrototype: true });
  let expected = 0;
  const property = fc.asyncProperty(fc.array(message, { maxLength: 20 }), async (messages) => {
    const isAllowed = (each: BusMessage) =>
      each.path === "/x" && each.interface === "a.B" && each.member === "Run" &&
      each.signature === "s" && each.sender === client.name;
    const [before, wanted] = [ran.length, messages.filter(isAllowed)];
    const total = (expected += messages.length);
    for (const each of messages) {
      bus.connection.emit("message", { ...each, flags: 1, serial: 1000 });
    }
    await until(() => ran.length + denied === total);
    assert.equal(ran.length - before, wanted.length);
    assert.ok(ran.slice(before).every((each) => isAllowed(each)));
  });
  await fc.assert(property, { numRuns: cases(200) });
  assert.ok(ran.length > 0 && denied > 0);
});
