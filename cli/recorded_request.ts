/** The requests that `ucred policy explain --request` explains: records of a guard, and requests as JSON. */

import type { Attributes } from "../core/policy/decide/decision.ts";
import type { PlainPeer } from "../core/policy/decide/subject.ts";
import { isObject } from "../core/policy/document/shape.ts";
import type { VocabularyAttribute } from "../core/policy/document/vocabulary.ts";
import { MAX_LOGGED_CHARACTERS, MAX_LOGGED_TEXTS } from "../core/policy/tested_attributes.ts";
import { isRefusal, readBody, readRequest } from "../interop/docker/mod.ts";
import { type Step, stepsOf } from "../interop/mcp/judge.ts";
import { entryIn, type RecordedCaller } from "../interop/recording.ts";
import { attributesOf } from "../servers/http/request_attributes.ts";
import { targetOf } from "../servers/http/request_target.ts";
import { UsageError } from "./output.ts";

/** A request to explain. */
export interface RequestToExplain {
  /** The sender; `undefined` if the text does not contain it. */
  readonly peer: PlainPeer | undefined;
  readonly action: string;
  readonly attributes: Attributes | undefined;
  /** Notes to print with the request: one sentence each. */
  readonly notes: readonly string[];
}

/** The vocabulary of a policy. */
interface About {
  readonly name: string;
  readonly attributes: { readonly [name: string]: VocabularyAttribute };
}

/**
 * Reads a line of an audit log, a line of a recording, or a request: `{ "method", "path", "headers", "body" }`, and
 * with `about: mcp` `{ "method", "params" }`.
 *
 * @throws {UsageError} If the text is none of these, or the guard would refuse the request.
 */
export function requestFrom(text: string, about: About | undefined): RequestToExplain {
  let record: unknown;
  try {
    record = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`--request is not JSON: ${(error as Error).message}`);
  }
  if (!isObject(record)) throw new UsageError("--request must be a JSON object");
  if ("method" in record) return ofRequest(record, about);
  if ("caller" in record) return ofRecording(record);
  if (record["event"] === "decided") return ofAudit(record, about);
  throw new UsageError(
    '--request must be a record of an audit log with the event "decided", an entry of guard --learn, ' +
      'or a request with "method" and "path"',
  );
}

function ofRecording(record: { readonly [name: string]: unknown }): RequestToExplain {
  const entry = entryIn(record, 0);
  if (entry === undefined) throw new UsageError("--request is not an entry of guard --learn");
  const { caller, action, about, allowed } = entry;
  const facts = about === "absent"
    ? ["It was about an object that does not exist"]
    : about === "some"
    ? ["It was a list of the objects that the policy allowed"]
    : about === "long"
    ? ["Its attributes are not recorded, because they are too long"]
    : [];
  return {
    ...{ peer: peerOf(caller), action, attributes: entry.attributes },
    notes: [`The record: ${allowed ? "allowed" : "denied"}`, ...facts],
  };
}

function peerOf({ uid, gid, groups, unit, container, ours }: RecordedCaller): PlainPeer {
  const namespaces = ours && Object.fromEntries(ours.map((kind) => [kind, { ours: true }]));
  return {
    ...(uid !== undefined && { uid }),
    ...(gid !== undefined && { gid }),
    ...(groups !== undefined && { groups }),
    process: {
      ...(unit !== undefined && { unit }),
      ...(container !== undefined && { container }),
      ...(namespaces !== undefined && { namespaces }),
    },
  };
}

function ofAudit(
  record: { readonly [name: string]: unknown },
  about: About | undefined,
): RequestToExplain {
  const { peer, action, attributes, allowed, reason } = record;
  if (typeof action !== "string") throw new UsageError("--request has no action");
  const { uid, gid, ambiguous } = isObject(peer) ? peer : {} as { [name: string]: unknown };
  const known: { [name: string]: unknown } = {};
  const missing: string[] = [];
  for (const [name, value] of Object.entries(isObject(attributes) ? attributes : {})) {
    const attribute = about !== undefined && Object.hasOwn(about.attributes, name)
      ? about.attributes[name]
      : undefined;
    const isWhole = attribute !== undefined && attribute.secret !== true && !isShortened(value);
    if (isWhole) known[name] = value;
    else missing.push(name);
  }
  const notes = [`The record: ${allowed === true ? "allowed" : "denied"}. ${String(reason ?? "")}`];
  notes.push("An audit log has no groups and no process: set them with --user, --group or --peer");
  if (about !== undefined) {
    notes.push("An audit log may lack attributes that its policy did not test");
    if (missing.length > 0) notes.push(`It has no value of ${missing.join(", ")}`);
  }
  return {
    peer: { uid, gid, ...(ambiguous !== undefined && { ambiguous }) } as PlainPeer,
    ...{ action, attributes: about === undefined ? undefined : known, notes },
  };
}

