/**
 * The targets of `npm run fuzz`: each reads any bytes with one of our readers. It returns, or throws a
 * {@link UcredError} or another error that belongs to the reader. Every other exception is a finding, and so
 * is an `AssertionError`: a reader has allowed what it must deny, or has read the same bytes in two ways.
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { CommanderError } from "commander";
import { everyCommand } from "../../cli/commands.ts";
import { UsageError } from "../../cli/output.ts";
import { programFor } from "../../cli/program.ts";
import { requestFrom } from "../../cli/recorded_request.ts";
import { placeOf } from "../../core/cgroup.ts";
import { isId } from "../../core/credentials.ts";
import { UcredError } from "../../core/errors.ts";
import type { Attributes } from "../../core/policy/decide/decision.ts";
import type { PolicyDocument } from "../../core/policy/document/types.ts";
import { decodeAccountId, decodeAccountName } from "../../ffi/accounts.ts";
import { AUDIT_TOKEN, decodeBsdFamily, decodeTokenPid, decodeXucred } from "../../ffi/bsd.ts";
import { decodeDiag } from "../../ffi/diag.ts";
import { decodeLinuxFamily, decodeUcred, UCRED } from "../../ffi/linux.ts";
import { decodeAddress, decodeControl } from "../../ffi/message.ts";
import { decodePidfdIds, decodePidfdPid } from "../../ffi/pidfd.ts";
import {
  isEnding,
  parseAuditId,
  parseCapabilities,
  parseCgroup,
  parseCmdline,
  parseExe,
  parseGroups,
  parseHidePid,
  parseIds,
  parseNamespace,
  parseNoNewPrivs,
  parsePidNumbers,
  parseSeccomp,
  parseStartTime,
  parseStatus,
} from "../../ffi/proc.ts";
import { driverCall, isDriverCall, mayEavesdrop } from "../../guard/dbus/driver.ts";
import { requestFields } from "../../guard/headers.ts";
import { plainOf } from "../../guard/mcp/plain.ts";
import { endOfHead, RequestParser, ResponseParser, serialise } from "../../guard/http/message.ts";
import { requestHead, responseHead, trailersOf } from "../../guard/http2/fields.ts";
import { convertBusPolicy } from "../../interop/dbus/import.ts";
import { dbusVocabulary } from "../../interop/dbus/mod.ts";
import {
  encodeHeader,
  FIXED_BYTES,
  type Header,
  MalformedMessage,
  messageLengths,
  parseHeader,
  readTextArray,
  readTexts,
} from "../../interop/dbus/message.ts";
import { SaslServer, type SaslStep } from "../../interop/dbus/sasl.ts";
import {
  isRefusal,
  readBody,
  readJson,
  readRequest,
  withContainer,
  writeJson,
} from "../../interop/docker/mod.ts";
import { lineOf, LineReader } from "../../guard/mcp/lines.ts";
import { filterResult, judge, mayNotify, messageOf } from "../../interop/mcp/judge.ts";
import { mcpVocabulary } from "../../interop/mcp/mod.ts";
import { eventsOf } from "../../interop/mcp/server_sent_events.ts";
import { decisionIn } from "../../interop/opa/client.ts";
import { importRules, parseActions, polkitVocabulary } from "../../interop/polkit/mod.ts";
import { readRecording } from "../../interop/recording.ts";
import { FrameDecoder } from "../../interop/sudoers/helper/frames.ts";
import { readCommandRequest, readTerminalSize } from "../../interop/sudoers/helper/request.ts";
import { convertSudoers } from "../../interop/sudoers/import.ts";
import { sudoVocabulary } from "../../interop/sudoers/mod.ts";
import { definePolicy } from "../../mod.ts";
import { defineVocabulary, parsePolicy, type Vocabulary } from "../../policy/mod.ts";
import { attributesOf } from "../../servers/http/request_attributes.ts";
import { targetOf } from "../../servers/http/request_target.ts";
import { isIdentityMap, mapsEveryId } from "../../system/overflow_ids.ts";
import { hasOneUser } from "../../system/private_group.ts";

/** A reader under test. Its corpus is the folder `corpus/NAME`. */
export interface Target {
  readonly name: string;
  /** Texts that mutations insert. */
  readonly words: readonly string[];
  /** Reads the bytes. Throws for a finding. */
  readonly read: (bytes: Uint8Array) => void | Promise<void>;
}

