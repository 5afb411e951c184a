/** Two workers of node:cluster listen at one path in turn; each prints its result. */

import cluster from "node:cluster";
import { once } from "node:events";
import process from "node:process";
import type { UcredError } from "../../mod.ts";
import { createServer } from "../../servers/net.ts";

const path = process.argv[2]!;

if (cluster.isPrimary) {
  for (let count = 0; count < 2; count++) {
    const worker = cluster.fork();
    const [answer] = await once(worker, "message");
    console.log(JSON.stringify(answer));
  }
  for (const worker of Object.values(cluster.workers ?? {})) worker?.kill();
} else {
  const server = createServer({ policy: "anyone" }, (socket) => void socket.destroy());
  server.on("listening", () => process.send!({ listening: path }));
  server.on("error", ({ code, errno, hint }: UcredError) => process.send!({ code, errno, hint }));
  server.listen(path);
}
