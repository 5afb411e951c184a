/** Authorizations by a real polkitd, for peers of several users. */

import assert from "node:assert/strict";
import type { Socket } from "node:net";
import process from "node:process";
import { test } from "node:test";
import type { MessageBus } from "dbus-native";
import { Hono } from "hono";
import { createClient } from "../../../client/mod.ts";
import type { Peer } from "../../../core/peer.ts";
import { UcredError } from "../../../core/errors.ts";
import { identify } from "../../../identity/identify.ts";
import {
  checkAuthorization,
  type CheckAuthorizationOptions,
  type DeniedRequest,
  requirePolkit,
} from "../../../interop/polkit/mod.ts";
import { callBus } from "../../../interop/dbus/bus.ts";
import { serve } from "../../../servers/http.ts";
import { tool } from "../../support/guard.ts";
import { isIdentityMap, keepsEveryUid } from "../../../system/overflow_ids.ts";
import { failCalls, fakePeer } from "../../../testing/mod.ts";
import { actorProgram, freshPath, meet, startActor, withIds } from "../../support/peers.ts";
import { needs, testWith, until } from "../../support/suite.ts";
import { as, connectTo, ONE, run, startDaemon, TWO } from "../dbus/daemon.ts";
import { type Deliver, errorOf, FakeBus, replyOf, type SentCall } from "../dbus/fake_bus.ts";
import { Polkitd, startPolkit, testPolkit } from "./polkitd.ts";

/** Runs `look` with the pinned peer of a process of a user. */
async function withPeer<T>(uid: number, look: (peer: Peer) => Promise<T>): Promise<T> {
  const options = ["--resgid", `${uid},${uid},${uid}`, "--resuid", `${uid},${uid},${uid}`];
  const [found] = await meet(options, async (socket) => {
    const peer = identify(socket, { pin: true });
    try {
      return await look(peer);
    } finally {
      peer.close();
    }
  });
  return await found;
}

/** What becomes of a check: the outcome, or the code of the error. */
async function outcomeOf(
  peer: Parameters<typeof checkAuthorization>[0],
  action: string,
  options: CheckAuthorizationOptions,
): Promise<string> {
  try {
    const { authorized, outcome } = await checkAuthorization(peer, action, options);
    assert.equal(authorized, outcome === "authorized");
    return outcome;
  } catch (error) {
    return error instanceof UcredError ? error.code : String(error);
  }
}

testPolkit("checkAuthorization() returns what polkitd decides, for several users", async () => {
  const { bus } = await startPolkit();
  const yes = { yes: "authorized", no: "denied", auth: "challenge", "no with unit": "authorized" };
  for (
    const [uid, expected] of [
      [ONE, yes],
      [TWO, { ...yes, "no with unit": "denied" }],
      [0, { ...yes, no: "authorized", auth: "authorized" }],
    ] as const
  ) {
    await withPeer(uid, async (peer) => {
      const found = {
        yes: await outcomeOf(peer, "org.example.yes", { bus }),
        no: await outcomeOf(peer, "org.example.no", { bus }),
        auth: await outcomeOf(peer, "org.example.auth", { bus }),
        "no with unit": await outcomeOf(peer, "org.example.no", { bus, details: { unit: "x" } }),
      };
      assert.deepEqual(found, expected, `uid ${uid}`);
      assert.equal(await outcomeOf(peer, "org.example.unknown", { bus }), "ERR_UCRED_BUS");
    });
  }
});

testPolkit("checkAuthorization() passes the details of polkitd on", async () => {
  const { bus } = await startPolkit();
  await withPeer(ONE, async (peer) => {
    const { details } = await checkAuthorization(peer, "org.example.auth", { bus });
    assert.equal(details["polkit.retains_authorization_after_challenge"], "1");
  });
});

testPolkit("checkAuthorization() reports a challenge if no agent can ask", async () => {
  const { bus } = await startPolkit();
  await withPeer(ONE, async (peer) => {
    const options = { bus, interactive: true };
    assert.equal(await outcomeOf(peer, "org.example.auth", options), "challenge");
  });
});

testPolkit("checkAuthorization() authorizes the sender of a message on the bus", async () => {
  const { bus } = await startPolkit();
  assert.equal(await outcomeOf({ sender: bus.name! }, "org.example.no", { bus }), "authorized");
  assert.equal(await outcomeOf({ sender: ":1.999" }, "org.example.no", { bus }), "ERR_UCRED_BUS");
  await assert.rejects(
    checkAuthorization({ sender: "org.example" }, "org.example.no", { bus }),
    { name: "TypeError", message: /no unique name/ },
  );
});