/** Ends a target quietly if the error is one of ours, and otherwise throws it again. */
function requireOurs(error: unknown, isOurs: (error: unknown) => boolean = () => false): void {
  if (error instanceof assert.AssertionError) throw error;
  if (!(error instanceof UcredError) && !isOurs(error)) throw error;
}

/** Runs a reader that may throw errors of ours. Returns `undefined` after one. */
function attempt<T>(read: () => T, isOurs?: (error: unknown) => boolean): T | undefined {
  try {
    return read();
  } catch (error) {
    requireOurs(error, isOurs);
    return undefined;
  }
}

const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");
const utf8 = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Copies bytes into memory of a size, as a system call fills it. */
function wordsOf(bytes: Uint8Array, size: number): Uint32Array {
  const memory = new Uint8Array(size);
  memory.set(bytes.subarray(0, size));
  return new Uint32Array(memory.buffer);
}

/** Memory of libc's account functions: a structure and its texts. */
const ACCOUNT_BYTES = 512;

function readMemory(bytes: Uint8Array): void {
  for (
    const found of [
      decodeUcred(wordsOf(bytes, UCRED.size)),
      decodeXucred(wordsOf(bytes, 76))?.credentials,
      decodeXucred(wordsOf(bytes, 88))?.credentials,
    ]
  ) {
    if (found === undefined) continue;
    assert.ok(isId(found.uid) && isId(found.gid), "an id that no process can have");
    assert.ok(found.pid === undefined || found.pid > 0);
    decodeTokenPid(wordsOf(bytes, AUDIT_TOKEN.size), found);
  }
  const info = wordsOf(bytes, 128);
  decodePidfdIds(info);
  assert.ok((decodePidfdPid(info) ?? 1) > 0);
  const control = decodeControl(bytes, bytes.length, 1);
  assert.ok(control.ucred === undefined || control.ucred.length === 3);
  const address = decodeAddress(bytes, bytes.length);
  assert.ok(address === undefined || address.length <= bytes.length);
  if (bytes.length >= 2) {
    decodeLinuxFamily(new Uint8Array(bytes));
    decodeBsdFamily(bytes);
  }
  const account = new Uint8Array(ACCOUNT_BYTES);
  account.set(bytes.subarray(0, ACCOUNT_BYTES));
  const name = decodeAccountName(account, 1000);
  assert.ok(name !== "" && !name?.includes("\0"));
  const id = decodeAccountId(account);
  assert.ok(id === undefined || id === null || isId(id));
  for (const socket of decodeDiag(bytes)?.sockets ?? []) {
    assert.ok((socket.address?.length ?? 0) <= bytes.length);
  }
}

function readProc(bytes: Uint8Array): void {
  const text = utf8(bytes);
  const start = parseStartTime(text);
  assert.ok(start === undefined || start >= 0);
  isEnding(text);
  const status = parseStatus(text);
  for (const id of Object.values(parseIds(status) ?? {})) assert.ok(isId(id));
  for (const id of parseGroups(status) ?? []) assert.ok(isId(id));
  for (const pid of parsePidNumbers(status) ?? []) assert.ok(Number.isSafeInteger(pid));
  parseCapabilities(status);
  parseNoNewPrivs(status);
  parseSeccomp(status);
  const audit = parseAuditId(text);
  assert.ok(audit === undefined || audit === null || isId(audit));
  parseCmdline(text);
  assert.ok(parseExe(text).path.length <= text.length);
  const groups = parseCgroup(text);
  if (groups !== undefined) {
    const { container } = placeOf(groups.path, groups.others) ?? {};
    assert.ok(container === undefined || container === null || /^[0-9a-f]{64}$/.test(container));
  }
  const namespace = parseNamespace(text);
  assert.ok(namespace === undefined || Number.isSafeInteger(namespace));
  parseHidePid(text);
  if (isIdentityMap(text)) assert.ok(mapsEveryId(text));
  const [passwd = "", group = "", nsswitch = "", subgid = ""] = text.split("\0");
  const files = { passwd, group, nsswitch, subgid, userRecords: [] };
  hasOneUser(files as unknown as Parameters<typeof hasOneUser>[0], 1000, 1000);
}

