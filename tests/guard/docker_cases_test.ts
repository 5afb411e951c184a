/** Docker mode: requests and clients that go wrong with other proxies of Docker's socket. */

import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import type { Attributes } from "../../core/policy/decide/decision.ts";
import { withoutOthers } from "../../guard/docker/answers.ts";
import { checkAction, checkHostPaths } from "../../guard/docker/host_paths.ts";
import { createGuard } from "../../guard/mod.ts";
import { parsePolicy, shadowPolicy } from "../../policy/mod.ts";
import { fakePeer } from "../../testing/mod.ts";
import { End, Guard, policyFile } from "../support/guard.ts";
import { putForward } from "../support/clock.ts";
import { readyPolicy } from "../support/docker_policies.ts";
import { ALICE, DockerGuard, testDocker, WATCHER } from "../support/docker_users.ts";
import { FakeEngine } from "../support/fake_engine.ts";
import { safeFolder, safeFolders } from "../support/safe_folder.ts";
import { needs } from "../support/suite.ts";

const ATTACH =
  "/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

testDocker(
  "guard keeps events, an attachment and an exec open that are idle for 15 minutes",
  async () => {
    // A short bodyTimeout lets the guard check all connections at short intervals.
    const guard = await DockerGuard.start(undefined, undefined, { bodyTimeout: 80 });
    const alice = await guard.as(ALICE);
    const id = await alice.create("mine");
    const exec =
      JSON.parse((await alice.ask("POST /containers/mine/exec", { Cmd: ["sh"] })).body).Id;
    const [events, attached, started] = await Promise.all(
      [ALICE, ALICE, ALICE].map((uid) => guard.as(uid)),
    );
    events!.end.send("GET /events HTTP/1.1\r\nHost: d\r\n\r\n");
    attached!.end.send(`POST /containers/mine${ATTACH}`);
    started!.end.send(
      `POST /exec/${exec}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n` +
        'Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 12\r\n\r\n{"Tty":true}',
    );
    for (const stream of [events, attached, started]) await stream!.end.until("\r\n\r\n");
    for (let minutes = 0; minutes < 15; minutes++) {
      const idle = await guard.as(0); // the guard closes it, and so has checked the others
      await idle.ask("GET /version");
      putForward(60_000);
      assert.equal(await idle.end.rest(), "");
    }
    guard.engine.emit("die", guard.engine.containers.get(id)!);
    await events!.end.until('"Action":"die"');
    for (const stream of [attached, started]) {
      assert.equal(await stream!.end.send("late\n").end().rest(), "input:late\n");
    }
  },
);

testDocker("guard answers the same request of two users by the rules for each", async () => {
  const guard = await DockerGuard.start();
  guard.engine.add("web");
  const request = "GET /v1.46/containers/web/logs?stdout=1";
  const [alice, watcher, root] = await Promise.all([ALICE, WATCHER, 0].map((uid) => guard.as(uid)));
  assert.equal(await alice!.status(request), "404 No such container: web");
  assert.equal(await watcher!.status(request), "200");
  assert.equal(await root!.status(request), "200");
  assert.equal(
    await watcher!.status("POST /containers/web/kill"),
    "403 ucred: container.kill is not allowed",
  );
  assert.equal(await root!.status("POST /containers/web/kill"), "204");
});

testDocker(
  "guard denies files and exports to a user who may list, inspect and read logs",
  async () => {
    const guard = await DockerGuard.start();
    guard.engine.add("web");
    const watcher = await guard.as(WATCHER);
    assert.equal(await watcher.status("GET /v1.46/containers/json"), "200");
    assert.equal(await watcher.status("GET /v1.46/containers/web/json"), "200");
    const before = guard.engine.received.length;
    for (const path of ["archive?path=/etc/shadow", "export"]) {
      assert.match(
        await watcher.status(`GET /v1.46/containers/web/${path}`),
        /^403 ucred: container\./,
      );
    }
    const image = guard.engine.images.keys().next().value;
    assert.match(await watcher.status(`GET /v1.46/images/${image}/get`), /^403 ucred: image\./);
    const heard = guard.engine.received.slice(before).filter(({ line }) => !line.endsWith("/json"));
    assert.deepEqual(heard, []);
  },
);

