/** `ucred doctor`: what this runtime, kernel and system can do, found out by trying. */

import { lstatSync, mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, Socket } from "node:net";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { host } from "../adapters/host.ts";
import { UcredError } from "../core/errors.ts";
import type { Fact } from "../core/facts.ts";
import type { Peer } from "../core/peer.ts";
import { openedSystem } from "../adapters/select.ts";
import { readText } from "../system/proc_files.ts";
import { hidePid, hidingProc, SHOW_PROCESSES } from "../system/hidepid.ts";
import { identify } from "../identity/identify.ts";
import { mapsEvery } from "../system/overflow_ids.ts";
import { socketsAt } from "../system/unix_sockets.ts";
import { serve } from "../servers/http.ts";
import { columns, type ExitCode, paint, print, printable, printJson } from "./output.ts";

/** One thing that can be done here, or cannot. */
interface Capability {
  readonly name: string;
  readonly ok: boolean;
  /** How, or why not. */
  readonly detail: string;
  /** What is lost where it cannot be done. */
  readonly without: string;
}

/** What is tried, in order; `detail` says how, and what is thrown why not. */
type Trial = readonly [name: string, without: string, detail: (self: Peer) => string];

const TRIALS: readonly Trial[] = [
  [
    "peer credentials",
    "everything",
    ({ uid, gid }) => `uid ${uid}, gid ${gid} of our own connection`,
  ],
  [
    "process ids",
    "peer.pid; process facts",
    ({ facts }) => knownDetail(facts.pid, (pid) => `${pid} of our own connection`),
  ],
  [
    "groups",
    "rules on groups: they never allow",
    ({ facts }) => knownDetail(facts.groups, (groups) => `${groups.length} of our own connection`),
  ],
  ["all ids mapped", "users and groups outside the user namespace: no rule on them allows", () => {
    const partial = (["uid", "gid"] as const).filter((kind) => !mapsEvery(openedSystem(), kind));
    if (partial.length === 0) return "no id stands for another";
    const ids = partial.map((kind) => `${kind}s`).join(" and ");
    throw new Error(`our user namespace maps some ${ids} only; the others read as one overflow id`);
  }],
  ["account names", "peer.user, peer.groupNames", ({ facts }) => {
    if (facts.user.state === "none") return "looked up; our own uid has no name";
    return knownDetail(facts.user, (name) => `${name} is our own`);
  }],
  [
    "security labels",
    "rules on label: they never allow",
    ({ facts }) =>
      facts.label.state === "none"
        ? "no security module labels sockets here"
        : knownDetail(facts.label, String),
  ],
  [
    "pinned processes",
    "process facts, drift(), signal, key",
    ({ facts }) =>
      knownDetail(
        facts.pinned,
        (kind) =>
          kind === "connect" ? "as of connect (SO_PEERPIDFD)" : "as of accept: the weaker kind",
      ),
  ],
  ["ids of now", "live(), drift(), revalidate, rules on unchanged", (self) => {
    const live = self.live();
    if (!live.alive) return "of a process that has ended";
    return live.source === "kernel@now" ? "from the kernel" : "from /proc";
  }],
  [
    "programs",
    "rules on exe",
    (self) => knownDetail(self.process.facts.exe, () => scopeOf(self)),
  ],
  ["units and containers", "rules on unit and container", ({ process: { facts } }) => {
    if (facts.cgroup.state === "unknown") throw facts.cgroup.reason;
    if (facts.unit.state === "unknown") throw facts.unit.reason;
    return "from control groups";
  }],
  [
    "namespaces",
    "rules on sameNamespaces",
    (self) => knownDetail(self.process.facts.namespaces, () => scopeOf(self)),
  ],
  ["other users' processes", "process facts, live() and drift() of their peers", () => {
    const system = openedSystem();
    const { linux } = system.libc;
    if (
      linux === undefined || typeof readText(system, linux, "/proc/self/mountinfo") !== "string"
    ) {
      throw new Error("how /proc is mounted cannot be read");
    }
    const mode = hidingProc(system);
    if (mode === undefined) {
      return hidePid(system) === undefined
        ? "shown in /proc"
        : "shown in /proc to us, hidden from others";
    }
    throw new Error(`/proc hides them, by hidepid=${mode} or ProtectProc= (${SHOW_PROCESSES})`);
  }],
];

/** The inode of the first user namespace: PROC_USER_INIT_INO, <linux/proc_ns.h>. */
const FIRST_USER_NAMESPACE = 0xeffffffd;

/** Whether we may look into processes of other users: ptrace(2), PTRACE_MODE_READ_FSCREDS. */
function canTrace({ process: { facts: { capabilities } } }: Peer): boolean {
  return capabilities.state === "known" && capabilities.value.effective.includes("CAP_SYS_PTRACE");
}

/** Whose processes we may look into. */
function scopeOf(self: Peer): string {
  if (!canTrace(self)) return "of our own user; of other users with CAP_SYS_PTRACE only";
  const { namespaces } = self.process.facts;
  const isFirst = namespaces.state === "known" &&
    namespaces.value.user.id === FIRST_USER_NAMESPACE;
  return isFirst ? "of all users" : "of processes in our user namespace";
}

