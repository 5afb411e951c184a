/** `ucred doctor`: tests which features work on this runtime, kernel and system. */

import { lstatSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, Socket } from "node:net";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { host } from "../adapters/host.ts";
import { createClient } from "../client/mod.ts";
import { UcredError } from "../core/errors.ts";
import type { Fact } from "../core/facts.ts";
import type { Peer } from "../core/peer.ts";
import { openedSystem } from "../adapters/select.ts";
import { procVisibility, SHOW_PROCESSES } from "../system/hidepid.ts";
import { identify } from "../identity/identify.ts";
import { ownUid } from "../system/accounts.ts";
import { mapsEvery } from "../system/overflow_ids.ts";
import { socketsAt } from "../system/unix_sockets.ts";
import { serve } from "../servers/http.ts";
import { columns, type ExitCode, paint, print, printable, printJson } from "./output.ts";

/** The result of one test. */
interface Capability {
  readonly name: string;
  readonly ok: boolean;
  /** How it works, or why it does not. */
  readonly detail: string;
  /** The effect of a failure. */
  readonly effect: string;
}

/** A test. `detail` returns how it works, or throws an error with the reason why it does not. */
type Test = readonly [name: string, effect: string, detail: (self: Peer) => string];

const TESTS: readonly Test[] = [
  [
    "peer credentials",
    "nothing works",
    ({ uid, gid }) => `uid ${uid}, gid ${gid} of our own connection`,
  ],
  [
    "process ids",
    "peer.pid and process facts are unknown",
    ({ facts }) => knownDetail(facts.pid, (pid) => `${pid} of our own connection`),
  ],
  [
    "groups",
    "rules on groups never allow",
    ({ facts }) => knownDetail(facts.groups, (groups) => `${groups.length} of our own connection`),
  ],
  ["all ids mapped", "rules on users and groups outside the user namespace never allow", () => {
    const partial = (["uid", "gid"] as const).filter((kind) => !mapsEvery(openedSystem(), kind));
    if (partial.length === 0) return "all uids and gids are unambiguous";
    const ids = partial.map((kind) => `${kind}s`).join(" and ");
    throw new Error(`our user namespace maps only some ${ids}; all others read as the overflow id`);
  }],
  ["account names", "peer.user and peer.groupNames are unknown", ({ facts }) => {
    if (facts.user.state === "none") return "the lookup works; our own uid has no name";
    return knownDetail(facts.user, (name) => `our own is ${name}`);
  }],
  [
    "security labels",
    "rules on label never allow",
    ({ facts }) =>
      facts.label.state === "none"
        ? "no security module labels sockets"
        : knownDetail(facts.label, String),
  ],
  [
    "pinned processes",
    "no process facts, drift(), signal or key",
    ({ facts }) =>
      knownDetail(
        facts.pinned,
        (kind) =>
          kind === "connect"
            ? "at connect time (SO_PEERPIDFD)"
            : "at accept time only (pidfd_open)",
      ),
  ],
  ["current ids", "no live(), drift() or revalidate; rules on unchanged never allow", (self) => {
    const live = self.live();
    if (!live.alive) return "the process has ended";
    return live.source === "kernel@now" ? "from the kernel" : "from /proc";
  }],
  [
    "programs",
    "rules on exe never allow",
    (self) => knownDetail(self.process.facts.exe, () => scopeOf(self)),
  ],
  ["units and containers", "rules on unit and container never allow", ({ process: { facts } }) => {
    if (facts.cgroup.state === "unknown") throw facts.cgroup.reason;
    if (facts.unit.state === "unknown") throw facts.unit.reason;
    return "from control groups";
  }],
  [
    "namespaces",
    "rules on sameNamespaces never allow",
    (self) => knownDetail(self.process.facts.namespaces, () => scopeOf(self)),
  ],
  ["other users' processes", "no process facts, live() or drift() of peers of other users", () => {
    const visibility = procVisibility();
    if (visibility === undefined) throw new Error("cannot read how /proc is mounted");
    const { mode, isHiddenFromUs } = visibility;
    if (mode === undefined) return "shown in /proc";
    if (!isHiddenFromUs) return "shown in /proc to us, hidden from other users";
    throw new Error(`/proc hides them: hidepid=${mode} or ProtectProc= (${SHOW_PROCESSES})`);
  }],
];

/** The inode of the initial user namespace: PROC_USER_INIT_INO, <linux/proc_ns.h>. */
const INITIAL_USER_NAMESPACE = 0xeffffffd;

/** Whether we may read processes of other users: ptrace(2), PTRACE_MODE_READ_FSCREDS. */
function canTrace({ process: { facts: { capabilities } } }: Peer): boolean {
  return capabilities.state === "known" && capabilities.value.effective.includes("CAP_SYS_PTRACE");
}

