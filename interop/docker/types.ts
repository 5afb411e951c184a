/** What a request to the engine means: its action, targets, attributes and references. */

import type { JsonValue } from "../json.ts";

/** A request that is not forwarded: the engine does not have it, or it can be read in two ways. */
export interface Refusal {
  /**
   * The status of the response. 400: it cannot be read, or has an unknown field. 404: no such route, for this
   * method. 413: the body is too long. 415: another media type or coding of the body.
   */
  readonly status: 400 | 404 | 413 | 415;
  /** One sentence without a final period: `The field "HostConfig.Foo" is not known`. */
  readonly message: string;
}

/** A kind of objects that requests name. */
export type ObjectKind =
  | "container"
  | "exec"
  | "image"
  | "volume"
  | "network"
  | "plugin"
  | "service"
  | "task"
  | "node"
  | "secret"
  | "config"
  | "checkpoint";

/** An object that the path of a request names. */
export interface Target {
  /** Its kind. */
  readonly kind: ObjectKind;
  /** Its name or id, decoded. It may be a prefix of an id. */
  readonly name: string;
}

/** The kind of the body of a request. "none": the engine receives no body, and a JSON body is discarded. */
export type BodyKind = "none" | "json" | "tar" | "raw";

/**
 * How the response ends. "none": by itself. "unbounded": when the client or the engine closes it. "upgrade":
 * the connection becomes a raw stream, after 101 or 200.
 */
export type StreamKind = "none" | "unbounded" | "upgrade";

/** A request head that was read: `readRequest()`. */
export interface DockerRequest {
  /** The method, in upper case. */
  readonly method: string;
  /** The action of the vocabulary `docker`: "container.create". */
  readonly action: string;
  /** The API version in the path, without "v": "1.46". `undefined` if the path has none. */
  readonly version: string | undefined;
  /** The path without version, with a kind in braces for each target: "/containers/{container}/start". */
  readonly route: string;
  /** The objects that the path names, in its order, or the container of a commit. At most two. */
  readonly targets: readonly Target[];
  /** The parameters that the route has, decoded; booleans are "1" or "0". Others are dropped. */
  readonly query: ReadonlyMap<string, readonly string[]>;
  /** What the engine receives as body. */
  readonly body: BodyKind;
  /** Whether `Content-Type` is JSON. Without it, the body of a route with JSON must be empty. */
  readonly isJson: boolean;
  /** The maximum length of the body in bytes; `Infinity` for tar and raw bodies, which are streamed. */
  readonly maxBodyBytes: number;
  /** How the response ends. */
  readonly stream: StreamKind;
}

/**
 * An object that a field of the request names. A network with the driver `host` gives a container the network
 * of the host, too. `dangers` contains this only if the request names the network `host`, so check the attribute `driver`.
 */
export interface Reference {
  /** Its kind. */
  readonly kind: "container" | "image" | "volume" | "network";
  /** Its name or id, as in the request. */
  readonly name: string;
  /**
   * The action on that object: "container.join" for namespaces, volumes and links, "container.commit",
   * "volume.use", "network.connect". `undefined` for images, which the attribute `image` has.
   */
  readonly action: string | undefined;
  /** The place for messages: "HostConfig.VolumesFrom[0]", or "?container" for a query parameter. */
  readonly path: string;
}

/** A request whose head and body were judged: `readBody()`. */
export interface JudgedRequest {
  /** The head. */
  readonly request: DockerRequest;
  /** The body of a route with JSON; `undefined` if the route has none, or it was empty. */
  readonly body: JsonValue | undefined;
  /** The attributes of the vocabulary `docker` that the request itself determines. */
  readonly attributes: { readonly [name: string]: unknown };
  /** The objects that fields name, in the order of the body. */
  readonly references: readonly Reference[];
  /**
   * The fields that reach the host or other containers, as in the attribute `dangers`:
   * "HostConfig.Privileged", "HostConfig.Mounts[].Source", "?networkmode".
   */
  readonly dangers: readonly string[];
  /** The names of all labels in the request. */
  readonly labelNames: readonly string[];
}

/** What `writeRequest()` replaces in a judged request. */
export interface Replacements {
  /** The full ids, or names, of `targets`, in the same order. By default the names as requested. */
  readonly targets?: readonly string[] | undefined;
  /** Full ids or names for references. */
  readonly references?: ReadonlyMap<Reference, string> | undefined;
  /** Labels that are set on the object that the request creates, or that its build creates. */
  readonly labels?: { readonly [name: string]: string } | undefined;
  /** Fields to set, each by its path from the top: `{ path: ["HostConfig", "CapDrop"], value: ["ALL"] }`. */
  readonly fields?: readonly { readonly path: readonly string[]; readonly value: JsonValue }[];
  /** Filters that are added to the parameter `filters`. The engine requires all keys. */
  readonly filters?: { readonly [name: string]: readonly string[] } | undefined;
}

/** A request as it is forwarded. */
export interface WrittenRequest {
  /** The request target. */
  readonly target: string;
  /** The value of `Content-Type`; `undefined` if there is no body. */
  readonly contentType: "application/json" | "application/x-tar" | undefined;
  /** The JSON body; `undefined` if there is none, or it is streamed. */
  readonly body: Uint8Array | undefined;
}