testPolkit("checkAuthorization() refuses peers that polkit could confuse", async () => {
  const { bus } = await startPolkit();
  const options = ["--resuid", "4000000000,4000000000,4000000000"];
  const [large] = await meet(options, async (socket) => {
    const peer = identify(socket, { pin: true });
    const found = await outcomeOf(peer, "org.example.yes", { bus });
    peer.close();
    return found;
  });
  assert.equal(await large, "ERR_UCRED_NO_PEER");
  const [bare] = await meet(
    [],
    (socket) => outcomeOf(identify(socket), "org.example.yes", { bus }),
  );
  assert.equal(await bare, "ERR_UCRED_NOT_PINNED");
  const [closed] = await meet([], (socket) => {
    const peer = identify(socket, { pin: true });
    peer.close();
    return outcomeOf(peer, "org.example.yes", { bus });
  });
  assert.equal(await closed, "ERR_UCRED_PEER_GONE");
  const [foreign] = await meet(["--unshare-user"], async (socket) => {
    const peer = identify(socket, { pin: true });
    const found = await outcomeOf(peer, "org.example.no", { bus });
    peer.close();
    return found;
  });
  // The namespace is the peer's own: in ours it is root, whose process polkitd authorizes.
  assert.equal(await foreign, "authorized");
});

testPolkit("checkAuthorization() rejects if the peer ends before the answer", async () => {
  const { bus, polkitd } = await startPolkit();
  const words = withIds({ uid: ONE, gid: ONE, groups: [] }) as [string, ...string[]];
  const pin = (socket: Socket) => identify(socket, { pin: true });
  const [peer] = await startActor([], pin, [...words, actorProgram]);
  polkitd.freeze();
  const found = outcomeOf(peer, "org.example.yes", { bus });
  await bus.getId(); // the bus has received the call before
  process.kill(peer.pid!, "SIGKILL");
  await until(() => peer.alive !== true); // the peer closes with its connection
  polkitd.thaw();
  const outcome = await found;
  assert.ok(["ERR_UCRED_PEER_GONE", "ERR_UCRED_BUS"].includes(outcome), outcome);
  peer.close();
});

testPolkit(
  "checkAuthorization() rejects if polkitd ends in between, and works with the next",
  async () => {
    const { bus, polkitd } = await startPolkit();
    await withPeer(ONE, async (peer) => {
      polkitd.freeze();
      const found = outcomeOf(peer, "org.example.yes", { bus });
      await bus.getId();
      await polkitd.kill();
      assert.equal(await found, "ERR_UCRED_BUS");
      await assert.rejects(checkAuthorization(peer, "org.example.yes", { bus }), {
        code: "ERR_UCRED_BUS",
        message: /^Cannot reach polkitd: .* not provided by any .service files$/,
        hint: "Install polkit, and start its daemon, polkitd",
      });
      await polkitd.restart();
      assert.equal(await outcomeOf(peer, "org.example.yes", { bus }), "authorized");
    });
  },
);

testPolkit(
  "checkAuthorization() rejects with the signal's reason, and after its timeout",
  async () => {
    const { bus, polkitd } = await startPolkit();
    await withPeer(ONE, async (peer) => {
      polkitd.freeze();
      const controller = new AbortController();
      const { signal } = controller;
      const found = checkAuthorization(peer, "org.example.yes", { bus, signal });
      await bus.getId();
      controller.abort(new Error("hung up"));
      await assert.rejects(found, { message: "hung up" });
      const late = checkAuthorization(peer, "org.example.yes", { bus, timeoutMs: 50 });
      await assert.rejects(late, { code: "ERR_UCRED_BUS" });
      const already = AbortSignal.abort(new Error("before"));
      const none = checkAuthorization(peer, "org.example.yes", { bus, signal: already });
      await assert.rejects(none, { message: "before" });
      polkitd.thaw();
    });
  },
);

