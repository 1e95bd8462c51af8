/** Memory for tensors. A training step makes and drops the same sizes again and again, so buffers go round. */

import type { TensorValues } from '../kernels/kernels.ts';
import type { NativeAddon } from './addon.ts';

const SMALLEST = 256;
const ALIGNMENT = 64;
/** Buffers used and free may come to this multiple of the most used at once: each size has its peak at another time. */
const SLACK = 1.5;
/** Free memory that is kept in any case. */
const KEPT_BYTES = 2 ** 28;

/** What the pool needs to know of the addon. */
export type StreamPosition = Pick<NativeAddon, 'alignment' | 'added' | 'done'>;

/** Part of an ArrayBuffer, aligned for vectors. */
export interface PooledBuffer {
  buffer: ArrayBuffer;
  offset: number;
  bytes: number;
}

/**
 * Hands out buffers in size classes and takes them back; it never clears them. Beyond a limit that follows the most that
 * was in use at once, a returned buffer is dropped.
 *
 * Kernels run behind JavaScript, in order. So a buffer that comes back may be given to the next kernel at once, though
 * earlier ones have yet to read it; one that is dropped must outlive them.
 */
export class BufferPool {
  /** Keeps buffers of tensors that nobody disposed, for kernels may still use them. */
  private readonly taken = new Set<PooledBuffer>();
  private readonly free = new Map<number, PooledBuffer[]>();
  private readonly stream: StreamPosition;
  private dropped: { buffer: ArrayBuffer; after: number }[] = [];
  private usedBytes = 0;
  private mostUsedBytes = 0;
  private freeBytes = 0;

  constructor(stream: StreamPosition) {
    this.stream = stream;
  }

  /** A buffer of at least `bytes` bytes with undefined contents. */
  take(bytes: number): PooledBuffer {
    const size = sizeClass(bytes);
    this.usedBytes += size;
    this.mostUsedBytes = Math.max(this.mostUsedBytes, this.usedBytes);
    const pooled = this.reuse(size) ?? this.create(size);
    this.taken.add(pooled);
    return pooled;
  }

  give(pooled: PooledBuffer): void {
    this.taken.delete(pooled);
    this.usedBytes -= pooled.bytes;
    const limit = Math.max(KEPT_BYTES, SLACK * this.mostUsedBytes - this.usedBytes);
    if (this.freeBytes + pooled.bytes > limit) {
      this.drop(pooled);
      return;
    }
    this.freeBytes += pooled.bytes;
    const others = this.free.get(pooled.bytes);
    if (others) others.push(pooled);
    else this.free.set(pooled.bytes, [pooled]);
  }

  /** Drops all free buffers. */
  clear(): void {
    for (const buffers of this.free.values()) for (const buffer of buffers) this.drop(buffer);
    this.free.clear();
    this.freeBytes = 0;
  }

  private reuse(size: number): PooledBuffer | undefined {
    const pooled = this.free.get(size)?.pop();
    if (pooled) this.freeBytes -= size;
    return pooled;
  }

  private create(size: number): PooledBuffer {
    const buffer = new ArrayBuffer(size + ALIGNMENT);
    return { buffer, offset: this.stream.alignment(buffer), bytes: size };
  }

  /** Leaves a buffer to the garbage collector once the stream is past the kernels that may use it. */
  private drop({ buffer }: PooledBuffer): void {
    const done = this.stream.done();
    this.dropped = this.dropped.filter(({ after }) => after > done);
    this.dropped.push({ buffer, after: this.stream.added() });
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
export function viewOf(pooled: PooledBuffer, dtype: string, count: number): TensorValues {
  const { buffer, offset } = pooled;
  if (dtype === 'float32') return new Float32Array(buffer, offset, count);
  if (dtype === 'int32') return new Int32Array(buffer, offset, count);
  if (dtype === 'bool') return new Uint8Array(buffer, offset, count);
  throw new Error(`the native engine has no tensors of type ${dtype}`);
}
