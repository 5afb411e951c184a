/** Bodies of requests: known fields, attributes, references, and what is forwarded. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  dockerVocabulary,
  isRefusal,
  MAX_JSON_BYTES,
  readBody,
  withContainer,
  writeRequest,
} from "../../../interop/docker/mod.ts";
import { BODIES, type Shape } from "../../../interop/docker/schema.ts";
import { definePolicy } from "../../../policy/define.ts";
import { lint } from "../../../policy/mod.ts";
import { DANGEROUS, HARMLESS } from "./fields.ts";
import { bytesOf, CREATE, head, judged, read, rejected, written } from "./support.ts";

/** Users of gid 970 may create contained containers, with folders below /srv/shared. */
const policy = definePolicy({
  version: 1,
  about: "docker",
  rules: [{
    name: "contained containers",
    when: { gid: 970 },
    actions: "container.create",
    where: {
      dangers: { every: ["HostConfig.Binds", "HostConfig.Mounts[].Source"] },
      binds: { every: "/srv/shared/**" },
    },
    allow: true,
  }],
}, { vocabularies: [dockerVocabulary] });

const isAllowed = (body: unknown): boolean => {
  const request = read(CREATE, body);
  if (isRefusal(request)) return false;
  const { attributes } = request;
  return policy.decide({ uid: 1000, gid: 970 }, { action: "container.create", attributes }).allowed;
};

test("readBody() finds each field of HostConfig that reaches the host, and a policy denies it", () => {
  for (const [HostConfig, danger] of DANGEROUS) {
    const body = { Image: "alpine", HostConfig };
    assert.ok(judged(CREATE, body).dangers.includes(danger), JSON.stringify(HostConfig));
    assert.equal(isAllowed(body), false, JSON.stringify(HostConfig));
  }
});

test("readBody() finds the fields of networks that can pose as others", () => {
  const endpoint = (endpoint: object, network = "own") =>
    judged(CREATE, {
      Image: "alpine",
      NetworkingConfig: { EndpointsConfig: { [network]: endpoint } },
    }).dangers;
  assert.deepEqual(endpoint({ IPAMConfig: { IPv4Address: "10.0.0.2" } }), [
    "EndpointsConfig[].IPAMConfig.IPv4Address",
  ]);
  assert.deepEqual(endpoint({ MacAddress: "02:00:00:00:00:01" }), ["EndpointsConfig[].MacAddress"]);
  assert.deepEqual(endpoint({ DriverOpts: { a: "b" } }), ["EndpointsConfig[].DriverOpts"]);
  assert.deepEqual(endpoint({ GwPriority: 9 }), ["EndpointsConfig[].GwPriority"]);
  assert.deepEqual(endpoint({ IPAMConfig: { IPv6Address: "fd00::2", LinkLocalIPs: ["a"] } }), [
    ...["EndpointsConfig[].IPAMConfig.IPv6Address", "EndpointsConfig[].IPAMConfig.LinkLocalIPs"],
  ]);
  // The engine fills these in, and clients send them back.
  const filled = { Gateway: "10.0.0.1", IPAddress: "10.0.0.2", IPPrefixLen: 24, NetworkID: "a" };
  assert.deepEqual(endpoint({ ...filled, Aliases: ["a"], DNSNames: ["a"], EndpointID: "b" }), []);
  assert.deepEqual(endpoint({}, "host"), ["NetworkingConfig.EndpointsConfig"]);
  assert.deepEqual(endpoint({}, "container:a"), ["NetworkingConfig.EndpointsConfig"]);
  assert.deepEqual(judged(CREATE, { Image: "a", MacAddress: "02:00:00:00:00:01" }).dangers, [
    "MacAddress",
  ]);
});

test("readBody() accepts each harmless field, and a policy without dangers allows it", () => {
  for (const fields of HARMLESS) {
    const body = { Image: "alpine", ...fields };
    assert.deepEqual(
      judged(CREATE, body).dangers.filter((danger) => !/Binds|Mounts/.test(danger)),
      [],
      JSON.stringify(fields),
    );
    assert.equal(isAllowed(body), true, JSON.stringify(fields));
  }
});

/** Fields that name other objects, which the test of references has. */
const NAMING = ["Image", "HostConfig.VolumesFrom", "HostConfig.Links"];

/** Adds the paths of all fields in a value, without the indexes of lists. */
function addPaths(paths: Set<string>, value: unknown, path: string): void {
  paths.add(path);
  if (Array.isArray(value)) { for (const each of value) addPaths(paths, each, path); }
  else if (typeof value === "object" && value !== null) {
    for (const [key, each] of Object.entries(value)) {
      addPaths(paths, each, path === "" ? key : `${path}.${key}`);
    }
  }
}

