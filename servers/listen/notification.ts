/** READY=1 and STOPPING=1 for the service manager: no failure of these ends a server that works. */

import process from "node:process";
import { UcredError } from "../../core/errors.ts";
import { notify } from "../../system/sd_notify.ts";
import { warn } from "../admission/admission.ts";

/** Milliseconds between two tries, and in all: any user may be able to keep the manager's queue full. */
const RETRY_MS = 10;
const MAX_WAIT_MS = 10_000;

/** What one server reports. */
export class Notification {
  #stopRetrying = () => {};

  /** Reports that the server listens. To be called once it does. */
  ready(): void {
    this.#stopRetrying = send(
      "READY=1",
      "Cannot report to the service manager that a server listens",
    );
  }

  /** Reports that the server stops. */
  stopping(): void {
    this.#stopRetrying();
    send("STOPPING=1", "Cannot report to the service manager that a server stops");
  }
}

/** Sends a message now, or as soon as there is room for it. What stops trying. */
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
