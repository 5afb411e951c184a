/**
 * The JSON bodies of the API: their known fields, and their conversion to one form. Fields that are not known
 * are rejected unless they are empty, since the engine may act on them.
 */

import { isJsonObject, JsonNumber, type JsonObject, type JsonValue } from "../json.ts";
import { quoted } from "./request.ts";

/**
 * The shape of a value. "texts": a list of strings. "slice": the same, or one string for a list of one. "map":
 * an object of strings. "set": an object of empty objects. "any": not judged; keys that Go may match to one
 * field are rejected. "drop": clients send it, and the engine does not receive it.
 */
export type Shape =
  | "flag"
  | "integer"
  | "text"
  | "texts"
  | "slice"
  | "map"
  | "set"
  | "any"
  | "drop"
  | { readonly fields: Fields }
  | { readonly list: Shape }
  | { readonly values: Shape };

/** The fields of an object, by their names in the API. Go matches them in any case. */
export interface Fields {
  readonly [name: string]: Shape;
}

/** A body that cannot be read in one way, or has an unknown field. */
export class BadBody extends Error {}

const device: Fields = { PathOnHost: "text", PathInContainer: "text", CgroupPermissions: "text" };
const deviceRequest: Fields = {
  ...{ Driver: "text", Count: "integer", DeviceIDs: "texts" },
  ...{ Capabilities: { list: "texts" }, Options: "map" },
};
const weight: Shape = { list: { fields: { Path: "text", Weight: "integer" } } };
const rate: Shape = { list: { fields: { Path: "text", Rate: "integer" } } };
const restartPolicy: Shape = { fields: { Name: "text", MaximumRetryCount: "integer" } };

const RESOURCES: Fields = {
  ...{ CpuShares: "integer", Memory: "integer", NanoCpus: "integer", CgroupParent: "text" },
  ...{ BlkioWeight: "integer", BlkioWeightDevice: weight, BlkioDeviceReadBps: rate },
  ...{ BlkioDeviceWriteBps: rate, BlkioDeviceReadIOps: rate, BlkioDeviceWriteIOps: rate },
  ...{ CpuPeriod: "integer", CpuQuota: "integer", CpuRealtimePeriod: "integer" },
  ...{ CpuRealtimeRuntime: "integer", CpusetCpus: "text", CpusetMems: "text" },
  ...{ Devices: { list: { fields: device } }, DeviceCgroupRules: "texts" },
  ...{ DeviceRequests: { list: { fields: deviceRequest } } },
  ...{ KernelMemory: "integer", KernelMemoryTCP: "integer", MemoryReservation: "integer" },
  ...{ MemorySwap: "integer", MemorySwappiness: "integer", OomKillDisable: "flag" },
  PidsLimit: "integer",
  Ulimits: { list: { fields: { Name: "text", Hard: "integer", Soft: "integer" } } },
  ...{ CpuCount: "integer", CpuPercent: "integer", IOMaximumIOps: "integer" },
  IOMaximumBandwidth: "integer",
};

const mount: Fields = {
  ...{ Type: "text", Source: "text", Target: "text", ReadOnly: "flag", Consistency: "text" },
  BindOptions: {
    fields: {
      ...{ Propagation: "text", NonRecursive: "flag", CreateMountpoint: "flag" },
      ...{ ReadOnlyNonRecursive: "flag", ReadOnlyForceRecursive: "flag" },
    },
  },
  VolumeOptions: {
    fields: {
      ...{ NoCopy: "flag", Labels: "map", Subpath: "text" },
      DriverConfig: { fields: { Name: "text", Options: "map" } },
    },
  },
  ImageOptions: { fields: { Subpath: "text" } },
  TmpfsOptions: {
    fields: { SizeBytes: "integer", Mode: "integer", Options: { list: "texts" } },
  },
  ClusterOptions: { fields: {} },
};