/** Accounts of any name. */
const ACCOUNTS = { uid: (name: string) => name.length, gid: (name: string) => name.length };

/** A peer whose facts are all unknown. */
const STRANGER = { ambiguous: ["uid", "gid", "groups"] as const };

/** Requires that no rule with conditions about the peer allows anything to a peer without known facts. */
function readPolicy(bytes: Uint8Array): void {
  const policy = attempt(() =>
    parsePolicy(utf8(bytes), { file: "p.yaml", accounts: ACCOUNTS, vocabularies: VOCABULARIES })
  );
  if (policy === undefined) return;
  for (const action of ["read", "GET /", "run"]) {
    const decision = policy.decide(STRANGER, { action });
    const { rules, decision: explained } = policy.explain(STRANGER, { action });
    assert.deepEqual(explained, decision);
    const deciding = rules.find(({ outcome }) => outcome === "decided");
    assert.equal(deciding?.rule, decision.rule);
    if (decision.allowed) assert.deepEqual(deciding?.conditions, [], "it allows without a fact");
  }
}

const VOCABULARIES: readonly Vocabulary[] = [dbusVocabulary, polkitVocabulary, sudoVocabulary];

function readVocabulary(bytes: Uint8Array): void {
  const document = jsonIn(utf8(bytes));
  const found = attempt(
    () => defineVocabulary(document as never),
    (error) => error instanceof TypeError && /^Cannot use the vocabulary: /.test(error.message),
  );
  if (found === undefined) return;
  const rules = Object.keys(found.attributes).map((name) => ({
    name,
    where: { [name]: { empty: true } },
    allow: true,
  }));
  attempt(() =>
    definePolicy({ version: 1, about: found.name, rules } as unknown as PolicyDocument, {
      vocabularies: [found],
    })
  );
}

/** Parses JSON; `undefined` if it is none. */
function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Authenticates, with the bytes in two parts. */
function authenticate(uid: number | undefined, bytes: Uint8Array, cut: number): string {
  const server = new SaslServer({ uid, guid: "0".repeat(32), unixFd: true } as never);
  let replies = "";
  let step: SaslStep | undefined;
  for (const part of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
    if (step !== undefined && step.state !== "waiting") break;
    step = server.receive(part);
    replies += step.reply;
  }
  return `${step?.state}\n${replies}`;
}

function readSasl(bytes: Uint8Array): void {
  const whole = authenticate(1000, bytes, bytes.length);
  for (const cut of [0, 1, bytes.length >> 1]) {
    assert.equal(authenticate(1000, bytes, cut), whole, "the parts decide");
  }
  if (whole.startsWith("authenticated")) {
    // "1000" in hexadecimal, or no claim at all.
    assert.match(latin1(bytes), /EXTERNAL +31303030|DATA +31303030|DATA *\r\n/);
  }
  assert.doesNotMatch(authenticate(undefined, bytes, bytes.length), /^authenticated/);
}

const isMalformed = (error: unknown) => error instanceof MalformedMessage;

function readDbus(bytes: Uint8Array): void {
  if (bytes.length < FIXED_BYTES) return;
  const lengths = attempt(() => messageLengths(bytes.subarray(0, FIXED_BYTES)), isMalformed);
  if (lengths === undefined) return;
  const header = attempt(() => parseHeader(bytes.subarray(0, lengths.header)), isMalformed);
  const body = bytes.subarray(lengths.header, lengths.header + lengths.body);
  for (const isLittleEndian of [true, false]) {
    attempt(() => readTextArray(body, isLittleEndian), isMalformed);
    attempt(() => readTexts(body, isLittleEndian, 2), isMalformed);
  }
  if (header === undefined) return;
  const again: Header = parseHeader(encodeHeader(header));
  assert.deepEqual(again, header, "it is written as another message");
  if (!isDriverCall(header)) return;
  const call = attempt(() => driverCall(header, body), isMalformed);
  if (call?.kind === "match") mayEavesdrop(call.rule);
}

const FIELDS = requestFields(new Set());

