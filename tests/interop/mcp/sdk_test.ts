/** Servers and clients of the official SDK: over HTTP with sessions, and over streams. */

import assert from "node:assert/strict";
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import {
  callerOf,
  type DeniedMessage,
  guardTransport,
  type McpHandler,
  mcpHandler,
  mcpVocabulary,
} from "../../../interop/mcp/mod.ts";
import { definePolicy } from "../../../policy/define.ts";
import { parsePolicy, type Policy } from "../../../policy/mod.ts";
import type { Admitted } from "../../../servers/admission/admission.ts";
import { attachAdmission } from "../../../servers/admission/attach.ts";
import type { Peer } from "../../../mod.ts";
import { createServer } from "../../../servers/net.ts";
import { asUser, type FakePeer, fakePeer } from "../../../testing/mod.ts";
import { newServer, packages, sdk } from "../../support/mcp.ts";
import { freshPath } from "../../support/peers.ts";
import { needs, testWith, until } from "../../support/suite.ts";

const {
  Client: SdkClient,
  StdioServerTransport,
  StreamableHTTPClientTransport,
  WebStandardStreamableHTTPServerTransport,
} = sdk;

/** A client of the SDK. */
type Client = InstanceType<typeof sdk.Client>;

const POLICY = `
version: 1
about: mcp
rules:
  - { name: root, when: { uid: 0 }, allow: [all] }
  - { name: people, when: { uid: 1000-1999 }, actions: [initialize, "**/list"], allow: true }
  - { name: nobody deletes, actions: tools/call delete, deny: Ask root }
  - name: readers
    when: { uid: 1000-1999 }
    actions: tools/call read
    where: { arguments: { path: { every: /srv/*, empty: false } } }
    allow: [read]
  - name: notes
    when: { uid: 1000-1999 }
    actions: ["resources/* note:**", prompts/get review]
    allow: true
`;

const policy = parsePolicy(POLICY, { vocabularies: [mcpVocabulary] });

interface App {
  readonly handler: McpHandler;
  readonly denied: DeniedMessage[];
  readonly made: number;
}

function newApp(by: Policy = policy, sessionsPerUser?: number): App {
  const denied: DeniedMessage[] = [];
  let made = 0;
  const handler = mcpHandler({
    policy: by,
    transport: (options) => new WebStandardStreamableHTTPServerTransport(options),
    connect: async (transport) => {
      made++;
      await newServer().connect(transport);
    },
    onDenied: (each) => denied.push(each),
    sessionsPerUser,
  });
  return {
    handler,
    denied,
    get made() {
      return made;
    },
  };
}

/** `fetch` as a peer of the application. */
function fetchAs(app: App, peer: FakePeer) {
  const user = asUser({ policy: "anyone", fetch: app.handler }, peer);
  return (url: string | URL, init?: RequestInit) => {
    const { pathname } = new URL(url);
    return user.fetch(pathname, init);
  };
}

async function clientAs(app: App, uid: number, facts: { gid?: number } = {}) {
  const fetch = fetchAs(app, fakePeer({ uid, gid: uid, ...facts }));
  const transport = new StreamableHTTPClientTransport(new URL("http://localhost/mcp"), { fetch });
  const client = new SdkClient({ name: "test", version: "1.0.0" }, { capabilities: { roots: {} } });
  await client.connect(transport);
  return { client, transport, fetch };
}

/** What a client of the SDK can do. The same for each transport. */
async function checkPerson(client: Client): Promise<void> {
  const names = (list: readonly { readonly name: string }[]) => list.map(({ name }) => name);
  assert.deepEqual(names((await client.listTools()).tools), ["read"]);
  assert.deepEqual(names((await client.listPrompts()).prompts), ["review"]);
  assert.deepEqual((await client.listResources()).resources.map(({ uri }) => uri), ["note:a"]);
  const call = (name: string, path?: unknown) =>
    client.callTool({ name, arguments: path === undefined ? {} : { path } });
  const { content } = await call("read", "/srv/a");
  assert.deepEqual(content, [{ type: "text", text: "/srv/a for 1000: read uid:1000" }]);
  const refused = { code: -32003 };
  await assert.rejects(call("read", "/etc/passwd"), refused);
  await assert.rejects(call("read", ["/srv/a", "/etc/passwd"]), refused);
  await assert.rejects(call("read"), refused);
  await assert.rejects(call("delete"), { ...refused, message: "MCP error -32003: Ask root" });
  await assert.rejects(call("none"), refused);
  await assert.rejects(client.readResource({ uri: "file:///b" }), refused);
  await assert.rejects(client.subscribeResource({ uri: "file:///b" }), refused);
  await assert.rejects(client.getPrompt({ name: "other" }), refused);
  await assert.rejects(client.setLoggingLevel("debug"), refused);
  await assert.rejects(
    client.complete({
      ref: { type: "ref/prompt", name: "review" },
      argument: { name: "a", value: "" },
    }),
    refused,
  );
  assert.equal((await client.readResource({ uri: "note:a" })).contents.length, 1);
  assert.equal((await client.getPrompt({ name: "review" })).messages.length, 1);
  await client.ping();
}