test("checkAuthorization() and requirePolkit() reject options of another type", async () => {
  const bus = {} as CheckAuthorizationOptions["bus"];
  const wrong = [
    {},
    { bus: null },
    { bus, interactive: "false" },
    { bus, details: "xy" },
    { bus, details: { a: 1 } },
    { bus, details: ["a"] },
    { bus, timeoutMs: -1 },
    { bus, timeoutMs: NaN },
    { bus, timeoutMs: 2 ** 31 },
    { bus, timeoutMs: 2 ** 31 - 1000 },
    { bus, timeoutMs: 1.5 },
    { bus, details: null },
    { bus, signal: {} },
    { bus, interactve: true },
  ] as unknown as CheckAuthorizationOptions[];
  for (const options of wrong) {
    await assert.rejects(checkAuthorization({ sender: ":1.1" }, "a.b", options), TypeError);
    assert.throws(() => requirePolkit("a.b", options), TypeError);
  }
  assert.throws(() => requirePolkit("a b", { bus }), TypeError);
});

test("isIdentityMap() accepts the map of the initial user namespace alone", () => {
  assert.equal(isIdentityMap("         0          0 4294967295\n"), true);
  const others = ["", "0 0 65536\n", "0 100000 65536\n", "0 1 4294967294\n", "0 100000 1\n1 1 1\n"];
  for (const map of [...others, "0 1 1\n1 0 1\n2 2 4294967293\n"]) {
    assert.equal(isIdentityMap(map), false, map);
  }
});

/** A bus with a polkitd that answers in any way. */
function fakePolkit(answer: (call: SentCall, deliver: Deliver) => void): FakeBus {
  return new FakeBus((call, deliver) =>
    call.member === "GetNameOwner" ? deliver(replyOf("s", ":1.5")) : answer(call, deliver)
  );
}

const SENDER = { sender: ":1.2" };

test("checkAuthorization() accepts an answer with the types of polkit's interface alone", async () => {
  const outcomeFor = (signature: string | undefined, ...body: readonly unknown[]) => {
    const reply = { sender: ":1.5", signature, body };
    return outcomeOf(SENDER, "a.b", { bus: fakePolkit((_, deliver) => deliver(reply as never)) });
  };
  const type = "(bba{ss})";
  assert.equal(await outcomeFor(type, [true, false, []]), "authorized");
  assert.equal(await outcomeFor(type, [true, true, {}]), "authorized");
  assert.equal(await outcomeFor(type, [false, true, { x: "y" }]), "challenge");
  assert.equal(await outcomeFor(type, [false, true, [["polkit.dismissed", "true"]]]), "dismissed");
  assert.equal(await outcomeFor(type, [false, true, { "polkit.dismissed": "false" }]), "challenge");
  assert.equal(await outcomeFor(type, [false, false, {}]), "denied");
  const wrong: readonly unknown[] = [
    ...[undefined, true, null, {}, [], [true], [true, false], [true, false, {}, 1]],
    ...[[1, false, {}], ["true", false, {}], [{}, false, {}], [true, 0, {}], [true, null, {}]],
    ...[[true, false, null], [true, false, undefined], [true, false, "x"], [true, false, [5]]],
    ...[[true, false, [["a"]]], [true, false, [[1, "b"]]], [true, false, { a: 1 }]],
  ];
  for (const body of wrong) {
    assert.equal(await outcomeFor(type, body), "ERR_UCRED_BUS", JSON.stringify(body));
  }
  for (const signature of ["(bba{sv})", "bba{ss}", "", undefined]) {
    assert.equal(await outcomeFor(signature, [true, false, {}]), "ERR_UCRED_BUS", `${signature}`);
  }
  assert.equal(await outcomeFor(type), "ERR_UCRED_BUS");
});

test("checkAuthorization() sends the subject, the action, the details and the flag", async () => {
  const authorized = { sender: ":1.5", signature: "(bba{ss})", body: [[true, false, {}]] };
  const bus = fakePolkit((_, deliver) => deliver(authorized));
  const details = { unit: "x", verb: "y" };
  await checkAuthorization(SENDER, "a.b", { bus, details, interactive: true });
  await checkAuthorization(SENDER, "a.b", { bus, timeoutMs: 7 });
  const [first, second] = bus.calls.filter(({ member }) => member === "CheckAuthorization");
  const { options: { timeout }, body: [subject, action, pairs, flags, id] = [], ...call } = first!;
  const path = "/org/freedesktop/PolicyKit1/Authority";
  assert.deepEqual(call, {
    ...{ type: 1, destination: ":1.5", path, interface: "org.freedesktop.PolicyKit1.Authority" },
    ...{ member: "CheckAuthorization", signature: "(sa{sv})sa{ss}us" },
  });
  assert.deepEqual([timeout, subject, action, pairs, flags], [
    601_000,
    ["system-bus-name", [["name", ["s", ":1.2"]]]],
    "a.b",
    [["unit", "x"], ["verb", "y"]],
    1,
  ]);
  assert.match(String(id), /^[0-9a-f-]{36}$/);
  assert.deepEqual([second!.options.timeout, second!.body![2], second!.body![3]], [1007, [], 0]);
  assert.notEqual(second!.body![4], id);
  const [owner] = bus.calls;
  assert.deepEqual([owner!.member, owner!.body], ["GetNameOwner", ["org.freedesktop.PolicyKit1"]]);
  // The check of 7 ms would have another limit without its own signal.
  assert.equal(owner!.options.signal instanceof AbortSignal, true);
});

