/** The tfjs backend of the native engine: tensors are typed arrays that the addon reads and writes in place. */

import { EngineBackend } from '../kernels/backend.ts';
import type { TensorValues } from '../kernels/kernels.ts';
import * as tf from '../tf.ts';
import type { NativeAddon } from './addon.ts';
import { BufferPool, type PooledBuffer, viewOf } from './pool.ts';

interface Storage {
  values: TensorValues;
  pooled: PooledBuffer;
}

const BYTES = { float32: 4, int32: 4, bool: 1 } as Partial<Record<tf.DataType, number>>;

/** Kernels run in the addon's stream while JavaScript goes on; reading waits until they are done. */
export class NativeBackend extends EngineBackend<Float32Array, Int32Array, TensorValues, Storage> {
  readonly addon: NativeAddon;
  readonly noFloats = new Float32Array();
  readonly noInts = new Int32Array();
  private readonly pool: BufferPool;

  constructor(addon: NativeAddon) {
    super();
    this.addon = addon;
    this.pool = new BufferPool(addon);
  }

  get kernels(): NativeAddon {
    return this.addon;
  }

  override floats(x: tf.TensorInfo): Float32Array {
    const values = this.values(x);
    if (!(values instanceof Float32Array)) throw new Error(`expected a tensor of type float32, got ${x.dtype}`);
    return values;
  }

  override ints(x: tf.TensorInfo): Int32Array {
    const values = this.values(x);
    if (!(values instanceof Int32Array)) throw new Error(`expected a tensor of type int32, got ${x.dtype}`);
    return values;
  }

  override values(x: tf.TensorInfo): TensorValues {
    return this.storageOf(x.dataId).values;
  }

  override part(x: tf.TensorInfo, begin: number, end: number): Float32Array {
    return this.floats(x).subarray(begin, end);
  }

  /** Bytes of the tensors that live, and bytes that wait to be used again. */
  bufferBytes(): { used: number; free: number } {
    return this.pool.sizes();
  }

  /** A copy: the buffer itself is used again once the tensor is gone, and the caller may outlive it. */
  override readSync(dataId: tf.DataId): TensorValues {
    this.addon.wait();
    return this.storageOf(dataId).values.slice();
  }

  /** What the tensor holds now, also if it is disposed before the promise is kept. */
  override read(dataId: tf.DataId): Promise<TensorValues> {
    const { values } = this.storageOf(dataId);
    return this.addon.read(values, new (values.constructor as new (length: number) => TensorValues)(values.length));
  }

  /** Bytes of buffers in use and kept for the next tensors; both are part of what `tf.memory()` gives. */
  override memory(): { unreliable: boolean; usedBufferBytes: number; freeBufferBytes: number } {
    const { used, free } = this.pool.sizes();
    return { unreliable: false, usedBufferBytes: used, freeBufferBytes: free };
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

  protected override allocate(shape: readonly number[], dtype: tf.DataType): Storage {
    const bytes = BYTES[dtype];
    if (!bytes) throw new Error(`the native engine has no tensors of type ${dtype}`);
    const count = tf.util.sizeFromShape([...shape]);
    const pooled = this.pool.take(count * bytes);
    return { values: viewOf(pooled, dtype, count), pooled };
  }

  protected override free({ pooled }: Storage): void {
    this.pool.give(pooled);
  }

  protected override fill({ values: target }: Storage, values: TensorValues): void {
    const same = values.constructor === target.constructor;
    this.addon.write(same ? values : (target.constructor as typeof Float32Array).from(values), target);
  }
}
