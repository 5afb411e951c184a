/** Rules loaded by a contender, and the peers whose answers are right: a wrong one is never timed. */

import { type AnyEngine, type Contender, CONTENDERS } from "./contenders.ts";
import { firstMet, KINDS_OF_PEERS, workload } from "./workload.ts";

/** Rules that are loaded, and requests that are answered rightly. */
export interface Checked {
  readonly engine: AnyEngine;
  readonly requests: readonly unknown[];
  /** The name of the rule that decides each, as the engine itself spelt it. */
  readonly expected: readonly (string | undefined)[];
}

/** The answer that is not as it should be. */
export class WrongAnswer extends Error {}

/** Ours, which the answers of others are compared with. */
const OURS = CONTENDERS[0]!;

/**
 * Loads so many rules, and compares the answers for all peers: with ours, and ours with the first
 * rule that is found by looking at one after the other.
 *
 * @param milliseconds When this is over, the peers are those that were compared.
 * @throws {WrongAnswer}
 */
export async function loadChecked(
  contender: Contender,
  count: number,
  milliseconds: number,
): Promise<Checked> {
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
    const first = firstMet(rules, peer);
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
