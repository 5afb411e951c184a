/** Guards that record requests, and the policies that the recordings suggest. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { AuditLog, ServerEvent } from "../../servers/audit.ts";
import type { RequestReport } from "../../guard/mod.ts";
import { readRecording } from "../../interop/recording.ts";
import { documentOf, suggest } from "../../interop/suggest.ts";
import { temporaryFolder } from "../support/compile.ts";
import { ALICE, BOB, DockerGuard, testDocker } from "../support/docker_users.ts";
import { FakeEngine } from "../support/fake_engine.ts";
import { Behind, End } from "../support/guard.ts";
import { guardHere } from "../support/guard_here.ts";

const FULL = `
version: 1
about: docker
rules: [{ name: all, allow: true }]
`;

const recordingIn = (file: string) => readRecording(readFileSync(file), file);

function policyFrom(file: string, includeDenied = false): string {
  const options = { by: "uid", includeDenied, groupName: () => undefined } as const;
  return JSON.stringify(documentOf(suggest(recordingIn(file), options)));
}

/** What two users do, and the statuses. */
async function use(guard: DockerGuard): Promise<readonly string[]> {
  const statuses: string[] = [];
  for (const [uid, name] of [[ALICE, "alices"], [BOB, "bobs"]] as const) {
    const client = await guard.as(uid);
    const ask = async (line: string, body?: unknown) => {
      const { status, body: text } = await client.ask(line, body, "X-Registry-Auth: hunter2\r\n");
      statuses.push(`${uid} ${line} ${status}`);
      return text;
    };
    await ask("HEAD /_ping");
    await ask("GET /v1.48/networks/missing");
    await ask(`POST /v1.48/containers/create?name=${name}`, {
      ...{ Image: "busybox", Env: ["A=hunter2"], Labels: { a: "hunter2" } },
      HostConfig: { Binds: ["data:/d"] },
    });
    await ask(`POST /v1.48/containers/${name}/start`);
    const exec = JSON.parse(
      await ask(`POST /v1.48/containers/${name}/exec`, { Cmd: ["hunter2"], Env: ["B=hunter2"] }),
    ).Id;
    await ask(`POST /v1.48/exec/${exec ?? "0"}/start`, { Detach: true });
    statuses[statuses.length - 1] = "exec";
    await ask(`GET /v1.48/containers/${name}/json`);
    await ask(`DELETE /v1.48/containers/${name}`);
    await ask("DELETE /v1.48/volumes/data");
  }
  return statuses;
}

testDocker(
  "guard records what users do, and the suggested policy allows that and no more",
  async () => {
    const file = join(temporaryFolder(), "learned.jsonl");
    const engine = await FakeEngine.start();
    const guard = await DockerGuard.start(FULL, engine, { learn: file });
    const seen = await use(guard);
    await use(guard);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    await guard.server.close({ timeout: 0 });
    assert.doesNotMatch(readFileSync(file, "utf8"), /hunter2/);
    const { entries } = recordingIn(file);
    const create = entries.find(({ action }) => action === "container.create")!;
    assert.deepEqual([create.caller.uid, create.count], [ALICE, 2]);
    assert.ok(entries.length < 30, `${entries.length} entries`);

    const again = await DockerGuard.start(policyFrom(file), engine);
    assert.deepEqual(await use(again), seen);
    const alice = await again.as(ALICE);
    const denied: readonly (readonly [line: string, body?: unknown])[] = [
      ["POST /containers/create", { Image: "busybox", HostConfig: { Privileged: true } }],
      ["POST /containers/create", { Image: "alpine" }],
      ["POST /containers/create", { Image: "busybox", HostConfig: { NetworkMode: "host" } }],
      ["POST /volumes/create", { Name: "v", DriverOpts: { device: "/" } }],
      ["GET /info"],
      ["POST /swarm/leave"],
    ];
    for (const [line, body] of denied) assert.match(await alice.status(line, body), /^403/, line);
    engine.add("victim");
    assert.match(await alice.status("POST /containers/victim/start"), /^404/);
    const other = await again.as(4199);
    assert.match(await other.status("HEAD /_ping"), /^403/);
  },
);

testDocker("guard continues a recording, and marks what was denied", async () => {
  const file = join(temporaryFolder(), "denied.jsonl");
  const policy = `
version: 1
about: docker
rules:
  - { name: versions, actions: system.version, allow: true }
  - { name: own, actions: ["container.start"], where: { owner: self }, allow: true }
`;
  const engine = await FakeEngine.start();
  for (const _ of [1, 2]) {
    const guard = await DockerGuard.start(policy, engine, { learn: file });
    const alice = await guard.as(ALICE);
    assert.equal(await alice.status("GET /version"), "200");
    assert.match(await alice.status("GET /info"), /^403/);
    assert.match(await alice.status("POST /containers/create", { Image: "a" }), /^403/);
    assert.match(await alice.status("GET /nothing-of-docker"), /^404/); // is not recorded
    await guard.server.close({ timeout: 0 });
    // As if the guard had been killed. Without a mode, Deno 2.9.5 sets 0666.
    appendFileSync(file, '{"entry":1,"cou', { mode: 0o600 });
  }
  const { entries } = recordingIn(file);
  assert.deepEqual(entries.map(({ action, allowed, count }) => [action, allowed, count]), [
    ["system.version", true, 2],
    ["system.info", false, 2],
    ["container.create", false, 2],
  ]);
  assert.deepEqual(JSON.parse(policyFrom(file)).rules.length, 1);
  assert.deepEqual(JSON.parse(policyFrom(file, true)).rules.length, 2);
});

