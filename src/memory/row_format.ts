/**
 * How the numbers of memories lie in a bank: a memory [Lmem, 2 (keys, values), K, S, D] as a row of fixed width.
 *
 * Legend: n memories, Lmem memory layers, K key-value heads, S kept tokens, D head dimension.
 */

import type { FaissCodec } from '../engine/native/faiss.ts';
import { UserError } from '../errors.ts';
import { type HalfType, packHalf, unpackHalf } from '../ops/half.ts';
import type { StorageType } from '../ops/index.ts';
import { restoreCodec } from './codec.ts';
import { type BankIdentity, keptCount, type MemoryLayout, rowLength, type StoredCodecs } from './layout.ts';

export interface RowFormat {
  /** Bytes of one memory. */
  readonly rowBytes: number;
  /** The numbers that `read` gives, for `unpackMemories`. */
  readonly type: StorageType;
  /** Bytes of one memory as `read` gives it, a multiple of four. */
  readonly readBytes: number;
  /**
   * Rows [n, Lmem, 2, K, S, D] as they are stored, [n, rowBytes].
   * @throws UserError input_invalid for numbers that the format cannot hold
   */
  encode(rows: Float32Array): Promise<Uint8Array>;
  /** Stored rows as numbers of `type`, in the same order. */
  read(stored: Uint8Array): Promise<Uint8Array>;
}

/** How the memories of a bank are stored. */
export function rowFormat({ layout, storage, codecs }: Pick<BankIdentity, 'layout' | 'storage' | 'codecs'>): RowFormat {
  if (codecs !== undefined) return new CodecRows(layout, codecs);
  const numbers = rowLength(layout);
  return storage === 'float32' ? new FloatRows(numbers) : new HalfRows(numbers, storage);
}

/** Stored rows as float32 values, [n, Lmem, 2, K, S, D]. */
export async function rowValues(format: RowFormat, stored: Uint8Array): Promise<Float32Array> {
  const { buffer, byteOffset, byteLength } = await format.read(stored);
  if (format.type === 'float32') return new Float32Array(buffer, byteOffset, byteLength / 4);
  return unpackHalf(new Uint16Array(buffer, byteOffset, byteLength / 2), format.type);
}

class FloatRows implements RowFormat {
  readonly type = 'float32';
  readonly rowBytes: number;
  readonly readBytes: number;

  constructor(numbers: number) {
    this.rowBytes = this.readBytes = 4 * numbers;
  }

  async encode({ buffer, byteOffset, byteLength }: Float32Array): Promise<Uint8Array> {
    return new Uint8Array(buffer, byteOffset, byteLength);
  }

  async read(stored: Uint8Array): Promise<Uint8Array> {
    return stored;
  }
}

/** Numbers of 16 bits: half the bytes (the paper stores bfloat16, §3.2). */
class HalfRows implements RowFormat {
  readonly type: HalfType;
  readonly rowBytes: number;
  readonly readBytes: number;

  constructor(numbers: number, type: HalfType) {
    this.rowBytes = this.readBytes = 2 * numbers;
    this.type = type;
  }

  async encode(rows: Float32Array): Promise<Uint8Array> {
    const halves = packHalf(rows, this.type);
    const infinity = this.type === 'float16' ? 0x7c00 : 0x7f80;
    const outside = halves.findIndex((half) => (half & 0x7fff) >= infinity);
    if (outside >= 0) {
      const what = `a memory holds ${rows[outside]}, which ${this.type} cannot hold`;
      throw new UserError('input_invalid', { what, action: 'store memories as bfloat16 or float32: `memory.storage`' });
    }
    return new Uint8Array(halves.buffer);
  }

  async read(stored: Uint8Array): Promise<Uint8Array> {
    return stored;
  }
}

/**
 * Codes instead of numbers, [Lmem, 2 (keys, values), K, S, code]: the paper's 80 numbers in 14 bytes. Encoding and decoding
 * take one call for all keys and one for all values, on threads of Faiss.
 */
class CodecRows implements RowFormat {
  readonly type = 'float32';
  readonly rowBytes: number;
  readonly readBytes: number;
  readonly #layout: MemoryLayout;
  readonly #stored: StoredCodecs;
  #restored: Promise<{ keys: FaissCodec; values: FaissCodec }> | undefined;

  constructor(layout: MemoryLayout, stored: StoredCodecs) {
    this.rowBytes = keptCount(layout) * (stored.keys.codeBytes + stored.values.codeBytes);
    this.readBytes = 4 * rowLength(layout);
    this.#layout = layout;
    this.#stored = stored;
  }

  async encode(rows: Float32Array): Promise<Uint8Array> {
    const { kvHeads, keptTokens, headDim } = this.#layout;
    const { keys, values } = await this.#codecs();
    const vectors = kvHeads * keptTokens;
    const each = divided(rows, vectors * headDim, vectors * headDim);
    const codes = await Promise.all([keys.encode(each[0]), values.encode(each[1])]);
    return interleaved(codes, vectors * keys.codeBytes, vectors * values.codeBytes);
  }

  async read(stored: Uint8Array): Promise<Uint8Array> {
    const { kvHeads, keptTokens, headDim } = this.#layout;
    const { keys, values } = await this.#codecs();
    const vectors = kvHeads * keptTokens;
    const codes = divided(stored, vectors * keys.codeBytes, vectors * values.codeBytes);
    const each = await Promise.all([keys.decode(codes[0]), values.decode(codes[1])]);
    const rows = interleaved(each, vectors * headDim, vectors * headDim);
    return new Uint8Array(rows.buffer);
  }

  /** The codecs, restored when they are first needed; the garbage collector frees them. */
  async #codecs(): Promise<{ keys: FaissCodec; values: FaissCodec }> {
    this.#restored ??= (async () => ({
      keys: await restoreCodec(this.#stored.keys, this.#layout.headDim),
      values: await restoreCodec(this.#stored.values, this.#layout.headDim),
    }))();
    return await this.#restored;
  }
}

/** Takes apart what consists of `first` items of one kind and `second` of another in turn. */
function divided<T extends Uint8Array | Float32Array>(all: T, first: number, second: number): [T, T] {
  const blocks = all.length / (first + second);
  const make = (length: number): T => new (all.constructor as new (length: number) => T)(length);
  const [a, b] = [make(blocks * first), make(blocks * second)];
  for (let block = 0; block < blocks; block++) {
    const from = block * (first + second);
    a.set(all.subarray(from, from + first), block * first);
    b.set(all.subarray(from + first, from + first + second), block * second);
  }
  return [a, b];
}

/** The reverse of `divided`. */
function interleaved<T extends Uint8Array | Float32Array>([a, b]: [T, T], first: number, second: number): T {
  const all = new (a.constructor as new (length: number) => T)(a.length + b.length);
  for (let block = 0; block * first < a.length; block++) {
    const from = block * (first + second);
    all.set(a.subarray(block * first, (block + 1) * first), from);
    all.set(b.subarray(block * second, (block + 1) * second), from + first);
  }
  return all;
}
