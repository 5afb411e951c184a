/** Starts each kind of server, and reads a policy: prints the error of each as JSON. */

import { once } from "node:events";
import process from "node:process";
import type { UcredError } from "../../mod.ts";
import { loadPolicy } from "../../policy/mod.ts";
import { receive } from "../../servers/datagram.ts";
import { createServer as createHttpServer, serve } from "../../servers/http.ts";
import { createServer } from "../../servers/net.ts";

/** `${path}.yaml` is the policy, and ${path}1 and so on are the sockets. */
const path = process.argv[2]!;
const policy = "anyone";

const CALLS: { readonly [name: string]: () => unknown } = {
  serve: () => serve({ path: `${path}1`, policy, fetch: () => new Response() }),
  "ucred/net": () => once(createServer({ policy }).listen({ path: `${path}2` }), "listening"),
  "ucred/http": () => once(createHttpServer({ policy }).listen({ path: `${path}3` }), "listening"),
  receive: () => receive(`${path}4`),
  loadPolicy: () => loadPolicy(`${path}.yaml`, { allowUnsafeOwner: true }),
};

const answers: { [name: string]: unknown } = {};
for (const [name, call] of Object.entries(CALLS)) {
  try {
    await call();
    answers[name] = "done";
  } catch (error) {
    const { code, hint } = error as UcredError;
    answers[name] = [code, hint];
  }
}
console.log(JSON.stringify(answers));
process.exit();
