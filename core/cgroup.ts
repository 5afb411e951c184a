/** Finds systemd units and containers in the paths of control groups. */

/**
 * The units and containers in the paths of a process's control groups. `null` means that there certainly is
 * none.
 */
export interface CgroupPlace {
  /** Innermost slice above the unit, for example "system.slice". */
  readonly slice: string | null;
  /** The unit of the system manager, for example "nginx.service" or "session-2.scope". */
  readonly unit: string | null;
  /** The unit of a user's own manager, for example "foo.service" below "user@1000.service". */
  readonly userUnit: string | null;
  /** The login session's id, for example "2" of "session-2.scope". */
  readonly session: string | null;
  /**
   * The id of a container that a service of root created: 64 hexadecimal digits. `null` if the process is
   * below a user's manager, or if in every hierarchy it is in no group, or directly in a unit that does not
   * run containers. `undefined` in all other cases. A container without its own control group reads as
   * `null`.
   */
  readonly container: string | null | undefined;
  /** The id of a container below a user's manager (rootless podman), which that user can forge. */
  readonly userContainer: string | null | undefined;
}

/**
 * Finds units and containers in the paths that systemd and the container engines create.
 *
 * Only the outermost unit and container count. A service with `Delegate=`, a user's manager and a
 * container's root can create groups of any name below their own.
 *
 * @param path The path in the hierarchy that systemd uses, as /proc/PID/cgroup shows it.
 * @param others The paths in all other hierarchies: with cgroup v1, an engine may have moved the process
 * in these only.
 * @returns `undefined` if the group is outside our cgroup namespace: its path is then relative.
 * @see {@link https://systemd.io/CGROUP_DELEGATION/ Control Group APIs and Delegation}
 */
export function placeOf(path: string, others: readonly string[] = []): CgroupPlace | undefined {
  const names = namesOn(path);
  if (names === undefined) return undefined;
  const { slice, unit, below } = unitOf(names);
  const isManager = unit !== null && /^user@\d+\.service$/.test(unit);
  // For a controller that the group does not use, /proc shows the path of a group above it.
  const isAlone = others.every((other) => other === "/" || `${path}/`.startsWith(`${other}/`));
  const container = isManager || names.length === 0 ? null : containerIn(unit, below);
  const userContainer = isManager ? containerInUserUnit(below) : null;
  return {
    slice,
    unit,
    userUnit: isManager ? unitOf(below).unit : null,
    session: /^session-([0-9a-z]+)\.scope$/.exec(unit ?? "")?.[1] ?? null,
    container: typeof container === "string"
      ? onlyContainer(container, others)
      : isAlone
      ? container
      : undefined,
    userContainer: userContainer === null && !isAlone ? undefined : userContainer,
  };
}

/** Splits a path into names; `undefined` if it is outside our cgroup namespace. */
function namesOn(path: string): readonly string[] | undefined {
  const raw = path.split("/").filter((name) => name !== ""); // "/" alone is the root
  // Only the kernel writes "..", for a group above the root of our cgroup namespace. This is checked before
  // names are unescaped, since a service with Delegate= may create a group "_..".
  return raw.includes("..") ? undefined : raw.map(unescape);
}

/** Returns the container's id; `undefined` if another hierarchy has a different one. */
function onlyContainer(id: string, others: readonly string[]): string | undefined {
  const ids = others.map((other) => placeOf(other)?.container);
  return ids.every((each) => typeof each !== "string" || each === id) ? id : undefined;
}

/** Finds the unit in a path: the first name after the slices. */
function unitOf(names: readonly string[]) {
  let at = 0;
  while (names[at] !== undefined && isUnit(names[at]!, SLICE)) at++;
  const name = names[at];
  const unit = name !== undefined && isUnit(name, UNIT) ? name : null;
  const slice = at > 0 ? names[at - 1]! : unit === null ? null : "-.slice";
  return { slice, unit, below: names.slice(unit === null ? at : at + 1) };
}

