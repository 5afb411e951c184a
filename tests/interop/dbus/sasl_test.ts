/** Conversations of D-Bus authentication, byte by byte, without sockets. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { type SaslParameters, SaslServer, type SaslStep } from "../../../interop/dbus/sasl.ts";
import fc from "../../support/properties.ts";
import { cases } from "../../support/suite.ts";

const GUID = "0123456789abcdef0123456789abcdef";
const PARAMETERS: SaslParameters = { uid: 1000, guid: GUID, unixFd: true };
const latin1 = (text: string) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const hex = (text: string) => [...latin1(text)].map((byte) => byte.toString(16)).join("");
const OK = `OK ${GUID}`;
const NO = "REJECTED EXTERNAL";
/** hex("1000") */
const UID = "31303030";

/** Sends pieces, and returns all replies, and the last step without its reply. */
function converse(
  pieces: readonly Uint8Array[],
  parameters: SaslParameters = PARAMETERS,
): { replies: string; last: SaslStep } {
  const server = new SaslServer(parameters);
  let [replies, last]: [string, SaslStep] = ["", { state: "waiting", reply: "" }];
  for (const [at, piece] of pieces.entries()) {
    last = server.receive(piece);
    replies += last.reply;
    if (last.state === "waiting") continue;
    assert.throws(() => server.receive(latin1("x")), TypeError);
    if (last.state === "authenticated") {
      const rest = Uint8Array.from([
        ...last.rest,
        ...pieces.slice(at + 1).flatMap((all) => [...all]),
      ]);
      last = { ...last, rest };
    }
    break;
  }
  return { replies, last: { ...last, reply: "" } };
}

/** "C: line" and "S: line", as the specification writes them. */
interface Script {
  readonly name: string;
  readonly lines: readonly string[];
  readonly parameters?: Partial<SaslParameters>;
  readonly end?: SaslStep["state"];
  readonly unixFd?: boolean;
}