testDocker(
  "guard denies an archive for a container with a writable folder of the host",
  async () => {
    const engine = await FakeEngine.start();
    const guard = await DockerGuard.start(undefined, engine);
    const own = { "io.ucred.owner": String(ALICE) };
    engine.add("homely", own, {
      HostConfig: { Binds: [`/home/alice:/home`] },
      User: `${ALICE}:${ALICE}`,
    });
    engine.add("reader", own, { HostConfig: { Binds: ["/home/alice:/home:ro"] } });
    const tar = "x".repeat(1024); // of a file with uid 0 and mode 4755, for example
    const put = async (name: string, uid = ALICE) => {
      const client = await guard.as(uid);
      client.end.send(
        `PUT /v1.46/containers/${name}/archive?path=/home HTTP/1.1\r\nHost: d\r\n` +
          `Content-Type: application/x-tar\r\nContent-Length: ${tar.length}\r\n\r\n${tar}`,
      );
      const { status, body } = await client.end.message();
      return `${status} ${body}`;
    };
    assert.match(await put("homely"), /^403 .*ucred: /);
    assert.deepEqual(engine.heard(/^PUT/), []);
    assert.match(await put("reader"), /^200 /);
    assert.match(await put("homely", 0), /^200 /); // who may create any container is root anyway
    // A command as root, or another container as root with the same folder, could do the same.
    const alice = await guard.as(ALICE);
    const exec = (name: string, User?: string) =>
      alice.status(`POST /v1.46/containers/${name}/exec`, { Cmd: ["sh"], User });
    const join = (VolumesFrom: string[]) =>
      alice.status("POST /v1.46/containers/create", { Image: "a", HostConfig: { VolumesFrom } });
    assert.match(await exec("homely", "0"), /^403 ucred: a command in a container with a writable/);
    assert.match(await join(["reader", "homely:ro"]), /^403 ucred: a writable mount of the host/);
    assert.equal(engine.heard(/exec|create/).length, 0);
    for (const user of [undefined, `${ALICE}:${ALICE}`]) {
      assert.equal(await exec("homely", user), "201");
    }
    assert.equal(await exec("reader", "0"), "201");
    assert.equal(await join(["reader"]), "201");
  },
);

testDocker("guard counts a command in a privileged container as privileged", async () => {
  const engine = await FakeEngine.start();
  const guard = await DockerGuard.start(
    `
version: 1
about: docker
rules:
  - name: own
    when: { uid: ${ALICE} }
    actions: ["container.*", "exec.*"]
    where: { owner: self, privileged: false }
    allow: true
  - { name: list, when: { uid: ${ALICE} }, actions: container.list, where: { owner: self }, allow: true }
`,
    engine,
  );
  const own = { "io.ucred.owner": String(ALICE) };
  engine.add("weak", own);
  engine.add("strong", own, { HostConfig: { Privileged: true } });
  const alice = await guard.as(ALICE);
  const exec = (name: string, more: object = {}) =>
    alice.status(`POST /v1.46/containers/${name}/exec`, { Cmd: ["sh"], ...more });
  assert.match(await exec("strong"), /^403 ucred: container\.exec is not allowed/);
  assert.match(await exec("weak", { Privileged: true }), /^403 ucred: container\.exec is not/);
  assert.deepEqual(engine.heard(/^POST/), []);
  assert.equal(await exec("weak"), "201");
}, needs.oneRuntime);

testDocker("guard decides volumes and networks by their name, driver and labels", async () => {
  const guard = await DockerGuard.start(`
version: 1
about: docker
rules:
  - name: some
    when: { uid: ${ALICE} }
    actions: ["volume.inspect", "network.inspect"]
    where: { name: a*, driver: local, labels: { team: { some: x } } }
    allow: true
`);
  const { engine } = guard;
  const alice = await guard.as(ALICE);
  for (const [name, team] of [["a", "x"], ["ab", "y"], ["b", "x"]] as const) {
    engine.volumes.set(name, { id: name, name, labels: { team } });
    const id = name.padStart(64, "0");
    engine.networks.set(id, { id, name, labels: { team } });
    for (const kind of ["volumes", "networks"]) {
      const status = await alice.status(`GET /v1.46/${kind}/${name}`);
      assert.match(status, name === "a" ? /^200$/ : /^404 /, `${kind} ${name}`);
    }
    const byId = await alice.status(`GET /v1.46/networks/${id}`);
    assert.match(byId, name === "a" ? /^200$/ : /^404 /, name);
  }
}, needs.oneRuntime);

