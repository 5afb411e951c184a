/**
 * A client of the Model Context Protocol, with the official SDK, for `mcp.ts`: Node, Deno, Bun. It prints the
 * tools that it may use, and calls one.
 *
 *   node examples/servers/mcp_client.ts app.sock read_note '{"topic":"public-holidays"}'
 */

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import process from "node:process";
import { createClient } from "../../client/mod.ts"; // "ucred/client"

const [path = "app.sock", name = "read_note", json = '{"topic":"public-holidays"}'] = process.argv
  .slice(2);

const expect = { uid: [0, process.getuid!()] }; // the user that runs the server
const { fetch, close } = createClient({ path, expect });
const transport = new StreamableHTTPClientTransport(new URL("http://localhost/mcp"), { fetch });
const client = new Client({ name: "example", version: "1.0.0" });
try {
  await client.connect(transport);
  const { tools } = await client.listTools();
  console.log(`tools: ${tools.map((tool) => tool.name).join(", ")}`);
  const result = await client.callTool({ name, arguments: JSON.parse(json) });
  console.log(JSON.stringify(result.content));
  await transport.terminateSession();
} catch (error) {
  console.log(error instanceof Error ? error.message : error);
} finally {
  await client.close();
  close();
}
