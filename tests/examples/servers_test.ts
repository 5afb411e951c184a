/**
 * Runs each example of examples/servers on each runtime, with clients that its policy allows and denies.
 * docs/frameworks.md shows the examples.
 */

import assert from "node:assert/strict";
import type * as grpc from "../../examples/servers/node_modules/@grpc/grpc-js/build/src/index.js";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Child, freshPath } from "../support/peers.ts";
import { relay, Wire } from "../support/http.ts";
import { packagesOf } from "../support/packages.ts";
import { isListening } from "../support/servers.ts";
import { needs, testWith, until } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = join(root, "examples/servers");

/** The client library is a package of the examples, like the server's. */
const packages = packagesOf("examples/servers");
const { Client, credentials, status } = packages.met
  ? createRequire(join(folder, "package.json"))("@grpc/grpc-js") as typeof grpc
  : {} as typeof grpc;

/** Uids with the grants "look", "full" and none. */
const [PERSON, ROOT, SERVICE] = [59_998, 0, 999];

const RUNTIMES = {
  Node: ["node", "--disable-warning=ExperimentalWarning"],
  Deno: ["deno", "run", "--no-prompt", "-A"],
  Bun: ["bun"],
} as const;
type Runtime = keyof typeof RUNTIMES;

/** Request targets for "/keys", and targets that a lenient router might treat as "/keys". */
const SPELLINGS = [
  ..."/keys /keys/ /keys/. /keys? /keys?a=/ //keys /./keys /a/../keys /keys/../keys".split(" "),
  ..."/%6beys /key%73 /%6Beys /keys%2f /keys%00 /%2e/keys /a/%2e%2e/keys /keys%20".split(" "),
  ..."/KEYS /Keys /Keys/ /keyS? /%4beys /a/../KEYS /keys; /keys;a=b /keys.json /keys%09".split(" "),
  ..."http://x/keys http://x/KEYS/ http://x//keys /keys#a \\keys keys".split(" "),
] as const;

/** Sends requests as a user, on as few connections as possible. */
async function* answersTo(path: string, method: string, targets: readonly string[]) {
  let wire = Wire.as(PERSON, path);
  for (const target of targets) {
    wire.send(`${method} ${target} HTTP/1.1\r\nHost: x\r\n\r\n`);
    const { status, body } = await wire.response(method);
    yield { target, status, body };
    if (status !== 400) continue; // after a malformed request, runtimes close the connection
    wire.destroy();
    wire = Wire.as(PERSON, path);
  }
  wire.destroy();
}

/**
 * Checks that only root can read the keys, with each spelling of the target. The policy allows people no
 * other methods than GET, and routers route HEAD as GET. Routers are pure code: all spellings run on Node.
 */
async function checkSpellings(path: string, runtime: Runtime): Promise<void> {
  const root = await Wire.as(ROOT, path).get("/keys");
  assert.deepEqual([root.status, root.body], [200, "secret\n"]);
  const some = SPELLINGS.filter((_, index) => index % 4 === 0);
  const requests = runtime === "Node"
    ? { GET: SPELLINGS, HEAD: SPELLINGS, get: ["/keys"], OPTIONS: ["/keys"], POST: ["/keys"] }
    : { GET: some, POST: ["/keys"] };
  for (const [method, targets] of Object.entries(requests)) {
    for await (const { target, status, body } of answersTo(path, method, targets)) {
      // The status is that of the server, or 404 of the router.
      assert.ok(status >= 400 && status < 500, `${method} ${target}: ${status}`);
      assert.doesNotMatch(body, /secret/, `${method} ${target}`);
    }
  }
}

async function checkHttp(path: string, runtime: Runtime): Promise<void> {
  await checkSpellings(path, runtime);
  const person = Wire.as(PERSON, path);
  const { status, body } = await person.get("/");
  assert.equal(status, 200);
  assert.match(body, /^welcome, \w+: look\n$/);
  const denied = await person.get("/", "POST");
  assert.equal(denied.status, 403);
  assert.equal(denied.headers["content-type"], "application/problem+json");
  assert.equal((await Wire.as(PERSON, path).get("/none")).status, 404);

  const other = Wire.as(ROOT, path);
  assert.equal((await other.get("/")).body, "welcome, root: full\n");
  other.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
  assert.equal((await other.response()).body, "done\n");

  assert.equal(await Wire.as(SERVICE, path).send("GET / HTTP/1.1\r\n").rest(), "");
}