/** The paths of all fields of a shape. Those of maps are below "*". */
function pathsOf(shape: Shape, path: string): string[] {
  if (typeof shape === "string") return [path];
  if ("list" in shape) return pathsOf(shape.list, path);
  if ("values" in shape) return pathsOf(shape.values, `${path}.*`);
  return Object.entries(shape.fields).flatMap(([name, of]) =>
    pathsOf(of, path === "" ? name : `${path}.${name}`)
  );
}

test("each field of a new container that is known is dangerous or harmless", () => {
  const paths = new Set(NAMING);
  for (const [HostConfig] of DANGEROUS) addPaths(paths, { HostConfig }, "");
  for (const fields of HARMLESS) addPaths(paths, fields, "");
  const fields = pathsOf({ fields: BODIES["container.create"]! }, "");
  assert.ok(fields.length > 150, String(fields.length));
  // Fields of networks and of published ports have tests of their own.
  const others = /^NetworkingConfig\.|\.PortBindings\.|\.DeviceRequests\.|\.Devices\.|^MacAddress$/;
  assert.deepEqual(fields.filter((path) => !paths.has(path) && !others.test(path)), []);
});

test("readBody() rejects fields that are not known, with their path, unless they are empty", () => {
  for (
    const [body, path] of [
      [{ Foo: 1 }, "Foo"],
      [{ HostConfig: { Foo: true } }, "HostConfig.Foo"],
      [{ HostConfig: { Foo: { a: null } } }, "HostConfig.Foo"],
      [{ HostConfig: { Mounts: [{ Type: "tmpfs", Foo: "x" }] } }, "HostConfig.Mounts[0].Foo"],
      [{ NetworkingConfig: { Foo: 1 } }, "NetworkingConfig.Foo"],
      [{ HostConfig: { Rootfs: "/" } }, "HostConfig.Rootfs"],
    ] as const
  ) assert.equal(rejected(CREATE, body), `The field ${JSON.stringify(path)} is not known`);
});

test("readBody() rejects values of another type, which Go rejects or converts", () => {
  for (
    const HostConfig of [
      { Privileged: "true" },
      { Privileged: 1 },
      { CapAdd: [1] },
      { CapAdd: [null] },
      { Binds: "/:/h" },
      { Binds: {} },
      { Memory: 1.5 },
      { Memory: "1" },
      { Mounts: {} },
      { Sysctls: [] },
      { Sysctls: { a: 1 } },
      { Devices: [[]] },
      [],
      "x",
    ]
  ) rejected(CREATE, { Image: "a", HostConfig });
  rejected(CREATE, { ExposedPorts: { "80/tcp": { a: 1 } } });
  rejected("POST /volumes/create", { ClusterVolumeSpec: { a: 1, A: 2 } });
  for (const text of ['{"HostConfig":{"Memory":1e3}}', "[]", "null", "1", '"x"', ""]) {
    rejected(CREATE, text);
  }
});

test("readBody() rejects binds and mounts that can be read in two ways", () => {
  for (
    const bind of [
      ...["", ":", "a", ":/a", "/a:", "/a:b", "a:b", "/a:/b:", "/a:/b:ro:x", "/a:/b:rw,ro"],
      ...["/a/../b:/c", "/a/./b:/c", "//a:/c", "/a//:/c", "./a:/c", "../a:/c", "~/a:/c", "a/b:/c"],
      ...["/a:/b:unknown", "-a:/b", "C:\\:/a", "/a:/b:RO", "/a:/b:ro,", "/a:b/c"],
    ]
  ) rejected(CREATE, { HostConfig: { Binds: [bind] } });
  for (
    const mount of [
      { Type: "bind", Source: "srv" },
      { Type: "bind", Source: "" },
      { Type: "bind", Source: "/srv/../etc" },
      { Type: "bind", Source: "/srv//" },
      { Type: "volume", Source: "/etc" },
      { Type: "volume", Source: "../x" },
      { Type: "Bind", Source: "/" },
      { Type: "", Source: "/" },
      { Source: "/" },
      { Type: "glob", Source: "/*" },
      { Type: "image", Source: "" },
    ]
  ) rejected(CREATE, { HostConfig: { Mounts: [mount] } });
  rejected(CREATE, { Volumes: { "/etc:/x": {} } });
});

