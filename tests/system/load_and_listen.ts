/** Loads policy.yaml of a folder, and listens there: prints the result of each. */

import { once } from "node:events";
import { join } from "node:path";
import process from "node:process";
import type { UcredError } from "../../mod.ts";
import { loadPolicy } from "../../policy/mod.ts";
import { createServer } from "../../servers/net.ts";

const folder = process.argv[2]!;

async function outcome(run: () => unknown): Promise<true | string> {
  try {
    await run();
    return true;
  } catch (error) {
    const { code, message } = error as UcredError;
    return `${code}: ${/may be written by others/.exec(message)?.[0] ?? message}`;
  }
}

const policy = await outcome(() => loadPolicy(join(folder, "policy.yaml")));
const socket = await outcome(async () => {
  const server = createServer({ policy: "anyone" }, (socket) => void socket.destroy());
  server.listen(join(folder, "app.sock"));
  await once(server, "listening");
  await server.close({ timeout: 0 });
});
console.log(JSON.stringify({ policy, socket }));