/** Whether a value in an audit log may have been longer, because it reaches a limit. */
function isShortened(value: unknown): boolean {
  if (typeof value === "string") return value.length >= MAX_LOGGED_CHARACTERS;
  return Array.isArray(value) && (value.length >= MAX_LOGGED_TEXTS || value.some(isShortened));
}

function ofRequest(
  record: { readonly [name: string]: unknown },
  about: About | undefined,
): RequestToExplain {
  if (about?.name === "mcp") return ofMcp(record);
  const { method, path, headers = {}, body, ...others } = record;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw new UsageError(`--request has the unknown field "${unknown}"`);
  if (typeof method !== "string" || typeof path !== "string") {
    throw new UsageError('--request needs the texts "method" and "path"');
  }
  if (!isObject(headers) || !Object.values(headers).every((value) => typeof value === "string")) {
    throw new UsageError('--request: "headers" must be an object of texts');
  }
  const fields = new Map(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value as string]),
  );
  return about?.name === "docker"
    ? ofDocker(method, path, fields, body)
    : ofHttp(method, path, fields, about);
}

function ofDocker(
  method: string,
  target: string,
  fields: ReadonlyMap<string, string>,
  body: unknown,
): RequestToExplain {
  const type = body === undefined ? undefined : "application/json";
  const request = readRequest({
    ...{ method, target },
    header: (name) => fields.get(name) ?? (name === "content-type" ? type : undefined),
  });
  const text = body === undefined ? "" : typeof body === "string" ? body : JSON.stringify(body);
  const judged = isRefusal(request) ? request : readBody(request, new TextEncoder().encode(text));
  if (isRefusal(request) || isRefusal(judged)) {
    const { status, message } = judged as { readonly status: number; readonly message: string };
    throw new UsageError(`--request: the guard answers ${status}: ${message}`);
  }
  const { action, targets } = request;
  const notes: string[] = [];
  const [object] = targets;
  if (object !== undefined && object.kind !== "image") {
    notes.push(
      `The guard also knows the ${object.kind}: set its owner and so on with --attributes`,
    );
  }
  for (const { action, kind, name, path } of judged.references) {
    if (action === undefined) continue;
    notes.push(`It also needs ${action} of the ${kind} ${JSON.stringify(name)}: ${path}`);
  }
  return { peer: undefined, action, attributes: judged.attributes, notes };
}

/** A message of JSON-RPC; `jsonrpc` and `id` may be missing. */
function ofMcp(record: { readonly [name: string]: unknown }): RequestToExplain {
  const { jsonrpc: _, id: __, method, params = {}, ...others } = record;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw new UsageError(`--request has the unknown field "${unknown}"`);
  if (typeof method !== "string" || !isObject(params)) {
    throw new UsageError('--request needs the text "method" and the object "params"');
  }
  const steps = stepsOf(method, params);
  if ("problem" in steps) {
    throw new UsageError(`--request: the guard answers ${steps.code}: ${steps.problem}`);
  }
  const [{ action, attributes }, ...more] = steps as [Step, ...Step[]];
  const notes = more.map(({ action, isSpelling }) =>
    isSpelling ? `A rule that denies ${action} also denies this request` : `It also needs ${action}`
  );
  return { peer: undefined, action, attributes, notes };
}

function ofHttp(
  method: string,
  path: string,
  fields: ReadonlyMap<string, string>,
  about: About | undefined,
): RequestToExplain {
  const target = targetOf(method, path);
  if (target === undefined) {
    throw new UsageError("--request: the guard answers 400: ambiguous path");
  }
  const { action, url } = target;
  const valuesOf = (name: string) => {
    const value = fields.get(name);
    return value === undefined ? [] : [value];
  };
  const attributes = about?.name === "http" ? { ...attributesOf(url, valuesOf) } : undefined;
  return { peer: undefined, action, attributes, notes: [] };
}
