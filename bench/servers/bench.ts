/** `npm run bench:servers`: runs servers and clients, and prints their rates and CPU times. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  Helper,
  inTurn,
  type Options,
  type Prepared,
  prepareRuntimes,
  progress,
  run,
  runBenchmark,
  type Runtime,
  RUNTIMES,
  setting,
} from "../benchmark.ts";
import { spread } from "../result.ts";
import { NoResult, runRounds } from "../rounds.ts";
import { markdown, text } from "./report.ts";
import {
  type Pair,
  type PairResult,
  PAIRS,
  type Result,
  type Rival,
  type RivalResult,
  RIVALS,
  type Sample,
} from "./result.ts";

const HELP = `Usage: npm run bench:servers -- [options]

Compares servers with identity and policy to the same servers without ucred, and to servers that only
make one getsockopt() per connection, on Deno, Bun and Node: requests and connections per second.
Compares the CPU time of a server to those with a JSON web token per request, and with mutual TLS.
Needs Linux, cc and openssl. Takes about ten minutes.

  --quick  few and short rounds, for a first impression
  --json   print the result as JSON, with all rounds (npm run --silent bench:servers -- --json)
  --save   also write bench/servers/results.md
  --to X   with --save: write to the folder X instead
  --help   print this help

The exit code is 1 if an answer is wrong. Missed targets are only reported, because they depend on the
machine.
`;

const CONNECTIONS = 32;

/** The size of a run. */
interface Extent {
  /** Number of starts of each server. Two starts of the same server differ by up to 10 %. */
  readonly starts: number;
  /** Rounds per start. */
  readonly rounds: number;
  /** Duration of a round. It is short, so that the load of the machine hardly changes in it. */
  readonly seconds: number;
  /** Rounds of the comparison with the alternatives. */
  readonly rivalRounds: number;
  /** Requests per round: on kept connections, and with a new connection each. */
  readonly requests: { readonly kept: number; readonly new: number };
}

const FULL: Extent = {
  starts: 5,
  rounds: 7,
  seconds: 0.15,
  rivalRounds: 11,
  requests: { kept: 8000, new: 1000 },
};
const QUICK: Extent = {
  starts: 1,
  rounds: 1,
  seconds: 0.1,
  rivalRounds: 1,
  requests: { kept: 300, new: 100 },
};
/** After this number of rounds no compiler optimizes any further. */
const WARM_UP_ROUNDS = 4;

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url));

async function bench(options: Options, folder: string): Promise<Result> {
  const before = setting("bench:servers", options);
  const extent = options.quick ? QUICK : FULL;
  progress("Building");
  await run("cc", "-O2", "-o", join(folder, "load"), file("load.c"));
  const { prepared, absent } = await prepareRuntimes(file("server.ts"));
  try {
    await makeSecrets(folder);
  } catch (error) {
    absent.push({ what: "a token per request, and mutual TLS", why: (error as Error).message });
  }
  const hasSecrets = !absent.some(({ what }) => what.startsWith("a token"));
  const preparation: Preparation = {
    folder,
    prepared,
    client: await RUNTIMES.Node(file("client.ts")),
  };
  const pairs: PairResult[] = [];
  const isHere = ({ runtime }: Pair | Rival) => prepared.has(runtime);
  for (const pair of PAIRS.filter(isHere)) {
    pairs.push(await comparePair(preparation, pair, extent));
  }
  const rivals: RivalResult[] = [];
  for (const rival of hasSecrets ? RIVALS.filter(isHere) : []) {
    rivals.push(await compareRival(preparation, rival, extent));
  }
  const versions = [...prepared].map(([name, { version }]) => `${name} ${version}`);
  const { starts, rounds, seconds } = extent;
  return {
    ...{ ...before, versions, absent, starts, rounds, seconds, connections: CONNECTIONS },
    ...{ pairs, rivals },
  };
}

/** Makes a secret for tokens, and certificates for server and client. */
async function makeSecrets(folder: string): Promise<void> {
  writeFileSync(join(folder, "secret"), crypto.getRandomValues(new Uint8Array(32)));
  const openssl = (...args: string[]) => run("openssl", ...args);
  const at = (name: string) => join(folder, name);
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"];
  const ca = ["-keyout", at("ca.key"), "-out", at("ca.pem"), "-subj", "/CN=bench"];
  await openssl("req", "-x509", ...newKey, ...ca);
  for (const side of ["server", "client"]) {
    await openssl(
      ...["req", "-x509", ...newKey, "-CA", at("ca.pem"), "-CAkey", at("ca.key")],
      ...["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
      ...["-addext", "basicConstraints=CA:FALSE"],
      ...["-keyout", at(`${side}.key`), "-out", at(`${side}.pem`)],
    );
  }
}

interface Preparation {
  readonly folder: string;
  readonly prepared: ReadonlyMap<Runtime, Prepared>;
  readonly client: Prepared;
}

/** A server process. */
class BenchmarkServer {
  static #count = 0;
  readonly kind: string;
  readonly #helper: Helper;
  readonly path: string;
  port = 0;

  private constructor({ folder, prepared }: Preparation, runtime: Runtime, kind: string) {
    this.kind = kind;
    this.path = join(folder, `${++BenchmarkServer.#count}.sock`);
    const where = kind === "JWT" || kind === "mTLS" ? folder : this.path;
    this.#helper = new Helper(`${kind} on ${runtime}`, [
      ...prepared.get(runtime)!.command,
      kind,
      where,
    ]);
  }

  static async start(
    preparation: Preparation,
    runtime: Runtime,
    kind: string,
  ): Promise<BenchmarkServer> {
    const server = new BenchmarkServer(preparation, runtime, kind);
    for (;;) {
      const line = await server.#helper.line();
      if (line === "ready") return server;
      server.port = Number(line); // servers over TCP print their port
    }
  }

  /** The CPU time of the process so far, in µs. */
  async cpu(): Promise<number> {
    return Number(await this.#helper.request(""));
  }

  end(): Promise<void> {
    return this.#helper.end();
  }
}

