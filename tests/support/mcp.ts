/** The official SDK of MCP, which is a package of the examples, and a server. */

import { fileURLToPath, pathToFileURL } from "node:url";
import type * as clients from "../../examples/servers/node_modules/@modelcontextprotocol/sdk/dist/esm/client/index.js";
import type * as stdioClients from "../../examples/servers/node_modules/@modelcontextprotocol/sdk/dist/esm/client/stdio.js";
import type * as httpClients from "../../examples/servers/node_modules/@modelcontextprotocol/sdk/dist/esm/client/streamableHttp.js";
import type { McpServer } from "../../examples/servers/node_modules/@modelcontextprotocol/sdk/dist/esm/server/mcp.js";
import type * as servers from "../../examples/servers/node_modules/@modelcontextprotocol/sdk/dist/esm/server/mcp.js";
import type * as stdioServers from "../../examples/servers/node_modules/@modelcontextprotocol/sdk/dist/esm/server/stdio.js";
import type * as httpServers from "../../examples/servers/node_modules/@modelcontextprotocol/sdk/dist/esm/server/webStandardStreamableHttp.js";
import type * as types from "../../examples/servers/node_modules/@modelcontextprotocol/sdk/dist/esm/types.js";
import type * as zod from "../../examples/servers/node_modules/zod/index.js";
import { callerOf } from "../../interop/mcp/mod.ts";
import { packagesOf } from "./packages.ts";
import type { Need } from "./suite.ts";

/** The need for the SDK. */
export const packages: Need = packagesOf("examples/servers");

async function load<T>(file: string): Promise<T> {
  if (!packages.met) return {} as T;
  const folder = new URL("../../examples/servers/node_modules/", import.meta.url);
  return await import(pathToFileURL(fileURLToPath(new URL(file, folder))).href) as T;
}

const SDK = "@modelcontextprotocol/sdk/dist/esm";

/** The modules of the SDK that tests use; empty if it is not installed. */
export const sdk:
  & typeof clients
  & typeof stdioClients
  & typeof httpClients
  & typeof servers
  & typeof stdioServers
  & typeof httpServers
  & typeof types = {
    ...await load<typeof clients>(`${SDK}/client/index.js`),
    ...await load<typeof stdioClients>(`${SDK}/client/stdio.js`),
    ...await load<typeof httpClients>(`${SDK}/client/streamableHttp.js`),
    ...await load<typeof servers>(`${SDK}/server/mcp.js`),
    ...await load<typeof stdioServers>(`${SDK}/server/stdio.js`),
    ...await load<typeof httpServers>(`${SDK}/server/webStandardStreamableHttp.js`),
    ...await load<typeof types>(`${SDK}/types.js`),
  };

const { z } = await load<typeof zod>("zod/index.js");

/** Makes a server with three tools, two resources and two prompts. */
export function newServer(): McpServer {
  const server = new sdk.McpServer({ name: "files", version: "1.0.0" }, {
    capabilities: { logging: {}, resources: { subscribe: true } },
  });
  const inputSchema = { path: z.string().optional() };
  const text = (value: unknown) => ({ content: [{ type: "text" as const, text: `${value}` }] });
  server.registerTool("read", { inputSchema }, ({ path }, extra) => {
    const { peer, decision } = callerOf(extra);
    return text(`${path} for ${peer.uid}: ${decision.grants} ${extra.authInfo?.clientId}`);
  });
  server.registerTool("delete", { inputSchema }, () => text("deleted"));
  server.registerTool("ask", {}, async () => {
    const { roots } = await server.server.listRoots();
    return text(roots.map(({ uri }) => uri));
  });
  const resource = (uri: URL) => ({ contents: [{ uri: uri.href, text: "content" }] });
  server.registerResource("a", "note:a", {}, resource);
  server.registerResource("b", "file:///b", {}, resource);
  for (const name of ["review", "other"]) {
    server.registerPrompt(name, {}, () => ({
      messages: [{ role: "user", content: { type: "text", text: name } }],
    }));
  }
  return server;
}
