/** Tests that neither a candidate policy nor a listener affects decisions. */

import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { equivalent } from "../../../core/policy/analyze/difference.ts";
import { shadowPolicy } from "../../../core/policy/shadow.ts";
import type { PlainPeer } from "../../../core/policy/decide/subject.ts";
import { compile } from "./policies.ts";

const active = compile({ name: "people", when: { uid: "1000-1999" }, allow: "read" });
const candidate = compile(
  { name: "people", when: { uid: "1000-1499" }, allow: "read" },
  { name: "no", deny: "not yet" },
);

test("JSON.stringify() of a decision has every field, and the reason", () => {
  const denied = candidate.decide({ uid: 1600 });
  assert.deepEqual(JSON.parse(JSON.stringify({ ...denied })), {
    allowed: false,
    rule: "no",
    grants: [],
    unknown: [],
    reason: 'Rule "no" denies it: not yet',
    message: "not yet",
  });
  assert.equal(
    JSON.parse(JSON.stringify(active.decide({}))).reason,
    "No rule matches; unknown: uid",
  );
  assert.equal(
    JSON.parse(JSON.stringify(active.decide({ uid: 1000 }))).reason,
    'Rule "people" allows it: read',
  );
  const perhaps = compile({ name: "never", when: { label: "x" }, deny: true }).decide({});
  assert.equal(perhaps.reason, 'Rule "never" may match, and denies it; unknown: label');
});

/** Returns the uncaught errors and rejections of a run. */
async function uncaughtOf(run: () => Promise<void>): Promise<readonly unknown[]> {
  const uncaught: unknown[] = [];
  const catches = (error: unknown) => void uncaught.push(error);
  process.on("unhandledRejection", catches).on("uncaughtException", catches);
  try {
    await run();
  } finally {
    process.off("unhandledRejection", catches).off("uncaughtException", catches);
  }
  return uncaught;
}

const FAILING_LISTENERS: { readonly [behaviour: string]: () => unknown } = {
  "throws": () => {
    throw new Error("of the listener");
  },
  "throws nothing": () => {
    throw undefined;
  },
  "rejects": () => Promise.reject(new Error("of the listener")),
  "rejects later": async () => {
    await sleep(1);
    throw new Error("of the listener");
  },
  "returns a thenable that throws": () => ({
    then: () => {
      throw new Error("of the listener");
    },
  }),
  "returns an object with a getter that throws": () =>
    Object.defineProperty({}, "then", {
      get: () => {
        throw new Error("of the listener");
      },
    }),
};

for (const [behaviour, listener] of Object.entries(FAILING_LISTENERS)) {
  test(`shadowPolicy() counts an onDifference that ${behaviour}, and keeps the decision`, async () => {
    const policy = shadowPolicy(active, candidate, {
      onDifference: listener as () => void,
    });
    const uncaught = await uncaughtOf(async () => {
      for (const uid of [1000, 1600, 1700, 5]) {
        assert.deepEqual(policy.decide({ uid }), active.decide({ uid }));
      }
      for (let i = 0; policy.failed < 2 && i < 1000; i++) await sleep(1);
      await sleep(10);
    });
    assert.deepEqual(uncaught, []);
    const { decisions, differing, failed } = policy;
    assert.deepEqual([decisions, differing, failed], [4, 2, 2]);
  });
}

test("shadowPolicy() needs a pin if one of the policies does, and explains if the active one can", () => {
  const pinned = compile({ name: "r", when: { unit: "x" }, allow: true });
  const needs = [[active, pinned], [pinned, active], [active, candidate]] as const;
  assert.deepEqual(needs.map((both) => shadowPolicy(...both).needsPin), [true, true, false]);
  assert.throws(() => shadowPolicy(active, candidate, { onDiference() {} } as object), {
    name: "TypeError",
    message: /^shadowPolicy\(\) has no option "onDiference"/,
  });
  const { needsPin, decide, admits } = active;
  assert.equal(shadowPolicy({ needsPin, decide, admits }, candidate).explain, undefined);
});

test("shadowPolicy() ignores the value that onDifference returns", async () => {
  for (const result of [undefined, null, 5, "x", {}, Promise.resolve(5)]) {
    const policy = shadowPolicy(active, candidate, {
      onDifference: (() => result) as () => void,
    });
    policy.decide({ uid: 1600 });
    await sleep(1);
    assert.deepEqual([policy.differing, policy.failed], [1, 0]);
  }
});

test("shadowPolicy() passes frozen differences and decisions to onDifference", () => {
  const policy = shadowPolicy(active, candidate, {
    onDifference: (difference) => {
      assert.throws(() => Object.assign(difference, { uid: 0 }), TypeError);
      assert.throws(() => Object.assign(difference.active, { allowed: false }), TypeError);
      assert.throws(() => (difference.active.grants as string[]).push("admin"), TypeError);
      assert.throws(() => (difference.candidate.unknown as unknown[]).push("uid"), TypeError);
    },
  });
  const { allowed, grants } = policy.decide({ uid: 1600 });
  assert.deepEqual([allowed, grants, policy.failed], [true, ["read"], 0]);
  assert.equal(policy.differences[0]!.first.uid, 1600);
});

test("shadowPolicy() ends when onDifference calls decide() again", () => {
  const policy = shadowPolicy(active, candidate, {
    onDifference: () => void policy.decide({ uid: 1600 }),
  });
  assert.equal(policy.decide({ uid: 1600 }).allowed, true);
  assert.equal(policy.decide({ uid: 5 }).allowed, false);
});

test("shadowPolicy() keeps the active decision when the candidate throws", () => {
  const throwing = {
    ...candidate,
    decide: () => assert.fail("of the candidate"),
  } as typeof candidate;
  const policy = shadowPolicy(active, throwing);
  assert.equal(policy.decide({ uid: 1000 }).allowed, true);
  let reads = 0;
  const peer: PlainPeer = {
    get uid(): number {
      if (reads++ > 0) throw new Error("gone");
      return 1000;
    },
  };
  const other = shadowPolicy(active, candidate);
  assert.equal(other.decide(peer).allowed, true);
  assert.deepEqual([policy.failed, other.failed], [1, 1]);
});

test("equivalent() names the property to pass when a policy is shadowed", () => {
  const policy = shadowPolicy(active, candidate);
  assert.throws(() => equivalent(policy, active), { name: "TypeError", message: /`current`$/ });
  assert.equal(equivalent(policy.current, active), undefined);
});
