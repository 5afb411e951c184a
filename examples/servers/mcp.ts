/**
 * Model Context Protocol, with the official SDK, over HTTP: Node, Deno, Bun. The policy decides each message by
 * the client's uid. `mcp_client.ts` is a client.
 *
 *   node examples/servers/mcp.ts app.sock     (or deno run -A, or bun)
 */

import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import process from "node:process";
import { z } from "zod";
import { callerOf, mcpHandler, mcpVocabulary } from "../../interop/mcp/mod.ts"; // "ucred/mcp"
import { definePolicy } from "../../mod.ts"; // "ucred"
import { serve } from "../../servers/http.ts"; // "ucred/http"

const policy = definePolicy({
  version: 1,
  about: "mcp",
  rules: [
    { name: "root", when: { uid: 0 }, allow: ["full"] },
    {
      name: "people use a session, and see what they may use",
      when: { uid: "1000-59999" },
      actions: ["initialize", "tools/list"],
      allow: true,
    },
    {
      name: "people read public notes",
      when: { uid: "1000-59999" },
      actions: "tools/call read_note",
      where: { arguments: { topic: { every: "public-*", empty: false } } },
      allow: ["look"],
    },
  ],
}, { vocabularies: [mcpVocabulary] });

/** Makes a server for one session. */
function newServer(): McpServer {
  const server = new McpServer({ name: "notes", version: "1.0.0" });
  const inputSchema = { topic: z.string() };
  server.registerTool("read_note", { inputSchema }, ({ topic }, extra) => {
    const { peer, decision } = callerOf(extra);
    const text = `${topic}, for ${peer.user ?? peer.uid}: ${decision.grants}`;
    return { content: [{ type: "text", text }] };
  });
  server.registerTool("delete_note", { inputSchema }, ({ topic }) => ({
    content: [{ type: "text", text: `${topic} is deleted` }],
  }));
  return server;
}

const handler = mcpHandler({
  policy,
  transport: (options) => new WebStandardStreamableHTTPServerTransport(options),
  connect: (transport) => newServer().connect(transport),
});

const server = await serve({
  path: process.argv[2] ?? "app.sock",
  mode: 0o666,
  policy: "anyone", // who may connect; the handler decides each message
  fetch: handler,
});
console.log(`Listening at ${server.path}`);
