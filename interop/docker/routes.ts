/**
 * The routes of the Docker Engine API 1.24 to 1.56, which are also those of podman's compatible API: one
 * table, and nothing else knows a path.
 */

import type { BodyKind, ObjectKind, StreamKind } from "./types.ts";

/** The oldest and the latest version of the API that are known. Fields of later ones are not. */
export const API_VERSIONS = { min: "1.24", max: "1.56" } as const;

/**
 * The type of a query parameter. "flag": false is "", 0, no, false or none. "set-flag": the same, but an empty
 * value is the default of the engine. "texts": it may be repeated. "filters", "json": a JSON object or list.
 */
export type ParameterType =
  | "flag"
  | "set-flag"
  | "number"
  | "text"
  | "texts"
  | "filters"
  | "json";

/** A route of the API. */
export interface Route {
  readonly method: string;
  /** The path, with a kind of objects in braces for each target: "/containers/{container}/start". */
  readonly path: string;
  readonly action: string;
  readonly query: { readonly [parameter: string]: ParameterType };
  readonly body: BodyKind;
  readonly stream: StreamKind;
  /** Whether a parameter that the route does not have is rejected: it may limit what the request removes. */
  readonly isStrict: boolean;
}

type Parameters = Route["query"];

function route(
  line: string,
  action: string,
  query: Parameters = {},
  { body = "none", stream = "none" }: { body?: BodyKind; stream?: StreamKind } = {},
): Route {
  const [method = "", path = ""] = line.split(" ");
  const isStrict = method === "DELETE" || path.endsWith("/prune");
  return { method, path, action, query, body, stream, isStrict };
}

const JSON_BODY = { body: "json" } as const;
const ENDLESS = { stream: "unbounded" } as const;
const UPGRADE = { stream: "upgrade" } as const;

const filters: Parameters = { filters: "filters" };
const signal: Parameters = { signal: "text", t: "number" };
const size: Parameters = { h: "number", w: "number" };
const attach: Parameters = {
  ...{ logs: "flag", stream: "flag", stdin: "flag", stdout: "flag", stderr: "flag" },
  detachKeys: "text",
};
const logs: Parameters = {
  ...{ follow: "flag", stdout: "flag", stderr: "flag", timestamps: "flag", details: "flag" },
  ...{ since: "text", until: "text", tail: "text" },
};
const archive: Parameters = { path: "text" };
const build: Parameters = {
  ...{ dockerfile: "text", t: "texts", extrahosts: "texts", remote: "text", q: "flag" },
  ...{ nocache: "flag", cachefrom: "json", pull: "flag", rm: "set-flag", forcerm: "flag" },
  ...{ memory: "number", memswap: "number", cpushares: "number", cpuperiod: "number" },
  ...{ cpuquota: "number", cpusetcpus: "text", cpusetmems: "text", cgroupparent: "text" },
  ...{ networkmode: "text", securityopt: "texts", squash: "flag", target: "text" },
  ...{ session: "text", buildid: "text", platform: "text", outputs: "json", shmsize: "number" },
  ...{ isolation: "text", ulimits: "json", buildargs: "json", labels: "json", version: "text" },
};
const swarmUpdate: Parameters = {
  ...{ version: "text", registryAuthFrom: "text", rollback: "text", rotateWorkerToken: "flag" },
  ...{ rotateManagerToken: "flag", rotateManagerUnlockKey: "flag", force: "flag" },
};

/** Routes that are alike for several kinds of objects of a swarm. */
const swarm: readonly Route[] = (["service", "task", "node", "secret", "config"] as const).flatMap((
  kind,
) => {
  const list: Parameters = kind === "service" ? { filters: "filters", status: "flag" } : filters;
  const routes = [
    route(`GET /${kind}s`, `${kind}.list`, list),
    route(`GET /${kind}s/{${kind}}`, `${kind}.inspect`, { insertDefaults: "flag" }),
  ];
  if (kind === "service" || kind === "task") {
    routes.push(route(`GET /${kind}s/{${kind}}/logs`, `${kind}.logs`, logs, ENDLESS));
  }
  if (kind === "task") return routes;
  routes.push(
    route(`POST /${kind}s/{${kind}}/update`, "swarm.write", swarmUpdate, JSON_BODY),
    route(`DELETE /${kind}s/{${kind}}`, "swarm.write", { force: "flag" }),
  );
  if (kind !== "node") routes.push(route(`POST /${kind}s/create`, "swarm.write", {}, JSON_BODY));
  return routes;
});

