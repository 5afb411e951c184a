/** Every object with a peer on each runtime, and the alternatives to those that hide it. */

import assert from "node:assert/strict";
import { createServer as createHttpServer, get, type IncomingMessage } from "node:http";
import { connect, createServer, type Server, Socket } from "node:net";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { identify, peerCredentials, UcredError, type UcredErrorCode } from "../../mod.ts";
import { openedSystem } from "../../adapters/select.ts";
import {
  closeSocket,
  connectionOf,
  fdOf,
  handleOf,
  hidesFd,
  httpHidesFd,
  isAccepted,
  listenerFdOf,
} from "../../identity/fd.ts";
import { needs, runtime, testWith } from "../support/suite.ts";
import { assertOurs, freshPath } from "../support/peers.ts";

function refuses(socket: unknown, code: UcredErrorCode, hint: RegExp): void {
  for (const ask of [peerCredentials, identify]) {
    assert.throws(() => ask(socket as never), (error) => {
      assert.ok(error instanceof UcredError, String(error));
      assert.equal(error.code, code);
      assert.match(error.hint, hint);
      return true;
    });
  }
}

function listening(server: Server, ...where: [string] | [number, string]): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(...(where as [string]), resolve);
  });
}

/** Connects to a server of ours, and passes the accepted and the connecting socket to `look`. */
async function connected(
  where: [string] | [number, string],
  look: (accepted: Socket, client: Socket, server: Server) => void | Promise<void>,
): Promise<void> {
  const server = createServer();
  await listening(server, ...where);
  const address = server.address();
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  const client = typeof address === "object" && address !== null && "port" in address
    ? connect(address.port, "127.0.0.1")
    : connect(freshest(where));
  client.on("error", () => {});
  const both = [accepted, new Promise((resolve) => client.once("connect", resolve))] as const;
  const [socket] = await Promise.all(both);
  try {
    await look(socket.on("error", () => {}), client, server);
  } finally {
    client.destroy();
    socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

const freshest = ([path]: [string] | [number, string]) => path as string;

/** Sends one request over a Unix socket to a node:http server, and passes its message to `look`. */
async function requested(
  look: (message: IncomingMessage) => void,
  accept: "http" | "net" = "http",
): Promise<void> {
  const path = freshPath();
  let failure: unknown;
  const http = createHttpServer((message, response) => {
    try {
      look(message);
    } catch (error) {
      failure = error;
    }
    response.setHeader("connection", "close").end();
  });
  const front = accept === "http"
    ? http
    : createServer((socket) => void http.emit("connection", socket));
  await listening(front, path);
  await new Promise((resolve, reject) => {
    get({ socketPath: path, agent: false }, (response) => response.resume().on("end", resolve))
      .on("error", reject);
  });
  await new Promise((resolve) => front.close(resolve));
  if (failure !== undefined) throw failure;
}

test("identify() accepts a net.Socket on both sides, its descriptor, and an object with it", async () => {
  await connected([freshPath()], (accepted, client) => {
    for (const socket of [accepted, client]) {
      const fd = (socket as unknown as { _handle: { fd: number } })._handle.fd;
      for (const spelling of [socket, fd, { fd }]) {
        assertOurs(peerCredentials(spelling));
        assertOurs(identify(spelling));
      }
    }
  });
});

test("isAccepted() is true for what a listener at a path has accepted, and false for other sockets", async () => {
  for (const path of [freshPath(), ...(process.platform === "linux" ? [`\0${freshPath()}`] : [])]) {
    await connected([path], (accepted, client, server) => {
      assert.equal(isAccepted(accepted), true);
      const others = [client, server, fdOf(accepted), { fd: fdOf(accepted) }, new Socket(), {}];
      for (const socket of others) assert.equal(isAccepted(socket as never), false);
    });
  }
  await connected([0, "127.0.0.1"], (accepted, client) => {
    assert.deepEqual([isAccepted(accepted), isAccepted(client)], [false, false]);
  });
});

testWith(
  [needs.linux, needs.node],
  "identify() throws for a listener that is wrapped in a net.Socket",
  async () => {
    await connected([freshPath()], (_, __, server) => {
      const DUPFD = 0;
      const fd = openedSystem().libc.linux!.fcntl(fdOf(server as never), DUPFD, 0);
      const socket = new Socket({ fd, readable: false, writable: false });
      assert.equal(isAccepted(socket), false);
      refuses(socket, "ERR_UCRED_NO_PEER", /Pass an accepted connection/);
      socket.destroy();
    });
  },
);

test("isAccepted() is false for connections of a listener without a name", () => {
  const socket = { destroyed: false, _handle: { fd: 7 }, _server: {}, listener: {} };
  assert.equal(isAccepted(socket as never), false);
});

test("identify() throws for a closed net.Socket", async () => {
  await connected([freshPath()], (accepted) => {
    const handle = (accepted as unknown as { _handle: { fd: number } })._handle;
    accepted.destroy();
    refuses(accepted, "ERR_UCRED_NO_FD", /accept handler/);
    refuses(handle, "ERR_UCRED_NO_FD", /accept handler/);
  });
});

test("identify() throws for a closed descriptor", () => {
  refuses(2147483647, "ERR_UCRED_NO_FD", /accept handler/);
  refuses({ fd: -1 }, "ERR_UCRED_NO_FD", /accept handler/);
});

test("identify() throws for a net.Socket that was never connected", () => {
  refuses(new Socket(), "ERR_UCRED_NO_FD", /connect/);
});

test("identify() throws for a net.Server, for which the kernel would report our own process", async () => {
  const server = createServer();
  await listening(server, freshPath());
  refuses(server, "ERR_UCRED_NO_PEER", /accepted/);
  await new Promise((resolve) => server.close(resolve));
  refuses(createServer(), "ERR_UCRED_NO_FD", /connection that it accepted|connect/);
});

test("identify() throws for a TCP socket, on both sides", async () => {
  await connected([0, "127.0.0.1"], (accepted, client) => {
    refuses(accepted, "ERR_UCRED_NOT_UNIX", /Unix domain socket/);
    refuses(client, "ERR_UCRED_NOT_UNIX", /Unix domain socket/);
  });
});

testWith([needs.denoOrNode], "identify() accepts an http.IncomingMessage", async () => {
  await requested((message) => {
    assertOurs(peerCredentials(message));
    assertOurs(identify(message));
  });
});

testWith(
  [needs.bun],
  "identify() throws for an http.IncomingMessage of Bun, with an alternative",
  async () => {
    await requested((message) =>
      refuses(message, "ERR_UCRED_NO_FD", /createServer\(\) of ucred\/http.*emit\("connection"/)
    );
  },
);

test("identify() accepts an http.IncomingMessage over a socket of node:net", async () => {
  await requested((message) => assertOurs(peerCredentials(message)), "net");
});

testWith([needs.bun], "identify() accepts a Bun.Socket until it closes", async () => {
  const path = freshPath();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const listener = Bun.listen({
    unix: path,
    socket: {
      open(socket) {
        try {
          assertOurs(peerCredentials(socket));
          assertOurs(identify(socket));
          socket.terminate();
          refuses(socket, "ERR_UCRED_NO_FD", /accept handler/);
          resolve();
        } catch (error) {
          reject(error);
        }
      },
      data() {},
    },
  });
  const client = connect(path).on("error", () => {});
  await promise;
  client.destroy();
  listener.stop(true);
});

testWith(
  [needs.bun],
  "identify() throws for the arguments of a Bun.serve handler, with an alternative",
  async () => {
    const path = freshPath();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const server = Bun.serve({
      unix: path,
      fetch(request, server) {
        try {
          refuses(request, "ERR_UCRED_NO_FD", /serve\(\) of ucred\/http/);
          refuses(server, "ERR_UCRED_NO_FD", /serve\(\) of ucred\/http/);
          resolve();
        } catch (error) {
          reject(error);
        }
        return new Response();
      },
    });
    await fetch("http://localhost/", { unix: path } as RequestInit);
    await promise;
    await server.stop(true);
  },
);

testWith([needs.deno], "identify() throws for a Deno.UnixConn, with an alternative", async () => {
  const path = freshPath();
  const listener = Deno.listen({ transport: "unix", path });
  const [conn, client] = await Promise.all([
    listener.accept(),
    Deno.connect({ transport: "unix", path }),
  ]);
  refuses(conn, "ERR_UCRED_NO_FD", /withPeers\(\) of ucred\/deno/);
  refuses(listener, "ERR_UCRED_NO_FD", /withPeers\(\) of ucred\/deno/);
  conn.close();
  client.close();
  listener.close();
});

testWith([needs.deno], "identify() throws for a Deno.TcpConn", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const { port } = listener.addr;
  const client = await Deno.connect({ port, hostname: "127.0.0.1" });
  const conn = await listener.accept();
  refuses(conn, "ERR_UCRED_NOT_UNIX", /Unix domain socket/);
  conn.close();
  client.close();
  listener.close();
});

testWith(
  [needs.deno],
  "identify() throws for the arguments of a Deno.serve handler, with an alternative",
  async () => {
    const path = freshPath();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const server = Deno.serve({ path, onListen() {} } as Deno.ServeUnixOptions, (request, info) => {
      try {
        refuses(request, "ERR_UCRED_NO_FD", /serve\(\) of ucred\/http/);
        refuses(
          new (class Own extends Request {})(request),
          "ERR_UCRED_NO_FD",
          /serve\(\) of ucred\/http/,
        );
        refuses(info, "ERR_UCRED_NO_FD", /serve\(\) of ucred\/http/);
        resolve();
      } catch (error) {
        reject(error);
      }
      return new Response();
    });
    await new Promise((done) =>
      get({ socketPath: path, agent: false }, (response) => response.resume().on("end", done))
    );
    await promise;
    refuses(server, "ERR_UCRED_NO_FD", /serve\(\) of ucred\/http/);
    await server.shutdown();
  },
);

test("fdOf() finds the number in each shape of a socket", () => {
  for (
    const [socket, fd] of [
      ...[[0, 0], [-0, 0], [2147483647, 2147483647], [{ fd: 0 }, 0], [{ fd: 9 }, 9]] as const,
      [{ _handle: { fd: 0 } }, 0],
      [{ _handle: { fd: 9 }, fd: 8, socket: { _handle: { fd: 7 } } }, 9],
      [{ socket: { _handle: { fd: 9 } } }, 9],
    ] as const
  ) {
    assert.ok(Object.is(fdOf(socket as never), fd), JSON.stringify(socket));
  }
});

test("fdOf() throws the reason for each object without a descriptor", () => {
  const tls = { _handle: {}, destroyed: false, connecting: false };
  const addr = { transport: "unix", path: "s" };
  class UnixConn {}
  const closed = /the socket is closed$/;
  const unconnected = runtime === "bun"
    ? /Bun's http server hides it, or/
    : /is not connected yet$/;
  const hidden = /: Deno\.serve and Bun\.serve hide it$/;
  for (
    const [socket, code, message] of [
      [{ fd: -1 }, "ERR_UCRED_NO_FD", closed],
      [{ _handle: null, destroyed: true }, "ERR_UCRED_NO_FD", closed],
      [{ _handle: { fd: -1 }, destroyed: true }, "ERR_UCRED_NO_FD", closed],
      [{ socket: { _handle: null, destroyed: true } }, "ERR_UCRED_NO_FD", closed],
      [tls, "ERR_UCRED_NO_FD", /hides it on this kind of socket$/],
      [{ ...tls, _handle: { fd: -1 } }, "ERR_UCRED_NO_FD", /hides it on this kind of socket$/],
      [{ ...tls, _handle: { fd: "7" } }, "ERR_UCRED_NO_FD", /hides it on this kind of socket$/],
      [{ ...tls, _handle: null }, "ERR_UCRED_NO_FD", unconnected],
      [{ ...tls, connecting: true }, "ERR_UCRED_NO_FD", /is not connected yet$/],
      [{ ...tls, _handle: null, connecting: true }, "ERR_UCRED_NO_FD", /is not connected yet$/],
      [{ _handle: null, listening: false }, "ERR_UCRED_NO_FD", /a server that does not listen$/],
      [{ ...tls, remoteFamily: "IPv4" }, "ERR_UCRED_NOT_UNIX", /of a TCP socket$/],
      [{ remoteAddr: { transport: "tcp" } }, "ERR_UCRED_NOT_UNIX", /of a TCP socket$/],
      [new UnixConn(), "ERR_UCRED_NO_FD", /: Deno\.listen hides it$/],
      [{ addr, accept() {} }, "ERR_UCRED_NO_FD", /: Deno\.listen hides it$/],
      [{ addr }, "ERR_UCRED_NO_FD", hidden],
      [{ remoteAddr: addr }, "ERR_UCRED_NO_FD", hidden],
      [{ requestIP() {} }, "ERR_UCRED_NO_FD", hidden],
      [new Request("http://localhost/"), "ERR_UCRED_NO_FD", hidden],
    ] as const
  ) {
    const error = { name: "UcredError", code, message };
    assert.throws(() => fdOf(socket as never), error, JSON.stringify(socket));
  }
  const noSocket = /^This object is not a socket: it has no descriptor$/;
  const constructor = { name: undefined };
  for (
    const socket of [{}, { socket: {} }, { socket: null }, { accept() {} }, { addr: null }, {
      constructor,
    }, Object.create(null)]
  ) {
    const error = { name: "TypeError", message: noSocket };
    assert.throws(() => fdOf(socket), error, JSON.stringify(socket));
  }
  assert.throws(() => fdOf(null as never), { message: /number or an object, not null$/ });
  assert.throws(() => fdOf("7" as never), { message: /number or an object, not string$/ });
});

test("isAccepted() is true only for the connection of a listener with a name", () => {
  const handle = { fd: 7 };
  for (
    const [socket, expected] of [
      [{ _handle: handle, _server: { _pipeName: "s" } }, true],
      [{ socket: { _handle: handle, _server: { _pipeName: "s" } } }, true],
      [{ _handle: { ...handle, listener: { unix: "s" } } }, true],
      [{ fd: 7, listener: { unix: "s" } }, true],
      [{ _handle: handle, _server: null, listener: {} }, false],
      [{ _handle: null }, false],
      [{ _handle: handle, _server: { _pipeName: 7 } }, false],
      [{ _handle: handle, socket: { _handle: handle, _server: { _pipeName: "s" } } }, false],
      [7, false],
      [null, false],
    ] as const
  ) {
    assert.equal(isAccepted(socket as never), expected, JSON.stringify(socket));
  }
});

test("connectionOf(), handleOf() and hidesFd() distinguish the runtimes' sockets", () => {
  const _handle = { fd: 7 };
  const once = () => {}, terminate = () => {};
  const socket = { _handle, once };
  assert.equal(connectionOf(socket as never), socket);
  assert.equal(connectionOf({ socket } as never), socket);
  for (const other of [{ once }, { _handle }, { _handle, once: true }, 7]) {
    assert.equal(connectionOf(other as never), undefined, JSON.stringify(other));
  }
  const ofBun = { fd: 7, terminate };
  assert.equal(handleOf(socket as never), _handle);
  assert.equal(handleOf({ socket } as never), _handle);
  assert.equal(handleOf(ofBun as never), ofBun);
  for (const other of [{ fd: 7, terminate: true }, { fd: "7", terminate }, { terminate }]) {
    assert.equal(handleOf(other as never), undefined, JSON.stringify(other));
  }
  const found = [socket, ofBun, {}, { _handle: null }, { _handle: {} }];
  const hides = found.map((each) => hidesFd(each as never));
  assert.deepEqual(hides, [false, false, true, true, true]);
  assert.equal(httpHidesFd(), runtime === "bun");
});

test("listenerFdOf() returns a number that can be a descriptor", () => {
  const listeners = [{ _handle: { fd: 0 } }, { fd: 9 }, { _handle: null, fd: 9 }, { _handle: {} }];
  assert.deepEqual(listeners.map(listenerFdOf), [0, 9, 9, undefined]);
  for (const fd of [-1, "7", undefined]) assert.equal(listenerFdOf({ fd }), undefined);
});

test("closeSocket() calls the first method that closes a socket at once", () => {
  const calls: (readonly [name: string, on: unknown])[] = [];
  const socket = (...names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, function (this: unknown) {
      calls.push([name, this]);
    }]));
  const sockets = [["close", "terminate", "destroy"], ["close", "terminate"], ["close"], []]
    .map((names) => socket(...names));
  for (const each of [7, ...sockets, { destroy: true }, { socket: sockets[0] }]) {
    closeSocket(each as never);
  }
  const [net, bun, deno] = sockets;
  assert.deepEqual(calls, [["destroy", net], ["terminate", bun], ["close", deno], [
    "destroy",
    net,
  ]]);
});

