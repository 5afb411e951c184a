/**
 * `ucred/testing`: tests of a server and its policy as any peer, without root and without a socket, and of
 * what a program does when calls of the C library fail.
 *
 * @example Send a request as uid 1000
 * ```ts
 * import { asUser, fakePeer, type FetchApp } from "ucred/testing";
 *
 * const app: FetchApp = {
 *   policy: "anyone",
 *   fetch: (_, { peer }) => new Response(`uid ${peer.uid}`),
 * };
 * const response = await asUser(app, fakePeer({ uid: 1000 })).fetch("/");
 * console.log(await response.text()); // uid 1000
 * ```
 *
 * @module
 */

export {
  asUser,
  type FakeClient,
  type FakeConnection,
  type FetchApp,
  type FetchHandler,
} from "./as_user.ts";
export { expectPolicy, type PolicyExpectation } from "./expect_policy.ts";
export { failCalls, type FailedCalls, type FailingCalls } from "./failing_calls.ts";
export {
  type FakeFacts,
  type FakeIds,
  type FakePeer,
  fakePeer,
  type FakeProcess,
} from "./fake_peer.ts";
export type { Peer } from "../core/peer.ts";
