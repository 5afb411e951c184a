/** Finds the containers, volumes and networks that clients name, with the attributes that policies test. */

import { randomBytes } from "node:crypto";
import { isObject } from "../../core/policy/document/shape.ts";
import { withContainer } from "../../interop/docker/mod.ts";
import { isNameOf } from "../../interop/docker/routes.ts";
import type { Answer, MediatedClient } from "../http/mediator.ts";
import type { Engine, EngineResponse } from "./engine.ts";
import { jsonOf } from "./engine.ts";
import { fieldIn, type JsonObject, objectIn, record, records, textIn } from "./json.ts";
import { BoundedMap } from "./bounded_map.ts";
import { fullIdIn, isFullId } from "./full_id.ts";
import { ownerIn, type Owners } from "./owners.ts";

/** A kind of object that has an owner. */
export type ObjectKind = "container" | "volume" | "network";

/** An object of the engine. */
export interface FoundObject {
  readonly kind: ObjectKind;
  /** The full id; of a volume its name. */
  readonly id: string;
  readonly attributes: JsonObject;
  /** The engine's response to the inspection. */
  readonly response: EngineResponse;
}

const FOLDERS: { readonly [kind in ObjectKind | "exec"]: string } = {
  container: "containers",
  volume: "volumes",
  network: "networks",
  exec: "exec",
};

/** Returns the path at which an object is inspected. */
export function pathOf(kind: ObjectKind | "exec", ref: string): string {
  const name = `/${FOLDERS[kind]}/${encodeURIComponent(ref)}`;
  return kind === "container" || kind === "exec" ? `${name}/json` : name;
}

/** The header lines of an inspection that an answer of the guard keeps: it has its own for the others. */
export function keptLines({ lines }: EngineResponse): readonly string[] {
  return lines.filter((line) => !/^(content-type|date|cache-control):/i.test(line));
}

/** Labels as the vocabulary has them: lists of one value, by name. */
function labelsOf(labels: unknown): JsonObject {
  const entries = Object.entries(labels === null || labels === undefined ? {} : record(labels));
  return Object.fromEntries(entries.map(([name, value]) => [name, [String(value)]]));
}

/** The paths of the host that are mounted into a container, also those from other containers. */
function bindsOf(object: JsonObject): JsonObject {
  const binds = records(fieldIn(object, "Mounts")).filter(({ Type }) => Type === "bind");
  const sources = (list: readonly JsonObject[]) => list.map((mount) => textIn(mount, "Source"));
  return {
    binds: sources(binds),
    writableBinds: sources(binds.filter(({ RW }) => RW !== false)),
  };
}

/** The attributes of a volume or network. */
function attributesOf(kind: "volume" | "network", id: string, object: JsonObject): JsonObject {
  const owner = ownerIn(fieldIn(object, "Labels"));
  return {
    ...{ id, name: textIn(object, "Name"), labels: labelsOf(fieldIn(object, "Labels")) },
    ...(owner !== undefined && { owner }),
    ...(kind === "network" || typeof fieldIn(object, "Driver") === "string") &&
      { driver: textIn(object, "Driver") },
  };
}

/** Reads the objects of the engine. */
export class Objects {
  readonly #engine: Engine;
  readonly #owners: Owners;
  /** The attributes of containers that clients remove: their last event may arrive after the removal. */
  readonly #leaving = new BoundedMap<JsonObject>();
  /** Kind → the engine's response for an object that does not exist, and the name that was queried. */
  readonly #absent = new Map<ObjectKind | "exec", { response: EngineResponse; name: string }>();

  constructor(engine: Engine, owners: Owners) {
    this.#engine = engine;
    this.#owners = owners;
  }