test("readBody() returns the attributes of a new container, with the defaults of the engine", () => {
  const { attributes } = judged(CREATE, { Image: "alpine" });
  assert.deepEqual(attributes, {
    ...{ image: "docker.io/library/alpine:latest", privileged: false, name: null, platform: null },
    ...{ binds: [], writableBinds: [], mounts: [], volumeDriver: null, devices: [], labels: {} },
    ...{ capAdd: [], capDrop: [], securityOpt: [], groupAdd: [], sysctls: [], dangers: [] },
    ...{ pidMode: "default", ipcMode: "default", utsMode: "default", usernsMode: "default" },
    ...{ cgroupnsMode: "default", networkMode: "default", cgroupParent: null, runtime: null },
    ...{ restartPolicy: "no", logDriver: null, publishedPorts: [] },
  }); // without user, which is the image's
  assert.equal(judged(CREATE, {}).attributes["image"], "");
  assert.equal(judged(`${CREATE}?name=a/b`, {}).attributes["name"], "a/b");
  const full = judged(`${CREATE}?name=/web&platform=linux/arm64`, {
    ...{ Image: "ghcr.io/a/b@sha256:1", User: "1000:5", Labels: { "a.b": "c" } },
    Volumes: { "/anonymous": {} },
    HostConfig: {
      Binds: ["/srv/a:/a", "/srv/b:/b:ro", "data:/d", "/e"],
      Mounts: [{ Type: "bind", Source: "/c", Target: "/c", ReadOnly: true }, { Type: "tmpfs" }],
      ...{ CapAdd: ["cap_net_admin"], CapDrop: "all", SecurityOpt: ["seccomp:x=y"] },
      ...{ Capabilities: ["CAP_SYS_ADMIN", "XCAP_A"], GroupAdd: ["0"], Tmpfs: { "/run": "" } },
      ...{ DeviceCgroupRules: ["c 1:3 r"], RestartPolicy: { Name: "always" }, VolumeDriver: "nfs" },
      ...{ NetworkMode: "host", PidMode: "host", IpcMode: "none", CgroupParent: "/x" },
      ...{ UTSMode: "host", UsernsMode: "host", CgroupnsMode: "private", PublishAllPorts: true },
      ...{ Sysctls: { "net.a": "1" }, Runtime: "crun", LogConfig: { Type: "local" } },
      Devices: [{ PathOnHost: "/dev/a" }],
      DeviceRequests: [
        { Driver: "nvidia", Capabilities: [["gpu", "compute"]] },
        { Count: -1 },
        { Driver: "cdi", DeviceIDs: ["x/y=z"] },
      ],
      PortBindings: {
        "80/tcp": [{ HostIp: "127.0.0.1", HostPort: "8080" }, { HostIp: "::1", HostPort: "" }],
        "53/udp": [{}],
        "22": [],
      },
    },
  }).attributes;
  const expected: { [name: string]: unknown } = {
    ...{ name: "web", platform: "linux/arm64", image: "ghcr.io/a/b@sha256:1" },
    ...{ user: 1000, group: 5, labels: { "a.b": ["c"] }, binds: ["/srv/a", "/srv/b", "/c"] },
    ...{ writableBinds: ["/srv/a"], capAdd: ["NET_ADMIN", "SYS_ADMIN", "XCAP_A"] },
    ...{ capDrop: ["ALL"], groupAdd: ["0"], restartPolicy: "always", volumeDriver: "nfs" },
    mounts: [
      ...["bind:/srv/a", "bind:/srv/b", "volume:data", "volume:", "bind:/c", "tmpfs:"],
      ...["volume:", "tmpfs:"],
    ],
    ...{ networkMode: "host", pidMode: "host", ipcMode: "none", cgroupParent: "/x" },
    ...{ utsMode: "host", usernsMode: "host", cgroupnsMode: "private" },
    ...{ securityOpt: ["seccomp:x=y"], sysctls: ["net.a=1"], runtime: "crun", logDriver: "local" },
    devices: ["/dev/a", "c 1:3 r", "nvidia:gpu+compute", ":", "cdi:x/y=z"],
    // An integer is a key before all others.
    publishedPorts: [
      ...["0.0.0.0:0:22/tcp", "127.0.0.1:8080:80/tcp", "[::1]:0:80/tcp", "0.0.0.0:0:53/udp"],
      "0.0.0.0:0:*",
    ],
  };
  for (const [name, value] of Object.entries(expected)) {
    assert.deepEqual(full[name], value, name);
  }
});

test("readBody() knows a numeric user only", () => {
  const userOf = (User: string) => judged(CREATE, { Image: "a", User }).attributes["user"];
  assert.equal(userOf("1000"), 1000);
  assert.equal(userOf("0"), 0);
  assert.equal(userOf("00:0"), 0);
  for (const User of ["", "root", "1000:", "1000:users", "+1000", " 1000", "1000 ", "0x0", "-1"]) {
    assert.equal(userOf(User), undefined, User);
  }
});

