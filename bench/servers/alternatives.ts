/** The alternatives on localhost: a JSON web token in each request, and mutual TLS. */

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Server } from "node:net";
import { join } from "node:path";
import { jwtVerify } from "jose";

const WELCOME = "welcome\n";

/** Starts a server that verifies a token with a shared secret (HS256, by jose). */
export function startJwt(folder: string): Promise<void> {
  const secret = readFileSync(join(folder, "secret"));
  return listening(
    createServer(async (request, response) => {
      try {
        const token = request.headers.authorization?.replace("Bearer ", "") ?? "";
        const { payload } = await jwtVerify(token, secret, { algorithms: ["HS256"] });
        if (payload.sub !== "bench") throw new Error("wrong subject");
        response.end(WELCOME);
      } catch {
        response.writeHead(401).end();
      }
    }),
  );
}

/** Starts a server that requires a certificate of the client. */
export function startMtls(folder: string): Promise<void> {
  const read = (name: string) => readFileSync(join(folder, name));
  return listening(
    createTlsServer({
      ...{ ca: read("ca.pem"), cert: read("server.pem"), key: read("server.key") },
      ...{ requestCert: true, rejectUnauthorized: true },
    }, (_, response) => response.end(WELCOME)),
  );
}

function listening(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      console.log((server.address() as AddressInfo).port);
      resolve();
    });
  });
}
