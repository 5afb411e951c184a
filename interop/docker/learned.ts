/** Requests to the engine in recordings: the attributes that a recording keeps, and the tests of a rule for them. */

import type { Attributes } from "../../core/policy/decide/decision.ts";
import type { RecordedAttributes, RecordedEntry, RecordedValue } from "../recording.ts";
import type { AttributeTest, Tests } from "../suggested_rules.ts";
import { dockerVocabulary } from "./vocabulary.ts";

/** Whether an action is about one existing container, exec, volume or network. */
function isOnObject(action: string): boolean {
  return /^(container|exec|volume|network)\./.test(action) &&
    !/\.(create|list|prune)$/.test(action);
}

/** Attributes of an action on an object that the request determines; the object determines the others. */
const OF_REQUEST: { readonly [action: string]: readonly string[] } = {
  "container.exec": ["privileged", "user", "group"],
  "exec.start": ["privileged", "user", "group"],
  "container.archive.read": ["path"],
  "container.archive.write": ["path"],
  "container.commit": ["tags"],
  "container.update": ["restartPolicy", "devices", "cgroupParent"],
};

/**
 * Returns the attributes that a recording keeps. It keeps no secret attributes, no full ids, and no names of own
 * and new objects. Of an existing object, it keeps only the name and the owner.
 */
export function keptAttributes(
  action: string,
  attributes: Attributes,
  uid: number | undefined,
): RecordedAttributes | undefined {
  const isOwn = uid !== undefined && attributes["owner"] === uid;
  const names = isOnObject(action)
    ? [...isOwn ? [] : ["name"], "owner", "dangers", ...OF_REQUEST[action] ?? []]
    : Object.keys(dockerVocabulary.attributes).filter((name) =>
      name !== "id" && !(name === "name" && action.endsWith(".create"))
    );
  const kept: { [name: string]: RecordedValue } = {};
  for (const name of names) {
    const value = attributes[name];
    const { secret = false, actions } = dockerVocabulary.attributes[name]!;
    const isOfAction = actions === undefined || actions.includes(action);
    if (!secret && isOfAction && isRecordable(value)) kept[name] = value;
  }
  return Object.keys(kept).length === 0 ? undefined : kept;
}

function isRecordable(value: unknown): value is RecordedValue {
  return value === null || ["boolean", "number", "string"].includes(typeof value) ||
    (Array.isArray(value) && value.every((each) => typeof each === "string"));
}

/** The attributes that describe a danger. A rule tests them, so that it allows no other value. */
const DESCRIBED_BY: { readonly [danger: string]: readonly string[] } = {
  "HostConfig.Privileged": ["privileged"],
  "HostConfig.CapAdd": ["capAdd"],
  "HostConfig.Capabilities": ["capAdd"],
  "HostConfig.GroupAdd": ["groupAdd"],
  "HostConfig.Binds": ["binds", "writableBinds"],
  "HostConfig.Mounts[].Source": ["binds", "writableBinds"],
  "HostConfig.Mounts[].Type": ["mounts"],
  "HostConfig.VolumeDriver": ["volumeDriver"],
  "HostConfig.PidMode": ["pidMode"],
  "HostConfig.IpcMode": ["ipcMode"],
  "HostConfig.UTSMode": ["utsMode"],
  "HostConfig.UsernsMode": ["usernsMode"],
  "HostConfig.CgroupnsMode": ["cgroupnsMode"],
  "HostConfig.NetworkMode": ["networkMode"],
  "HostConfig.CgroupParent": ["cgroupParent"],
  "HostConfig.Devices": ["devices"],
  "HostConfig.DeviceRequests": ["devices"],
  "HostConfig.DeviceCgroupRules": ["devices"],
  "HostConfig.SecurityOpt": ["securityOpt"],
  "HostConfig.Runtime": ["runtime"],
  "HostConfig.Sysctls": ["sysctls"],
  "HostConfig.PortBindings": ["publishedPorts"],
  "CgroupParent": ["cgroupParent"],
  "Devices": ["devices"],
  "DeviceRequests": ["devices"],
  "DeviceCgroupRules": ["devices"],
  "Driver": ["driver"],
  "Privileged": ["privileged"],
  "?networkmode": ["networkMode"],
  "?cgroupparent": ["cgroupParent"],
};

const DESCRIBES = new Set(Object.values(DESCRIBED_BY).flat());

