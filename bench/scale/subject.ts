/**
 * `subject.ts`: decisions, identities and a guard on the runtime that runs this file. It answers each line of
 * input, a {@link Task} in JSON, with a line of JSON.
 */

import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import process from "node:process";
import { createInterface } from "node:readline";
import { createGuard } from "../../guard/mod.ts";
import { dockerVocabulary } from "../../interop/docker/mod.ts";
import { definePolicy, identify } from "../../mod.ts";
import { parsePolicy } from "../../policy/mod.ts";
import { type CheckedRules, loadChecked } from "../policy/check.ts";
import { CONTENDERS } from "../policy/contenders.ts";
import { workload } from "../policy/workload.ts";

/** A line of input. */
export type Task =
  /** Load a policy of this many rules and check its answers. The answer is the CPU time of parsing its text, in ms. */
  | { readonly load: number }
  /** Make `times` decisions with the policy of so many rules. The answer is ns per decision. */
  | { readonly decide: number; readonly times: number }
  /** Accept one connection at a path, and check that its peer has so many groups. */
  | { readonly accept: string; readonly groups: number }
  /** Identify that peer `times` times. The answer is µs. */
  | { readonly identify: number; readonly times: number }
  /** Start a guard of a Docker engine. */
  | { readonly guard: string; readonly upstream: string }
  /** The answer is the CPU time so far in µs. */
  | "cpu";

const policies = new Map<number, CheckedRules & { next: number }>();
const peers = new Map<number, Socket>();

/** The first gid of the groups in `crowd.c`. */
const FIRST_GID = 100_000;

const cpu = () => {
  const { user, system } = process.cpuUsage();
  return user + system;
};

/** Writes the rules of the workload as the text of a policy. */
function textOf(count: number): string {
  const rules = workload(count).rules.map(({ name, kind, id, allows }) => {
    const when = kind === "user" ? { uid: id } : kind === "group" ? { gid: id } : { [kind]: id };
    return { name, when, ...(allows ? { allow: "use" } : { deny: true }) };
  });
  return JSON.stringify({ version: 1, rules });
}

async function load(count: number): Promise<number> {
  policies.set(count, { ...await loadChecked(CONTENDERS[0]!, count, Infinity), next: 0 });
  const text = textOf(count);
  const before = cpu();
  parsePolicy(text);
  return (cpu() - before) / 1000;
}

function decide(count: number, times: number): number {
  const policy = policies.get(count)!;
  const { engine, requests, expected } = policy;
  let at = policy.next;
  let wrong = 0;
  const before = cpu();
  for (let i = 0; i < times; i++) {
    if (engine.rule(engine.decide(requests[at])) !== expected[at]) wrong++;
    if (++at === requests.length) at = 0;
  }
  const took = cpu() - before;
  if (wrong > 0) throw new Error(`${wrong} of ${times} decisions were wrong`);
  policy.next = at;
  return 1000 * took / times;
}

/** Allows by the last group of a peer, or without groups by its user. */
const policyFor = (groups: number) =>
  definePolicy({
    version: 1,
    rules: [{
      name: "last",
      when: groups === 0 ? { uid: process.getuid!() } : { group: `g${FIRST_GID + groups - 1}` },
      allow: "use",
    }],
  }, { accounts: { uid: () => undefined, gid: (name) => Number(name.slice(1)) } });

async function accept(path: string, groups: number): Promise<string> {
  const server = createServer();
  server.listen(path);
  await once(server, "listening");
  console.log(JSON.stringify("listening"));
  const [socket] = await once(server, "connection") as [Socket];
  server.close();
  socket.on("error", () => {}).write("x");
  const found = identify(socket).groups?.filter((gid) => gid >= FIRST_GID).length;
  if (found !== groups) throw new Error(`${found} groups were found, not ${groups}`);
  peers.set(groups, socket);
  return "accepted";
}

function identifyPeer(groups: number, times: number): number {
  const socket = peers.get(groups)!;
  const policy = policyFor(groups);
  let wrong = 0;
  const before = cpu();
  for (let i = 0; i < times; i++) {
    const peer = identify(socket);
    if (peer.groups === undefined || !policy.decide(peer).allowed) wrong++;
  }
  const took = cpu() - before;
  if (wrong > 0) throw new Error(`${wrong} of ${times} decisions were wrong`);
  return took / times;
}

async function startGuard(path: string, upstream: string): Promise<string> {
  const policy = parsePolicy(
    `version: 1
about: docker
rules:
  - { name: own, actions: container.list, where: { name: "own-*" }, allow: true }
`,
    { vocabularies: [dockerVocabulary] },
  );
  const guard = createGuard({ mode: "docker", upstream, policy, report: () => {} });
  return await new Promise((resolve, reject) => {
    guard.once("error", reject);
    guard.listen({ path }, () => resolve("listening"));
  });
}

async function answer(task: Task): Promise<unknown> {
  if (task === "cpu") return cpu();
  if ("load" in task) return await load(task.load);
  if ("decide" in task) return decide(task.decide, task.times);
  if ("accept" in task) return await accept(task.accept, task.groups);
  if ("identify" in task) return identifyPeer(task.identify, task.times);
  return await startGuard(task.guard, task.upstream);
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
process.exit();
