/** The audit log: its records, escaping, back-pressure, rotation and closing. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createConnection } from "node:net";
import process from "node:process";
import { test } from "node:test";
import fc from "../support/properties.ts";
import { openedSystem } from "../../adapters/select.ts";
import { definePolicy, type Peer, UcredError } from "../../mod.ts";
import type { DecidedEvent, ServerEvent } from "../../servers/admission/events.ts";
import { createServer as createHttpServer, serve } from "../../servers/http.ts";
import { type AuditLog, createServer } from "../../servers/net.ts";
import { auditLog, type AuditOptions } from "../../servers/audit.ts";
import { Child, freshPath } from "../support/peers.ts";
import { cases, needs, runtimeCommand, testWith, until } from "../support/suite.ts";
import { crowd, listening, ServerProcess, visit, visitAs } from "../support/servers.ts";

const linux = [needs.linux];
const here = [needs.linux, needs.cc];

const somebody = { pid: 1, uid: 1000, gid: 1000, ambiguous: [] } as unknown as Peer;

const decision = {
  allowed: true,
  rule: "a rule",
  grants: ["read"],
  reason: "since",
  unknown: [],
  message: undefined,
};

/** An event with text that a client chose. */
function decided(action: string, connection = 1): ServerEvent {
  return { type: "decided", server: "/s", connection, peer: somebody, action, decision };
}

interface Entry {
  readonly time: string;
  readonly event: string;
  readonly [name: string]: unknown;
}

/** Parses a log. Each line must be one complete event. */
function entries(file: string): Entry[] {
  const text = readFileSync(file, "utf8");
  assert.ok(text === "" || text.endsWith("\n"));
  return text.split("\n").slice(0, -1).map((line) => JSON.parse(line) as Entry);
}

const without = ({ time: _, ...rest }: Entry): object => rest;

/** Writes to a log, and returns the records in its file. */
async function logged(
  run: (audit: AuditLog) => void | Promise<void>,
  options?: AuditOptions,
): Promise<Entry[]> {
  const file = freshPath("audit.log");
  const audit = auditLog({ ...options, file });
  await run(audit);
  await audit.close();
  return entries(file);
}

testWith(
  here,
  "auditLog() begins a new line, if the file ends in a part of a line after a crash",
  async () => {
    const event = { type: "failed", server: "/s", connection: 1, error: "x" } as never;
    for (const [content, lines] of [["", 1], ["{}\n", 2], ['{"event":"acc', 2]] as const) {
      const file = freshPath("audit.log");
      writeFileSync(file, content);
      const audit = auditLog({ file });
      audit.write(event);
      await audit.close();
      const written = readFileSync(file, "utf8").split("\n").slice(0, -1);
      assert.equal(written.length, lines);
      assert.equal(JSON.parse(written.at(-1)!).event, "failed");
    }
  },
);

// ── records ──

testWith(
  [...here, needs.root],
  "auditLog() writes one line for each event of a server",
  async () => {
    const path = freshPath();
    const policy = definePolicy({
      version: 1,
      rules: [{ name: "some", when: { uid: [1000, 1001, 1002] }, allow: "read" }],
    });
    const warned = new Promise((resolve) => process.once("warning", resolve));
    const lines = await logged(async (audit) => {
      const server = createServer(
        { policy, audit, limits: { connectionsPerUser: 1 } },
        (socket, peer) => {
          if (peer.uid === 1001) throw new Error("broken\nline");
          socket.resume().end("hello");
        },
      );
      await listening(server, { path, mode: 0o666 });
      for (const uid of [1000, 1001, 1003]) await visitAs(uid, path);
      await server.close({});
    });
    await warned;
    for (const { time } of lines) assert.equal(new Date(time).toISOString(), time);
    const found = lines.map((line) => {
      const { peer, milliseconds, ...rest } = without(line) as {
        peer: Peer;
        milliseconds?: number;
      };
      assert.ok(Number.isInteger(peer.pid) && peer.uid === peer.gid);
      if (milliseconds !== undefined) assert.ok(Number.isInteger(milliseconds));
      return { ...rest, uid: peer.uid };
    });
    const server = path;
    const of = (uid: number) => found.filter((line) => line.uid === uid);
    assert.deepEqual(of(1000), [
      { event: "accepted", server, connection: 1, rule: "some", uid: 1000 },
      { event: "closed", server, connection: 1, uid: 1000 },
    ]);
    assert.deepEqual(of(1001), [
      { event: "accepted", server, connection: 2, rule: "some", uid: 1001 },
      { event: "failed", server, connection: 2, error: "Error: broken\nline", uid: 1001 },
      { event: "closed", server, connection: 2, uid: 1001 },
    ]);
    const [{ reason, ...refused } = {} as { reason?: unknown }] = of(1003) as {
      reason?: unknown;
    }[];
    assert.match(String(reason), /^No rule /);
    assert.deepEqual(refused, { event: "refused", server, why: "policy", uid: 1003 });
    assert.equal(found.length, 6);
  },
);