async function comparePair(
  preparation: Preparation,
  pair: Pair,
  { starts, rounds, seconds }: Extent,
): Promise<PairResult> {
  const { runtime, name, load } = pair;
  progress(`${runtime}, ${name}`);
  const answers = new Set<string>();
  const measure = async (server: BenchmarkServer, length: number): Promise<Sample> => {
    const before = await server.cpu();
    const args = [load, server.path, `${CONNECTIONS}`, `${length}`, "awake"];
    const found = JSON.parse(await run(join(preparation.folder, "load"), ...args));
    // On a busy machine a server may not be scheduled within a round.
    if (found.answers === 0) throw new NoResult(`${server.kind} gave no answer`);
    answers.add(found.answer);
    const cpu = (await server.cpu() - before) / found.answers;
    return { perSecond: found.answers / found.seconds, cpu, p50: found.p50, p99: found.p99 };
  };
  const all = [pair.plain, pair.least, pair.ours].map((kind) => ({
    kind,
    samples: [] as Sample[],
  }));
  const skipped: string[] = [];
  for (let start = 0; start < starts; start++) {
    const sides: { readonly server: BenchmarkServer; readonly samples: Sample[] }[] = [];
    for (const { kind, samples } of inTurn(all, start)) {
      sides.push({ server: await BenchmarkServer.start(preparation, runtime, kind), samples });
    }
    for (const { server } of sides) {
      await runRounds(1, () => measure(server, WARM_UP_ROUNDS * seconds));
    }
    const played = await runRounds(rounds, async (round) => {
      const found = [];
      for (const { server, samples } of inTurn(sides, round)) {
        found.push({ samples, sample: await measure(server, seconds) });
      }
      return found;
    });
    for (const { samples, sample } of played.results.flat()) samples.push(sample);
    skipped.push(...played.skipped);
    for (const { server } of sides) await server.end();
  }
  if (answers.size !== 1 || !answers.has("welcome")) {
    throw new Error(`${runtime}, ${name}: answered ${[...answers].join(" and ")}`);
  }
  type All = [plain: Sample[], least: Sample[], ours: Sample[]];
  const [plainSamples, leastSamples, oursSamples] = all.map(({ samples }) => samples) as All;
  const ratioOf = (samples: readonly Sample[], others: readonly Sample[]) =>
    spread(samples.map(({ perSecond }, at) => perSecond / others[at]!.perSecond));
  return {
    ...pair,
    ...{ plainSamples, leastSamples, oursSamples, skipped },
    ratio: ratioOf(oursSamples, plainSamples),
    leastRatio: ratioOf(leastSamples, plainSamples),
    ratioToLeast: ratioOf(oursSamples, leastSamples),
  };
}

async function compareRival(
  preparation: Preparation,
  rival: Rival,
  { rivalRounds: rounds, requests }: Extent,
): Promise<RivalResult> {
  const { runtime, name, kinds, connection } = rival;
  progress(`${runtime}, ${name}`);
  const client = new Helper("the client", [...preparation.client.command, preparation.folder]);
  const measure = async (server: BenchmarkServer, count: number): Promise<number> => {
    const { kind, path, port } = server;
    const before = await server.cpu();
    const where = port === 0 ? path : port;
    const question = { kind, where, connection, count, atOnce: CONNECTIONS };
    const answer = await client.request(JSON.stringify(question));
    if (answer !== "ok") throw new Error(`${runtime}, ${kind}: ${answer}`);
    return (await server.cpu() - before) / count;
  };
  const sides = [];
  for (const kind of kinds) {
    sides.push({
      server: await BenchmarkServer.start(preparation, runtime, kind),
      samples: [] as number[],
    });
  }
  for (const { server } of sides) await measure(server, 3 * requests[connection]);
  for (let round = 0; round < rounds; round++) {
    for (const { server, samples } of inTurn(sides, round)) {
      samples.push(await measure(server, requests[connection]));
    }
  }
  for (const { server } of sides) await server.end();
  await client.end();
  const rows = sides.map(({ server: { kind }, samples }) => ({
    kind,
    samples,
    cpu: spread(samples),
  }));
  const [ours, ...others] = rows;
  return { ...rival, rows, isMet: others.every(({ cpu }) => ours!.cpu.median < cpu.median) };
}

await runBenchmark({
  help: HELP,
  bench,
  text,
  home: import.meta.dirname,
  files: (result) => ({ "results.md": markdown(result) }),
});
