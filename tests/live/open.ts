/** Starts each kind of server, and reads a policy: prints the error of each as JSON. */

import { once } from "node:events";
import process from "node:process";
import { loadPolicy } from "../../policy/mod.ts";
import { receive } from "../../servers/datagram.ts";
import { createServer as createHttpServer, serve } from "../../servers/http.ts";
import { createServer } from "../../servers/net.ts";
import { printErrors } from "../support/print_errors.ts";

/** `${path}.yaml` is the policy, and ${path}1 and so on are the sockets. */
const path = process.argv[2]!;
const policy = "anyone";

await printErrors({
  serve: () => serve({ path: `${path}1`, policy, fetch: () => new Response() }),
  "ucred/net": () => once(createServer({ policy }).listen({ path: `${path}2` }), "listening"),
  "ucred/http": () => once(createHttpServer({ policy }).listen({ path: `${path}3` }), "listening"),
  receive: () => receive(`${path}4`),
  loadPolicy: () => loadPolicy(`${path}.yaml`, { allowUnsafeOwner: true }),
});
