/** Calls on a bus, and the cache of its clients, with answers that no real bus gives. */

import assert from "node:assert/strict";
import { closeSync, openSync } from "node:fs";
import { test } from "node:test";
import type { UcredError } from "../../../core/errors.ts";
import {
  busErrorName,
  callBus,
  isUniqueName,
  isWellKnownName,
  ownerOf,
  requireBus,
} from "../../../interop/dbus/bus.ts";
import { callersOf } from "../../../interop/dbus/caller.ts";
import {
  callerOf,
  type DeniedCall,
  peerOfSender,
  requireCaller,
} from "../../../interop/dbus/mod.ts";
import { definePolicy } from "../../../policy/define.ts";
import { freshPath } from "../../support/peers.ts";
import { descriptorLinks } from "../../support/servers.ts";
import { needs, testWith, until } from "../../support/suite.ts";
import { type Deliver, errorOf, FakeBus, replyOf, type SentCall } from "./fake_bus.ts";

test("isUniqueName() and isWellKnownName() accept names of the specification alone", () => {
  const long = "a".repeat(250);
  for (const name of [":1.42", ":1.-", ":a_b.9.c", `:1.${"9".repeat(252)}`]) {
    assert.deepEqual([isUniqueName(name), isWellKnownName(name)], [true, false], name);
  }
  for (const name of ["a.b", "a.b.c", "_a.-b9", `abc.a${long}`]) {
    assert.deepEqual([isUniqueName(name), isWellKnownName(name)], [false, true], name);
  }
  const none = [
    ...[
      "",
      ":",
      "1.42",
      ":1",
      ":1.",
      ":1..2",
      ":1.42\n",
      " :1.42",
      ":1.é",
      `:1.${"9".repeat(253)}`,
    ],
    ...["a", "a.", ".a", "a..b", "9.a", "a.9", "a.b\n", "\na.b", "a b.c", `abcd.a${long}`],
    ...[[":1.42"], ["a.b"], undefined, null, 5],
  ];
  for (const name of none) {
    assert.deepEqual([isUniqueName(name), isWellKnownName(name)], [false, false], String(name));
  }
});

test("callBus() sends the call, and returns the reply", async () => {
  const reply = replyOf("s", "x");
  const bus = new FakeBus((_, deliver) => deliver(reply));
  assert.equal(await callBus(bus, { member: "GetId" }), reply);
  const { signal } = new AbortController();
  const body = ["x"];
  const call = { destination: ":1.5", path: "/a", interface: "a.b", member: "C", signature: "s" };
  const other = new FakeBus((_, deliver) => deliver({ ...reply, sender: ":1.5" }));
  await callBus(other, { ...call, body, flags: 4 }, { timeoutMs: 7, signal });
  const name = "org.freedesktop.DBus";
  const own = { type: 1, destination: name, path: "/org/freedesktop/DBus", interface: name };
  assert.deepEqual(bus.calls, [{ ...own, member: "GetId", options: { timeout: 25_000 } }]);
  assert.deepEqual(other.calls, [
    { type: 1, ...call, body, flags: 4, options: { timeout: 7, signal } },
  ]);
  assert.notEqual(other.calls[0]!.body, body, "the library may change the list");
});

test("callBus() accepts a reply only of the called name", async () => {
  const call = (destination: string | undefined, reply: object | undefined, error?: Error) => {
    const bus = new FakeBus((_, deliver) => deliver(reply, error));
    return callBus(bus, { member: "Get", ...(destination !== undefined && { destination }) });
  };
  const forged = { ...replyOf("s", "x"), sender: ":1.66" };
  for (const destination of [undefined, "org.freedesktop.DBus", ":1.5"]) {
    await assert.rejects(call(destination, forged), {
      code: "ERR_UCRED_BUS",
      message: /: the reply has the sender ":1\.66"$/,
    });
    await assert.rejects(call(destination, undefined, errorOf("a.E", ":1.66")), {
      message: /: the reply has the sender ":1\.66"$/,
    });
  }
  assert.equal(await call("org.example.Service", forged), forged);
  await assert.rejects(call("org.example.Service", undefined), {
    message:
      "Cannot call org.freedesktop.DBus.Get of org.example.Service: the library hides the reply",
    hint: "Check the connection to the bus, and the policy of the bus",
  });
  const timeout = Object.assign(new Error("timeout"), { dbusName: "a.Timeout" });
  await assert.rejects(call(undefined, undefined, timeout), (error: UcredError) => {
    assert.match(error.message, /: timeout$/);
    return error.cause === timeout && busErrorName(error) === "a.Timeout";
  });
  const hiding = new FakeBus(() => {});
  hiding.invoke = (_message, _options, callback) => callback(null);
  await assert.rejects(callBus(hiding, { member: "Get" }), {
    message: /the library hides the reply$/,
  });
  const closed = new FakeBus(() => assert.fail("it is called"));
  closed.connection.state = "disconnected";
  await assert.rejects(callBus(closed, { member: "Get" }), (error: UcredError) => {
    assert.match(error.message, /the connection to the bus is closed/);
    return busErrorName(error) === "org.freedesktop.DBus.Error.Disconnected";
  });
  for (
    const error of [undefined, null, new Error("x"), { cause: null }, { cause: { dbusName: 5 } }]
  ) {
    assert.equal(busErrorName(error), undefined);
  }
});

