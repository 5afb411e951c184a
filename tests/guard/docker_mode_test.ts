/** Docker mode: requests are decided by action and attributes, and users see and touch their own objects. */

import assert from "node:assert/strict";
import type { AuditLog, ServerEvent } from "../../servers/audit.ts";
import { needs, sample, soak, until } from "../support/suite.ts";
import { ALICE, BOB, CAROL, DockerGuard, testDocker, WATCHER } from "../support/docker_users.ts";
import { type FakeContainer, FakeEngine, IMAGE } from "../support/fake_engine.ts";

const OWNER = "io.ucred.owner";

testDocker("guard decides requests by action, and forwards their canonical form", async () => {
  const guard = await DockerGuard.start();
  const { engine } = guard;
  const root = await guard.as(0);
  assert.equal(await root.status("GET /version"), "200");
  assert.equal(await root.status("GET /v1.48/containers/json?all=TRUE&nonsense=1"), "200");
  assert.equal(await root.status("GET /v1.48/c%6fntainers/json"), "200");
  assert.deepEqual(engine.received.map(({ line }) => line), [
    "GET /version",
    "GET /v1.48/containers/json?all=1",
    "GET /v1.48/containers/json",
  ]);
  for (const path of ["/v1.48//containers/json", "/v1.24/../v1.48/containers/json", "/nothing"]) {
    assert.match(await root.status(`GET ${path}`), /^(400|404) /, path);
  }
  assert.equal(engine.received.length, 3);
  const fields = "Accept-Encoding: gzip\r\nX-Ucred-Uid: 7\r\nAccept: text/html\r\nX-Other: 1\r\n";
  const other = await guard.as(0);
  assert.equal(await other.status("GET /version", undefined, fields), "200");
  const { message } = engine.received.at(-1)!;
  const names = ["accept-encoding", "x-ucred-uid", "accept", "content-type", "x-other"];
  assert.deepEqual(names.map((name) => message.header(name)), ["", "", "", "", "1"]);
});

testDocker("guard answers denials as Docker's clients print them", async () => {
  const guard = await DockerGuard.start();
  const alice = await guard.as(ALICE);
  const denied = await alice.ask("POST /v1.48/containers/create", {
    ...{ Image: "a", HostConfig: { Privileged: true } },
  });
  assert.equal(denied.status, 403);
  assert.equal(denied.header("content-type"), "application/json");
  assert.deepEqual(JSON.parse(denied.body), {
    message: "ucred: container.create is not allowed: HostConfig.Privileged",
  });
  assert.equal(await alice.status("GET /info"), "403 ucred: system.info is not allowed");
  const stranger = await guard.as(4199);
  const refused = await stranger.ask("GET /_ping");
  assert.equal(refused.status, 403);
  assert.equal(refused.header("content-type"), "application/json");
  assert.match(JSON.parse(refused.body).message, /^ucred: /);
  assert.deepEqual(guard.engine.received, []);
}, needs.oneRuntime);

testDocker("guard lets each client ping that may do anything", async () => {
  const guard = await DockerGuard.start();
  const alice = await guard.as(ALICE);
  const response = await alice.ask("HEAD /_ping");
  assert.equal(response.status, 200);
  assert.equal(response.header("api-version"), "1.48");
}, needs.oneRuntime);

