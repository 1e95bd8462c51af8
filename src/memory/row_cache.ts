/** Stored rows kept in memory, least recently used out first. */

/** Counts since the cache was made. */
export interface CacheStats {
  hits: number;
  misses: number;
  /** hits / (hits + misses), 0 before the first look-up. */
  hitRate: number;
  bytes: number;
}

/** A byte-bounded cache. Segments never change, so an entry is never stale and several bank versions can share one. */
export class RowCache {
  readonly maxBytes: number;
  #rows = new Map<string, Uint8Array>();
  #bytes = 0;
  #hits = 0;
  #misses = 0;

  /** @param maxBytes bound on the bytes held; 0 keeps nothing */
  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  get(key: string): Uint8Array | undefined {
    const row = this.#rows.get(key);
    if (row === undefined) {
      this.#misses++;
      return undefined;
    }
    this.#hits++;
    // A Map keeps insertion order: the entry that was inserted again is the youngest.
    this.#rows.delete(key);
    this.#rows.set(key, row);
    return row;
  }

  /** Keeps `row`, which the caller must not change afterwards. A row larger than the whole cache is not kept. */
  set(key: string, row: Uint8Array): void {
    if (row.byteLength > this.maxBytes) return;
    this.#drop(key);
    this.#rows.set(key, row);
    this.#bytes += row.byteLength;
    for (const oldest of this.#rows.keys()) {
      if (this.#bytes <= this.maxBytes) break;
      this.#drop(oldest);
    }
  }

  /** Forgets the rows whose key `isWanted` does not answer for. */
  retain(isWanted: (key: string) => boolean): void {
    for (const key of [...this.#rows.keys()]) if (!isWanted(key)) this.#drop(key);
  }

  get stats(): CacheStats {
    const lookups = this.#hits + this.#misses;
    return {
      hits: this.#hits,
      misses: this.#misses,
      hitRate: lookups === 0 ? 0 : this.#hits / lookups,
      bytes: this.#bytes,
    };
  }

  #drop(key: string): void {
    const row = this.#rows.get(key);
    if (row === undefined) return;
    this.#rows.delete(key);
    this.#bytes -= row.byteLength;
  }
}
