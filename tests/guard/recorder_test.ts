/** Tests of recordings: what one entry is, and how much of a recording one client can fill. */

import assert from "node:assert/strict";
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Peer } from "../../core/peer.ts";
import { Recorder } from "../../guard/recorder.ts";
import { type LearnedRequest, readRecording } from "../../interop/recording.ts";
import { type FakeFacts, fakePeer } from "../../testing/mod.ts";
import { temporaryFolder } from "../support/compile.ts";

/** A recording in a file of its own. The guard has recorded `lines` before. */
function recording(lines: readonly string[] = []) {
  const file = join(temporaryFolder(), "learned.jsonl");
  if (lines.length > 0) {
    const text = ['{"recording":1,"mode":"http"}', ...lines, ""].join("\n");
    writeFileSync(file, text, { mode: 0o600 });
  }
  const reports: string[] = [];
  const open = () => new Recorder(file, "http", (line) => reports.push(line));
  const entries = () => readRecording(readFileSync(file), file).entries;
  return { file, reports, open, entries };
}

const FACTS: FakeFacts = { uid: 1, gid: 2, groups: [3], process: { unit: "a.service" } };
const REQUEST: LearnedRequest = { action: "a", attributes: { x: 1, y: ["b"] }, allowed: true };

test("Recorder writes one entry for equal requests of equal callers, and their number at the end", () => {
  const { reports, open, entries } = recording();
  const recorder = open();
  const peer = fakePeer(FACTS);
  recorder.record(peer, REQUEST);
  recorder.record(peer, { ...REQUEST, attributes: { y: ["b"], x: 1 } });
  recorder.record(fakePeer(FACTS), REQUEST);
  const requests: readonly Partial<LearnedRequest>[] = [
    ...[{ action: "b" }, { allowed: false }, { about: "some" }, { attributes: undefined }] as const,
    ...[{ attributes: { x: 1 } }, { attributes: { x: 2, y: ["b"] } }],
  ];
  for (const request of requests) recorder.record(peer, { ...REQUEST, ...request });
  const callers: readonly Partial<FakeFacts>[] = [
    ...[{ uid: 4 }, { gid: 4 }, { groups: [4] }, { process: {} }, { process: { unit: "b" } }],
    { process: { unit: "a.service", container: "c" } },
  ];
  for (const caller of callers) recorder.record(fakePeer({ ...FACTS, ...caller }), REQUEST);
  const counts = [3, ...[...requests, ...callers].map(() => 1)];
  for (let round = 0; round < 2; round++) recorder.close(); // does not count twice
  assert.deepEqual(entries().map(({ count }) => count), counts);
  const [first] = entries();
  assert.deepEqual(first!.caller, { uid: 1, gid: 2, groups: [2, 3], unit: "a.service" });
  assert.deepEqual([first!.action, first!.attributes], ["a", REQUEST.attributes]);
  // Another guard continues the recording.
  const next = open();
  next.record(fakePeer({ ...FACTS, uid: 4 }), REQUEST);
  next.record(peer, { ...REQUEST, action: "new" });
  next.close();
  counts[1 + requests.length]!++;
  assert.deepEqual(entries().map(({ count }) => count), [...counts, 1]);
  assert.deepEqual(reports, []);
});

test("Recorder leaves out ids that are ambiguous, and facts that are unknown", () => {
  const { open, entries } = recording();
  const recorder = open();
  recorder.record(fakePeer({ uid: 1 }), REQUEST);
  const { process } = fakePeer({ uid: 1 });
  const ids = { uid: 1, gid: 2, groups: [2], process };
  for (const ambiguous of [["uid"], ["gid"], ["groups"], ["uid", "gid", "groups"]]) {
    recorder.record({ ...ids, ambiguous } as unknown as Peer, REQUEST);
  }
  assert.deepEqual(entries().map(({ caller }) => caller), [
    { uid: 1 },
    { gid: 2, groups: [2] },
    { uid: 1, groups: [2] },
    { uid: 1, gid: 2 },
    {},
  ]);
});

test("Recorder records at most 2000 requests of one user, and at most 10,000 of all", () => {
  const line = (uid: number, at: number) =>
    JSON.stringify({ caller: { uid }, action: `old ${at}`, allowed: true });
  const fill = (count: number, users: number) =>
    Array.from({ length: count }, (_, at) => line(at % users, at));
  const ask = (recorder: Recorder, uid: number, action: string) =>
    recorder.record(fakePeer({ uid }), { action, allowed: true });
  const user = recording(fill(1999, 1));
  const one = user.open();
  for (const action of ["new", "too many", "old 7", "more"]) ask(one, 0, action);
  ask(one, 9, "of another user");
  one.close();
  assert.deepEqual(user.entries().slice(1999).map(({ action }) => action), [
    ...["new", "of another user"],
  ]);
  assert.equal(user.entries()[7]!.count, 2);
  const missing = (file: string, why: string) =>
    `requests are missing in the recording ${file}: it has ${why}, which is the maximum`;
  assert.deepEqual(user.reports, [missing(user.file, "2000 different requests of uid 0")]);
  const all = recording(fill(9999, 6));
  const two = all.open();
  for (const uid of [8, 9]) ask(two, uid, "new");
  assert.equal(all.entries().length, 10_000);
  assert.deepEqual(all.reports, [missing(all.file, "10000 different requests")]);
});

test("Recorder leaves out attributes that are too long, and marks them", () => {
  const { open, entries } = recording();
  const recorder = open();
  const peer = fakePeer({ uid: 1 });
  const most = 8192 - '{"x":""}'.length;
  for (const length of [most, most + 1, most + 2]) {
    const attributes = { x: "y".repeat(length) };
    recorder.record(peer, { action: "a", attributes, about: "some", allowed: true });
  }
  recorder.close();
  const found = entries().map(({ attributes, about, count }) => [attributes?.["x"], about, count]);
  assert.deepEqual(found, [["y".repeat(most), "some", 1], [undefined, "long", 2]]);
});

test("Recorder continues after an incomplete line, and refuses a recording of another mode", () => {
  const { file, open, entries } = recording([
    '{"caller":{"uid":1},"action":"a","allowed":true}',
  ]);
  // Without a mode, Deno 2.9.5 sets 0666.
  appendFileSync(file, '{"caller":{"uid":1},"act', { mode: 0o600 });
  const recorder = open();
  for (const action of ["a", "b"]) recorder.record(fakePeer({ uid: 1 }), { action, allowed: true });
  recorder.close();
  assert.deepEqual(entries().map(({ action, count }) => [action, count]), [["a", 2], ["b", 1]]);
  assert.throws(() => new Recorder(file, "docker", () => {}), {
    name: "TypeError",
    message: `learn: ${file} is a recording of mode "http"`,
  });
});

test("Recorder reports its first failure, and throws none", () => {
  const { file, reports, open } = recording();
  const recorder = open();
  const peer = {
    ...{ uid: 1, gid: 2, groups: undefined, ambiguous: [] },
    get process(): never {
      throw new Error("no process");
    },
  } as unknown as Peer;
  for (let round = 0; round < 2; round++) recorder.record(peer, REQUEST);
  assert.deepEqual(reports, [
    `requests are missing in the recording ${file}: Error: no process`,
  ]);
});
