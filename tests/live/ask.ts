/** Imports the module, and prints the credentials of the first inherited connection, or the error. */

import process from "node:process";
import { peerCredentials, UcredError } from "../../mod.ts";

const fd: number = JSON.parse(process.env["UCRED_DESCRIPTORS"] ?? "{}")["stream accepted"] ?? 0;
try {
  const { uid } = peerCredentials(fd);
  console.log(JSON.stringify({ uid }));
} catch (error) {
  if (!(error instanceof UcredError)) throw error;
  console.log(JSON.stringify({ code: error.code, hint: error.hint }));
}