test("readBody() names images in full, unless the name may be an id", () => {
  const imageOf = (image: string) => judged(CREATE, { Image: image }).attributes["image"];
  const rows: [string, string][] = [
    ["alpine", "docker.io/library/alpine:latest"],
    ["alpine:3", "docker.io/library/alpine:3"],
    ["docker.io/alpine", "docker.io/library/alpine:latest"],
    ["index.docker.io/a/b:c", "docker.io/a/b:c"],
    ["team/app", "docker.io/team/app:latest"],
    ["registry:5000/app", "registry:5000/app:latest"],
    ["localhost/app:1", "localhost/app:1"],
    ["EVIL/library/alpine", "EVIL/library/alpine:latest"], // a host, for Docker
    ["localhost", "docker.io/library/localhost:latest"],
    ["evil.example", "docker.io/library/evil.example:latest"],
    ["evil.example:5000", "docker.io/library/evil.example:5000"],
    // A path is no host.
    ["evil.example/docker.io/a", "evil.example/docker.io/a:latest"],
    ["evil.example/index.docker.io/a/b", "evil.example/index.docker.io/a/b:latest"],
    ["beef", "beef"],
    ["0123456789ab", "0123456789ab"],
    [`sha256:${"a".repeat(64)}`, `sha256:${"a".repeat(64)}`],
    [`alpine@sha256:${"a".repeat(64)}`, `docker.io/library/alpine@sha256:${"a".repeat(64)}`],
  ];
  for (const [name, full] of rows) assert.equal(imageOf(name), full);
});

test("readBody() lists the objects that fields name, and writeRequest() replaces them by ids", () => {
  const request = judged(CREATE, {
    Image: "alpine",
    HostConfig: {
      ...{ VolumesFrom: ["a:ro", "b"], NetworkMode: "container:e" },
      ...{ PidMode: "container:f", IpcMode: "container:g", Binds: ["data:/d:ro"] },
      ...{ Cgroup: "container:i", Links: ["/c:alias", "d", "/j", "k/l"] },
      Mounts: [
        { Type: "volume", Source: "more", Target: "/m" },
        { Type: "image", Source: "app", Target: "/i" },
        { Type: "tmpfs", Source: "none", Target: "/t" },
        { Type: "volume", Target: "/a", VolumeOptions: { Labels: { "io.example": "x" } } },
      ],
    },
    NetworkingConfig: { EndpointsConfig: { net: { Links: ["h:x"] } } },
  });
  assert.deepEqual(request.labelNames, ["io.example"]);
  const found = request.references.map(({ path, kind, name, action }) =>
    `${path} ${kind} ${name} ${action}`
  );
  assert.deepEqual(found.sort(), [
    "HostConfig.Binds[0] volume data volume.use",
    "HostConfig.Cgroup container i container.join",
    "HostConfig.IpcMode container g container.join",
    "HostConfig.Links[0] container c container.join",
    "HostConfig.Links[1] container d container.join",
    "HostConfig.Links[2] container j container.join",
    "HostConfig.Links[3] container k/l container.join",
    "HostConfig.Mounts[0].Source volume more volume.use",
    "HostConfig.Mounts[1].Source image app undefined",
    "HostConfig.NetworkMode container e container.join",
    "HostConfig.PidMode container f container.join",
    "HostConfig.VolumesFrom[0] container a container.join",
    "HostConfig.VolumesFrom[1] container b container.join",
    "Image image alpine undefined",
    "NetworkingConfig.EndpointsConfig.net network net network.connect",
    "NetworkingConfig.EndpointsConfig.net.Links[0] container h container.join",
  ]);
  const references = new Map(request.references.map((each) => [each, `id-${each.name}`]));
  assert.deepEqual(written(request, { references }), {
    Image: "id-alpine",
    HostConfig: {
      ...{ VolumesFrom: ["id-a:ro", "id-b"], Cgroup: "container:id-i" },
      Links: ["id-c:alias", "id-d:d", "id-j:j", "id-k/l:k/l"],
      ...{ NetworkMode: "container:id-e", PidMode: "container:id-f", IpcMode: "container:id-g" },
      Binds: ["id-data:/d:ro"],
      Mounts: [
        { Type: "volume", Source: "id-more", Target: "/m" },
        { Type: "image", Source: "id-app", Target: "/i" },
        { Type: "tmpfs", Source: "none", Target: "/t" },
        { Type: "volume", Target: "/a", VolumeOptions: { Labels: { "io.example": "x" } } },
      ],
    },
    NetworkingConfig: { EndpointsConfig: { "id-net": { Links: ["id-h:x"] } } },
  });
  for (const NetworkMode of ["default", "bridge", "none"]) {
    assert.deepEqual(judged(CREATE, { HostConfig: { NetworkMode } }).references, [], NetworkMode);
  }
});

