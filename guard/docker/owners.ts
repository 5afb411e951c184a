/** Who owns a container, a volume or a network: the user that created it through the guard. */

import { isObject } from "../../core/policy/document/shape.ts";
import type { MediatedClient } from "../http/mediator.ts";
import type { Engine } from "./engine.ts";
import { BoundedMap } from "./bounded_map.ts";
import { fullIdIn, isFullId } from "./full_id.ts";
import { type JsonObject, objectIn, records, textIn } from "./json.ts";
import type { Ledger } from "./ledger.ts";

/** Labels below this prefix belong to the guard. Requests with such labels are refused. */
export const RESERVED_PREFIX = "io.ucred.";

/** The label with the uid of the owner, in decimal. */
export const OWNER_LABEL = "io.ucred.owner";

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

/** An exec instance, and its owner. */
export interface Exec {
  /** The full id of its container. */
  readonly container: string;
  /** The uid of the user that has prepared it; `undefined` if that is unknown. */
  readonly uid: number | undefined;
  /** The attributes of the request that has prepared it; `undefined` after a restart of the guard. */
  readonly attributes?: JsonObject | undefined;
}

/** The ledger may grow to twice its size after the last pruning, plus this number of entries. Then it is pruned. */
const PRUNED_AFTER = 1000;

/**
 * Remembers which user created which container and exec. A container that is not remembered, because the
 * guard was restarted without a ledger, belongs to the uid in its label, unless its image has the same label:
 * the builder of the image has chosen that label, and another user may have created the container past the
 * guard. An exec that is not remembered has no owner.
 */
export class Owners {
  readonly #engine: Engine;
  readonly #ledger: Ledger | undefined;
  readonly #containers: BoundedMap<number>;
  readonly #execs = new BoundedMap<Exec>();
  /** Image id → the value of its label; `null`: it has none. */
  readonly #images = new BoundedMap<string | null>();
  /** The size of the ledger above which it is pruned; Infinity during a pruning. */
  #pruneAbove = 0;

  constructor(engine: Engine, ledger: Ledger | undefined) {
    this.#engine = engine;
    this.#ledger = ledger;
    this.#containers = ledger?.containers ?? new BoundedMap();
  }

  /** Remembers a container that a user has created through the guard. */
  created(id: string, uid: number): void {
    if (this.#ledger === undefined) this.#containers.set(id, uid);
    else this.#ledger.addContainer(id, uid);
  }

  /** Remembers an exec that a user has prepared through the guard. */
  prepared(id: string, exec: Exec): void {
    this.#execs.set(id, exec);
    const { container, uid } = exec;
    if (uid !== undefined) this.#ledger?.addExec(id, { container, uid });
  }

  /** Returns an exec that is remembered. */
  execOf(id: string): Exec | undefined {
    return this.#execs.get(id) ?? this.#ledger?.execs.get(id);
  }

  /** Returns the owner of a container that is remembered. */
  known(id: string): number | undefined {
    return this.#containers.get(id);
  }

  /** Forgets a container that was removed. */
  removed(id: string): void {
    if (this.#ledger === undefined) this.#containers.delete(id);
    else this.#ledger.remove(id);
  }

  /** From time to time, removes containers that no longer exist at the engine from the ledger. */
  async prune(client: MediatedClient): Promise<void> {
    const ledger = this.#ledger;
    if (ledger === undefined || ledger.size <= this.#pruneAbove) return;
    const before = this.#pruneAbove;
    this.#pruneAbove = Infinity;
    try {
      // Containers that are created from now on may be missing in the list.
      const known = [...ledger.containers.entries()].map(([id]) => id);
      const list = records(await this.#engine.inspect(client, "/containers/json?all=1"));
      const existing = new Set(list.map((item) => fullIdIn(item, "Id", "a container")));
      for (const id of known) if (!existing.has(id)) ledger.remove(id);
      this.#pruneAbove = 2 * ledger.size + PRUNED_AFTER;
    } catch {
      this.#pruneAbove = before; // the next request tries again
    }
  }

  /** Returns the owner of a container; `undefined` if it has none. */
  async ownerOf(client: MediatedClient, container: ContainerLabels): Promise<number | undefined> {
    const { id, imageId, labels } = container;
    const uid = ownerIn(labels);
    if (uid === undefined || !isFullId(id)) return undefined;
    const known = this.#containers.get(id);
    // If the ledger contradicts the label, it belongs to another engine, or one of them was changed.
    if (known !== undefined) return known === uid ? uid : undefined;
    const ofImage = await this.#labelOf(client, imageId);
    if (ofImage === undefined || ofImage === String(uid)) return undefined;
    this.created(id, uid);
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