test("auditLog() omits allowed connections and actions with onlyDenied", async () => {
  const denied = { ...decision, allowed: false };
  const { error, ...event } = {
    type: "failed",
    server: "/s",
    connection: 1,
    peer: somebody,
    error: 1,
  } as const;
  const lines = await logged((audit) => {
    audit.write({ type: "accepted", server: "/s", connection: 1, peer: somebody, decision });
    audit.write(decided("GET /"));
    audit.write({ ...decided("GET /no"), decision: denied } as ServerEvent);
    audit.write({ ...event, type: "closed", milliseconds: 1, why: undefined });
    audit.write({ ...event, type: "failed", error });
    audit.write({
      ...{
        type: "refused",
        server: "/s",
        why: "unidentified",
        peer: undefined,
        decision: undefined,
      },
      error: new UcredError("ERR_UCRED_NO_FD", "Cannot read it", { hint: "Look" }),
    } as ServerEvent);
  }, { onlyDenied: true });
  assert.deepEqual(lines.map((line) => line.event), ["decided", "failed", "refused"]);
  assert.equal(lines[0]!["action"], "GET /no");
  assert.deepEqual(lines[2]!["reason"], "Cannot read it");
});

testWith(
  linux,
  "auditLog() creates its file with mode 0600, and appends to an existing file",
  async () => {
    const file = freshPath("audit.log");
    for (let times = 1; times <= 3; times++) {
      const audit = auditLog({ file });
      audit.write(decided(`${times}`));
      await audit.close();
      assert.deepEqual(
        entries(file).map((line) => line["action"]),
        ["1", "2", "3"].slice(0, times),
      );
    }
    assert.equal(statSync(file).mode & 0o777, 0o600);
  },
);

test("auditLog() throws when the file cannot be opened or an option is wrong", () => {
  assert.throws(() => auditLog({ file: "/nowhere/audit.log" }), { code: "ENOENT" });
  for (const maxWaiting of [0, -1, 1.5, NaN, "1" as unknown as number]) {
    assert.throws(() => auditLog({ maxWaiting }), RangeError);
  }
});

// ── forged records ──

/** The characters of a line: none that ends it, is invisible, or changes the text direction. */
const PRINTABLE = /^[^\p{C}\p{Zl}\p{Zp}]*$/u;

const text = fc.string({ unit: "binary", maxLength: 60 });
const units = fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 30 })
  .map((list) => String.fromCharCode(...list)); // lone surrogates, too
const anyText = fc.oneof(
  text,
  units,
  fc.constantFrom(
    '\n{"event":"accepted","uid":0}',
    '"}\r\n{"event":"accepted"}',
    "\u2028\u2029\u0085\v\f\0",
    "\u202e\u2066\u200f\u061c\u180e\ufeff\u{e0041}\u{1d173}",
    "\ud800",
    "\udc00\ud800",
    "\x1b[2J\x1b]0;title\x07\x9b1m",
  ),
);