testDocker("guard creates a volume for a container only if the policy allows it", async () => {
  const guard = await DockerGuard.start(`
version: 1
about: docker
rules:
  - { name: containers, when: { uid: ${ALICE} }, actions: "container.*", allow: true }
  - { name: both, when: { uid: 0 }, actions: ["container.*", "volume.*"], allow: true }
`);
  const { engine } = guard;
  const body = { Image: "a", HostConfig: { Binds: ["new:/data"] } };
  const alice = await guard.as(ALICE);
  assert.equal(
    await alice.status("POST /v1.46/containers/create", body),
    "403 ucred: volume.create is not allowed: HostConfig.Binds[0]",
  );
  assert.deepEqual(engine.heard(/^POST/), []);
  const root = await guard.as(0);
  engine.answers.set("POST /volumes/create", "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}");
  assert.match(await root.status("POST /v1.46/containers/create", body), /^502 /);
  engine.answers.set("POST /volumes/create", "HTTP/1.1 201 Ok\r\nContent-Length: 2\r\n\r\n{}");
  assert.match(await root.status("POST /v1.46/containers/create", body), /^502 /);
  assert.deepEqual(engine.heard(/containers\/create/), []);
  engine.answers.clear();
  assert.equal(await root.status("POST /v1.46/containers/create", body), "201");
  assert.equal(engine.volumes.size, 1);
  // An engine that finds another volume than the one that is named.
  const other = '{"Name":"other","Driver":"local","Labels":null}';
  engine.answers.set(
    "GET /volumes/new",
    `HTTP/1.1 200 OK\r\nContent-Length: ${other.length}\r\n\r\n${other}`,
  );
  assert.match(await root.status("DELETE /v1.46/volumes/new"), /^502 /);
}, needs.oneRuntime);

