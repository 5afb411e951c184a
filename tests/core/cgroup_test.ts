/** Control group paths as systemd, docker, podman, containerd and Kubernetes write them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type CgroupPlace, placeOf } from "../../core/cgroup.ts";

const ID = "0123456789abcdef".repeat(4);
const OTHER = "fedcba9876543210".repeat(4);

const NOTHING: CgroupPlace = {
  slice: null,
  unit: null,
  userUnit: null,
  session: null,
  container: null,
  userContainer: null,
};

const manager = "/user.slice/user-1000.slice/user@1000.service";
const inManager = { slice: "user-1000.slice", unit: "user@1000.service" };
const system = { slice: "system.slice" };

const places: { readonly [path: string]: Partial<CgroupPlace> } = {
  "/": {},
  "/init.scope": { slice: "-.slice", unit: "init.scope" },
  "/system.slice/nginx.service": { ...system, unit: "nginx.service" },
  "/system.slice/nginx.service/worker/1": { ...system, unit: "nginx.service" },
  "/system.slice/system-getty.slice/getty@tty1.service": {
    slice: "system-getty.slice",
    unit: "getty@tty1.service",
  },
  "/system.slice/dev-disk-by\\x2dlabel-x.mount": {
    ...system,
    unit: "dev-disk-by\\x2dlabel-x.mount",
  },
  "/system.slice/_cgroup.service": { ...system, unit: "cgroup.service" },
  "/system.slice": { ...system },
  "/user.slice/user-1000.slice/session-2.scope": {
    slice: "user-1000.slice",
    unit: "session-2.scope",
    session: "2",
  },
  "/user.slice/user-1000.slice/session-c1.scope/x": {
    slice: "user-1000.slice",
    unit: "session-c1.scope",
    session: "c1",
  },
  [manager]: inManager,
  [`${manager}/init.scope`]: { ...inManager, userUnit: "init.scope" },
  [`${manager}/app.slice/foo.service`]: { ...inManager, userUnit: "foo.service" },
  [`${manager}/app.slice/app-x.slice/run-1.scope/deep`]: { ...inManager, userUnit: "run-1.scope" },

  // What a user, a service or a container puts below itself overrides nothing.
  "/system.slice/web.service/_..": { ...system, unit: "web.service" },
  "/system.slice/web.service/_../_../x": { ...system, unit: "web.service" },
  "/system.slice/web.service/__..": { ...system, unit: "web.service" },
  "/system.slice/web.service/_": { ...system, unit: "web.service" },
  "/user.slice/user-1000.slice/session-2.scope/_..": {
    slice: "user-1000.slice",
    unit: "session-2.scope",
    session: "2",
  },
  [`${manager}/_..`]: inManager,
  [`${manager}/app.slice/foo.service/_..`]: { ...inManager, userUnit: "foo.service" },
  [`/system.slice/docker-${ID}.scope/_..`]: {
    ...system,
    unit: `docker-${ID}.scope`,
    container: ID,
  },
  [`${manager}/nginx.service`]: { ...inManager, userUnit: "nginx.service" },
  [`${manager}/docker-${ID}.scope`]: {
    ...inManager,
    userUnit: `docker-${ID}.scope`,
    userContainer: ID,
  },
  [`${manager}/system.slice/root.service`]: { ...inManager, userUnit: "root.service" },
  [`/system.slice/foo.service/docker-${ID}.scope`]: {
    ...system,
    unit: "foo.service",
    container: undefined,
  },
  [`/system.slice/foo.service/system.slice/nginx.service`]: { ...system, unit: "foo.service" },
  [`/user.slice/user-1000.slice/session-2.scope/docker/${ID}`]: {
    slice: "user-1000.slice",
    unit: "session-2.scope",
    session: "2",
    container: undefined,
  },
  [`/docker/${ID}/docker/${OTHER}`]: { container: ID },
  [`/system.slice/docker-${ID}.scope/system.slice/docker-${OTHER}.scope`]: {
    ...system,
    unit: `docker-${ID}.scope`,
    container: ID,
  },

  // Containers.
  [`/docker/${ID}`]: { container: ID },
  [`/system.slice/docker-${ID}.scope`]: { ...system, unit: `docker-${ID}.scope`, container: ID },
  [`/machine.slice/libpod-${ID}.scope/container`]: {
    slice: "machine.slice",
    unit: `libpod-${ID}.scope`,
    container: ID,
  },
  [`/libpod_parent/libpod-${ID}`]: { container: ID },
  [`/machine.slice/libpod-conmon-${ID}.scope`]: {
    slice: "machine.slice",
    unit: `libpod-conmon-${ID}.scope`,
  },
  [`${manager}/user.slice/libpod-${ID}.scope/container`]: {
    ...inManager,
    userUnit: `libpod-${ID}.scope`,
    userContainer: ID,
  },
  [`/system.slice/nerdctl-${ID}.scope`]: { ...system, unit: `nerdctl-${ID}.scope`, container: ID },
  [`/default/${ID}`]: { container: ID },
  [`/kubepods/burstable/pod1f2e-aa/${ID}`]: { container: ID },
  [`/kubepods.slice/kubepods-pod1.slice/cri-containerd-${ID}.scope`]: {
    slice: "kubepods-pod1.slice",
    unit: `cri-containerd-${ID}.scope`,
    container: ID,
  },
  [`/kubepods.slice/kubepods-pod1.slice/crio-${ID}.scope`]: {
    slice: "kubepods-pod1.slice",
    unit: `crio-${ID}.scope`,
    container: ID,
  },
  [`/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:${ID}`]: {
    ...system,
    unit: "containerd.service",
    container: ID,
  },

  // No ids, no units.
  [`/docker/${ID.slice(1)}`]: { container: undefined },
  [`/docker/${ID}0`]: { container: undefined },
  [`/docker/${ID.toUpperCase()}`]: { container: undefined },
  [`/x-${ID}.scope`]: { slice: "-.slice", unit: `x-${ID}.scope` },
  "/foo.service.d": { container: undefined },
  "/.service": { container: undefined },
  "/a b.service": { container: undefined },

  // Containers that have no ids, or that nobody trustworthy names, are neither told nor told to be none.
  "/machine.slice/machine-debian.scope/payload": {
    slice: "machine.slice",
    unit: "machine-debian.scope",
    container: undefined,
  },
  "/machine.slice/systemd-nspawn@debian.service/payload": {
    slice: "machine.slice",
    unit: "systemd-nspawn@debian.service",
    container: undefined,
  },
  [`/lxc/debian/docker/${ID}`]: { container: undefined },
  [`/lxc.payload.debian/docker/${ID}`]: { container: undefined },
  [`/anything/${ID}`]: { container: undefined },
  "/system.slice/containerd.service/run": {
    ...system,
    unit: "containerd.service",
    container: undefined,
  },
  "/system.slice/containerd.service": { ...system, unit: "containerd.service" },
  [`/system.slice/web.service/libpod-payload-${ID}`]: {
    ...system,
    unit: "web.service",
    container: undefined,
  },
  [`${manager}/app.slice/web.service/libpod-payload-${ID}`]: {
    ...inManager,
    userUnit: "web.service",
    userContainer: undefined,
  },
};

for (const [path, place] of Object.entries(places)) {
  test(`placeOf() reads ${path.replaceAll(ID, "ID").replaceAll(OTHER, "OTHER")}`, () => {
    assert.deepEqual(placeOf(path), { ...NOTHING, ...place });
  });
}

test("placeOf() does not tell what is outside our cgroup namespace", () => {
  for (
    const path of ["/..", "/../nginx.service", `/../../docker/${ID}`, "/system.slice/../x.service"]
  ) {
    assert.equal(placeOf(path), undefined, path);
  }
});