/** All routes. */
export const ROUTES: readonly Route[] = [
  route("HEAD /_ping", "system.ping"),
  route("GET /_ping", "system.ping"),
  route("GET /version", "system.version"),
  route("GET /info", "system.info"),
  route("GET /events", "system.events", { ...filters, since: "text", until: "text" }, ENDLESS),
  route("GET /system/df", "system.df", { type: "texts", verbose: "flag" }),
  route("POST /auth", "system.auth", {}, JSON_BODY),
  route("GET /debug/vars", "system.debug"),
  ...["", "/cmdline", "/profile", "/symbol", "/trace", "/heap", "/goroutine", "/block", "/mutex"]
    .map((name) => route(`GET /debug/pprof${name}`, "system.debug", { seconds: "number" })),

  route("GET /containers/json", "container.list", {
    ...{ all: "flag", size: "flag", limit: "number", since: "text", before: "text" },
    ...filters,
  }),
  route(
    "POST /containers/create",
    "container.create",
    { name: "text", platform: "text" },
    JSON_BODY,
  ),
  route("POST /containers/prune", "container.prune", filters),
  route("GET /containers/{container}/json", "container.inspect", { size: "flag" }),
  route("GET /containers/{container}/top", "container.top", { ps_args: "text" }),
  route("GET /containers/{container}/logs", "container.logs", logs, ENDLESS),
  route("GET /containers/{container}/changes", "container.changes"),
  route("GET /containers/{container}/export", "container.export"),
  route(
    "GET /containers/{container}/stats",
    "container.stats",
    { stream: "flag", "one-shot": "flag" },
    ENDLESS,
  ),
  route("POST /containers/{container}/resize", "container.resize", size),
  route("POST /containers/{container}/start", "container.start", {
    ...{ detachKeys: "text", checkpoint: "text", "checkpoint-dir": "text" },
  }),
  route("POST /containers/{container}/stop", "container.stop", signal),
  route("POST /containers/{container}/restart", "container.restart", signal),
  route("POST /containers/{container}/kill", "container.kill", { signal: "text" }),
  route("POST /containers/{container}/pause", "container.pause"),
  route("POST /containers/{container}/unpause", "container.pause"),
  route("POST /containers/{container}/update", "container.update", {}, JSON_BODY),
  route("POST /containers/{container}/rename", "container.rename", { name: "text" }),
  route("POST /containers/{container}/wait", "container.wait", { condition: "text" }, ENDLESS),
  route("POST /containers/{container}/attach", "container.attach", attach, UPGRADE),
  route("GET /containers/{container}/attach/ws", "container.attach", attach, UPGRADE),
  route("DELETE /containers/{container}", "container.remove", {
    ...{ v: "flag", force: "flag", link: "flag" },
  }),
  route("HEAD /containers/{container}/archive", "container.archive.read", archive),
  route("GET /containers/{container}/archive", "container.archive.read", archive),
  route(
    "PUT /containers/{container}/archive",
    "container.archive.write",
    { ...archive, noOverwriteDirNonDir: "flag", copyUIDGID: "flag" },
    { body: "tar" },
  ),
  route("POST /containers/{container}/exec", "container.exec", {}, JSON_BODY),
  route("GET /containers/{container}/checkpoints", "container.checkpoint", { dir: "text" }),
  route("POST /containers/{container}/checkpoints", "container.checkpoint", {}, JSON_BODY),
  route(
    "DELETE /containers/{container}/checkpoints/{checkpoint}",
    "container.checkpoint",
    { dir: "text" },
  ),
  route("POST /commit", "container.commit", {
    ...{ container: "text", repo: "text", tag: "text", comment: "text", author: "text" },
    ...{ pause: "flag", changes: "texts" },
  }, JSON_BODY),
  route("GET /exec/{exec}/json", "exec.inspect"),
  route("POST /exec/{exec}/start", "exec.start", {}, { ...JSON_BODY, ...UPGRADE }),
  route("POST /exec/{exec}/resize", "exec.resize", size),

  route("GET /images/json", "image.list", {
    ...{ all: "flag", digests: "flag", "shared-size": "flag", manifests: "flag", identity: "flag" },
    ...{ filter: "text", ...filters },
  }),
  route("GET /images/search", "image.search", { term: "text", limit: "number", ...filters }),
  route("GET /images/get", "image.export", { names: "texts", platform: "texts" }),
  // With fromSrc the action is image.import, and with fromSrc=- the body is the image.
  route("POST /images/create", "image.pull", {
    ...{ fromImage: "text", fromSrc: "text", repo: "text", tag: "text", message: "text" },
    ...{ platform: "text", changes: "texts" },
  }, ENDLESS),
  route(
    "POST /images/load",
    "image.load",
    { quiet: "flag", platform: "texts" },
    { body: "tar", ...ENDLESS },
  ),
  route("POST /images/prune", "image.prune", filters),
  route("GET /images/{image}/json", "image.inspect", { manifests: "flag", platform: "text" }),
  route("GET /images/{image}/history", "image.history", { platform: "text" }),
  route("GET /images/{image}/attestations", "image.inspect", {
    ...{ platform: "text", type: "texts", statement: "flag" },
  }),
  route("GET /images/{image}/get", "image.export", { platform: "texts" }),
  route(
    "POST /images/{image}/push",
    "image.push",
    { tag: "text", platform: "text" },
    ENDLESS,
  ),
  route("POST /images/{image}/tag", "image.tag", { repo: "text", tag: "text" }),
  route("DELETE /images/{image}", "image.remove", {
    ...{ force: "flag", noprune: "flag", platforms: "texts" },
  }),
  route("GET /distribution/{image}/json", "image.distribution"),

  // With version=2, session or outputs it is BuildKit that builds, and the action is build.session.
  route("POST /build", "build", build, { body: "tar", ...ENDLESS }),
  route("POST /build/prune", "build.prune", {
    ...{ all: "flag", ...filters, "keep-storage": "number", "reserved-space": "number" },
    ...{ "max-used-space": "number", "min-free-space": "number" },
  }),
  route("POST /build/cancel", "build.cancel", { id: "text" }),
  route("POST /session", "build.session", {}, UPGRADE),
  route("POST /grpc", "build.session", {}, UPGRADE),

  route("GET /volumes", "volume.list", filters),
  route("POST /volumes/create", "volume.create", {}, JSON_BODY),
  route("POST /volumes/prune", "volume.prune", filters),
  route("GET /volumes/{volume}", "volume.inspect"),
  route("PUT /volumes/{volume}", "volume.update", { version: "text" }, JSON_BODY),
  route("DELETE /volumes/{volume}", "volume.remove", { force: "flag" }),

  route("GET /networks", "network.list", filters),
  route("POST /networks/create", "network.create", {}, JSON_BODY),
  route("POST /networks/prune", "network.prune", filters),
  route("GET /networks/{network}", "network.inspect", { verbose: "flag", scope: "text" }),
  route("POST /networks/{network}/connect", "network.connect", {}, JSON_BODY),
  route("POST /networks/{network}/disconnect", "network.disconnect", {}, JSON_BODY),
  route("DELETE /networks/{network}", "network.remove"),

  route("GET /plugins", "plugin.list", filters),
  route("GET /plugins/privileges", "plugin.list", { remote: "text" }),
  route("GET /plugins/{plugin}/json", "plugin.inspect"),
  route("POST /plugins/pull", "plugin.write", { remote: "text", name: "text" }, {
    ...{ ...JSON_BODY, ...ENDLESS },
  }),
  route("POST /plugins/create", "plugin.write", { name: "text" }, { body: "tar" }),
  route("POST /plugins/{plugin}/enable", "plugin.write", { timeout: "number" }),
  route("POST /plugins/{plugin}/disable", "plugin.write", { force: "flag" }),
  route("POST /plugins/{plugin}/push", "plugin.write", {}, ENDLESS),
  route("POST /plugins/{plugin}/upgrade", "plugin.write", { remote: "text" }, {
    ...{ ...JSON_BODY, ...ENDLESS },
  }),
  route("POST /plugins/{plugin}/set", "plugin.write", {}, JSON_BODY),
  route("DELETE /plugins/{plugin}", "plugin.write", { force: "flag" }),

  route("GET /swarm", "swarm.inspect"),
  route("GET /swarm/unlockkey", "swarm.unlockkey"),
  ...["init", "join", "leave", "update", "unlock"].map((name) =>
    route(`POST /swarm/${name}`, "swarm.write", swarmUpdate, JSON_BODY)
  ),
  ...swarm,
];

