/** System calls that fail in a running `ucred guard`, those of the runtime included: `strace -e inject`. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { TYPE } from "../../interop/dbus/message.ts";
import { messageOf, Wire } from "../guard/dbus_wire.ts";
import { FakeEngine } from "../support/fake_engine.ts";
import {
  answerAll,
  answerOf,
  Behind,
  Guard,
  policyFile,
  testGuard,
  tool,
} from "../support/guard.ts";
import { endAfterEach, needs, soak, until } from "../support/suite.ts";
import { type Client, visitAll } from "../support/visitors.ts";

/** One user is allowed. The rules have conditions that need the process of a peer. */
const CLIENTS: readonly Client[] = [
  { uid: 4001, gid: 5001, isAllowed: true },
  { uid: 4002, gid: 5002, isAllowed: false },
  { uid: 4001, gid: 5001, isAllowed: true },
];

/** The reply to a denied D-Bus message, after which the connection stays open. */
const DENIED = "org.freedesktop.DBus.Error";

const policyOf = (about = "", actions = "") =>
  `version: 1
${about}
rules:
  - { name: program, when: { exe: /nonexistent }, ${actions} deny: true }
  - { name: one, when: { uid: 4001 }, ${actions} allow: true }
`;

interface Mode {
  readonly mode: "stream" | "http" | "docker" | "dbus";
  readonly policy: string;
  readonly request: string;
  readonly end?: string;
  readonly answer: RegExp;
  upstream(): Promise<{ readonly path: string }>;
}

const MODES: readonly Mode[] = [
  {
    mode: "stream",
    policy: policyOf(),
    request: "hello",
    answer: /^welcome$/,
    upstream: () => Behind.start((end) => end.send("welcome").end()),
  },
  {
    mode: "http",
    policy: policyOf(),
    request: "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    answer: /^HTTP\/1.1 200 [^]*uid 4001$/,
    upstream: () =>
      Behind.start((end) =>
        answerAll(end, ({ header }) => answerOf(`uid ${header("x-ucred-uid")}`))
      ),
  },
  {
    mode: "docker",
    policy: policyOf("about: docker"),
    request: "GET /v1.48/containers/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    answer: /^HTTP\/1.1 200 [^]*\[\]/,
    upstream: () => FakeEngine.start(),
  },
  {
    mode: "dbus",
    policy: policyOf("about: dbus", 'actions: "**",'),
    request: `\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n${messageOf({}).toString("latin1")}`,
    end: DENIED,
    answer: /welcome/,
    upstream: () =>
      Behind.start(async (end) => {
        const { wire } = await Wire.accept(end);
        const { serial } = await wire.next();
        wire.send({ type: TYPE.return, replySerial: serial }, "welcome");
        end.end();
      }),
  },
];

/**
 * System call → errnos of its man page. EAGAIN is omitted where it would contradict a previous report of
 * epoll(7), and close(2) is omitted because an injected failure keeps the descriptor open. read(2) and write(2)
 * are omitted because libuv calls abort(3) if they fail for its own eventfd(2), which the kernel never reports.
 */
const FAULTS: { readonly [call: string]: readonly string[] } = {
  accept4: ["EMFILE", "ECONNABORTED", "EINTR", "ENFILE", "ENOMEM", "EPERM"],
  getsockopt: ["ENOPROTOOPT", "ENOMEM", "EBADF"],
  getsockname: ["ENOBUFS", "EBADF"],
  getpeername: ["ENOTCONN"],
  recvfrom: ["ECONNRESET", "EINTR", "ENOMEM"],
  recvmsg: ["ECONNRESET", "EINTR", "ENOMEM"],
  writev: ["EPIPE", "EINTR"],
  sendto: ["EPIPE", "EINTR", "ENOBUFS"],
  sendmsg: ["EPIPE", "EINTR"],
  socket: ["EMFILE", "ENFILE", "ENOMEM"],
  connect: ["ECONNREFUSED", "EAGAIN", "EINTR", "EACCES"],
  shutdown: ["ENOTCONN"],
  fcntl: ["EMFILE", "EINVAL"],
  ioctl: ["EINVAL", "ENOTTY"],
  openat: ["EMFILE", "EACCES", "EINTR"],
  fstat: ["EIO", "ENOMEM"],
  statx: ["EACCES", "ENOMEM"],
  poll: ["EINTR", "ENOMEM"],
  epoll_ctl: ["ENOMEM", "ENOSPC"],
  epoll_wait: ["EINTR"],
  epoll_pwait: ["EINTR"],
  clone3: ["EAGAIN"],
  pidfd_open: ["EMFILE"],
};

const tracers = new Set<ChildProcess>();
endAfterEach(() => tracers.forEach((tracer) => tracer.kill("SIGKILL")));

/** Whether strace(1) traces each thread of a process. */
function isTraced(pid: number): boolean {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).every((thread) =>
    !/^TracerPid:\s+0$/m.test(readFileSync(`${tasks}/${thread}/status`, "utf8"))
  );
}