/** Parses a request, with the body in two parts. Returns what is forwarded. */
function requestIn(bytes: Buffer, cut: number): string | undefined {
  const end = endOfHead(bytes, 0);
  if (end === -1) return undefined;
  const parser = new RequestParser(FIELDS);
  try {
    const first = Math.min(bytes.length, end + 4 + cut);
    parser.parseHead(bytes.subarray(0, first), end);
    const { request } = parser;
    if (parser.error !== undefined || request === undefined) return undefined;
    let parts = [...parser.parts];
    if (!parser.isComplete && first < bytes.length) {
      parser.parseBody(bytes.subarray(first));
      parts = [...parts, ...parser.parts];
    }
    if (parser.error !== undefined || !parser.isComplete) return undefined;
    const { method, target, lines, framing } = request;
    return JSON.stringify([
      method,
      target,
      lines,
      framing,
      Buffer.concat(parts).toString("latin1"),
    ]);
  } finally {
    parser.close();
  }
}

function readHttp(bytes: Uint8Array): void {
  const message = Buffer.from(bytes);
  const found = requestIn(message, message.length);
  for (const cut of [0, 1, message.length >> 1]) {
    assert.equal(requestIn(message, cut), found, "the parts decide");
  }
  if (found !== undefined) {
    const [method, target, lines, framing, body] = JSON.parse(found) as [
      ...[method: string, target: string, lines: string[], framing?: number | "chunked"],
      ...[body: string],
    ];
    const isChunked = framing === "chunked";
    const framed = isChunked
      ? "Transfer-Encoding: chunked\r\n"
      : typeof framing === "number"
      ? `Content-Length: ${framing}\r\n`
      : "";
    const head = `${method} ${target} HTTP/1.1\r\n${lines.join("")}${framed}\r\n`;
    const parts = body === "" ? [] : [Buffer.from(body, "latin1")];
    const written = serialise({ head, parts, isChunked, isEnd: true });
    const bytes = typeof written === "string" ? Buffer.from(written, "latin1") : written;
    // The upstream must read the message that was decided.
    assert.equal(requestIn(bytes, bytes.length), found, "it is written as another request");
    const decided = targetOf(method, target);
    if (decided !== undefined && method !== "CONNECT" && target !== "*") {
      assert.equal(targetOf(method, decided.url)?.action, decided.action, "two actions");
      const attributes = attributesOf(decided.url, () => [body]);
      for (const name of ["host", "contentType", "query"]) void attributes[name];
    }
  }
  const end = endOfHead(message, 0);
  if (end === -1) return;
  const parser = new ResponseParser();
  parser.parseHead(message, end);
  if (parser.error === undefined && !parser.isComplete) parser.finish();
  parser.close();
}

function readHttp2(bytes: Uint8Array): void {
  const raw = latin1(bytes).split("\n");
  if (raw.length % 2 === 1) raw.pop();
  const head = requestHead(raw, FIELDS);
  if ("method" in head) {
    assert.doesNotMatch(JSON.stringify(head.fields), /\\[rn0]/, "a line ends in a field");
    targetOf(head.method, head.path);
  }
  responseHead(raw);
  trailersOf(raw, FIELDS);
}

/** Whether a JSON value has `HostConfig.Privileged: true`, as Go's decoder reads names: without case. */
function isPrivileged(value: unknown): boolean {
  const field = (of: unknown, name: string): readonly unknown[] =>
    typeof of === "object" && of !== null
      ? Object.entries(of).filter(([key]) => key.toLowerCase() === name).map(([, each]) => each)
      : [];
  return field(value, "hostconfig").some((config) => field(config, "privileged").includes(true));
}

function readDocker(bytes: Uint8Array): void {
  const text = latin1(bytes);
  const end = text.indexOf("\n\n");
  const [first = "", ...lines] = text.slice(0, end === -1 ? undefined : end).split("\n");
  const [method = "", target = ""] = first.split(" ");
  const header = (name: string) =>
    lines.find((line) => line.toLowerCase().startsWith(`${name}:`))?.slice(name.length + 1).trim();
  const body = end === -1 ? new Uint8Array() : bytes.subarray(end + 2);
  const value = jsonIn(utf8(body));
  const read = readJson(body);
  if ("value" in read) {
    assert.notEqual(value, undefined, "JSON.parse() rejects what was read");
    assert.deepEqual(JSON.parse(writeJson(read.value)), value, "it is written as another value");
  }
  if (value !== undefined) withContainer({}, value);
  const request = readRequest({ method, target, header } as never);
  if (isRefusal(request)) return;
  const judged = readBody(request, body);
  if (isRefusal(judged)) return;
  if (request.action === "container.create" && isPrivileged(value)) {
    assert.ok(judged.dangers.includes("HostConfig.Privileged"), "privileged is no danger");
  }
}

