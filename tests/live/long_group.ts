/** Looks up groups in an account database with a very long line; prints one line of JSON. */

import process from "node:process";
import { accountName } from "../../system/accounts.ts";
import { definePolicy } from "../../mod.ts";

const isMember = (group: string, gid: number) =>
  definePolicy({ version: 1, rules: [{ name: "r", when: { group }, allow: true }] })
    .decide({ uid: 1, gid, groups: [gid] }).allowed;

console.log(JSON.stringify({
  crowd: isMember("crowd", 4321),
  later: isMember("later", 4322),
  names: [4321, 4322].map((gid) => accountName("group", gid)),
}));
process.exit();
