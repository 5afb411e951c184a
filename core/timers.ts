/** The limit of timers, which all runtimes share. */

/** The longest delay of setTimeout() in milliseconds, about 24.8 days: a longer one fires after 1 ms. */
export const MAX_TIMER_MS: number = 2 ** 31 - 1;