testDocker("guard does not start with a recording that it cannot continue", async () => {
  const file = join(temporaryFolder(), "wrong.jsonl");
  const engine = await FakeEngine.start();
  const start = () => DockerGuard.start(FULL, engine, { learn: file });
  writeFileSync(file, '{"recording":1,"mode":"http"}\n');
  await assert.rejects(start(), /wrong\.jsonl is a recording of mode "http"/);
  writeFileSync(file, '{"recording":1,"mode":"docker"}\nrubbish\n');
  await assert.rejects(start(), /wrong\.jsonl:2:1: it is not a JSON object/);
  writeFileSync(file, '{"recording":1,"mode":"docker"}\n');
  chownSync(file, ALICE, 0);
  await assert.rejects(start(), /other users may have written it/);
  chownSync(file, 0, 0);
  chmodSync(file, 0o620);
  await assert.rejects(start(), /other users may have written it/);
  await assert.rejects(
    DockerGuard.start(FULL, engine, { learn: join(file, "below") }),
    /below/,
  );
  const fifo = join(temporaryFolder(), "fifo");
  execFileSync("mkfifo", ["-m", "600", fifo]);
  for (const learn of [fifo, temporaryFolder()]) {
    await assert.rejects(DockerGuard.start(FULL, engine, { learn }), /it is not a regular file/);
  }
});

testDocker("guard stops recording when another file replaces the recording", async () => {
  const file = join(temporaryFolder(), "replaced.jsonl");
  const engine = await FakeEngine.start();
  for (const replace of ["fifo", "link", "stranger", "mode"] as const) {
    rmSync(file, { force: true });
    const guard = await DockerGuard.start(FULL, engine, { learn: file });
    const other = join(temporaryFolder(), "other");
    writeFileSync(other, "", { mode: 0o600 });
    rmSync(file);
    if (replace === "fifo") execFileSync("mkfifo", ["-m", "600", file]);
    else if (replace === "link") symlinkSync(other, file);
    else {
      writeFileSync(file, "", { mode: 0o600 });
      if (replace === "stranger") chownSync(file, ALICE, 0);
      else chmodSync(file, 0o622);
    }
    const alice = await guard.as(ALICE);
    assert.equal(await alice.status("GET /version"), "200");
    await guard.server.close({ timeout: 0 });
    assert.equal(statSync(other).size, 0, replace);
    if (replace !== "fifo") assert.equal(statSync(file).size, 0, replace);
  }
});

testDocker("guard records requests in HTTP mode by method and path", async () => {
  const file = join(temporaryFolder(), "http.jsonl");
  const upstream = await Behind.start(async (end) => {
    for (;;) {
      await end.message();
      end.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
  });
  const { path, guard } = await guardHere({ mode: "http", upstream: upstream.path, learn: file });
  const end = await End.open(path);
  for (const target of ["/a?token=hunter2", "/a?token=other", "/b/../c"]) {
    end.send(`GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`);
    assert.equal((await end.message()).status, 200);
  }
  end.destroy();
  await guard.close({ timeout: 0 });
  const { mode, entries } = recordingIn(file);
  assert.equal(mode, "http");
  assert.deepEqual(entries.map(({ action, count }) => [action, count]), [
    ["GET /a", 2],
    ["GET /c", 1],
  ]);
  assert.deepEqual(JSON.parse(policyFrom(file)).rules[0].actions, ["GET /a", "GET /c"]);
});

testDocker(
  "guard counts 404 for an object of others as denied, and reports the decision",
  async () => {
    const events: ServerEvent[] = [];
    const reports: RequestReport[] = [];
    const audit: AuditLog = {
      ...{ dropped: 0, error: undefined, reopen() {}, close: () => Promise.resolve() },
      write: (event) => void (event.type === "decided" && events.push(event)),
    };
    const engine = await FakeEngine.start();
    const guard = await DockerGuard.start(undefined, engine, {
      ...{ audit, onRequest: (report: RequestReport) => void reports.push(report) },
    });
    engine.add("victim");
    const alice = await guard.as(ALICE);
    const requests: readonly (readonly [line: string, body?: unknown])[] = [
      ["POST /containers/victim/start"],
      ["GET /containers/victim/json"],
      ["POST /containers/missing/start"],
      ["POST /containers/create", { Image: "a", HostConfig: { PidMode: "container:victim" } }],
      ["POST /containers/create", { Image: "a", HostConfig: { PidMode: "container:missing" } }],
      [`POST /exec/${"0".repeat(64)}/start`, {}],
      ["GET /nothing-of-docker"],
    ];
    for (const [line, body] of requests) assert.match(await alice.status(line, body), /^404/, line);
    assert.equal(await alice.status("POST /containers/create", { Image: "a" }), "201");
    const { denied, allowed } = guard.server.stats();
    assert.deepEqual([denied, allowed], [requests.length, 1]);
    const { outcomes } = guard.server.stats().requests!;
    assert.deepEqual([outcomes.denied, outcomes.allowed], [requests.length, 1]);
    // One record for each request, and the same decision in the report.
    const decisions = events.map((event) => event.type === "decided" ? event.decision : undefined);
    assert.deepEqual(reports.map(({ decision }) => decision), decisions);
    assert.deepEqual(decisions.map((decision) => decision!.allowed), [
      ...requests.map(() => false),
      true,
    ]);
  },
);
