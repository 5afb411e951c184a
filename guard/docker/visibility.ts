/** What a client may see: objects that a rule allows it to list or to inspect. */

import type { Attributes, Decision } from "../../core/policy/decide/decision.ts";
import { isObject } from "../../core/policy/document/shape.ts";
import type { Policy } from "../../core/policy/policy.ts";
import type { MediatedClient } from "../http/mediator.ts";
import { fieldIn, type JsonObject, objectIn, record, records, textIn } from "./json.ts";
import type { ObjectKind, Objects } from "./objects.ts";
import { isFullId } from "./full_id.ts";

/** Whether a decision could differ if more attributes were known. */
export function dependsOnAttributes({ unknown }: Decision): boolean {
  return unknown.some((fact) => fact.startsWith("attributes."));
}

/** Decides what one client sees. */
export class Visibility {
  readonly client: MediatedClient;
  readonly #policy: Policy;
  readonly #objects: Objects;
  readonly #all = new Map<ObjectKind | "image", boolean>();

  constructor(client: MediatedClient, policy: Policy, objects: Objects) {
    this.client = client;
    this.#policy = policy;
    this.#objects = objects;
  }

  /** Decides without a record in the audit log. */
  decide(action: string, attributes: Attributes): Decision {
    return this.#policy.decide(this.client.admitted.peer, { action, attributes });
  }

  /** Whether the client sees all objects of a kind. */
  seesAll(kind: ObjectKind | "image"): boolean {
    let answer = this.#all.get(kind);
    if (answer === undefined) {
      answer = this.decide(`${kind}.list`, { dangers: [] }).allowed;
      this.#all.set(kind, answer);
    }
    return answer;
  }

  /** Whether the client sees an object. */
  sees(kind: ObjectKind, attributes: Attributes): boolean {
    const all = { ...attributes, dangers: [] };
    return this.seesAll(kind) || this.decide(`${kind}.list`, all).allowed ||
      this.decide(`${kind}.inspect`, all).allowed;
  }

  /** Whether the client sees the container with this id. */
  async seesContainer(id: string): Promise<boolean> {
    if (this.seesAll("container")) return true;
    const found = await this.#objects.find(this.client, "container", id);
    return found !== undefined && this.sees("container", found.attributes);
  }

  /** Returns the containers of a list that the client sees. */
  async containers(list: unknown): Promise<readonly JsonObject[]> {
    const items = records(list);
    if (this.seesAll("container")) return items;
    const kept: JsonObject[] = [];
    for (const item of items) {
      const attributes = await this.#objects.listed(this.client, item);
      if (this.sees("container", attributes)) kept.push(item);
    }
    return kept;
  }

  /** Returns the volumes of a list that the client sees. */
  volumes(list: unknown): readonly JsonObject[] {
    return records(list).filter((item) =>
      this.sees("volume", this.#objects.listedOther("volume", item))
    );
  }

  /** Returns the networks of a list that the client sees. */
  async networks(list: unknown): Promise<readonly JsonObject[]> {
    const kept: JsonObject[] = [];
    for (const item of records(list)) {
      if (!this.sees("network", this.#objects.listedOther("network", item))) continue;
      kept.push(await this.network(item));
    }
    return kept;
  }

  /** Returns a network without the containers that the client does not see. */
  async network(network: JsonObject): Promise<JsonObject> {
    if (this.seesAll("container")) return network;
    const containers: { [id: string]: unknown } = {};
    for (const [id, container] of Object.entries(objectIn(network, "Containers") ?? {})) {
      if (isFullId(id) && await this.seesContainer(id)) containers[id] = container;
    }
    const { Containers: _, Peers: _peers, Services: _services, ...rest } = network;
    return "Containers" in network ? { ...rest, Containers: containers } : rest;
  }

  /** Returns an event as the client may see it; `undefined` if it may not. */
  async event(line: string): Promise<string | undefined> {
    const event: unknown = JSON.parse(line);
    const kind = textIn(event, "Type");
    if (this.seesAll("container") && (kind === "container" || this.#seesKind(kind))) return line;
    // Events of networks and volumes name the container that uses them.
    if (kind !== "container") return undefined;
    const actor = objectIn(event, "Actor");
    const id = actor === undefined ? undefined : fieldIn(actor, "ID");
    if (!isFullId(id)) return undefined;
    const attributes = await this.#objects.inEvent(this.client, id, fieldIn(actor, "Attributes"));
    return attributes !== undefined && this.sees("container", attributes) ? line : undefined;
  }

  #seesKind(kind: string): boolean {
    const isKnown = kind === "volume" || kind === "network" || kind === "image";
    if (isKnown) return this.seesAll(kind);
    return this.seesAll("volume") && this.seesAll("network") && this.seesAll("image");
  }

  /** Returns the use of disk space, without the objects that the client does not see. */
  async diskUsage(usage: JsonObject): Promise<JsonObject> {
    if (["container", "volume", "image"].every((kind) => this.seesAll(kind as ObjectKind))) {
      return usage;
    }
    return {
      LayersSize: fieldIn(usage, "LayersSize") ?? 0,
      Images: this.seesAll("image") ? fieldIn(usage, "Images") ?? [] : [],
      Containers: await this.containers(fieldIn(usage, "Containers")),
      Volumes: this.volumes(fieldIn(usage, "Volumes")),
      BuildCache: [],
    };
  }
}

/** Returns an inspected image without the container that it was made from. */
export function withoutContainer(image: unknown): JsonObject {
  const { Container: _, ContainerConfig: _config, Config: config, ...rest } = record(image);
  if (!isObject(config)) return rest;
  const { Hostname: _hostname, ...others } = config;
  return { ...rest, Config: others };
}
