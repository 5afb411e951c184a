/** What a control group's path tells: the systemd units on it, and the container. */

/** What a control group's path tells. `null`: known to be none. */
export interface CgroupPlace {
  /** Innermost slice above the unit, "system.slice". */
  readonly slice: string | null;
  /** The system manager's unit, "nginx.service", "session-2.scope". */
  readonly unit: string | null;
  /** The unit of a user's own manager, "foo.service" below "user@1000.service". */
  readonly userUnit: string | null;
  /** The login session's id, "2" in "session-2.scope". */
  readonly session: string | null;
  /**
   * The container's id, 64 hexadecimal digits, where root's services made it; `undefined` where there
   * may be one that has no id, or is named below a unit that may give any name to what is inside it.
   */
  readonly container: string | null | undefined;
  /** The same below a user's manager (rootless podman): that user alone vouches for it. */
  readonly userContainer: string | null | undefined;
}

/**
 * Reads a path as systemd and the container engines write them.
 *
 * What stands below a unit or a container was made by it: a service that may divide its own group
 * (`Delegate=`), a user's manager and a container's root can give any name to what is inside. So the
 * outermost unit and container count, and nothing below them overrides that.
 *
 * @param path As /proc/PID/cgroup gives it.
 * @returns `undefined` where the group is outside our cgroup namespace, and its path cannot be told.
 * @see {@link https://systemd.io/CGROUP_DELEGATION/ Control Group APIs and Delegation}
 */
export function placeOf(path: string): CgroupPlace | undefined {
  const raw = path.split("/").slice(1).filter((name) => name !== ""); // "/" alone is the root
  // Only the kernel writes "..", for what lies above the root of our cgroup namespace. Before names are
  // unescaped: a service that divides its own group may make a subgroup "_..".
  if (raw.includes("..")) return undefined;
  const names = raw.map(unescape);
  const { slice, unit, below } = unitOf(names);
  const isManager = unit !== null && /^user@\d+\.service$/.test(unit);
  return {
    slice,
    unit,
    userUnit: isManager ? unitOf(below).unit : null,
    session: /^session-([0-9a-z]+)\.scope$/.exec(unit ?? "")?.[1] ?? null,
    container: isManager ? null : containerIn(unit, below),
    userContainer: isManager ? mentioned(below) : null,
  };
}

/** The unit on the path: what comes first after the slices. */
function unitOf(names: readonly string[]) {
  let at = 0;
  while (names[at] !== undefined && isUnit(names[at]!, SLICE)) at++;
  const name = names[at];
  const unit = name !== undefined && isUnit(name, UNIT) ? name : null;
  const slice = at > 0 ? names[at - 1]! : unit === null ? null : "-.slice";
  return { slice, unit, below: names.slice(unit === null ? at : at + 1) };
}

/** systemd puts "_" before a name that would mean something to the kernel. */
const unescape = (name: string): string => name.startsWith("_") ? name.slice(1) : name;

const SLICE = /\.slice$/;
const UNIT = /\.(?:service|scope|mount|socket|swap)$/;

/** Every character that a unit's name may have; systemd.unit(5). */
const isUnit = (name: string, suffix: RegExp): boolean =>
  suffix.test(name) && name.length < 256 && /^[A-Za-z0-9:_.\\@-]+$/.test(name) &&
  !name.startsWith(".");

/** The container on a path; `undefined` where there may be one that nobody trustworthy names. */
function containerIn(unit: string | null, below: readonly string[]): string | null | undefined {
  const own = idIn(unit ?? below[0] ?? "");
  if (own !== undefined) return own;
  // Below an engine's own group, and below what is no unit, everything may be a container.
  if (unit === null || ENGINES.has(unit)) {
    if (below.length === 0) return null;
    const trusted = unit !== null || PARENTS.has(below[0]!);
    return trusted ? below.map(idIn).find((id) => id !== undefined) : undefined;
  }
  if (MACHINE.test(unit)) return undefined;
  return mentioned(below) === null ? null : undefined;
}

/** The outermost container; `undefined` where something else looks like one. */
function mentioned(names: readonly string[]): string | null | undefined {
  const found = names.find((name) => /[0-9a-f]{64}/.test(name));
  return found === undefined ? null : idIn(found);
}

/** Services of root that put containers into their own group. */
const ENGINES: ReadonlySet<string> = new Set([
  "containerd.service",
  "crio.service",
  "docker.service",
  "k3s-agent.service",
  "k3s.service",
  "kubelet.service",
]);

/** Groups that such services make where systemd does not make them. */
const PARENTS: ReadonlySet<string> = new Set([
  "default", //       containerd's namespaces
  "docker",
  "ecs",
  "k8s.io",
  "kubepods",
  "libpod_parent",
]);

/** Containers whose names are not ids: systemd-nspawn, LXC. */
const MACHINE = /^(?:machine-.*\.scope|systemd-nspawn@.*\.service|lxc.*)$/;

/**
 * The id in a group's name: "docker-ID.scope", "libpod-ID.scope", "cri-containerd-ID.scope",
 * "crio-ID.scope", "kubepods-….slice:cri-containerd:ID", or the bare id.
 */
const idIn = (name: string): string | undefined => CONTAINER.exec(name)?.[1];

const CONTAINER =
  /^(?:[\w.-]*:)?(?:(?:docker|libpod|cri-containerd|crio|containerd|nerdctl)[-:])?([0-9a-f]{64})(?:\.scope)?$/;
