/**
 * The plain tfjs kernels that training, memory writing and inference use between the fused ones, and no others: what is
 * missing here fails with an error of tfjs that names it. Where a kernel takes only some of the shapes that tfjs allows,
 * the others fail as loudly. Results are as precise as the most precise of the inputs.
 */

import * as tf from '../tf.ts';
import { type Backend, plainKernel } from './register.ts';

type Info = tf.TensorInfo;

const sizeOf = (x: Info): number => tf.util.sizeFromShape(x.shape);
const product = (sizes: readonly number[]): number => sizes.reduce((all, size) => all * size, 1);

function unsupported(kernel: string, what: string): never {
  throw new Error(`kernel ${kernel} of this engine does not take ${what}`);
}

plainKernel<'x'>('Identity', (backend, { x }) => backend.share(x, x.shape));

plainKernel<'x', { shape: number[] }>('Reshape', (backend, { x }, { shape }) =>
  backend.share(x, tf.util.inferFromImplicitShape(shape, sizeOf(x))),
);

plainKernel<'x', { dtype: tf.DataType }>('Cast', (backend, { x }, { dtype }) => {
  if (dtype === x.dtype) return backend.share(x, x.shape);
  const out = backend.create(x.shape, dtype);
  backend.kernels.cast(backend.values(x), backend.values(out));
  return out;
});

plainKernel<never, { shape: number[]; value: number; dtype: tf.DataType }>('Fill', (backend, _, attributes) =>
  filled(backend, attributes.shape, attributes.value, attributes.dtype),
);

plainKernel<'x'>('ZerosLike', (backend, { x }) => filledLike(backend, x, 0));
plainKernel<'x'>('OnesLike', (backend, { x }) => filledLike(backend, x, 1));

function filled(backend: Backend, shape: number[], value: number, dtype: tf.DataType = 'float32'): Info {
  const out = backend.create(shape, dtype);
  backend.kernels.fill(value, backend.values(out));
  return out;
}

function filledLike(backend: Backend, x: Info, value: number): Info {
  if (x.dtype !== 'float32') return filled(backend, x.shape, value, x.dtype);
  const out = backend.from([x], x.shape);
  backend.kernels.fill(value, backend.values(out));
  return out;
}

plainKernel<'a' | 'b'>('Add', (backend, { a, b }) => {
  if (a.shape.join() !== b.shape.join()) unsupported('Add', `the shapes [${a.shape}] and [${b.shape}]`);
  const out = backend.from([a, b], a.shape);
  backend.kernels.add(backend.floats(a), backend.floats(b), backend.floats(out));
  return out;
});

plainKernel<string>('AddN', (backend, tensors) => {
  const [first, ...others] = Object.values(tensors) as [Info, ...Info[]];
  const out = backend.from([first, ...others], first.shape);
  const sum = backend.floats(out);
  backend.kernels.cast(backend.floats(first), sum);
  for (const other of others) backend.kernels.add(sum, backend.floats(other), sum);
  return out;
});

plainKernel<'a' | 'b'>('Multiply', (backend, { a, b }) => {
  const [large, small] = sizeOf(a) >= sizeOf(b) ? [a, b] : [b, a];
  const shape = tf.broadcast_util.assertAndGetBroadcastShape(a.shape, b.shape);
  const out = backend.from([a, b], shape);
  if (a.shape.join() === b.shape.join()) {
    backend.kernels.multiply(backend.floats(a), backend.floats(b), backend.floats(out));
  } else if (sizeOf(small) === 1) {
    backend.kernels.scale(backend.floats(large), backend.floats(small), backend.floats(out));
  } else unsupported('Multiply', `the shapes [${a.shape}] and [${b.shape}]`);
  return out;
});

plainKernel<'x'>('Square', (backend, { x }) => {
  const out = backend.from([x], x.shape);
  backend.kernels.multiply(backend.floats(x), backend.floats(x), backend.floats(out));
  return out;
});

