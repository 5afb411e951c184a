/** Owners of containers and execs that survive a restart of the guard: `--state`. */

import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Ledger } from "../../guard/docker/ledger.ts";
import { readRecording } from "../../interop/recording.ts";
import { OWNER_LABEL, ownerIn } from "../../guard/docker/owners.ts";
import { ALICE, BOB, clientOf, DockerGuard, POLICY, testDocker } from "../support/docker_users.ts";
import { FakeEngine, IMAGE } from "../support/fake_engine.ts";
import { Guard, policyFile } from "../support/guard.ts";
import { safeFolder, safeFolders } from "../support/safe_folder.ts";
import { needs, soak, until } from "../support/suite.ts";

const idOf = (digit: string) => digit.repeat(64);

/** An engine whose image has the label of a user, so that the label of a container proves nothing. */
async function engineWithLabels(): Promise<FakeEngine> {
  const engine = await FakeEngine.start();
  engine.images.set(IMAGE, { [OWNER_LABEL]: String(ALICE) });
  return engine;
}

test("ownerIn() reads one spelling of a uid only", () => {
  const ownerOf = (text: unknown) => ownerIn({ [OWNER_LABEL]: text });
  const uids: readonly [string, number][] = [
    ...[["0", 0], ["1000", 1000], ["4294967294", 4_294_967_294]] as [string, number][],
  ];
  for (const [text, uid] of uids) assert.equal(ownerOf(text), uid);
  for (
    const text of [
      ...["", "00", "01", "-1", "+1", " 1", "1 ", "1\n", "0x1", "1e3", "root", "4294967295"],
      ...["12345678901", 0, 1000, null, undefined, ["0"], true],
    ]
  ) assert.equal(ownerOf(text), undefined, JSON.stringify(text));
  const inherited = Object.create({ [OWNER_LABEL]: "0" });
  for (const labels of [{}, null, undefined, "0", ["0"], inherited]) {
    assert.equal(ownerIn(labels), undefined);
  }
});

testDocker(
  "guard --state remembers the owners of containers and execs across restarts",
  async () => {
    const state = join(safeFolder(), "owners.jsonl");
    const engine = await engineWithLabels();
    const first = await DockerGuard.start(undefined, engine, { state });
    const alice = await first.as(ALICE);
    await alice.create("mine");
    const created = await alice.ask("POST /v1.48/containers/mine/exec", { Cmd: ["id"] });
    const exec = JSON.parse(created.body).Id;
    const root = await first.as(0);
    const roots = JSON.parse(
      (await root.ask("POST /v1.48/containers/mine/exec", { Cmd: ["sh"], Privileged: true })).body,
    ).Id;
    await first.server.close({ timeout: 0 });
    assert.equal(statSync(state).mode & 0o777, 0o600);

    const without = await DockerGuard.start(undefined, engine);
    const stranger = await without.as(ALICE);
    assert.match(await stranger.status("POST /containers/mine/stop"), /^404/);
    assert.match(await stranger.status(`GET /exec/${exec}/json`), /^404/);

    const again = await DockerGuard.start(undefined, engine, { state });
    const later = await again.as(ALICE);
    assert.equal(await later.status("POST /containers/mine/stop"), "204");
    assert.equal(await later.status(`GET /exec/${exec}/json`), "200");
    // Root has prepared this exec in the user's container.
    assert.match(await later.status(`POST /exec/${roots}/start`, {}), /^404/);
    const bob = await again.as(BOB);
    assert.match(await bob.status("POST /containers/mine/stop"), /^404/);
    assert.match(await bob.status(`GET /exec/${exec}/json`), /^404/);
  },
  safeFolders,
);

testDocker(
  "guard --state decides an earlier exec by its container and its own rights",
  async () => {
    const state = join(safeFolder(), "owners.jsonl");
    const engine = await FakeEngine.start();
    const all = "version: 1\nabout: docker\nrules: [{ name: all, allow: full }]";
    const first = await DockerGuard.start(all, engine, { state });
    const early = await first.as(ALICE);
    await early.create("mine");
    const exec = async (more: object) =>
      JSON.parse(
        (await early.ask("POST /v1.48/containers/mine/exec", { Cmd: ["sh", "-c"], ...more })).body,
      ).Id as string;
    const [plain, privileged, moved] = [
      ...[await exec({}), await exec({ Privileged: true }), await exec({})],
    ];
    await first.server.close({ timeout: 0 });
    const victim = engine.add("victim", { [OWNER_LABEL]: String(ALICE) });
    engine.execs.set(moved!, { container: victim.id, config: {} });

    const again = await DockerGuard.start(undefined, engine, { state });
    const alice = await again.as(ALICE);
    const start = (id: string) => alice.status(`POST /v1.48/exec/${id}/start`, { Detach: true });
    assert.equal(await start(plain!), "200");
    assert.equal(await start(privileged!), "403 ucred: exec.start is not allowed: Privileged");
    assert.match(await start(moved!), /^404 /);
  },
  safeFolders,
  needs.oneRuntime,
);