test("checkAuthorization() explains why polkitd does not answer", async () => {
  const rejected = (name: string) =>
    checkAuthorization(SENDER, "a.b", {
      bus: fakePolkit((_, deliver) => deliver(undefined, errorOf(name, ":1.5"))),
    });
  await assert.rejects(rejected("org.freedesktop.PolicyKit1.Error.NotAuthorized"), {
    code: "ERR_UCRED_BUS",
    message:
      "Cannot check the authorization for a.b: polkitd answers this question only for root " +
      "and the owner of the action",
    hint: /org\.freedesktop\.policykit\.owner$/,
  });
  await assert.rejects(rejected("a.Other"), { message: /: the error a\.Other$/ });
  const slow = fakePolkit(({ member, options }, deliver) => {
    if (member !== "CheckAuthorization") return;
    const late = () => deliver(undefined, errorOf("a.Aborted", ":1.5"));
    options.signal!.addEventListener("abort", late);
  });
  await assert.rejects(checkAuthorization(SENDER, "a.b", { bus: slow, timeoutMs: 1 }), {
    code: "ERR_UCRED_BUS",
    message: /: the error a\.Aborted$/,
  });
  assert.equal(slow.calls.at(-1)!.member, "CancelCheckAuthorization");
  const direct = fakePolkit(() => assert.fail("polkitd is queried"));
  direct.name = null;
  await assert.rejects(checkAuthorization(SENDER, "a.b", { bus: direct }), {
    code: "ERR_UCRED_NO_PEER",
    message: /^Cannot check the authorization for a\.b: the connection is direct/,
  });
  const limited = new FakeBus((_, deliver) => deliver(undefined, errorOf("a.LimitsExceeded")));
  await assert.rejects(checkAuthorization(SENDER, "a.b", { bus: limited }), {
    message: /LimitsExceeded$/,
  });
  assert.equal(limited.calls.length, 1, "polkitd is not started");
});

test("checkAuthorization() starts polkitd if no connection owns its name", async () => {
  let isRunning = false;
  const bus = new FakeBus(({ member }, deliver) => {
    if (member === "StartServiceByName") isRunning = true;
    if (member === "CheckAuthorization") {
      return deliver({ sender: ":1.5", signature: "(bba{ss})", body: [[true, false, {}]] });
    }
    if (member !== "GetNameOwner") return deliver(replyOf("u", 1));
    if (isRunning) return deliver(replyOf("s", ":1.5"));
    deliver(undefined, errorOf("org.freedesktop.DBus.Error.NameHasNoOwner"));
  });
  assert.equal(await outcomeOf(SENDER, "a.b", { bus }), "authorized");
  assert.ok(bus.calls.every(({ options: { signal } }) => signal instanceof AbortSignal));
  const [, start] = bus.calls;
  const { member, signature, body } = start!;
  assert.deepEqual([member, signature, body], [
    "StartServiceByName",
    "su",
    ["org.freedesktop.PolicyKit1", 0],
  ]);
});

const initial = { name: "the initial user namespace", met: keepsEveryUid() };

