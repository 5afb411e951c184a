/** Control group paths → the systemd units on them, and the container. */

/** What the paths of a process's control groups show. `null`: known to be none. */
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
   * The container's id, 64 hexadecimal digits, where root's services made it. `null` only where the process
   * is in a unit itself, or in no group, in every hierarchy, and that unit is not known to hold
   * containers; `undefined` otherwise. A container without a control group of its own reads `null`.
   */
  readonly container: string | null | undefined;
  /** The same below a user's manager (rootless podman): that user alone vouches for it. */
  readonly userContainer: string | null | undefined;
}

/**
 * Reads paths as systemd and the container engines write them.
 *
 * What stands below a unit or a container was made by it: a service that may divide its own group
 * (`Delegate=`), a user's manager and a container's root can give any name to what is inside. So the
 * outermost unit and container count, and nothing below them overrides that.
 *
 * @param path As /proc/PID/cgroup shows it, in the hierarchy that systemd uses.
 * @param others The paths in all other hierarchies: with cgroup v1 an engine may have moved the process
 * in these alone.
 * @returns `undefined` where the group is outside our cgroup namespace: its path is then relative.
 * @see {@link https://systemd.io/CGROUP_DELEGATION/ Control Group APIs and Delegation}
 */
export function placeOf(path: string, others: readonly string[] = []): CgroupPlace | undefined {
  const names = namesOn(path);
  if (names === undefined) return undefined;
  const { slice, unit, below } = unitOf(names);
  const isManager = unit !== null && /^user@\d+\.service$/.test(unit);
  // A controller that a group does not use shows the path of a group above it.
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

/** `undefined` for a path outside our cgroup namespace. */
function namesOn(path: string): readonly string[] | undefined {
  const raw = path.split("/").slice(1).filter((name) => name !== ""); // "/" alone is the root
  // Only the kernel writes "..", for what lies above the root of our cgroup namespace. Before names are
  // unescaped: a service that divides its own group may make a subgroup "_..".
  return raw.includes("..") ? undefined : raw.map(unescape);
}

/** The container's id, unless another hierarchy has another one. */
function onlyContainer(id: string, others: readonly string[]): string | undefined {
  const ids = others.map((other) => placeOf(other)?.container);
  return ids.every((each) => typeof each !== "string" || each === id) ? id : undefined;
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

/** The container on a path; `undefined` where there may be one without a trustworthy name. */
function containerIn(unit: string | null, below: readonly string[]): string | null | undefined {
  const own = idIn(unit ?? below[0] ?? "");
  if (own !== undefined) return own;
  // Below an engine's own group everything may be a container.
  const isEngine = unit === null ? PARENTS.has(below[0] ?? "") : ENGINES.has(unit);
  if (isEngine) return below.map(idIn).find((id) => id !== undefined);
  return isPlain(unit, below) ? null : undefined;
}

/** The container below a user's manager; the outermost counts. */
function containerInUserUnit(names: readonly string[]): string | null | undefined {
  const found = names.find((name) => HAS_ID.test(name));
  if (found !== undefined) return idIn(found);
  const { unit, below } = unitOf(names);
  return names.length === 0 || isPlain(unit, below) ? null : undefined;
}

/**
 * Whether a process is in a unit itself, and nothing shows that containers may be there. A group below a
 * unit may be one whatever it is called, and systemd puts no process into a slice.
 */
function isPlain(unit: string | null, below: readonly string[]): boolean {
  return unit !== null && below.length === 0 && !HAS_ID.test(unit) && !holdsContainers(unit);
}

const HAS_ID = /[0-9a-f]{64}/;

/**
 * Whether a unit's name, or a glob for one, is that of a service that runs containers, or of the scope of
 * one that has no id: systemd-nspawn, LXC. With cgroup v1, or where an engine makes no group, their
 * processes may be in the unit itself.
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

/**
 * The id in a group's name: "docker-ID.scope", "libpod-ID.scope", "cri-containerd-ID.scope",
 * "crio-ID.scope", "kubepods-….slice:cri-containerd:ID", or the bare id.
 */
const idIn = (name: string): string | undefined => CONTAINER.exec(name)?.[1];

const CONTAINER =
  /^(?:[\w.-]*:)?(?:(?:docker|libpod|cri-containerd|crio|containerd|nerdctl)[-:])?([0-9a-f]{64})(?:\.scope)?$/;
