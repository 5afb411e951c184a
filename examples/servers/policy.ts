/** The policies of the HTTP examples in this folder. */

import { definePolicy, type Policy } from "../../mod.ts"; // "ucred" in your own program

/** Root and the server's own user may do everything. Users from 1000 on may GET everything but `/keys`. */
export const policy: Policy = definePolicy({
  version: 1,
  rules: [
    { name: "root", when: { uid: 0 }, allow: "full" },
    { name: "the server's own user", when: { sameUser: true }, allow: "full" },
    { name: "keys", actions: ["* /keys", "* /keys/"], deny: true }, // h3 has one route for both
    { name: "people", when: { uid: "1000-59999" }, actions: "GET /**", allow: "look" },
  ],
});

/** Decides about `/admin` in addition: only root. */
export const admins: Policy = definePolicy({
  version: 1,
  rules: [{ name: "root", when: { uid: 0 }, actions: "* /admin/**", allow: "full" }],
});