testWith(
  [needs.linux, needs.native, initial],
  "checkAuthorization() names a process by pid, start time and uid",
  async () => {
    const authorized = { sender: ":1.5", signature: "(bba{ss})", body: [[true, false, {}]] };
    const bus = fakePolkit((_, deliver) => deliver(authorized));
    const facts = { uid: 2 ** 31 - 1, pid: 42, process: { startTime: 1230 } };
    assert.equal(await outcomeOf(fakePeer(facts), "a.b", { bus }), "authorized");
    assert.deepEqual(bus.calls.at(-1)!.body![0], ["unix-process", [
      ["pid", ["u", 42]],
      ["start-time", ["t", 123]],
      ["uid", ["i", 2 ** 31 - 1]],
    ]]);
    const queries = bus.calls.length;
    const peer = fakePeer(facts);
    const withFacts = (changed: object) =>
      ({ facts: { ...peer.facts, ...changed }, alive: true, process: peer.process }) as Peer;
    const reason = new UcredError("ERR_UCRED_UNSUPPORTED", "unknown", { hint: "none" });
    const [unknown, none] = [{ state: "unknown", reason }, { state: "none" }];
    const rows: readonly (readonly [peer: Peer, code: string, message: RegExp])[] = [
      [withFacts({ pinned: none }), "ERR_UCRED_NOT_PINNED", /the peer's process is not pinned$/],
      [withFacts({ pinned: unknown }), "ERR_UCRED_UNSUPPORTED", /^unknown$/],
      [withFacts({ pid: none }), "ERR_UCRED_NO_PEER", /no pid in our pid namespace$/],
      [withFacts({ pid: unknown }), "ERR_UCRED_UNSUPPORTED", /^unknown$/],
      [withFacts({ uid: unknown }), "ERR_UCRED_NO_PEER", /its uid is unknown/],
      [withFacts({ uid: none }), "ERR_UCRED_NO_PEER", /its uid is unknown/],
      [
        fakePeer({ ...facts, uid: 2 ** 31 }),
        "ERR_UCRED_NO_PEER",
        /cannot represent the uid 2147483648$/,
      ],
      [
        fakePeer({ uid: 5, pid: 42, process: { startTime: null } }),
        "ERR_UCRED_PEER_GONE",
        /has ended/,
      ],
      [
        { ...withFacts({}), process: { facts: { startTime: unknown } } } as never,
        ...["ERR_UCRED_UNSUPPORTED", /^unknown$/] as const,
      ],
      [
        { ...withFacts({}), alive: undefined },
        "ERR_UCRED_PEER_GONE",
        /has ended, or the peer is closed$/,
      ],
      [
        { ...withFacts({}), alive: false },
        "ERR_UCRED_PEER_GONE",
        /has ended, or the peer is closed$/,
      ],
    ];
    for (const [wrong, code, message] of rows) {
      await assert.rejects(checkAuthorization(wrong, "a.b", { bus }), { code, message });
    }
    // A map that cannot be read may be that of another user namespace.
    using _ = failCalls({ open: "EACCES" });
    await assert.rejects(checkAuthorization(fakePeer(facts), "a.b", { bus }), {
      code: "ERR_UCRED_NO_PEER",
      message: /our user namespace may number users otherwise than polkitd$/,
      hint: "Run the server in the initial user namespace",
    });
    assert.equal(bus.calls.length, queries, "polkitd is not queried");
  },
);

testWith(
  [needs.linux, initial],
  "checkAuthorization() rejects if the process ends before polkitd has answered",
  async () => {
    const authorized = { sender: ":1.5", signature: "(bba{ss})", body: [[true, false, {}]] };
    for (const end of ["end", "close"] as const) {
      const peer = fakePeer({ uid: 5, pid: 42, process: { startTime: 1230 } });
      const bus = fakePolkit((_, deliver) => {
        peer[end]();
        deliver(authorized);
      });
      assert.equal(await outcomeOf(peer, "a.b", { bus }), "ERR_UCRED_PEER_GONE");
    }
  },
);

test("checkAuthorization() cancels the check at polkitd when its signal aborts", async () => {
  const reason = new Error("hung up");
  const aborted = Object.assign(new Error("aborted"), { dbusName: "a.Aborted" });
  for (const member of ["GetNameOwner", "CheckAuthorization"]) {
    const controller = new AbortController();
    const { signal } = controller;
    const bus = new FakeBus((call, deliver) => {
      if (call.member === member) {
        controller.abort(reason);
        return deliver(undefined, aborted);
      }
      deliver(replyOf("s", ":1.5"));
    });
    await assert.rejects(checkAuthorization(SENDER, "a.b", { bus, signal }), reason);
    const { member: last, signature, destination, body } = bus.calls.at(-1)!;
    if (member === "GetNameOwner") assert.equal(bus.calls.length, 1);
    else {
      const id = bus.calls.at(-2)!.body![4];
      assert.deepEqual([last, signature, destination, body], [
        ...["CancelCheckAuthorization", "s", ":1.5", [id]],
      ]);
    }
  }
});

testPolkit("checkAuthorization() rejects if the bus is gone", async () => {
  const daemon = await startDaemon();
  const bus = await connectTo(daemon.address);
  await Polkitd.start(daemon.address, bus);
  await withPeer(ONE, async (peer) => {
    await daemon.end();
    assert.equal(await outcomeOf(peer, "org.example.yes", { bus }), "ERR_UCRED_BUS");
  });
});

testPolkit("requirePolkit() lets through the requests that polkitd authorizes", async () => {
  const { bus } = await startPolkit();
  const denied: unknown[] = [];
  const gates = ["yes", "no", "auth", "unknown"].map((id) => {
    const gate = requirePolkit(`org.example.${id}`, {
      bus,
      onDenied: ({ peer, authorization }) => denied.push([id, peer.uid, authorization?.outcome]),
    });
    return [`/${id}` as string, gate] as const;
  });
  const at = new Map(gates);
  await using server = await serve({
    path: freshPath(),
    mode: 0o666,
    policy: "anyone",
    pin: true,
    fetch: (request) => {
      const gate = at.get(new URL(request.url).pathname)!;
      return gate(request, () => new Response("done"));
    },
  });
  const ask = (uid: number, path: string) =>
    run(...as(uid), "curl", "-sS", "--unix-socket", server.path, `http://x${path}`);
  assert.equal(await ask(ONE, "/yes"), "done");
  assert.match(await ask(ONE, "/no"), /"status":403,"detail":"polkit does not allow it"/);
  assert.match(await ask(TWO, "/auth"), /"detail":"Authentication is required"/);
  assert.match(await ask(ONE, "/unknown"), /"status":403/);
  assert.equal(await ask(0, "/no"), "done");
  const expected = [["no", ONE, "denied"], ["auth", TWO, "challenge"], ["unknown", ONE, undefined]];
  assert.deepEqual(denied, expected);
}, tool("curl"));

testWith(
  [needs.linux, needs.native, initial],
  "requirePolkit() runs the handler for the answer that authorizes alone",
  async () => {
    const answers: { readonly [id: string]: unknown } = {
      "a.yes": [true, false, {}],
      "a.no": [false, false, {}],
      "a.auth": [false, true, {}],
      "a.odd": ["true", false, {}],
    };
    const bus = fakePolkit(({ body }, deliver) =>
      deliver({ sender: ":1.5", signature: "(bba{ss})", body: [answers[String(body![1])]] })
    );
    const denied: unknown[] = [];
    const onDenied = ({ authorization, error }: DeniedRequest) =>
      denied.push([authorization?.outcome, (error as UcredError | undefined)?.code]);
    const runs: string[] = [];
    await using server = await serve({
      path: freshPath(),
      policy: "anyone",
      pin: true,
      fetch: (request) => {
        const id = new URL(request.url).pathname.slice(1);
        return requirePolkit(id, { bus, onDenied })(request, () => {
          runs.push(id);
          return new Response("done");
        });
      },
    });
    const client = createClient({ path: server.path, expect: { uid: process.getuid!() } });
    const found: unknown[] = [];
    for (const id of Object.keys(answers)) {
      const response = await client.fetch(`http://localhost/${id}`);
      found.push([response.status, /"detail":"([^"]*)/.exec(await response.text())?.[1]]);
    }
    client.close();
    assert.deepEqual(found, [
      [200, undefined],
      [403, "polkit does not allow it"],
      [403, "Authentication is required"],
      [403, "polkit does not allow it"],
    ]);
    assert.deepEqual(runs, ["a.yes"]);
    assert.deepEqual(denied, [
      ["denied", undefined],
      ["challenge", undefined],
      [undefined, "ERR_UCRED_BUS"],
    ]);
  },
);

