/** Paths of the host that a container may mount: only those that no user but root can redirect. */

import { lstat } from "node:fs/promises";
import type { Attributes } from "../../core/policy/decide/decision.ts";
import type { Peer } from "../../core/peer.ts";

/** Paths that no container may mount, because access to them is equal to root. */
export interface HostPathRules {
  /** The paths: sockets, folders of engines, the policy. */
  readonly never: readonly string[];
}

/** Sockets and folders of engines, and kernel interfaces: write access to them is equal to root. */
export const ENGINE_PATHS: readonly string[] = [
  ...["/run/docker.sock", "/var/run/docker.sock", "/run/docker", "/var/run/docker"],
  ...["/run/containerd", "/var/run/containerd", "/run/podman", "/var/run/podman"],
  ...["/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/run/containers"],
  ...["/proc", "/sys", "/dev"],
];

/** Whether a path is another one, contains it, or is contained in it. */
function overlaps(path: string, other: string): boolean {
  const isBelow = (inner: string, outer: string) =>
    inner === outer || inner.startsWith(outer === "/" ? "/" : `${outer}/`);
  return isBelow(path, other) || isBelow(other, path);
}

const listOf = (value: unknown): readonly string[] | undefined =>
  Array.isArray(value) && value.every((each) => typeof each === "string") ? value : undefined;

/**
 * Checks the paths of the host that a new container mounts. The engine resolves them later, and again at each
 * start, so they must not depend on anything that another user than root can change.
 *
 * @param attributes The attributes of the request.
 * @param joined Paths that the container can write to because another one has mounted them.
 * @returns Why the container is denied; `undefined` if it is not.
 */
export async function checkHostPaths(
  { never }: HostPathRules,
  attributes: Attributes,
  joined: readonly string[],
  peer: Peer,
): Promise<string | undefined> {
  const binds = listOf(attributes["binds"]);
  const writable = listOf(attributes["writableBinds"]);
  if (binds === undefined || writable === undefined) return "the mounts cannot be read";
  for (const path of new Set([...binds, ...writable])) {
    const reserved = never.find((each) => overlaps(path, each));
    if (reserved !== undefined) {
      return `${path} cannot be mounted: it would give access to ${reserved}`;
    }
    const problem = await unstable(path, peer.uid);
    if (problem !== undefined) return `${path} cannot be mounted: ${problem}`;
  }
  const isWriting = writable.length > 0 || joined.length > 0;
  return isWriting ? checkIdentity(attributes, peer) : undefined;
}

/** Returns why a user other than root may change what a path names; `undefined` if none can. */
async function unstable(path: string, uid: number): Promise<string | undefined> {
  if (!/^\/[^\0]*$/.test(path)) return "it is not an absolute path";
  const names = path.split("/").slice(1);
  if (path !== "/" && names.some((name) => name === "" || name === "." || name === "..")) {
    return "it is not in its canonical form";
  }
  let at = "";
  for (const [index, name] of ["", ...names].entries()) {
    if (index > 0) at += `/${name}`;
    let file;
    try {
      file = await lstat(at === "" ? "/" : at);
    } catch {
      return `${at} does not exist, or cannot be read`;
    }
    if (index === names.length) {
      if (!file.isDirectory() && !file.isFile()) return "it is neither a folder nor a file";
      return file.uid === 0 || file.uid === uid ? undefined : "it belongs to another user";
    }
    if (file.isSymbolicLink()) return `${at} is a symbolic link`;
    if (!file.isDirectory()) return `${at} is not a folder`;
    if (file.uid !== 0 || (file.mode & 0o022) !== 0) {
      return `${at === "" ? "/" : at} can be changed by users other than root`;
    }
  }
  return undefined;
}

/**
 * With root in the container, a writable folder of a user becomes a way to root on the host: a file with the
 * setuid bit. So the container must run as the user, and must be unable to become another one.
 */
function checkIdentity(attributes: Attributes, peer: Peer): string | undefined {
  const { user, group, privileged, capAdd, capDrop, securityOpt, groupAdd } = attributes;
  const hasAll = listOf(capDrop)?.includes("ALL") === true && listOf(capAdd)?.length === 0;
  // If an option has several values, the engine takes the last one.
  const values = listOf(securityOpt)?.filter((option) => option.startsWith("no-new-privileges"));
  const isContained = values?.every((option) => option === "no-new-privileges=true") === true &&
    values.length > 0;
  const own = [peer.gid, ...peer.groups ?? []].map(String);
  const groups = listOf(groupAdd);
  const isOwn = user === peer.uid && group === peer.gid && peer.ambiguous.length === 0 &&
    groups?.every((each) => own.includes(each)) === true;
  if (isOwn && hasAll && isContained && privileged === false) return undefined;
  return "a writable mount of the host needs --user with your uid and gid, --cap-drop ALL and " +
    "--security-opt no-new-privileges, and no --group-add of other groups";
}

/** Returns why an action on a container with writable mounts of the host is denied. */
export function checkAction(
  action: string,
  container: Attributes,
  request: Attributes,
  { uid, gid }: Peer,
): string | undefined {
  const writable = listOf(container["writableBinds"]);
  if (writable?.length === 0) return undefined;
  if (action === "container.archive.write") {
    return "the engine would write as root into a writable mount of the host";
  }
  if (action !== "container.exec" && action !== "exec.start") return undefined;
  const { user, group, privileged } = request;
  // With another group, a file with the setgid bit would give its rights.
  if (user === uid && group === gid && privileged !== true) return undefined;
  return "a command in a container with a writable mount of the host needs --user with your uid " +
    "and gid";
}