const MCP_POLICY = definePolicy({
  version: 1,
  about: "mcp",
  rules: [{
    name: "read",
    actions: "tools/call read",
    where: { arguments: { path: { every: "/srv/*", empty: false } } },
    allow: true,
  }],
}, { vocabularies: [mcpVocabulary] });

/** Requires that an allowed message is the one call that the policy allows, also as JSON.parse() reads it. */
async function readMcp(bytes: Uint8Array): Promise<void> {
  const events = [await eventsIn(bytes, bytes.length), await eventsIn(bytes, 7)];
  assert.deepEqual(events[0], events[1], "the parts decide");
  const read = readJson(bytes);
  if ("problem" in read) return;
  const value = plainOf(read.value);
  const message = messageOf(value);
  if (message.kind !== "request" && message.kind !== "notification") return;
  const decide = (action: string, attributes: object) =>
    MCP_POLICY.decide(STRANGER, { action, attributes: attributes as Attributes });
  const refuse = () => MCP_POLICY.decide(STRANGER);
  const { params } = value as { readonly params?: unknown };
  const { error } = judge({ decide, peek: decide, refuse }, message.kind, message.method, params);
  if (error !== undefined) return;
  const sent = JSON.parse(writeJson(read.value));
  assert.deepEqual([sent.method, sent.params.name], ["tools/call", "read"]);
  assert.ok([sent.params.arguments.path].flat(64).length > 0);
  for (const path of [sent.params.arguments.path].flat(64)) assert.match(path, /^\/srv\/[^/]*$/s);
}

async function linesIn(bytes: Buffer, partBytes: number): Promise<readonly string[]> {
  let at = 0;
  const some = (most: number) => {
    const part = bytes.subarray(at, at += Math.min(most, partBytes));
    return Promise.resolve(part.length === 0 ? undefined : part);
  };
  const reader = new LineReader({ some } as ConstructorParameters<typeof LineReader>[0], 1 << 20);
  const lines: string[] = [];
  for (let line; (line = await reader.next()) !== undefined;) lines.push(line.toString("latin1"));
  return lines;
}

/** Requires that a client sees only the tool that it may call, and that each message stays one line. */
async function readMcpLines(bytes: Uint8Array): Promise<void> {
  const all = Buffer.from(bytes);
  const lines = await linesIn(all, Math.max(1, all.length));
  assert.deepEqual(await linesIn(all, Math.max(1, all.length >> 1)), lines, "the parts decide");
  const peek = (action: string) =>
    MCP_POLICY.decide(STRANGER, {
      action,
      attributes: { name: "read", arguments: { path: "/srv/a" } },
    });
  for (const line of lines) {
    const value = jsonIn(utf8(Buffer.from(line, "latin1")));
    const message = messageOf(value);
    if (message.kind === "malformed") continue;
    const written = lineOf(JSON.stringify(value));
    assert.equal(written.indexOf(10), written.length - 1, "two lines");
    assert.deepEqual(JSON.parse(written.toString()), value);
    const { params, result } = value as { readonly params?: unknown; readonly result?: unknown };
    if (message.kind !== "response") mayNotify({ peek }, message.method, params);
    else {
      const kept = filterResult({ peek }, result) as { readonly tools?: unknown };
      if (!Array.isArray(kept?.tools)) continue;
      for (const tool of kept.tools) assert.equal((tool as { name: unknown }).name, "read");
    }
  }
}

/** The data of events that arrive in parts of a size. */
async function eventsIn(bytes: Uint8Array, size: number): Promise<readonly string[]> {
  const parts = async function* () {
    for (let at = 0; at < bytes.length; at += size) {
      yield await Promise.resolve(bytes.subarray(at, at + size));
    }
  };
  const events: string[] = [];
  for await (const data of eventsOf(parts())) events.push(data);
  return events;
}