test("identify() treats the descriptor −0 as 0", () => {
  const outcome = (fd: number) => {
    try {
      return peerCredentials(fd);
    } catch (error) {
      return (error as UcredError).code;
    }
  };
  assert.deepEqual(outcome(-0), outcome(0));
});

test("identify() throws TypeError or RangeError for other values", () => {
  for (const wrong of [undefined, null, "7", 7n, true, () => 7, {}, [], { fd: "7" }, Symbol("7")]) {
    assert.throws(() => peerCredentials(wrong as never), TypeError);
    assert.throws(() => identify(wrong as never), TypeError);
  }
  for (const wrong of [-1, 1.5, NaN, Infinity, 2 ** 31, 2 ** 32, { fd: 2 ** 32 }, { fd: 0.5 }]) {
    assert.throws(() => peerCredentials(wrong), RangeError);
  }
});

test("peerCredentials() reads the errno of its own worker thread", async () => {
  const mod = new URL("../../mod.ts", import.meta.url).href;
  const code = `
    import { parentPort } from "node:worker_threads";
    import { peerCredentials } from ${JSON.stringify(mod)};
    try { peerCredentials(2147483647); } catch ({ code, errno }) { parentPort.postMessage({ code, errno }); }
  `;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
  const answer = await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  assert.deepEqual(answer, { code: "ERR_UCRED_NO_FD", errno: 9 });
  await worker.terminate();
});

test("console.log(peer) prints the same on the three runtimes", async () => {
  const { inspect } = await import("node:util");
  await connected([freshPath()], (accepted) => {
    const peer = identify(accepted);
    const text = inspect(peer).replaceAll(/\s+/g, " ");
    assert.match(text, new RegExp(`^Peer \\{ pid: \\d+, uid: ${peer.uid}, gid: ${peer.gid}, `));
    const spelled = { ...peer.toJSON(), pid: undefined, groups: undefined };
    const json = { ...JSON.parse(JSON.stringify(peer)), pid: undefined, groups: undefined };
    assert.deepEqual(json, spelled);
  });
});