test("writeRequest() refuses a network that is named twice", () => {
  const request = judged(CREATE, {
    Image: "a",
    NetworkingConfig: { EndpointsConfig: { web: {}, abc: {} } },
  });
  const references = new Map(request.references.map((each) => [each, "abc"]));
  assert.ok(isRefusal(writeRequest(request, { references })));
});

test("readBody() rejects names of containers, volumes and networks that the engine may read otherwise", () => {
  for (
    const HostConfig of [
      { VolumesFrom: ["../x"] },
      { VolumesFrom: [""] },
      { Links: ["a b"] },
      { NetworkMode: "container:" },
      { PidMode: "container:../x" },
      { NetworkMode: "../x" },
    ]
  ) rejected(CREATE, { Image: "a", HostConfig });
  rejected(`${CREATE}?name=../x`, { Image: "a" });
  rejected("POST /networks/n/connect", {});
  rejected("POST /networks/n/disconnect", { Container: "../x" });
  rejected("POST /volumes/create", { Name: "../x" });
  for (const query of ["", "?name=", "?name=../x", "?name=a%20b"]) {
    rejected(`POST /containers/a/rename${query}`, "");
  }
  judged("POST /containers/a/rename?name=/b", "");
  for (const labels of ["[]", "1", '{"a":1}', '{"a":"b","c":null}']) {
    rejected(`POST /build?labels=${encodeURIComponent(labels)}`, "");
  }
  judged("POST /build?labels=null", "");
});

test("readBody() reads only bodies of JSON", () => {
  const tar = judged("PUT /containers/a/archive?path=/", "no JSON");
  assert.deepEqual([tar.body, written(tar)], [undefined, undefined]);
  for (const line of ["PUT /containers/a/archive?path=/", "POST /images/create?fromSrc=-"]) {
    const result = writeRequest(judged(line, ""));
    assert.equal(!isRefusal(result) && result.contentType, "application/x-tar");
  }
  assert.equal(judged("POST /containers/a/stop", "no JSON").body, undefined);
});

test("writeRequest() sets labels, fields and the user, and keeps numbers as text", () => {
  const text = '{"hostconfig":{"Memory":9007199254740993,"CAPADD":"A","Foo":0},"User":"0",' +
    '"Labels":{"a":"1"},"name":"x","Cmd":null}';
  const request = judged(CREATE, text);
  const result = writeRequest(request, {
    labels: { "io.ucred.owner": "1000" },
    fields: [
      { path: ["User"], value: "1000:1000" },
      { path: ["HostConfig", "CapAdd"], value: [] },
      { path: ["HostConfig", "CapDrop"], value: ["ALL"] },
    ],
  });
  if (isRefusal(result)) assert.fail();
  assert.equal(
    new TextDecoder().decode(result.body),
    '{"HostConfig":{"Memory":9007199254740993,"CapAdd":[],"CapDrop":["ALL"]},"User":"1000:1000",' +
      '"Labels":{"a":"1","io.ucred.owner":"1000"}}',
  );
  assert.equal(result.contentType, "application/json");
  const build = readBody(head("POST /build?labels=%7B%22a%22:%22b%22%7D"), new Uint8Array());
  if (isRefusal(build)) assert.fail();
  const labelled = writeRequest(build, { labels: { o: "1" } });
  if (isRefusal(labelled)) assert.fail();
  const labels = encodeURIComponent('{"a":"b","o":"1"}');
  assert.equal(labelled.target, `/build?labels=${labels}`);
});