/** Removes the "_" that systemd puts before a name that the kernel reserves. */
const unescape = (name: string): string => name.startsWith("_") ? name.slice(1) : name;

const SLICE = /\.slice$/;
const UNIT = /\.(?:service|scope|mount|socket|swap)$/;

/** Returns whether a name is a valid name of a unit with this suffix: systemd.unit(5). */
const isUnit = (name: string, suffix: RegExp): boolean =>
  suffix.test(name) && name.length < 256 && /^[A-Za-z0-9:_.\\@-]+$/.test(name) &&
  !name.startsWith(".");

/** Finds the container in a path; `undefined` if there may be one without a trustworthy name. */
function containerIn(unit: string | null, below: readonly string[]): string | null | undefined {
  const own = idIn(unit ?? below[0] ?? "");
  if (own !== undefined) return own;
  // Any group below an engine's own group may be a container.
  const isEngine = unit === null ? PARENTS.has(below[0] ?? "") : ENGINES.has(unit);
  if (isEngine) return below.map(idIn).find((id) => id !== undefined);
  return isPlain(unit, below) ? null : undefined;
}

/** Finds the outermost container below a user's manager. */
function containerInUserUnit(names: readonly string[]): string | null | undefined {
  const found = names.find((name) => HAS_ID.test(name));
  if (found !== undefined) return idIn(found);
  const { unit, below } = unitOf(names);
  return names.length === 0 || isPlain(unit, below) ? null : undefined;
}

/**
 * Returns whether a process is directly in a unit that does not run containers. A group of any name below
 * a unit may be a container. systemd puts no process directly into a slice.
 */
function isPlain(unit: string | null, below: readonly string[]): boolean {
  return unit !== null && below.length === 0 && !HAS_ID.test(unit) && !holdsContainers(unit);
}

const HAS_ID = /[0-9a-f]{64}/;

/**
 * Returns whether a unit's name, or a glob for one, is that of a service that runs containers, or of the
 * scope of a container without an id (systemd-nspawn, LXC). With cgroup v1, or if an engine creates no
 * group, the processes of containers may be directly in such a unit.
 */
export function holdsContainers(unit: string): boolean {
  return CONTAINERS.test(unit);
}

const CONTAINERS = new RegExp(
  `(?<![a-z])(?:${
    [
      "balena\\w*", // balenaEngine
      "buildah|buildkit\\w*",
      "conmon", // containers' monitors of podman and CRI-O
      "containerd?|containers",
      "cri|crio|crun|runc",
      "docker\\w*",
      "ecs", // Amazon's agent
      "flatpak",
      "garden|guardian|warden", // Cloud Foundry
      "incus\\w*|lxc\\w*|lxd\\w*",
      "k0s\\w*|k3s|kube\\w*|microk8s|rke2",
      "libpod|podman",
      "libvirt\\w*|virtlxcd", // its LXC driver
      "machine|nspawn",
      "mesos\\w*|nomad",
    ].join("|")
  })(?![a-z])`,
);

/** Services of root that put containers into groups below their own. */
const ENGINES: ReadonlySet<string> = new Set([
  "containerd.service",
  "crio.service",
  "docker.service",
  "k3s-agent.service",
  "k3s.service",
  "kubelet.service",
]);

/** Groups that container engines create themselves, without systemd. */
const PARENTS: ReadonlySet<string> = new Set([
  "default", //       containerd's namespaces
  "docker",
  "ecs",
  "k8s.io",
  "kubepods",
  "libpod_parent",
]);

/**
 * Returns the id in a group's name: "docker-ID.scope", "libpod-ID.scope", "cri-containerd-ID.scope",
 * "crio-ID.scope", "kubepods-….slice:cri-containerd:ID", or the bare id.
 */
const idIn = (name: string): string | undefined => CONTAINER.exec(name)?.[1];

const CONTAINER =
  /^(?:[\w.-]*:)?(?:(?:docker|libpod|cri-containerd|crio|containerd|nerdctl)[-:])?([0-9a-f]{64})(?:\.scope)?$/;
