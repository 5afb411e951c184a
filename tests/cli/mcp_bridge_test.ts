/** `ucred mcp-bridge`: between standard streams and servers with lines, and with Streamable HTTP. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import process from "node:process";
import { mcpHandler, mcpVocabulary } from "../../interop/mcp/mod.ts";
import { bridgeHttp, SessionLost } from "../../interop/mcp/bridge.ts";
import { eventsOf } from "../../interop/mcp/server_sent_events.ts";
import { createClient } from "../../client/mod.ts";
import { definePolicy } from "../../policy/define.ts";
import { type FetchServer, serve } from "../../servers/http.ts";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { command } from "../support/command.ts";
import { Behind } from "../support/guard.ts";
import { newServer, packages, sdk } from "../support/mcp.ts";
import { Child, freshPath } from "../support/peers.ts";
import { endAfterEach, needs, testWith, until } from "../support/suite.ts";

const servers = new Set<FetchServer>();
endAfterEach(async () => {
  for (const server of servers) await server.close({ timeout: 0 });
  servers.clear();
});

const startBridge = (socket: string, ...args: string[]) =>
  new Child(command[0]!, [...command.slice(1), "mcp-bridge", "--socket", socket, ...args]);

/** The exit code of a child, once it has ended. */
const codeOf = (child: Child) =>
  new Promise<number | null>((resolve) => {
    const { exitCode } = child.process;
    if (exitCode !== null) resolve(exitCode);
    else child.process.once("exit", (code) => resolve(code));
  });

testWith(
  [needs.linux],
  "ucred mcp-bridge forwards lines of any length, and half-closes",
  async () => {
    const behind = await Behind.start();
    const bridge = startBridge(behind.path);
    const big = "x".repeat(3 << 20);
    bridge.process.stdin!.write(`first\n${big}\n`);
    const server = await behind.next();
    assert.equal(await server.until("\n"), "first\n");
    assert.equal((await server.until("\n")).length, big.length + 1);
    server.send(`${big}\n`);
    assert.equal((await bridge.line()).length, big.length);
    bridge.process.stdin!.end("last");
    assert.equal(await server.rest(), "last");
    server.send("after the half-close\n").end();
    assert.equal(await bridge.line(), "after the half-close");
    assert.equal(await codeOf(bridge), 0);
  },
);

testWith(
  [needs.linux],
  "ucred mcp-bridge ends with 1 if the server hangs up, and with 0 on SIGTERM",
  async () => {
    const behind = await Behind.start();
    const first = startBridge(behind.path);
    first.process.stdin!.write("question\n");
    const closing = await behind.next();
    await closing.until("\n");
    closing.send("bye\n").end();
    assert.equal(await first.line(), "bye");
    assert.equal(await codeOf(first), 1);
    const second = startBridge(behind.path);
    const server = await behind.next();
    process.kill(second.process.pid!, "SIGTERM"); // Deno marks a child as ended after child.kill()
    assert.equal(await codeOf(second), 0);
    assert.equal(await server.rest(), "");
  },
);

