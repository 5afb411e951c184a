/** The servers' benchmark: `npm run bench:servers`. Conducts the servers and their clients. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, machine, release, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface, type Interface } from "node:readline";
import { parseArgs } from "node:util";
import { spread } from "../result.ts";
import { markdown, text } from "./report.ts";
import { type Pair, PAIRS, type Result, type Rival, RIVALS, type Sample } from "./result.ts";

const HELP = `Usage: npm run bench:servers -- [options]

Requests and connections per second of each kind of server with identity and policy, beside the same
server without, on Deno, Bun and Node; and the CPU time that the server takes for each, beside a JSON
web token for each request and mutual TLS. Needs Linux, cc and openssl. Takes about five minutes.

  --quick         few and short rounds, for a first impression
  --only TEXT     only what has this in its name; may be given again
  --json          print everything as JSON, every round included (npm run --silent bench:servers …)
  --save          also write bench/servers/results.md
  --help          print this

Exits with 1 if an answer is wrong. Targets that are missed are only reported: they depend on the
machine.
`;

const CONNECTIONS = 32;

/** How each runtime starts a file. */
const COMMANDS: { readonly [runtime: string]: readonly string[] } = {
  Node: ["node", "--disable-warning=ExperimentalWarning"],
  Deno: ["deno", "run", "--allow-all", "--no-check"],
  Bun: ["bun"],
};

async function main(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: "boolean", default: false },
      only: { type: "string", multiple: true, default: [] },
      json: { type: "boolean", default: false },
      save: { type: "boolean", default: false },
      help: { type: "boolean", default: false, short: "h" },
    },
  });
  if (values.help) return void process.stdout.write(HELP);
  const folder = mkdtempSync(join(tmpdir(), "ucred-bench-"));
  process.once("exit", () => {
    for (const { child } of servers) child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => process.exit(1));
  }
  const { quick, only } = values;
  const isAsked = ({ name, runtime }: Pair | Rival) =>
    only.length === 0 || only.some((text) => `${runtime} ${name}`.includes(text));
  const [rounds, seconds] = quick ? [3, 0.3] : [11, 0.7];
  const flags = [quick ? "--quick" : [], values.save ? "--save" : []].flat();
  prepare(folder);
  const result: Result = {
    command: ["npm run bench:servers", ...(flags.length > 0 ? ["--"] : []), ...flags].join(" "),
    date: new Date().toISOString().slice(0, 10),
    machine: `${cpus()[0]?.model}, ${cpus().length} cores, Linux ${
      /^[\d.]+/.exec(release())?.[0]
    } ${machine()}`,
    versions: Object.entries(COMMANDS).map(([name, [command]]) =>
      `${name} ${/\d+\.\d+\.\d+/.exec(execFileSync(command!, ["--version"], { encoding: "utf8" }))}`
    ),
    rounds,
    seconds,
    connections: CONNECTIONS,
    pairs: await inTurn(
      PAIRS.filter(isAsked),
      (pair) => comparePair(folder, pair, rounds, seconds),
    ),
    rivals: await inTurn(RIVALS.filter(isAsked), (rival) => measureRival(folder, rival, rounds)),
  };
  if (values.save) writeFileSync(new URL("results.md", import.meta.url), markdown(result));
  process.stdout.write(values.json ? `${JSON.stringify(result, null, 2)}\n` : text(result));
}

