/** Every kind of descriptor that a program may inherit: credentials, or the right error. */

import assert from "node:assert/strict";
import process from "node:process";
import { compileProgram } from "../support/compile.ts";
import { needs, testWith } from "../support/suite.ts";
import { startScript } from "../support/peers.ts";

testWith(
  [needs.linux, needs.cc],
  "peerCredentials() returns credentials, or throws the right error, for each kind of descriptor",
  async () => {
    const program = compileProgram(new URL("descriptors.c", import.meta.url));
    const child = startScript([program], "live/inherited.ts");
    const answers = await child.json<{ [kind: string]: unknown }>();
    const creator = {
      pid: child.process.pid,
      uid: process.geteuid!(),
      gid: process.getegid!(),
    };
    await child.end();
    assert.deepEqual(answers, {
      "stream accepted": creator,
      "stream connected": creator,
      "seqpacket accepted": creator,
      "seqpacket connected": creator,
      "stream socketpair": creator,
      "dgram socketpair": creator,
      "seqpacket socketpair": creator,
      // The kernel answers all of these without an error, and for listeners with an identity.
      "stream listener": "ERR_UCRED_NO_PEER",
      "seqpacket listener": "ERR_UCRED_NO_PEER",
      "stream unconnected": "ERR_UCRED_NO_PEER",
      "dgram unconnected": "ERR_UCRED_NO_PEER",
      "dgram connected": "ERR_UCRED_NO_PEER",
      "dgram bound": "ERR_UCRED_NO_PEER",
      "tcp accepted": "ERR_UCRED_NOT_UNIX",
      "tcp connected": "ERR_UCRED_NOT_UNIX",
      "tcp listener": "ERR_UCRED_NOT_UNIX",
      "udp": "ERR_UCRED_NOT_UNIX",
      "netlink": "ERR_UCRED_NOT_UNIX",
      "pipe": "ERR_UCRED_NOT_UNIX",
      "file": "ERR_UCRED_NOT_UNIX",
    });
  },
);