/** The processes that we may read, as text. */
function scopeOf(self: Peer): string {
  if (!canTrace(self)) return "of our own user; those of other users require CAP_SYS_PTRACE";
  const { namespaces } = self.process.facts;
  const isInitial = namespaces.state === "known" &&
    namespaces.value.user.id === INITIAL_USER_NAMESPACE;
  return isInitial ? "of all users" : "of processes in our user namespace";
}

/** Runs the command. Exit code 1: something does not work; 2: nothing works. */
export async function doctor({ json }: { readonly json?: boolean }): Promise<ExitCode> {
  const folder = orError(() => mkdtempSync(join(tmpdir(), "ucred-")));
  try {
    const found = await testAll(folder);
    const { name, os, cpu } = host();
    const kernel = orError(release);
    const shown = kernel instanceof Error ? "?" : kernel;
    if (json) printJson({ runtime: name, os, cpu, kernel: shown, capabilities: found });
    else {
      print(paint("bold", `${name}, ${os} ${shown}, ${cpu}`));
      const rows = found.map(({ name, ok, detail, effect }, at) => {
        const isKnown = found.slice(0, at).some((before) => !before.ok && before.detail === detail);
        return [
          ok ? paint("green", "yes") : paint("red", "no "),
          name,
          printable(ok ? detail : `${isKnown ? "(same cause)" : `${detail}.`} Effect: ${effect}`),
        ];
      });
      for (const line of columns(rows)) print(line);
    }
    return found[0]?.ok !== true ? 2 : found.every(({ ok }) => ok) ? 0 : 1;
  } finally {
    if (!(folder instanceof Error)) rmSync(folder, { recursive: true, force: true });
  }
}

/** @param folder A folder for sockets, or the error that prevented its creation. */
async function testAll(folder: string | Error): Promise<readonly Capability[]> {
  const pathOf = (name: string) => {
    if (folder instanceof Error) throw folder;
    return join(folder, name);
  };
  const capabilities: Capability[] = [];
  const self = (test: (self: Peer | Error) => void) =>
    folder instanceof Error ? test(folder) : withSelf(pathOf("self"), test);
  await self((self) => {
    for (const [name, effect, detail] of TESTS) {
      capabilities.push(outcome(name, effect, () => {
        if (self instanceof Error) throw self;
        return detail(self);
      }));
    }
    capabilities.push(
      outcome("list of sockets", "ucred inspect does not show who is connected", () => {
        if (self instanceof Error) throw self;
        const { connections } = socketsAt(lstatSync(pathOf("self"), { bigint: true }));
        if (connections.length === 0) throw new Error("our own connection is not listed");
        return "from sock_diag";
      }),
    );
  });
  for (const name of ["node:http", "deno"] as const) {
    if (name === "deno" && host().runtime !== "deno") continue;
    const title = name === "deno" ? "HTTP by Deno's own engine" : "HTTP by node:http";
    const effect = name === "deno"
      ? "about half as many requests per second"
      : "no server of ucred/http";
    try {
      const { uid, engine } = await ownUidByHttp(pathOf("http"), name);
      capabilities.push(outcome(title, effect, () => `identifies uid ${uid}, engine ${engine}`));
    } catch (error) {
      capabilities.push(outcome(title, effect, () => {
        throw error;
      }));
    }
  }
  return capabilities;
}

function outcome(name: string, effect: string, detail: () => string): Capability {
  try {
    return { name, ok: true, detail: detail(), effect };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const hint = error instanceof UcredError ? ` (${error.hint})` : "";
    return { name, ok: false, detail: `${error.message}${hint}`, effect };
  }
}

function knownDetail<T>(fact: Fact<T>, detail: (value: T) => string): string {
  if (fact.state === "unknown") throw fact.reason;
  if (fact.state === "known") return detail(fact.value);
  throw new Error("it does not exist");
}

/** Opens a connection to this process, and passes its peer to `test`, or the error that prevented it. */
function withSelf(path: string, test: (self: Peer | Error) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const client = new Socket();
    const end = (self: Peer | Error) => {
      try {
        test(self);
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
    // Deno throws some errors that other runtimes emit.
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

/** Serves HTTP, and returns the uid that the server found for our own request. */
async function ownUidByHttp(path: string, engine: "node:http" | "deno") {
  const server = await serve({
    path,
    engine,
    fetch: (_, { peer }) => new Response(String(peer.uid)),
  });
  const client = createClient({ path, expect: { uid: ownUid() } });
  try {
    const response = await client.fetch("http://localhost/");
    const uid = await response.text();
    if (response.status !== 200) throw new Error(`the response has status ${response.status}`);
    return { uid, engine: server.engine };
  } finally {
    client.close();
    await server.close({ timeout: 0 });
  }
}
