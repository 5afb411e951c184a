/** Who owns a container, a volume or a network: the user that created it through the guard. */

import { isObject } from "../../core/policy/document/shape.ts";
import type { MediatedClient } from "../http/mediator.ts";
import type { Engine } from "./engine.ts";
import { objectIn, textIn } from "./json.ts";

/** Labels below this prefix belong to the guard. Requests with such labels are refused. */
export const RESERVED_PREFIX = "io.ucred.";

/** The label with the uid of the owner, in decimal. */
export const OWNER_LABEL = "io.ucred.owner";

/** Maximum containers and images that are remembered. The oldest are forgotten, and inspected again. */
const MAX_REMEMBERED = 100_000;

/** The full id of a container or of an exec instance. */
const FULL_ID = /^[0-9a-f]{64}$/;

/** Returns whether a text is the full id of a container or of an exec instance. */
export function isFullId(text: unknown): text is string {
  return typeof text === "string" && FULL_ID.test(text);
}

/** Requires the full id of an object in a field. @param what The object: "a container". */
export function fullIdIn(value: unknown, name: string, what: string): string {
  const id = textIn(value, name);
  if (!isFullId(id)) throw new Error(`its response has no full id of ${what}`);
  return id;
}

/** A map that forgets its oldest entries. */
export class BoundedMap<V> {
  readonly #entries = new Map<string, V>();

  get(key: string): V | undefined {
    return this.#entries.get(key);
  }

  set(key: string, value: V): void {
    if (this.#entries.size >= MAX_REMEMBERED) {
      const [oldest] = this.#entries.keys();
      this.#entries.delete(oldest!);
    }
    this.#entries.set(key, value);
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }
}

/** The owner that labels name. `undefined` if they name none. */
export function ownerIn(labels: unknown): number | undefined {
  if (!isObject(labels) || !Object.hasOwn(labels, OWNER_LABEL)) return undefined;
  const text = labels[OWNER_LABEL];
  if (typeof text !== "string" || !/^(0|[1-9][0-9]{0,9})$/.test(text)) return undefined;
  const uid = Number(text);
  return uid < 0xffff_ffff ? uid : undefined;
}

/** A container as lists and inspections describe it. */
export interface ContainerLabels {
  readonly id: string;
  /** The id of its image. */
  readonly imageId: string;
  readonly labels: unknown;
}

/**
 * Remembers which user created which container. A container that is not remembered, because the guard was
 * restarted, belongs to the uid in its label, unless its image has the same label: the builder of the
 * image has chosen that label, and another user may have created the container past the guard.
 */
export class Owners {
  readonly #engine: Engine;
  readonly #containers = new BoundedMap<number>();
  /** Image id → the value of its label; `null`: it has none. */
  readonly #images = new BoundedMap<string | null>();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Remembers a container that a user has created through the guard. */
  created(id: string, uid: number): void {
    this.#containers.set(id, uid);
  }

  /** Returns the owner of a container that is remembered. */
  known(id: string): number | undefined {
    return this.#containers.get(id);
  }

  /** Forgets a container that was removed. */
  removed(id: string): void {
    this.#containers.delete(id);
  }

  /** Returns the owner of a container; `undefined` if it has none. */
  async ownerOf(client: MediatedClient, container: ContainerLabels): Promise<number | undefined> {
    const { id, imageId, labels } = container;
    const known = this.#containers.get(id);
    if (known !== undefined) return known;
    const uid = ownerIn(labels);
    if (uid === undefined || !isFullId(id)) return undefined;
    const ofImage = await this.#labelOf(client, imageId);
    if (ofImage === undefined || ofImage === String(uid)) return undefined;
    this.#containers.set(id, uid);
    return uid;
  }

  /** Returns the label of an image; `undefined` if the image does not exist. */
  async #labelOf(client: MediatedClient, imageId: string): Promise<string | null | undefined> {
    // An image id is a hash of the image's configuration, labels included.
    if (!/^(sha256:)?[0-9a-f]{64}$/.test(imageId)) return undefined;
    const known = this.#images.get(imageId);
    if (known !== undefined) return known;
    const image = await this.#engine.inspect(client, `/images/${imageId}/json`);
    if (image === undefined) return undefined;
    if (textIn(image, "Id").replace(/^sha256:/, "") !== imageId.replace(/^sha256:/, "")) {
      return undefined;
    }
    const config = objectIn(image, "Config");
    const labels = config === undefined ? undefined : objectIn(config, "Labels");
    const label = labels !== undefined && Object.hasOwn(labels, OWNER_LABEL)
      ? String(labels[OWNER_LABEL])
      : null;
    this.#images.set(imageId, label);
    return label;
  }
}