plainKernel<'x', { axis: number | number[]; keepDims: boolean }>('Sum', (backend, { x }, { axis, keepDims }) => {
  const axes = tf.util.parseAxisParam(axis, x.shape);
  const first = axes[0] ?? 0;
  if (axes.some((value, i) => value !== first + i)) unsupported('Sum', `axes that do not stand together, [${axes}]`);
  const kept = keepDims ? x.shape.map((size, i) => (axes.includes(i) ? 1 : size)) : undefined;
  const out = backend.create(kept ?? x.shape.filter((_, i) => !axes.includes(i)));
  const outer = product(x.shape.slice(0, first));
  const summed = product(x.shape.slice(first, first + axes.length));
  const inner = product(x.shape.slice(first + axes.length));
  backend.kernels.sumAxis(backend.floats(x), outer, summed, inner, backend.floats(out));
  return out;
});

type MatMulAttributes = { transposeA: boolean; transposeB: boolean };

plainKernel<'a' | 'b', MatMulAttributes>('BatchMatMul', (backend, { a, b }, { transposeA, transposeB }) => {
  if (product(a.shape.slice(0, -2)) * product(b.shape.slice(0, -2)) !== 1) unsupported('BatchMatMul', 'a batch');
  const [rows, inner] = lastTwo(a, transposeA);
  const [, columns] = lastTwo(b, transposeB);
  const out = backend.from([a, b], [...a.shape.slice(0, -2), rows, columns]);
  const given = [backend.floats(a), backend.floats(b), rows, columns, inner, transposeA, transposeB] as const;
  backend.kernels.matMul(...given, backend.floats(out));
  return out;
});

function lastTwo({ shape }: Info, transposed: boolean): [rows: number, columns: number] {
  const [rows, columns] = shape.slice(-2) as [number, number];
  return transposed ? [columns, rows] : [rows, columns];
}

plainKernel<string, { axis: number }>('Concat', (backend, tensors, attributes) => {
  const parts = Object.values(tensors) as [Info, ...Info[]];
  const [axis] = tf.util.parseAxisParam(attributes.axis, parts[0].shape) as [number];
  const shape = [...parts[0].shape];
  shape[axis] = parts.reduce((sum, part) => sum + part.shape[axis]!, 0);
  const out = backend.from(parts, shape);
  const width = product(shape.slice(axis));
  let offset = 0;
  for (const part of parts) {
    const own = product(part.shape.slice(axis));
    if (own === 0) continue;
    backend.kernels.copyRows(backend.floats(part), 0, own, sizeOf(part) / own, own, width, offset, backend.floats(out));
    offset += own;
  }
  return out;
});

type SplitAttributes = { numOrSizeSplits: number | number[]; axis: number };

plainKernel<'x', SplitAttributes>('SplitV', (backend, { x }, { numOrSizeSplits, axis }) => {
  const [place] = tf.util.parseAxisParam(axis, x.shape) as [number];
  let begin = 0;
  return tf.backend_util.prepareSplitSize(x as tf.Tensor, numOrSizeSplits, place).map((size) => {
    const part = cut(backend, x, place, begin, size);
    begin += size;
    return part;
  });
});

plainKernel<'x', { begin: number[]; size: number[] }>('Slice', (backend, { x }, attributes) => {
  const [begin, size] = tf.slice_util.parseSliceParams(x as tf.Tensor, attributes.begin, attributes.size) as [
    number[],
    number[],
  ];
  const axes = [...size.keys()].filter((axis) => size[axis] !== x.shape[axis]);
  if (axes.length > 1) unsupported('Slice', `a part along several axes, [${size}] of [${x.shape}]`);
  const [axis] = axes;
  return axis === undefined ? backend.share(x, x.shape) : cut(backend, x, axis, begin[axis]!, size[axis]!);
});

/** The part [begin, begin + size) of one axis. */
function cut(backend: Backend, x: Info, axis: number, begin: number, size: number): Info {
  const shape = x.shape.with(axis, size);
  const out = backend.from([x], shape);
  const inner = product(x.shape.slice(axis + 1));
  const [outer, from, to] = [product(x.shape.slice(0, axis)), x.shape[axis]! * inner, size * inner];
  backend.kernels.copyRows(backend.floats(x), begin * inner, from, outer, to, to, 0, backend.floats(out));
  return out;
}

plainKernel<'x', { axis: number }>('ArgMax', (backend, { x }, { axis }) => {
  const [place] = tf.util.parseAxisParam(axis, x.shape) as [number];
  if (place !== x.shape.length - 1) unsupported('ArgMax', `axis ${axis} of [${x.shape}]`);
  const out = backend.create(x.shape.slice(0, -1), 'int32');
  backend.kernels.argMax(backend.floats(x), backend.ints(out));
  return out;
});
