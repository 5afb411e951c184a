/** Authorizations by a real polkitd, for peers of several users. */

import assert from "node:assert/strict";
import type { Socket } from "node:net";
import process from "node:process";
import { test } from "node:test";
import type { MessageBus } from "dbus-native";
import { Hono } from "hono";
import type { Peer } from "../../../core/peer.ts";
import { UcredError } from "../../../core/errors.ts";
import { identify } from "../../../identity/identify.ts";
import {
  checkAuthorization,
  type CheckAuthorizationOptions,
  requirePolkit,
} from "../../../interop/polkit/mod.ts";
import { callBus } from "../../../interop/dbus/bus.ts";
import { serve } from "../../../servers/http.ts";
import { tool } from "../../support/guard.ts";
import { isIdentityMap } from "../../../system/overflow_ids.ts";
import { actorProgram, freshPath, meet, startActor, withIds } from "../../support/peers.ts";
import { until } from "../../support/suite.ts";
import { as, connectTo, ONE, run, startDaemon, TWO } from "../dbus/daemon.ts";
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
