/** Attacks on a guard in D-Bus mode, by its clients and by other clients of the bus. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { encodeTextArray, readTextArray, TYPE } from "../../interop/dbus/message.ts";
import { dbusVocabulary } from "../../interop/dbus/mod.ts";
import { parsePolicy } from "../../policy/mod.ts";
import { connectTo, startDaemon, testBus } from "../interop/dbus/daemon.ts";
import { guardHere } from "../support/guard_here.ts";
import { BUS, directServer, messageOf, type Received, Wire } from "./dbus_wire.ts";

const SECRET = "org.example.Secret";
const LIMIT = `${BUS}.Error.LimitsExceeded`;
const DRIVER = { path: "/org/freedesktop/DBus", interface: BUS, destination: BUS };

/** Starts a guard whose clients may call the bus, and receive signals of the clock, but see no names. */
async function start(upstream: string) {
  const policy = parsePolicy(
    `
version: 1
about: dbus
rules:
  - { name: connect, actions: connect, allow: true }
  - { name: the bus, actions: "call ${BUS}.*", where: { destination: ${BUS} }, allow: true }
  - { name: the clock, actions: call org.example.Clock.Now, allow: true }
  - name: signals of the clock
    actions: "receive signal org.example.Clock.*"
    where: { senderNames: { some: org.example.Clock } }
    allow: true
`,
    { vocabularies: [dbusVocabulary] },
  );
  return await guardHere({ mode: "dbus", policy, upstream });
}

/** Connects to a guard in front of a bus that the test plays. It does not report the owners of names. */
async function onPlayedBus() {
  const { path, behind, next } = await directServer();
  const { path: guarded } = await start(path);
  const opening = Wire.onBus(guarded);
  const { wire: bus } = await next();
  const { serial } = await bus.next();
  bus.send({ type: TYPE.return, replySerial: serial, sender: BUS, destination: ":1.7" }, ":1.7");
  (await behind.next()).destroy(); // the guard's own connection
  return { bus, client: (await opening).wire };
}

const textsOf = ({ signature, body, isLittleEndian }: Received) =>
  signature === "as" ? readTextArray(body, isLittleEndian) : [];

testBus("dbus mode hides names from a list that is requested without a reply", async () => {
  const { path, address } = await startDaemon();
  await (await connectTo(address)).requestName(SECRET, 0);
  const guard = await start(path);
  const { wire, name } = await Wire.onBus(guard.path);
  for (const member of ["ListNames", "ListActivatableNames"]) {
    const serial = wire.send({ ...DRIVER, member, flags: 1 });
    wire.send({ ...DRIVER, member: "GetId", serial }); // dbus-daemon would send two replies
    assert.equal((await wire.replyTo(serial)).signature, "s", member);
  }
  const listed = textsOf(await wire.ask("ListNames"));
  assert.deepEqual([...listed].sort(), [name, BUS].sort());
});

testBus("dbus mode forgets no call that waits, so that its serial stays in use", async () => {
  const { bus, client } = await onPlayedBus();
  const list = client.send({ ...DRIVER, member: "ListNames" });
  const calls = Array.from(
    { length: 4096 },
    (_, at) => messageOf({ ...DRIVER, member: "GetId", serial: 1000 + at }),
  );
  client.end.send(Buffer.concat(calls).toString("latin1"));
  const denied = await client.next();
  assert.deepEqual([denied.errorName, denied.replySerial], [LIMIT, 1000 + 4095]);
  for (let received = await bus.next(); received.serial !== 1000 + 4094;) {
    received = await bus.next();
  }
  const body = encodeTextArray([SECRET], true);
  const reply = { type: TYPE.return, sender: BUS, destination: ":1.7", replySerial: list };
  const head = messageOf({ ...reply, signature: "as", bodyLength: body.length });
  bus.end.send(Buffer.concat([head, body]).toString("latin1"));
  assert.deepEqual(textsOf(await client.replyTo(list)), []);
  const next = client.send({ ...DRIVER, member: "GetId" });
  assert.equal((await bus.next()).serial, next, "a call has ended");
});

testBus("dbus mode limits the memory of calls that wait", async () => {
  const { bus, client } = await onPlayedBus();
  const path = "/" + "a".repeat(60_000);
  const serials = Array.from(
    { length: 19 },
    () => client.send({ ...DRIVER, path, member: "GetId" }),
  );
  assert.equal((await client.next()).errorName, LIMIT);
  for (let at = 0; at < 18; at++) {
    const reply = { type: TYPE.return, sender: BUS, destination: ":1.7" };
    bus.send({ ...reply, replySerial: serials[at]! }, "id");
    assert.equal((await client.next()).text, "id");
  }
  const again = client.send({ ...DRIVER, path, member: "GetId" });
  while ((await bus.next()).serial !== again);
});