/** Targets that a router might treat as "/admin/users". */
const ADMIN_SPELLINGS = [
  ..."/admin/users /admin//users /x/../admin/users /%61dmin/users /admin/users?a=/".split(" "),
  ..."/ADMIN/users /Admin/users /admin/Users /admin/users/ /admin;/users /admin/users;a".split(" "),
] as const;

/** Checks an application with middleware that also requires root below "/admin". */
async function checkMiddleware(path: string, runtime: Runtime): Promise<void> {
  await checkHttp(path, runtime);
  const admin = await Wire.as(ROOT, path).get("/admin/users");
  assert.deepEqual([admin.status, admin.body], [200, "users\n"]);
  const denied = await Wire.as(PERSON, path).get("/admin/users");
  assert.deepEqual([denied.status, denied.headers["content-type"]], [
    ...[403, "application/problem+json"],
  ]);
  for await (const { target, status, body } of answersTo(path, "GET", ADMIN_SPELLINGS)) {
    assert.ok(status >= 400, `${target}: ${status}`);
    assert.doesNotMatch(body, /users\n/, target);
  }
}

async function checkWebSockets(path: string): Promise<void> {
  const hello = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n";
  const person = Wire.as(PERSON, path).send(hello);
  assert.equal((await person.response()).status, 101);
  assert.match(await person.until("look"), /welcome, \w+: look$/);
  person.send("\x81\x82\0\0\0\0hi"); // a masked text frame
  assert.match(await person.until("hi"), /\w+ says hi$/);
  assert.equal((await Wire.as(ROOT, path).get("/")).status, 426);
  assert.equal((await Wire.as(SERVICE, path).send(hello).response()).status, 403);
}

async function checkJsonRpc(path: string): Promise<void> {
  const ask = async (wire: Wire, method: string, ...params: unknown[]) => {
    const text = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    wire.send(`Content-Length: ${text.length}\r\n\r\n${text}`);
    const length = Number(/\d+/.exec(await wire.until("\r\n\r\n"))![0]);
    let answer = "";
    while (answer.length < length) answer += await wire.until("}");
    const { result, error } = JSON.parse(answer);
    return result ?? error.code;
  };
  const [person, other] = [Wire.as(PERSON, path), Wire.as(ROOT, path)];
  assert.match(await ask(person, "get/welcome"), /^welcome, \w+$/);
  assert.equal(await ask(person, "set/name", "Ada"), -32600);
  assert.equal(await ask(other, "get/welcome"), "welcome, root");
  assert.equal(await ask(other, "set/name", "Ada"), "root is called Ada");
  assert.equal(await ask(other, "toString"), -32601);
  assert.equal(await Wire.as(SERVICE, path).send("Content-Length: 1\r\n\r\n").rest(), "");
}

async function checkGrpc(path: string): Promise<void> {
  const ask = async (uid: number, method: string): Promise<string> => {
    // grpc-js connects to the tunnel, which connects as this user.
    const children = new Set<ChildProcess>();
    const tunnel = createServer((socket) => {
      const child = spawn(relay, ["--uid", `${uid}`, path], { stdio: ["pipe", "pipe", "inherit"] });
      children.add(child);
      child.stdin.on("error", () => {});
      socket.on("error", () => {}).on("close", () => child.kill("SIGKILL"));
      socket.pipe(child.stdin);
      child.stdout.pipe(socket);
    });
    const own = freshPath();
    await once(tunnel.listen(own), "listening");
    const client = new Client(`unix:${own}`, credentials.createInsecure());
    try {
      return await new Promise((resolve) => {
        client.makeUnaryRequest(
          `/hall/${method}`,
          (value: string) => Buffer.from(JSON.stringify(value)),
          (bytes) => JSON.parse(String(bytes)) as string,
          "Ada",
          (error: grpc.ServiceError | null, value) => resolve(error ? status[error.code] : value!),
        );
      });
    } finally {
      // First, since Deno 2.9.5 may not survive the GOAWAY that a client sends when it is closed.
      for (const child of children) child.kill("SIGKILL");
      client.close();
      tunnel.close();
    }
  };
  assert.match(await ask(PERSON, "Welcome"), /^welcome, \w+$/);
  assert.equal(await ask(PERSON, "Name"), "PERMISSION_DENIED");
  assert.equal(await ask(ROOT, "Welcome"), "welcome, root");
  assert.equal(await ask(ROOT, "Name"), "root is called Ada");
  assert.equal(await ask(SERVICE, "Welcome"), "UNAVAILABLE");
}

