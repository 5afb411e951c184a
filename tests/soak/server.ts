/**
 * A server of the soak run: `server.ts KIND PATH POLICY AUDIT`. SIGHUP reloads its policy and its audit log. It
 * uses the socket of a service manager if it was started with one.
 */

import { chmodSync, rmSync } from "node:fs";
import process from "node:process";
import { createHelper } from "../../interop/sudoers/helper/mod.ts";
import { sudoVocabulary } from "../../interop/sudoers/mod.ts";
import type { Peer } from "../../mod.ts";
import { watchPolicy } from "../../policy/mod.ts";
import { auditLog } from "../../servers/audit.ts";
import { listen as listenOnBun } from "../../servers/bun.ts";
import { withPeers } from "../../servers/deno.ts";
import { serve } from "../../servers/http.ts";
import { createServer, type NetServer } from "../../servers/net.ts";

const [kind = "", path = "", file = "", log = ""] = process.argv.slice(2);
const report = (line: string) => console.error(line);

const policy = watchPolicy(file, {
  vocabularies: [sudoVocabulary],
  onReload: () => report("the new policy is in force"),
  onError: () => report("the policy cannot be used"),
});
const audit = auditLog({ file: log });
process.on("SIGHUP", () => {
  audit.reopen();
  policy.reload();
});

const socket = process.env["LISTEN_FDS"] === undefined
  ? { path, mode: 0o666 }
  : { systemd: true } as const;

const lineFor = ({ uid }: Peer) => `uid ${uid}\n`;

async function listening(server: NetServer): Promise<NetServer> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(socket, () => resolve());
  });
  return server;
}

/** A server on `Deno.listen` or `Bun.listen`. */
async function native(): Promise<{ close(): unknown }> {
  if (!("Deno" in globalThis)) {
    return await listenOnBun({
      ...{ ...socket, policy, audit },
      socket: {
        open: (connection, peer) => connection.data = peer,
        data: (connection) => connection.end(lineFor(connection.data as Peer)),
      },
    });
  }
  rmSync(path, { force: true });
  const peers = withPeers(Deno.listen({ transport: "unix", path }), { policy, audit });
  chmodSync(path, 0o666);
  (async () => {
    for await (const { conn, peer } of peers) {
      answer(conn, peer).catch(() => {}).finally(() => close(conn));
    }
  })();
  return { close: () => peers.close() };
}

/** Answers what a client sends first. */
async function answer(connection: Deno.Conn, peer: Peer): Promise<void> {
  if (await connection.read(new Uint8Array(1024)) === null) return;
  await connection.write(new TextEncoder().encode(lineFor(peer)));
}

function close(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // the server has closed it
  }
}

const KINDS: { readonly [kind: string]: () => Promise<{ close(): unknown }> } = {
  net: () =>
    listening(
      createServer({ policy, audit }, (socket, peer) => {
        socket.once("data", () => socket.end(lineFor(peer))).resume();
      }),
    ),
  http: () =>
    serve({
      ...{ ...socket, policy, audit },
      fetch: async (request, { peer }) => {
        await request.text();
        return new Response(lineFor(peer));
      },
    }),
  native,
  helper: () =>
    listening(
      createServer(
        { policy, audit, decideAt: "action", pin: true },
        createHelper({ policy, report: () => {} }),
      ),
    ),
};

const server = await KINDS[kind]!();
report("listening at ");
process.once("SIGTERM", async () => {
  await server.close();
  await audit.close();
  process.exit();
});
