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
      return tf.tidy(() => product(as3d(a), as3d(b), transposeA, transposeB, multiplyPlain).reshape(outputShape(call)));
    },
  });
}

function hasEqualBatch(a: number[], b: number[]): boolean {
  return a.slice(0, -2).join() === b.slice(0, -2).join();
}

function outputShape(call: Parameters<tf.KernelFunc>[0]): number[] {
  const { a, b } = call.inputs as unknown as MatMulInputs;
  const { transposeA, transposeB } = call.attrs as unknown as MatMulAttributes;
  return [...a.shape.slice(0, -2), a.shape.at(transposeA ? -1 : -2)!, b.shape.at(transposeB ? -2 : -1)!];
}

function as3d(x: tf.Tensor): tf.Tensor3D {
  const [rows, columns] = x.shape.slice(-2) as [number, number];
  return x.reshape([x.size / (rows * columns), rows, columns]);
}

const transpose = (x: tf.Tensor3D): tf.Tensor3D => tf.transpose(x, [0, 2, 1]);

type PlainProduct = (a: tf.Tensor3D, b: tf.Tensor3D) => tf.Tensor3D;

/** A transposed operand costs its transposition; where cheaper, (b' a')' is computed instead. */
function product(
  a: tf.Tensor3D,
  b: tf.Tensor3D,
  transposeA: boolean,
  transposeB: boolean,
  multiply: PlainProduct,
): tf.Tensor3D {
  const outSize = (a.size / a.shape[transposeA ? 1 : 2]!) * b.shape[transposeB ? 1 : 2]!;
  const direct = (transposeA ? a.size : 0) + (transposeB ? b.size : 0);
  const swapped = (transposeA ? 0 : a.size) + (transposeB ? 0 : b.size) + outSize;
  return direct <= swapped
    ? multiply(transposeA ? transpose(a) : a, transposeB ? transpose(b) : b)
    : transpose(multiply(transposeB ? b : transpose(b), transposeA ? a : transpose(a)));
}

function plainProduct(backend: WasmBackend): PlainProduct {
  const { tfjs } = backend.wasm;
  const run = backend.wasm.cwrap(BATCH_MAT_MUL, null, [
    ...(['number', 'array', 'number'] as const), // a: id, shape, rank
    ...(['number', 'array', 'number'] as const), // b
    ...(['number', 'number', 'number'] as const), // transposeA, transposeB, id of the output
  ]);
  return (a, b) => {
    const [batch, rows, inner] = a.shape;
    const columns = b.shape[2];
    const out = backend.makeOutput([batch, rows, columns], 'float32');
    const operands = [
      { offset: backend.dataIdMap.get(a.dataId).memoryOffset, size: rows * inner, id: backend.dataIdNextNumber++ },
      { offset: backend.dataIdMap.get(b.dataId).memoryOffset, size: inner * columns, id: backend.dataIdNextNumber++ },
      { offset: backend.dataIdMap.get(out.dataId).memoryOffset, size: rows * columns, id: backend.dataIdNextNumber++ },
    ] as const;
    const aShape = shapeBytes(1, rows, inner);
    const bShape = shapeBytes(1, inner, columns);
    for (let i = 0; i < batch; i++) {
      for (const { id, size, offset } of operands) tfjs.registerTensor(id, size, offset + i * size * BYTES);
      run(operands[0].id, aShape, 3, operands[1].id, bShape, 3, 0, 0, operands[2].id);
      // Also frees the operator that XNNPACK caches under the id of b.
      for (const { id } of operands) tfjs.disposeData(id);
    }
    return tf.engine().makeTensorFromTensorInfo(out) as tf.Tensor3D;
  };
}

function shapeBytes(...shape: number[]): Uint8Array {
  return new Uint8Array(Int32Array.from(shape).buffer);
}
