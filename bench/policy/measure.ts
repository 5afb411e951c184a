/**
 * `measure.ts NAME`: one contender, on the runtime that runs this file. It answers each line of input,
 * a {@link Task} in JSON, with a line of JSON.
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { type CheckedRules, loadChecked, WrongAnswer } from "./check.ts";
import { CONTENDERS } from "./contenders.ts";

/** A line of input. */
export type Task =
  /** Load this number of rules, and compare answers for about `checking` ms. The answer is {@link Loaded}. */
  | { readonly load: number; readonly checking: number }
  /** Make `times` decisions with the policy of `measure` rules. The answer is ns per decision. */
  | { readonly measure: number; readonly times: number };

/** The answer to `load`. */
export type Loaded =
  /** The number of peers with checked answers. They are the peers of the measurement. */
  | { readonly peers: number }
  | { readonly wrong: string }
  /** The reason why the contender does not run here. */
  | { readonly absent: string };

const contender = CONTENDERS.find(({ name }) => name === process.argv[2])!;
const policies = new Map<number, CheckedRules & { next: number }>();

async function load(count: number, checking: number): Promise<Loaded> {
  try {
    const checked = await loadChecked(contender, count, checking);
    policies.set(count, { ...checked, next: 0 });
    return { peers: checked.requests.length };
  } catch (error) {
    const { message } = error as Error;
    return error instanceof WrongAnswer ? { wrong: message } : { absent: message };
  }
}

/** Times decisions. The rule in each answer is compared with the checked one. */
async function measure(count: number, times: number): Promise<number> {
  const policy = policies.get(count)!;
  const { engine, requests, expected } = policy;
  let at = policy.next;
  let wrong = 0;
  const first = engine.decide(requests[at]);
  await first; // json-rules-engine cannot make two decisions at once
  const isAsync = first instanceof Promise;
  // CPU time: wall time would include other processes.
  const start = process.cpuUsage();
  if (isAsync) {
    for (let i = 0; i < times; i++) {
      if (engine.rule(await engine.decide(requests[at])) !== expected[at]) wrong++;
      if (++at === requests.length) at = 0;
    }
  } else {
    for (let i = 0; i < times; i++) {
      if (engine.rule(engine.decide(requests[at])) !== expected[at]) wrong++;
      if (++at === requests.length) at = 0;
    }
  }
  const { user, system } = process.cpuUsage(start);
  if (wrong > 0) throw new Error(`${wrong} of ${times} answers were wrong`);
  policy.next = at;
  return 1000 * (user + system) / times;
}

for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line) as Task;
  console.log(JSON.stringify(
    "load" in task ? await load(task.load, task.checking) : await measure(task.measure, task.times),
  ));
}
