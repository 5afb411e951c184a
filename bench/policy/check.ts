/** Loads rules into a contender and checks its answers. Wrong answers are never timed. */

import { type AnyEngine, type Contender, CONTENDERS } from "./contenders.ts";
import { firstMatch, KINDS_OF_PEERS, workload } from "./workload.ts";

/** An engine with its rules, and requests with checked answers. */
export interface CheckedRules {
  readonly engine: AnyEngine;
  readonly requests: readonly unknown[];
  /** For each request the name of the rule that decides, as the engine returns it. */
  readonly expected: readonly (string | undefined)[];
}

/** An engine gave a wrong answer. */
export class WrongAnswer extends Error {}

/** The engine with which the others are compared. */
const OURS = CONTENDERS[0]!;

/**
 * Loads rules, and compares the contender's answers with those of ucred, and ucred's answers with a
 * search rule by rule.
 *
 * @param count The number of rules.
 * @param milliseconds The comparison ends after this time. The result has only the peers until then.
 * @throws {WrongAnswer} If two answers differ.
 */
export async function loadChecked(
  contender: Contender,
  count: number,
  milliseconds: number,
): Promise<CheckedRules> {
  const { rules, peers } = workload(count);
  const engine = await contender.load(rules);
  const ours = contender === OURS ? engine : await OURS.load(rules);
  const requests: unknown[] = [];
  const expected: (string | undefined)[] = [];
  const end = performance.now() + milliseconds;
  for (const [index, peer] of peers.entries()) {
    if (index > 0 && index % KINDS_OF_PEERS === 0 && performance.now() > end) break;
    const request = engine.request(peer);
    const answer = await answerOf(engine, request);
    const first = firstMatch(rules, peer);
    const right = contender === OURS
      ? { allowed: first?.allows ?? false, rule: first?.name }
      : await answerOf(ours, ours.request(peer));
    if (answer.allowed !== right.allowed || answer.rule !== right.rule) {
      const [is, should] = [answer, right].map((answer) => JSON.stringify(answer));
      const who = JSON.stringify(peer);
      throw new WrongAnswer(`${contender.name} answers ${is}, not ${should}, for ${who}`);
    }
    requests.push(request);
    expected.push(answer.rule);
  }
  return { engine, requests, expected };
}

async function answerOf(engine: AnyEngine, request: unknown) {
  const reply = await engine.decide(request);
  return { allowed: engine.allowed(reply), rule: engine.rule(reply) };
}