/** The names that objects of each kind can have. Slashes: repositories, and names of legacy links. */
const NAMES: { readonly [kind in ObjectKind]: RegExp } = {
  container: /^[A-Za-z0-9][\w.-]*(?:\/[A-Za-z0-9][\w.-]*)*$/,
  exec: /^[0-9a-f]{1,64}$/,
  image: /^[A-Za-z0-9][\w.:@-]*(?:\/[A-Za-z0-9_][\w.:@-]*)*$/,
  plugin: /^[A-Za-z0-9][\w.:@-]*(?:\/[A-Za-z0-9_][\w.:@-]*)*$/,
  volume: /^[A-Za-z0-9][\w.-]*$/,
  network: /^[A-Za-z0-9][\w. :-]*$/,
  service: /^[A-Za-z0-9][\w.-]*$/,
  task: /^[A-Za-z0-9][\w.-]*$/,
  node: /^[A-Za-z0-9][\w.-]*$/,
  secret: /^[A-Za-z0-9][\w.-]*$/,
  config: /^[A-Za-z0-9][\w.-]*$/,
  checkpoint: /^[A-Za-z0-9][\w.-]*$/,
};

/** Whether an object of a kind can have a name. */
export const isNameOf = (kind: ObjectKind, name: string): boolean =>
  NAMES[kind].test(name) && name.length <= 1024;

