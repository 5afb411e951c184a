/** Prints, for each inherited descriptor, the credentials or the error code. */

import process from "node:process";
import { identify, peerCredentials, UcredError } from "../../mod.ts";

const descriptors: { [kind: string]: number } = JSON.parse(process.env["UCRED_DESCRIPTORS"]!);
const answers = Object.entries(descriptors).map(([kind, fd]) => [kind, answer(fd)]);
console.log(JSON.stringify(Object.fromEntries(answers)));

function answer(fd: number): unknown {
  // Twice: the first answer is cached, and a wrong one must not be.
  const answers = [peerCredentials, identify, peerCredentials].map((ask) => {
    try {
      const { pid, uid, gid } = ask(fd);
      return { pid, uid, gid };
    } catch (error) {
      if (error instanceof UcredError) return error.code;
      throw error;
    }
  });
  return new Set(answers.map((value) => JSON.stringify(value))).size === 1 ? answers[0] : answers;
}