async function checkConnect(path: string): Promise<void> {
  const call = async (uid: number, method: string) => {
    const wire = Wire.as(uid, path);
    const body = '{"text":"Ada"}';
    wire.send(
      `POST /hall.Hall/${method} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n` +
        `Content-Length: ${body.length}\r\n\r\n${body}`,
    );
    const { status, body: text } = await wire.response();
    wire.destroy();
    return status === 200 ? JSON.parse(text).text : status;
  };
  assert.equal(await call(PERSON, "Welcome"), `welcome, uid ${PERSON}`);
  assert.equal(await call(PERSON, "Name"), 403);
  assert.equal(await call(PERSON, "%4eame"), 403);
  assert.equal(await call(ROOT, "Name"), "the name is Ada");
  assert.equal(await call(ROOT, "None"), 404);
  assert.equal(await call(SERVICE, "Welcome"), 403);
}

/** Runs the example's client, with the SDK, as users. Without other users it runs as root only. */
async function checkMcp(path: string, runtime: Runtime): Promise<void> {
  const [command, ...flags] = RUNTIMES[runtime];
  const program = join(root, "node_modules/.bin", command);
  const ask = async (uid: number, ...args: string[]): Promise<readonly string[]> => {
    const script = [program, ...flags, join(folder, "mcp_client.ts"), path, ...args];
    const client = new Child("setpriv", [
      `--reuid=${uid}`,
      `--regid=${uid}`,
      "--clear-groups",
      ...script,
    ]);
    return [await client.line(), ...args.length === 0 ? [] : [await client.line()]];
  };
  const topic = '{"topic":"public-holidays"}';
  assert.deepEqual(await ask(ROOT, "delete_note", topic), [
    "tools: read_note, delete_note",
    '[{"type":"text","text":"public-holidays is deleted"}]',
  ]);
  if (!needs.strangers.met) return;
  const denied = "MCP error -32003: The policy does not allow it";
  const [tools, text] = await ask(PERSON, "read_note", topic);
  assert.equal(tools, "tools: read_note");
  assert.match(text!, /public-holidays, for \w+: look/);
  assert.deepEqual(await ask(PERSON, "read_note", '{"topic":"secret"}'), [tools, denied]);
  assert.deepEqual(await ask(SERVICE), [denied]);
}

const CHECKS: { readonly [name: string]: (path: string, runtime: Runtime) => Promise<void> } = {
  express: checkMiddleware,
  fastify: checkMiddleware,
  koa: checkMiddleware,
  hono: checkMiddleware,
  h3: checkHttp,
  oak: checkHttp,
  elysia: checkHttp,
  websocket: checkWebSockets,
  jsonrpc: checkJsonRpc,
  grpc: checkGrpc,
  connect: checkConnect,
  mcp: checkMcp,
};

const here = [needs.linux, needs.cc, needs.root, needs.native, packages];

for (const [name, check] of Object.entries(CHECKS)) {
  for (const runtime of Object.keys(RUNTIMES) as Runtime[]) {
    const [command, ...flags] = RUNTIMES[runtime];
    testWith(
      here,
      `${name}.ts on ${runtime} serves the peers that its policy allows, and no others`,
      async () => {
        const path = freshPath();
        const program = join(root, "node_modules/.bin", command);
        const child = new Child(program, [...flags, join(folder, `${name}.ts`), path]);
        try {
          let line: string;
          do line = await child.line(); while (!line.startsWith("Listening")); // oak greets
          assert.equal(line, `Listening at ${path}`);
          await check(path, runtime);
        } finally {
          child.process.kill("SIGKILL");
        }
      },
    );
  }
}

const nitro = join(root, "examples/nitro");
let built: Promise<unknown> | undefined;

/** Builds the example of Nitro once. Its output runs on each runtime. */
function buildNitro(): Promise<unknown> {
  const command = join(nitro, "node_modules/.bin/nitro");
  return built ??= promisify(execFile)(command, ["build"], { cwd: nitro });
}