/** Runs the command: 1 if something cannot be done, 2 if nothing can. */
export async function doctor({ json }: { readonly json?: boolean }): Promise<ExitCode> {
  const folder = orError(() => mkdtempSync(join(tmpdir(), "ucred-")));
  try {
    const found = await tryAll(folder);
    const { name, os, cpu } = host();
    const kernel = orError(release);
    const shown = kernel instanceof Error ? "?" : kernel;
    if (json) printJson({ runtime: name, os, cpu, kernel: shown, capabilities: found });
    else {
      print(paint("bold", `${name}, ${os} ${shown}, ${cpu}`));
      const rows = found.map(({ name, ok, detail, without }, at) => {
        const isTold = found.slice(0, at).some((before) => !before.ok && before.detail === detail);
        return [
          ok ? paint("green", "yes") : paint("red", "no "),
          name,
          printable(ok ? detail : `${isTold ? "The same" : detail}. Lost: ${without}`),
        ];
      });
      for (const line of columns(rows)) print(line);
    }
    return found[0]?.ok !== true ? 2 : found.every(({ ok }) => ok) ? 0 : 1;
  } finally {
    if (!(folder instanceof Error)) rmSync(folder, { recursive: true, force: true });
  }
}

/** @param folder For sockets; or the error for which there is none. */
async function tryAll(folder: string | Error): Promise<readonly Capability[]> {
  const pathOf = (name: string) => {
    if (folder instanceof Error) throw folder;
    return join(folder, name);
  };
  const capabilities: Capability[] = [];
  const self = (look: (self: Peer | Error) => void) =>
    folder instanceof Error ? look(folder) : withSelf(pathOf("self"), look);
  await self((self) => {
    for (const [name, without, detail] of TRIALS) {
      capabilities.push(outcome(name, without, () => {
        if (self instanceof Error) throw self;
        return detail(self);
      }));
    }
    capabilities.push(outcome("list of sockets", "`ucred inspect`: who is connected", () => {
      if (self instanceof Error) throw self;
      const { connections } = socketsAt(lstatSync(pathOf("self"), { bigint: true }));
      if (connections.length === 0) throw new Error("our own connection is not listed");
      return "from sock_diag";
    }));
  });
  for (const name of ["node:http", "deno"] as const) {
    if (name === "deno" && host().runtime !== "deno") continue;
    const title = name === "deno" ? "HTTP by Deno's own engine" : "HTTP by node:http";
    const without = name === "deno"
      ? "half of the requests per second"
      : "ucred/http, guard --mode http";
    try {
      const { uid, engine } = await askSelf(pathOf("http"), name);
      capabilities.push(outcome(title, without, () => `tells uid ${uid} by ${engine}`));
    } catch (error) {
      capabilities.push(outcome(title, without, () => {
        throw error;
      }));
    }
  }
  return capabilities;
}

function outcome(name: string, without: string, detail: () => string): Capability {
  try {
    return { name, ok: true, detail: detail(), without };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const hint = error instanceof UcredError ? ` (${error.hint})` : "";
    return { name, ok: false, detail: `${error.message}${hint}`, without };
  }
}

function knownDetail<T>(fact: Fact<T>, detail: (value: T) => string): string {
  if (fact.state === "unknown") throw fact.reason;
  if (fact.state === "known") return detail(fact.value);
  throw new Error("there is none");
}

/** Connects to ourselves, and looks at that peer; or at the error that keeps us from it. */
function withSelf(path: string, look: (self: Peer | Error) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const client = new Socket();
    const end = (self: Peer | Error) => {
      try {
        look(self);
        resolve();
      } catch (error) {
        reject(error);
      } finally {
        client.destroy();
        server.close();
      }
    };
    const server = createServer((socket) => {
      end(orError(() => identify(socket, { pin: true })));
      socket.destroy();
    });
    client.once("error", end);
    // Deno throws some of what others report.
    const listening = orError(() =>
      server.once("error", end).listen({ path }, () => {
        const connecting = orError(() => client.connect({ path }));
        if (connecting instanceof Error) end(connecting);
      })
    );
    if (listening instanceof Error) end(listening);
  });
}

function orError<T>(run: () => T): T | Error {
  try {
    return run();
  } catch (error) {
    if (error instanceof Error) return error;
    throw error;
  }
}

/** Asks ourselves who we are, over HTTP. */
async function askSelf(path: string, engine: "node:http" | "deno") {
  const server = await serve({
    path,
    engine,
    fetch: (_, { peer }) => new Response(String(peer.uid)),
  });
  try {
    const text = await new Promise<string>((resolve, reject) => {
      let text = "";
      const client = connect({ path }).setEncoding("utf8").on("error", reject);
      client.on("data", (chunk) => text += chunk).on("close", () => resolve(text));
      client.write("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    });
    const uid = /\r\n([0-9]+)\r?\n?(?:0\r\n\r\n)?$/.exec(text)?.[1];
    if (uid === undefined) throw new Error(`the answer is ${JSON.stringify(text.slice(0, 80))}`);
    return { uid, engine: server.engine };
  } finally {
    await server.close({ timeout: 0 });
  }
}