  /** Inspects an object. Returns `undefined` if there is none of this name. */
  async find(
    client: MediatedClient,
    kind: ObjectKind,
    ref: string,
    query = "",
    version = "",
  ): Promise<FoundObject | undefined> {
    if (!isNameOf(kind, ref)) return undefined;
    const url = version + pathOf(kind, ref) + query;
    const response = await this.#engine.query(client, "GET", url);
    // 400 and 409: several objects match. They must be indistinguishable from none.
    if ([400, 404, 409].includes(response.status)) return undefined;
    if (response.status !== 200) {
      throw new Error(`it answers ${response.status} to the inspection of a ${kind}`);
    }
    const object = record(jsonOf(response.body));
    if (kind === "container") {
      const { id, attributes } = await this.inspected(client, object);
      return { kind, id, attributes, response };
    }
    const id = textIn(object, kind === "volume" ? "Name" : "Id");
    if (!isNameOf(kind, id) || (kind === "network" && !isFullId(id))) {
      throw new Error(`its response has no full id of a ${kind}`);
    }
    if (kind === "volume" && id !== ref) throw new Error("it inspects another volume");
    return { kind, id, attributes: attributesOf(kind, id, object), response };
  }

  /** Reads an inspected container. */
  async inspected(
    client: MediatedClient,
    object: JsonObject,
  ): Promise<{ id: string; attributes: JsonObject }> {
    const id = fullIdIn(object, "Id", "a container");
    const config = record(fieldIn(object, "Config"));
    const labels = objectIn(config, "Labels");
    const imageId = textIn(object, "Image");
    const owner = await this.#owners.ownerOf(client, { id, imageId, labels });
    const { dangers: _, ...read } = withContainer({}, object);
    const attributes = {
      ...read,
      ...bindsOf(object),
      ...{ id, name: textIn(object, "Name").replace(/^\//, ""), labels: labelsOf(labels) },
      ...(owner !== undefined && { owner }),
    };
    return { id, attributes };
  }

  /** Returns the attributes of a container in a list. */
  async listed(client: MediatedClient, item: JsonObject): Promise<JsonObject> {
    const id = fullIdIn(item, "Id", "a container");
    const labels = objectIn(item, "Labels");
    const names = fieldIn(item, "Names");
    const first: unknown = Array.isArray(names) ? names[0] : undefined;
    const owner = await this.#owners.ownerOf(client, {
      ...{ id, labels, imageId: textIn(item, "ImageID") },
    });
    return {
      id,
      ...(typeof first === "string" && { name: first.replace(/^\//, "") }),
      ...{ image: textIn(item, "Image"), labels: labelsOf(labels) },
      ...(owner !== undefined && { owner }),
    };
  }

  /** Remembers a container that is being removed. */
  leaving(id: string, attributes: JsonObject): void {
    this.#leaving.set(id, attributes);
  }

  /** Returns the attributes of a container in an event; `undefined` if they cannot be known. */
  async inEvent(
    client: MediatedClient,
    id: string,
    actor: unknown,
  ): Promise<JsonObject | undefined> {
    const owner = this.#owners.known(id);
    if (owner === undefined) {
      return (await this.find(client, "container", id))?.attributes ?? this.#leaving.get(id);
    }
    // The labels of a container are among the attributes of its events, with other attributes.
    const { name, image } = isObject(actor) ? actor : {} as JsonObject;
    return {
      ...{ id, owner },
      ...(typeof name === "string" && { name }),
      ...(typeof image === "string" && { image }),
    };
  }

  /** Returns the attributes of a volume or network in a list. */
  listedOther(kind: "volume" | "network", item: JsonObject): JsonObject {
    return attributesOf(kind, textIn(item, kind === "volume" ? "Name" : "Id"), item);
  }

  /**
   * Returns the engine's own response for an object that does not exist, with the name that a client has
   * requested. An object that the client may not see is answered with the same response.
   */
  async absent(client: MediatedClient, kind: ObjectKind | "exec", ref: string): Promise<Answer> {
    let known = this.#absent.get(kind);
    if (known === undefined) {
      const name = `ucredabsent${randomBytes(16).toString("hex")}`;
      const response = await this.#engine.query(client, "GET", pathOf(kind, name));
      if (response.status !== 404) throw new Error(`it answers ${response.status} instead of 404`);
      if (!isObject(jsonOf(response.body))) throw new Error("its response to an unknown name");
      this.#absent.set(kind, known = { response, name });
    }
    const { response, name } = known;
    const type = response.lines.find((line) => /^content-type:/i.test(line));
    return {
      ...{ status: 404, title: response.reason },
      body: response.body.toString().replaceAll(name, () => JSON.stringify(ref).slice(1, -1)),
      type: type?.slice(type.indexOf(":") + 1).trim() ?? "application/json",
      lines: keptLines(response),
    };
  }
}