test("readBody() judges execs, volumes, networks, updates, builds and checkpoints", () => {
  const rows: readonly [line: string, body: unknown, dangers: string[], attributes: object][] = [
    ["POST /containers/a/exec", { Cmd: ["id"], User: "0" }, [], { user: 0, command: ["id"] }],
    ["POST /containers/a/exec", { privileged: true }, ["Privileged"], { privileged: true }],
    ["POST /containers/a/exec", { Cmd: "id" }, [], { privileged: false, command: ["id"] }],
    ["POST /containers/a/exec", { User: "x" }, [], { name: "a", user: undefined }],
    ["POST /containers/a/update", { Memory: 1 }, [], { restartPolicy: "no" }],
    ["POST /containers/a/update", { CgroupParent: "/x" }, ["CgroupParent"], { cgroupParent: "/x" }],
    ["POST /containers/a/checkpoints", { CheckpointDir: "/x" }, ["CheckpointDir"], {}],
    ["POST /containers/a/start?checkpoint-dir=/x", "", ["?checkpoint-dir"], {}],
    ["DELETE /containers/a/checkpoints/b?dir=/x", "", ["?dir"], {}],
    ["POST /volumes/create", { Name: "x" }, [], { name: "x", driver: "local", driverOpts: [] }],
    ["POST /volumes/create", "", [], { name: null, driver: "local" }],
    ["POST /volumes/create", { Driver: "nfs" }, ["Driver"], { driver: "nfs" }],
    [
      "POST /volumes/create",
      { DriverOpts: { type: "none", o: "bind", device: "/" } },
      ["DriverOpts"],
      { driverOpts: ["type=none", "o=bind", "device=/"] },
    ],
    ["POST /volumes/create", { ClusterVolumeSpec: { a: 1 } }, ["ClusterVolumeSpec"], {}],
    ["POST /networks/create", { Name: "n" }, [], { name: "n", driver: "bridge" }],
    ["POST /networks/create", { Name: "n", Driver: "macvlan" }, ["Driver"], { driver: "macvlan" }],
    ["POST /networks/create", { Name: "n", Options: { parent: "eth0" } }, ["Options"], {
      driverOpts: ["parent=eth0"],
    }],
    ["POST /networks/create", { Name: "n", IPAM: { Config: [{ Subnet: "10.0.0.0/8" }] } }, [
      "IPAM.Config",
    ], {}],
    ["POST /networks/create", { Name: "n", Ingress: true }, ["Ingress"], {}],
    ["POST /networks/create", { Name: "n", Attachable: true }, ["Attachable"], {}],
    ["POST /networks/create", { Name: "n", ConfigOnly: true }, ["ConfigOnly"], {}],
    ["POST /networks/create", { Name: "n", Scope: "swarm" }, ["Scope"], {}],
    ["POST /networks/create", { Name: "n", Scope: "local", IPAM: { Driver: "default" } }, [], {}],
    ["POST /networks/create", { Name: "n", IPAM: { Driver: "x" } }, ["IPAM.Driver"], {}],
    ["POST /networks/create", { Name: "n", IPAM: { Options: { a: "b" } } }, ["IPAM.Options"], {}],
    ["POST /networks/create", { Name: "n", ConfigFrom: { Network: "m" } }, ["ConfigFrom"], {}],
    ["POST /networks/n/connect", { Container: "c" }, [], { name: "n" }],
    ["POST /networks/n/connect", { Container: "c", EndpointConfig: { MacAddress: "x" } }, [
      "EndpointConfig.MacAddress",
    ], {}],
    [
      "POST /networks/n/connect",
      {
        ...{ Container: "c", EndpointConfig: { IPAMConfig: { IPv4Address: "10.0.0.2" } } },
      },
      ["EndpointConfig.IPAMConfig.IPv4Address"],
      {},
    ],
    ["PUT /volumes/x?version=1", { Spec: { a: 1 } }, ["Spec"], { name: "x" }],
    ["POST /build?t=app&networkmode=none", "", [], {
      ...{ tags: ["docker.io/library/app:latest"], networkMode: "none", remote: null },
    }],
    ["POST /build?t=&t=a&platform=linux/arm64", "", [], {
      ...{ tags: ["docker.io/library/a:latest"], platform: "linux/arm64" },
    }],
    ["POST /build?version=2&t=a&networkmode=host", "", ["?networkmode"], {
      tags: ["docker.io/library/a:latest"],
    }],
    ["POST /build?isolation=hyperv", "", ["?isolation"], {}],
    ["POST /build?networkmode=host", "", ["?networkmode"], { networkMode: "host" }],
    ["POST /build?cgroupparent=/x", "", ["?cgroupparent"], { cgroupParent: "/x" }],
    ["POST /build?remote=http://x/", "", ["?remote"], { remote: "http://x/" }],
    ["POST /build?securityopt=seccomp%3Dunconfined", "", ["?securityopt"], {}],
    ["POST /images/create?fromSrc=http://x/", "", ["?fromSrc"], { remote: "http://x/" }],
    ["POST /images/create?fromSrc=-&repo=b&tag=1&platform=linux/arm64", "", [], {
      ...{ remote: null, tags: ["docker.io/library/b:1"], platform: "linux/arm64" },
    }],
    ["POST /images/create?fromImage=app", "", [], {
      ...{ image: "docker.io/library/app:latest", platform: null },
    }],
    ["POST /images/create?fromImage=app&tag=2&platform=linux/arm64", "", [], {
      ...{ image: "docker.io/library/app:2", platform: "linux/arm64" },
    }],
    [`POST /images/create?fromImage=app&tag=sha256:${"a".repeat(64)}`, "", [], {
      image: `docker.io/library/app@sha256:${"a".repeat(64)}`,
    }],
    ["POST /images/app/push", "", [], { image: "docker.io/library/app:latest", platform: null }],
    ["POST /images/app/push?tag=v1.0-rc_2&platform=linux/arm64", "", [], {
      ...{ image: "docker.io/library/app:v1.0-rc_2", platform: "linux/arm64" },
    }],
    ["GET /v5.0.0/libpod/containers/json", "", [], { path: "containers/json" }],
    ["GET /containers/a/archive?path=/etc", "", [], { name: "a", path: "/etc" }],
    ["POST /images/a/tag?repo=b&tag=12", "", [], { tags: ["docker.io/library/b:12"] }],
    ["POST /images/a/tag?repo=beef", "", [], { tags: ["docker.io/library/beef:latest"] }],
    ["POST /commit?container=a&repo=r/b", { Labels: { x: "y" } }, [], {
      ...{ tags: ["docker.io/r/b:latest"], labels: { x: ["y"] } },
    }],
    ["POST /commit?container=a&tag=1", {}, [], { name: "a", tags: [] }],
    ["POST /commit?container=a&repo=r/b&tag=2", {}, [], { tags: ["docker.io/r/b:2"] }],
    ["PUT /containers/a/archive?path=/etc", "", [], { path: "/etc" }],
    ["POST /services/create", { Name: "x" }, ["swarm.write"], {}],
    ["POST /plugins/pull?remote=x", [], ["plugin.write"], {}],
  ];
  for (const [line, body, dangers, attributes] of rows) {
    const request = judged(line, body);
    assert.deepEqual(request.dangers, dangers, line);
    for (const [name, value] of Object.entries(attributes)) {
      assert.deepEqual(request.attributes[name], value, `${line}: ${name}`);
      assert.ok(Object.hasOwn(dockerVocabulary.attributes, name), name);
    }
  }
  const detached = judged("POST /exec/abc/start", { Detach: true, hijack: true, stdin: true });
  assert.equal(detached.request.stream, "none");
  assert.deepEqual(written(detached), { Detach: true });
  assert.equal(judged("POST /exec/abc/start", { Detach: false }).request.stream, "upgrade");
  const named = (line: string, body: unknown) =>
    judged(line, body).references.map(({ path, name, action }) => `${path} ${name} ${action}`);
  assert.deepEqual(named("POST /build?networkmode=container:a", ""), [
    "?networkmode a container.join",
  ]);
  const build = judged("POST /build?networkmode=container:a", "");
  const joined = writeRequest(build, { references: new Map([[build.references[0]!, "id"]]) });
  assert.equal(!isRefusal(joined) && joined.target, "/build?networkmode=container%3Aid");
  assert.deepEqual(named("POST /networks/create", { Name: "n", ConfigFrom: { Network: "m" } }), [
    "ConfigFrom.Network m network.connect",
  ]);
  for (const action of ["connect", "disconnect"]) {
    assert.deepEqual(named(`POST /networks/n/${action}`, { Container: "c" }), [
      `Container c network.${action}`,
    ]);
  }
});

