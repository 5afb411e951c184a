/** Watches for the end of its own process, which must not keep the program running. */

import { connect, createServer } from "node:net";
import process from "node:process";
import { fdOf } from "../../identity/fd.ts";
import { identify } from "../../mod.ts";

const path = process.argv[2]!;
const server = createServer((socket) => {
  const { signal } = identify(fdOf(socket), { pin: true });
  console.log(JSON.stringify({ aborted: signal?.aborted }));
  socket.destroy();
  server.close();
});
server.listen(path, () => void connect(path).on("error", () => {}).resume());
