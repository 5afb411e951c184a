/** The guard between a client and a server of gRPC, and in front of other programs that speak HTTP/2. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { ask, connectHttp2, echo, Http2Upstream } from "../support/http2.ts";
import { Guard, policyFile, testGuard, tool, USERS } from "../support/guard.ts";
import { packagesOf } from "../support/packages.ts";
import { freshPath } from "../support/peers.ts";
import { safeFolder } from "../support/safe_folder.ts";
import { needs, runtime, until } from "../support/suite.ts";

const run = promisify(execFile);

const CRI = `version: 1
rules:
  - { name: all, when: { uid: 0 }, actions: ["POST /test.Calls/**"], allow: true }
  - name: list
    when: { uid: 0 }
    actions: POST /runtime.v1.RuntimeService/ListContainers
    allow: list
`;

/** A client and a server with @grpc/grpc-js. It prints a line of JSON for each call. */
const CALLS = `
import grpc from "@grpc/grpc-js";
const [up, guard] = process.argv.slice(-2);
const bytes = (value) => Buffer.from(value), text = (value) => value;
const method = (path, requestStream, responseStream) => ({ path, requestStream, responseStream,
  requestSerialize: bytes, requestDeserialize: text, responseSerialize: bytes, responseDeserialize: text });
const calls = {
  unary: method("/test.Calls/Unary", false, false),
  collect: method("/test.Calls/Collect", true, false),
  spread: method("/test.Calls/Spread", false, true),
  chat: method("/test.Calls/Chat", true, true),
  fail: method("/test.Calls/Fail", false, false),
  never: method("/test.Calls/Never", false, true),
};
const runtime = {
  list: method("/runtime.v1.RuntimeService/ListContainers", false, false),
  run: method("/runtime.v1.RuntimeService/RunPodSandbox", false, false),
};
let cancelled = 0;
const server = new grpc.Server({ "grpc.max_receive_message_length": 1 << 22 });
const reply = (call, done) => {
  const head = new grpc.Metadata(), tail = new grpc.Metadata();
  head.set("x-head", "1");
  head.set("x-user", String(call.metadata.get("x-ucred-uid")));
  tail.set("x-tail-bin", Buffer.from([1, 255]));
  call.sendMetadata(head);
  done(null, call.request, tail);
};
server.addService(calls, {
  unary: reply,
  collect(call, done) { let size = 0; call.on("data", (part) => size += part.length).on("end", () => done(null, String(size))); },
  spread(call) { for (let n = 0; n < 100; n++) call.write(call.request + n); call.end(); },
  chat(call) { call.on("data", (part) => call.write("re " + part)).on("end", () => call.end()); },
  fail(call, done) { const tail = new grpc.Metadata(); tail.set("x-why", "full"); done({ code: 8, details: "é full", metadata: tail }); },
  never(call) { call.write("1"); call.on("cancelled", () => cancelled++); },
});
server.addService(runtime, { list: reply, run: reply });
await new Promise((resolve, reject) => server.bindAsync("unix:" + up, grpc.ServerCredentials.createInsecure(), (error) => error ? reject(error) : resolve()));
const options = { "grpc.max_receive_message_length": 1 << 22 };
const make = (service) => new (grpc.makeGenericClientConstructor(service, "x"))("unix:" + guard, grpc.credentials.createInsecure(), options);
const client = make(calls), cri = make(runtime);
const unary = (client, name, body, more = {}) => new Promise((resolve) => {
  const result = {};
  client[name](body, new grpc.Metadata(), more, (error, answer) => resolve(Object.assign(result, { code: error?.code ?? 0, details: error?.details, why: error?.metadata.get("x-why")[0], answer: String(answer ?? "").slice(0, 20), size: answer?.length })))
    .on("metadata", (head) => Object.assign(result, { head: head.get("x-head")[0], user: head.get("x-user")[0] }))
    .on("status", (status) => result.tail = status.metadata.get("x-tail-bin")[0]?.toString("hex"));
});
const read = (call, each = () => {}) => new Promise((resolve) => {
  const parts = []; let code = -1;
  call.on("data", (part) => { parts.push(String(part)); each(parts); }).on("error", (error) => code = error.code)
    .on("status", (status) => resolve({ code: status.code, count: parts.length, last: parts.at(-1) }));
});
const print = (name, value) => console.log(JSON.stringify([name, value]));
print("unary", await unary(client, "unary", "hello"));
print("big", await unary(client, "unary", Buffer.alloc(1 << 20, 7)));
print("fail", await unary(client, "fail", "x"));
print("collect", await new Promise((resolve) => {
  const call = client.collect((error, answer) => resolve(String(answer)));
  for (let n = 0; n < 50; n++) call.write(Buffer.alloc(50_000));
  call.end();
}));
print("spread", await read(client.spread("part ")));
{
  const call = client.chat();
  call.write("0");
  print("chat", await read(call, (parts) => parts.length < 5 ? call.write(String(parts.length)) : call.end()));
}
{
  const call = client.never("x");
  print("cancel", await read(call, () => call.cancel()));
  print("deadline", await read(client.never("x", { deadline: Date.now() + 300 })));
  while (cancelled < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  print("cancelled", cancelled);
}
print("list", await unary(cri, "list", "all"));
print("denied", await unary(cri, "run", "pod"));
print("again", await unary(cri, "list", "all"));
{
  const call = client.never("x");
  print("shutdown", await read(call, () => server.forceShutdown()));
  print("down", await unary(client, "unary", "x"));
}
process.exit();
`;