test("withContainer() adds the attributes of the container, and both privileges count", () => {
  const inspection = (privileged: boolean) => ({
    ...{ Id: "f".repeat(64), Name: "/web", Mounts: [{ Type: "bind" }], CapAdd: null },
    Config: { Image: "alpine", User: "1000:1000", Labels: { a: "b" }, New: 1 },
    HostConfig: {
      ...{ Privileged: privileged, Binds: ["/srv:/srv"], Memory: 1.5e300, New: { x: 1 } },
      RestartPolicy: { Name: "on-failure", MaximumRetryCount: 3 },
    },
  });
  const exec = (User?: string) => judged("POST /containers/w/exec", { User }).attributes;
  const known = judged("POST /containers/w/exec", { Cmd: ["id"], Privileged: true }).attributes;
  const { privileged: isKnown, command } = withContainer(known, { HostConfig: 1 });
  assert.deepEqual([isKnown, command], [undefined, ["id"]]);
  assert.equal(withContainer(known, inspection(false))["privileged"], true);
  assert.equal(withContainer({}, { Name: "a/b" })["name"], "a/b");
  const unfolded = { HostConfig: { "\u017f": 1, Privileged: true } };
  assert.equal(withContainer({}, unfolded)["privileged"], true);
  const of = (attributes: { readonly [name: string]: unknown }, privileged = false) =>
    withContainer(attributes, inspection(privileged));
  const { name, id, image, user, group, binds, privileged, labels, restartPolicy } = of(exec());
  assert.deepEqual({ name, id, image, user, group, binds, privileged, labels, restartPolicy }, {
    restartPolicy: "on-failure",
    ...{ name: "web", id: "f".repeat(64), image: "docker.io/library/alpine:latest" },
    ...{ user: 1000, group: 1000, binds: ["/srv"], privileged: false, labels: { a: ["b"] } },
  });
  assert.equal(of(exec(), true)["privileged"], true);
  assert.equal(of(exec("0"))["user"], 0);
  assert.equal(of(exec("0"))["group"], undefined); // the gid of another user
  assert.equal(of(exec("root"))["user"], undefined);
  // podman reports the options of mounts.
  const podman = withContainer(exec(), {
    HostConfig: {
      Binds: ["/a:/a:rw,rprivate,nosuid,nodev,rbind", "/b:/b:ro,rprivate,rbind", "v:/v:rw,rbind"],
      Memory: 1.5,
    },
  });
  assert.deepEqual(podman["binds"], ["/a", "/b"]);
  assert.deepEqual(podman["writableBinds"], ["/a"]);
  // What cannot be read is unknown.
  const unreadable = { HostConfig: { Privileged: "no" } };
  assert.equal(withContainer(exec(), unreadable)["privileged"], undefined);
});