const SCRIPTS: readonly Script[] = [
  { name: "an initial response", lines: [`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN"] },
  {
    name: "a response after DATA",
    lines: ["C: AUTH EXTERNAL", "S: DATA", `C: DATA ${UID}`, `S: ${OK}`, "C: BEGIN"],
  },
  {
    name: "an empty response after DATA, as sd-bus sends it",
    lines: ["C: AUTH EXTERNAL", "S: DATA", "C: DATA", `S: ${OK}`, "C: BEGIN"],
  },
  {
    name: "an empty initial response",
    lines: ["C: AUTH EXTERNAL ", "S: DATA", "C: DATA ", `S: ${OK}`, "C: BEGIN"],
  },
  {
    name: "a question for the mechanisms, as GDBus sends it",
    lines: ["C: AUTH", `S: ${NO}`, `C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN"],
  },
  {
    name: "an unknown command before AUTH",
    lines: ["C: FOOBAR", "S: ERROR", `C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN"],
  },
  {
    name: "mechanisms that are not offered",
    lines: [
      ...["C: AUTH DBUS_COOKIE_SHA1 31303030", `S: ${NO}`, "C: AUTH ANONYMOUS", `S: ${NO}`],
      ...["C: AUTH KERBEROS_V4", `S: ${NO}`, "C: AUTH external 31303030", `S: ${NO}`],
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN"],
    ],
  },
  {
    name: "the uid of another",
    lines: [`C: AUTH EXTERNAL ${hex("0")}`, `S: ${NO}`],
    end: "waiting",
  },
  {
    name: "the uid of another after DATA, then the own",
    lines: [
      ...["C: AUTH EXTERNAL", "S: DATA", `C: DATA ${hex("1001")}`, `S: ${NO}`],
      ...[`C: DATA ${UID}`, "S: ERROR", `C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN"],
    ],
  },
  {
    name: "a conversation that is cancelled and started again",
    lines: [
      ...["C: AUTH EXTERNAL", "S: DATA", "C: CANCEL", `S: ${NO}`],
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: CANCEL", `S: ${NO}`],
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN"],
    ],
  },
  {
    name: "ERROR in each state",
    lines: [
      ...['C: ERROR "why"', `S: ${NO}`, "C: AUTH EXTERNAL", "S: DATA", "C: ERROR", `S: ${NO}`],
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: ERROR", `S: ${NO}`],
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN"],
    ],
  },
  {
    name: "file descriptors",
    lines: [
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`],
      ...["C: NEGOTIATE_UNIX_FD", "S: AGREE_UNIX_FD", "C: BEGIN"],
    ],
    unixFd: true,
  },
  {
    name: "file descriptors that the application does not take",
    lines: [
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`],
      ...["C: NEGOTIATE_UNIX_FD", "S: ERROR", "C: BEGIN"],
    ],
    parameters: { unixFd: false },
  },
  {
    name: "file descriptors before authentication, and of an earlier attempt",
    lines: [
      ...["C: NEGOTIATE_UNIX_FD", "S: ERROR", `C: AUTH EXTERNAL ${UID}`, `S: ${OK}`],
      ...["C: NEGOTIATE_UNIX_FD", "S: AGREE_UNIX_FD", "C: CANCEL", `S: ${NO}`],
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN"],
    ],
  },
  {
    name: "commands that do not fit the state",
    lines: [
      ...["C: CANCEL", "S: ERROR", "C: DATA", "S: ERROR", "C: AUTH EXTERNAL", "S: DATA"],
      ...["C: AUTH EXTERNAL", "S: ERROR", `C: DATA ${UID}`, `S: ${OK}`],
      ...[`C: AUTH EXTERNAL ${UID}`, "S: ERROR", "C: BEGIN"],
    ],
  },
  {
    name: "words after BEGIN, and letters that follow it",
    lines: [
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN now", "S: ERROR"],
      ...["C: BEGINs", "S: ERROR", "C: BEGIN\x01", "S: ERROR", "C: BEGIN"],
    ],
  },
  {
    name: "words after CANCEL and NEGOTIATE_UNIX_FD",
    lines: [
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: NEGOTIATE_UNIX_FD now", "S: ERROR"],
      ...["C: CANCEL now", "S: ERROR", "C: BEGIN"],
    ],
  },
  {
    name: "other commands than DATA after DATA, which would be an empty response",
    lines: [
      ...["C: AUTH EXTERNAL", "S: DATA", "C: FOOBAR", "S: ERROR", "C: NEGOTIATE_UNIX_FD"],
      ...["S: ERROR", "C: BEGIN"],
    ],
    end: "failed",
  },
  {
    name: "a line feed or a carriage return alone, which ends no line",
    lines: [
      ...[`C: AUTH EXTERNAL ${UID}.\nCANCEL`, "S: ERROR", `C: AUTH EXTERNAL ${UID}\r.CANCEL`],
      ...["S: ERROR", `C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: BEGIN"],
    ],
  },
  {
    name: "several spaces between words, and after them",
    lines: [`C: AUTH   EXTERNAL  ${UID}  `, `S: ${OK}`, "C: BEGIN  "],
  },
  { name: "BEGIN first", lines: ["C: BEGIN"], end: "failed" },
  { name: "BEGIN after REJECTED", lines: ["C: AUTH", `S: ${NO}`, "C: BEGIN"], end: "failed" },
  { name: "BEGIN after DATA", lines: ["C: AUTH EXTERNAL", "S: DATA", "C: BEGIN"], end: "failed" },
  {
    name: "BEGIN after CANCEL",
    lines: [`C: AUTH EXTERNAL ${UID}`, `S: ${OK}`, "C: CANCEL", `S: ${NO}`, "C: BEGIN"],
    end: "failed",
  },
  {
    name: "a uid that the kernel does not know for certain",
    lines: [
      ...[`C: AUTH EXTERNAL ${UID}`, `S: ${NO}`, "C: AUTH EXTERNAL", "S: DATA", "C: DATA"],
      ...[`S: ${NO}`, `C: AUTH EXTERNAL ${hex("undefined")}`, `S: ${NO}`],
    ],
    parameters: { uid: undefined },
    end: "waiting",
  },
  {
    name: "the highest uid",
    lines: [`C: AUTH EXTERNAL ${hex("4294967294")}`, `S: ${OK}`, "C: BEGIN"],
    parameters: { uid: 4294967294 },
  },
];

/** Checks a reply: the text of errors is free. */
function same(replies: string, expected: readonly string[]): void {
  assert.ok(replies === "" || replies.endsWith("\r\n"));
  const lines = replies.split("\r\n").slice(0, -1);
  assert.deepEqual(lines.map((line) => line.replace(/^ERROR .*/, "ERROR")), expected);
}

const REST = latin1("l\x01\0\x01binary \r\n and BEGIN\r\n\xff");

describe("SaslServer", () => {
  for (const { name, lines, parameters, end = "authenticated", unixFd = false } of SCRIPTS) {
    test(`SaslServer follows the specification: ${name}`, () => {
      const of = (side: string) =>
        lines.filter((line) => line.startsWith(side)).map((line) => line.slice(3));
      const all = { ...PARAMETERS, ...parameters };
      const check = (pieces: readonly Uint8Array[]) => {
        const { replies, last } = converse(pieces, all);
        same(replies, of("S: "));
        assert.equal(last.state, end);
        if (last.state !== "authenticated") return;
        assert.equal(last.unixFd, unixFd);
        assert.deepEqual(last.rest, REST);
      };
      const sent = of("C: ").map((line) => latin1(`${line}\r\n`));
      const tail = end === "authenticated" ? [REST] : [];
      const stream = latin1(`\0${of("C: ").map((line) => `${line}\r\n`).join("")}`);
      check([latin1("\0"), ...sent, ...tail]); // line by line
      check([Uint8Array.from([...stream, ...tail.flatMap((rest) => [...rest])])]); // pipelined
      check([...stream, ...tail.flatMap((rest) => [...rest])].map((byte) => Uint8Array.of(byte)));
    });
  }

  test("SaslServer replies alike, however the bytes are split", () => {
    const word = fc.constantFrom(
      ...["AUTH", "AUTH EXTERNAL", `AUTH EXTERNAL ${UID}`, `AUTH EXTERNAL ${hex("0")}`, "DATA"],
      ...[`DATA ${UID}`, "CANCEL", "ERROR", "BEGIN", "NEGOTIATE_UNIX_FD", "x", "AUTH EXTERNAL 3"],
      ...["BEGIN\n", "\0BEGIN", "DATA \xff", "auth"],
    );
    const property = fc.property(
      fc.array(word, { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 10 }),
      (lines, sizes) => {
        const stream = latin1(`\0${lines.map((line) => `${line}\r\n`).join("")}`);
        const pieces: Uint8Array[] = [];
        for (let at = 0, size = 0; at < stream.length; size++) {
          const length = sizes[size % sizes.length]!;
          pieces.push(stream.subarray(at, at += length));
        }
        assert.deepEqual(converse(pieces), converse([stream]));
      },
    );
    fc.assert(property, { numRuns: cases(2000) });
  });

  test("SaslServer authenticates no client that claims another uid", () => {
    const claim = fc.oneof(
      fc.nat(5000).map(String),
      fc.constantFrom("01000", "1000 ", " 1000", "+1000", "1e3", "0x3e8", "1000.0", "1000\0", "-0"),
      fc.constantFrom("\u0661\u0660\u0660\u0660".normalize(), "1000\n", "", "10000", "4294968296"),
    ).filter((text) => text !== "1000" && text !== "");
    const property = fc.property(claim, fc.boolean(), (text, isData) => {
      const response = [...new TextEncoder().encode(text)].map((byte) =>
        byte.toString(16).padStart(2, "0")
      ).join("");
      const lines = isData
        ? `AUTH EXTERNAL\r\nDATA ${response}\r\n`
        : `AUTH EXTERNAL ${response}\r\n`;
      const { replies, last } = converse([latin1(`\0${lines}BEGIN\r\n`)]);
      assert.equal(last.state, "failed");
      assert.ok(replies.endsWith(`${NO}\r\n`), replies);
    });
    fc.assert(property, { numRuns: cases(1000) });
    for (const response of ["3", "zz", "3130303", "31303030 ff", "0x31303030", "1000;uid=0"]) {
      const { replies, last } = converse([latin1(`\0AUTH EXTERNAL ${response}\r\n`)]);
      same(replies, ["ERROR"]);
      assert.equal(last.state, "waiting");
    }
  });

  test("SaslServer ends the conversation at each limit", () => {
    const reasonOf = (...pieces: string[]) => {
      const { last } = converse(pieces.map(latin1));
      return last.state === "failed" ? last.reason : last.state;
    };
    assert.equal(reasonOf(`AUTH EXTERNAL ${UID}\r\n`), "the first byte is not NUL");
    assert.equal(
      reasonOf("\0", `\0AUTH EXTERNAL ${UID}\r\nBEGIN\r\n`),
      "BEGIN before authentication",
    );
    assert.equal(reasonOf(`\0${"A".repeat(4094)}\r\n`), "waiting");
    assert.equal(reasonOf(`\0${"A".repeat(4095)}`), "waiting");
    assert.equal(reasonOf(`\0${"A".repeat(4096)}`), "a line is too long");
    assert.equal(reasonOf("\0", ...Array(5).fill("AUTH\r\n")), "waiting");
    assert.equal(reasonOf("\0", ...Array(6).fill("AUTH\r\n")), "too many failed commands");
    assert.equal(reasonOf(`\0${"x\r\n".repeat(6)}`), "too many failed commands");
    const negotiate = `\0AUTH EXTERNAL ${UID}\r\n${"NEGOTIATE_UNIX_FD\r\n".repeat(1000)}`;
    assert.equal(reasonOf(negotiate), "too many bytes before BEGIN");
    const padding = "NEGOTIATE_UNIX_FD\r\n".repeat(860);
    const free = 16_384 - `\0AUTH EXTERNAL${UID}\r\n${padding}BEGIN\r\n`.length;
    const exact = `AUTH EXTERNAL${" ".repeat(free)}${UID}\r\n${padding}BEGIN\r\n`;
    assert.equal(reasonOf(`\0${exact.replace(" ", "  ")}`), "too many bytes before BEGIN");
    const { last } = converse([latin1(`\0${exact}${"y".repeat(100_000)}`)]);
    assert.equal(
      last.state === "authenticated" && last.rest.length,
      100_000,
      "the rest is not limited",
    );
  });
});
