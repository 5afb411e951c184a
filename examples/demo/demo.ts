/**
 * `npm run demo`: on each runtime in turn, a server on a Unix socket is told by the kernel who
 * connects; the demo starts those who connect, prints what the server was told, and checks it.
 */

import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
} from "node:fs";
import { constants, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { isDeepStrictEqual, parseArgs, styleText } from "node:util";
import { abiOf } from "../../ffi/abi.ts";
import type { PeerJSON } from "../../mod.ts";
import { Child, killChildren } from "./children.ts";
import type { Answer, Ready, Said } from "./client.ts";
import { type Account, nameOf, type Scene, scenes, type Visitor } from "./scenes.ts";
import { table } from "./table.ts";

const HELP = `Usage: npm run demo [-- OPTION...]

Shows who connects to a Unix socket, as the kernel tells the server, on Deno, Bun and Node.
As root, processes of several users connect; otherwise your own.

  --runtime NAME  deno, bun or node; may be given again (default: all three)
  --json          print everything as one JSON document
  --help          show this text

Exit code: 0 if every runtime answered and every answer was true, 1 if not, 2 for wrong options.
`;

/** What server.ts prints of a connection. */
interface Seen {
  readonly peer: PeerJSON;
  readonly allowed: boolean;
  readonly reason?: string;
  readonly error?: string;
}

/** A row of the table. */
interface Connection extends Seen {
  readonly visitor: string;
  readonly said: Said;
  /** The program that the process runs, where that can be read. */
  readonly exe?: string;
  /** What of the server's answer is not so. */
  readonly wrong: readonly string[];
}

/** What happened on one runtime. */
interface Report {
  readonly runtime: string;
  version?: string;
  error?: string;
  readonly connections: Connection[];
  /** Visitors who could not be, and why. */
  readonly leftOut: string[];
}

const RUNTIMES = { deno: "Deno", bun: "Bun", node: "Node" } as const;
type Runtime = keyof typeof RUNTIMES;

const server = join(import.meta.dirname, "server.ts");
const client = join(import.meta.dirname, "client.ts");

/** Starts server.ts on `runtime`, with as few permissions as a server of this kind needs. */
function serverCommand(runtime: Runtime, path: string): [string, ...string[]] {
  if (runtime === "bun") return ["bun", server];
  if (runtime === "node") return ["node", "--disable-warning=ExperimentalWarning", server];
  const libraries = abiOf(process.platform, process.arch)?.libraryPaths ?? [];
  // On macOS the C library is no file on disk.
  const library = libraries.find((path) => existsSync(path)) ?? libraries[0];
  const socket = [`--allow-net=unix:${path}`, `--allow-read=${path}`, `--allow-write=${path}`];
  return ["deno", "run", "--no-prompt", `--allow-ffi=${library}`, ...socket, server];
}

/** Starts a server and its visitors, and brings them together one by one. */
async function play(runtime: Runtime, scene: Scene, path: string, report: Report): Promise<void> {
  const command = serverCommand(runtime, path);
  const host = new Child(RUNTIMES[runtime], [...command, path, `${scene.allowed.uid}`]);
  const visits = scene.visitors.map((visitor) => {
    const become = visitor.become ? ["--become", JSON.stringify(visitor.become)] : [];
    const late = visitor.late ? ["--late"] : [];
    return { visitor, guest: new Child("The client", ["node", client, ...become, ...late, path]) };
  });
  report.version = (await host.line<{ version: string }>()).version;

  const impossible = new Map<Account | undefined, string>();
  for (const { visitor, guest } of visits) {
    const { impossible: reason } = await guest.line<Ready>();
    if (reason !== undefined) impossible.set(visitor.become, reason);
    const why = impossible.get(visitor.become);
    if (why !== undefined) {
      report.leftOut.push(`${visitor.title}: ${why}`);
      continue;
    }
    // Hold the server, so that the visitor has certainly changed before it is looked at: the kernel
    // accepts the connection all the same.
    if (visitor.late) host.signal("SIGSTOP");
    guest.wake();
    const said = await guest.line<Said>();
    if (visitor.late) host.signal("SIGCONT");
    const seen = await host.line<Seen>();
    if (seen.error !== undefined) throw new Error(seen.error);
    const { answer } = await guest.line<Answer>();
    report.connections.push({
      visitor: visitor.title,
      said,
      ...seen,
      ...exeOf(said.pid),
      wrong: falsehoods(seen, answer, said, visitor, scene.allowed),
    });
  }
  await Promise.all([host, ...visits.map(({ guest }) => guest)].map((child) => child.end()));
}

/** Read here, not in the server, which then needs no permission for /proc. macOS has none. */
function exeOf(pid: number): { exe?: string } {
  try {
    return { exe: readlinkSync(`/proc/${pid}/exe`) };
  } catch {
    return {};
  }
}

/** Compares what the server was told, and did, with what the visitor says and should have met. */
function falsehoods(
  { peer, allowed }: Seen,
  answer: string,
  { pid, then }: Said,
  { account }: Visitor,
  host: Account,
): readonly string[] {
  const isProven = !peer.ambiguous?.includes("uid");
  const isAllowed = isProven && (then.uid === 0 || then.uid === host.uid);
  const claims: [what: string, told: unknown, so: unknown][] = [
    ["pid", peer.pid, pid],
    ["uid", peer.uid, then.uid],
    ["uid", peer.uid, account.uid],
    ["gid", peer.gid, then.gid],
    ["user", peer.user, isProven ? account.name : undefined],
    ["decision", allowed, isAllowed],
    ["answer", answer, isAllowed ? "welcome" : "no"],
  ];
  if (process.platform === "darwin") {
    // The kernel keeps 16 groups; getgroups(2) tells more, asking the directory.
    const strange = peer.groups?.filter((gid) => !then.groups.includes(gid)) ?? [];
    claims.push(["groups not its own", strange, []]);
  } else claims.push(["groups", peer.groups, then.groups], ["groups", peer.groups, account.groups]);
  return claims.filter(([, told, so]) => !isDeepStrictEqual(told, so))
    .map(([what, told, so]) => `${what}: ${show(told)}, but it is ${show(so)}`);
}

function show(value: unknown): string {
  return value === undefined ? "none" : JSON.stringify(value);
}

/** A new folder that everyone may enter: as root, users other than our own are to get through. */
function socketFolder(): string {
  const isOpen = (path: string): boolean =>
    (statSync(path).mode & 0o001) !== 0 && (path === "/" || isOpen(dirname(path)));
  let parent = realpathSync(tmpdir());
  if (process.geteuid!() === 0 && !isOpen(parent)) parent = realpathSync("/tmp");
  const folder = mkdtempSync(join(parent, "ucred-demo-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));
  chmodSync(folder, 0o755);
  return folder;
}

function introduce(list: readonly Scene[]): string {
  const count = list.reduce((sum, { visitors }) => sum + visitors.length, 0);
  const [first, second] = list.map(({ allowed }) => `root and ${nameOf(allowed)}`);
  const rules = second === undefined
    ? `the server lets in ${first}, nobody else.`
    : `one server lets in ${first}, another ${second}.\nStart this as root to see processes of other users.`;
  return `${count} processes connect to a Unix socket. They send no name, no password, no token: ucred asks the
kernel who each one is, and ${rules}\n`;
}

function describe({ runtime, version, error, connections, leftOut }: Report): string {
  const rows = connections.map(({ visitor, peer, exe, reason }) => {
    const { uid, pid, user, groups, groupNames } = peer;
    return [
      visitor,
      `${pid ?? "?"}`,
      user === undefined ? `${uid}` : `${user} (${uid})`,
      groups?.map((gid, index) => groupNames?.[index] ?? gid).join(" ") ?? "?",
      reason === undefined ? "no" : `yes, ${reason}`,
      exe ?? "-",
    ];
  });
  const head = ["who connects", "pid", "user (uid)", "groups", "let in?", "program"];
  const lines = table([head, ...rows], (cell, y, x) => {
    if (y === 0) return styleText("bold", cell);
    if (x === 4) return styleText(connections[y - 1]!.allowed ? "green" : "red", cell);
    return x === 5 ? styleText("dim", cell) : cell;
  });
  const wrong = connections.flatMap(({ visitor, wrong }) =>
    wrong.map((claim) => styleText("red", `  FALSE of "${visitor}": ${claim}`))
  );
  return [
    styleText(["bold", "cyan"], `${runtime} ${version ?? ""}`.trim()),
    ...(rows.length > 0 ? [lines] : []),
    ...wrong,
    ...leftOut.map((why) => `  Left out: ${why}`),
    ...(error === undefined
      ? []
      : [styleText("red", `  FAILED: ${error.replaceAll("\n", "\n  ")}`)]),
    "",
  ].join("\n");
}

function isTrue({ error, connections }: Report): boolean {
  return error === undefined && connections.length > 0 &&
    connections.every(({ wrong }) => wrong.length === 0);
}

function summarize(reports: readonly Report[]): string {
  const connections = reports.flatMap(({ connections }) => connections);
  const right = connections.filter(({ wrong }) => wrong.length === 0).length;
  const failed = reports.filter(({ error }) => error !== undefined).map(({ runtime }) => runtime);
  const note = connections.some(({ said }) => said.then.uid !== said.now.uid)
    ? "* Connected as root, then changed user before the server looked: the kernel tells who connected.\n\n"
    : "";
  const result =
    `${right} of ${connections.length} answers are what the processes say of themselves` +
    (failed.length > 0 ? `; ${failed.join(" and ")} failed.` : ".");
  return note + styleText(reports.every(isTrue) ? "green" : "red", result);
}

/** Reads the command line. What is wrong with it is told, and ends the program. */
function options(): { json: boolean; runtimes: readonly Runtime[] } {
  const all = Object.keys(RUNTIMES) as Runtime[];
  try {
    const { values } = parseArgs({
      options: {
        runtime: { type: "string", multiple: true, default: all },
        json: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    });
    if (values.help) {
      process.stdout.write(HELP);
      process.exit();
    }
    const unknown = values.runtime.find((name) => !Object.hasOwn(RUNTIMES, name));
    if (unknown !== undefined) throw new TypeError(`There is no runtime "${unknown}"`);
    return { json: values.json, runtimes: all.filter((name) => values.runtime.includes(name)) };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${HELP}`.trim());
    process.exit(2);
  }
}

const { json, runtimes } = options();
process.on("exit", killChildren);
process.stdout.on("error", () => process.exit(1)); // a pager was closed before the end
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => process.exit(128 + constants.signals[signal]));
}
const folder = socketFolder();
const list = scenes();
if (!json) console.log(introduce(list));

const reports: Report[] = [];
for (const runtime of runtimes) {
  const report: Report = { runtime: RUNTIMES[runtime], connections: [], leftOut: [] };
  try {
    for (const [index, scene] of list.entries()) {
      await play(runtime, scene, join(folder, `${runtime}${index}`), report);
    }
  } catch (error) {
    report.error = error instanceof Error ? error.message : String(error);
    killChildren();
  }
  reports.push(report);
  if (!json) console.log(describe(report));
}
const ok = reports.every(isTrue);
console.log(json ? JSON.stringify({ ok, runtimes: reports }, undefined, 2) : summarize(reports));
process.exitCode = ok ? 0 : 1;