/** Kinds whose names clients encode as one segment: the slashes of a repository as %2F. */
export const HAS_ENCODED_SLASHES: ReadonlySet<ObjectKind> = new Set(["image", "plugin"]);

/** A route with targets: the texts before, between and after them. */
interface Pattern {
  readonly route: Route;
  readonly kinds: readonly ObjectKind[];
  readonly texts: readonly string[];
}

const fixed = new Map<string, Route>();
const patterns = new Map<string, Pattern[]>();
for (const route of ROUTES) {
  const parts = route.path.split(/[{}]/);
  if (parts.length === 1) {
    fixed.set(`${route.method} ${route.path}`, route);
    continue;
  }
  const texts = parts.filter((_, at) => at % 2 === 0);
  const kinds = parts.filter((_, at) => at % 2 === 1) as ObjectKind[];
  const list = patterns.get(route.method) ?? [];
  list.push({ route, kinds, texts });
  patterns.set(route.method, list);
}
// The names of targets are greedy: /containers/a/start/exec is an exec in the container "a/start".
const suffixOf = ({ texts }: Pattern) => texts.slice(1).join("").length;
for (const list of patterns.values()) list.sort((a, b) => suffixOf(b) - suffixOf(a));

/** A route, and where its targets are in the path. */
export interface Match {
  readonly route: Route;
  readonly targets: readonly {
    readonly kind: ObjectKind;
    readonly from: number;
    readonly to: number;
  }[];
}

/** Finds the route of a path without version. */
export function findRoute(method: string, path: string): Match | undefined {
  const route = fixed.get(`${method} ${path}`);
  if (route !== undefined) return { route, targets: [] };
  for (const { route, kinds, texts } of patterns.get(method) ?? []) {
    const [before = "", between = "", after] = texts;
    if (!path.startsWith(before)) continue;
    const end = path.length - (after ?? between).length;
    if (end <= before.length || !path.endsWith(after ?? between)) continue;
    const [kind, second] = kinds as [ObjectKind, ObjectKind?];
    if (second === undefined) return { route, targets: [{ kind, from: before.length, to: end }] };
    const middle = path.lastIndexOf(between);
    if (middle <= before.length || middle + between.length >= end) continue;
    return {
      route,
      targets: [
        { kind, from: before.length, to: middle },
        { kind: second, from: middle + between.length, to: end },
      ],
    };
  }
  return undefined;
}