test("readBody() accepts 1 MiB, and returns 413 for one byte more", () => {
  const prefix = '{"Image":"a","Labels":{"x":"';
  const suffix = '"}}';
  const exact = prefix + "x".repeat(MAX_JSON_BYTES - prefix.length - suffix.length) + suffix;
  assert.equal(bytesOf(exact).length, 2 ** 20);
  judged(CREATE, exact);
  const longer = read(CREATE, `${exact} `);
  assert.equal(isRefusal(longer) && longer.status, 413);
});

test("readBody() rejects names of images that the engine may read otherwise", () => {
  for (
    const line of [
      "/images/create?fromImage=docker.io/library/../evil",
      "/images/create?fromImage=alpine&tag=x/../../evil.example/y",
      "/images/create?fromImage=alpine&tag=a:b",
      "/images/create?fromImage=//evil",
      "/images/create?fromSrc=-&repo=../x",
      "/images/a/tag?repo=a/../b",
      "/images/a/tag?repo=a&tag=b/c",
      "/images/a/push?tag=b/c",
      "/images/a/tag?repo=a&tag=sha256:a",
      `/images/a/tag?repo=a&tag=${"a".repeat(129)}`,
      "/images/a/tag?repo=a&tag=-a",
      "/build?t=agent/app&t=a/../b",
      "/commit?container=a&repo=a%20b",
    ]
  ) rejected(`POST ${line}`, "");
  rejected(CREATE, { Image: "a/../b" });
});

test("readBody() counts a mount as writable if the mounts below it are", () => {
  const writable = (BindOptions: object) =>
    judged(CREATE, {
      HostConfig: {
        Mounts: [{ Type: "bind", Source: "/a", Target: "/b", ReadOnly: true, BindOptions }],
      },
    }).attributes["writableBinds"];
  assert.deepEqual(writable({ ReadOnlyNonRecursive: true }), ["/a"]);
  assert.deepEqual(writable({ NonRecursive: true }), []);
});

test("readBody() rejects a body whose type is not JSON, and an empty create", () => {
  const request = { ...head(CREATE), isJson: false };
  const refusal = readBody(request, bytesOf({ Image: "a" }));
  assert.equal(isRefusal(refusal) && refusal.status, 415);
  assert.ok(isRefusal(readBody(request, new Uint8Array())));
});

test("lint() warns about a rule that allows new containers by attributes without dangers", () => {
  const findings = (rule: object) =>
    lint(
      definePolicy(
        {
          version: 1,
          about: "docker",
          rules: [{ name: "some", when: { gid: 970 }, ...rule }],
        },
        { vocabularies: [dockerVocabulary] },
      ),
    ).filter(({ kind }) => kind === "untested").map(({ message }) => message);
  const untested = (action: string) => [
    `Rule "some" allows "${action}" by attributes without "dangers": ` +
    "it allows every field that it does not test",
  ];
  const create = { actions: "container.create" };
  assert.deepEqual(
    findings({ ...create, allow: true, where: { privileged: false, capAdd: { empty: true } } }),
    untested("container.create"),
  );
  assert.deepEqual(
    findings({ allow: true, where: { owner: "self" } }),
    untested("container.create"),
  );
  assert.deepEqual(
    findings({ actions: "container.e*", allow: true, where: { owner: "self" } }),
    untested("container.exec"),
  );
  const dangers = { empty: true };
  for (
    const rule of [
      { ...create, allow: true, where: { privileged: false, dangers } },
      { ...create, allow: true, where: { any: [{ all: [{ dangers }] }] } },
      { ...create, allow: true },
      { actions: "container.stop", allow: true, where: { owner: "self" } },
      { ...create, where: { privileged: true }, deny: "No" },
    ]
  ) assert.deepEqual(findings(rule), [], JSON.stringify(rule));
});