/** Returns whether the attributes of an entry describe a danger, or its name alone does. */
function isDescribed(danger: string, action: string, attributes: RecordedAttributes): boolean {
  if (danger.startsWith("HostConfig.Binds:")) return true;
  if (!Object.hasOwn(DESCRIBED_BY, danger)) return false;
  const names = DESCRIBED_BY[danger]!;
  // The dangers of an existing object were decided when it was created.
  const ofRequest = isOnObject(action)
    ? names.filter((name) => OF_REQUEST[action]?.includes(name))
    : names;
  return ofRequest.every((name) => attributes[name] !== undefined);
}

/** Attributes that are tested although no danger needs them. */
const ALWAYS_TESTED: { readonly [action: string]: readonly string[] } = {
  "container.create": [
    ...["image", "user", "group", "networkMode", "publishedPorts", "restartPolicy"],
    ...["capDrop", "securityOpt"],
  ],
  "build": ["tags", "networkMode"],
  "image.import": ["tags"],
  "image.tag": ["image", "tags"],
  "podman.read": ["path"],
};

/** The tests of the narrowest rule that allows an entry, or why there is none. */
export function testsOf(
  { caller, action, attributes = {}, about }: RecordedEntry,
): { readonly tests: Tests; readonly unlimited?: string } | { readonly problem: string } {
  const tests = new Map<string, AttributeTest>();
  if (about === "long") return { problem: "its attributes are too long to be recorded" };
  if (about === "absent" || about === "some") {
    tests.set("owner", { kind: "values", values: ["self"] });
    tests.set("dangers", { kind: "list", within: [] });
    if (OF_REQUEST[action]?.includes("privileged")) {
      tests.set("privileged", { kind: "values", values: [false] });
    }
    return { tests };
  }
  const dangers = textsIn(attributes["dangers"]);
  const owner = attributes["owner"];
  const names = new Set(ALWAYS_TESTED[action] ?? []);
  if (isOnObject(action)) {
    if (owner !== undefined && owner === caller.uid) names.add("owner");
    else {
      if (typeof attributes["name"] !== "string") return { problem: "it has no name" };
      names.add("name");
      if (owner !== undefined) names.add("owner");
    }
    for (const name of OF_REQUEST[action] ?? []) {
      if (!DESCRIBES.has(name) || name === "privileged") names.add(name);
    }
  } else if (/\.(list|prune)$/.test(action)) {
    // The condition on dangers makes it equal to the rule for actions on own objects, so both become one rule.
    if (owner !== undefined) names.add("owner").add("dangers");
  } else if (action.startsWith("image.")) names.add("image");
  else if (!action.endsWith(".create")) names.add("name");
  const isEssential = dockerVocabulary.attributes["dangers"]!.essential!.includes(action);
  if (isEssential || isOnObject(action) || dangers.length > 0) {
    if (!Array.isArray(attributes["dangers"])) return { problem: "its dangers are not recorded" };
    names.add("dangers");
  }
  for (const danger of dangers) for (const name of DESCRIBED_BY[danger] ?? []) names.add(name);
  for (const name of names) {
    const value = attributes[name];
    // An attribute that the request does not determine is unknown: no condition on it would hold.
    if (value === undefined) continue;
    tests.set(name, testOf(name, value, caller.uid, dangers));
  }
  const unlimited = dangers.filter((danger) => !isDescribed(danger, action, attributes));
  return unlimited.length === 0 ? { tests } : { tests, unlimited: unlimited.join(", ") };
}

function testOf(
  name: string,
  value: RecordedValue,
  uid: number | undefined,
  dangers: readonly string[],
): AttributeTest {
  switch (name) {
    case "owner":
    case "user":
      return { kind: "values", values: [value === uid ? "self" : value as number] };
    case "networkMode": {
      // The decision about container.join depends on the container.
      const isJoin = String(value).startsWith("container:");
      return { kind: "values", values: [isJoin ? "container:*" : value as string] };
    }
    case "capDrop":
      return { kind: "list", required: textsIn(value).toSorted() };
    case "securityOpt": {
      const within = dangers.includes("HostConfig.SecurityOpt") ? textsIn(value) : undefined;
      const required = textsIn(value).filter((text) => text === "no-new-privileges=true");
      return { kind: "list", within, required: [...new Set(required)] };
    }
  }
  return Array.isArray(value)
    ? { kind: "list", within: [...new Set(value as readonly string[])].toSorted() }
    : { kind: "values", values: [value as Exclude<RecordedValue, readonly string[]>] };
}

const textsIn = (value: unknown): readonly string[] =>
  Array.isArray(value) ? value as readonly string[] : [];