testDocker("guard --state loses no owner of an answered request when it is killed", async () => {
  const state = join(safeFolder(), "owners.jsonl");
  const engine = await engineWithLabels();
  const policy = policyFile(POLICY.trimStart());
  const learned = join(safeFolder(), "learned.jsonl");
  const start = () =>
    Guard.start({
      ...{ upstream: engine.path, mode: "docker", policy },
      args: ["--state", state, "--learn", learned],
    });
  const answered: string[] = [];
  for (let round = 1; round <= soak(1, 10); round++) {
    const guard = await start();
    const { ended } = guard;
    const working = [ALICE, BOB].map(async (uid) => {
      const client = await clientOf(guard.path, uid);
      try {
        for (let at = 0;; at++) {
          const name = `${uid}-${round}-${at}`;
          await client.create(name);
          answered.push(name);
        }
      } catch {
        // The guard was killed.
      }
    });
    await until(() => answered.length >= 20 * round);
    guard.child.kill("SIGKILL"); // in the middle of requests
    await ended;
    await Promise.all(working);
  }
  const users = readRecording(readFileSync(learned), learned).entries.map(({ caller }) =>
    caller.uid
  );
  assert.deepEqual(new Set(users), new Set([ALICE, BOB]));
  const guard = await start();
  const clients = new Map([
    [ALICE, await clientOf(guard.path, ALICE)],
    [BOB, await clientOf(guard.path, BOB)],
  ]);
  for (const name of answered) {
    for (const [uid, client] of clients) {
      const expected = name.startsWith(`${uid}-`) ? /^200/ : /^404/;
      assert.match(await client.status(`GET /containers/${name}/json`), expected, `${uid} ${name}`);
    }
  }
}, safeFolders);

testDocker("guard --state forgets containers that are gone", async () => {
  const state = join(safeFolder(), "owners.jsonl");
  const engine = await FakeEngine.start();
  const first = await DockerGuard.start(undefined, engine, { state });
  const alice = await first.as(ALICE);
  const [removed, gone, kept] = [
    await alice.create("removed"),
    await alice.create("gone"),
    await alice.create("kept"),
  ];
  assert.equal(await alice.status("DELETE /containers/removed"), "204");
  engine.containers.delete(gone); // past the guard, or by --rm
  await first.server.close({ timeout: 0 });
  assert.ok(readFileSync(state, "utf8").includes(`{"removed":"${removed}"}`));

  const again = await DockerGuard.start(undefined, engine, { state });
  const later = await again.as(ALICE);
  await later.status("HEAD /_ping");
  await until(() => readFileSync(state, "utf8").includes(`{"removed":"${gone}"}`));
  await again.server.close({ timeout: 0 });
  const third = await DockerGuard.start(undefined, engine, { state });
  const lines = readFileSync(state, "utf8").trimEnd().split("\n");
  assert.deepEqual(lines.map((line) => JSON.parse(line)), [
    { state: 1 },
    { container: kept, uid: ALICE },
  ]);
  await third.server.close({ timeout: 0 });
}, safeFolders);

testDocker(
  "guard --state does not believe an owner that the container's label contradicts",
  async () => {
    const state = join(safeFolder(), "owners.jsonl");
    const engine = await FakeEngine.start();
    const victim = engine.add("victim", { [OWNER_LABEL]: String(BOB) });
    const plain = engine.add("plain");
    const line = ({ id }: { id: string }) => `${JSON.stringify({ container: id, uid: ALICE })}\n`;
    writeFileSync(state, `{"state":1}\n${line(victim)}${line(plain)}`, { mode: 0o600 });
    const guard = await DockerGuard.start(undefined, engine, { state });
    const alice = await guard.as(ALICE);
    for (const name of ["victim", "plain"]) {
      assert.match(await alice.status(`POST /containers/${name}/stop`), /^404/, name);
    }
  },
  safeFolders,
);