testGuard(
  "guard decides gRPC calls: unary and streaming, metadata, cancellation, deadlines, large messages",
  async () => {
    const up = freshPath("grpc.sock");
    const guard = await Guard.start({
      upstream: up,
      mode: "http",
      args: ["--http2"],
      policy: policyFile(CRI),
    });
    const cwd = fileURLToPath(new URL("../packages", import.meta.url)); // npm test installs them
    const line = ["--input-type=module", "-e", CALLS, up, guard.path];
    const { stdout } = await run("node", line, { cwd, timeout: 60_000 });
    const found = Object.fromEntries(stdout.trim().split("\n").map((line) => JSON.parse(line)));
    const tail = "01ff", head = "1", user = "0";
    assert.deepEqual(found, {
      unary: { code: 0, head, user, tail, answer: "hello", size: 5 },
      big: { code: 0, head, user, tail, answer: "\x07".repeat(20), size: 1 << 20 },
      fail: { code: 8, details: "é full", why: "full", answer: "" },
      collect: "2500000",
      spread: { code: 0, count: 100, last: "part 99" },
      chat: { code: 0, count: 5, last: "re 4" },
      cancel: { code: 1, count: 1, last: "1" },
      deadline: { code: 4, count: 1, last: "1" },
      cancelled: 2,
      list: { code: 0, head, user, tail, answer: "all", size: 3 },
      denied: { code: 7, details: "The policy does not allow it", answer: "" },
      again: { code: 0, head, user, tail, answer: "all", size: 3 },
      shutdown: { code: 14, count: 1, last: "1" },
      down: { code: 14, details: "The upstream server cannot be reached", answer: "" },
    });
  },
  needs.http2,
  tool("node"),
  packagesOf("tests/packages"),
);

testGuard(
  "guard --http2 works with curl and another user, as this user, and ends open streams on SIGTERM",
  async () => {
    const upstream = await Http2Upstream.start(echo);
    const file = policyFile();
    const audit = join(safeFolder(), "audit.log");
    const shadow = policyFile("version: 1\nrules:\n  - { name: nobody, deny: closed }\n");
    const guard = await Guard.start({
      upstream: upstream.path,
      mode: "http",
      policy: file,
      args: ["--http2", "--audit", audit, "--shadow", shadow],
    });
    const curl = async (uid: number, ...args: string[]) => {
      const ids = [`--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];
      const common = ["curl", "-s", "-S", "--http2-prior-knowledge", "--unix-socket", guard.path];
      const { stdout } = await run("setpriv", [...ids, ...common, ...args, "http://localhost/x"]);
      return stdout;
    };
    assert.equal(await curl(USERS.one, "-d", "hello"), "hello");
    assert.deepEqual(upstream.last("x-ucred-uid"), [String(USERS.one)]);
    assert.match(await curl(USERS.two, "-d", "hello"), /"status":403/);
    await guard.logs('"POST /x": allow');
    const lines = () =>
      readFileSync(audit, "utf8").trim().split("\n").map((line) => JSON.parse(line));
    await until(() => lines().filter(({ event }) => event === "decided").length === 2);
    assert.deepEqual(
      lines().filter(({ event }) => event === "decided")
        .map(({ peer, action, allowed }) => [peer.uid, action, allowed]),
      [[USERS.one, "POST /x", true], [USERS.two, "POST /x", false]],
    );

    const session = connectHttp2(guard.path);
    assert.equal((await ask(session, { ":path": "/x" })).headers[":status"], 200);
    writeFileSync(file, "version: 1\nrules:\n  - { name: none, deny: closed }\n");
    guard.signal("SIGHUP");
    await guard.logs("the new policy is in force");
    assert.match((await ask(session, { ":path": "/x" })).body, /closed/);
    guard.signal("SIGTERM");
    assert.deepEqual(await guard.ended, { code: 0, signal: null });
  },
  needs.http2,
  tool("curl"),
  tool("setpriv"),
);

testGuard(
  "guard --as-peer opens the HTTP/2 connections as its clients",
  async () => {
    const upstream = await Http2Upstream.start(echo);
    const guard = await Guard.start({
      upstream: upstream.path,
      mode: "http",
      args: ["--http2", "--as-peer"],
    });
    const ids = [`--reuid=${USERS.one}`, `--regid=${USERS.one}`, "--clear-groups"];
    const line = ["curl", "-s", "--http2-prior-knowledge", "--unix-socket", guard.path];
    const { stdout } = await run("setpriv", [...ids, ...line, "-d", "hi", "http://localhost/x"]);
    assert.equal(stdout, "hi");
    assert.equal(upstream.uids[0], USERS.one);
  },
  needs.http2,
  tool("curl"),
  tool("setpriv"),
);

testGuard("guard --http2 does not start on Deno", async () => {
  const guard = Guard.launch({
    upstream: freshPath("up.sock"),
    mode: "http",
    args: ["--http2"],
  });
  assert.equal((await guard.ended).code, 2);
  assert.match(guard.log, /Cannot serve HTTP\/2 on Deno/);
}, { name: "Deno", met: runtime === "deno" });