/** Registers an authentication agent for a process; it answers each dialog with `answer`. */
async function registerAgent(
  bus: MessageBus,
  peer: Peer,
  answer: (cookie: string) => Promise<void>,
): Promise<{ readonly dialogs: string[] }> {
  const dialogs: string[] = [];
  const path = "/org/example/agent";
  const begin = async (action: string, message: string, ...rest: unknown[]) => {
    dialogs.push(`${action}: ${message}`);
    await answer(String(rest[2]));
  };
  bus.setMethodCallHandler(path, AGENT, "BeginAuthentication", [begin, ""]);
  bus.setMethodCallHandler(path, AGENT, "CancelAuthentication", [
    () => dialogs.push("cancelled"),
    "",
  ]);
  const { startTime } = peer.process;
  const subject = ["unix-process", [
    ["pid", ["u", peer.pid]],
    ["start-time", ["t", startTime! / 10]],
    ["uid", ["i", peer.uid]],
  ]];
  const call = { member: "RegisterAuthenticationAgent", signature: "(sa{sv})ss" };
  await callBus(bus, { ...AUTHORITY, ...call, body: [subject, "C", path] });
  return { dialogs };
}

const AGENT = "org.freedesktop.PolicyKit1.AuthenticationAgent";

const AUTHORITY = {
  destination: "org.freedesktop.PolicyKit1",
  path: "/org/freedesktop/PolicyKit1/Authority",
  interface: "org.freedesktop.PolicyKit1.Authority",
};

