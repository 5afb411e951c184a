/** Reads the body of a request, and judges head and body: attributes, references and dangers. */

import { isJsonObject, JsonNumber, type JsonObject, type JsonValue, readJson } from "../json.ts";
import { isRefusal, quoted, refuse } from "./request.ts";
import { isNameOf } from "./routes.ts";
import { BadBody, BODIES, INSPECTION, isEmpty, readFields, requireUnfolded } from "./schema.ts";
import type { DockerRequest, JudgedRequest, Reference, Refusal } from "./types.ts";

/**
 * Judges a request with its body.
 *
 * @param bytes The whole body, of at most `maxBodyBytes`, of a request whose body is JSON or none. It is
 * ignored for bodies that are streamed.
 *
 * @example What a new container asks for
 * ```ts
 * import { isRefusal, readBody, readRequest } from "ucred/docker";
 *
 * const header = (name: string) => name === "content-type" ? "application/json" : undefined;
 * const request = readRequest({ method: "POST", target: "/v1.46/containers/create", header });
 * const body = '{ "Image": "alpine", "HostConfig": { "Privileged": true } }';
 * if (!isRefusal(request)) {
 *   const judged = readBody(request, new TextEncoder().encode(body));
 *   if (!isRefusal(judged)) console.log(judged.dangers.join()); // HostConfig.Privileged
 * }
 * ```
 */
export function readBody(request: DockerRequest, bytes: Uint8Array): JudgedRequest | Refusal {
  const findings = new Findings();
  try {
    const body = request.body === "json" ? readJsonBody(request, bytes) : undefined;
    if (body !== undefined && isRefusal(body)) return body;
    const value = body?.value;
    judge(request, findings, isJsonObject(value) ? value : NO_FIELDS);
    const isDetached = request.action === "exec.start" && isOn(value, "Detach");
    return {
      request: isDetached ? { ...request, stream: "none" } : request,
      body: value,
      attributes: { ...findings.attributes, dangers: [...findings.dangers] },
      references: findings.references,
      dangers: [...findings.dangers],
      labelNames: findings.labelNames,
    };
  } catch (error) {
    if (!(error instanceof BadBody)) throw error;
    return refuse(400, error.message);
  }
}

const NO_FIELDS: JsonObject = new Map();

/** Maximum values of a body. Many requests may wait for Docker, and their bodies take memory. */
const MAX_BODY_VALUES = 20_000;

/** @throws {BadBody} */
function readJsonBody(
  { action, isJson, maxBodyBytes }: DockerRequest,
  bytes: Uint8Array,
): { readonly value: JsonValue } | Refusal | undefined {
  if (bytes.length > maxBodyBytes) {
    return refuse(413, `The body is longer than ${maxBodyBytes} bytes`);
  }
  const fields = Object.hasOwn(BODIES, action) ? BODIES[action]! : undefined;
  if (bytes.length === 0) {
    // For the others an empty body has the meaning of an object without fields.
    return action === "container.create" ? refuse(400, "The body is empty") : undefined;
  }
  if (!isJson) return refuse(415, "The type of the body must be application/json");
  const read = readJson(bytes, MAX_BODY_VALUES);
  if ("problem" in read) return refuse(400, read.problem);
  if (fields !== undefined) return { value: readFields(read.value, fields, "", "reject") };
  requireUnfolded(read.value, "");
  return read;
}

/**
 * Adds the attributes of an existing container to those of a request about it. Both `privileged` count. The
 * user of an exec is the container's if the request names none. Attributes that cannot be read are missing.
 *
 * @param inspection The response to `GET /containers/{id}/json`, parsed by `JSON.parse()`.
 */
