/** The version, which is package.json's too: a test compares them. */

export const VERSION = "0.1.0";
