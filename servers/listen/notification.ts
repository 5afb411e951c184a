/** READY=1 and STOPPING=1 notifications to the service manager. A failure never stops the server. */

import process from "node:process";
import { UcredError } from "../../core/errors.ts";
import { notify } from "../../system/sd_notify.ts";
import { warn } from "../admission/admission.ts";

/**
 * The interval between two attempts, and the total time. Any user may be able to keep the manager's queue
 * full.
 */
const RETRY_MS = 10;
const MAX_WAIT_MS = 10_000;

/** The notifications of one server. */
export class Notification {
  #stopRetrying = () => {};

  /** Sends READY=1. Called once the server listens. */
  ready(): void {
    this.#stopRetrying = send(
      "READY=1",
      "Cannot report to the service manager that a server listens",
    );
  }

  /** Sends STOPPING=1. */
  stopping(): void {
    this.#stopRetrying();
    send("STOPPING=1", "Cannot report to the service manager that a server stops");
  }
}

/**
 * Sends a message, and retries while the manager's queue is full. Returns a function that stops the
 * retries.
 */
function send(state: string, failed: string): () => void {
  const deadline = performance.now() + MAX_WAIT_MS;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const attempt = () => {
    try {
      notify(state);
    } catch (error) {
      if (!isFull(error) || performance.now() > deadline) return warn(failed, error);
      timer = setTimeout(attempt, RETRY_MS);
      timer.unref();
    }
  };
  attempt();
  return () => clearTimeout(timer);
}

/** EAGAIN, <asm-generic/errno-base.h>: the manager's queue is full. */
function isFull(error: unknown): boolean {
  return error instanceof UcredError && error.errno === 11 && process.platform === "linux";
}
