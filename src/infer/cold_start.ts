/**
 * Cold start (paper §3.2): the references are searched beside the bank, and one that is found and is not in the bank is
 * written by the model at once, read in the same answer, and stored for the next.
 *
 * Legend: n memories, W bytes of a stored memory.
 */

import type { ReferenceDataset } from '../data/references.ts';
import type { Bank } from '../memory/bank.ts';
import type { RetrievalEncoder } from '../memory/encoders/encoder.ts';
import { type MemoryBatch, type MemoryRecord, rowLength } from '../memory/layout.ts';
import { ReferenceIndex, type ReferenceIndexOptions, referenceKey } from '../memory/reference_index.ts';
import type { Found, MemorySearch } from '../memory/retrieve.ts';
import { readWithdrawn } from '../memory/withdrawn.ts';
import { compileReferences, type ReferenceText, type WriteOptions } from '../memory/write.ts';
import type { Model } from '../model/model.ts';

/** Where the memories of an answer are read. */
export type MemoryStore = Pick<Bank, 'identity' | 'format' | 'keptLength' | 'readStored' | 'get'>;

/** The bank version that is read, and its search. */
export interface OpenedBank {
  bank: Bank;
  retriever: MemorySearch;
  encoder: RetrievalEncoder;
}

/** What a cold start writes from. */
export interface ColdSources {
  references: ReferenceDataset;
  /** Folder of the references. */
  folder: string;
  model: Model;
  write: WriteOptions;
  /** Tokens of its document in front of a reference that are read with it. */
  contextTokens: number;
}

/** A memory that is in no version of the bank yet. */
interface NewMemory {
  record: MemoryRecord;
  /** [Lmem, 2, K, S, D] */
  row: Float32Array;
  /** As the bank stores it, [W]: what is read now is what will be read later. */
  stored: Uint8Array;
  vector: Float32Array;
}

export class ColdStart implements MemorySearch, MemoryStore {
  readonly #sources: ColdSources;
  readonly #index: ReferenceIndex;
  readonly #new = new Map<string, NewMemory>();
  #opened: OpenedBank;
  #withdrawn: ReadonlySet<string>;

  private constructor(sources: ColdSources, index: ReferenceIndex, opened: OpenedBank, withdrawn: ReadonlySet<string>) {
    this.#sources = sources;
    this.#index = index;
    this.#opened = opened;
    this.#withdrawn = withdrawn;
  }

  /** @throws UserError config_invalid for an encoder of memories, file_corrupt */
  static async open(sources: ColdSources, opened: OpenedBank, options: ReferenceIndexOptions): Promise<ColdStart> {
    const index = await ReferenceIndex.open(sources.folder, sources.references, opened.encoder, options);
    return new ColdStart(sources, index, opened, await readWithdrawn(opened.bank.folder));
  }

  /** The same over another version of the bank, with the memories that are not stored yet. */
  async reopened(opened: OpenedBank, options: ReferenceIndexOptions): Promise<ColdStart> {
    const isSame = referenceKey(this.#sources.references, opened.encoder) === this.#index.key;
    if (!isSame) return await ColdStart.open(this.#sources, opened, options);
    const next = new ColdStart(this.#sources, this.#index, opened, await readWithdrawn(opened.bank.folder));
    for (const [id, memory] of this.#new) if (next.#mayAdd(id)) next.#new.set(id, memory);
    return next;
  }

  get identity(): MemoryStore['identity'] {
    return this.#opened.bank.identity;
  }

  get format(): MemoryStore['format'] {
    return this.#opened.bank.format;
  }

  /** Ids of the memories that are not stored yet. */
  get newIds(): string[] {
    return [...this.#new.keys()];
  }

  /** What is not stored yet, for `BankWriter.append`. */
  newMemories(): MemoryBatch {
    const memories = [...this.#new.values()];
    const rows = new Float32Array(memories.length * rowLength(this.identity.layout));
    const vectors = new Float32Array(memories.length * this.#opened.encoder.dimensions);
    memories.forEach(({ row, vector }, i) => {
      rows.set(row, i * row.length);
      vectors.set(vector, i * vector.length);
    });
    return { records: memories.map(({ record }) => record), rows, vectors };
  }

  /** Gives up the memories that are not stored; they are written again when they are found again. */
  forget(): void {
    this.#new.clear();
  }

  /** Memories of the bank and references together, nearest first; those that are no memories yet are written. */
  async search(chunks: readonly Int32Array[], count: number): Promise<Found[][]> {
    const queries = await this.#opened.encoder.encodeQueries(chunks);
    const references = await this.#index.search(queries, count + this.#withdrawn.size);
    const memories = await this.#opened.retriever.search(chunks, count);
    const missing = new Map<string, number>();
    const results: Found[][] = [];
    for (const [chunk, found] of references.entries()) {
      const numbers = new Map<string, number>();
      const both: Found[] = [];
      for (const { number, score } of found) {
        const { id } = await this.#sources.references.get(number);
        if (this.#withdrawn.has(id)) continue;
        numbers.set(id, number);
        both.push({ id, score });
        if (both.length === count) break;
      }
      // A reference keeps its score and place when it comes into the bank, so that the next answer finds the same.
      both.push(...memories[chunk]!.filter(({ id }) => !numbers.has(id)));
      const nearest = both.sort((a, b) => b.score - a.score).slice(0, count);
      for (const { id } of nearest) if (this.#mayAdd(id) && !this.#new.has(id)) missing.set(id, numbers.get(id)!);
      results.push(nearest);
    }
    await this.#write([...missing.values()]);
    return results;
  }

  tokens(id: string): Int32Array {
    return this.#new.get(id)?.record.tokens ?? this.#opened.bank.tokens(id);
  }

  keptLength(id: string): number {
    return this.#new.get(id)?.record.keptLength ?? this.#opened.bank.keptLength(id);
  }

  async get(id: string): Promise<MemoryRecord> {
    return this.#new.get(id)?.record ?? (await this.#opened.bank.get(id));
  }

  /** As `Bank.readStored`: [n, W]. */
  async readStored(ids: readonly string[]): Promise<Uint8Array> {
    const { bank } = this.#opened;
    const width = bank.format.rowBytes;
    const old = ids.filter((id) => !this.#new.has(id));
    const places = new Map(old.map((id, place) => [id, place * width]));
    const rows = await bank.readStored(old);
    const out = new Uint8Array(ids.length * width);
    ids.forEach((id, i) => {
      const from = places.get(id) ?? 0;
      out.set(this.#new.get(id)?.stored ?? rows.subarray(from, from + width), i * width);
    });
    return out;
  }

  #mayAdd(id: string): boolean {
    return !this.#opened.bank.has(id) && !this.#withdrawn.has(id);
  }

  async #write(numbers: readonly number[]): Promise<void> {
    const { references, model, write, contextTokens } = this.#sources;
    const { encoder, bank } = this.#opened;
    async function* texts(): AsyncGenerator<ReferenceText> {
      for (const number of numbers) yield await references.getInContext(number, contextTokens);
    }
    for await (const { records, rows, vectors } of compileReferences(model, texts(), { ...write, encoder })) {
      const stored = await bank.format.encode(rows);
      const part = <T extends Float32Array | Uint8Array>(all: T, i: number): T => {
        const width = all.length / records.length;
        return all.slice(i * width, (i + 1) * width) as T;
      };
      for (const [i, record] of records.entries()) {
        const memory = { record, row: part(rows, i), stored: part(stored, i), vector: part(vectors, i) };
        this.#new.set(record.id, memory);
      }
    }
  }
}