async function inTurn<T, R>(all: readonly T[], run: (each: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (const each of all) results.push(await run(each));
  return results;
}

function prepare(folder: string): void {
  const source = new URL("load.c", import.meta.url).pathname;
  execFileSync("cc", ["-O2", "-o", join(folder, "load"), source]);
  writeFileSync(join(folder, "secret"), crypto.getRandomValues(new Uint8Array(32)));
  const openssl = (...args: string[]) =>
    execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"];
  openssl("req", "-x509", ...newKey, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench");
  for (const side of ["server", "client"]) {
    openssl(
      ...["req", "-x509", ...newKey, "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=localhost"],
      ...["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"],
      ...["-keyout", `${side}.key`, "-out", `${side}.pem`],
    );
  }
}

/** A process that answers a line with a line. */
class Helper {
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(command: readonly string[]) {
    this.child = spawn(command[0]!, command.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
    const lines: Interface = createInterface({ input: this.child.stdout! });
    this.#lines = lines[Symbol.asyncIterator]();
    servers.add(this);
  }

  async line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${this.child.spawnargs.join(" ")} has ended`);
    return value;
  }

  ask(question = ""): Promise<string> {
    this.child.stdin!.write(`${question}\n`);
    return this.line();
  }

  async end(): Promise<void> {
    servers.delete(this);
    const ended = once(this.child, "exit");
    this.child.stdin!.end();
    await ended;
  }
}

const servers = new Set<Helper>();
/** How many paths were used. */
let sockets = 0;

async function startServer(runtime: string, kind: string, where: string) {
  const file = new URL("server.ts", import.meta.url).pathname;
  const server = new Helper([...COMMANDS[runtime]!, file, kind, where]);
  let port = 0;
  for (let line = await server.line(); line !== "ready"; line = await server.line()) {
    port = Number(line); // of those that listen at one
  }
  return { server, port };
}

async function comparePair(folder: string, pair: Pair, rounds: number, seconds: number) {
  const { runtime, name, load } = pair;
  progress(`${runtime} ${name}`);
  const sides = await inTurn([pair.plain, pair.ours], async (kind) => {
    const path = join(folder, `${++sockets}.sock`);
    return { ...(await startServer(runtime, kind, path)), path, samples: [] as Sample[] };
  });
  const answers = new Set<string>();
  const measure = async ({ server, path }: typeof sides[0], length: number): Promise<Sample> => {
    const before = Number(await server.ask());
    const child = spawn(join(folder, "load"), [load, path, `${CONNECTIONS}`, `${length}`], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => output += text);
    const [code] = await once(child, "close");
    if (code !== 0) throw new Error(`${runtime}, ${name}: the client has failed`);
    const { answers: count, seconds, p50, p99, answer } = JSON.parse(output);
    answers.add(answer);
    if (count === 0) throw new Error(`${runtime}, ${name}: no answer`);
    const cpu = (Number(await server.ask()) - before) / count;
    return { perSecond: count / seconds, cpu, p50, p99 };
  };
  for (const side of sides) await measure(side, 3 * seconds); // compilers settle
  for (let round = 0; round < rounds; round++) {
    const turn = round % 2 === 0 ? sides : sides.toReversed();
    for (const side of turn) side.samples.push(await measure(side, seconds));
  }
  for (const { server } of sides) await server.end();
  if (answers.size !== 1) throw new Error(`${runtime}, ${name}: answers differ: ${[...answers]}`);
  const [plain, ours] = sides.map(({ samples }) => samples) as [Sample[], Sample[]];
  const ratio = spread(ours.map(({ perSecond }, round) => perSecond / plain[round]!.perSecond));
  return {
    ...pair,
    plainSamples: plain,
    oursSamples: ours,
    ratio,
    isMet: ratio.median >= pair.atLeast,
  };
}

async function measureRival(folder: string, rival: Rival, rounds: number) {
  const { runtime, kinds, name, connection, atOnce } = rival;
  progress(`${runtime} ${name}`);
  const client = new Helper([
    ...COMMANDS["Node"]!,
    new URL("client.ts", import.meta.url).pathname,
    folder,
  ]);
  const sides = await inTurn(kinds, async (kind) => {
    const isOurs = kind === "ucred/http";
    const path = join(folder, `${++sockets}.sock`);
    const { server, port } = await startServer(runtime, kind, isOurs ? path : folder);
    return { kind, server, where: isOurs ? path : port, cpu: [] as number[] };
  });
  const measure = async ({ kind, server, where }: typeof sides[0], count: number) => {
    const before = Number(await server.ask());
    const question = JSON.stringify({ kind, where, connection, count, atOnce: CONNECTIONS });
    const answer = await client.ask(question);
    if (answer !== "ok") throw new Error(`${runtime}, ${kind}: ${answer}`);
    return (Number(await server.ask()) - before) / count;
  };
  for (const side of sides) await measure(side, 4 * atOnce);
  for (let round = 0; round < rounds; round++) {
    const next = round % sides.length;
    for (const side of [...sides.slice(next), ...sides.slice(0, next)]) {
      side.cpu.push(await measure(side, atOnce));
    }
  }
  for (const { server } of sides) await server.end();
  await client.end();
  const rows = sides.map(({ kind, cpu }) => ({ kind, samples: cpu, cpu: spread(cpu) }));
  const [ours, ...others] = rows;
  const isMet = others.every(({ cpu }) => ours!.cpu.median < cpu.median);
  return { ...rival, rows, isMet };
}

/** On standard error, so that what is printed is the result alone. */
function progress(now: string): void {
  process.stderr.write(`${now}\n`);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = (error as { code?: string }).code?.startsWith("ERR_PARSE_ARGS") ? 2 : 1;
}
process.exit();