testWith([needs.linux], "ucred mcp-bridge sends nothing to a server of another user", async () => {
  const behind = await Behind.start();
  for (const args of [[], ["--http"]]) {
    const bridge = startBridge(behind.path, "--server-user", "4321", ...args);
    bridge.process.stdin!.end('{"jsonrpc":"2.0","id":1,"method":"ping"}\n');
    if (args.length === 0) assert.equal(await codeOf(bridge), 2);
    else assert.match(await bridge.line(), /"id":1,"error":\{"code":-32603/);
    assert.equal(await (await behind.next()).rest(), "");
  }
  const missing = startBridge(freshPath("none.sock"));
  assert.equal(await codeOf(missing), 2);
  assert.equal(await codeOf(startBridge(behind.path, "--http", "mcp")), 2);
});

const policy = definePolicy({
  version: 1,
  about: "mcp",
  rules: [
    { name: "this user", when: { uid: process.getuid!() }, allow: true },
    {
      name: "people",
      when: { uid: 4001 },
      actions: ["initialize", "tools/list", "tools/call read"],
      allow: ["read"],
    },
  ],
}, { vocabularies: [mcpVocabulary] });

/** Starts a server with Streamable HTTP. */
async function startServer(json = false) {
  const path = freshPath("mcp.sock");
  const handler = mcpHandler({
    policy,
    transport: (options) =>
      new sdk.WebStandardStreamableHTTPServerTransport({ ...options, enableJsonResponse: json }),
    connect: (transport) => newServer().connect(transport),
  });
  const server = await serve({ path, mode: 0o666, policy: "anyone", fetch: handler });
  servers.add(server);
  return { path, handler };
}

/** The command that runs the bridge as a user. */
function bridgeAs(uid: number, ...args: string[]) {
  const ids = [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];
  return { command: "setpriv", args: [...ids, ...command, "mcp-bridge", ...args] };
}

for (const json of [false, true]) {
  testWith(
    [packages, needs.strangers, ...(json ? [needs.oneRuntime] : [])],
    `ucred mcp-bridge --http connects clients of several users${json ? ", without events" : ""}`,
    async () => {
      const { path } = await startServer(json);
      const users = [[0, 3], [4001, 1]] as const;
      for (const [uid, tools] of json ? users.slice(0, 1) : users) {
        const transport = new sdk.StdioClientTransport({
          ...bridgeAs(uid, "--socket", path, "--http"),
          stderr: "inherit",
        });
        const client = new sdk.Client({ name: "test", version: "1.0.0" }, {
          capabilities: { roots: {} },
        });
        client.setRequestHandler(
          sdk.ListRootsRequestSchema,
          () => ({ roots: [{ uri: "file:///roots-of-the-client" }] }),
        );
        await client.connect(transport);
        assert.equal((await client.listTools()).tools.length, tools);
        const text = `/srv/${"é".repeat(200_000)}`;
        const { content } = await client.callTool({ name: "read", arguments: { path: text } });
        assert.ok(JSON.stringify(content).includes(`${text} for ${uid}`));
        const denied = client.callTool({ name: "delete", arguments: {} });
        if (uid !== 0) await assert.rejects(denied, { code: -32003 });
        else {
          await denied;
          // The server's request arrives on the stream for its own messages, which opens a moment later.
          let roots: unknown;
          await until(async () => {
            roots = await client.callTool({ name: "ask" }, undefined, { timeout: 1000 })
              .catch(() => undefined);
            return roots !== undefined;
          });
          assert.match(JSON.stringify(roots), /roots-of-the-client/);
        }
        await client.close();
      }
      if (json) return;
      const stranger = new sdk.Client({ name: "test", version: "1.0.0" });
      const transport = new sdk.StdioClientTransport(bridgeAs(4002, "--socket", path, "--http"));
      await assert.rejects(stranger.connect(transport), { code: -32003 });
      await stranger.close();
    },
  );
}

testWith(
  [packages, needs.linux],
  "bridgeHttp() ends if the server does not know the session",
  async () => {
    const { path, handler } = await startServer();
    const [input, output] = [new PassThrough(), new PassThrough()];
    const client = createClient({ path, expect: { uid: process.getuid!() } });
    const { signal } = new AbortController();
    const ended = bridgeHttp({ client, path: "/mcp", input, output, signal });
    const lines: string[] = [];
    output.setEncoding("utf8").on("data", (text: string) => lines.push(text));
    const initialize = {
      protocolVersion: "2025-11-25",
      capabilities: {},
      clientInfo: { name: "test", version: "1" },
    };
    const message = (id: number, method: string, params: object) =>
      `${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`;
    input.write(message(1, "initialize", initialize));
    await until(() => lines.join("").includes('"id":1'));
    await handler.close();
    input.write(message(2, "tools/list", {}));
    await assert.rejects(ended, SessionLost);
    assert.match(lines.join(""), /"id":2,"error":\{"code":-32603/);
  },
);

test("eventsOf() reads the data of events, for each line end and each division into parts", async () => {
  const text =
    '\ufeffevent: message\nid: 1\ndata: {"a":1}\n\n: comment\r\n\r\ndata:b\rdata\rdata:  c\r\r' +
    "data: é\r\n\r\nretry: 1\n\ndata: incomplete";
  const bytes = Buffer.from(text);
  for (const size of [1, 2, 3, 7, bytes.length]) {
    const parts = async function* () {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
    };
    const events: string[] = [];
    for await (const data of eventsOf(parts())) events.push(data);
    assert.deepEqual(events, ['{"a":1}', "b\n\n c", "é"], `${size}`);
  }
});