testPolkit(
  "checkAuthorization() waits for the user, and polkitd keeps the authorization",
  async () => {
    const { bus } = await startPolkit();
    await withPeer(ONE, async (peer) => {
      const { dialogs } = await registerAgent(bus, peer, async (cookie) => {
        // What polkit's helper sends after root has entered the password.
        const body = [0, cookie, ["unix-user", [["uid", ["u", 0]]]]];
        const call = { member: "AuthenticationAgentResponse2", signature: "us(sa{sv})", body };
        await callBus(bus, { ...AUTHORITY, ...call });
      });
      const options = { bus, interactive: true };
      assert.equal(await outcomeOf(peer, "org.example.auth", { bus }), "challenge");
      assert.equal(await outcomeOf(peer, "org.example.auth", options), "authorized");
      assert.deepEqual(dialogs, ["org.example.auth: Test auth"]);
      // auth_admin_keep: for this process polkitd does not ask again.
      assert.equal(await outcomeOf(peer, "org.example.auth", { bus }), "authorized");
      await withPeer(ONE, async (other) => {
        assert.equal(await outcomeOf(other, "org.example.auth", { bus }), "challenge");
      });
      assert.equal(dialogs.length, 1);
    });
  },
);

testPolkit(
  "checkAuthorization() reports a dialog that the user closes, or that ends without a password",
  async () => {
    const { bus } = await startPolkit();
    await withPeer(ONE, async (peer) => {
      let isClosed = true;
      await registerAgent(bus, peer, () => {
        if (!isClosed) return Promise.resolve();
        const error = new Error("closed") as Error & { dbusName?: string };
        error.dbusName = "org.freedesktop.PolicyKit1.Error.Cancelled";
        return Promise.reject(error);
      });
      const options = { bus, interactive: true };
      assert.equal(await outcomeOf(peer, "org.example.auth", options), "dismissed");
      isClosed = false;
      assert.notEqual(await outcomeOf(peer, "org.example.auth", options), "authorized");
    });
  },
);

testPolkit("checkAuthorization() closes the dialog when its signal aborts", async () => {
  const { bus } = await startPolkit();
  await withPeer(ONE, async (peer) => {
    const { dialogs } = await registerAgent(bus, peer, () => new Promise(() => {}));
    const controller = new AbortController();
    const { signal } = controller;
    const options = { bus, interactive: true, signal };
    const found = checkAuthorization(peer, "org.example.auth", options);
    await until(() => dialogs.length > 0);
    controller.abort(new Error("hung up"));
    await assert.rejects(found, { message: "hung up" });
    await until(() => dialogs.includes("cancelled"));
  });
});

testPolkit("requirePolkit() is a middleware of Hono", async () => {
  const { bus } = await startPolkit();
  const app = new Hono();
  app.use("/yes", requirePolkit("org.example.yes", { bus }));
  app.use("/no", requirePolkit("org.example.no", { bus }));
  app.get("*", (context) => context.text("done"));
  await using server = await serve({
    path: freshPath(),
    mode: 0o666,
    policy: "anyone",
    pin: true,
    fetch: (request) => app.fetch(request),
  });
  const ask = (path: string) =>
    run(...as(ONE), "curl", "-sS", "--unix-socket", server.path, `http://x${path}`);
  assert.equal(await ask("/yes"), "done");
  assert.match(await ask("/no"), /"status":403/);
}, tool("curl"));