for (const runtime of Object.keys(RUNTIMES) as Runtime[]) {
  testWith(
    [...here, packagesOf("examples/nitro")],
    `examples/nitro on ${runtime} serves the peers that its policy allows, and no others`,
    async () => {
      await buildNitro();
      const path = freshPath();
      const [command, ...flags] = RUNTIMES[runtime];
      const program = join(root, "node_modules/.bin", command);
      const child = new Child(program, [...flags, join(nitro, "start.mjs"), path]);
      try {
        assert.equal(await child.line(), `Listening at ${path}`);
        await checkHttp(path, runtime);
      } finally {
        child.process.kill("SIGKILL");
      }
    },
  );
}

/** The programs that also serve a socket of systemd. */
const ACTIVATED = { h3: join(folder, "h3.ts"), nitro: join(nitro, "start.mjs") };

for (const [name, file] of Object.entries(ACTIVATED)) {
  testWith(
    [...here, needs.socketActivate, packagesOf("examples/nitro")],
    `the example of ${name} serves the socket that systemd passes`,
    async () => {
      await buildNitro();
      const path = freshPath();
      const node = join(root, "node_modules/.bin/node");
      const child = new Child("systemd-socket-activate", [
        ...["-l", path, node, "--disable-warning=ExperimentalWarning", file],
      ]);
      try {
        await until(() => isListening(path));
        chmodSync(path, 0o666);
        const { body } = await Wire.as(PERSON, path).get("/");
        assert.match(body, /^welcome, \w+: look\n$/);
        assert.equal(await child.line(), `Listening at ${path}`);
        assert.equal(await Wire.as(SERVICE, path).send("GET / HTTP/1.1\r\n").rest(), "");
      } finally {
        child.process.kill("SIGKILL");
      }
    },
  );
}

testWith([], "examples/servers has no example without a test", () => {
  const others = ["policy.ts", "hall_pb.ts", "mcp_client.ts"]; // no servers
  const names = readdirSync(folder).filter((name) =>
    name.endsWith(".ts") && !others.includes(name)
  );
  assert.deepEqual(names.sort(), Object.keys(CHECKS).map((name) => `${name}.ts`).sort());
});

/** The frameworks of docs/frameworks.md, and the policies that its examples share. */
const SHOWN = [
  ...["policy", "express", "fastify", "koa", "hono", "h3"].map((name) => `servers/${name}`),
  ...["nitro.config", "plugins/listen", "middleware/peer", "routes/index.get"]
    .map((name) => `nitro/${name}`),
  "servers/connect",
];

testWith(
  [],
  "docs/frameworks.md shows the examples as they run, each with at most 30 lines",
  () => {
    const page = readFileSync(join(root, "docs/frameworks.md"), "utf8");
    const blocks = [...page.matchAll(/^```ts\n([^]*?)^```$/gm)].map(([, code]) => code);
    const examples = SHOWN.map((name) =>
      readFileSync(join(root, `examples/${name}.ts`), "utf8")
        .replace(/^\/\*\*[^]*?\*\/\n\n/, "")
        .replace("../../servers/policy.ts", "../policy.ts")
        .replaceAll(/"\.\.\/\.\.\/[^"]*"; \/\/ ("[^"]*")(?: in your own program)?/g, "$1;")
    );
    for (const [index, example] of examples.entries()) {
      assert.equal(blocks[index], example, `${SHOWN[index]}.ts`);
      const lines = example.split("\n").filter((line) => line !== "");
      assert.ok(lines.length <= 30, `${SHOWN[index]}: ${lines.length} lines`);
    }
    assert.equal(blocks.length, examples.length);
  },
);

for (const runtime of Object.keys(RUNTIMES) as Runtime[]) {
  testWith(
    [needs.linux, needs.native, packages],
    `no framework on ${runtime} runs a handler for a request that has no peer`,
    async () => {
      const [command, ...flags] = RUNTIMES[runtime];
      const script = fileURLToPath(new URL("without_peers.ts", import.meta.url));
      const program = join(root, "node_modules/.bin", command);
      const child = new Child(program, [...flags, script, freshPath()]);
      const { statuses, ran } = await child.json<
        { statuses: { [name: string]: number }; ran: number }
      >();
      assert.equal(ran, 0);
      assert.ok(Object.keys(statuses).length >= 20);
      for (const [name, status] of Object.entries(statuses)) assert.equal(status, 500, name);
    },
  );
}