test("auditLog() writes one printable line for each event, whatever a client sends", async () => {
  const file = freshPath("audit.log");
  const events: ServerEvent[] = [];
  fc.assert(
    fc.property(anyText, anyText, anyText, (one, two, three) => {
      const base = { server: one, connection: 1, peer: somebody } as const;
      const said = { ...decision, rule: two, grants: [three], reason: one };
      events.push(
        { ...base, type: "decided", action: two, decision: said },
        { ...base, type: "accepted", decision: said },
        { ...base, type: "failed", error: three },
        { ...base, type: "refused", why: "policy", decision: said, error: undefined },
        {
          ...{ ...base, type: "refused", why: "unidentified", decision: undefined },
          error: new UcredError("ERR_UCRED_NO_FD", two, { hint: three }),
        },
      );
    }),
    { numRuns: cases(300) },
  );
  const audit = auditLog({ file, maxWaiting: 1 << 26 });
  for (const event of events) audit.write(event);
  await audit.close();
  const lines = readFileSync(file, "utf8").split("\n");
  assert.equal(lines.pop(), "");
  assert.equal(lines.length, events.length);
  for (const [at, line] of lines.entries()) {
    assert.match(line, PRINTABLE);
    const entry = JSON.parse(line) as Entry;
    const event = events[at]! as ServerEvent & { action?: string; error?: unknown };
    assert.deepEqual([entry.event, entry["server"]], [event.type, event.server]);
    if (event.type === "decided") assert.equal(entry["action"], event.action);
    if (event.type === "failed") assert.equal(entry["error"], event.error);
    if (event.type === "accepted") assert.equal(entry["rule"], event.decision.rule);
  }
  assert.equal(audit.dropped, 0);
});

test("auditLog() truncates long fields", async () => {
  const long = "x".repeat(1 << 20);
  const lines = await logged((audit) => {
    audit.write(decided(long));
    audit.write(decided(`${"y".repeat(1023)}\u{1f600}${long}`)); // cut within a character
    audit.write({ type: "failed", server: "/s", connection: 1, peer: somebody, error: long });
  });
  assert.deepEqual(lines.map(({ action, error }) => [action, error]), [
    [`${"x".repeat(1024)}… (1048576 characters)`, undefined],
    [`${"y".repeat(1023)}\ud83d… (1049601 characters)`, undefined],
    [undefined, `${"x".repeat(1024)}… (1048576 characters)`],
  ]);
});