// Moby CVE-2026-34040: an authorization plugin received no body, if the body was too large.
testDocker("guard accepts a JSON body of 1 MiB, and answers one byte more with 413", async () => {
  const guard = await DockerGuard.start();
  const body = (size: number) => {
    const start = '{"Image":"a","Env":["';
    return `${start}${"x".repeat(size - start.length - 3)}"]}`;
  };
  const chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
  for (const [size, status] of [[1 << 20, 201], [(1 << 20) + 1, 413]] as const) {
    const target = `/v1.48/containers/create?name=n${size}`;
    const plain = await (await guard.as(0)).ask(`POST ${target}`, body(size));
    assert.equal(plain.status, status);
    const root = await guard.as(0);
    root.end.send(`POST ${target}c HTTP/1.1\r\nHost: d\r\n${chunked}\r\n`);
    const text = body(size);
    for (let at = 0; at < text.length; at += 300_000) {
      const part = text.slice(at, at + 300_000);
      root.end.send(`${part.length.toString(16)}\r\n${part}\r\n`);
    }
    root.end.send("0\r\n\r\n");
    const answer = await root.end.message();
    assert.equal(answer.status, status);
    if (status === 413) assert.match(answer.body, /^\{"message":"ucred: /);
  }
  assert.equal(guard.engine.heard(/create/).length, 2);
  assert.equal(guard.engine.heard(/create/)[1]!.message.header("content-length") !== "", true);
});

// Moby CVE-2024-41110: an authorization plugin received no body, if the length was 0.
testDocker("guard ignores bytes after a body of length 0, and closes the connection", async () => {
  const guard = await DockerGuard.start();
  const alice = await guard.as(ALICE);
  const hidden = '{"Image":"a","HostConfig":{"Privileged":true}}';
  alice.end.send(
    "POST /v1.46/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n" +
      `Content-Length: 0\r\n\r\n${hidden}`,
  );
  const answers = await alice.end.rest();
  assert.match(answers, /HTTP\/1\.1 400 /);
  assert.ok(guard.engine.received.every(({ body }) => !body.includes("Privileged")));
});

testDocker("guard answers forms, codings and unknown types of a body with 415", async () => {
  const guard = await DockerGuard.start();
  const tries = [
    "Content-Type: application/x-www-form-urlencoded\r\n",
    "Content-Type: multipart/form-data; boundary=x\r\n",
    "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
    "Content-Type: application/grpc\r\n",
    "Content-Type: text/plain\r\n",
    "Content-Type: application/json\r\ncontent-type: application/json\r\n",
  ];
  for (const fields of tries) {
    const root = await guard.as(0);
    root.end.send(
      `POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n${fields}\r\n{}`,
    );
    assert.equal((await root.end.message()).status, 415, fields);
  }
  const form = await guard.as(0);
  form.end.send(
    "POST /v1.46/images/create?fromImage=alpine HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n" +
      "Content-Type: application/x-www-form-urlencoded\r\n\r\nfromImage",
  );
  assert.equal((await form.end.message()).status, 415);
  assert.deepEqual(guard.engine.received, []);
});

testDocker("guard acts on a container by the id that it has decided", async () => {
  const guard = await DockerGuard.start();
  const { engine } = guard;
  const root = await guard.as(0);
  const id = await root.create("web");
  assert.equal(await root.status("POST /v1.48/containers/web/stop?t=5"), "204");
  assert.equal(await root.status(`POST /v1.48/containers/${id.slice(0, 12)}/start`), "204");
  assert.equal(engine.heard(/stop/)[0]!.line, `POST /v1.48/containers/${id}/stop?t=5`);
  assert.equal(engine.heard(/start/)[0]!.line, `POST /v1.48/containers/${id}/start`);
  const [created] = engine.heard(/create/);
  assert.equal(created!.message.header("content-type"), "application/json");
  // The engine receives no body that was not judged.
  assert.equal(await root.status("POST /v1.48/containers/web/stop", { t: 1 }), "204");
  assert.equal(engine.heard(/stop/)[1]!.body, "");

  // A legacy link gives a container another name, with a slash.
  const victim = engine.add("victim");
  engine.aliases.set("web/start", victim.id);
  const alice = await guard.as(ALICE);
  const answer = "404 No such container: web/start";
  assert.equal(await alice.status("GET /containers/web/start/json"), answer);
  assert.equal(await alice.status("POST /v1.48/containers/web/start/exec", { Cmd: ["x"] }), answer);
  assert.deepEqual(engine.heard(/exec/), []);
}, needs.oneRuntime);

testDocker(
  "guard answers for a hidden container exactly as the engine for an absent one",
  async () => {
    const guard = await DockerGuard.start();
    guard.engine.add("victim");
    const alice = await guard.as(ALICE);
    const requests = [
      "GET /v1.48/containers/NAME/json",
      "POST /v1.48/containers/NAME/start",
      "POST /v1.48/containers/NAME/attach",
      "DELETE /v1.48/containers/NAME?force=1",
      "GET /v1.48/containers/NAME/logs?stdout=1",
      "GET /v1.48/containers/NAME/archive?path=/etc/shadow",
      "HEAD /v1.48/containers/NAME/archive?path=/etc/shadow",
      "POST /v1.48/containers/NAME/rename?name=x",
    ];
    const normal = ({ first, fields, body }: Awaited<ReturnType<typeof alice.ask>>, name: string) =>
      JSON.stringify([first, fields.filter(([key]) => key.toLowerCase() !== "date"), body])
        .replaceAll(name, "NAME");
    for (const request of requests) {
      const hidden = await alice.ask(request.replace("NAME", "victim"));
      const absent = await alice.ask(request.replace("NAME", "nobody"));
      assert.equal(hidden.status, 404, request);
      assert.equal(normal(hidden, "victim"), normal(absent, "nobody"), request);
    }
    // A prefix of several ids and names must not show that they exist.
    for (const status of ["400 Bad Request", "409 Conflict"]) {
      guard.engine.answers.set(
        "GET /containers/several/json",
        `HTTP/1.1 ${status}\r\nContent-Length: 2\r\n\r\n{}`,
      );
      assert.equal(
        await alice.status("POST /v1.48/containers/several/start"),
        "404 No such container: several",
      );
    }
    const absent = await alice.ask("GET /v1.48/containers/nobody/json");
    const root = await guard.as(0);
    const engines = await root.ask("GET /v1.48/containers/nobody/json");
    assert.equal(absent.body, engines.body);
    assert.equal(absent.body, '{"message":"No such container: nobody"}\n');
  },
  needs.oneRuntime,
);

testDocker("guard labels what a user creates, and the user cannot set the label", async () => {
  const guard = await DockerGuard.start();
  const { engine } = guard;
  const alice = await guard.as(ALICE);
  const id = await alice.create("mine", { Labels: { "com.example": "x" } });
  assert.deepEqual(engine.containers.get(id)!.labels, {
    "com.example": "x",
    [OWNER]: String(ALICE),
  });
  assert.equal((await alice.ask("POST /v1.48/networks/create", { Name: "net" })).status, 201);
  assert.equal((await alice.ask("POST /v1.48/volumes/create", { Name: "vol" })).status, 201);
  for (const { labels } of [...engine.networks.values(), ...engine.volumes.values()]) {
    assert.deepEqual(labels, { [OWNER]: String(ALICE) });
  }
  assert.equal((await alice.ask("POST /v1.48/containers/mine/start")).status, 204);
  const bob = await guard.as(BOB);
  assert.equal(
    await bob.status("POST /v1.48/containers/mine/start"),
    "404 No such container: mine",
  );
  assert.equal(await bob.status("DELETE /v1.48/volumes/vol"), "404 get vol: no such volume");
  assert.equal(await bob.status("DELETE /v1.48/networks/net"), "404 network net not found");
  assert.match(await bob.status("POST /v1.48/volumes/create", { Name: "vol" }), /^403 /);
  const watcher = await guard.as(WATCHER);
  assert.match(
    await watcher.status("POST /v1.48/containers/mine/start"),
    /^403 ucred: container.start/,
  );
}, needs.oneRuntime);

testDocker("guard does not trust an owner's label that comes from the image", async () => {
  const engine = await FakeEngine.start();
  const evil = `sha256:${"e".repeat(64)}`;
  engine.images.set(evil, { [OWNER]: String(ALICE) });
  const roots = engine.add("roots", { [OWNER]: String(ALICE) });
  const forged = { ...roots, image: evil };
  engine.containers.set(roots.id, forged);
  // Created through the guard before its restart: the image has no such label.
  engine.add("old", { [OWNER]: String(ALICE) });
  const guard = await DockerGuard.start(undefined, engine);
  const alice = await guard.as(ALICE);
  assert.equal(
    await alice.status("POST /v1.48/containers/roots/kill"),
    "404 No such container: roots",
  );
  const list = await alice.ask("GET /v1.48/containers/json");
  assert.deepEqual(JSON.parse(list.body).map(({ Names }: { Names: string[] }) => Names), [[
    "/old",
  ]]);
  assert.equal(await alice.status("POST /v1.48/containers/old/kill"), "204");
  const pruned = await alice.ask("POST /v1.48/containers/prune");
  assert.deepEqual(JSON.parse(pruned.body).ContainersDeleted.length, 1);
  assert.deepEqual([...engine.containers.values()].map(({ name }) => name), ["roots"]);
  // An image that is gone proves nothing.
  engine.images.delete(evil);
  assert.equal(
    await alice.status("POST /v1.48/containers/roots/kill"),
    "404 No such container: roots",
  );
}, needs.oneRuntime);

testDocker("guard does not allow a new object by a rule about own ones", async () => {
  const guard = await DockerGuard.start(`
version: 1
about: docker
rules: [{ name: own, actions: "**", where: { owner: self }, allow: true }]
`);
  const alice = await guard.as(ALICE);
  const bodies = {
    "containers/create": { Image: "a", HostConfig: { Privileged: true } },
    "volumes/create": { Name: "v" },
    "networks/create": { Name: "n" },
  };
  for (const [path, body] of Object.entries(bodies)) {
    assert.match(await alice.status(`POST /v1.48/${path}`, body), /^403 ucred: /);
  }
  assert.deepEqual(guard.engine.received, []);
}, needs.oneRuntime);

testDocker("guard refuses labels of its own prefix, wherever a request sets labels", async () => {
  const guard = await DockerGuard.start();
  const root = await guard.as(0);
  const labels = { Labels: { [OWNER]: "0" } };
  const container = await root.create("web");
  const refused = /^400 ucred: Labels below io\.ucred\. are reserved/;
  assert.match(
    await root.status("POST /v1.48/containers/create", { Image: "a", ...labels }),
    refused,
  );
  assert.match(await root.status("POST /v1.48/volumes/create", { Name: "v", ...labels }), refused);
  assert.match(await root.status("POST /v1.48/networks/create", { Name: "n", ...labels }), refused);
  const change = encodeURIComponent(`LABEL ${OWNER}=0`);
  const commit = `POST /v1.48/commit?container=${container}`;
  for (const text of [change, encodeURIComponent(`label "io.ucr"ed.owner=0`), "LABEL%20$X=0"]) {
    assert.match(await root.status(`${commit}&changes=${text}`), refused);
  }
  assert.match(await root.status(commit, labels), refused);
  const build = encodeURIComponent(JSON.stringify(labels.Labels));
  assert.match(await root.status(`POST /v1.48/build?labels=${build}`), refused);
  assert.deepEqual(guard.engine.heard(/commit|build|volumes|networks/), []);
}, needs.oneRuntime);

testDocker("guard decides an exec by its container, its user and its command", async () => {
  const engine = await FakeEngine.start();
  const guard = await DockerGuard.start(undefined, engine);
  const alice = await guard.as(ALICE);
  const container = await alice.create("mine");
  const created = await alice.ask("POST /v1.48/containers/mine/exec", { Cmd: ["id"] });
  assert.equal(created.status, 201, created.body);
  const exec = JSON.parse(created.body).Id;
  assert.match(
    await alice.status("POST /v1.48/containers/mine/exec", { Cmd: ["id"], Privileged: true }),
    /^403 ucred: container.exec is not allowed: Privileged/,
  );
  assert.equal((await alice.ask(`GET /v1.48/exec/${exec}/json`)).status, 200);
  const bob = await guard.as(BOB);
  const absent = `404 No such exec instance: ${exec}`;
  assert.equal(await bob.status(`GET /v1.48/exec/${exec}/json`), absent);
  assert.equal(await bob.status(`POST /v1.48/exec/${exec}/start`, {}), absent);
  assert.equal(await bob.status(`POST /v1.48/exec/${exec}/resize?h=1&w=1`), absent);

  // After a restart without --state, nobody knows who has prepared it: it may be another user's.
  const again = await DockerGuard.start(undefined, engine);
  for (const uid of [ALICE, BOB]) {
    const later = await again.as(uid);
    assert.equal(await later.status(`GET /v1.48/exec/${exec}/json`), absent);
    assert.equal(await later.status(`POST /v1.48/exec/${exec}/start`, {}), absent);
  }
  assert.equal((await (await again.as(0)).ask(`GET /v1.48/exec/${exec}/json`)).status, 200);
  assert.ok(engine.containers.has(container));
}, needs.oneRuntime);

testDocker("guard starts an exec as an upgrade, with early input and a half-close", async () => {
  const guard = await DockerGuard.start();
  const alice = await guard.as(ALICE);
  await alice.create("mine");
  const created = await alice.ask("POST /v1.48/containers/mine/exec", { Cmd: ["cat"] });
  const exec = JSON.parse(created.body).Id;
  const other = await guard.as(ALICE);
  const body = '{"Detach":false,"Tty":false}';
  other.end.send(
    `POST /v1.48/exec/${exec}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n` +
      `Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: ${body.length}\r\n\r\n${body}hi\n`,
  ).end();
  const answer = await other.end.rest();
  assert.match(answer, /^HTTP\/1\.1 101 UPGRADED\r\n[^]*\r\n\r\ninput:hi\n$/);
});

testDocker("guard attaches to a container by its id, and not to another user's", async () => {
  const guard = await DockerGuard.start();
  const alice = await guard.as(ALICE);
  const id = await alice.create("mine");
  const attach =
    "/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
  const other = await guard.as(ALICE);
  other.end.send(`POST /v1.48/containers/mine${attach}hello`).end();
  assert.match(await other.end.rest(), /^HTTP\/1\.1 101 [^]*input:hello$/);
  assert.equal(
    guard.engine.heard(/attach/)[0]!.line,
    `POST /v1.48/containers/${id}/attach?stream=1&stdin=1`,
  );
  const bob = await guard.as(BOB);
  bob.end.send(`POST /v1.48/containers/mine${attach}hello`).end();
  assert.match(await bob.end.rest(), /^HTTP\/1\.1 404 /);
});

testDocker("guard checks the objects that a new container names", async () => {
  const guard = await DockerGuard.start();
  const { engine } = guard;
  const alice = await guard.as(ALICE);
  const bob = await guard.as(BOB);
  const id = await alice.create("hers");
  const join = { Image: "a", HostConfig: { NetworkMode: "container:hers" } };
  const denied = await bob.status("POST /v1.48/containers/create", join);
  assert.equal(denied, "404 No such container: hers");
  assert.equal((await alice.ask("POST /v1.48/containers/create?name=two", join)).status, 201);
  const sent = JSON.parse(engine.heard(/create\?name=two/)[0]!.body);
  assert.equal(sent.HostConfig.NetworkMode, `container:${id}`);

  // A volume that does not exist is created with its owner, before the container.
  const mount = { Image: "a", HostConfig: { Binds: ["data:/data"] } };
  assert.equal((await alice.ask("POST /v1.48/containers/create?name=three", mount)).status, 201);
  assert.deepEqual(engine.volumes.get("data")!.labels, { [OWNER]: String(ALICE) });
  assert.match(await bob.status("POST /v1.48/containers/create", mount), /^403 ucred: volume.use/);
  engine.volumes.set("roots", { id: "roots", name: "roots", labels: {} });
  const roots = { Image: "a", HostConfig: { Binds: ["roots:/data"] } };
  assert.match(
    await alice.status("POST /v1.48/containers/create", roots),
    /^403 ucred: volume.use/,
  );
  // Networks of others, and containers with the names of networks that every engine has.
  assert.equal(await alice.status("POST /v1.48/networks/create", { Name: "hersnet" }), "201");
  await alice.create("none");
  for (
    const body of [
      { Image: "a", HostConfig: { NetworkMode: "hersnet" } },
      { Image: "a", NetworkingConfig: { EndpointsConfig: { hersnet: {} } } },
      { Image: "a", HostConfig: { PidMode: "container:none" } },
      { Image: "a", HostConfig: { Links: ["none"] } },
    ]
  ) {
    assert.match(await bob.status("POST /v1.48/containers/create", body), /^404 /);
    assert.equal(await alice.status("POST /v1.48/containers/create", body), "201");
  }
}, needs.oneRuntime);

testDocker("guard lists, prunes and reports events of a user's own containers only", async () => {
  const guard = await DockerGuard.start();
  const { engine } = guard;
  const victim = engine.add("victim");
  const alice = await guard.as(ALICE);
  const id = await alice.create("mine");
  const list = await alice.ask("GET /v1.48/containers/json?all=1");
  assert.deepEqual(JSON.parse(list.body).map(({ Id }: { Id: string }) => Id), [id]);
  assert.match(
    decodeURIComponent(engine.heard(/containers\/json/).at(-1)!.line),
    new RegExp(`filters=\\{"label":\\["${OWNER}=${ALICE}"\\]\\}`),
  );
  const filtered = (filters: object) =>
    `/v1.48/containers/json?filters=${encodeURIComponent(JSON.stringify(filters))}`;
  for (const name of ["before", "since", "volume", "network"]) {
    assert.match(
      await alice.status(`GET ${filtered({ [name]: ["victim"] })}`),
      /^403 ucred: the filter \w+ needs the right to list all objects/,
    );
  }
  assert.match(await alice.status("GET /v1.48/containers/json?since=victim"), /^403 /);
  const watcher = await guard.as(WATCHER);
  assert.equal(JSON.parse((await watcher.ask("GET /v1.48/containers/json")).body).length, 2);

  const listener = await guard.as(ALICE);
  listener.end.send("GET /v1.48/events HTTP/1.1\r\nHost: d\r\n\r\n");
  await listener.end.until("\r\n\r\n");
  await until(() => engine.listeners.size === 1);
  engine.emit("start", victim);
  engine.emitRaw(
    '{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"v"}}}',
  );
  engine.emit("start", engine.containers.get(id)!);
  engine.emit("die", victim);
  engine.emit("stop", engine.containers.get(id)!);
  const events = await listener.end.until('"Action":"stop"');
  assert.ok(!events.includes("victim") && !events.includes("network"), events);
  assert.match(events, /"Action":"start"/);
  const prune = (filters: object) =>
    alice.ask(filtered(filters).replace(/^(.*)json/, "POST $1prune"));
  assert.equal((await prune({ until: ["1h"] })).status, 403);
  assert.deepEqual(JSON.parse((await prune({ label: ["none"] })).body).ContainersDeleted, []);
  assert.equal(engine.containers.size, 2);
  // A container that runs again, for example.
  const refusal = "HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}";
  engine.answers.set("DELETE /containers/", refusal);
  assert.deepEqual(JSON.parse((await prune({})).body).ContainersDeleted, []);
  engine.answers.clear();
  await alice.ask("POST /v1.48/containers/prune");
  assert.deepEqual([...engine.containers.values()].map(({ name }) => name), ["victim"]);
  // Of volumes and networks, the engine removes those with the label.
  for (const kind of ["volumes", "networks"]) {
    assert.equal(await alice.status(`POST /v1.48/${kind}/prune`), "200");
    assert.equal(
      decodeURIComponent(engine.received.at(-1)!.line),
      `POST /v1.48/${kind}/prune?filters={"label":["${OWNER}=${ALICE}"]}`,
    );
  }
  const root = await guard.as(0);
  assert.equal(await root.status("POST /v1.48/containers/prune"), "200");
  assert.equal(engine.received.at(-1)!.line, "POST /v1.48/containers/prune");
});

testDocker("guard hides containers from a user who sees all networks and volumes", async () => {
  const guard = await DockerGuard.start(`
version: 1
about: docker
rules:
  - name: others
    when: { uid: ${ALICE} }
    actions: ["network.*", "volume.*", system.df, system.events, container.create]
    allow: true
  - name: own
    when: { uid: ${ALICE} }
    actions: "container.*"
    where: { owner: self }
    allow: true
`);
  const { engine } = guard;
  const { address } = engine.add("victim");
  const alice = await guard.as(ALICE);
  const id = await alice.create("mine");
  assert.equal(await alice.status("POST /v1.48/networks/create", { Name: "net" }), "201");
  engine.volumes.set("vol", { id: "vol", name: "vol", labels: {} });
  const expected = {
    ...{ "networks": "net", "networks/net": id, "volumes": "vol", "system/df": "vol" },
  };
  for (const [request, text] of Object.entries(expected)) {
    const { body } = await alice.ask(`GET /v1.48/${request}`);
    assert.ok(!body.includes("victim") && !body.includes(address), `${request}: ${body}`);
    assert.ok(body.includes(`"${text}"`), body);
  }
  const listener = await guard.as(ALICE);
  listener.end.send("GET /v1.48/events HTTP/1.1\r\nHost: d\r\n\r\n");
  await listener.end.until("\r\n\r\n");
  await until(() => engine.listeners.size === 1);
  for (const Type of ["network", "volume", "image", "daemon", "container"]) {
    engine.emitRaw(
      JSON.stringify({ Type, Actor: { ID: "n", Attributes: { container: "victim" } } }),
    );
  }
  engine.emit("stop", engine.containers.get(id)!);
  assert.doesNotMatch(await listener.end.until('"Action":"stop"'), /victim/);
}, needs.oneRuntime);

testDocker("guard removes nothing for a user who may remove some containers only", async () => {
  const guard = await DockerGuard.start(`
version: 1
about: docker
rules:
  - { name: named, when: { uid: ${ALICE} }, actions: "container.*", where: { name: a* }, allow: true }
`);
  guard.engine.add("abc");
  const alice = await guard.as(ALICE);
  const denied = "403 ucred: this needs the right to remove all objects, or own ones";
  assert.equal(await alice.status("POST /v1.48/containers/prune"), denied);
  assert.deepEqual(guard.engine.received, []);
  const list = await alice.ask("GET /v1.48/containers/json");
  assert.equal(JSON.parse(list.body).length, 1);
}, needs.oneRuntime);

testDocker("guard reports the end of a user's own container after its removal", async () => {
  const guard = await DockerGuard.start();
  const { engine } = guard;
  const alice = await guard.as(ALICE);
  const containers = [await alice.create("mine"), await alice.create("old")]
    .map((id) => engine.containers.get(id)!);
  const [hers, his] = await Promise.all([ALICE, BOB].map(async (uid) => {
    const { end } = await guard.as(uid);
    end.send("GET /v1.48/events HTTP/1.1\r\nHost: d\r\n\r\n");
    await end.until("\r\n\r\n");
    return end;
  }));
  await until(() => engine.listeners.size === 2);
  assert.equal(await alice.status("DELETE /v1.48/containers/mine"), "204");
  assert.equal(await alice.status("POST /v1.48/containers/prune"), "200");
  assert.equal(engine.containers.size, 0);
  for (const container of containers) engine.emit("destroy", container);
  const bob = await guard.as(BOB);
  engine.emit("start", engine.containers.get(await bob.create("his"))!);
  for (const { id } of containers) await hers!.until(`"id":"${id}"`);
  assert.doesNotMatch(await his!.until('"Action":"start"'), /destroy/);
}, needs.oneRuntime);

testDocker("guard hides containers of others in networks, disk usage and errors", async () => {
  const guard = await DockerGuard.start();
  const { engine } = guard;
  const { address } = engine.add("victim");
  engine.volumes.set("victims", { id: "victims", name: "victims", labels: {} });
  const alice = await guard.as(ALICE);
  const id = await alice.create("mine");
  await alice.ask("POST /v1.48/networks/create", { Name: "net" });
  const network = JSON.parse((await alice.ask("GET /v1.48/networks/net")).body);
  assert.deepEqual(Object.keys(network.Containers), [id]);
  const taken = await alice.ask("POST /v1.48/containers/create?name=victim", { Image: "a" });
  assert.equal(taken.status, 409);
  const requests = [
    "GET /v1.48/networks/net",
    "GET /v1.48/networks",
    "GET /v1.48/system/df",
    "GET /v1.48/volumes",
    `GET /v1.48/images/${IMAGE}/json`,
  ];
  for (const request of requests) {
    const { status, body } = await alice.ask(request);
    assert.equal(status, 200, body);
    for (const secret of ["victim", address, "c".repeat(64)]) {
      assert.ok(!body.includes(secret), `${request}: ${body}`);
    }
  }
  assert.ok(!taken.body.includes([...engine.containers.keys()][0]!), taken.body);
  const hidden = "409 the engine refuses it: the name is taken, or the object is in use";
  assert.equal(await alice.status("POST /v1.48/containers/mine/rename?name=victim"), hidden);
  assert.equal(await alice.status("POST /v1.48/containers/create?name=victim", {}), hidden);
  const body = '{"message":"mine is paused"}';
  engine.answers.set(
    `POST /v1.48/containers/${id}/stop`,
    `HTTP/1.1 409 Conflict\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  assert.match((await alice.ask("POST /v1.48/containers/mine/stop")).body, /mine is paused/);
  const root = await guard.as(0);
  const whole = await root.ask("POST /v1.48/containers/create?name=victim", { Image: "a" });
  assert.ok(whole.body.includes([...engine.containers.keys()][0]!), whole.body);
}, needs.oneRuntime);

testDocker("guard never acts on another user's container while names change", async () => {
  const guard = await DockerGuard.start();
  const { engine } = guard;
  const alice = await guard.as(ALICE);
  const bob = await guard.as(BOB);
  const own = await alice.create("a");
  const victim = await bob.create("b");
  // The engine exchanges both names after each answer to an inspection.
  engine.before = (line) => {
    if (!/^POST .*\/kill/.test(line)) return;
    const [one, two] = [engine.containers.get(own)!, engine.containers.get(victim)!];
    [one.name, two.name] = [two.name, one.name];
  };
  for (let round = 0; round < 50; round++) {
    await alice.status(`POST /v1.48/containers/${"ab"[round % 2]}/kill`);
  }
  const killed = engine.heard(/^POST .*\/kill/).map(({ line }) => line.split("/")[3]);
  assert.ok(killed.length > 10, String(killed.length));
  assert.deepEqual([...new Set(killed)], [own]);
}, needs.oneRuntime);

testDocker(
  "guard keeps users of 20 containers each apart in all bytes and acts, while names change",
  async () => {
    const guard = await DockerGuard.start();
    const { engine } = guard;
    const users = [ALICE, BOB, CAROL];
    const clients = await Promise.all(users.map((uid) => guard.as(uid)));
    /** What others must not see: ids, addresses, and the names that do not move. */
    const secrets: string[][] = users.map((uid) => [`u${uid}x`]);
    const moving: FakeContainer[] = [];
    for (const [at, client] of clients.entries()) {
      for (let i = 0; i < 20; i++) {
        const name = i < 4 ? `moving${at}${i}` : `u${users[at]}x${i}`;
        const container = engine.containers.get(await client.create(name))!;
        secrets[at]!.push(container.id, container.address);
        if (i < 4) moving.push(container);
      }
      await client.ask("POST /v1.48/networks/create", { Name: `u${users[at]}xnet` });
      await client.ask("POST /v1.48/volumes/create", { Name: `u${users[at]}xvol` });
    }
    // Before each answer of the engine, four containers of each user exchange their names with others.
    const names = moving.map(({ name }) => name);
    let turn = 0;
    engine.before = () => {
      turn++;
      for (const [at, container] of moving.entries()) {
        container.name = names[(at + turn) % names.length]!;
      }
    };
    const listeners = await Promise.all(users.map(async (uid) => {
      const { end } = await guard.as(uid);
      end.send("GET /v1.48/events HTTP/1.1\r\nHost: d\r\n\r\n");
      await end.until("\r\n\r\n");
      return end;
    }));
    await until(() => engine.listeners.size === 3);
    const since = engine.received.length;
    const check = (at: number, body: string, request: string) => {
      const visible = secrets.flatMap((each, index) => index === at ? [] : each)
        .filter((secret) => body.includes(secret) && !request.includes(secret));
      assert.deepEqual(visible, [], `${request}: ${body.slice(0, 500)}`);
    };
    await Promise.all(clients.map(async (client, at) => {
      const [own, other] = [users[at]!, users[(at + 1) % 3]!];
      const ids = secrets[(at + 1) % 3]!;
      const targets = [`u${own}x5`, `u${other}x5`, ids[15]!, ids[17]!.slice(0, 12), ...names];
      const requests = [
        "GET /v1.48/containers/json?all=1&size=1",
        "GET /v1.48/networks",
        `GET /v1.48/networks/u${own}xnet`,
        "GET /v1.48/volumes",
        "GET /v1.48/system/df",
        ...targets.flatMap((name) => [
          `GET /v1.48/containers/${name}/json`,
          `GET /v1.48/containers/${name}/logs?stdout=1`,
          `GET /v1.48/containers/${name}/top`,
          `POST /v1.48/containers/${name}/stop?t=${own}`,
          `POST /v1.48/containers/${name}/restart?t=${own}`,
        ]),
        `POST /v1.48/containers/u${own}x6/rename?name=u${other}x7`,
        `POST /v1.48/containers/create?name=u${other}x8`,
      ];
      for (const request of requests) {
        const create = /create/.test(request) ? { Image: "a" } : undefined;
        const { body } = await client.ask(request, create);
        check(at, body, request);
        if (request.includes("all=1")) assert.equal(JSON.parse(body).length, 20);
      }
    }));
    for (const container of engine.containers.values()) engine.emit("die", container);
    for (const [at, end] of listeners.entries()) {
      engine.emit("stop", engine.containers.get(secrets[at]![1]!)!);
      const events = await end.until('"Action":"stop"');
      check(at, events, "events");
      assert.equal(events.match(/"Action":"die"/g)!.length, 20);
    }
    // The parameter t of an act is the uid of the client that requested it.
    let acts = 0;
    for (const { line } of engine.received.slice(since)) {
      const [, id, uid] = /^POST .*\/containers\/([^/]+)\/\w+\?t=(\d+)$/.exec(line) ?? [];
      if (id === undefined) continue;
      assert.equal(engine.containers.get(id)?.labels[OWNER], uid, line);
      acts++;
    }
    assert.ok(acts > 10, String(acts));
  },
  needs.oneRuntime,
);

testDocker("guard inspects the target of an act once, and queries nothing else", async () => {
  const guard = await DockerGuard.start();
  const { received } = guard.engine;
  const alice = await guard.as(ALICE);
  const id = await alice.create("mine");
  const heard = async (line: string, body?: unknown) => {
    const before = received.length;
    const { status } = await alice.ask(line, body);
    assert.ok(status < 300, `${line}: ${status}`);
    return received.slice(before).map(({ line }) => line);
  };
  const inspect = "GET /containers/mine/json";
  const acts = ["start", "stop", "restart", "kill", "pause", "wait", "resize?h=1&w=1"];
  for (const act of acts) {
    assert.deepEqual(await heard(`POST /v1.48/containers/mine/${act}`), [
      inspect,
      `POST /v1.48/containers/${id}/${act}`,
    ]);
  }
  for (const read of ["logs?stdout=1", "top", "changes", "export"]) {
    assert.deepEqual(await heard(`GET /v1.48/containers/mine/${read}`), [
      inspect,
      `GET /v1.48/containers/${id}/${read}`,
    ]);
  }
  assert.deepEqual(await heard("POST /v1.48/containers/mine/exec", { Cmd: ["id"] }), [
    inspect,
    `POST /v1.48/containers/${id}/exec`,
  ]);
  const [exec] = guard.engine.execs.keys();
  assert.deepEqual(await heard(`POST /v1.48/exec/${exec}/resize?h=1&w=1`), [
    `GET /containers/${id}/json`,
    `POST /v1.48/exec/${exec}/resize?h=1&w=1`,
  ]);
  // These need no request more.
  for (const line of ["GET /v1.48/containers/json", "GET /v1.48/version", "GET /v1.48/volumes"]) {
    assert.equal((await heard(line)).length, 1, line);
  }
  assert.deepEqual(await heard("GET /v1.48/containers/mine/json"), [
    `GET /v1.48/containers/mine/json`,
  ]);
  assert.equal((await heard("POST /v1.48/containers/create?name=two", { Image: "a" })).length, 1);
  assert.deepEqual(await heard("DELETE /v1.48/containers/mine?force=1"), [
    inspect,
    `DELETE /v1.48/containers/${id}?force=1`,
  ]);
});

const BROKEN = {
  "no JSON": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{a}",
  "another type": "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
  "no id": 'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n[{"Id":"abcd"}]',
  "an error": "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n[]",
  "a coding": "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n[]",
};

for (const [what, answer] of sample(Object.entries(BROKEN))) {
  testDocker(
    `guard answers 502 to a list or an inspection of the engine with ${what}`,
    async () => {
      const guard = await DockerGuard.start();
      for (const request of ["GET /v1.48/networks/x", "GET /v1.48/containers/json"]) {
        guard.engine.answers.set(request.replace("/v1.48/networks", "/networks"), answer);
        const alice = await guard.as(ALICE);
        const { status, body, header } = await alice.ask(request);
        const isNull = what === "another type" && request.endsWith("json"); // an empty list of Go
        assert.equal(status, isNull ? 200 : 502, `${request}: ${body}`);
        if (!isNull) assert.match(header("content-type"), /json/);
      }
    },
  );
}

testDocker(
  "guard answers 502 if a response that it reads has another status of success",
  async () => {
    const guard = await DockerGuard.start();
    guard.engine.answers.set(
      "GET /v1.48/containers/json",
      'HTTP/1.1 203 OK\r\nContent-Length: 12\r\n\r\n["victim"]   ',
    );
    const alice = await guard.as(ALICE);
    assert.equal(
      await alice.status("GET /v1.48/containers/json"),
      "502 ucred: The upstream server cannot be reached",
    );
  },
  needs.oneRuntime,
);

testDocker(
  "guard records the object and the dangers of each request in the audit log",
  async () => {
    const records: ServerEvent[] = [];
    const audit: AuditLog = {
      ...{ dropped: 0, error: undefined, reopen() {}, close: () => Promise.resolve() },
      write: (event) => records.push(event),
    };
    const guard = await DockerGuard.start(undefined, undefined, { audit });
    const alice = await guard.as(ALICE);
    const id = await alice.create("mine");
    await alice.ask("POST /v1.48/containers/mine/start");
    await alice.ask("POST /v1.48/containers/create", {
      Image: "a",
      HostConfig: { Privileged: true },
    });
    guard.engine.volumes.set("roots", { id: "roots", name: "roots", labels: {} });
    await alice.ask("POST /v1.48/containers/create", {
      ...{ Image: "a", HostConfig: { Binds: ["roots:/d"] } },
    });
    const decided = records.flatMap((event) => event.type === "decided" ? [event] : []);
    const [, started, denied, used] = decided;
    assert.equal(decided.length, 4);
    assert.deepEqual(decided.map(({ decision }) => decision.allowed), [true, true, false, false]);
    assert.match(used!.decision.reason, /^volume\.use is not allowed/);
    const image = "docker.io/library/busybox:latest";
    assert.deepEqual(started!.attributes, { id, name: "mine", image, owner: ALICE, dangers: [] });
    assert.deepEqual(denied!.attributes!["dangers"], ["HostConfig.Privileged"]);
  },
);

/** What goes wrong with other proxies → a request, its body, and the status that a user receives. */
const ATTACKS: readonly (readonly [what: string, line: string, body: unknown, status: number])[] = [
  ["a volume that mounts the host", "POST /volumes/create", {
    ...{ Name: "x", DriverOpts: { type: "none", o: "bind", device: "/" } },
  }, 403],
  ["a volume of a disk", "POST /volumes/create", {
    ...{ Name: "x", DriverOpts: { type: "ext4", device: "/dev/sda1" } },
  }, 403],
  ["such a volume inside a mount", "POST /containers/create", {
    Image: "a",
    HostConfig: {
      Mounts: [{
        ...{ Type: "volume", Source: "x", Target: "/x" },
        VolumeOptions: { DriverConfig: { Name: "local", Options: { device: "/", o: "bind" } } },
      }],
    },
  }, 403],
  ["keys in another case", "POST /containers/create", {
    ...{ image: "a", hostconfig: { privileged: true } },
  }, 403],
  [
    "a key twice",
    "POST /containers/create",
    '{"HostConfig":{"Privileged":true},"HostConfig":{}}',
    400,
  ],
  ["a key that Go folds", "POST /containers/create", '{"HoſtConfig":{"Privileged":true}}', 400],
  ["both spellings of a key", "POST /containers/create", '{"Image":"a","Image":"b"}', 400],
  ["a parent cgroup", "POST /containers/create", {
    ...{ Image: "a", HostConfig: { CgroupParent: "/system.slice" } },
  }, 403],
  ["Docker's socket", "POST /containers/create", {
    ...{ Image: "a", HostConfig: { Binds: ["/var/run/docker.sock:/var/run/docker.sock"] } },
  }, 403],
  ["no masked paths", "POST /containers/create", {
    ...{ Image: "a", HostConfig: { MaskedPaths: [] } },
  }, 403],
  ["a field that is not known", "POST /containers/create", {
    ...{ Image: "a", HostConfig: { Gadget: true } },
  }, 400],
  [
    "podman's own API",
    "POST /v5.0.0/libpod/containers/create",
    { image: "a", privileged: true },
    404,
  ],
  ["podman's pods", "POST /v5.0.0/libpod/play/kube", undefined, 404],
  ["BuildKit", "POST /grpc", undefined, 403],
  ["a session of BuildKit", "POST /session", undefined, 403],
  ["a build by BuildKit", "POST /build?version=2", undefined, 403],
  ["a build with the host's network", "POST /build?networkmode=host", undefined, 403],
  ["a plugin", "POST /plugins/pull?remote=evil/p", [], 403],
  ["a service", "POST /services/x/update?version=1", {}, 403],
  ["a checkpoint on the host", "POST /containers/mine/start?checkpoint-dir=/etc", undefined, 403],
  ["a volume with a route's name", "GET /volumes/events", undefined, 404],
  ["join tokens", "GET /swarm", undefined, 403],
];

for (const [what, line, body, status] of sample(ATTACKS)) {
  testDocker(`guard does not forward ${what}`, async () => {
    const guard = await DockerGuard.start();
    const alice = await guard.as(ALICE);
    await alice.create("mine");
    const before = guard.engine.received.length;
    const answer = await alice.ask(line, body);
    assert.equal(answer.status, status, answer.body);
    assert.equal(answer.header("content-type"), "application/json");
    const heard = guard.engine.received.slice(before).map(({ line }) => line);
    assert.deepEqual(
      heard.filter((line) => !/^GET \/(containers|volumes)\/[a-z0-9]+(\/json)?$/.test(line)),
      [],
    );
  });
}

testDocker("guard refuses the preface of HTTP/2", async () => {
  const guard = await DockerGuard.start();
  const root = await guard.as(0);
  root.end.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  assert.match(await root.end.rest(), /^HTTP\/1\.1 400 /);
  assert.deepEqual(guard.engine.received, []);
});

testDocker("guard streams an archive to a container, and its files back", async () => {
  const guard = await DockerGuard.start();
  const alice = await guard.as(ALICE);
  const id = await alice.create("mine");
  const tar = "x".repeat(soak(3 << 20, 200 << 20));
  alice.end.send(
    "PUT /v1.48/containers/mine/archive?path=/ HTTP/1.1\r\nHost: d\r\n" +
      `Content-Type: application/x-tar\r\nContent-Length: ${tar.length}\r\n\r\n`,
  ).send(tar);
  assert.equal((await alice.end.message()).status, 200);
  const [received] = guard.engine.heard(/^PUT/);
  assert.equal(received!.line, `PUT /v1.48/containers/${id}/archive?path=%2F`);
  assert.equal(received!.body.length, tar.length);
  const files = await alice.ask("GET /v1.48/containers/mine/archive?path=/etc");
  assert.equal(files.body, "files of mine");
});

testDocker("guard ends the events of a client at the end of the drain", async () => {
  const guard = await DockerGuard.start();
  const listener = await guard.as(ALICE);
  listener.end.send("GET /v1.48/events HTTP/1.1\r\nHost: d\r\n\r\n");
  await listener.end.until("\r\n\r\n");
  await guard.server.close({ timeout: 100 });
  await listener.end.rest();
});

testDocker("guard accepts the empty Host of Docker's client, and sends a valid one", async () => {
  const guard = await DockerGuard.start();
  const session = (host: string) =>
    `POST /session HTTP/1.1\r\n${host}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n`;
  const root = await guard.as(0);
  root.end.send(session("Host: \r\n"));
  await root.end.message();
  const [received] = guard.engine.heard(/session/);
  assert.equal(received!.message.header("host"), "localhost");
  assert.equal(received!.message.header("upgrade"), "h2c");
  for (const hosts of ["", "Host:\r\nHost:\r\n", "Host:\r\nHost: d\r\n", "Host: a b\r\n"]) {
    const other = await guard.as(0);
    other.end.send(session(hosts));
    assert.match(await other.end.rest(), /^HTTP\/1\.1 400 /, hosts);
  }
  const alice = await guard.as(ALICE);
  alice.end.send(session("Host: \r\n"));
  assert.equal((await alice.end.message()).status, 403);
  assert.equal(guard.engine.heard(/session/).length, 1);
});