testDocker(
  "guard denies folders of the host that are symbolic links, missing, or below a user's",
  async () => {
    const folder = safeFolder();
    const home = join(folder, "home");
    for (const name of ["home", "plain"]) mkdirSync(join(folder, name), { mode: 0o755 });
    mkdirSync(join(home, "own"));
    chownSync(home, ALICE, ALICE);
    symlinkSync("/", join(folder, "root"));
    symlinkSync("plain", join(folder, "alias"));
    const guard = await DockerGuard.start(
      `
version: 1
about: docker
rules:
  - name: folders
    when: { uid: ${ALICE} }
    actions: container.create
    where: { dangers: { every: HostConfig.Binds } }
    allow: true
`,
      undefined,
      { state: join(folder, "state"), learn: join(folder, "learned") },
    );
    const alice = await guard.as(ALICE);
    const create = (source: string, path = `${folder}/${source}`) =>
      alice.status("POST /v1.46/containers/create", {
        ...{ Image: "a", User: `${ALICE}:${ALICE}` },
        HostConfig: {
          ...{ Binds: [`${path}:/h`], CapDrop: ["ALL"] },
          SecurityOpt: ["no-new-privileges"],
        },
      });
    for (const source of ["root", "root/etc", "alias", "missing", "home/own"]) {
      assert.match(await create(source), /^403 ucred: /, source);
    }
    // What would make the user root: the guard's own sockets and files, and the engine's.
    const { path: engine } = guard.engine;
    for (const path of [guard.path, dirname(guard.path), engine, dirname(engine), "/", "/proc"]) {
      assert.match(await create("", path), /cannot be mounted: it would give access to \//, path);
    }
    for (const path of ["/state", "/learned", ""]) {
      assert.match(await create("", folder + path), /it would give access to .*\/(state|learned)$/);
    }
    assert.deepEqual(guard.engine.received, []);
    for (const source of ["plain", "home"]) assert.equal(await create(source), "201", source);
  },
  safeFolders,
);

const CONTAINED = {
  ...{ binds: [], writableBinds: [], user: ALICE, group: ALICE, privileged: false },
  ...{ capAdd: [], capDrop: ["ALL"], securityOpt: ["no-new-privileges=true"], groupAdd: [] },
};

testDocker(
  "checkHostPaths() denies a path that another user can change",
  async () => {
    const folder = safeFolder();
    const alice = fakePeer({ uid: ALICE, gid: ALICE });
    for (const name of ["open", "group", "hers", "hers/below", "his", "plain"]) {
      mkdirSync(join(folder, name));
      chmodSync(join(folder, name), 0o755);
    }
    writeFileSync(join(folder, "file"), "");
    symlinkSync("plain", join(folder, "link"));
    chmodSync(join(folder, "open"), 0o757);
    chmodSync(join(folder, "group"), 0o775);
    for (const name of ["open", "group", "plain"]) mkdirSync(join(folder, name, "below"));
    chownSync(join(folder, "hers"), ALICE, ALICE);
    chownSync(join(folder, "his"), WATCHER, WATCHER);
    const problemOf = (path: string, ...never: string[]) =>
      checkHostPaths({ never }, { ...CONTAINED, binds: [path] }, [], alice);
    for (
      const [path, why] of [
        ...[["", /no.* absolute path/], ["srv/a", /no.* absolute path/], ["/\0", /no.* absolute/]],
        ...[["//", /canonical/], ["/srv/", /canonical/], ["/./srv", /canonical/]],
        ...[["/srv/..", /canonical/], ["/srv//a", /canonical/]],
        ...[[`${folder}/none`, /does not exist/], [`${folder}/none/a`, /does not exist/]],
        [`${folder}/link`, /neither a folder nor a file/],
        [`${folder}/link/below`, /\/link is a symbolic link/],
        [`${folder}/file/below`, /\/file is not a folder/],
        [`${folder}/open/below`, /\/open can be changed by users other than root/],
        [`${folder}/group/below`, /\/group can be changed by users other than root/],
        [`${folder}/hers/below`, /\/hers can be changed by users other than root/],
        ...[[`${folder}/his`, /another user/], ["/dev/null", /neither a folder nor a file/]],
      ] as [string, RegExp][]
    ) assert.match(String(await problemOf(path)), why, path);
    for (const name of ["", "/plain", "/plain/below", "/open", "/hers", "/file"]) {
      assert.equal(await problemOf(`${folder}${name}`), undefined, name);
    }
    // A path of the engine, those above, and those below.
    const plain = `${folder}/plain`;
    for (const never of ["/", folder, plain, `${plain}/below`, `${plain}/below/socket`]) {
      assert.match(String(await problemOf(plain, "/none", never)), /would give access to/, never);
    }
    for (const never of [`${folder}/plai`, `${folder}/plains`, `${folder}/hers`]) {
      assert.equal(await problemOf(plain, never), undefined, never);
    }
    assert.equal(await problemOf("/"), undefined);
    assert.match(String(await problemOf("/", "/run")), /would give access to \/run/);
    // A writable path counts without its entry in the other list.
    const writable = { ...CONTAINED, writableBinds: [`${folder}/none`] };
    assert.match(String(await checkHostPaths({ never: [] }, writable, [], alice)), /not exist/);
    const asRoot = { ...CONTAINED, user: 0, writableBinds: [plain] };
    assert.match(String(await checkHostPaths({ never: [] }, asRoot, [], alice)), /needs --user/);
    for (const list of [undefined, null, "/", [1]]) {
      for (const name of ["binds", "writableBinds"]) {
        const attributes = { ...CONTAINED, [name]: list };
        const problem = await checkHostPaths({ never: [] }, attributes, [], alice);
        assert.equal(problem, "the mounts cannot be read");
      }
    }
  },
  safeFolders,
  needs.oneRuntime,
);

test("checkHostPaths() denies a writable path to a container that can become another user", async () => {
  const peer = fakePeer({ uid: ALICE, gid: ALICE, groups: [7] });
  const isDenied = async (changed: object, by = peer, joined = ["/srv"]) =>
    await checkHostPaths({ never: [] }, { ...CONTAINED, ...changed }, joined, by) !== undefined;
  const others = ["no-new-privileges=true", "seccomp=x", "no-new-privileges=true"];
  for (
    const changed of [
      ...[{}, { groupAdd: ["7", String(ALICE)] }, { capDrop: ["CHOWN", "ALL"] }],
      { securityOpt: others },
    ]
  ) {
    assert.equal(await isDenied(changed), false, JSON.stringify(changed));
  }
  assert.equal(await isDenied({}, fakePeer({ uid: ALICE, gid: ALICE })), false); // unknown groups
  for (
    const changed of [
      ...[{ user: undefined }, { user: 0 }, { user: WATCHER }, { group: undefined }, { group: 0 }],
      ...[{ privileged: true }, { privileged: undefined }, { capAdd: ["CHOWN"] }],
      ...[{ capAdd: undefined }, { capDrop: undefined }, { capDrop: [] }, { capDrop: ["CHOWN"] }],
      ...[{ securityOpt: [] }, { securityOpt: undefined }, { groupAdd: undefined }],
      { securityOpt: ["no-new-privileges=false"] },
      { securityOpt: ["x-no-new-privileges=true"] },
      { securityOpt: ["no-new-privileges=truely"] },
      ...["false", "0", "F"].map((last) => ({
        securityOpt: ["no-new-privileges=true", "seccomp=x", `no-new-privileges=${last}`],
      })),
      ...[{ groupAdd: ["0"] }, { groupAdd: ["7", "0"] }, { groupAdd: ["docker"] }],
    ]
  ) {
    assert.equal(await isDenied(changed), true, JSON.stringify(changed));
    // Without a writable path, nothing of this is needed.
    assert.equal(await isDenied(changed, peer, []), false);
  }
  const ambiguous = fakePeer({ uid: ALICE });
  assert.equal(await isDenied({ group: ambiguous.gid }, ambiguous), true);
});

test("checkAction() denies acts of root in a container with a writable path of the host", () => {
  const peer = fakePeer({ uid: ALICE, gid: ALICE });
  const own = { user: ALICE, group: ALICE, privileged: false };
  const isDenied = (action: string, container: Attributes, request: Attributes = own) =>
    checkAction(action, container, request, peer) !== undefined;
  for (const container of [{ writableBinds: ["/srv"] }, {}, { writableBinds: "/srv" }]) {
    assert.equal(isDenied("container.archive.write", container), true);
    assert.equal(isDenied("container.start", container, {}), false);
    for (const action of ["container.exec", "exec.start"]) {
      assert.equal(isDenied(action, container), false);
      for (const other of [{ user: 0 }, { user: undefined }, { group: 0 }, { group: undefined }]) {
        assert.equal(isDenied(action, container, { ...own, ...other }), true);
      }
      assert.equal(isDenied(action, container, { ...own, privileged: true }), true);
    }
  }
  for (const action of ["container.archive.write", "container.exec", "exec.start"]) {
    assert.equal(isDenied(action, { writableBinds: [] }, { privileged: true }), false);
  }
});

test("withoutOthers() removes ids and names of others from the engine's errors", () => {
  const [own, other] = ["a".repeat(64), "b".repeat(64)];
  const messageOf = (status: number, message: unknown, mayNameOthers = false) => {
    const body = Buffer.from(JSON.stringify({ message }));
    const answer = withoutOthers(status, "No", body, [own], mayNameOthers);
    assert.deepEqual([answer.status, answer.title, answer.type], [
      status,
      "No",
      "application/json",
    ]);
    return JSON.parse(String(answer.body)).message;
  };
  assert.equal(
    messageOf(404, `${own} ${other} ${other.slice(0, 12)} ${own.slice(0, 12)}.`),
    `${own} … … ${own.slice(0, 12)}.`,
  );
  assert.equal(messageOf(404, "bbbbbbbbbbb is short"), "bbbbbbbbbbb is short");
  for (const status of [403, 409]) {
    assert.doesNotMatch(messageOf(status, "the name victim is in use", true), /victim/);
    assert.match(messageOf(status, "the container mine is running"), /mine/);
  }
  assert.match(messageOf(500, "mine", true), /mine/);
  for (const message of [undefined, 1, null]) assert.throws(() => messageOf(404, message));
  for (const text of ["[]", "null", '"a"']) {
    assert.throws(() => withoutOthers(404, "", Buffer.from(text), [], false), /no message/);
  }
});

const CREATE = "POST /v1.46/containers/create HTTP/1.1\r\n";
const JSON_FIELDS = "Host: d\r\nContent-Type: application/json\r\n";
const PRIVILEGED = '{"Image":"a","HostConfig":{"Privileged":true}}';

/** What a proxy and Docker may frame differently → the header fields, and what follows the head. */
const FRAMINGS: { readonly [what: string]: readonly (readonly [fields: string, body: string])[] } =
  {
    "two lengths": [
      [`Content-Length: 2\r\nContent-Length: ${PRIVILEGED.length}\r\n`, PRIVILEGED],
      ["Content-Length: 2\r\nContent-Length: 2\r\n", "{}"],
      ["Content-Length: 2, 2\r\n", "{}"],
    ],
    "an empty length, and an empty header name": [
      ["Content-Length:\r\n", PRIVILEGED],
      ["Content-Length: 2\r\n: x\r\n", "{}"],
    ],
    "a length with a coding": [
      ["Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"],
    ],
    "a coding that is not plain chunked": [
      ["Transfer-Encoding: xchunked\r\n", "2\r\n{}\r\n0\r\n\r\n"],
      ["Transfer-Encoding: chunked, identity\r\n", "2\r\n{}\r\n0\r\n\r\n"],
      ["Transfer-Encoding: gzip, chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"],
      ["Transfer-Encoding: gzip\r\n", "{}"],
      ["Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"],
    ],
    "a length that is folded or no number": [
      ["Content-Length:\r\n 2\r\n", "{}"],
      ["Content-Length: +2\r\n", "{}"],
      ["Content-Length : 2\r\n", "{}"],
      ["Content-Length: 0x2\r\n", "{}"],
    ],
    "a chunk extension with a bare line end": [
      ["Transfer-Encoding: chunked\r\n", "2;x\n{}\r\n0\r\n\r\n"],
    ],
  };

for (const [what, rows] of Object.entries(FRAMINGS)) {
  testDocker(`guard refuses ${what}, forwards nothing, and closes the connection`, async () => {
    const guard = await DockerGuard.start();
    for (const [fields, body] of rows) {
      const { end } = await guard.as(0);
      end.send(`${CREATE}${JSON_FIELDS}${fields}\r\n${body}`);
      assert.match(await end.rest(), /^HTTP\/1\.1 (400|415|501) /, fields);
    }
    assert.deepEqual(guard.engine.received, []);
  });
}

testDocker("guard answers a body with Content-Encoding with 415", async () => {
  const guard = await DockerGuard.start();
  for (
    const line of [
      "POST /v1.46/containers/create",
      "POST /v1.46/build?t=a",
      "POST /v1.46/images/load",
    ]
  ) {
    const root = await guard.as(0);
    assert.match(await root.status(line, "{}", "Content-Encoding: gzip\r\n"), /^415 ucred: /, line);
  }
  assert.deepEqual(guard.engine.received, []);
});

testDocker(
  "guard denies folders of the host to an agent, which may run its containers",
  async () => {
    const guard = await DockerGuard.start(undefined, undefined, {
      policy: readyPolicy("agent.yaml"),
    });
    const agent = await guard.as(2000);
    const create = (HostConfig: object) =>
      agent.status("POST /v1.46/containers/create", { Image: "alpine", HostConfig });
    const denied = "403 ucred: container.create is not allowed: HostConfig.Binds";
    for (const source of ["/", "/etc", "/home/agent", "/var/run/docker.sock", "/run"]) {
      assert.equal(await create({ Binds: [`${source}:/h`] }), denied);
    }
    assert.deepEqual(guard.engine.received, []);
    assert.equal(await create({}), "201");
    // Another user is not the agent.
    const { end } = await guard.as(2001);
    end.send("GET /version HTTP/1.1\r\nHost: d\r\n\r\n");
    assert.match(await end.rest(), /^HTTP\/1\.1 403 /);
  },
);

testDocker("guard decodes a slash in the name of an image, and forwards one form", async () => {
  const guard = await DockerGuard.start();
  const root = await guard.as(0);
  for (
    const name of [
      "docker.io%2Flibrary%2Falpine",
      "docker.io/library/alpine",
      "docker.io%2flibrary/alpine",
    ]
  ) {
    assert.match(await root.status(`GET /v1.46/images/${name}/json`), /^404 No such image: /);
  }
  const [line, ...others] = guard.engine.received.map(({ line }) => line);
  assert.equal(line, "GET /v1.46/images/docker.io/library/alpine/json");
  assert.deepEqual(others, [line, line]);
  for (
    const path of ["containers/a%2Fb/json", "networks/a%2Fb", "volumes/a%2Fb", "containers%2Fjson"]
  ) {
    const client = await guard.as(0);
    assert.match(await client.status(`GET /v1.46/${path}`), /^40[04] /, path);
  }
  assert.equal(guard.engine.received.length, 3);
});

testDocker("guard does not confuse a volume or container with the route of its name", async () => {
  const guard = await DockerGuard.start(`
version: 1
about: docker
rules:
  - { name: root, when: { uid: 0 }, allow: full }
  - name: readers
    when: { uid: ${ALICE} }
    actions: [system.version, system.events, container.list, container.inspect, container.logs]
    allow: true
`);
  const { engine } = guard;
  const root = await guard.as(0);
  for (const Name of ["version", "events", "json"]) {
    assert.equal(await root.status("POST /volumes/create", { Name }), "201");
  }
  engine.add("web");
  const alice = await guard.as(ALICE);
  for (const version of ["", "/v1.24", "/v1.46"]) {
    const before = engine.received.length;
    for (const path of ["version", "events", "json"]) {
      const status = await alice.status(`GET ${version}/volumes/${path}`);
      assert.match(status, /^403 ucred: volume\.inspect is not allowed/);
    }
    assert.match(await alice.status(`GET ${version}/volumes/containers/json`), /^40[034] /);
    assert.deepEqual(engine.received.slice(before), []);
    // docker logs inspects the container first.
    for (
      const path of [
        "version",
        "containers/json",
        "containers/web/json",
        "containers/web/logs?stdout=1",
      ]
    ) {
      assert.equal(await alice.status(`GET ${version}/${path}`), "200", `${version}/${path}`);
    }
  }
});

const ALL = "version: 1\nrules: [{ name: all, allow: full }]";
/** The first rule never matches, so that the second one allows everything. */
const MISSPELLED = `version: 1
rules:
  - { name: no execs, actions: [contaner.exec], deny: not here }
  - { name: all, allow: full }
`;
const ABOUT_HTTP = `version: 1
about: http
rules: [{ name: lists, actions: "GET /containers/json", allow: full }]
`;

testDocker(
  "guard does not start with a policy that is missing, empty, or about something else",
  async () => {
    const engine = await FakeEngine.start();
    const other = "version: 1\nabout: dockr\nrules: [{ name: all, allow: full }]";
    const policies: readonly (readonly [policy: string | null, args: string[], why: RegExp])[] = [
      [null, ["--policy", "/nonexistent/policy.yaml"], /nonexistent/],
      [policyFile(""), [], /policy/],
      [policyFile("version: 1\nabout: docker\n"), [], /rules/],
      [policyFile(other), [], /dockr/],
      [
        policyFile(MISSPELLED),
        [],
        /policy\.yaml:3:\d+: actions are tested without "about: docker"/,
      ],
      [
        policyFile(ABOUT_HTTP),
        [],
        /without "about: docker"/,
      ],
      [policyFile(ALL), ["--shadow", policyFile(MISSPELLED)], /without "about: docker"/],
    ];
    for (const [policy, args, why] of policies) {
      const guard = Guard.launch({ upstream: engine.path, mode: "docker", policy, args });
      const { code } = await guard.ended;
      assert.notEqual(code, 0, guard.log);
      assert.match(guard.log, why);
      const client = await End.open(guard.path);
      assert.equal(await client.rest(), "");
    }
    assert.deepEqual(engine.received, []);
  },
);

testDocker(
  "guard keeps its policy when the new one tests actions without a vocabulary",
  async () => {
    const engine = await FakeEngine.start();
    const policy = policyFile(ALL); // without actions, no vocabulary is needed
    const guard = await Guard.start({ upstream: engine.path, mode: "docker", policy });
    const client = await End.open(guard.path);
    writeFileSync(policy, MISSPELLED);
    guard.signal("SIGHUP");
    await guard.logs("the previous policy stays in force");
    await guard.logs('actions are tested without "about: docker"');
    await client.send("GET /version HTTP/1.1\r\nHost: d\r\n\r\n").until("HTTP/1.1 200 ");
    writeFileSync(policy, 'version: 1\nabout: docker\nrules: [{ name: none, deny: "no" }]');
    guard.signal("SIGHUP");
    await guard.logs("the new policy is in force");
  },
);

testDocker("createGuard() throws for actions without a vocabulary in docker mode", () => {
  const options = { mode: "docker", upstream: "/nonexistent" } as const;
  const wrong = parsePolicy(MISSPELLED);
  const error = { code: "ERR_UCRED_POLICY", message: /actions are tested without "about: docker"/ };
  for (const policy of [wrong, shadowPolicy(wrong, parsePolicy(ALL))]) {
    assert.throws(() => createGuard({ ...options, policy }), error);
  }
  createGuard({ ...options, policy: parsePolicy(ALL) });
});
