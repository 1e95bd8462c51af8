/** Stored rows kept in memory, least recently used out first. */

/** Rows of a segment at most: a key is the number of the segment · ROWS + the row. */
const ROWS = 2 ** 32;

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
  #rows = new Map<number, Uint8Array>();
  /** Numbers of the segments by id. */
  #segments = new Map<string, number>();
  #bytes = 0;
  #hits = 0;
  #misses = 0;

  /** @param maxBytes bound on the bytes held; 0 keeps nothing */
  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  /** The key of row 0 of a segment; those of the rows follow it. */
  keys(segment: string): number {
    let number = this.#segments.get(segment);
    if (number === undefined) {
      number = this.#segments.size;
      this.#segments.set(segment, number);
    }
    return number * ROWS;
  }

  get(key: number): Uint8Array | undefined {
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
  set(key: number, row: Uint8Array): void {
    if (row.byteLength > this.maxBytes) return;
    this.#drop(key);
    this.#rows.set(key, row);
    this.#bytes += row.byteLength;
    for (const oldest of this.#rows.keys()) {
      if (this.#bytes <= this.maxBytes) break;
      this.#drop(oldest);
    }
  }

  /** Forgets the rows that `isWanted` does not answer for. */
  retain(isWanted: (segment: string, row: number) => boolean): void {
    const segments = [...this.#segments.keys()];
    for (const key of [...this.#rows.keys()]) {
      if (!isWanted(segments[Math.floor(key / ROWS)]!, key % ROWS)) this.#drop(key);
    }
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

  #drop(key: number): void {
    const row = this.#rows.get(key);
    if (row === undefined) return;
    this.#rows.delete(key);
    this.#bytes -= row.byteLength;
  }
}
