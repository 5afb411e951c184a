/** Control group paths of systemd, docker, podman, containerd and Kubernetes. */

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
  "/system.slice/nginx.service/worker/1": {
    ...system,
    unit: "nginx.service",
    container: undefined,
  },
  "/system.slice/system-getty.slice/getty@tty1.service": {
    slice: "system-getty.slice",
    unit: "getty@tty1.service",
  },
  "/system.slice/dev-disk-by\\x2dlabel-x.mount": {
    ...system,
    unit: "dev-disk-by\\x2dlabel-x.mount",
  },
  "/system.slice/_cgroup.service": { ...system, unit: "cgroup.service" },
  "/system.slice": { ...system, container: undefined }, // systemd puts no process into a slice
  "/user.slice/user-1000.slice/session-2.scope": {
    slice: "user-1000.slice",
    unit: "session-2.scope",
    session: "2",
  },
  "/user.slice/user-1000.slice/session-c1.scope/x": {
    slice: "user-1000.slice",
    unit: "session-c1.scope",
    session: "c1",
    container: undefined,
  },
  [manager]: inManager,
  [`${manager}/init.scope`]: { ...inManager, userUnit: "init.scope" },
  [`${manager}/app.slice/foo.service`]: { ...inManager, userUnit: "foo.service" },
  [`${manager}/app.slice/app-x.slice/run-1.scope/deep`]: {
    ...inManager,
    userUnit: "run-1.scope",
    userContainer: undefined,
  },

  // Names that only contain that of a user's manager or of a session.
  "/system.slice/superuser@1000.service/x": {
    ...system,
    unit: "superuser@1000.service",
    container: undefined,
  },
  "/system.slice/user@1000.service.scope/x": {
    ...system,
    unit: "user@1000.service.scope",
    container: undefined,
  },
  "/system.slice/my-session-2.scope": { ...system, unit: "my-session-2.scope" },
  "/system.slice/session-2.scope.mount": { ...system, unit: "session-2.scope.mount" },

  // Groups that a user, a service or a container creates below its own override nothing.
  "/system.slice/web.service/_..": { ...system, unit: "web.service", container: undefined },
  "/system.slice/web.service/_../_../x": { ...system, unit: "web.service", container: undefined },
  "/system.slice/web.service/__..": { ...system, unit: "web.service", container: undefined },
  "/system.slice/web.service/_": { ...system, unit: "web.service", container: undefined },
  "/user.slice/user-1000.slice/session-2.scope/_..": {
    container: undefined,
    slice: "user-1000.slice",
    unit: "session-2.scope",
    session: "2",
  },
  [`${manager}/_..`]: { ...inManager, userContainer: undefined },
  [`${manager}/app.slice/foo.service/_..`]: {
    ...inManager,
    userUnit: "foo.service",
    userContainer: undefined,
  },
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
  [`/system.slice/foo.service/system.slice/nginx.service`]: {
    ...system,
    unit: "foo.service",
    container: undefined,
  },
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
    container: undefined,
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

  // Names that are neither ids nor units.
  [`/docker/${ID.slice(1)}`]: { container: undefined },
  [`/docker/${ID}0`]: { container: undefined },
  [`/docker/${ID.toUpperCase()}`]: { container: undefined },
  [`/x-${ID}.scope`]: { slice: "-.slice", unit: `x-${ID}.scope`, container: undefined },
  "/foo.service.d": { container: undefined },
  "/.service": { container: undefined },
  "/a b.service": { container: undefined },

  // Containers without an id, or with a name that is not trustworthy, are unknown.
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
  // An engine's own group may contain processes of containers without a group.
  "/system.slice/containerd.service": {
    ...system,
    unit: "containerd.service",
    container: undefined,
  },
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