const HOST_CONFIG: Fields = {
  ...RESOURCES,
  ...{ Binds: "texts", ContainerIDFile: "text" },
  ...{ LogConfig: { fields: { Type: "text", Config: "map" } }, NetworkMode: "text" },
  PortBindings: { values: { list: { fields: { HostIp: "text", HostPort: "text" } } } },
  ...{ RestartPolicy: restartPolicy, AutoRemove: "flag", VolumeDriver: "text" },
  ...{ VolumesFrom: "texts", ConsoleSize: { list: "integer" }, Annotations: "map" },
  ...{ CapAdd: "slice", CapDrop: "slice", Capabilities: "slice", CgroupnsMode: "text" },
  ...{ Dns: "texts", DnsOptions: "texts", DnsSearch: "texts", ExtraHosts: "texts" },
  ...{ GroupAdd: "texts", IpcMode: "text", Cgroup: "text", Links: "texts" },
  ...{ OomScoreAdj: "integer", PidMode: "text", Privileged: "flag", PublishAllPorts: "flag" },
  ...{ ReadonlyRootfs: "flag", SecurityOpt: "texts", StorageOpt: "map", Tmpfs: "map" },
  ...{ UTSMode: "text", UsernsMode: "text", ShmSize: "integer", Sysctls: "map", Runtime: "text" },
  ...{ Isolation: "text", Mounts: { list: { fields: mount } }, MaskedPaths: "texts" },
  ...{ ReadonlyPaths: "texts", Init: "flag" },
};

const ENDPOINT: Fields = {
  IPAMConfig: { fields: { IPv4Address: "text", IPv6Address: "text", LinkLocalIPs: "texts" } },
  ...{ Links: "texts", Aliases: "texts", DriverOpts: "map", GwPriority: "integer" },
  ...{ MacAddress: "text", NetworkID: "text", EndpointID: "text", Gateway: "text" },
  ...{ IPAddress: "text", IPPrefixLen: "integer", IPv6Gateway: "text", GlobalIPv6Address: "text" },
  ...{ GlobalIPv6PrefixLen: "integer", DNSNames: "texts" },
};

const CONFIG: Fields = {
  ...{ Hostname: "text", Domainname: "text", User: "text", AttachStdin: "flag" },
  ...{ AttachStdout: "flag", AttachStderr: "flag", ExposedPorts: "set", Tty: "flag" },
  ...{ OpenStdin: "flag", StdinOnce: "flag", Env: "texts", Cmd: "slice" },
  Healthcheck: {
    fields: {
      ...{ Test: "texts", Interval: "integer", Timeout: "integer", StartPeriod: "integer" },
      ...{ StartInterval: "integer", Retries: "integer" },
    },
  },
  ...{ ArgsEscaped: "flag", Image: "text", Volumes: "set", WorkingDir: "text" },
  ...{ Entrypoint: "slice", NetworkDisabled: "flag", MacAddress: "text", OnBuild: "texts" },
  ...{ Labels: "map", StopSignal: "text", StopTimeout: "integer", Shell: "slice" },
};

/** Fields that dockerode sends in the body, too, which are parameters of the query. */
const REPEATED: Fields = { name: "drop", platform: "drop", _query: "drop", _body: "drop" };

