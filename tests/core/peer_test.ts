/** Errors, facts and credentials as values. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { credentials, NO_ID } from "../../core/credentials.ts";
import { UcredError } from "../../core/errors.ts";
import { known, none, unknown } from "../../core/facts.ts";

test("UcredError has exactly the properties of its details", () => {
  const cause = new Error("why");
  const error = new UcredError("ERR_UCRED_SYSCALL", "Cannot read: getsockopt failed with EIO", {
    hint: "Try again",
    errno: 5,
    syscall: "getsockopt",
    cause,
  });
  assert.ok(error instanceof Error);
  assert.deepEqual({ ...error }, {
    code: "ERR_UCRED_SYSCALL",
    errno: 5,
    syscall: "getsockopt",
    hint: "Try again",
  });
  assert.equal(error.cause, cause);
  assert.equal(String(error), "UcredError: Cannot read: getsockopt failed with EIO");

  const bare = new UcredError("ERR_UCRED_NO_FD", "Cannot read", { hint: "Open it" });
  assert.deepEqual(Object.keys(bare), ["code", "hint"]);
  assert.ok(!("errno" in bare) && !("syscall" in bare) && !("cause" in bare));
});

test("credentials() returns undefined for the id -1 and negative pids, and freezes its result", () => {
  assert.equal(credentials(1, NO_ID, 0), undefined);
  assert.equal(credentials(1, 0, NO_ID), undefined);
  assert.equal(credentials(-1, 0, 0), undefined);
  const found = credentials(0, NO_ID - 1, 0)!;
  assert.deepEqual(found, { pid: undefined, uid: 4294967294, gid: 0 });
  assert.throws(() => Object.assign(found, { uid: 0 }), TypeError);
});

test("known(), none() and unknown() return frozen facts", () => {
  const reason = new UcredError("ERR_UCRED_SYSCALL", "Cannot read", { hint: "Try again" });
  const facts = [known(1, "kernel@connect"), none("accounts@now"), unknown(reason)];
  assert.deepEqual(facts.map(({ state }) => state), ["known", "none", "unknown"]);
  for (const fact of facts) {
    assert.throws(() => Object.assign(fact, { state: "known", value: 0 }), TypeError);
  }
});