testBus("dbus mode survives messages of other clients that it cannot parse", async () => {
  const { path, address } = await startDaemon(undefined, '<allow send_destination="*"/>');
  const clock = await connectTo(address);
  const guard = await start(path);
  const { wire, name } = await Wire.onBus(guard.path);
  await wire.ask("GetId"); // the guard's connection for the owners of names is there
  await clock.requestName("org.example.Clock", 0);
  const own = `:1.${Number(name.slice(3)) + 1}`; // that connection
  const { wire: other } = await Wire.onBus(path);
  assert.equal((await other.ask("GetConnectionUnixUser", own)).type, TYPE.return);
  for (const destination of [name, own]) {
    const signal = { type: TYPE.signal, interface: "org.example.X", member: "X", destination };
    other.send({ ...signal, path: "/" + "a".repeat(70_000) }, "a body");
    const ofUnknownType = messageOf({ ...signal, serial: 900_000 }, "a body");
    ofUnknownType[1] = 5;
    other.end.send(ofUnknownType.toString("latin1"));
  }
  assert.equal((await other.ask("GetId")).type, TYPE.return);
  const tick = { type: 4, path: "/", interface: "org.example.Clock", member: "Tick", serial: 99 };
  clock.connection.message({ ...tick, destination: name });
  assert.equal((await wire.next()).member, "Tick", "the guard still knows the owner of the name");
});

testBus("dbus mode does not wait for a list of names that is too long", async () => {
  const { path, next } = await directServer();
  const guard = await start(path);
  const opening = Wire.onBus(guard.path);
  const { wire: bus } = await next();
  const reply = { type: TYPE.return, sender: BUS };
  const { serial } = await bus.next();
  bus.send({ ...reply, replySerial: serial, destination: ":1.7" }, ":1.7");
  const { wire: own } = await next();
  let request = await own.next();
  while (request.member !== "ListNames") request = await own.next();
  const length = (1 << 20) + 1;
  const head = messageOf({
    ...reply,
    replySerial: request.serial,
    signature: "as",
    bodyLength: length,
  });
  own.end.send(head.toString("latin1") + "\0".repeat(length));
  const { wire: client } = await opening;
  const call = client.send({ ...DRIVER, member: "GetId" });
  assert.equal((await bus.next()).serial, call);
});

testBus("dbus mode gives policies no destination without a bus, and removes it", async () => {
  const { path, next } = await directServer();
  const guard = await start(path);
  const client = await Wire.open(guard.path);
  const { wire: server } = await next();
  const denied = client.send({ ...DRIVER, interface: `${BUS}.Properties`, member: "Set" });
  assert.equal((await client.replyTo(denied)).errorName, `${BUS}.Error.AccessDenied`);
  client.send({ member: "Now", destination: "org.example.Clock" });
  const { member, destination } = await server.next();
  assert.deepEqual([member, destination], ["Now", undefined]);
});

testBus("dbus mode hides names from methods of the bus that a distribution has added", async () => {
  const { bus, client } = await onPlayedBus();
  const hidden = await client.ask("GetConnectionAppArmorSecurityContext", SECRET);
  assert.equal(hidden.errorName, `${BUS}.Error.NameHasNoOwner`);
  const own = client.send({ ...DRIVER, member: "GetConnectionAppArmorSecurityContext" }, ":1.7");
  assert.equal((await bus.next()).serial, own, "the client sees itself");
});

testBus(
  "dbus mode does not believe that a server is a bus if the server rejects Hello",
  async () => {
    const { path, next } = await directServer();
    const guard = await start(path);
    const client = await Wire.open(guard.path);
    const { wire: server } = await next();
    const hello = client.send({ ...DRIVER, member: "Hello" });
    const errorName = `${BUS}.Error.UnknownMethod`;
    server.send({ type: TYPE.error, replySerial: (await server.next()).serial, errorName });
    assert.equal((await client.replyTo(hello)).errorName, errorName);
    const denied = client.send({ ...DRIVER, interface: `${BUS}.Properties`, member: "Set" });
    assert.equal((await client.replyTo(denied)).errorName, `${BUS}.Error.AccessDenied`);
    client.send({ member: "Now", destination: "org.example.Clock" });
    assert.equal((await server.next()).destination, undefined);
  },
);

testBus("dbus mode drops forged replies to calls of a well-known name", async () => {
  const asOnSessionBus = '<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>';
  const { path } = await startDaemon(undefined, asOnSessionBus);
  const guard = await start(path);
  const { wire, name } = await Wire.onBus(guard.path);
  const { wire: clock } = await Wire.onBus(path);
  const { wire: forger } = await Wire.onBus(path);
  const destination = "org.example.Clock";
  await clock.ask("RequestName", destination, 0);
  await wire.ask("GetId");
  const serial = wire.send({ destination });
  while ((await clock.next()).member !== "Now");
  const reply = { type: TYPE.return, destination: name, replySerial: serial };
  forger.send(reply, "forged");
  await forger.ask("GetId");
  await clock.ask("ReleaseName", destination);
  clock.send(reply, "noon");
  assert.equal((await wire.replyTo(serial)).text, "noon");
});
