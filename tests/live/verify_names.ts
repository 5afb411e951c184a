/** A client that expects a server of root by many names: prints the result of each, in one line of JSON. */

import { once } from "node:events";
import { connect, createServer } from "node:net";
import process from "node:process";
import { type ServerExpectation, UcredError, verifyServer } from "../../mod.ts";

const path = process.argv[2]!;
const server = createServer((socket) => socket.on("error", () => {}).resume());
await new Promise<void>((resolve) => server.listen(path, resolve));

async function outcome(expected: ServerExpectation): Promise<string | undefined> {
  const client = connect(path).on("error", () => {});
  await once(client, "connect");
  try {
    return verifyServer(client, expected).user;
  } catch (error) {
    if (!(error instanceof UcredError)) throw error;
    return error.code;
  } finally {
    client.destroy();
  }
}

const users = ["root", "toor", "0", ["no-such-name", "toor"], "daemon", "00", "4294967296"];
const all: { [expected: string]: string | undefined } = {};
for (const user of [...users, "no-such-name"]) all[`user ${user}`] = await outcome({ user });
for (const group of ["root", "wheels", "0", "daemon"]) {
  all[`group ${group}`] = await outcome({ group });
}
console.log(JSON.stringify(all));
process.exit();
