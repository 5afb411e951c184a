/**
 * `npm run demo`: starts a server on a Unix socket on each runtime, and clients of several users. It
 * prints the kernel's reports about each client, and compares them with the client's own ids.
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
import type { ClientReport, Ready, Received } from "./client.ts";
import { type Account, type Client, nameOf, type Scenario, scenarios } from "./scenarios.ts";
import { table } from "./table.ts";

const HELP = `Usage: npm run demo [-- OPTION...]

Starts a server on Deno, Bun and Node, connects to it, and prints the kernel's report about each
client. As root, the clients are processes of several users; otherwise all are your own.

  --runtime NAME  run on deno, bun or node; may be repeated (default: all three)
  --json          print one JSON document instead of text
  --help          print this text

Exit code: 0 if all reports are correct, 1 if not, 2 for wrong options.
`;

/** The line that server.ts prints for a connection. */
interface ServerReport {
  readonly peer: PeerJSON;
  readonly allowed: boolean;
  readonly reason?: string;
  readonly error?: string;
}

/** A row of the table. */
interface Connection extends ServerReport {
  readonly title: string;
  readonly client: ClientReport;
  /** The program of the client process, if it can be read. */
  readonly exe?: string;
  /** The differences between the reports of server and client. */
  readonly mismatches: readonly string[];
}

/** The result on one runtime. */
interface Report {
  readonly runtime: string;
  version?: string;
  error?: string;
  readonly connections: Connection[];
  /** Clients that could not be started, with the reasons. */
  readonly skipped: string[];
}

const RUNTIMES = { deno: "Deno", bun: "Bun", node: "Node" } as const;
type Runtime = keyof typeof RUNTIMES;

const serverScript = join(import.meta.dirname, "server.ts");
const clientScript = join(import.meta.dirname, "client.ts");

/** The command that starts server.ts, on Deno with only the permissions that it needs. */
function serverCommand(runtime: Runtime, path: string): [string, ...string[]] {
  if (runtime === "bun") return ["bun", serverScript];
  if (runtime === "node") return ["node", "--disable-warning=ExperimentalWarning", serverScript];
  const libraries = abiOf(process.platform, process.arch)?.libraryPaths ?? [];
  // On macOS the C library is not a file on disk.
  const library = libraries.find((path) => existsSync(path)) ?? libraries[0];
  const socket = [`--allow-net=unix:${path}`, `--allow-read=${path}`, `--allow-write=${path}`];
  return ["deno", "run", "--no-prompt", `--allow-ffi=${library}`, ...socket, serverScript];
}

/** Runs a server and its clients. They connect one after the other. */
async function run(
  runtime: Runtime,
  { allowed, clients }: Scenario,
  path: string,
  report: Report,
): Promise<void> {
  const command = serverCommand(runtime, path);
  const server = new Child(RUNTIMES[runtime], [...command, path, `${allowed.uid}`]);
  const started = clients.map((client) => {
    const become = client.become ? ["--become", JSON.stringify(client.become)] : [];
    const late = client.late ? ["--late"] : [];
    const command = ["node", clientScript, ...become, ...late, path] as const;
    return { client, child: new Child("The client", command) };
  });
  report.version = (await server.line<{ version: string }>()).version;

  const errors = new Map<Account | undefined, string>();
  for (const { client, child } of started) {
    const { error } = await child.line<Ready>();
    if (error !== undefined) errors.set(client.become, error);
    const why = errors.get(client.become);
    if (why !== undefined) {
      report.skipped.push(`${client.title}: ${why}`);
      continue;
    }
    // A stopped server cannot identify the client before it has changed its user. The kernel
    // completes the connection without the server.
    if (client.late) server.signal("SIGSTOP");
    child.wake();
    const clientReport = await child.line<ClientReport>();
    if (client.late) server.signal("SIGCONT");
    const serverReport = await server.line<ServerReport>();
    if (serverReport.error !== undefined) throw new Error(serverReport.error);
    const { response } = await child.line<Received>();
    report.connections.push({
      title: client.title,
      client: clientReport,
      ...serverReport,
      ...exeOf(clientReport.pid),
      mismatches: mismatches(serverReport, response, clientReport, client, allowed),
    });
  }
  await Promise.all([server, ...started.map(({ child }) => child)].map((child) => child.end()));
}

/** Reads the link here, so that the server needs no permission for /proc. macOS has no /proc. */
function exeOf(pid: number): { exe?: string } {
  try {
    return { exe: readlinkSync(`/proc/${pid}/exe`) };
  } catch {
    return {};
  }
}