/** Lets calls of a running process fail while something runs. */
async function withFault(guard: Guard, inject: string, run: () => Promise<void>): Promise<void> {
  const pid = guard.child.pid!;
  const call = inject.split(":")[0]!;
  const args = ["-f", "-qq", "-o", "/dev/null", "-e", `trace=${call}`, "-e", `inject=${inject}`];
  const tracer = spawn("strace", [...args, "-p", `${pid}`], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  tracers.add(tracer);
  let errors = "";
  tracer.stderr.setEncoding("utf8").on("data", (text: string) => errors += text);
  const ended = once(tracer, "close").then(() => tracers.delete(tracer));
  try {
    await until(() => tracer.exitCode !== null || isTraced(pid));
    assert.equal(tracer.exitCode, null, errors);
    await run();
  } finally {
    tracer.kill("SIGINT"); // detaches
    // strace(1) waits forever for a process that ended while it was traced.
    const timer = setTimeout(() => tracer.kill("SIGKILL"), 10_000);
    await ended;
    clearTimeout(timer);
  }
}

/** Requires that each client received its answer or nothing. Returns which were served. */
async function visit({ request, answer, end }: Mode, path: string): Promise<readonly boolean[]> {
  const received = await visitAll(path, request, CLIENTS, end);
  return received.map((text, index) => {
    const isServed = answer.test(text);
    assert.ok(CLIENTS[index]!.isAllowed || !isServed, `a denied client receives ${text}`);
    return isServed;
  });
}

const RIGHT = CLIENTS.map(({ isAllowed }) => isAllowed);
const hasEnded = ({ child }: Guard) => child.exitCode !== null || child.signalCode !== null;

/** Deno 2.9.5 accepts nothing more on a socket once accept(2) has failed. */
const UNRECOVERED = needs.deno.met ? /^accept4:/ : /^$/;

/**
 * Lists what to inject: in `npm test` a few faults, in `npm run test:soak` each one. On Deno, whose loop does not
 * expect calls to fail after epoll(7) has reported an event, only a few.
 */
function faults(): readonly string[] {
  const all = Object.entries(FAULTS).flatMap(([call, errnos]) =>
    errnos.flatMap((errno) => [1, 2, 3].map((at) => `${call}:error=${errno}:when=${at}`))
  );
  const short = ["accept4:error=EMFILE:when=1", "getsockopt:error=ENOMEM:when=1+"];
  return (needs.soak.met && !needs.deno.met ? all : short).filter((inject) =>
    !UNRECOVERED.test(inject)
  );
}

for (const mode of MODES.slice(0, soak(2, MODES.length))) {
  testGuard(`guard in mode ${mode.mode} serves no wrong client, if system calls fail`, async () => {
    const upstream = (await mode.upstream()).path;
    const policy = policyFile(mode.policy);
    const start = () => Guard.start({ upstream, policy, mode: mode.mode });
    let guard = await start();
    const ends: string[] = [];
    /** Faults after which the guard runs, and does not serve. */
    const dead: string[] = [];
    for (const inject of faults()) {
      try {
        await withFault(guard, inject, async () => void await visit(mode, guard.path));
        if (!hasEnded(guard)) assert.deepEqual(await visit(mode, guard.path), RIGHT, "afterwards");
      } catch (error) {
        if (/a denied client/.test((error as Error).message)) throw error;
        if (!hasEnded(guard)) {
          dead.push(`${inject}: ${(error as Error).message.split("\n")[0]}`);
          guard.child.kill("SIGKILL");
          await guard.ended;
        }
      }
      if (!hasEnded(guard)) continue;
      if (guard.child.signalCode !== "SIGKILL") ends.push(`${inject}: ${guard.log.slice(-300)}`);
      guard = await start();
    }
    assert.deepEqual(dead, []);
    assert.deepEqual(ends, []);
  }, tool("strace"));
}

/** Calls that fail while the guard starts. */
const AT_START = ["bind", "listen", "socket", "flock", "mkdir", "chmod", "openat"];

testGuard(
  "guard reports why it cannot start, or serves the right clients, if a system call fails",
  async () => {
    const mode = MODES[0]!;
    const upstream = (await mode.upstream()).path;
    const policy = policyFile(mode.policy);
    for (const call of AT_START.slice(0, soak(2, Infinity))) {
      for (let at = 1; at <= soak(1, 4); at++) {
        const inject = `${call}:error=EACCES:when=${at}`;
        const trace = ["-e", `trace=${call}`, "-e", `inject=${inject}`];
        const prefix = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", ...trace];
        const guard = Guard.launch({ upstream, policy, mode: mode.mode, prefix });
        await until(() => guard.log.includes("listening at ") || hasEnded(guard));
        if (hasEnded(guard)) {
          await guard.ended;
          assert.notEqual(guard.child.exitCode, 0, inject);
          // A runtime that cannot start aborts without a message.
          assert.ok(guard.log !== "" || guard.child.signalCode !== null, inject);
        } else {
          await visit(mode, guard.path); // the call may fail here
          assert.deepEqual(await visit(mode, guard.path), RIGHT, inject);
          guard.signal("SIGTERM");
          await guard.ended;
        }
      }
    }
  },
  tool("strace"),
);