/** Reads a converted policy. It may have a name that no policy may have: one with invisible characters. */
function readConverted(document: PolicyDocument | undefined, vocabulary: Vocabulary): void {
  if (document === undefined) return;
  attempt(() => definePolicy(document, { accounts: ACCOUNTS, vocabularies: [vocabulary] }));
}

function readSudoers(bytes: Uint8Array): void {
  const [json = "", sudoers = ""] = utf8(bytes).split("\0");
  const lookups = {
    groupName: (gid: number) => `g${gid}`,
    resolveFolder: (folder: string) => folder,
  };
  readConverted(attempt(() => convertSudoers({ json, sudoers }, lookups)), sudoVocabulary);
}

function readPolkit(bytes: Uint8Array): void {
  const text = utf8(bytes);
  attempt(() => parseActions(text, "a.policy"));
  readConverted(attempt(() => importRules([{ file: "a.rules", text }])), polkitVocabulary);
}

let folder: string | undefined;

function readBusConfiguration(bytes: Uint8Array): void {
  if (folder === undefined) {
    folder = mkdtempSync(join(tmpdir(), "ucred-"));
    process.once("exit", () => rmSync(folder!, { recursive: true, force: true }));
  }
  // An included file could be any device.
  if (/include/i.test(latin1(bytes))) return;
  const file = join(folder, "bus.conf");
  writeFileSync(file, bytes);
  const lookups = {
    idOf: (_: string, name: string) => name.length,
    nameOf: () => undefined,
    isSelinuxEnabled: () => false,
  };
  readConverted(attempt(() => convertBusPolicy([file], lookups as never)), dbusVocabulary);
}

function readHelper(bytes: Uint8Array): void {
  const all = Buffer.from(bytes);
  const decode = (cut: number) => {
    const decoder = new FrameDecoder();
    const parts = [all.subarray(0, cut), all.subarray(cut)];
    return parts.flatMap((part) => [...decoder.decode(part)])
      .map(({ type, content }) => `${type} ${content.toString("hex")}`);
  };
  const isTooLarge = (error: unknown) =>
    error instanceof RangeError && /too large/.test(`${error}`);
  const whole = attempt(() => decode(all.length), isTooLarge);
  if (whole !== undefined) assert.deepEqual(decode(all.length >> 1), whole, "the parts decide");
  const text = utf8(bytes);
  const request = readCommandRequest(text);
  if (typeof request !== "string") {
    assert.ok([request.command, ...request.args].every((each) => !each.includes("\0")));
  }
  readTerminalSize(text);
}

const isUsage = (error: unknown) => error instanceof UsageError;

function readRecords(bytes: Uint8Array): void {
  attempt(() => readRecording(bytes, "recording"));
  attempt(() => requestFrom(utf8(bytes), undefined), isUsage);
}

/** Parses a command line of words that NUL separates. No command runs. */
async function readArguments(bytes: Uint8Array): Promise<void> {
  const words = utf8(bytes).split("\0");
  const program = programFor(() => {});
  for (const command of everyCommand(program)) {
    command.action(() => {});
    command.configureOutput({ writeOut: () => {}, writeErr: () => {}, outputError: () => {} });
  }
  try {
    await program.parseAsync(words, { from: "user" });
  } catch (error) {
    requireOurs(error, (error) => error instanceof CommanderError || isUsage(error));
  }
}

function readOpaAnswer(bytes: Uint8Array): void {
  const text = utf8(bytes);
  for (const status of [200, 201, 500]) {
    const decision = attempt(() => decisionIn(status, text));
    const value = jsonIn(text);
    const isTrue = typeof value === "object" && value !== null && !Array.isArray(value) &&
      Object.hasOwn(value, "result") && (value as { result: unknown }).result === true;
    assert.equal(decision?.allowed ?? false, status === 200 && isTrue);
  }
}

const JSON_WORDS = [
  '"',
  "{",
  "}",
  "[",
  "]",
  ":",
  ",",
  "null",
  "true",
  "-1",
  "1e9",
  "\\u0000",
  "\\ud800",
];

