/** A server of the soak run: `server.ts KIND PATH POLICY AUDIT`. SIGHUP reloads its policy and its audit log. */

import process from "node:process";
import { createHelper } from "../../interop/sudoers/helper/mod.ts";
import { sudoVocabulary } from "../../interop/sudoers/mod.ts";
import type { Peer } from "../../mod.ts";
import { watchPolicy } from "../../policy/mod.ts";
import { auditLog } from "../../servers/audit.ts";
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

const lineFor = ({ uid }: Peer) => `uid ${uid}\n`;

async function listening(server: NetServer): Promise<NetServer> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ path, mode: 0o666 }, () => resolve());
  });
  return server;
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
      ...{ path, mode: 0o666, policy, audit },
      fetch: async (request, { peer }) => {
        await request.text();
        return new Response(lineFor(peer));
      },
    }),
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
