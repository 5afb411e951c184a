/** Policies over real peers: a decision reads only the facts that it needs, and unknown facts deny. */

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import process from "node:process";
import {
  type Condition,
  definePolicy,
  identify,
  type Peer,
  type PolicyDocument,
} from "../../mod.ts";
import { fdOf } from "../../identity/fd.ts";
import { needs, testWith } from "../support/suite.ts";
import { actorProgram, meet, startActor } from "../support/peers.ts";

const here = [needs.linux, needs.cc];
const rootHere = [...here, needs.root];
const ids = (
  id: number,
) => ["--groups", "7", "--resgid", `${id},${id},${id}`, "--resuid", `${id},${id},${id}`];

testWith(rootHere, "decide() allows root and one uid of a policy, and no other uid", async () => {
  const policy = definePolicy({
    version: 1,
    rules: [
      { name: "root", when: { user: "root" }, allow: "full" },
      { name: "allowed", when: { uid: 4000000000 }, allow: "read" },
      { name: "mail", when: { group: "mail" }, allow: "mail" },
    ],
  });
  const ask = async (options: string[]) =>
    (await meet(options, (socket) => policy.decide(identify(socket))))[0];
  assert.deepEqual((await ask([])).grants, ["full"]);
  assert.deepEqual((await ask(ids(4000000000))).grants, ["read"]);
  const stranger = await ask(ids(4000000001));
  assert.deepEqual([stranger.allowed, stranger.reason], [false, "No rule matches"]);
  assert.deepEqual((await ask(["--groups", "8", "--resuid", "9,9,9"])).grants, ["mail"], "gid 8");
});

testWith(here, "decide() allows peers of the server's own user with sameUser", async () => {
  const policy = definePolicy({
    version: 1,
    rules: [{ name: "me", when: { sameUser: true }, allow: true }],
  });
  const [mine] = await meet([], (socket) => policy.decide(identify(socket)));
  assert.equal(mine.allowed, true);
  if (process.geteuid!() !== 0) return;
  const [others] = await meet(ids(5), (socket) => policy.decide(identify(socket)));
  assert.equal(others.allowed, false);
});

// containerd CVE-2020-15257: root of a container, which shared an abstract socket, passed as root of the host.
testWith(
  [...rootHere, needs.peerPidfd, needs.pidNamespace, needs.userNamespace],
  "decide() denies root of another namespace with sameNamespaces, and allows root of ours",
  async () => {
    const policy = definePolicy({
      version: 1,
      rules: [{ name: "root", when: { uid: 0, sameNamespaces: ["user", "pid"] }, allow: true }],
    });
    const ask = async (...options: string[]) => {
      const [decided] = await meet(options, (socket) => {
        const peer = identify(socket, { pin: true });
        assert.equal(peer.uid, 0);
        return policy.decide(peer).allowed;
      });
      return decided;
    };
    assert.deepEqual(
      [await ask(), await ask("--unshare-pid"), await ask("--unshare-user")],
      [true, false, false],
    );
  },
);

testWith(
  [...here, needs.peerPidfd],
  "decide() reads only the facts that it needs, once each",
  async () => {
    const document: PolicyDocument = {
      version: 1,
      rules: [
        { name: "other", when: { uid: 4294967294, exe: "**" }, deny: true },
        { name: "never", when: { unchanged: false }, actions: "write", deny: true },
        { name: "program", when: { exe: actorProgram, unit: "**" }, actions: "write", allow: true },
        { name: "anyone", allow: "read" },
      ],
    };
    const policy = definePolicy(document);
    const asked: string[] = [];
    const [peer, actor] = await startActor([], (socket) => identify(fdOf(socket), { pin: true }));
    const watched = watch(peer, asked);
    assert.deepEqual(policy.decide(watched, { action: "read" }).grants, ["read"]);
    assert.deepEqual(asked, [], "ids decided");
    const { rule } = policy.decide(watched, { action: "write" });
    assert.equal(rule, "anyone");
    assert.deepEqual(asked.toSorted(), ["drift", "exe", "unit"]);
    peer.close();
    const closed = policy.decide(peer, { action: "write" });
    assert.deepEqual([closed.allowed, closed.rule, closed.unknown], [false, "never", [
      "unchanged",
    ]]);
    actor.hangUp();
  },
);

/** Wraps a peer, and records each access to a fact that takes a system call. */
function watch(peer: Peer, asked: string[]): Peer {
  const noting = <T extends object>(of: T, names: boolean): T =>
    new Proxy(of, {
      get(target, name) {
        const value = Reflect.get(target, name, target);
        if (names) asked.push(String(name));
        if (name === "drift") asked.push("drift");
        if (name === "process") return { facts: noting((value as Peer["process"]).facts, true) };
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  return noting(peer, false);
}

testWith(here, "decide() leaves no descriptor open", async () => {
  const policy = definePolicy({
    version: 1,
    rules: [{ name: "r", when: { exe: "/nowhere", unit: "x", container: "y" }, allow: true }],
  });
  const [before, after] = (await meet([], (socket) => {
    const peer = identify(socket, { pin: true });
    const before = readdirSync("/proc/self/fd").length;
    for (let i = 0; i < 100; i++) assert.equal(policy.decide(peer).allowed, false);
    return [before, readdirSync("/proc/self/fd").length] as const;
  }))[0];
  assert.ok(after <= before);
});

testWith([needs.linux], "definePolicy() suggests an account for a misspelled name", () => {
  const ask = (when: Condition) => () =>
    definePolicy({ version: 1, rules: [{ name: "a", when, allow: true }] });
  assert.throws(ask({ user: "rooot" }), { message: /: no user "rooot"; did you mean "root"\?$/ });
  assert.throws(ask({ group: "rot" }), { message: /: no group "rot"; did you mean "root"\?$/ });
});

testWith([], "definePolicy() reports all problems at once", () => {
  const rules = [{ name: "a", when: { user: "nobody-of-this-name" }, allow: true }, { name: "b" }];
  assert.throws(() => definePolicy({ version: 1, rules } as PolicyDocument), {
    name: "UcredError",
    code: "ERR_UCRED_POLICY",
    message: 'Cannot use the policy: rules[0].when.user: no user "nobody-of-this-name"\n' +
      "rules[1]: a rule has neither allow nor deny",
  });
  assert.throws(() => definePolicy(null as never), { code: "ERR_UCRED_POLICY" });
});
