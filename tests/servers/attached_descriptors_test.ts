/** Descriptors that clients attach to messages (SCM_RIGHTS): the kernel refuses them, where it can. */

import assert from "node:assert/strict";
import { closeSync, openSync } from "node:fs";
import { createServer as createPlainServer, type Socket } from "node:net";
import { constants } from "node:os";
import { test } from "node:test";
import { listenerFdOf } from "../../identity/fd.ts";
import { listen as listenByBun } from "../../servers/bun.ts";
import { createServer as createHttpServer } from "../../servers/http.ts";
import { createServer } from "../../servers/net.ts";
import { refuseDescriptors } from "../../system/socket_option.ts";
import { deny } from "../identity/denying.ts";
import { freshPath, listen } from "../support/peers.ts";
import { listening, visit } from "../support/servers.ts";
import { needs, testWith } from "../support/suite.ts";

const here = [needs.linux, needs.cc];

/** Answers only after a message: a connection that the server closes before rejects messages with EPIPE. */
function answerOnce(socket: Socket): void {
  socket.on("error", () => {}).once("data", () => socket.end("welcome"));
}

testWith(
  [...here, needs.passRights],
  "createServer() of ucred/net has descriptors refused",
  async () => {
    for (const path of [freshPath(), `\0${freshPath()}`]) {
      const server = createServer({}, answerOnce);
      await listening(server, path);
      assert.equal(await visit(path, "--attach", "1"), "EPERM");
      assert.equal(await visit(path, "--send", "x"), "welcome");
      await server.close({ timeout: 0 });
    }
  },
);

testWith(
  [...here, needs.passRights, needs.denoOrNode],
  "createServer() of ucred/http has descriptors refused",
  async () => {
    const path = freshPath();
    const server = createHttpServer({}, (_, response) => void response.end("welcome"));
    server.listen(path);
    await new Promise((resolve) => server.once("listening", resolve));
    assert.equal(await visit(path, "--attach", "1"), "EPERM");
    const request = "GET / HTTP/1.0\r\n\r\n";
    assert.match(await visit(path, "--send", request), /welcome$/);
    await server.close({ timeout: 0 });
  },
);

testWith(
  [...here, needs.passRights, needs.bun],
  "listen() of ucred/bun has descriptors refused",
  async () => {
    const path = freshPath();
    const server = await listenByBun({
      path,
      socket: { data: (socket) => void socket.end("welcome") },
    });
    assert.equal(await visit(path, "--attach", "1"), "EPERM");
    assert.equal(await visit(path, "--send", "x"), "welcome");
    await server.close({ timeout: 0 });
  },
);

testWith(
  [...here, needs.passRights],
  "a plain server accepts messages with descriptors",
  async () => {
    const path = freshPath();
    const server = createPlainServer(answerOnce);
    await listen(server, path);
    assert.equal(await visit(path, "--attach", "1"), "welcome");
    server.close();
  },
);

testWith(
  [...here, needs.native],
  "refuseDescriptors() is false without SO_PASSRIGHTS, and changes nothing",
  async () => {
    const path = freshPath();
    const server = createPlainServer(answerOnce);
    await listen(server, path);
    const { ENOPROTOOPT } = constants.errno;
    assert.equal(refuseDescriptors(listenerFdOf(server)!, deny({ PASSPIDFD: ENOPROTOOPT })), false);
    assert.equal(await visit(path, "--attach", "1"), "welcome");
    server.close();
  },
);

testWith(here, "refuseDescriptors() is false for files", () => {
  const file = openSync("/dev/null", "r");
  assert.equal(refuseDescriptors(file), false);
  closeSync(file);
});

test("listenerFdOf() is undefined for a listener that hides its descriptor, or is closed", () => {
  for (const listener of [{}, { _handle: null }, { _handle: { fd: -1 } }, { fd: -1 }]) {
    assert.equal(listenerFdOf(listener), undefined);
  }
});
