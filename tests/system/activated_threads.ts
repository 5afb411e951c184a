/** A server on a socket of systemd, while a second thread tries to take it, too, and ends. */

import { once } from "node:events";
import process from "node:process";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { createServer } from "../../servers/net.ts";

const say = (line: unknown) => console.log(JSON.stringify(line));

const server = createServer(
  { policy: "anyone" },
  (socket) => void socket.resume().end(isMainThread ? "main\n" : "worker\n"),
);

if (isMainThread) {
  server.listen({ systemd: true });
  await once(server, "listening");
  say({ main: "listening" });
  const worker = new Worker(new URL(import.meta.url));
  worker.once("message", async (message: object) => {
    say(message);
    await worker.terminate();
    say({ worker: "ended" });
  });
  process.stdin.resume().on("end", () => process.exit());
} else {
  server.listen({ systemd: true });
  server.on("listening", () => parentPort!.postMessage({ code: "listening" }));
  server.on("error", ({ code, message }: NodeJS.ErrnoException) => {
    parentPort!.postMessage({ code, message });
  });
}