testWith(
  [packages],
  "mcpHandler() lets a client do what the policy allows, and no more",
  async () => {
    const app = newApp();
    const { client } = await clientAs(app, 1000);
    await checkPerson(client);
    assert.deepEqual(
      app.denied.slice(0, 1).map(({ action, peer, decision }) => [
        ...[action, peer.uid, decision.reason],
      ]),
      [["tools/call read", 1000, "No rule matches"]],
    );
    const root = await clientAs(app, 0);
    assert.equal((await root.client.listTools()).tools.length, 3);
    root.client.setRequestHandler(
      sdk.ListRootsRequestSchema,
      () => ({ roots: [{ uri: "file:///r" }] }),
    );
    // The stream for the server's requests opens a moment after the connection.
    let content: unknown;
    await until(async () => {
      const asked = root.client.callTool({ name: "ask" }, undefined, { timeout: 1000 });
      ({ content } = await asked.catch(() => ({ content: undefined })));
      return content !== undefined;
    });
    assert.deepEqual(content, [{ type: "text", text: "file:///r" }]);
    await assert.rejects(clientAs(app, 5000), { code: -32003 });
    assert.equal(app.made, 2); // a denied client gets no server
    await app.handler.close();
  },
);

testWith(
  [packages],
  "mcpHandler() binds a session to the uid and the gid that opened it",
  async () => {
    const app = newApp();
    const own = await clientAs(app, 1000);
    const session = own.transport.sessionId!;
    const headers = {
      "accept": "application/json, text/event-stream",
      "content-type": "application/json",
      "mcp-session-id": session,
    };
    const body = JSON.stringify({ jsonrpc: "2.0", id: 7, method: "tools/list" });
    const others = [
      ...[{ uid: 0, gid: 0 }, { uid: 1001, gid: 1001 }],
      ...[{ uid: 1000, gid: 1001 }, { uid: 1001, gid: 1000 }],
    ];
    for (const other of others) {
      const fetch = fetchAs(app, fakePeer(other));
      for (
        const init of [{ method: "POST", body, headers }, { headers }, {
          method: "DELETE",
          headers,
        }]
      ) {
        assert.equal((await fetch("http://localhost/mcp", init)).status, 404);
      }
      const { "mcp-session-id": _, ...without } = headers;
      const init = { method: "POST", body, headers: without };
      assert.equal((await fetch("http://localhost/mcp", init)).status, 400);
    }
    assert.equal(app.made, 1);
    assert.equal((await own.client.listTools()).tools.length, 1); // nobody has ended it
    await own.transport.terminateSession();
    await assert.rejects(own.client.listTools());
    // A client cannot choose the id.
    const initialize = JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "initialize",
      params: {
        protocolVersion: "2025-11-25",
        capabilities: {},
        clientInfo: { name: "test", version: "1" },
      },
    });
    const { "mcp-session-id": _, ...without } = headers;
    const post = (peer: FakePeer, given: HeadersInit) =>
      fetchAs(app, peer)("http://localhost/mcp", {
        method: "POST",
        body: initialize,
        headers: given,
      });
    assert.equal(
      (await post(fakePeer({ uid: 0 }), { ...headers, "mcp-session-id": "mine" })).status,
      404,
    );
    const opened = await post(fakePeer({ uid: 0 }), without);
    assert.match(opened.headers.get("mcp-session-id")!, /^[0-9a-f-]{36}$/);
    const refused = await post(fakePeer({ uid: 0 }), { ...without, accept: "text/plain" });
    assert.equal(refused.status, 406);

    // All users outside of the user namespace have one uid.
    const request = new Request("http://localhost/mcp", {
      method: "POST",
      body: initialize,
      headers: without,
    });
    const unmapped = { uid: 65_534, gid: 65_534, ambiguous: ["uid", "gid"] } as unknown as Peer;
    attachAdmission(request, { peer: unmapped } as Admitted);
    const allowed = policy.decide({ uid: 0 }, { action: "initialize" });
    const open: Policy = { ...policy, needsPin: false, admits: () => true, decide: () => allowed };
    const answer = await newApp(open).handler(request);
    assert.equal(answer.headers.get("mcp-session-id"), null);
    assert.match(await answer.text(), /-32003,"message":"The user is outside of the server's user/);
  },
);

