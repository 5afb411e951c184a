/** What a candidate policy, or who is told of differences, can do to decisions: nothing. */

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

test("decisions in JSON have all that is said, the reason too", () => {
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
  assert.equal(perhaps.reason, 'Rule "never" denies whom it may be about; unknown: label');
});

/** What nobody caught while something ran. */
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

const TELLS: { readonly [what: string]: () => unknown } = {
  "throws": () => {
    throw new Error("of the teller");
  },
  "throws nothing": () => {
    throw undefined;
  },
  "rejects": () => Promise.reject(new Error("of the teller")),
  "rejects later": async () => {
    await sleep(1);
    throw new Error("of the teller");
  },
  "returns what seems a promise and throws": () => ({
    then: () => {
      throw new Error("of the teller");
    },
  }),
  "returns what throws when it is looked at": () =>
    Object.defineProperty({}, "then", {
      get: () => {
        throw new Error("of the teller");
      },
    }),
};

for (const [what, tell] of Object.entries(TELLS)) {
  test(`an onDifference that ${what} changes no decision and ends nothing; it is counted`, async () => {
    const policy = shadowPolicy(active, candidate, {
      onDifference: tell as () => void,
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

test("an onDifference that returns what it likes fails nothing", async () => {
  for (const result of [undefined, null, 5, "x", {}, Promise.resolve(5)]) {
    const policy = shadowPolicy(active, candidate, {
      onDifference: (() => result) as () => void,
    });
    policy.decide({ uid: 1600 });
    await sleep(1);
    assert.deepEqual([policy.differing, policy.failed], [1, 0]);
  }
});

test("who is told of a difference can change neither it nor the decision", () => {
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

test("an onDifference that asks the policy again ends", () => {
  const policy = shadowPolicy(active, candidate, {
    onDifference: () => void policy.decide({ uid: 1600 }),
  });
  assert.equal(policy.decide({ uid: 1600 }).allowed, true);
  assert.equal(policy.decide({ uid: 5 }).allowed, false);
});

test("a candidate that throws, for good or of a peer's facts, decides nothing", () => {
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

test("equivalent() says which policy of a shadowed one it can compare", () => {
  const policy = shadowPolicy(active, candidate);
  assert.throws(() => equivalent(policy, active), { name: "TypeError", message: /`current`$/ });
  assert.equal(equivalent(policy.current, active), undefined);
});
