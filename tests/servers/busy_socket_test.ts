/** Sockets that are in use but do not answer: `listen()` must not replace them. */

import assert from "node:assert/strict";
import { lstatSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { receive } from "../../servers/datagram.ts";
import { createServer } from "../../servers/net.ts";
import { Child, freshPath, peerProgram } from "../support/peers.ts";
import { needs, testWith } from "../support/suite.ts";
import { listenErrorOf, listening } from "../support/servers.ts";

const here = [needs.linux, needs.cc];

async function assertLeftAlone(path: string): Promise<void> {
  const { ino } = lstatSync(path);
  const error = await listenErrorOf(createServer({}, () => {}), { path }) as Error;
  assert.match(error.message, /Cannot listen at .*(accepts no connection|cannot be determined)/);
  assert.equal(lstatSync(path).ino, ino);
}

testWith(here, "listen() does not replace a seqpacket socket", async () => {
  const path = freshPath();
  const child = new Child(peerProgram, ["--seqpacket", "--listen", path]);
  await child.line();
  await assertLeftAlone(path);
  await child.end();
});

testWith([needs.linux], "listen() does not replace a datagram socket", async () => {
  const path = freshPath();
  const messages = receive(path);
  await assertLeftAlone(path);
  messages.close();
});

testWith(
  here,
  "listen() does not replace a socket with a full queue until its server has ended",
  async () => {
    const path = freshPath();
    const child = new Child(peerProgram, ["--listen", path]); // never calls accept(2)
    await child.line();
    const clients: Socket[] = [];
    const isFull = () =>
      new Promise<boolean>((resolve) => {
        const client = connect(path, () => resolve(false));
        clients.push(client.on("error", () => resolve(true)));
      });
    while (!await isFull());
    await assertLeftAlone(path);
    clients.forEach((client) => client.destroy());
    await child.end();
    const server = createServer({}, () => {});
    await listening(server, { path });
    await server.close();
  },
);
