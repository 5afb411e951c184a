/** Writes a judged request anew, so that nothing is forwarded that was not judged. */

import { isJsonObject, type JsonObject, type JsonValue, readJson, writeJson } from "../json.ts";
import { buildLabels, ReferenceAt, type Step } from "./judge.ts";
import { filtersIn, quoted, refuse } from "./request.ts";
import type { JudgedRequest, Refusal, Replacements, WrittenRequest } from "./types.ts";

/**
 * Writes a request from what was judged, with full ids for names, and with labels, fields and filters.
 *
 * @returns A refusal if two keys of an object become the same id.
 */
export function writeRequest(
  { request, body, references }: JudgedRequest,
  { targets, references: ids, labels, fields = [], filters }: Replacements = {},
): WrittenRequest | Refusal {
  const { version, route, action } = request;
  const query = new Map(request.query);
  const names = request.targets.map(({ name }, at) => targets?.[at] ?? name);
  if (route === "/commit") query.set("container", [names[0]!]);
  let at = 0;
  const path = route.replaceAll(/\{\w+\}/g, () => encodedName(names[at++]!));

  let value = body;
  const set = (steps: readonly Step[], to: JsonValue) => value = replaced(value, steps, () => to);
  for (const reference of references) {
    const id = ids?.get(reference);
    if (id === undefined || !(reference instanceof ReferenceAt) || reference.isKey) continue;
    const text = `${reference.around[0]}${id}${reference.around[1]}`;
    if (reference.parameter === undefined) set(reference.steps, text);
    else query.set(reference.parameter, [text]);
  }
  for (const reference of references) {
    const id = ids?.get(reference);
    if (id === undefined || !(reference instanceof ReferenceAt) || !reference.isKey) continue;
    const key = reference.steps.at(-1) as string;
    let isTwice = false;
    value = replaced(value, reference.steps.slice(0, -1), (object) => {
      isTwice = key !== id && (object as JsonObject).has(id);
      return new Map([...object as JsonObject].map(([name, of]) => [name === key ? id : name, of]));
    });
    if (isTwice) return refuse(400, `The field ${quoted(reference.path)} is repeated as an id`);
  }
  for (const { path, value } of fields) set(path, value);
  if (labels !== undefined) {
    if (action === "build") {
      const all = new Map([
        ...buildLabels(query.get("labels")?.[0] ?? ""),
        ...Object.entries(labels),
      ]);
      query.set("labels", [writeJson(all)]);
    } else for (const [name, text] of Object.entries(labels)) set(["Labels", name], text);
  }
  if (filters !== undefined) query.set("filters", [joinedFilters(query.get("filters"), filters)]);

  const parameters = [...query].flatMap(([name, values]) =>
    values.map((value) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
  );
  const prefix = version === undefined ? "" : `/v${version}`;
  const isStreamed = request.body === "tar" || request.body === "raw";
  return {
    target: `${prefix}${path}${parameters.length === 0 ? "" : `?${parameters.join("&")}`}`,
    contentType: isStreamed
      ? "application/x-tar"
      : value === undefined
      ? undefined
      : "application/json",
    body: value === undefined ? undefined : new TextEncoder().encode(writeJson(value)),
  };
}

/** The path of an object's name: slashes of repositories, colons and "@" stay. */
const encodedName = (name: string): string =>
  encodeURIComponent(name).replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%40", "@");

/** Returns a copy of a value that is changed at one path. Missing objects on the path are added. */
function replaced(
  value: JsonValue | undefined,
  [step, ...rest]: readonly Step[],
  change: (value: JsonValue | undefined) => JsonValue,
): JsonValue {
  if (step === undefined) return change(value);
  if (typeof step === "number") {
    return (value as readonly JsonValue[]).map((each, at) =>
      at === step ? replaced(each, rest, change) : each
    );
  }
  const object = new Map(isJsonObject(value) ? value : []);
  return object.set(step, replaced(object.get(step), rest, change));
}

/** Adds filters to those of a request. */
function joinedFilters(
  given: readonly string[] | undefined,
  added: { readonly [name: string]: readonly string[] },
): string {
  const read = readJson(new TextEncoder().encode(given?.[0] || "{}"));
  const filters = new Map("problem" in read ? [] : filtersIn(read.value));
  for (const [name, values] of Object.entries(added)) {
    filters.set(name, [...filters.get(name) ?? [], ...values]);
  }
  return writeJson(filters);
}