test("ownerOf() returns unique names and the bus itself, and rejects other answers", async () => {
  const owner = (...body: readonly unknown[]) =>
    ownerOf(new FakeBus((_, deliver) => deliver(replyOf("s", ...body))), "a.b");
  assert.equal(await owner(":1.5"), ":1.5");
  const asked = new FakeBus((_, deliver) => deliver(replyOf("s", ":1.5")));
  await ownerOf(asked, "a.b");
  const [{ member, signature, body }] = asked.calls as [SentCall];
  assert.deepEqual([member, signature, body], ["GetNameOwner", "s", ["a.b"]]);
  assert.equal(await owner("org.freedesktop.DBus"), "org.freedesktop.DBus");
  for (const answer of [[], ["a.b"], [5], [[":1.5"]]]) {
    await assert.rejects(owner(...answer), {
      code: "ERR_UCRED_BUS",
      message: /^Cannot look up the owner of a\.b: the bus returned /,
    });
  }
  const bus = (name: string) => new FakeBus((_, deliver) => deliver(undefined, errorOf(name)));
  await assert.rejects(ownerOf(bus("org.freedesktop.DBus.Error.NameHasNoOwner"), "a.b"), {
    code: "ERR_UCRED_PEER_GONE",
    message: 'Cannot identify "a.b": no connection of the bus has this name',
    hint: "Reject the message: its sender has left the bus",
  });
  await assert.rejects(ownerOf(bus("a.Other"), "a.b"), { code: "ERR_UCRED_BUS" });
});

test("requireBus() accepts a connection with a unique name alone", () => {
  const bus = new FakeBus(() => {});
  requireBus(bus, "test");
  for (
    const [name, message, hint] of [
      [null, /^Cannot test: the connection is direct/, /^Identify the peer/],
      [undefined, /^Cannot test: the bus has not answered Hello$/, /^Wait for/],
      ["", /^Cannot test: the bus has not answered Hello$/, /^Wait for/],
      ["a.b", /^Cannot test: the bus has not answered Hello$/, /^Wait for/],
    ] as const
  ) {
    bus.name = name;
    assert.throws(() => requireBus(bus, "test"), { code: "ERR_UCRED_NO_PEER", message, hint });
  }
});

const CREDENTIALS = replyOf("a{sv}", { UnixUserID: 7 });

/** Answers as a bus does, with these credentials. */
const answers = (credentials: object = CREDENTIALS) => ({ member }: SentCall, deliver: Deliver) =>
  deliver(member === "GetConnectionCredentials" ? credentials : replyOf(""));

const countOf = ({ calls }: FakeBus, wanted: string) =>
  calls.filter(({ member }) => member === wanted).length;

const here = [needs.linux, needs.native];

testWith(
  here,
  "peerOfSender() forgets a client only when the bus reports that it has left",
  async () => {
    const bus = new FakeBus(answers());
    const peer = await peerOfSender(bus, ":1.7");
    const sent = bus.calls.map(({ member, signature, body }) => [member, signature, body?.length]);
    assert.deepEqual(sent.toSorted(), [["AddMatch", "s", 1], ["GetConnectionCredentials", "s", 1]]);
    const [addMatch] = bus.calls.filter(({ member }) => member === "AddMatch");
    const [query] = bus.calls.filter(({ member }) => member === "GetConnectionCredentials");
    assert.deepEqual(query!.body, [":1.7"]);
    assert.deepEqual(addMatch!.body, [
      "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus'," +
      "member='NameOwnerChanged',arg2=''",
    ]);
    for (
      const change of [{ type: 1 }, { sender: ":1.8" }, { interface: "a.b" }, {
        member: "NameLost",
      }]
    ) bus.ownerChanged(change);
    bus.ownerChanged({}, [":1.7", "", ":1.7"]);
    bus.ownerChanged({}, [":1.8", ":1.8", ""]);
    bus.ownerChanged({ body: undefined });
    assert.equal(await peerOfSender(bus, ":1.7"), peer);
    bus.ownerChanged();
    assert.equal(callersOf(bus).size, 0);
    assert.notEqual(await peerOfSender(bus, ":1.7"), peer);
    assert.equal(countOf(bus, "AddMatch"), 1);
  },
);

