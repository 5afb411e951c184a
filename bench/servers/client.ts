/**
 * `client.ts FOLDER`: the client in the comparison with tokens and mutual TLS. For each line of input, a
 * {@link Load} in JSON, it sends requests and prints "ok", or the message of an error.
 */

import { readFileSync } from "node:fs";
import * as http from "node:http";
import * as https from "node:https";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { SignJWT } from "jose";

const [folder = ""] = process.argv.slice(2);
const read = (name: string) => readFileSync(join(folder, name));

const token = await new SignJWT({ sub: "bench" })
  .setProtectedHeader({ alg: "HS256" })
  .setExpirationTime("1h")
  .sign(read("secret"));
const tls = { ca: read("ca.pem"), cert: read("client.pem"), key: read("client.key") };

/** Requests to send. */
interface Load {
  readonly kind: string;
  readonly where: string | number;
  readonly connection: "kept" | "new";
  readonly count: number;
  readonly atOnce: number;
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    await run(JSON.parse(line));
    console.log("ok");
  } catch (error) {
    console.log((error as Error).message);
  }
}

async function run({ kind, where, connection, count, atOnce }: Load): Promise<void> {
  const isTls = kind === "mTLS";
  const { Agent, get } = isTls ? https : http;
  // maxCachedSessions: no TLS session is resumed, so that each connection has a full handshake.
  const agent = new Agent({
    ...{ keepAlive: connection === "kept", maxSockets: atOnce, maxCachedSessions: 0 },
  });
  const options = {
    ...(typeof where === "string" ? { socketPath: where } : { host: "localhost", port: where }),
    ...(isTls && tls),
    ...(kind === "JWT" && { headers: { authorization: `Bearer ${token}` } }),
    agent,
    family: 4,
  };
  const one = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const request = get(options, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => text += chunk);
        response.on("end", () => {
          if (response.statusCode === 200 && text === "welcome\n") resolve();
          else reject(new Error(`the response is ${response.statusCode} ${text}`));
        });
      });
      // A server may close an idle connection while the client sends the next request on it.
      request.on("error", (error) => request.reusedSocket ? resolve(one()) : reject(error));
    });
  let left = count;
  const worker = async () => {
    while (left-- > 0) await one();
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  agent.destroy();
}