/** Groups that contain processes of containers, but do not show it. */
const hidden: readonly string[] = [
  "/system.slice/libvirtd.service",
  "/user.slice/user-1000.slice/session-3.scope/lxc/c1",
  "/system.slice/snap.lxd.daemon.service/lxc.payload.c1",
  "/system.slice/buildkit.service/buildkit/executor/x",
  "/system.slice/garden.service/garden/c1",
  "/system.slice/ecs.service/ecs/task/c1",
  `/kubepods.slice/kubepods-pod1.slice/crio-conmon-${ID}.scope`,
  "/system.slice/docker.service",
  "/system.slice/snap.docker.dockerd.service",
  "/system.slice/podman.service",
  "/system.slice/lxc@c1.service",
  "/system.slice/incus.service",
  "/system.slice/k3s-agent.service",
  "/system.slice/snap.microk8s.daemon-kubelite.service",
  "/system.slice/nomad.service/c1",
  "/system.slice/foo.service/supervisor",
  "/machine.slice/machine-c1.scope",
  "/lxc.payload.c1",
  "/kubepods.slice/kubepods-pod1.slice",
];
for (const path of hidden) {
  test(`placeOf() returns undefined as the container for ${path.replaceAll(ID, "ID")}`, () => {
    assert.equal(placeOf(path)?.container, undefined);
  });
}

test("placeOf() accepts names of units of at most 255 characters", () => {
  const [longest, longer] = [247, 248].map((length) => `${"a".repeat(length)}.service`);
  assert.equal(placeOf(`/${longest}`)?.unit, longest);
  const { unit, container } = placeOf(`/${longer}`)!;
  assert.deepEqual([unit, container], [null, undefined]);
});

test("placeOf() returns null as the container for usual units", () => {
  for (
    const path of [
      "/system.slice/nginx.service",
      "/system.slice/specs.service", // "ecs" within a word
      "/system.slice/webdocker1.service",
      "/system.slice/system-postgresql.slice/postgresql@16-main.service",
      "/user.slice/user-1000.slice/session-2.scope",
      "/init.scope",
      "/",
    ]
  ) {
    assert.equal(placeOf(path)?.container, null, path);
  }
});

test("placeOf() returns undefined as the container when another hierarchy shows a group", () => {
  const docker = "/system.slice/docker.service";
  const web = "/system.slice/web.service";
  for (
    const [path, ...others] of [
      [docker, `/docker/${ID}`, "/"],
      ["/", "/docker", `/docker/${ID}`], // OpenRC
      ["/", "/nginx"],
      [web, web, `/docker/${ID}`],
      [web, "/system.slice/web"], // not a parent, although the beginning is equal
      [web, `${web}/c1`],
      [web, "/../c1"],
      [web, "/user.slice"],
    ] as const
  ) {
    assert.equal(placeOf(path, others)?.container, undefined, `${path} ${others}`);
  }
  assert.equal(placeOf(`${manager}/app.slice/a.service`, ["/x"])?.userContainer, undefined);
  assert.equal(placeOf(`${manager}/docker-${ID}.scope`, ["/x"])?.userContainer, ID);
  // A controller that a group does not use shows a parent group.
  assert.equal(placeOf(web, ["/", "/system.slice", web])?.container, null);
});

test("placeOf() returns a container's id unless another hierarchy has a different one", () => {
  const own = `/docker/${ID}`;
  assert.equal(placeOf(own, ["/", "/system.slice/docker.service", own])?.container, ID);
  assert.equal(placeOf(own, ["/../c1"])?.container, ID);
  assert.equal(placeOf(own, [`/docker/${OTHER}`])?.container, undefined);
  assert.equal(placeOf(own, [`/system.slice/docker-${OTHER}.scope`])?.container, undefined);
});

test("placeOf() returns undefined for groups outside our cgroup namespace", () => {
  for (
    const path of ["/..", "/../nginx.service", `/../../docker/${ID}`, "/system.slice/../x.service"]
  ) {
    assert.equal(placeOf(path), undefined, path);
  }
});
