/** The tfjs backend of the native engine: tensors are typed arrays that the addon reads and writes in place. */

import * as tf from '../tf.ts';
import type { NativeAddon } from './addon.ts';
import { BufferPool, type PooledBuffer, viewOf } from './pool.ts';

type Values = Float32Array | Int32Array | Uint8Array;

interface Stored {
  values: Values;
  pooled: PooledBuffer;
  dtype: tf.DataType;
  refCount: number;
}

const BYTES = { float32: 4, int32: 4, bool: 1 } as Partial<Record<tf.DataType, number>>;

/** Kernels run at once, on the calling thread and those of the pool, so reading never waits. */
export class NativeBackend extends tf.KernelBackend {
  readonly addon: NativeAddon;
  private readonly stored = new tf.DataStorage<Stored>(this, tf.engine());
  private readonly pool: BufferPool;

  constructor(addon: NativeAddon) {
    super();
    this.addon = addon;
    this.pool = new BufferPool((buffer) => addon.alignment(buffer));
  }

  /** A tensor with undefined values, for a kernel to fill. */
  create(shape: number[], dtype: tf.DataType = 'float32'): tf.TensorInfo {
    return { dataId: this.allocate(tf.util.sizeFromShape(shape), dtype, 1), shape, dtype };
  }

  /** Another shape of the same data. */
  share(x: tf.TensorInfo, shape: number[]): tf.TensorInfo {
    this.incRef(x.dataId);
    return { dataId: x.dataId, shape, dtype: x.dtype };
  }

  /** The values of a float32 tensor, in place. */
  floats(x: tf.TensorInfo): Float32Array {
    const { values } = this.stored.get(x.dataId);
    if (!(values instanceof Float32Array)) throw new Error(`expected a tensor of type float32, got ${x.dtype}`);
    return values;
  }

  /** The values of an int32 tensor, in place. */
  ints(x: tf.TensorInfo): Int32Array {
    const { values } = this.stored.get(x.dataId);
    if (!(values instanceof Int32Array)) throw new Error(`expected a tensor of type int32, got ${x.dtype}`);
    return values;
  }

  /** The values of any tensor, in place. */
  values(x: tf.TensorInfo): Values {
    return this.stored.get(x.dataId).values;
  }

  /** Bytes of the tensors that live, and bytes that wait to be used again. */
  bufferBytes(): { used: number; free: number } {
    return this.pool.sizes();
  }

  override write(values: tf.BackendValues, _shape: number[], dtype: tf.DataType): tf.DataId {
    const dataId = this.allocate(values.length, dtype, 1);
    this.stored.get(dataId).values.set(values as ArrayLike<number>);
    return dataId;
  }

  override move(
    dataId: tf.DataId,
    values: tf.BackendValues,
    _shape: number[],
    dtype: tf.DataType,
    refCount: number,
  ): void {
    this.allocate(values.length, dtype, refCount, dataId);
    this.stored.get(dataId).values.set(values as ArrayLike<number>);
  }

  /** A copy: the buffer itself is used again once the tensor is gone, and the caller may outlive it. */
  override readSync(dataId: tf.DataId): Values {
    return this.stored.get(dataId).values.slice();
  }

  override read(dataId: tf.DataId): Promise<Values> {
    return Promise.resolve(this.readSync(dataId));
  }

  override refCount(dataId: tf.DataId): number {
    return this.stored.has(dataId) ? this.stored.get(dataId).refCount : 0;
  }

  override incRef(dataId: tf.DataId): void {
    this.stored.get(dataId).refCount++;
  }

  /** Gives up one reference, or all with `force`; the buffer goes back to the pool with the last. */
  override disposeData(dataId: tf.DataId, force = false): boolean {
    if (!this.stored.has(dataId)) return true;
    const stored = this.stored.get(dataId);
    stored.refCount--;
    if (!force && stored.refCount > 0) return false;
    this.pool.give(stored.pooled);
    this.stored.delete(dataId);
    return true;
  }

  override numDataIds(): number {
    return this.stored.numDataIds();
  }

  override memory(): { unreliable: boolean } {
    return { unreliable: false };
  }

  override timerAvailable(): boolean {
    return true;
  }

  override async time(f: () => void): Promise<tf.BackendTimingInfo> {
    const start = performance.now();
    f();
    return { kernelMs: performance.now() - start };
  }

  override floatPrecision(): 16 | 32 {
    return 32;
  }

  override epsilon(): number {
    return 1e-7;
  }

  override dispose(): void {
    this.pool.clear();
  }

  private allocate(count: number, dtype: tf.DataType, refCount: number, dataId: tf.DataId = {}): tf.DataId {
    const bytes = BYTES[dtype];
    if (!bytes) throw new Error(`the native engine has no tensors of type ${dtype}`);
    const pooled = this.pool.take(count * bytes);
    this.stored.set(dataId, { values: viewOf(pooled, dtype, count), pooled, dtype, refCount });
    return dataId;
  }
}
