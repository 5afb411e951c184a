/** What the connections of one guard share, for both versions of HTTP. */

import { textOf, visible } from "../../core/text.ts";
import type { Admission } from "../../servers/admission/admission.ts";
import type { RequestOutcome, RequestReport } from "../../servers/http/request_report.ts";
import type { FieldKinds } from "../headers.ts";
import type { RequestCounters } from "../stats.ts";
import type { Upstream } from "../upstream.ts";

/** The parts that count and report requests. */
export interface RequestObserver {
  readonly admission: Admission;
  readonly requests: RequestCounters;
  readonly onRequest: ((request: RequestReport) => void) | undefined;
  /** Reports a problem to the operator. */
  readonly report: (line: string) => void;
}

/** The parts that all connections of a guard share. */
export interface HttpShared extends RequestObserver {
  readonly upstream: Upstream;
  readonly fields: FieldKinds;
  /** How many checks in a row may find that nothing of a request's body has arrived. */
  readonly maxIdleChecks: number;
}

/**
 * Counts a request that has ended, and reports it.
 *
 * @param detailsOf Called only if `onRequest` is set.
 */
export function requestEnded(
  { requests, onRequest, admission, report }: RequestObserver,
  outcome: RequestOutcome,
  detailsOf: () => Omit<RequestReport, "server" | "outcome" | "startedAt">,
): void {
  requests.ended(outcome);
  if (onRequest === undefined) return;
  const details = detailsOf();
  const startedAt = Date.now() - details.milliseconds;
  try {
    onRequest({ ...details, server: admission.server, outcome, startedAt });
  } catch (error) {
    report(`onRequest() failed: ${visible(textOf(error))}`);
  }
}
