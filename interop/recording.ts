/** The file of `ucred guard --learn`: the requests of each caller, one JSON object per line. */

import { isId } from "../core/credentials.ts";
import { isObject } from "../core/policy/document/shape.ts";
import { NAMESPACE_KINDS, type NamespaceKind } from "../core/process.ts";
import { fileError } from "./file_error.ts";

/** The modes of a guard that decide requests. */
export type RecordedMode = "http" | "docker";

/** The caller of a request. Facts that are unknown, or that the caller does not have, are missing. */
export interface RecordedCaller {
  /** Effective uid; missing if it is ambiguous. */
  readonly uid?: number;
  /** Effective gid; missing if it is ambiguous. */
  readonly gid?: number;
  /** All groups; missing if one is ambiguous. */
  readonly groups?: readonly number[];
  /** systemd unit. */
  readonly unit?: string;
  /** Container id. */
  readonly container?: string;
  /** Namespaces that the caller shares with the guard. */
  readonly ours?: readonly NamespaceKind[];
}

/** The value of an attribute in a recording. */
export type RecordedValue = boolean | number | string | null | readonly string[];

/** Attributes of a request by name, without secret ones. */
export interface RecordedAttributes {
  readonly [name: string]: RecordedValue;
}

/** A recorded request. */
export interface LearnedRequest {
  readonly action: string;
  /** Missing if there are none, or if they are too long. */
  readonly attributes?: RecordedAttributes | undefined;
  /**
   * The object of the request, if it is not an object with these attributes. "absent": it does not exist;
   * "some": the objects of a list that the policy allows; "long": its attributes are too long.
   */
  readonly about?: "absent" | "some" | "long" | undefined;
  readonly allowed: boolean;
}

/** An entry of a recording: a caller, a request, and how often the caller sent it. */
export interface RecordedEntry extends LearnedRequest {
  readonly caller: RecordedCaller;
  readonly count: number;
  /** The line of the file, from 1. */
  readonly line: number;
}

/** A recording. */
export interface Recording {
  readonly mode: RecordedMode;
  readonly entries: readonly RecordedEntry[];
  /** The length of the complete lines in bytes. A guard that was killed may leave an incomplete one. */
  readonly bytes: number;
}

/** The first line of a recording. */
export function headerOf(mode: RecordedMode): object {
  return { recording: 1, mode };
}

const CALLER_FIELDS = ["uid", "gid", "groups", "unit", "container", "ours"] as const;

/**
 * Reads a recording. A last line without its line end is ignored.
 *
 * @param file The name for messages.
 * @throws {UcredError} `ERR_UCRED_POLICY` with file and line, if a line cannot be read.
 */
export function readRecording(bytes: Uint8Array, file: string): Recording {
  const end = bytes.lastIndexOf(10) + 1;
  const fail = (line: number, message: string) =>
    fileError("read the recording", file, message, { line });
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, end));
  } catch {
    throw fail(1, "it is not in UTF-8");
  }
  const lines = text.split("\n").slice(0, -1);
  let mode: RecordedMode | undefined;
  const entries: RecordedEntry[] = [];
  for (const [index, content] of lines.entries()) {
    const line = index + 1;
    const record = parsed(content);
    if (record === undefined) throw fail(line, "it is not a JSON object");
    if (index === 0) {
      mode = record["mode"] === "http" || record["mode"] === "docker" ? record["mode"] : undefined;
      if (record["recording"] !== 1 || mode === undefined) {
        throw fail(line, 'the first line of a recording has "recording" and "mode"');
      }
      continue;
    }
    const { entry, count } = record;
    if (entry !== undefined) {
      const at = typeof entry === "number" ? entry - 1 : -1;
      const known = entries[at];
      if (known === undefined || !isCount(count)) {
        throw fail(line, "it counts an entry that does not exist, or its count is not above 0");
      }
      entries[at] = { ...known, count: known.count + count };
      continue;
    }
    const read = entryIn(record, line);
    if (read === undefined) throw fail(line, "it is not an entry of a recording");
    entries.push(read);
  }
  if (mode === undefined) throw fail(1, "the recording is empty");
  return { mode, entries, bytes: end };
}

const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) > 0;

function parsed(text: string): { readonly [name: string]: unknown } | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

const isText = (value: unknown): value is string => typeof value === "string";
const isTexts = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every(isText);
const isOptional = (value: unknown, is: (value: unknown) => boolean) =>
  value === undefined || is(value);

/** Returns the entry in a line; `undefined` if it is none. */
export function entryIn(
  record: { readonly [name: string]: unknown },
  line: number,
): RecordedEntry | undefined {
  const { caller, action, attributes, about, allowed } = record;
  if (!isObject(caller) || !isText(action) || typeof allowed !== "boolean") return undefined;
  const { uid, gid, groups, unit, container, ours } = caller;
  const isCaller =
    Object.keys(caller).every((name) => (CALLER_FIELDS as readonly string[]).includes(name)) &&
    [uid, gid].every((id) => isOptional(id, isId)) &&
    isOptional(groups, (value) => Array.isArray(value) && value.every(isId)) &&
    [unit, container].every((text) => isOptional(text, isText)) &&
    isOptional(
      ours,
      (value) =>
        isTexts(value) && value.every((kind) => (NAMESPACE_KINDS as string[]).includes(kind)),
    );
  const isRequest =
    isOptional(about, (value) => value === "absent" || value === "some" || value === "long") &&
    isOptional(attributes, (value) => isObject(value) && Object.values(value).every(isValue));
  if (!isCaller || !isRequest) return undefined;
  return {
    ...{ caller: caller as RecordedCaller, action, allowed, count: 1, line },
    attributes: attributes as RecordedAttributes | undefined,
    about: about as LearnedRequest["about"],
  };
}

function isValue(value: unknown): value is RecordedValue {
  return value === null || typeof value === "boolean" || typeof value === "string" ||
    Number.isFinite(value) || isTexts(value);
}