/** Compares the server's report and decision with the client's report and the expected decision. */
function mismatches(
  { peer, allowed }: ServerReport,
  response: string,
  { pid, atConnect }: ClientReport,
  { account }: Client,
  allowedUser: Account,
): readonly string[] {
  const isCertain = !peer.ambiguous?.includes("uid");
  const isAllowed = isCertain && (atConnect.uid === 0 || atConnect.uid === allowedUser.uid);
  const claims: [what: string, found: unknown, expected: unknown][] = [
    ["pid", peer.pid, pid],
    ["uid", peer.uid, atConnect.uid],
    ["uid", peer.uid, account.uid],
    ["gid", peer.gid, atConnect.gid],
    ["user", peer.user, isCertain ? account.name : undefined],
    ["decision", allowed, isAllowed],
    ["response", response, isAllowed ? "welcome" : "no"],
  ];
  if (process.platform === "darwin") {
    // The kernel keeps 16 groups. getgroups(2) returns more, from the directory service.
    const unknown = peer.groups?.filter((gid) => !atConnect.groups.includes(gid)) ?? [];
    claims.push(["groups that the client lacks", unknown, []]);
  } else {
    claims.push(["groups", peer.groups, atConnect.groups]);
    claims.push(["groups", peer.groups, account.groups]);
  }
  return claims.filter(([, found, expected]) => !isDeepStrictEqual(found, expected))
    .map(([what, found, expected]) => `${what}: ${show(found)}, expected ${show(expected)}`);
}

function show(value: unknown): string {
  return value === undefined ? "none" : JSON.stringify(value);
}

/** Creates a folder that every user can enter: root's demo has clients of other users. */
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

function introduction(list: readonly Scenario[]): string {
  const count = list.reduce((sum, { clients }) => sum + clients.length, 0);
  const [first, second] = list.map(({ allowed }) => `root and ${nameOf(allowed)}`);
  const rules = second === undefined
    ? `The server accepts ${first}.`
    : `One server accepts ${first}, the other ${second}.\nRun the demo as root to see clients of other users.`;
  return `${count} processes connect to a Unix socket. They send no name, no password and no token.
ucred reads the credentials of each from the kernel. ${rules}\n`;
}

function describe({ runtime, version, error, connections, skipped }: Report): string {
  const rows = connections.map(({ title, peer, exe, reason }) => {
    const { uid, pid, user, groups, groupNames } = peer;
    return [
      title,
      `${pid ?? "?"}`,
      user === undefined ? `${uid}` : `${user} (${uid})`,
      groups?.map((gid, index) => groupNames?.[index] ?? gid).join(" ") ?? "?",
      reason === undefined ? "no" : `yes, ${reason}`,
      exe ?? "-",
    ];
  });
  const head = ["client", "pid", "user (uid)", "groups", "accepted?", "program"];
  const lines = table([head, ...rows], (cell, y, x) => {
    if (y === 0) return styleText("bold", cell);
    if (x === 4) return styleText(connections[y - 1]!.allowed ? "green" : "red", cell);
    return x === 5 ? styleText("dim", cell) : cell;
  });
  const wrong = connections.flatMap(({ title, mismatches }) =>
    mismatches.map((mismatch) => styleText("red", `  WRONG for "${title}": ${mismatch}`))
  );
  return [
    styleText(["bold", "cyan"], `${runtime} ${version ?? ""}`.trim()),
    ...(rows.length > 0 ? [lines] : []),
    ...wrong,
    ...skipped.map((why) => `  Skipped: ${why}`),
    ...(error === undefined
      ? []
      : [styleText("red", `  FAILED: ${error.replaceAll("\n", "\n  ")}`)]),
    "",
  ].join("\n");
}

function isCorrect({ error, connections }: Report): boolean {
  return error === undefined && connections.length > 0 &&
    connections.every(({ mismatches }) => mismatches.length === 0);
}

function summary(reports: readonly Report[]): string {
  const connections = reports.flatMap(({ connections }) => connections);
  const correct = connections.filter(({ mismatches }) => mismatches.length === 0).length;
  const failed = reports.filter(({ error }) => error !== undefined).map(({ runtime }) => runtime);
  const note = connections.some(({ client }) => client.atConnect.uid !== client.now.uid)
    ? "* This process connected as root and then changed its user. The kernel reports the user that connected.\n\n"
    : "";
  const result = `${correct} of ${connections.length} reports match the client's own ids` +
    (failed.length > 0 ? `; ${failed.join(" and ")} failed.` : ".");
  return note + styleText(reports.every(isCorrect) ? "green" : "red", result);
}

/** Parses the command line. Prints the help and ends the program if it is wrong. */
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
process.stdout.on("error", () => process.exit(1)); // the reader, for example a pager, was closed
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => process.exit(128 + constants.signals[signal]));
}
const folder = socketFolder();
const list = scenarios();
if (!json) console.log(introduction(list));

const reports: Report[] = [];
for (const runtime of runtimes) {
  const report: Report = { runtime: RUNTIMES[runtime], connections: [], skipped: [] };
  try {
    for (const [index, scenario] of list.entries()) {
      await run(runtime, scenario, join(folder, `${runtime}${index}`), report);
    }
  } catch (error) {
    report.error = error instanceof Error ? error.message : String(error);
    killChildren();
  }
  reports.push(report);
  if (!json) console.log(describe(report));
}
const ok = reports.every(isCorrect);
console.log(json ? JSON.stringify({ ok, runtimes: reports }, undefined, 2) : summary(reports));
process.exitCode = ok ? 0 : 1;