/** Action → the fields of its body. */
export const BODIES: { readonly [action: string]: Fields } = {
  "container.create": {
    ...{ ...CONFIG, HostConfig: { fields: HOST_CONFIG }, ...REPEATED },
    NetworkingConfig: { fields: { EndpointsConfig: { values: { fields: ENDPOINT } } } },
  },
  "container.update": { ...RESOURCES, RestartPolicy: restartPolicy },
  "container.exec": {
    ...{ User: "text", Privileged: "flag", Tty: "flag", ConsoleSize: { list: "integer" } },
    ...{ AttachStdin: "flag", AttachStdout: "flag", AttachStderr: "flag", Detach: "flag" },
    ...{ DetachKeys: "text", Env: "texts", WorkingDir: "text", Cmd: "slice" },
  },
  "exec.start": {
    ...{ Detach: "flag", Tty: "flag", ConsoleSize: { list: "integer" } },
    ...{ hijack: "drop", stdin: "drop", stdout: "drop", stderr: "drop", stream: "drop" },
  },
  "container.checkpoint": { CheckpointID: "text", CheckpointDir: "text", Exit: "flag" },
  "container.commit": CONFIG,
  "volume.create": {
    ...{ Name: "text", Driver: "text", DriverOpts: "map", Labels: "map" },
    ClusterVolumeSpec: "any",
  },
  "volume.update": { Spec: "any" },
  "network.create": {
    ...{ Name: "text", CheckDuplicate: "flag", Driver: "text", Scope: "text" },
    ...{ EnableIPv4: "flag", EnableIPv6: "flag", Internal: "flag", Attachable: "flag" },
    ...{ Ingress: "flag", ConfigOnly: "flag", ConfigFrom: { fields: { Network: "text" } } },
    ...{ Options: "map", Labels: "map" },
    IPAM: {
      fields: {
        ...{ Driver: "text", Options: "map" },
        Config: {
          list: {
            fields: {
              ...{ Subnet: "text", IPRange: "text", Gateway: "text", AuxiliaryAddresses: "map" },
              AuxAddress: "map",
            },
          },
        },
      },
    },
  },
  "network.connect": { Container: "text", EndpointConfig: { fields: ENDPOINT } },
  "network.disconnect": { Container: "text", Force: "flag" },
  "system.auth": {
    ...{ username: "text", password: "text", auth: "text", email: "text", serveraddress: "text" },
    ...{ identitytoken: "text", registrytoken: "text" },
  },
};

/** Picks fields. */
const pick = (fields: Fields, ...names: readonly string[]): Fields =>
  Object.fromEntries(names.map((name) => [name, fields[name]!]));

/** The fields of the response to an inspection that have attributes. Engines add others, of other types. */
export const INSPECTION: Fields = {
  ...{ Id: "text", Name: "text" },
  Config: { fields: pick(CONFIG, "Image", "Labels", "User", "Volumes") },
  HostConfig: {
    fields: pick(
      HOST_CONFIG,
      ...["Binds", "CapAdd", "CapDrop", "CgroupParent", "CgroupnsMode", "DeviceCgroupRules"],
      ...["DeviceRequests", "Devices", "GroupAdd", "IpcMode", "LogConfig", "Mounts"],
      ...["NetworkMode", "PidMode", "PortBindings", "Privileged", "PublishAllPorts"],
      ...["RestartPolicy", "Runtime", "SecurityOpt", "Sysctls", "Tmpfs", "UTSMode", "UsernsMode"],
      "VolumeDriver",
    ),
  },
};

/** How unknown fields are treated: rejected unless they are empty, or ignored. */
export type Unknown = "reject" | "ignore";

/**
 * Converts an object to its form with the fields' own names, without null and without unknown fields.
 *
 * @throws {BadBody}
 */
export function readFields(
  value: JsonValue,
  fields: Fields,
  path: string,
  unknown: Unknown,
): JsonObject {
  if (!isJsonObject(value)) throw new BadBody(`${fieldText(path)} must be an object`);
  const names = namesOf(fields);
  const read = new Map<string, JsonValue>();
  const seen = new Set<string>();
  for (const [key, each] of value) {
    const folded = foldedKey(key);
    const at = path === "" ? key : `${path}.${key}`;
    if (folded === undefined) {
      if (unknown === "ignore") continue;
      throw new BadBody(`${fieldText(at)} has a name that is not in ASCII`);
    }
    if (seen.has(folded)) throw new BadBody(`${fieldText(at)} is repeated in another case`);
    seen.add(folded);
    const name = names.get(folded);
    if (name === undefined) {
      if (unknown === "ignore" || isEmpty(each)) continue;
      throw new BadBody(`${fieldText(at)} is not known`);
    }
    const shape = fields[name]!;
    if (each === null || shape === "drop") continue; // null leaves a field of Go as it is
    const inner = path === "" ? name : `${path}.${name}`;
    read.set(name, readValue(each, shape, inner, unknown));
  }
  return read;
}

