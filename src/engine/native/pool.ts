/** Memory for tensors. A training step makes and drops the same sizes again and again, so buffers go round. */

type Values = Float32Array | Int32Array | Uint8Array;

const SMALLEST = 256;
const ALIGNMENT = 64;
/** Buffers used and free may come to this multiple of the most used at once: each size has its peak at another time. */
const SLACK = 1.5;
/** Free memory that is kept in any case. */
const KEPT_BYTES = 2 ** 28;

/** Part of an ArrayBuffer, aligned for vectors. */
export interface PooledBuffer {
  buffer: ArrayBuffer;
  offset: number;
  bytes: number;
}

/**
 * Hands out buffers in size classes and takes them back; it never clears them. Beyond a limit that follows the most that
 * was in use at once, a returned buffer is left to the garbage collector.
 */
export class BufferPool {
  private readonly free = new Map<number, PooledBuffer[]>();
  private readonly alignment: (buffer: ArrayBuffer) => number;
  private usedBytes = 0;
  private mostUsedBytes = 0;
  private freeBytes = 0;

  /** @param alignment bytes from the beginning of a buffer to its first aligned address */
  constructor(alignment: (buffer: ArrayBuffer) => number) {
    this.alignment = alignment;
  }

  /** A buffer of at least `bytes` bytes with undefined contents. */
  take(bytes: number): PooledBuffer {
    const size = sizeClass(bytes);
    this.usedBytes += size;
    this.mostUsedBytes = Math.max(this.mostUsedBytes, this.usedBytes);
    const found = this.free.get(size)?.pop();
    if (found) {
      this.freeBytes -= size;
      return found;
    }
    const buffer = new ArrayBuffer(size + ALIGNMENT);
    return { buffer, offset: this.alignment(buffer), bytes: size };
  }

  give(pooled: PooledBuffer): void {
    this.usedBytes -= pooled.bytes;
    const limit = Math.max(KEPT_BYTES, SLACK * this.mostUsedBytes - this.usedBytes);
    if (this.freeBytes + pooled.bytes > limit) return;
    this.freeBytes += pooled.bytes;
    const others = this.free.get(pooled.bytes);
    if (others) others.push(pooled);
    else this.free.set(pooled.bytes, [pooled]);
  }

  /** Drops all free buffers. */
  clear(): void {
    this.free.clear();
    this.freeBytes = 0;
  }

  /** Bytes handed out and bytes waiting. */
  sizes(): { used: number; free: number } {
    return { used: this.usedBytes, free: this.freeBytes };
  }
}

/** The next of eight sizes between two powers of two, so that at most an eighth is wasted. */
export function sizeClass(bytes: number): number {
  if (bytes <= SMALLEST) return SMALLEST;
  const step = 2 ** (Math.floor(Math.log2(bytes)) - 3);
  return Math.ceil(bytes / step) * step;
}

/** A view of a pooled buffer as values of a tfjs type. */
export function viewOf(pooled: PooledBuffer, dtype: string, count: number): Values {
  const { buffer, offset } = pooled;
  if (dtype === 'float32') return new Float32Array(buffer, offset, count);
  if (dtype === 'int32') return new Int32Array(buffer, offset, count);
  if (dtype === 'bool') return new Uint8Array(buffer, offset, count);
  throw new Error(`the native engine has no tensors of type ${dtype}`);
}