testWith(
  [packages],
  "mcpHandler() decides each request by its own sender, also within a session",
  async () => {
    const app = newApp(definePolicy({
      version: 1,
      about: "mcp",
      rules: [{ name: "curl", when: { exe: "/usr/bin/curl" }, allow: true }],
    }, { vocabularies: [mcpVocabulary] }));
    const ids = { uid: 1000, gid: 1000 };
    const as = (exe: string) => {
      const peer = fakePeer({ ...ids, process: { exe } });
      const user = asUser({ policy: "anyone", pin: true, fetch: app.handler }, peer);
      return (url: string | URL, init?: RequestInit) => user.fetch(new URL(url).pathname, init);
    };
    let fetch = as("/usr/bin/curl");
    const transport = new StreamableHTTPClientTransport(new URL("http://localhost/mcp"), {
      fetch: (url, init) => fetch(url, init),
    });
    const client = new SdkClient({ name: "test", version: "1.0.0" });
    await client.connect(transport);
    assert.equal((await client.listTools()).tools.length, 3);
    fetch = as("/usr/bin/python3");
    await assert.rejects(client.listTools(), { code: -32003 });
    await assert.rejects(client.callTool({ name: "read" }), { code: -32003 });
  },
);

testWith(
  [packages],
  "mcpHandler() denies batches, other spellings and ids that are in use",
  async () => {
    const app = newApp();
    const { client, fetch, transport } = await clientAs(app, 1000);
    const send = async (text: string) => {
      const response = await fetch("http://localhost/mcp", {
        method: "POST",
        body: text,
        headers: {
          "accept": "application/json, text/event-stream",
          "content-type": "application/json",
          "mcp-session-id": transport.sessionId!,
        },
      });
      return `${response.status} ${await response.text()}`;
    };
    const call = (id: unknown, name: string, more = "") =>
      `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"method":"tools/call","params":` +
      `{"name":"${name}","arguments":{"path":"/srv/a"}${more}}}`;
    assert.match(await send(call(90, "r\\u0065ad")), /\/srv\/a for 1000/);
    // Of keys that are repeated, the policy and the server see the last one.
    assert.match(await send(call(91, "read", ',"name":"delete"')), /-32003,"message":"Ask root/);
    assert.match(await send(call(92, "delete", ',"name":"read"')), /\/srv\/a for 1000/);
    assert.match(await send(call(93, "read", ',"arguments":{"path":"/etc/x"}')), /-32003/);
    assert.match(await send(call(94, "read", ',"NAME":"delete"')), /-32602/);
    assert.match(await send(call(95, "read", ',"__proto__":{"name":"delete"}')), /\/srv\/a for/);
    assert.match(await send(call(96, "__proto__")), /-32003/);
    const batch = await send(`[${call(97, "read")},${call(98, "delete")}]`);
    assert.match(batch, /"id":97/);
    assert.match(batch, /-32003,"message":"Ask root/);
    assert.doesNotMatch(batch, /deleted/);
    const twice = await send(`[${call(99, "read")},${call(99, "delete")}]`);
    assert.doesNotMatch(twice, /deleted/);
    assert.match(await send('{"jsonrpc":"2.0","id":100,"method":"unknown/method"}'), /-32601/);
    for (const text of ["{", "", '{"jsonrpc":"2.0","id":null,"method":"ping"}', "\ufffe"]) {
      assert.match(await send(text), /^400 /, text);
    }
    // A response to a request that was never made has no effect.
    assert.match(await send('{"jsonrpc":"2.0","id":0,"result":{"roots":[]}}'), /^202 /);
    assert.match(
      await send('{"jsonrpc":"2.0","method":"tools/call","params":{"name":"delete"}}'),
      /^202 /,
    );
    assert.match(await send(JSON.stringify({ a: "x".repeat(5 << 20) })), /^413 /);
    assert.equal((await client.listTools()).tools.length, 1);
  },
);

testWith(
  [packages],
  "mcpHandler() ends the oldest session of a user who opens too many",
  async () => {
    const app = newApp(policy, 2);
    const first = await clientAs(app, 1000);
    const second = await clientAs(app, 1000);
    const other = await clientAs(app, 1001);
    await first.client.ping(); // the second one is now the one that was not used for longest
    const third = await clientAs(app, 1000);
    await assert.rejects(second.client.ping());
    for (const { client } of [first, third, other]) await client.ping();
  },
);

testWith([packages], "mcpHandler() and guardTransport() deny all if the policy fails", async () => {
  const failing: Policy = {
    needsPin: false,
    admits: () => true,
    decide: () => {
      throw new Error("broken");
    },
  };
  const app = newApp(failing);
  await assert.rejects(clientAs(app, 0), { code: -32603 });
  assert.equal((app.denied[0]!.error as Error).message, "broken");
  let fails = false;
  const later = newApp({
    ...failing,
    decide: (...args) => fails ? failing.decide(...args) : policy.decide(...args),
  });
  const { client } = await clientAs(later, 0);
  fails = true;
  await assert.rejects(client.listTools(), { code: -32603 });
  await assert.rejects(client.callTool({ name: "delete" }), { code: -32603 });
});

testWith(
  [packages],
  "mcpHandler() and guardTransport() reject options that would allow everything",
  () => {
    const transport = () => new WebStandardStreamableHTTPServerTransport({});
    const connect = () => Promise.resolve();
    const make = (options: object) => () => mcpHandler(options as Parameters<typeof mcpHandler>[0]);
    assert.throws(make({ transport, connect }), /mcpHandler\(\) requires a Policy/);
    assert.throws(make({ policy: "anyone", transport, connect }), /requires a Policy/);
    assert.throws(make({ policy, transport, connect, polcy: 1 }), /did you mean "policy"/);
    assert.throws(make({ policy, transport }), /requires connect, a function/);
    assert.throws(make({ policy, transport, connect, sessionsPerUser: 0 }), /sessionsPerUser/);
    const peer = fakePeer({ uid: 0 });
    const guard = (options: object) => () =>
      guardTransport(transport(), options as Parameters<typeof guardTransport>[1]);
    assert.throws(guard({ peer }), /requires a Policy/);
    assert.throws(guard({ policy }), /requires a peer/);
    const connected = transport();
    connected.onmessage = () => {};
    assert.throws(() => guardTransport(connected, { policy, peer }), /not connected yet/);
    assert.throws(() => callerOf({ authInfo: { token: "" } }), { code: "ERR_UCRED_NO_PEER" });
    assert.throws(() => callerOf({}), { code: "ERR_UCRED_NO_PEER" });
  },
);

/** A transport of the SDK's client over a connection. */
function streamTransport(socket: Duplex) {
  let rest = "";
  const transport = {
    onmessage: undefined as ((message: never) => void) | undefined,
    onclose: undefined as (() => void) | undefined,
    start: () => Promise.resolve(),
    send: (message: unknown) => {
      socket.write(`${JSON.stringify(message)}\n`);
      return Promise.resolve();
    },
    close: () => {
      socket.destroy();
      transport.onclose?.();
      return Promise.resolve();
    },
  };
  socket.setEncoding("utf8").on("data", (text: string) => {
    const [first = "", ...lines] = text.split("\n");
    rest += first;
    for (const line of lines) {
      transport.onmessage?.(JSON.parse(rest) as never);
      rest = line;
    }
  });
  return transport;
}

testWith(
  [packages, needs.linux],
  "guardTransport() decides the messages of a connection by its peer",
  async () => {
    const path = freshPath();
    // The clients of this test have its own uid: the policy sees another one.
    const peers = [fakePeer({ uid: 1000 }), fakePeer({ uid: 0 })];
    const server = createServer({ policy: "anyone" }, async (socket) => {
      const peer = peers.shift()!;
      const transport = new StdioServerTransport(socket, socket);
      await newServer().connect(guardTransport(transport, { policy, peer }));
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const open = async () => {
      const client = new SdkClient({ name: "test", version: "1.0.0" });
      await client.connect(streamTransport(connect(path)) as Parameters<Client["connect"]>[0]);
      return client;
    };
    const person = await open();
    await checkPerson(person);
    const root = await open();
    assert.equal((await root.listTools()).tools.length, 3);
    await Promise.all([person.close(), root.close()]);
    await server.close();
  },
);
