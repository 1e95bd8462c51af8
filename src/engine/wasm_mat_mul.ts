/**
 * A matrix product for tfjs's wasm backend. The one that it brings is fast (XNNPACK) for two plain matrices only; as
 * soon as there is a batch or a transposed operand it falls to a naive loop: 1.3 against 20 GFLOP/s for the shapes of
 * attention. This one brings every product to that fast case: it transposes what must be transposed and walks the
 * batch with views into the memory of the operands, without copies.
 * Legend: batch, out[M, N] = a[M, inner] · b[inner, N].
 */

import * as tf from './tf.ts';

const BATCH_MAT_MUL = 'BatchMatMul';
const BYTES = 4;

/** The parts of tfjs's `BackendWasm` that its own kernels use. */
interface WasmBackend {
  dataIdNextNumber: number;
  dataIdMap: { get(dataId: tf.DataId): { id: number; memoryOffset: number } };
  makeOutput(shape: number[], dtype: tf.DataType): tf.TensorInfo;
  wasm: {
    cwrap(
      name: string,
      returns: null,
      parameters: ('number' | 'array')[],
    ): (...values: (number | Uint8Array)[]) => void;
    tfjs: {
      registerTensor(id: number, size: number, memoryOffset: number): void;
      disposeData(id: number): void;
    };
  };
}

interface MatMulInputs {
  a: tf.Tensor;
  b: tf.Tensor;
}

interface MatMulAttributes {
  transposeA: boolean;
  transposeB: boolean;
}

const installed = new WeakSet<WasmBackend>();

/** Replaces the kernel `BatchMatMul` of the backend `wasm`, which must be the current backend. A second call does nothing. */
export function installWasmMatMul(): void {
  const backend = tf.backend() as unknown as WasmBackend;
  if (installed.has(backend)) return;
  installed.add(backend);
  const original = tf.getKernel(BATCH_MAT_MUL, 'wasm');
  const multiplyPlain = plainProduct(backend);
  tf.unregisterKernel(BATCH_MAT_MUL, 'wasm');
  tf.registerKernel({
    kernelName: BATCH_MAT_MUL,
    backendName: 'wasm',
    kernelFunc: (call) => {
      const { a, b } = call.inputs as unknown as MatMulInputs;
      const { transposeA, transposeB } = call.attrs as unknown as MatMulAttributes;
      if (!hasEqualBatch(a.shape, b.shape) || a.size === 0 || b.size === 0) return original.kernelFunc(call);
      return tf.tidy(() => product(a, b, transposeA, transposeB, multiplyPlain));
    },
  });
}

function hasEqualBatch(a: number[], b: number[]): boolean {
  return a.slice(0, -2).join() === b.slice(0, -2).join();
}

type PlainProduct = (a: tf.Tensor, b: tf.Tensor) => tf.Tensor;

/** A transposed operand costs its transposition; where cheaper, (b' a')' is computed instead. */
function product(
  a: tf.Tensor,
  b: tf.Tensor,
  transposeA: boolean,
  transposeB: boolean,
  multiply: PlainProduct,
): tf.Tensor {
  const outSize = (a.size / a.shape.at(transposeA ? -2 : -1)!) * b.shape.at(transposeB ? -2 : -1)!;
  const direct = (transposeA ? a.size : 0) + (transposeB ? b.size : 0);
  const swapped = (transposeA ? 0 : a.size) + (transposeB ? 0 : b.size) + outSize;
  return direct <= swapped
    ? multiply(transposeA ? transpose(a) : a, transposeB ? transpose(b) : b)
    : transpose(multiply(transposeB ? b : transpose(b), transposeA ? a : transpose(a)));
}

/** Swaps the last two dimensions. */
function transpose(x: tf.Tensor): tf.Tensor {
  const order = [...x.shape.keys()];
  return tf.transpose(x, [...order.slice(0, -2), x.rank - 1, x.rank - 2]);
}

function plainProduct(backend: WasmBackend): PlainProduct {
  const { tfjs } = backend.wasm;
  const run = backend.wasm.cwrap(BATCH_MAT_MUL, null, [
    ...(['number', 'array', 'number'] as const), // a: id, shape, rank
    ...(['number', 'array', 'number'] as const), // b
    ...(['number', 'number', 'number'] as const), // transposeA, transposeB, id of the output
  ]);
  return (a, b) => {
    const [rows, inner] = a.shape.slice(-2) as [number, number];
    const columns = b.shape.at(-1)!;
    const out = backend.makeOutput([...a.shape.slice(0, -1), columns], 'float32');
    const view = (dataId: tf.DataId, size: number): { id: number; offset: number; size: number } => ({
      id: backend.dataIdNextNumber++,
      offset: backend.dataIdMap.get(dataId).memoryOffset,
      size,
    });
    const views = [
      view(a.dataId, rows * inner),
      view(b.dataId, inner * columns),
      view(out.dataId, rows * columns),
    ] as const;
    const aShape = shapeBytes(1, rows, inner);
    const bShape = shapeBytes(1, inner, columns);
    const batch = a.size / (rows * inner);
    for (let i = 0; i < batch; i++) {
      for (const { id, size, offset } of views) tfjs.registerTensor(id, size, offset + i * size * BYTES);
      run(views[0].id, aShape, 3, views[1].id, bShape, 3, 0, 0, views[2].id);
      // Also frees the operator that XNNPACK caches under the id of b.
      for (const { id } of views) tfjs.disposeData(id);
    }
    return tf.engine().makeTensorFromTensorInfo(out);
  };
}

function shapeBytes(...shape: number[]): Uint8Array {
  return new Uint8Array(Int32Array.from(shape).buffer);
}
