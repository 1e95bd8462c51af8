/**
 * How the numbers of memories lie in a bank: a memory [Lmem, 2 (keys, values), K, S, D] as a row of fixed width.
 *
 * Legend: n memories, Lmem memory layers, K key-value heads, S kept tokens, D head dimension.
 */

import { UserError } from '../errors.ts';
import { type HalfType, packHalf, type StorageType, unpackHalf } from '../ops/index.ts';
import { type MemoryLayout, rowLength } from './layout.ts';

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

/** The format that `storage` names. */
export function rowFormat(layout: MemoryLayout, storage: StorageType): RowFormat {
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
