/** A tfjs backend whose kernels are those of `Kernels`: what the engines with C++ of their own have in common. */

import * as tf from '../tf.ts';
import type { Kernels, TensorValues } from './kernels.ts';

interface Stored<Storage> {
  storage: Storage;
  refCount: number;
}

/**
 * Counts which tensors share which data, as tfjs expects, and makes the tensors that kernels fill. Kernels run behind
 * JavaScript, in the order of their calls; reading waits for them.
 * `F`, `I` and `V` are what kernels take for float32, int32 and any values; `Storage` is what an engine keeps of a tensor.
 */
export abstract class EngineBackend<F, I, V, Storage> extends tf.KernelBackend {
  private readonly stored = new tf.DataStorage<Stored<Storage>>(this, tf.engine());
  /** What the kernel that runs has made. */
  private made: tf.DataId[] = [];

  abstract readonly kernels: Kernels<F, I, V>;
  /** What stands for tensors that are not there. */
  abstract readonly noFloats: F;
  abstract readonly noInts: I;

  /** The values of a float32 tensor, in place. */
  abstract floats(x: tf.TensorInfo): F;
  /** The values of an int32 tensor, in place. */
  abstract ints(x: tf.TensorInfo): I;
  /** The values of any tensor, in place. */
  abstract values(x: tf.TensorInfo): V;
  /** The values [begin, end) of a float32 tensor, in place. */
  abstract part(x: tf.TensorInfo, begin: number, end: number): F;

  /** Takes memory for values that are undefined yet. */
  protected abstract allocate(shape: readonly number[], dtype: tf.DataType): Storage;
  protected abstract free(storage: Storage): void;
  /** Puts values of any type into the memory, converted. */
  protected abstract fill(storage: Storage, values: TensorValues): void;

  /** The same of several. */
  allFloats(tensors: readonly tf.TensorInfo[]): F[] {
    return tensors.map((x) => this.floats(x));
  }

  /** A tensor with undefined values, for a kernel to fill; numbers in full precision. */
  create(shape: number[], dtype: tf.DataType = 'float32'): tf.TensorInfo {
    return this.make(shape, dtype, this.allocate(shape, dtype));
  }

  /** The same for an activation or its gradient, which some engines keep in less precision. */
  activation(shape: number[]): tf.TensorInfo {
    return this.create(shape);
  }

  /** The same for values that come from those of float32 tensors: as precise as the most precise of these. */
  from(_inputs: readonly tf.TensorInfo[], shape: number[]): tf.TensorInfo {
    return this.create(shape);
  }

  /** Another shape of the same data. */
  share(x: tf.TensorInfo, shape: number[]): tf.TensorInfo {
    this.incRef(x.dataId);
    this.made.push(x.dataId);
    return { dataId: x.dataId, shape, dtype: x.dtype };
  }

  /** Whether no other tensor shares the data, so that it may be overwritten once its tensor is given up. */
  isSole(x: tf.TensorInfo): boolean {
    return this.refCount(x.dataId) === 1;
  }

  /** Whether a float32 tensor is kept in the precision of activations. */
  isActivation(_x: tf.TensorInfo): boolean {
    return true;
  }

  /**
   * Runs a kernel; after an error nothing of what it made is left.
   * @param what it is, for errors
   */
  run<T>(what: string, body: () => T): T {
    this.made = [];
    try {
      return body();
    } catch (error) {
      for (const dataId of this.made) this.disposeData(dataId);
      throw this.explain(error, what);
    }
  }

  /** What to throw for an error in `what`. */
  protected explain(error: unknown, _what: string): unknown {
    return error;
  }

  protected make(shape: number[], dtype: tf.DataType, storage: Storage): tf.TensorInfo {
    const dataId = {};
    this.stored.set(dataId, { storage, refCount: 1 });
    this.made.push(dataId);
    return { dataId, shape, dtype };
  }

  protected storageOf(dataId: tf.DataId): Storage {
    return this.stored.get(dataId).storage;
  }

  override write(values: tf.BackendValues, shape: number[], dtype: tf.DataType): tf.DataId {
    const dataId = {};
    this.move(dataId, values, shape, dtype, 1);
    return dataId;
  }

  override move(
    dataId: tf.DataId,
    values: tf.BackendValues,
    shape: number[],
    dtype: tf.DataType,
    refCount: number,
  ): void {
    this.run('a tensor of given values', () => {
      const storage = this.allocate(shape, dtype);
      this.stored.set(dataId, { storage, refCount });
      this.made.push(dataId);
      this.fill(storage, values as TensorValues);
    });
  }

  override refCount(dataId: tf.DataId): number {
    return this.stored.has(dataId) ? this.stored.get(dataId).refCount : 0;
  }

  override incRef(dataId: tf.DataId): void {
    this.stored.get(dataId).refCount++;
  }

  /** Gives up one reference, or all with `force`; the memory goes back with the last. */
  override disposeData(dataId: tf.DataId, force = false): boolean {
    if (!this.stored.has(dataId)) return true;
    const stored = this.stored.get(dataId);
    stored.refCount--;
    if (!force && stored.refCount > 0) return false;
    this.free(stored.storage);
    this.stored.delete(dataId);
    return true;
  }

  override numDataIds(): number {
    return this.stored.numDataIds();
  }

  override timerAvailable(): boolean {
    return true;
  }
}
