/** `npm run soak`: crowds of clients against servers and modes of the guard, while everything around them changes. */

import { spawnSync } from "node:child_process";
import process from "node:process";
import { parseArgs } from "node:util";
import { removeSafeFolders } from "../support/safe_folder.ts";
import { type Kind, KINDS } from "./kinds.ts";
import { EVENTS, RUNTIMES, Subject } from "./subject.ts";
import { leftOut, problems, totals } from "./tally.ts";

const listed = ({ name, omits }: Kind) =>
  omits === undefined ? name : `${name} (not on ${omits.join(" or ")})`;

const HELP = `Usage: npm run soak -- [options]

Starts the servers below, most of them guards, on Node, Deno and Bun, one after the other. Crowds of
clients of many users connect, behave well and badly, and die, while the policy is replaced by good and
bad ones, descriptors run out, the disk of the audit log is full, signals arrive, the wall clock of the
server jumps, one user opens 2,000 connections, and the upstream and the server restart, also by
socket activation. Needs root, a C compiler and prlimit; the mode dbus needs dbus-daemon.

  --minutes N   run for about N minutes, divided among the servers (default: 10); each server runs
                for at least two events
  --only NAME   run only this runtime, server or event; repeatable
  --seed N      the seed of the clients and events (default: at random)
  --help        print this help

Runtimes: ${Object.keys(RUNTIMES).join(", ")}
Servers: ${KINDS.map(listed).join(", ")}
Events: ${EVENTS.join(", ")}

The exit code is 1 if something was wrong.
`;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    only: { type: "string", multiple: true, default: [] },
    seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 31)) },
    help: { type: "boolean", default: false },
  },
});
const minutes = Number(values.minutes);
const kindNames = KINDS.map(({ name }) => name);
const names = [...Object.keys(RUNTIMES), ...kindNames, ...EVENTS];
const unknown = values.only.find((name) => !names.includes(name));
if (values.help || !(minutes > 0) || unknown !== undefined) {
  if (unknown !== undefined) console.error(`There is no runtime, server or event "${unknown}"`);
  console.log(HELP);
  process.exit(values.help ? 0 : 2);
}
if (process.getuid?.() !== 0) {
  console.error("npm run soak needs root: its clients have several users");
  process.exit(2);
}

/** A generator of numbers below `limit`, with a seed: xorshift32. */
function numbersFrom(seed: number): (limit: number) => number {
  let state = seed | 1;
  return (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
}

const random = numbersFrom(Number(values.seed));
const isSelected = (list: readonly string[], name: string) =>
  values.only.every((only) => !list.includes(only)) || values.only.includes(name);
const isInstalled = (program: string) =>
  spawnSync("sh", ["-c", 'command -v "$1"', "sh", program]).status === 0;
const subjects: Subject[] = [];
for (const runtime of Object.keys(RUNTIMES)) {
  if (!isSelected(Object.keys(RUNTIMES), runtime)) continue;
  for (const kind of KINDS) {
    const { name, omits, program } = kind;
    if (!isSelected(kindNames, name)) continue;
    if (omits?.includes(runtime)) leftOut.add(`${runtime} ${name}: not supported`);
    else if (program !== undefined && !isInstalled(program)) {
      leftOut.add(`${name}: there is no ${program}`);
    } else subjects.push(new Subject(runtime, kind, random, (event) => isSelected(EVENTS, event)));
  }
}

console.log(`seed ${values.seed}, ${subjects.length} servers`);
let current: Subject | undefined;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, async () => {
    await current?.end();
    process.exit(1);
  });
}
const start = performance.now();
for (const [index, subject] of subjects.entries()) {
  // The time that is left is divided among the servers that are left.
  const now = performance.now();
  const left = start + minutes * 60_000 - now;
  current = subject;
  await subject.run(now + left / (subjects.length - index));
}
current = undefined;
removeSafeFolders();

for (const [name, count] of [...totals].toSorted()) {
  if (count > 0) console.log(`  ${name}: ${count}`);
}
const clients = [...totals].filter(([name]) => name.startsWith("clients")).reduce(
  (sum, [, count]) => sum + count,
  0,
);
console.log(`${clients} clients, ${problems.length} problems, seed ${values.seed}`);
for (const what of leftOut) console.log(`  left out: ${what}`);
for (const problem of problems) console.log(`  ${problem}`);
process.exit(problems.length === 0 ? 0 : 1);