testWith(
  linux,
  "auditLog() writes one line for each request, with any bytes in the path",
  async () => {
    const path = freshPath();
    const targets = [
      "/%0A%7B%22event%22:%22accepted%22%7D",
      '/"},{"event":"accepted"',
      "/\\u000a\\n",
      "/\xe2\x80\xa8\xff\xfe",
      "/%00%1b%5b2J",
      "/" + "a".repeat(5000),
      "/\x01\x7f",
    ];
    const lines = await logged(async (audit) => {
      const server = createHttpServer({ policy: "anyone", audit }, (_, response) => response.end());
      server.listen(path);
      await new Promise((resolve) => server.once("listening", resolve));
      for (const target of targets) {
        await new Promise((resolve) => {
          const socket = createConnection(path).on("error", () => {}).on("close", resolve).resume();
          socket.write(`GET ${target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`, "latin1");
        });
      }
      await server.close({ timeout: 0 });
    }, { maxWaiting: 1 << 24 });
    const count = (type: string) => lines.filter(({ event }) => event === type).length;
    assert.deepEqual([count("accepted"), count("closed")], [targets.length, targets.length]);
    assert.ok(count("decided") >= 4 && count("decided") <= targets.length, `${count("decided")}`);
    assert.equal(lines.length, count("accepted") + count("closed") + count("decided"));
    for (const line of lines) {
      if (line.event === "decided") assert.match(line["action"] as string, /^GET \//);
    }
  },
);

testWith(
  here,
  "a process warning about a failure does not look like a line of the audit log",
  async () => {
    const path = freshPath();
    const fails = createServer({}, () => {
      const forged = '{"event":"accepted","peer":{"uid":0}}';
      const text = `no command \n${forged}\r${forged}\u2028${forged}\u001b[2J ${"x".repeat(5000)}`;
      throw Object.assign(new Error(text), {
        stack: `Error: ${text}\n${forged}\n   at a\u001b[2J\r${forged}`,
      });
    });
    await listening(fails, path);
    const warned = new Promise<Error & { detail?: string }>((resolve) =>
      process.on("warning", (warning) => warning.name === "UcredWarning" && resolve(warning))
    );
    await visit(path);
    const { message, detail } = await warned;
    assert.match(
      message,
      /^A handler or policy of the server at .* failed: Error: no command \\u000a\{/,
    );
    assert.match(message, /… \(5\d{3} characters\)$/);
    assert.doesNotMatch(message, /[\p{C}\p{Zl}\p{Zp}]/u);
    assert.equal(detail, `    at a\\u001b[2J\\u000d{"event":"accepted","peer":{"uid":0}}`);
    await fails.close({});
  },
);

// ── writes that fail or block ──

test("auditLog() keeps records of allowed actions during a flood of denied ones", async () => {
  const others = (uid: number) => ({ ...somebody, uid }) as typeof somebody;
  const denied = (uid: number, at: number) => {
    const event = decided(`DELETE /${at}`) as DecidedEvent;
    const decision = { ...event.decision, allowed: false };
    return { ...event, peer: others(uid), decision };
  };
  let lost = 0;
  const lines = await logged(async (audit) => {
    for (let at = 0; at < 8000; at++) audit.write(denied(1001, at));
    audit.write(denied(1002, 0));
    audit.write(decided("GET /allowed"));
    for (let at = 0; at < 8000; at++) audit.write(denied(1001, at));
    assert.ok(audit.drained!(1001) instanceof Promise, "the flooding user waits");
    assert.equal(audit.drained!(1002), undefined, "other users do not wait");
    await audit.drained!(1001);
    lost = audit.dropped;
    audit.write(decided("GET /after"));
  });
  const actions = lines.map(({ action }) => action);
  assert.ok(actions.includes("GET /allowed") && actions.includes("GET /after"));
  const dropped = lines.filter(({ event }) => event === "dropped");
  const ofUser = (wanted: number) =>
    dropped.flatMap(({ users }) => users as { uid: number; count: number }[])
      .filter(({ uid }) => uid === wanted).reduce((sum, { count }) => sum + count, 0);
  assert.equal(ofUser(1001) + ofUser(1002), lost);
  assert.ok(ofUser(1002) <= 1 && ofUser(1001) > 8000);
});

testWith(
  linux,
  "auditLog() counts dropped lines while the disk is full, and continues afterwards",
  async () => {
    const audit = auditLog({ file: "/dev/full" });
    for (let times = 1; times <= 20; times++) {
      audit.write(decided(`${times}`));
      if (times === 10) await until(() => audit.dropped === 10);
    }
    await until(() => audit.dropped === 20);
    assert.equal((audit.error as NodeJS.ErrnoException).code, "ENOSPC");
    await audit.close();
    assert.equal(audit.dropped, 20);
  },
);

testWith(
  linux,
  "auditLog() leaves only whole lines when its file reaches RLIMIT_FSIZE",
  async () => {
    const file = freshPath("audit.log");
    const script = new URL("./audit_limited.ts", import.meta.url).pathname;
    const child = new Child("bash", [
      "-c",
      'ulimit -f 4; trap "" XFSZ; exec "$@"',
      "-",
      ...runtimeCommand(),
      script,
      file,
    ]);
    const answer = await child.json<{ dropped: number; error: string; after: number }>();
    assert.match(answer.error, /EFBIG|too large/i);
    assert.ok(answer.dropped > 0);
    // Afterwards every line is complete, except a partial one that stands alone.
    const lines = readFileSync(file, "utf8").split("\n").filter((line) => line !== "");
    const whole = lines.filter((line) => line.endsWith("}"));
    assert.ok(lines.length - whole.length <= 1);
    for (const line of whole) JSON.parse(line);
  },
);

testWith(
  linux,
  "auditLog() does not block on an unread pipe, and reports the dropped lines",
  async () => {
    const file = freshPath("pipe");
    execFileSync("mkfifo", [file]);
    assert.throws(() => auditLog({ file }), { code: "ENXIO" }); // without a reader: it fails at once
    const reader = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const audit = auditLog({ file, maxWaiting: 10_000 });
    const action = "x".repeat(900);
    for (let times = 0; times < 1000; times++) {
      audit.write(decided(action, times));
      if (times % 100 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assert.ok(audit.dropped > 500, `${audit.dropped} dropped`);
    let text = "";
    const bytes = new Uint8Array(1 << 16);
    const read = () => {
      try {
        const length = readSync(reader, bytes);
        text += new TextDecoder("latin1").decode(bytes.subarray(0, length));
      } catch (error) {
        assert.match(String(error), /EAGAIN|unavailable/);
      }
    };
    // Once the pipe is read, waiting and new lines are written.
    let written = 1000;
    await until(() => {
      audit.write(decided("last", written++));
      read();
      return text.includes('"last"');
    });
    let isClosed = false;
    void audit.close().then(() => isClosed = true);
    await until(() => {
      read();
      return isClosed;
    });
    read();
    closeSync(reader);
    const lines = text.trim().split("\n").map((line) => JSON.parse(line) as Entry);
    const told = lines.filter(({ event }) => event === "dropped");
    assert.equal(told.reduce((sum, { count }) => sum + (count as number), 0), audit.dropped);
    const kept = lines.filter(({ event }) => event === "decided");
    assert.equal(kept.length + audit.dropped, written);
    // The written lines are in order.
    const numbers = kept.map(({ connection }) => connection as number);
    assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b));
  },
);

testWith(linux, "close() of an audit log ends although its pipe has no reader", async () => {
  const file = freshPath("pipe");
  execFileSync("mkfifo", [file]);
  const reader = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  const audit = auditLog({ file });
  for (let times = 0; times < 1000; times++) audit.write(decided("x".repeat(500)));
  await audit.close();
  audit.write(decided("later"));
  assert.equal(audit.dropped, 1);
  closeSync(reader);
});

testWith(here, "a server keeps serving when its stderr is not read", async () => {
  const pipe = freshPath("pipe");
  execFileSync("mkfifo", [pipe]);
  const path = freshPath();
  const server = new ServerProcess(
    {
      policy: "anyone",
      options: { limits: { connectionsPerUser: 1500 } },
      audit: true,
      listen: { path },
    },
    ["bash", "-c", 'exec 2<>"$0"; exec "$@"', pipe],
  );
  await server.child.json();
  // More than the 64 KiB that a pipe holds.
  assert.equal(await crowd(path, 1000), 1000);
  assert.equal(await visit(path), `${process.getuid!()}\n`);
  const { accepted } = await server.command<{ accepted: number }>({ stats: true });
  assert.equal(accepted, 1001);
  await server.kill();
});

testWith(here, "auditLog() writes to stderr without a file", async () => {
  const path = freshPath();
  const file = freshPath("stderr");
  const server = new ServerProcess(
    { policy: "anyone", audit: true, listen: { path } },
    ["bash", "-c", 'exec 2> "$0"; exec "$@"', file],
  );
  await server.child.json();
  await visit(path);
  await until(() => readFileSync(file, "utf8").includes('"closed"'));
  await server.kill();
  const lines = readFileSync(file, "utf8").split("\n").filter((line) => line.startsWith("{"));
  assert.deepEqual(lines.map((line) => (JSON.parse(line) as Entry).event), ["accepted", "closed"]);
});

// ── rotation and closing ──

testWith(
  linux,
  "reopen() continues in a new file, and finishes the renamed one",
  async () => {
    const file = freshPath("audit.log");
    const audit = auditLog({ file });
    audit.write(decided("1"));
    audit.write(decided("2")); // may still wait
    renameSync(file, `${file}.1`);
    audit.write(decided("3"));
    audit.reopen();
    audit.write(decided("4"));
    renameSync(file, `${file}.2`);
    audit.reopen();
    audit.reopen();
    audit.write(decided("5"));
    await audit.close();
    audit.reopen(); // after the end
    const actions = (name: string) => entries(name).map(({ action }) => action);
    assert.deepEqual(
      [actions(`${file}.1`), actions(`${file}.2`), actions(file)],
      [["1", "2", "3"], ["4"], ["5"]],
    );
    assert.deepEqual([audit.dropped, audit.error], [0, undefined]);
  },
);

testWith(linux, "reopen() keeps the old file when the new one cannot be opened", async () => {
  const folder = freshPath("folder");
  execFileSync("mkdir", [folder]);
  const file = `${folder}/audit.log`;
  const audit = auditLog({ file });
  audit.write(decided("1"));
  renameSync(folder, `${folder}-moved`);
  audit.reopen();
  assert.equal((audit.error as NodeJS.ErrnoException).code, "ENOENT");
  audit.write(decided("2"));
  await audit.close();
  assert.deepEqual(entries(`${folder}-moved/audit.log`).length, 2);
  assert.equal(existsSync(file), false);
});

testWith(
  linux,
  "close() writes all waiting lines; later ones are dropped and counted",
  async () => {
    const file = freshPath("audit.log");
    writeFileSync(file, "");
    const audit = auditLog({ file, maxWaiting: 1 << 26 });
    for (let times = 0; times < 10_000; times++) audit.write(decided("x".repeat(100), times));
    await Promise.all([audit.close(), audit.close()]);
    await audit.close();
    assert.deepEqual(
      entries(file).map(({ connection }) => connection),
      Array.from({ length: 10_000 }, (_, at) => at),
    );
    audit.write(decided("later"));
    assert.equal(audit.dropped, 1);
  },
);

testWith(linux, "auditLog() closes the descriptors of finished files", async () => {
  const { readdirSync } = await import("node:fs");
  const count = () => readdirSync("/proc/self/fd").length;
  const before = count();
  for (let times = 0; times < 20; times++) {
    const audit = auditLog({ file: freshPath("audit.log") });
    audit.write(decided("1"));
    audit.reopen();
    audit.write(decided("2"));
    await audit.close();
  }
  assert.ok(count() <= before + 1, `${count()} after ${before}`);
});

for (const engine of ["node:http", undefined] as const) {
  testWith(
    linux,
    `close() of serve() ends after the log of all connections, by ${
      engine ?? "the default engine"
    }`,
    async () => {
      const path = freshPath();
      const lines = await logged(async (audit) => {
        const fetch = () => new Response("hello");
        const server = await serve({ path, policy: "anyone", audit, engine, fetch });
        const clients = await Promise.all([1, 2, 3].map(async () => {
          const socket = createConnection(path).on("error", () => {});
          socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
          await new Promise((resolve) => socket.once("data", resolve));
          return socket.resume();
        }));
        await server.close({ timeout: 0 });
        assert.equal(server.stats().open, 0);
        for (const client of clients) client.destroy();
      });
      const count = (type: string) => lines.filter(({ event }) => event === type).length;
      assert.deepEqual([count("accepted"), count("decided"), count("closed")], [3, 3, 3]);
    },
  );
}

testWith(
  linux,
  "auditLog() writes only to its file when other code has closed its descriptor",
  async () => {
    const file = freshPath("audit.jsonl");
    const event: ServerEvent = {
      ...{ type: "accepted", server: "/s", connection: 1, peer: somebody, decision },
    };
    const log = auditLog({ file });
    const fd = readdirSync("/proc/self/fd").map(Number).find(
      (fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`) === file;
        } catch {
          return false;
        }
      },
    )!;
    log.write(event);
    await until(() => readFileSync(file, "utf8") !== "");
    const { close, fcntl } = openedSystem().libc.linux!;
    const other = freshPath("other");
    writeFileSync(other, "");
    const mine = openSync(other, "a");
    close(fd);
    assert.equal(fcntl(mine, 0, fd), fd); // F_DUPFD: the number is another file's
    log.write(event);
    await until(() => readFileSync(file, "utf8").split("\n").length === 3);
    assert.equal(readFileSync(other, "utf8"), "");
    assert.equal(log.dropped, 0);
    await log.close();
    assert.equal(readlinkSync(`/proc/self/fd/${fd}`), other, "the number is still open");
    close(fd);
    closeSync(mine);
  },
);