testWith(
  here,
  "peerOfSender() takes the owner of a well-known name, and no other text",
  async () => {
    const bus = new FakeBus((call, deliver) =>
      call.member === "GetNameOwner" ? deliver(replyOf("s", ":1.7")) : answers()(call, deliver)
    );
    assert.equal(await peerOfSender(bus, "a.b"), await peerOfSender(bus, ":1.7"));
    const { length } = bus.calls;
    for (const name of ["", "a", ":1", "a.b\n", ":1.7\0"]) {
      await assert.rejects(peerOfSender(bus, name), TypeError);
    }
    bus.name = null;
    await assert.rejects(peerOfSender(bus, ":1.7"), { code: "ERR_UCRED_NO_PEER" });
    assert.equal(bus.calls.length, length);
  },
);

testWith(here, "peerOfSender() watches the names of each connection anew", async () => {
  for (const event of ["end", "close"]) {
    const bus = new FakeBus(answers());
    await peerOfSender(bus, ":1.7");
    const { epoch } = callersOf(bus);
    bus.connection.emit(event);
    assert.deepEqual([callersOf(bus).size, callersOf(bus).epoch], [0, epoch + 1]);
    await peerOfSender(bus, ":1.7");
    assert.equal(countOf(bus, "AddMatch"), 2, event);
  }
});

testWith(here, "peerOfSender() identifies no client whose name it cannot watch", async () => {
  let isWatching = false;
  const bus = new FakeBus((call, deliver) =>
    call.member === "AddMatch" && !isWatching
      ? deliver(undefined, errorOf("a.LimitsExceeded"))
      : answers()(call, deliver)
  );
  await assert.rejects(peerOfSender(bus, ":1.7"), { code: "ERR_UCRED_BUS" });
  assert.equal(callersOf(bus).size, 0);
  isWatching = true;
  assert.equal((await peerOfSender(bus, ":1.7")).uid, 7);
});

testWith(here, "peerOfSender() uses no credentials of an earlier connection", async () => {
  const pending: (() => void)[] = [];
  const bus = new FakeBus((call, deliver) => pending.push(() => answers()(call, deliver)));
  const lookup = peerOfSender(bus, ":1.7");
  lookup.catch(() => {});
  bus.connection.emit("close");
  for (const answer of pending) answer();
  await assert.rejects(lookup, {
    code: "ERR_UCRED_BUS",
    message: /connection to the bus was lost/,
  });
  const nameless = new FakeBus(answers(replyOf("a{sv}", {})));
  await assert.rejects(peerOfSender(nameless, ":1.7"), {
    code: "ERR_UCRED_NO_PEER",
    message: 'Cannot identify ":1.7": the bus does not know its uid',
    hint: "Reject the message",
  });
  const gone = new FakeBus((_, deliver) =>
    deliver(undefined, errorOf("org.freedesktop.DBus.Error.NameHasNoOwner"))
  );
  await assert.rejects(peerOfSender(gone, ":1.7"), { code: "ERR_UCRED_PEER_GONE" });
});

const ANYONE = definePolicy({ version: 1, rules: [{ name: "anyone", allow: true }] });
const CALL = { type: 1, sender: ":1.7", path: "/", interface: "a.b", member: "C", serial: 5 };

testWith(
  here,
  "requireCaller() drops a call if its connection closes before the decision",
  async () => {
    const pending: (() => void)[] = [];
    const bus = new FakeBus((call, deliver) => pending.push(() => answers()(call, deliver)));
    requireCaller(bus, ANYONE, { onDenied: () => assert.fail("it is denied") });
    bus.connection.on("message", () => assert.fail("a listener receives it"));
    // The number of a closed descriptor is used again. This file has no other descriptor.
    const file = freshPath();
    const fd = openSync(file, "w");
    bus.connection.emit("message", { ...CALL, fds: [fd] });
    bus.connection.emit("close");
    for (const answer of pending) answer();
    await until(() => descriptorLinks().every(([, link]) => link !== file));
    assert.deepEqual(bus.errors, [], "the name may belong to another client");
  },
);

testWith(here, "requireCaller() passes an allowed call and all other messages on", async () => {
  const bus = new FakeBus(answers());
  requireCaller(bus, ANYONE);
  const received: unknown[] = [];
  bus.connection.on("message", (message) => received.push(message));
  bus.connection.on("other", (...values) => received.push(values));
  const fd = openSync("/dev/null", "r");
  const call = { ...CALL, fds: [fd] };
  const others = [2, 3, 4].map((type) => ({ ...CALL, type }));
  for (const message of others) bus.connection.emit("message", message);
  bus.connection.emit("other", call, 1);
  assert.deepEqual(received.splice(0), [...others, [call, 1]]);
  assert.equal(bus.connection.emit("message", call), true);
  assert.deepEqual(received, [], "it is not decided yet");
  await until(() => received.length === 1);
  assert.equal(received[0], call);
  closeSync(fd); // the handler owns it
  const { peer, decision } = callerOf(call);
  assert.deepEqual([peer.uid, decision.rule, decision.allowed], [7, "anyone", true]);
  assert.throws(() => callerOf({ ...call }), {
    code: "ERR_UCRED_NO_PEER",
    message: "Cannot return the caller: requireCaller() has not allowed this message",
    hint: /^Call requireCaller\(\) before/,
  });
  for (const policy of [undefined, {}, { decide: true }]) {
    assert.throws(() => requireCaller(bus, policy as never), TypeError);
  }
  assert.throws(() => requireCaller(bus, ANYONE, { onDeny: 1 } as never), /requireCaller\(\)/);
});

