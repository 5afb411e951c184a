/** Who may do what, for all examples of this folder. */

import { definePolicy, type Policy } from "../../mod.ts"; // "ucred", in a program of yours

/** Root and the server's own user may do everything, people look at all but `/keys`, nobody else gets in. */
export const policy: Policy = definePolicy({
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: "full" },
    { name: "the server's own user", when: { sameUser: true }, allow: "full" },
    { name: "keys", actions: "* /keys", deny: true },
    { name: "people look", when: { uid: "1000-59999" }, actions: "GET /**", allow: "look" },
  ],
});