testDocker("guard --state does not start with a file that it cannot read or trust", () => {
  const folder = safeFolder();
  const path = join(folder, "owners.jsonl");
  const good = `{"state":1}\n{"container":"${idOf("a")}","uid":1000}\n`;
  const open = () => new Ledger(path, () => {}).close();
  const cases: readonly (readonly [text: string, why: RegExp])[] = [
    ["", /owners\.jsonl:1:1: it is empty/],
    ['{"sta', /owners\.jsonl:1:1: it is empty/],
    [`${good}rubbish\n`, /owners\.jsonl:3:1: it is not JSON/],
    [`${good}[]\n`, /owners\.jsonl:3:1: it is not a JSON object/],
    [`${good}\n`, /owners\.jsonl:3:1: /],
    ['{"state":2}\n', /owners\.jsonl:1:1: it is not a state of a guard/],
    ['{"recording":1,"mode":"docker"}\n', /owners\.jsonl:1:1: /],
    [`${good}{"container":"${idOf("a")}","uid":1001}\n`, /:3:1: the container has two owners/],
    [`${good}{"container":"aa","uid":1001}\n`, /owners\.jsonl:3:1: /],
    [`${good}{"container":"${idOf("b")}","uid":4294967295}\n`, /owners\.jsonl:3:1: /],
    [`${good}{"container":"${idOf("b")}","uid":"0"}\n`, /owners\.jsonl:3:1: /],
    [`${good}{"container":"${idOf("b")}","uid":1,"x":1}\n`, /:3:1: it has unknown fields/],
    [`${good}{"removed":"${idOf("b")}","uid":1}\n`, /owners\.jsonl:3:1: /],
    [`${good}{"exec":"x","container":"${idOf("b")}","uid":1}\n`, /owners\.jsonl:3:1: /],
    [`${good}\u0000\n`, /owners\.jsonl:3:1: /],
  ];
  for (const [text, why] of cases) {
    writeFileSync(path, text, { mode: 0o600 });
    assert.throws(open, why, JSON.stringify(text));
    assert.equal(readFileSync(path, "utf8"), text); // unchanged, for the operator
  }
  writeFileSync(path, Buffer.concat([Buffer.from(good), Buffer.from([0xff, 10])]));
  assert.throws(open, /it is not in UTF-8/);

  writeFileSync(path, good);
  for (const mode of [0o640, 0o604, 0o620, 0o602]) {
    chmodSync(path, mode);
    assert.throws(open, /other users may read or write it/);
  }
  chmodSync(path, 0o600);
  chownSync(path, ALICE, ALICE);
  assert.throws(open, /it belongs to uid 4101/);
  chownSync(path, 0, 0);
  renameSync(path, join(folder, "real"));
  symlinkSync("real", path);
  assert.throws(open, /ELOOP|symbolic link/);
  rmSync(path);
  mkdirSync(path);
  assert.throws(open, /not a regular file|EISDIR/);
  rmSync(path, { recursive: true });
  chmodSync(folder, 0o777);
  assert.throws(open, /its folder .* may be written by others/);
  chmodSync(folder, 0o700);
  open();
  assert.ok(existsSync(path));
  assert.throws(() => new Ledger(join(folder, "none/owners"), () => {}), /ENOENT/);
}, safeFolders);

testDocker("guard --state is used by one guard at a time", () => {
  const path = join(safeFolder(), "owners.jsonl");
  const first = new Ledger(path, () => {});
  assert.throws(() => new Ledger(path, () => {}), /another guard uses it/);
  first.close();
  new Ledger(path, () => {}).close();
}, safeFolders);

testDocker(
  "guard --state removes an incomplete last line, and rewrites a file of old lines",
  () => {
    const folder = safeFolder();
    const path = join(folder, "owners.jsonl");
    const lines: string[] = [];
    const report = (line: string) => void lines.push(line);
    const first = new Ledger(path, report);
    first.addContainer(idOf("a"), ALICE);
    first.addExec(idOf("e"), { container: idOf("a"), uid: BOB });
    first.close();
    writeFileSync(path, '{"container":"bbbb', { flag: "a" });
    const second = new Ledger(path, report);
    assert.match(lines.join(), /its last line is incomplete, and is removed/);
    assert.equal(second.containers.get(idOf("a")), ALICE);
    assert.deepEqual(second.execs.get(idOf("e")), { container: idOf("a"), uid: BOB });
    const longest = { bytes: 0 };
    for (let at = 0; at < 6000; at++) {
      const id = at.toString(16).padStart(64, "0");
      second.addContainer(id, BOB);
      second.remove(id);
      if (at % 500 === 0) longest.bytes = Math.max(longest.bytes, statSync(path).size);
    }
    assert.ok(statSync(path).size < 500_000, `${statSync(path).size} of ${longest.bytes} bytes`);
    second.close();
    const third = new Ledger(path, report);
    assert.equal(third.size, 2);
    third.remove(idOf("a")); // and its exec
    third.close();
    assert.equal(new Ledger(path, report).size, 0);
    assert.deepEqual(readdirSync(folder).toSorted(), ["owners.jsonl", "owners.jsonl.lock"]);
  },
  safeFolders,
);

testDocker("guard --state reports owners that it cannot save, and goes on", async () => {
  const state = join(safeFolder(), "owners.jsonl");
  const engine = await FakeEngine.start();
  const guard = await DockerGuard.start(undefined, engine, { state });
  const alice = await guard.as(ALICE);
  rmSync(state);
  mkdirSync(state);
  await alice.create("one");
  await alice.create("two");
  assert.equal(await alice.status("POST /containers/two/stop"), "204");
  assert.equal(guard.reported.length, 1, guard.reported.join("\n"));
  assert.match(guard.reported[0]!, /new owners are not saved/);
}, safeFolders);