function readValue(value: JsonValue, shape: Shape, path: string, unknown: Unknown): JsonValue {
  const wrong = (what: string) => new BadBody(`${fieldText(path)} must be ${what}`);
  const listOf = (value: JsonValue, of: Shape): readonly JsonValue[] => {
    if (!Array.isArray(value)) throw wrong("a list");
    return value.map((each: JsonValue, at) => readValue(each, of, `${path}[${at}]`, unknown));
  };
  const mapOf = (of: (value: JsonValue, key: string) => JsonValue): JsonObject => {
    if (!isJsonObject(value)) throw wrong("an object");
    return new Map([...value].map(([key, each]) => [key, of(each, key)]));
  };
  switch (shape) {
    case "flag":
      if (typeof value !== "boolean") throw wrong("true or false");
      return value;
    case "integer":
      if (!(value instanceof JsonNumber) || !/^-?[0-9]{1,19}$/.test(value.text)) {
        throw wrong("an integer");
      }
      return value;
    case "text":
      if (typeof value !== "string") throw wrong("a string");
      return value;
    case "texts":
      return listOf(value, "text");
    case "slice":
      return typeof value === "string" ? [value] : listOf(value, "text");
    case "map":
      return mapOf((each, key) =>
        each === null ? "" : readValue(each, "text", `${path}.${key}`, unknown)
      );
    case "set":
      return mapOf((each) => {
        if (each === null || isEmpty(each)) return new Map();
        throw wrong("an object of empty objects");
      });
    case "any":
    case "drop":
      requireUnfolded(value, path);
      return value;
  }
  if ("fields" in shape) return readFields(value, shape.fields, path, unknown);
  if ("list" in shape) return listOf(value, shape.list);
  return mapOf((each, key) =>
    each === null ? each : readValue(each, shape.values, `${path}.${key}`, unknown)
  );
}

/** Whether a value is one that leaves each field of Go as it is. */
export const isEmpty = (value: JsonValue): boolean =>
  value === null || value === false || value === "" ||
  (value instanceof JsonNumber && Number(value.text) === 0) ||
  (Array.isArray(value) && value.length === 0) || (isJsonObject(value) && value.size === 0);

/**
 * A key as Go compares it, without case; `undefined` if it is not in ASCII. Go also matches the letters s and
 * k with U+017F and U+212A.
 */
const foldedKey = (key: string): string | undefined =>
  // deno-lint-ignore no-control-regex
  /^[\x00-\x7f]*$/.test(key) ? key.toLowerCase() : undefined;

const folded = new WeakMap<Fields, ReadonlyMap<string, string>>();

/** Returns the names of fields by their folded form. */
function namesOf(fields: Fields): ReadonlyMap<string, string> {
  let names = folded.get(fields);
  if (names === undefined) {
    names = new Map(Object.keys(fields).map((name) => [name.toLowerCase(), name]));
    folded.set(fields, names);
  }
  return names;
}

/** Requires that Go matches no two keys of an object, at any depth, to one field. */
export function requireUnfolded(value: JsonValue, path: string): void {
  if (Array.isArray(value)) {
    for (const each of value as readonly JsonValue[]) requireUnfolded(each, path);
  } else if (isJsonObject(value)) {
    const seen = new Set<string>();
    for (const [key, each] of value) {
      const folded = foldedKey(key);
      const at = path === "" ? key : `${path}.${key}`;
      if (folded === undefined) throw new BadBody(`${fieldText(at)} is not in ASCII`);
      if (seen.has(folded)) throw new BadBody(`${fieldText(at)} is repeated in another case`);
      seen.add(folded);
      requireUnfolded(each, at);
    }
  }
}

const fieldText = (path: string): string => path === "" ? "The body" : `The field ${quoted(path)}`;
