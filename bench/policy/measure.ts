/**
 * One contender, on whichever runtime this is started: `measure.ts NAME`. Answers each line, a
 * {@link Task} in JSON, with a line of JSON.
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { type Checked, loadChecked, WrongAnswer } from "./check.ts";
import { CONTENDERS } from "./contenders.ts";

/** What it is told to do. */
export type Task =
  /** Load so many rules, and compare answers for about so many ms: {@link Loaded}. */
  | { readonly load: number; readonly checking: number }
  /** Let the policy of so many rules decide so often: ns for each. */
  | { readonly measure: number; readonly times: number };

/** What became of loading. */
export type Loaded =
  /** How many peers' answers were compared; these ask when it is timed. */
  | { readonly peers: number }
  | { readonly wrong: string }
  /** Why the contender cannot run here. */
  | { readonly absent: string };

const contender = CONTENDERS.find(({ name }) => name === process.argv[2])!;
const policies = new Map<number, Checked & { next: number }>();

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

/** Every answer names its rule, and is compared once more. */
async function measure(count: number, times: number): Promise<number> {
  const policy = policies.get(count)!;
  const { engine, requests, expected } = policy;
  let at = policy.next;
  let wrong = 0;
  const first = engine.decide(requests[at]);
  await first; // json-rules-engine must not decide two at once
  const isAsync = first instanceof Promise;
  // Not the time on the wall, in which other processes may run.
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
