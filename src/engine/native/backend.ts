/** The tfjs backend of the native engine: tensors are typed arrays that the addon reads and writes in place. */

import * as tf from '../tf.ts';
import type { NativeAddon, TensorValues } from './addon.ts';
import { BufferPool, type PooledBuffer, viewOf } from './pool.ts';

interface Stored {
  values: TensorValues;
  pooled: PooledBuffer;
  dtype: tf.DataType;
  refCount: number;
}

const BYTES = { float32: 4, int32: 4, bool: 1 } as Partial<Record<tf.DataType, number>>;

/** Kernels run in the addon's stream while JavaScript goes on; reading waits until they are done. */
export class NativeBackend extends tf.KernelBackend {
  readonly addon: NativeAddon;
  private readonly stored = new tf.DataStorage<Stored>(this, tf.engine());
  private readonly pool: BufferPool;

  constructor(addon: NativeAddon) {
    super();
    this.addon = addon;
    this.pool = new BufferPool(addon);
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

  /** Whether no other tensor shares the data, so that it may be overwritten once its tensor is given up. */
  isSole(x: tf.TensorInfo): boolean {
    return this.refCount(x.dataId) === 1;
  }

  /** The values of a float32 tensor, in place. */
  floats(x: tf.TensorInfo): Float32Array {
    const { values } = this.stored.get(x.dataId);
    if (!(values instanceof Float32Array)) throw new Error(`expected a tensor of type float32, got ${x.dtype}`);
    return values;
  }

  /** The same of several. */
  allFloats(tensors: readonly tf.TensorInfo[]): Float32Array[] {
    return tensors.map((x) => this.floats(x));
  }

  /** The values of an int32 tensor, in place. */
  ints(x: tf.TensorInfo): Int32Array {
    const { values } = this.stored.get(x.dataId);
    if (!(values instanceof Int32Array)) throw new Error(`expected a tensor of type int32, got ${x.dtype}`);
    return values;
  }

  /** The values of any tensor, in place. */
  values(x: tf.TensorInfo): TensorValues {
    return this.stored.get(x.dataId).values;
  }

  /** Bytes of the tensors that live, and bytes that wait to be used again. */
  bufferBytes(): { used: number; free: number } {
    return this.pool.sizes();
  }

  override write(values: tf.BackendValues, _shape: number[], dtype: tf.DataType): tf.DataId {
    const dataId = this.allocate(values.length, dtype, 1);
    this.fill(dataId, values);
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
    this.fill(dataId, values);
  }

  /** A copy: the buffer itself is used again once the tensor is gone, and the caller may outlive it. */
  override readSync(dataId: tf.DataId): TensorValues {
    this.addon.wait();
    return this.stored.get(dataId).values.slice();
  }

  /** What the tensor holds now, also if it is disposed before the promise is kept. */
  override read(dataId: tf.DataId): Promise<TensorValues> {
    const { values } = this.stored.get(dataId);
    return this.addon.read(values, new (values.constructor as new (length: number) => TensorValues)(values.length));
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

  /** Bytes of buffers in use and kept for the next tensors; both are part of what `tf.memory()` gives. */
  override memory(): { unreliable: boolean; usedBufferBytes: number; freeBufferBytes: number } {
    const { used, free } = this.pool.sizes();
    return { unreliable: false, usedBufferBytes: used, freeBufferBytes: free };
  }

  override timerAvailable(): boolean {
    return true;
  }

  override async time(f: () => void): Promise<tf.BackendTimingInfo> {
    this.addon.wait();
    const start = performance.now();
    f();
    this.addon.wait();
    return { kernelMs: performance.now() - start };
  }

  override floatPrecision(): 16 | 32 {
    return 32;
  }

  override epsilon(): number {
    return 1e-7;
  }

  override dispose(): void {
    this.addon.wait();
    this.pool.clear();
  }

  private fill(dataId: tf.DataId, values: tf.BackendValues): void {
    const target = this.stored.get(dataId).values;
    const given = values as TensorValues;
    const same = given.constructor === target.constructor;
    this.addon.write(same ? given : (target.constructor as typeof Float32Array).from(given), target);
  }

  private allocate(count: number, dtype: tf.DataType, refCount: number, dataId: tf.DataId = {}): tf.DataId {
    const bytes = BYTES[dtype];
    if (!bytes) throw new Error(`the native engine has no tensors of type ${dtype}`);
    const pooled = this.pool.take(count * bytes);
    this.stored.set(dataId, { values: viewOf(pooled, dtype, count), pooled, dtype, refCount });
    return dataId;
  }
}
