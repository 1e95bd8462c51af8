/** The tfjs backend of the CUDA engine: tensors are numbers that stand for memory of the GPU. */

import { UserError } from '../../errors.ts';
import type { WritesAhead } from '../ahead.ts';
import { EngineBackend } from '../kernels/backend.ts';
import type { TensorValues } from '../kernels/kernels.ts';
import * as tf from '../tf.ts';
import { type CudaAddon, type CudaValues, STORAGE, type StorageType } from './addon.ts';

/** How activations and their gradients are stored; all other numbers are float32. */
export type CudaPrecision = 'float32' | 'bfloat16';

interface Storage {
  number: number;
  count: number;
  type: StorageType;
}

/** The memory of the GPU is full. */
class DeviceFull extends Error {}

/** How the addon's own errors of this kind begin. */
const FULL = 'the memory of the GPU is full';
const MIB = 2 ** 20;

/** Kernels run on the GPU while JavaScript goes on; reading waits until they are done. */
export class CudaBackend extends EngineBackend<CudaValues, CudaValues, CudaValues, Storage> implements WritesAhead {
  readonly kernels: CudaAddon;
  readonly noFloats = 0;
  readonly noInts = 0;
  /** How activations are stored that are made from now on. */
  precision: CudaPrecision;

  constructor(addon: CudaAddon, precision: CudaPrecision) {
    super();
    this.kernels = addon;
    this.precision = precision;
  }

  override activation(shape: number[]): tf.TensorInfo {
    return this.make(shape, 'float32', this.take(shape, this.precision));
  }

  override from(inputs: readonly tf.TensorInfo[], shape: number[]): tf.TensorInfo {
    const halves = inputs.every((x) => this.typeOf(x) === 'bfloat16');
    return this.make(shape, 'float32', this.take(shape, halves ? 'bfloat16' : 'float32'));
  }

  override isActivation(x: tf.TensorInfo): boolean {
    return this.typeOf(x) === this.precision;
  }

  override floats(x: tf.TensorInfo): number {
    return this.numberOf(x, ['float32', 'bfloat16']);
  }

  override ints(x: tf.TensorInfo): number {
    return this.numberOf(x, ['int32']);
  }

  override values(x: tf.TensorInfo): number {
    return this.storageOf(x.dataId).number;
  }

  override part(x: tf.TensorInfo, begin: number, end: number): CudaValues {
    return end > begin ? [this.floats(x), begin, end - begin] : this.noFloats;
  }

  /** How the numbers of a tensor are stored. */
  typeOf(x: tf.TensorInfo): StorageType {
    return this.storageOf(x.dataId).type;
  }

  writeAhead(values: Int32Array | Float32Array, shape: number[], dtype: tf.DataType): tf.DataId {
    return this.run('a tensor of given values', () => {
      const type = storageTypeOf(dtype);
      const number = this.kernels.upload(values, STORAGE[type]);
      if (number === null) throw new DeviceFull(this.describeFull(shape, type, values.length));
      return this.make(shape, dtype, { number, count: values.length, type }).dataId;
    });
  }

  override readSync(dataId: tf.DataId): TensorValues {
    const storage = this.storageOf(dataId);
    const values = arrayFor(storage);
    this.kernels.readNow(storage.number, values);
    return values;
  }

  /** What the tensor holds now, also if it is disposed before the promise is kept. */
  override read(dataId: tf.DataId): Promise<TensorValues> {
    const storage = this.storageOf(dataId);
    return this.kernels.read(storage.number, arrayFor(storage));
  }

  /** Bytes of the GPU's memory that tensors use, as part of what `tf.memory()` gives. */
  override memory(): { unreliable: boolean; usedBufferBytes: number } {
    return { unreliable: false, usedBufferBytes: this.kernels.usedBytes() };
  }

  override async time(f: () => void): Promise<tf.BackendTimingInfo> {
    this.kernels.wait();
    const start = performance.now();
    f();
    this.kernels.wait();
    return { kernelMs: performance.now() - start };
  }

  override floatPrecision(): 16 | 32 {
    return this.precision === 'bfloat16' ? 16 : 32;
  }

  override epsilon(): number {
    return this.precision === 'bfloat16' ? 1e-4 : 1e-7;
  }

  override dispose(): void {
    this.kernels.wait();
  }

  protected override allocate(shape: readonly number[], dtype: tf.DataType): Storage {
    return this.take(shape, storageTypeOf(dtype));
  }

  protected override free({ number }: Storage): void {
    this.kernels.release(number);
  }

  protected override fill({ number, type }: Storage, values: TensorValues): void {
    const Wanted = arrayOf(type);
    this.kernels.write(values instanceof Wanted ? values : (Wanted as typeof Float32Array).from(values), number);
  }

  protected override explain(error: unknown, where: string): unknown {
    if (!(error instanceof Error)) return error;
    if (!(error instanceof DeviceFull) && !error.message.startsWith(FULL)) return error;
    return new UserError('device_memory', {
      where,
      what: error.message,
      action:
        'lower batchSize of the stage (and raise accumulate as much: the step stays the same), data.sequenceLength or ' +
        'the size of the model; or set recompute: true in the stage; and see in nvidia-smi what else uses the GPU',
      cause: error,
    });
  }

  private numberOf(x: tf.TensorInfo, wanted: readonly StorageType[]): number {
    const { number, type } = this.storageOf(x.dataId);
    if (!wanted.includes(type)) throw new Error(`expected a tensor of type ${wanted[0]}, got ${x.dtype}`);
    return number;
  }

  private take(shape: readonly number[], type: StorageType): Storage {
    const count = tf.util.sizeFromShape([...shape]);
    const number = this.kernels.allocate(count, STORAGE[type]);
    if (number === null) throw new DeviceFull(this.describeFull(shape, type, count));
    return { number, count, type };
  }

  private describeFull(shape: readonly number[], type: StorageType, count: number): string {
    const bytes = count * (type === 'bool' ? 1 : type === 'bfloat16' ? 2 : 4);
    const { free, total } = this.kernels.memoryInfo();
    const [wanted, used] = [bytes, this.kernels.usedBytes()].map((size) => `${Math.ceil(size / MIB)} MiB`);
    const rest = `${Math.floor(free / MIB)} of ${Math.floor(total / MIB)} MiB are free`;
    return `${FULL}: a tensor [${shape.join(', ')}] of ${type} needs ${wanted}; tensors use ${used}, ${rest}`;
  }
}

function storageTypeOf(dtype: tf.DataType): StorageType {
  if (dtype === 'float32' || dtype === 'int32' || dtype === 'bool') return dtype;
  throw new Error(`the cuda engine has no tensors of type ${dtype}`);
}

const arrayOf = (type: StorageType): Float32ArrayConstructor | Int32ArrayConstructor | Uint8ArrayConstructor =>
  type === 'int32' ? Int32Array : type === 'bool' ? Uint8Array : Float32Array;

const arrayFor = ({ type, count }: Storage): TensorValues => new (arrayOf(type))(count);
