/** A map of bounded size, by the ids of objects. */

/** Maximum number of entries. */
const MAX_REMEMBERED = 100_000;

/** A map that removes its oldest entry when it is full. */
export class BoundedMap<V> {
  readonly #entries = new Map<string, V>();

  get size(): number {
    return this.#entries.size;
  }

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

  /** All entries, the oldest first. */
  entries(): IterableIterator<[key: string, value: V]> {
    return this.#entries.entries();
  }
}