export function withContainer(
  attributes: JudgedRequest["attributes"],
  inspection: unknown,
): JudgedRequest["attributes"] {
  const findings = new Findings();
  const found = findings.attributes;
  try {
    const read = readFields(jsonOf(inspection), INSPECTION, "", "ignore");
    const config = objectAt(read, "Config");
    found["id"] = textAt(read, "Id") || undefined;
    found["name"] = textAt(read, "Name").replace(/^\//, "") || undefined;
    found["image"] = fullImage(textAt(config, "Image"));
    findings.labels(objectAt(config, "Labels"));
    judgeContainer(findings, config, objectAt(read, "HostConfig"), "inspected");
  } catch (error) {
    if (!(error instanceof BadBody)) throw error;
    return { ...attributes, name: undefined, privileged: undefined, user: undefined };
  }
  const { name } = found;
  const isPrivileged = attributes["privileged"] === true || found["privileged"] === true;
  return { ...found, ...attributes, name, privileged: isPrivileged };
}

/** Converts parsed JSON. */
function jsonOf(value: unknown): JsonValue {
  if (Array.isArray(value)) return value.map(jsonOf);
  if (typeof value === "number") return new JsonNumber(JSON.stringify(value));
  if (typeof value === "object" && value !== null) {
    return new Map(Object.entries(value).map(([key, each]) => [key, jsonOf(each)]));
  }
  return value as JsonValue;
}

/** A step to a value: the name of a field, or an index. */
export type Step = string | number;

/** A reference, with the place of its name. */
export class ReferenceAt implements Reference {
  readonly kind: Reference["kind"];
  readonly name: string;
  readonly action: string | undefined;
  readonly path: string;
  /** Where the name is in the body; empty for a parameter of the query. */
  readonly steps: readonly Step[];
  /** The parameter of the query. */
  readonly parameter: string | undefined;
  /** The texts around the name: "container:" before it, ":/data" after it. */
  readonly around: readonly [before: string, after: string];
  /** Whether the name is a key of an object, rather than a value. */
  readonly isKey: boolean;

  constructor(
    reference: Omit<Reference, "path">,
    steps: readonly Step[],
    { around = ["", ""], isKey = false, parameter }: {
      readonly around?: readonly [before: string, after: string];
      readonly isKey?: boolean;
      readonly parameter?: string;
    } = {},
  ) {
    this.kind = reference.kind;
    this.name = reference.name;
    this.action = reference.action;
    this.steps = steps;
    this.parameter = parameter;
    this.around = around;
    this.isKey = isKey;
    this.path = parameter === undefined
      ? steps.map((step, at) =>
        typeof step === "number" ? `[${step}]` : `${at > 0 ? "." : ""}${step}`
      )
        .join("")
      : `?${parameter}`;
  }
}

/** What was found in a request. */
class Findings {
  readonly attributes: { [name: string]: unknown } = {};
  readonly references: ReferenceAt[] = [];
  readonly dangers = new Set<string>();
  readonly labelNames: string[] = [];

  /** Adds a reference to a container whose namespaces, volumes or links are used. */
  join(
    name: string,
    steps: readonly Step[],
    options?: ConstructorParameters<typeof ReferenceAt>[2],
  ): void {
    requireName("container", name);
    const reference = { kind: "container", name, action: "container.join" } as const;
    this.references.push(new ReferenceAt(reference, steps, options));
  }

  volume(name: string, steps: readonly Step[], around?: readonly [string, string]): void {
    requireName("volume", name);
    const reference = { kind: "volume", name, action: "volume.use" } as const;
    this.references.push(new ReferenceAt(reference, steps, around && { around }));
  }

  network(
    name: string,
    steps: readonly Step[],
    options?: ConstructorParameters<typeof ReferenceAt>[2],
  ): void {
    requireName("network", name);
    const reference = { kind: "network", name, action: "network.connect" } as const;
    this.references.push(new ReferenceAt(reference, steps, options));
  }

  /** Adds a danger if a condition holds. */
  dangerIf(condition: boolean, path: string): void {
    if (condition) this.dangers.add(path);
  }

  labels(object: JsonObject | undefined): void {
    const labels = object === undefined ? [] : [...object] as [string, string][];
    this.labelNames.push(...labels.map(([name]) => name));
    this.attributes["labels"] = Object.fromEntries(labels.map(([name, value]) => [name, [value]]));
  }
}

function requireName(kind: Reference["kind"], name: string): void {
  if (!isNameOf(kind, name)) throw new BadBody(`${quoted(name)} cannot be a name of a ${kind}`);
}

const objectAt = (of: JsonValue | undefined, name: string): JsonObject | undefined => {
  const value = isJsonObject(of) ? of.get(name) : undefined;
  return isJsonObject(value) ? value : undefined;
};

const textAt = (of: JsonValue | undefined, name: string): string => {
  const value = isJsonObject(of) ? of.get(name) : undefined;
  return typeof value === "string" ? value : "";
};

const textsAt = (of: JsonValue | undefined, name: string): readonly string[] =>
  listAt(of, name) as readonly string[];

const listAt = (of: JsonValue | undefined, name: string): readonly JsonValue[] => {
  const value = isJsonObject(of) ? of.get(name) : undefined;
  return Array.isArray(value) ? value : [];
};

const isOn = (of: JsonValue | undefined, name: string): boolean =>
  isJsonObject(of) && of.get(name) === true;

const has = (of: JsonValue | undefined, name: string): boolean =>
  isJsonObject(of) && !isEmpty(of.get(name) ?? null);

const numberAt = (of: JsonValue | undefined, name: string): number => {
  const value = isJsonObject(of) ? of.get(name) : undefined;
  return value instanceof JsonNumber ? Number(value.text) : 0;
};

const entriesAt = (of: JsonValue | undefined, name: string): readonly string[] =>
  [...objectAt(of, name) ?? []].map(([key, value]) => `${key}=${value as string}`);

const orNull = (text: string): string | null => text === "" ? null : text;

function judge(request: DockerRequest, findings: Findings, body: JsonObject): void {
  const { attributes } = findings;
  const { action, query, targets } = request;
  const parameter = (name: string) => query.get(name)?.[0] ?? "";
  const [target] = targets;
  if (target !== undefined) attributes["name"] = target.name;
  if (target?.kind === "image") attributes["image"] = fullImage(target.name);
  switch (action) {
    case "container.create": {
      const name = parameter("name").replace(/^\//, "");
      if (name !== "") requireName("container", name);
      attributes["name"] = orNull(name);
      attributes["platform"] = orNull(parameter("platform"));
      const image = textAt(body, "Image");
      attributes["image"] = fullImage(image);
      if (image !== "") {
        requireName("image", image);
        const reference = { kind: "image", name: image, action: undefined } as const;
        findings.references.push(new ReferenceAt(reference, ["Image"]));
      }
      findings.labels(objectAt(body, "Labels"));
      judgeContainer(findings, body, objectAt(body, "HostConfig"));
      judgeEndpoints(findings, objectAt(body, "NetworkingConfig"));
      findings.dangerIf(has(body, "MacAddress"), "MacAddress");
      return;
    }
    case "container.update":
      judgeResources(findings, body, "");
      return;
    case "container.start":
      findings.dangerIf(parameter("checkpoint-dir") !== "", "?checkpoint-dir");
      return;
    case "container.checkpoint":
      findings.dangerIf(parameter("dir") !== "", "?dir");
      findings.dangerIf(has(body, "CheckpointDir"), "CheckpointDir");
      return;
    case "container.rename": {
      const name = parameter("name").replace(/^\//, "");
      requireName("container", name);
      return;
    }
    case "container.archive.read":
    case "container.archive.write":
      attributes["path"] = parameter("path");
      return;
    case "container.exec":
      attributes["privileged"] = isOn(body, "Privileged");
      findings.dangerIf(isOn(body, "Privileged"), "Privileged");
      setUser(attributes, textAt(body, "User"));
      attributes["command"] = textsAt(body, "Cmd");
      return;
    case "container.commit":
      attributes["tags"] = tagsOf(parameter("repo"), parameter("tag"));
      findings.labels(objectAt(body, "Labels"));
      return;
    case "image.pull": {
      const image = parameter("fromImage");
      const tag = parameter("tag");
      if (image === "") throw new BadBody("The parameter fromImage is missing");
      requireName("image", image);
      requireTag(tag);
      const separator = tag.includes(":") ? "@" : ":";
      attributes["image"] = fullImage(tag === "" ? image : `${image}${separator}${tag}`);
      attributes["platform"] = orNull(parameter("platform"));
      return;
    }
    case "image.import":
      attributes["tags"] = tagsOf(parameter("repo"), parameter("tag"));
      attributes["platform"] = orNull(parameter("platform"));
      attributes["remote"] = parameter("fromSrc") === "-" ? null : parameter("fromSrc");
      findings.dangerIf(attributes["remote"] !== null, "?fromSrc");
      return;
    case "image.push":
      attributes["platform"] = orNull(parameter("platform"));
      requireTag(parameter("tag"));
      if (parameter("tag") !== "") {
        attributes["image"] = fullImage(`${target!.name}:${parameter("tag")}`);
      }
      return;
    case "image.tag":
      attributes["tags"] = tagsOf(parameter("repo"), parameter("tag"));
      return;
    case "build":
    case "build.session":
      judgeBuild(request, findings);
      return;
    case "volume.create":
      attributes["name"] = orNull(textAt(body, "Name"));
      if (has(body, "Name")) requireName("volume", textAt(body, "Name"));
      attributes["driver"] = textAt(body, "Driver") || "local";
      attributes["driverOpts"] = entriesAt(body, "DriverOpts");
      findings.labels(objectAt(body, "Labels"));
      findings.dangerIf(attributes["driver"] !== "local", "Driver");
      findings.dangerIf(has(body, "DriverOpts"), "DriverOpts");
      findings.dangerIf(has(body, "ClusterVolumeSpec"), "ClusterVolumeSpec");
      return;
    case "volume.update":
      findings.dangers.add("Spec");
      return;
    case "network.create":
      judgeNetwork(findings, body);
      return;
    case "network.connect":
    case "network.disconnect": {
      const name = textAt(body, "Container");
      requireName("container", name);
      const reference = { kind: "container", name, action } as const;
      findings.references.push(new ReferenceAt(reference, ["Container"]));
      judgeEndpoint(findings, objectAt(body, "EndpointConfig"), ["EndpointConfig"]);
      return;
    }
    case "plugin.write":
    case "swarm.write":
      findings.dangers.add(action);
      return;
    case "podman.read":
      attributes["path"] = request.route.slice("/libpod/".length);
      return;
  }
}

/** Judges the configuration of a container: a requested one, or the one that the engine reports. */
function judgeContainer(
  findings: Findings,
  config: JsonObject | undefined,
  host: JsonObject | undefined,
  origin: "requested" | "inspected" = "requested",
): void {
  const { attributes } = findings;
  const dangerIf = (condition: boolean, field: string) =>
    findings.dangerIf(condition, `HostConfig.${field}`);
  const mode = (name: string) => textAt(host, name) || "default";

  attributes["privileged"] = isOn(host, "Privileged");
  dangerIf(isOn(host, "Privileged"), "Privileged");
  setUser(attributes, textAt(config, "User"));
  judgeMounts(findings, config, host, origin);

  attributes["capAdd"] = [...capabilities(host, "CapAdd"), ...capabilities(host, "Capabilities")];
  attributes["capDrop"] = capabilities(host, "CapDrop");
  dangerIf(has(host, "CapAdd"), "CapAdd");
  dangerIf(has(host, "Capabilities"), "Capabilities");
  const options = textsAt(host, "SecurityOpt").map(securityOption);
  attributes["securityOpt"] = options;
  dangerIf(options.some((option) => option !== "no-new-privileges=true"), "SecurityOpt");
  attributes["groupAdd"] = textsAt(host, "GroupAdd");
  dangerIf(has(host, "GroupAdd"), "GroupAdd");

  for (
    const [attribute, field, safe] of [
      ["pidMode", "PidMode", []],
      ["ipcMode", "IpcMode", ["private", "shareable", "none"]],
      ["utsMode", "UTSMode", ["private"]],
      ["usernsMode", "UsernsMode", []],
      ["cgroupnsMode", "CgroupnsMode", ["private"]],
    ] as const
  ) {
    const value = mode(field);
    attributes[attribute] = value;
    const joined = containerIn(value);
    if (joined !== undefined) {
      findings.join(joined, ["HostConfig", field], { around: ["container:", ""] });
    } else dangerIf(value !== "default" && !(safe as readonly string[]).includes(value), field);
  }
  attributes["networkMode"] = mode("NetworkMode");
  judgeNetworkMode(findings, mode("NetworkMode"), ["HostConfig", "NetworkMode"]);
  const cgroup = textAt(host, "Cgroup");
  const joined = containerIn(cgroup);
  if (joined !== undefined) {
    findings.join(joined, ["HostConfig", "Cgroup"], { around: ["container:", ""] });
  }
  dangerIf(cgroup !== "", "Cgroup");
  for (const [at, entry] of textsAt(host, "VolumesFrom").entries()) {
    const colon = entry.indexOf(":");
    const end = colon < 0 ? entry.length : colon;
    findings.join(entry.slice(0, end), ["HostConfig", "VolumesFrom", at], {
      around: ["", entry.slice(end)],
    });
  }
  judgeLinks(findings, textsAt(host, "Links"), ["HostConfig", "Links"]);

  attributes["runtime"] = orNull(textAt(host, "Runtime"));
  dangerIf(has(host, "Runtime"), "Runtime");
  attributes["sysctls"] = entriesAt(host, "Sysctls");
  dangerIf(has(host, "Sysctls"), "Sysctls");
  judgePorts(findings, host);
  const log = objectAt(host, "LogConfig");
  attributes["logDriver"] = orNull(textAt(log, "Type"));
  dangerIf(!isPlainLog(log), "LogConfig");
  for (const field of ["Annotations", "ContainerIDFile", "StorageOpt"]) {
    dangerIf(has(host, field), field);
  }
  const isolation = textAt(host, "Isolation");
  dangerIf(isolation !== "" && isolation !== "default", "Isolation");
  // An empty list removes the masks. null, which is dropped, keeps them.
  for (const field of ["MaskedPaths", "ReadonlyPaths"]) {
    dangerIf(host?.has(field) === true, field);
  }
  dangerIf(numberAt(host, "OomScoreAdj") < 0, "OomScoreAdj");
  judgeResources(findings, host, "HostConfig.");
}

/** Judges resource limits and the restart policy. Limits of memory, CPU and processes are no danger. */
function judgeResources(
  { attributes, dangers }: Findings,
  resources: JsonObject | undefined,
  prefix: string,
): void {
  const dangerIf = (field: string) => has(resources, field) && dangers.add(`${prefix}${field}`);
  attributes["cgroupParent"] = orNull(textAt(resources, "CgroupParent"));
  attributes["devices"] = [
    ...listAt(resources, "Devices").map((device) => textAt(device, "PathOnHost")),
    ...textsAt(resources, "DeviceCgroupRules"),
    ...listAt(resources, "DeviceRequests").flatMap((request) => {
      const driver = textAt(request, "Driver");
      const ids = textsAt(request, "DeviceIDs").map((id) => `${driver}:${id}`);
      const capabilities = listAt(request, "Capabilities").map((all) =>
        `${driver}:${(all as readonly string[]).join("+")}`
      );
      const all = [...ids, ...capabilities];
      return all.length > 0 ? all : [`${driver}:`];
    }),
  ];
  attributes["restartPolicy"] = textAt(objectAt(resources, "RestartPolicy"), "Name") || "no";
  for (
    const field of [
      ...["CgroupParent", "Devices", "DeviceCgroupRules", "DeviceRequests", "OomKillDisable"],
      ...["CpuRealtimePeriod", "CpuRealtimeRuntime", "BlkioWeightDevice", "BlkioDeviceReadBps"],
      ...["BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"],
    ]
  ) dangerIf(field);
}

function judgeMounts(
  findings: Findings,
  config: JsonObject | undefined,
  host: JsonObject | undefined,
  origin: "requested" | "inspected",
): void {
  const { attributes } = findings;
  const dangerIf = (condition: boolean, field: string) =>
    findings.dangerIf(condition, `HostConfig.${field}`);
  const binds: string[] = [], writable: string[] = [], mounts: string[] = [];
  for (const [at, text] of textsAt(host, "Binds").entries()) {
    const bind = readBind(text, origin);
    if (bind === undefined) {
      throw new BadBody(`The field "HostConfig.Binds[${at}]" cannot be read: ${quoted(text)}`);
    }
    const { source, modes } = bind;
    if (source === undefined) mounts.push("volume:");
    else if (source.startsWith("/")) {
      binds.push(source);
      mounts.push(`bind:${source}`);
      if (!modes.includes("ro")) writable.push(source);
      dangerIf(true, "Binds");
      for (const mode of modes) {
        dangerIf(!HARMLESS_BIND_MODES.includes(mode), `Binds:${mode}`);
      }
    } else {
      mounts.push(`volume:${source}`);
      findings.volume(source, ["HostConfig", "Binds", at], ["", text.slice(source.length)]);
    }
  }
  for (const [at, mount] of listAt(host, "Mounts").entries()) {
    const type = textAt(mount, "Type");
    const source = textAt(mount, "Source");
    if (!MOUNT_TYPES.includes(type)) {
      throw new BadBody(`The field "HostConfig.Mounts[${at}].Type" is ${quoted(type)}`);
    }
    mounts.push(`${type}:${plainPath(source) ?? source}`);
    dangerIf(!["bind", "volume", "tmpfs"].includes(type), "Mounts[].Type");
    if (type === "bind") {
      const path = plainPath(source);
      if (path === undefined) {
        throw new BadBody(`The field "HostConfig.Mounts[${at}].Source" is no plain path`);
      }
      binds.push(path);
      const options = objectAt(mount, "BindOptions");
      // Without recursion, what is mounted below the path stays writable.
      const isReadOnly = isOn(mount, "ReadOnly") && !isOn(options, "ReadOnlyNonRecursive");
      if (!isReadOnly) writable.push(path);
      dangerIf(true, "Mounts[].Source");
    } else if (type === "volume" && source !== "") {
      findings.volume(source, ["HostConfig", "Mounts", at, "Source"]);
    } else if (type === "image") {
      requireName("image", source);
      const reference = { kind: "image", name: source, action: undefined } as const;
      const steps = ["HostConfig", "Mounts", at, "Source"];
      findings.references.push(new ReferenceAt(reference, steps));
    }
    const propagation = textAt(objectAt(mount, "BindOptions"), "Propagation");
    const isPrivate = ["", "private", "rprivate"].includes(propagation);
    dangerIf(!isPrivate, "Mounts[].BindOptions.Propagation");
    const volume = objectAt(mount, "VolumeOptions");
    const driver = objectAt(volume, "DriverConfig");
    const isLocal = ["", "local"].includes(textAt(driver, "Name")) && !has(driver, "Options");
    dangerIf(!isLocal, "Mounts[].VolumeOptions.DriverConfig");
    dangerIf(has(volume, "Subpath"), "Mounts[].VolumeOptions.Subpath");
    findings.labelNames.push(...objectAt(volume, "Labels")?.keys() ?? []);
  }
  for (const path of objectAt(config, "Volumes")?.keys() ?? []) {
    if (path.includes(":")) throw new BadBody(`The field "Volumes" has the path ${quoted(path)}`);
    mounts.push("volume:");
  }
  for (const _ of objectAt(host, "Tmpfs") ?? []) mounts.push("tmpfs:");
  attributes["binds"] = binds;
  attributes["writableBinds"] = writable;
  attributes["mounts"] = mounts;
  attributes["volumeDriver"] = orNull(textAt(host, "VolumeDriver"));
  dangerIf(!["", "local"].includes(textAt(host, "VolumeDriver")), "VolumeDriver");
}

const MOUNT_TYPES = ["bind", "volume", "tmpfs", "image", "cluster", "npipe"];

/** Modes of a bind that only limit it, or change nothing on the host. */
const HARMLESS_BIND_MODES = [
  ...["rw", "ro", "bind", "rbind", "private", "rprivate", "nocopy", "copy"],
  ...["consistent", "cached", "delegated"],
];

/** The modes of dockerd and podman that are known. */
const BIND_MODES = [
  ...HARMLESS_BIND_MODES,
  ...["z", "Z", "shared", "rshared", "slave", "rslave", "U", "O"],
];

/**
 * Returns an absolute path without a slash at its end. The engine ignores that slash; other paths that it would
 * clean are `undefined`.
 */
function plainPath(path: string): string | undefined {
  if (path === "/") return path;
  const plain = path.endsWith("/") ? path.slice(0, -1) : path;
  const isPlain = plain.startsWith("/") &&
    plain.slice(1).split("/").every((name) => name !== "" && name !== "." && name !== "..");
  return isPlain ? plain : undefined;
}

/** Reads an entry of Binds: DESTINATION, or SOURCE:DESTINATION[:MODES]. */
function readBind(
  text: string,
  origin: "requested" | "inspected",
): { readonly source: string | undefined; readonly modes: readonly string[] } | undefined {
  const parts = text.split(":");
  const isPath = (path = "") => path.startsWith("/");
  if (parts.length === 1) return isPath(text) ? { source: undefined, modes: [] } : undefined;
  const [given = "", target, list] = parts;
  const source = plainPath(given) ?? given;
  const modes = list === undefined ? [] : list.split(",");
  const isFine = parts.length <= 3 && isPath(target) &&
    (plainPath(given) !== undefined || isNameOf("volume", given)) &&
    (origin === "inspected" || modes.every((mode) => BIND_MODES.includes(mode))) && // podman adds rbind
    !(modes.includes("ro") && modes.includes("rw"));
  return isFine ? { source, modes } : undefined;
}

function judgePorts(findings: Findings, host: JsonObject | undefined): void {
  const ports: string[] = [];
  for (const [port, bindings] of objectAt(host, "PortBindings") ?? []) {
    const inner = port.includes("/") ? port : `${port}/tcp`;
    const list = Array.isArray(bindings) && bindings.length > 0 ? bindings : [NO_FIELDS];
    for (const binding of list as readonly JsonValue[]) {
      const ip = textAt(binding, "HostIp") || "0.0.0.0";
      const outer = textAt(binding, "HostPort") || "0";
      ports.push(`${ip.includes(":") ? `[${ip}]` : ip}:${outer}:${inner}`);
      const [first = NaN] = outer.split("-").map(Number);
      const isFree = first === 0 || first >= 1024;
      findings.dangerIf(!isFree, "HostConfig.PortBindings");
    }
  }
  if (isOn(host, "PublishAllPorts")) ports.push("0.0.0.0:0:*");
  findings.attributes["publishedPorts"] = ports;
}

/** Whether a log driver writes to files of the engine only. */
function isPlainLog(log: JsonObject | undefined): boolean {
  const options = [...objectAt(log, "Config")?.keys() ?? []];
  return ["", "none", "json-file", "local"].includes(textAt(log, "Type")) &&
    options.every((option) => ["max-size", "max-file", "compress", "mode"].includes(option));
}

function judgeEndpoints(findings: Findings, networking: JsonObject | undefined): void {
  for (const [network, endpoint] of objectAt(networking, "EndpointsConfig") ?? []) {
    const steps = ["NetworkingConfig", "EndpointsConfig", network];
    judgeNetworkMode(findings, network, steps, { isKey: true });
    judgeEndpoint(findings, isJsonObject(endpoint) ? endpoint : undefined, steps);
  }
}

function judgeEndpoint(
  findings: Findings,
  endpoint: JsonObject | undefined,
  steps: readonly Step[],
): void {
  judgeLinks(findings, textsAt(endpoint, "Links"), [...steps, "Links"]);
  const prefix = steps[0] === "EndpointConfig" ? "EndpointConfig" : "EndpointsConfig[]";
  const ipam = objectAt(endpoint, "IPAMConfig");
  for (const field of ipam?.keys() ?? []) {
    findings.dangerIf(has(ipam, field), `${prefix}.IPAMConfig.${field}`);
  }
  for (const field of ["DriverOpts", "GwPriority", "MacAddress"]) {
    findings.dangerIf(has(endpoint, field), `${prefix}.${field}`);
  }
}

function judgeLinks(findings: Findings, links: readonly string[], steps: readonly Step[]): void {
  for (const [at, link] of links.entries()) {
    const colon = link.indexOf(":");
    const end = colon < 0 ? link.length : colon;
    // Without an alias, the alias is the name, which may become an id here.
    const after = colon < 0 ? `:${link.replace(/^\//, "")}` : link.slice(end);
    const name = link.slice(0, end).replace(/^\//, "");
    findings.join(name, [...steps, at], { around: ["", after] });
  }
}

function judgeNetworkMode(
  findings: Findings,
  mode: string,
  steps: readonly Step[],
  place: { readonly isKey?: boolean; readonly parameter?: string } = {},
): void {
  const { isKey = false, parameter } = place;
  if (["default", "bridge", "none"].includes(mode)) return;
  const joined = containerIn(mode);
  if (joined !== undefined && !isKey) {
    findings.join(joined, steps, { around: ["container:", ""], ...place });
  } else if (mode === "host" || mode.includes(":")) {
    const field = isKey ? "NetworkingConfig.EndpointsConfig" : steps.join(".");
    findings.dangers.add(parameter === undefined ? field : `?${parameter}`);
  } else findings.network(mode, steps, place);
}

/** Returns the container of a mode such as "container:web". */
const containerIn = (mode: string): string | undefined =>
  mode.startsWith("container:") ? mode.slice("container:".length) : undefined;

function judgeNetwork(findings: Findings, body: JsonObject): void {
  const { attributes } = findings;
  const name = textAt(body, "Name");
  requireName("network", name);
  attributes["name"] = name;
  attributes["driver"] = textAt(body, "Driver") || "bridge";
  attributes["driverOpts"] = entriesAt(body, "Options");
  findings.labels(objectAt(body, "Labels"));
  findings.dangerIf(attributes["driver"] !== "bridge", "Driver");
  for (const field of ["Options", "Ingress", "Attachable", "ConfigOnly"]) {
    findings.dangerIf(has(body, field), field);
  }
  findings.dangerIf(!["", "local"].includes(textAt(body, "Scope")), "Scope");
  const ipam = objectAt(body, "IPAM");
  findings.dangerIf(!["", "default"].includes(textAt(ipam, "Driver")), "IPAM.Driver");
  for (const field of ["Options", "Config"]) findings.dangerIf(has(ipam, field), `IPAM.${field}`);
  const from = textAt(objectAt(body, "ConfigFrom"), "Network");
  findings.dangerIf(from !== "", "ConfigFrom");
  if (from !== "") findings.network(from, ["ConfigFrom", "Network"]);
}

function judgeBuild({ query }: DockerRequest, findings: Findings): void {
  const { attributes } = findings;
  const parameter = (name: string) => query.get(name)?.[0] ?? "";
  const tags = (query.get("t") ?? []).filter((tag) => tag !== "");
  for (const tag of tags) requireName("image", tag);
  attributes["tags"] = tags.map(fullTag);
  attributes["platform"] = orNull(parameter("platform"));
  attributes["remote"] = orNull(parameter("remote"));
  const mode = parameter("networkmode") || "default";
  attributes["networkMode"] = mode;
  attributes["cgroupParent"] = orNull(parameter("cgroupparent"));
  judgeNetworkMode(findings, mode, [], { parameter: "networkmode" });
  for (const name of ["remote", "cgroupparent", "securityopt", "isolation"]) {
    findings.dangerIf(parameter(name) !== "", `?${name}`);
  }
  findings.labels(buildLabels(parameter("labels")));
}

/** Reads the labels of a build, whose text is already JSON. */
export function buildLabels(text: string): JsonObject {
  if (text === "") return NO_FIELDS;
  const read = readJson(new TextEncoder().encode(text));
  const value = "problem" in read ? undefined : read.value;
  if (value === null) return NO_FIELDS;
  if (!isJsonObject(value) || ![...value.values()].every((each) => typeof each === "string")) {
    throw new BadBody('The parameter "labels" must be an object of strings');
  }
  return value;
}

/** Sets the uid and gid of a user that is named. */
function setUser(attributes: { [name: string]: unknown }, text: string): void {
  if (text !== "") Object.assign(attributes, idsOf(text));
}

/** The uid and gid of "1000:1000". A name is unknown. The engine looks up no number as a name. */
export function idsOf(
  text: string,
): { readonly user: number | undefined; readonly group: number | undefined } {
  const [, uid, gid] = /^([0-9]{1,10})(?::([0-9]{1,10}))?$/.exec(text) ?? [];
  return {
    user: uid === undefined ? undefined : Number(uid),
    group: gid === undefined ? undefined : Number(gid),
  };
}

const capabilities = (host: JsonObject | undefined, name: string): readonly string[] =>
  textsAt(host, name).map((text) => text.toUpperCase().replace(/^CAP_/, ""));

/** A security option as NAME=VALUE: dockerd also takes a colon, and no value. */
function securityOption(text: string): string {
  if (text === "no-new-privileges") return "no-new-privileges=true";
  return text.includes("=") ? text : text.replace(":", "=");
}

/**
 * The name of an image in full: "alpine" is "docker.io/library/alpine:latest". Names that may be the beginning
 * of an id stay as they are.
 */
export function fullImage(name: string): string {
  if (name === "" || /^(?:sha256:)?[0-9a-f]{1,64}$/.test(name)) return name;
  const [first = "", ...rest] = name.split("/");
  // Docker's rule. The names of repositories have no upper case.
  const hasDomain = rest.length > 0 && (/[.:A-Z]/.test(first) || first === "localhost");
  const path = hasDomain ? name : `docker.io/${name}`;
  const known = path.replace(/^index\.docker\.io\//, "docker.io/")
    .replace(/^docker\.io\/(?=[^/]+$)/, "docker.io/library/");
  const last = known.slice(known.lastIndexOf("/") + 1);
  return /[:@]/.test(last) ? known : `${known}:latest`;
}

/** The names that a parameter repo, and a tag, give an image. */
function tagsOf(repo: string, tag: string): readonly string[] {
  requireTag(tag);
  if (repo === "") return [];
  requireName("image", repo);
  return [fullTag(tag === "" ? repo : `${repo}:${tag}`)];
}

function requireTag(tag: string): void {
  if (tag === "" || /^(?:\w[\w.-]{0,127}|sha256:[0-9a-f]{64})$/.test(tag)) return;
  throw new BadBody(`${quoted(tag)} cannot be a tag`);
}

/** The name of an image in full, for a name that is certainly no id. */
const fullTag = (name: string): string =>
  fullImage(/[:@][^/]*$/.test(name) ? name : `${name}:latest`);
