/** The monotonic clock of this process, which a test can put forward. */

import { endAfterEach } from "./suite.ts";

const now = performance.now.bind(performance);
let ahead = 0;

endAfterEach(() => {
  ahead = 0;
  performance.now = now;
});

/** Puts `performance.now()` forward until the end of the test. */
export function putForward(ms: number): void {
  ahead += ms;
  performance.now = () => now() + ahead;
}

/** Blocks this process, and lets more time pass than it takes. */
export function suspend(ms: number): void {
  putForward(ms);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
}