/** All targets. */
export const TARGETS: readonly Target[] = [
  { name: "memory", words: ["\0", "\xff", "\xff\xff\xff\xff", "\0\0\0\0"], read: readMemory },
  {
    name: "proc",
    words: ["\n", "\t", "\0", ":", "/", "..", " (deleted)", "0::/", "4294967295", "hidepid=", "_"],
    read: readProc,
  },
  {
    name: "policy",
    words: [
      ..."{}[]:,-&*!|>'\"%@`#?\n\r\t \\0".split(""),
      "---\n",
      "<<: ",
      "&a ",
      "*a",
      "not: ",
      "\u202e",
    ],
    read: readPolicy,
  },
  { name: "vocabulary", words: [...JSON_WORDS, "__proto__", "texts", "any"], read: readVocabulary },
  {
    name: "sasl",
    words: [
      "\0",
      "\r\n",
      "\r",
      "\n",
      "AUTH ",
      "EXTERNAL ",
      "31303030",
      "30",
      "DATA",
      "BEGIN",
      "CANCEL",
      " ",
    ],
    read: readSasl,
  },
  { name: "dbus", words: ["\0", "l", "B", "\x01", "\x08", "s\0", "g\0", "\xff"], read: readDbus },
  {
    name: "http",
    words: [
      ...[
        "\r",
        "\n",
        "\r\n",
        "\r\n\r\n",
        "\0",
        " ",
        "\t",
        ":",
        ";",
        ",",
        "%2e",
        "%2f",
        "..",
        "\x80",
        "\xff",
      ],
      ...[
        "0\r\n\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: y\r\n",
        "_",
        "HTTP/1.0",
      ],
    ],
    read: readHttp,
  },
  {
    name: "http2",
    words: [
      "\n",
      "\r",
      "\0",
      ":path",
      ":method",
      ":authority",
      "te",
      "host",
      "content-length",
      "..",
      "%2e",
    ],
    read: readHttp2,
  },
  {
    name: "docker",
    words: [
      ...JSON_WORDS,
      "HostConfig",
      "hostconfig",
      "Privileged",
      "privileged",
      "\n\n",
      "%2f",
      "..",
      "?",
      "&",
    ],
    read: readDocker,
  },
  {
    name: "sudoers",
    words: [...JSON_WORDS, "\0", "!", "ALL", "negated", "command", "/bin/", "*", "\\\\", "^"],
    read: readSudoers,
  },
  {
    name: "polkit",
    words: [
      ..."<>&;/=\"'(){}!".split(""),
      "<!--",
      "]]>",
      "&#0;",
      "return ",
      "function",
      "polkit.Result.YES",
    ],
    read: readPolkit,
  },
  {
    name: "bus-configuration",
    words: [
      ..."<>&;/=\"'".split(""),
      "<!--",
      "]]>",
      "allow",
      "deny",
      "own",
      "send_type",
      "*",
      "user",
    ],
    read: readBusConfiguration,
  },
  {
    name: "helper",
    words: [...JSON_WORDS, "\x01\0\0\0\0", "\x02\0\0\0\x01", "\xff\xff", "\0"],
    read: readHelper,
  },
  {
    name: "recording",
    words: [...JSON_WORDS, "\n", "entry", "count", "caller"],
    read: readRecords,
  },
  {
    name: "arguments",
    words: [
      "\0",
      "-",
      "--",
      "=",
      "--json",
      "--policy",
      "--listen",
      "help",
      "guard",
      "policy",
      "@",
      "0777",
      "\n",
    ],
    read: readArguments,
  },
  {
    name: "opa",
    words: [...JSON_WORDS, "result", "decision_id", "__proto__"],
    read: readOpaAnswer,
  },
  {
    name: "mcp",
    words: [
      ...JSON_WORDS,
      ...["\n", "\r", "data:", "jsonrpc", "id", "method", "params", "name", "arguments", "path"],
      ...["tools/call", "read", "/srv/", "/etc/", "Path", "Name", "__proto__", ".", "\u017f"],
    ],
    read: readMcp,
  },
  {
    name: "mcp-lines",
    words: [
      ...JSON_WORDS,
      "\n",
      "\r",
      "tools",
      "result",
      "name",
      "Name",
      "read",
      "write",
      "\u2028",
    ],
    read: readMcpLines,
  },
];
