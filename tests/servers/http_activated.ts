/**
 * Serves ucred/http on the service manager's socket with the API that the argument names. Ends with its
 * input.
 */

import process from "node:process";
import { definePolicy } from "../../mod.ts";
import { createServer, peerOf, serve } from "../../servers/http.ts";

const policy = definePolicy({
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: true },
    { name: "looker", when: { uid: 1001 }, actions: "GET /open", allow: true },
  ],
});
const say = (path: unknown, engine: string) => console.log(JSON.stringify({ path, engine }));

if (process.argv[2] === "serve") {
  const server = await serve({
    systemd: true,
    policy,
    fetch: ({ method, url }, { peer }) =>
      new Response(`${peer.uid} ${method} ${new URL(url).pathname}`),
  });
  say(server.path, server.engine);
} else {
  const server = createServer({ policy }, (request, response) => {
    response.end(`${peerOf(request).uid} ${request.method} ${request.url}`);
  });
  server.listen({ systemd: true }, () => say(server.address(), "node:http"));
}
process.stdin.on("end", () => process.exit()).resume();