testWith(
  here,
  "requireCaller() replies to the calls of this service that expect a reply",
  async () => {
    const bus = new FakeBus(answers());
    bus.names.add("a.own");
    const denied: DeniedCall[] = [];
    const rules = [{ name: "none", when: { uid: 8 }, allow: true }] as const;
    requireCaller(bus, definePolicy({ version: 1, rules }), {
      onDenied: (call) => denied.push(call),
    });
    const rows: readonly (readonly [message: object, replies: number])[] = [
      [{}, 1],
      [{ destination: ":1.1" }, 1],
      [{ destination: "a.own" }, 1],
      [{ flags: 0 }, 1],
      [{ flags: 2 }, 1],
      [{ flags: 1 }, 0],
      [{ flags: 3 }, 0],
      [{ destination: ":1.2" }, 0],
      [{ destination: "a.other" }, 0],
    ];
    for (const [at, [message, replies]] of rows.entries()) {
      bus.connection.emit("message", { ...CALL, ...message });
      await until(() => denied.length === at + 1);
      const error = ["org.freedesktop.DBus.Error.AccessDenied", "The policy does not allow it"];
      assert.deepEqual(bus.errors.splice(0), Array(replies).fill(error), JSON.stringify(message));
    }
  },
);

testWith(
  here,
  "requireCaller() gives the policy what the message has, and complete calls alone",
  async () => {
    const bus = new FakeBus(answers());
    const requests: unknown[] = [];
    const denied: DeniedCall[] = [];
    const policy = {
      ...{ needsPin: false, admits: () => true },
      decide: (_: unknown, request: unknown): never => {
        requests.push(request);
        throw new Error("undecided");
      },
    };
    requireCaller(bus, policy as never, { onDenied: (call) => denied.push(call) });
    const whole = { ...CALL, destination: "a.own", signature: "s", flags: 1 };
    bus.connection.emit("message", { ...whole, fds: [openSync("/dev/null", "r")] });
    bus.connection.emit("message", CALL);
    await until(() => denied.length === 2);
    const bare = { path: "/", interface: "a.b", member: "C", descriptors: 0 };
    assert.deepEqual(requests.splice(0), [
      {
        ...{ sender: ":1.7", action: "call a.b.C" },
        attributes: { ...bare, destination: "a.own", signature: "s", descriptors: 1 },
      },
      {
        ...{ sender: ":1.7", action: "call a.b.C" },
        attributes: { ...bare, destination: null, signature: "" },
      },
    ]);
    for (const name of ["sender", "path", "interface", "member"]) {
      for (const value of [undefined, "", "\0"]) {
        bus.connection.emit("message", { ...CALL, [name]: value });
      }
    }
    bus.name = null;
    bus.connection.emit("message", CALL);
    await until(() => denied.length === 15);
    assert.deepEqual(requests, []);
    const codes = denied.slice(2).map(({ error }) => (error as UcredError).code);
    assert.deepEqual(codes, [...Array(12).fill("ERR_UCRED_BUS"), "ERR_UCRED_NO_PEER"]);
    assert.ok(denied.every(({ decision }) => decision === undefined));
  },
);

testWith(here, "requireCaller() reports an exception of onDenied as one of a handler", async () => {
  const bus = new FakeBus(answers());
  const rules = [{ name: "none", deny: "no" }] as const;
  requireCaller(bus, definePolicy({ version: 1, rules }), {
    onDenied: () => {
      throw new Error("a mistake");
    },
  });
  const errors: Error[] = [];
  bus.connection.on("handlerError", (error) => errors.push(error));
  bus.connection.emit("message", CALL);
  await until(() => errors.length === 1);
  assert.equal(errors[0]!.message, "a mistake");
  assert.deepEqual(bus.errors.map(([, text]) => text), ["no"]);
  const silent = new FakeBus(answers());
  requireCaller(silent, definePolicy({ version: 1, rules }));
  silent.connection.on("handlerError", (error) => errors.push(error));
  silent.connection.emit("message", CALL);
  await until(() => silent.errors.length === 1);
  assert.equal(errors.length, 1);
});
