/** The most recently used values up to a number of bytes. */

/** Values being loaded count as present, so that concurrent readers of one key load it once. */
export class BatchCache<T> {
  readonly #capacity: number;
  /** In order of last use. */
  readonly #entries = new Map<number, { bytes: number; value: Promise<T> }>();
  #bytes = 0;

  /** @param capacity bytes kept at most; the value used last is kept even if it alone is larger */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** The value of `key`, loaded if it is not here. A failed load is not remembered. */
  async get(key: number, bytes: number, load: () => Promise<T>): Promise<T> {
    const known = this.#entries.get(key);
    const entry = known ?? { bytes, value: load() };
    if (known) this.#entries.delete(key);
    else this.#bytes += bytes;
    this.#entries.set(key, entry);
    for (const [oldest, { bytes: size }] of this.#entries) {
      if (this.#bytes <= this.#capacity || oldest === key) break;
      this.#entries.delete(oldest);
      this.#bytes -= size;
    }
    try {
      return await entry.value;
    } catch (error) {
      if (this.#entries.get(key) === entry) {
        this.#entries.delete(key);
        this.#bytes -= bytes;
      }
      throw error;
    }
  }
}
