/** Every object with a peer on each runtime, and the alternatives to those that hide it. */

import assert from "node:assert/strict";
import { createServer as createHttpServer, get, type IncomingMessage } from "node:http";
import { connect, createServer, type Server, Socket } from "node:net";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { identify, peerCredentials, UcredError, type UcredErrorCode } from "../../mod.ts";
import { openedSystem } from "../../adapters/select.ts";
import { fdOf, isAccepted } from "../../identity/fd.ts";
import { needs, testWith } from "../support/suite.ts";
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
