/** The needs of tests. A test is skipped, with the reason, if the machine does not meet its needs. */

import { execFileSync } from "node:child_process";
import { release } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { afterEach, test } from "node:test";
import { host } from "../../adapters/host.ts";

/** A feature that some machines or runtimes lack. */
export interface Need {
  readonly name: string;
  readonly met: boolean;
}

/** Defines a need that is checked when a test needs it. Most test files need few of those that start a program. */
export function need(name: string, check: () => boolean): Need {
  let met: boolean | undefined;
  return {
    name,
    get met() {
      return met ??= check();
    },
  };
}

const on = host();

/** The runtime that this suite runs on. */
export const runtime = on.runtime!;

/** Whether the suite runs on another CPU's build of the runtime, under user-mode emulation. */
export const emulated = process.env["UCRED_EMULATED"] !== undefined;

/** Whether this is `npm run test:soak`, which runs long tests at full length. */
const soaking = process.env["UCRED_SOAK"] !== undefined;

/** Whether this is `npm run mutation`, which runs each test many times. */
const mutating = process.env["UCRED_MUTATION"] !== undefined;

/** Selects a size or count: the short one in each run of the suite, the full one in `npm run test:soak`. */
export function soak(short: number, full: number): number {
  return soaking ? full : short;
}

/**
 * Returns how many random cases to try. Pure code behaves alike on each runtime: `npm test` tries all cases
 * on Node and a tenth on Deno and Bun, `npm run test:soak` tries all of them everywhere, and `npm run mutation` a
 * tenth.
 */
export function cases(count: number): number {
  return soaking || (runtime === "node" && !mutating) ? count : Math.ceil(count / 10);
}

/**
 * Selects rows of a table for code that behaves alike on each runtime: all of them on Node and in
 * `npm run test:soak`, and otherwise every fourth one on Deno, and every fourth one of the others on Bun.
 * Each runtime has at least one row.
 */
export function sample<T>(rows: readonly T[]): readonly T[] {
  const first = { node: 0, deno: 0, bun: 2 }[runtime] % rows.length;
  return soaking || runtime === "node" ? rows : rows.filter((_, index) => index % 4 === first);
}

/** Returns whether a command can be run, and ends with 0. */
export function succeeds(command: string, ...args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** A user without privileges. */
export const STRANGER = 4321;

function strangerCan(...test: readonly string[]): boolean {
  const ids = [`--reuid=${STRANGER}`, `--regid=${STRANGER}`, "--clear-groups"];
  return process.getuid?.() === 0 && succeeds("setpriv", ...ids, "test", ...test);
}

/** Whether the kernel is Linux 6.`least` or later, and the suite is not emulated. */
function hasLinux6(least: number): boolean {
  const [major = 0, minor = 0] = release().split(".").map(Number);
  return on.os === "linux" && !emulated && (major > 6 || (major === 6 && minor >= least));
}

/** Whether this is Node 26.1 or later. On older versions ucred calls libc through koffi. */
const hasNodeFfi = process.getBuiltinModule("node:ffi") !== undefined;

/** All needs of tests. This is the only list of features that runtimes lack. */
export const needs = {
  linux: { name: "Linux", met: on.os === "linux" },
  peerPidfd: { name: "SO_PEERPIDFD: Linux 6.5, not emulated", met: hasLinux6(5) },
  passRights: { name: "SO_PASSRIGHTS: Linux 6.16, not emulated", met: hasLinux6(16) },
  macos: { name: "macOS", met: on.os === "darwin" },
  hiddenDescriptors: { name: "a runtime that hides descriptors", met: runtime !== "node" },
  http2: { name: "Node or Bun: Deno's HTTP/2 can end the process", met: runtime !== "deno" },
  root: { name: "root", met: process.getuid?.() === 0 },
  /** Tests that run this checkout as another user. */
  strangers: need(
    "root, setpriv, and a checkout that other users can read",
    () => strangerCan("-r", fileURLToPath(import.meta.url)) && strangerCan("-x", process.execPath),
  ),
  cc: need("a C compiler", () => succeeds("cc", "--version")),
  pidNamespace: need(
    "leave to make pid namespaces",
    () => succeeds("unshare", "-fp", "true"),
  ),
  userNamespace: need(
    "leave to make user namespaces",
    () => succeeds("unshare", "-U", "true"),
  ),
  mountNamespace: need(
    "leave to mount /proc in a mount namespace",
    () => succeeds("unshare", "--mount", "mount", "-t", "proc", "proc", "/proc"),
  ),
  systemdNotify: need(
    "systemd-notify (Debian: systemd)",
    () => succeeds("systemd-notify", "--version"),
  ),
  socketActivate: need(
    "systemd-socket-activate (Debian: systemd)",
    () => succeeds("systemd-socket-activate", "--version"),
  ),
  openssl: need("openssl", () => succeeds("openssl", "version")),
  logger: need("logger (Debian: bsdutils)", () => succeeds("logger", "--version")),
  deno: { name: "Deno", met: runtime === "deno" },
  bun: { name: "Bun", met: runtime === "bun" },
  node: { name: "Node", met: runtime === "node" },
  nodeFfi: { name: "Node with node:ffi", met: runtime === "node" && hasNodeFfi },
  koffi: { name: "Node without node:ffi", met: runtime === "node" && !hasNodeFfi },
  soak: { name: "npm run test:soak", met: soaking },
  /** Tests of code that behaves alike on each runtime. `npm test` runs them on one runtime. */
  oneRuntime: {
    name: "Node or npm run test:soak: the result does not depend on the runtime",
    met: soaking || runtime === "node",
  },
  failedWrites: {
    name: "Deno or Node: Bun 1.4.5 also emits the error of a failed write",
    met: runtime !== "bun",
  },
  denoOrNode: { name: "Deno or Node: Bun's http hides the descriptor", met: runtime !== "bun" },
  native: {
    name: "no emulation: qemu-user passes on one group at most, and libc is not at its own path",
    met: !emulated,
  },
} as const satisfies { [key: string]: Need };

const endings = new Set<() => void | Promise<void>>();

/**
 * Cleans up after each test. afterEach() alone would not do: Bun shares modules among test files,
 * and runs the hooks of one for the first file that imports it.
 */
export function endAfterEach(end: () => void | Promise<void>): void {
  endings.add(end);
  afterEach(end);
}

/** Defines a test that is skipped if a need is not met; its name then has the reason. */
export function testWith(
  list: readonly Need[],
  name: string,
  run: () => void | Promise<void>,
): void {
  const unmet = list.find((need) => !need.met);
  if (unmet === undefined) {
    test(name, async () => {
      try {
        await run();
      } finally {
        for (const end of endings) await end();
      }
    });
  } else test(`${name} [skipped: needs ${unmet.name}]`, { skip: `needs ${unmet.name}` }, () => {});
}

/** Returns the command that starts a script on the runtime under test, with its flags. */
export function runtimeCommand(flags?: readonly string[]): [command: string, ...args: string[]] {
  // An emulated build cannot be started by its own path: PATH has a script that starts it.
  const command = emulated ? runtime : process.execPath;
  if (runtime === "deno") return [command, "run", "--no-prompt", ...(flags ?? ["-A"])];
  if (runtime === "bun") return [command, ...(flags ?? [])];
  return [command, "--disable-warning=ExperimentalWarning", ...(flags ?? [])];
}

/** Waits until a condition returns a truthy value. Fails after a minute. */
export async function until(condition: () => unknown): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!await condition()) {
    if (performance.now() > deadline) throw new Error(`after a minute, not yet: ${condition}`);
    await sleep(5);
  }
}
