/**
 * The plain tfjs kernels that training, memory writing and inference use between the fused ones, and no others: what is
 * missing here fails with an error of tfjs that names it. Where a kernel takes only some of the shapes that tfjs allows,
 * the others fail as loudly.
 */

import * as tf from '../tf.ts';
import type { NativeBackend } from './backend.ts';
import { registerKernel } from './register.ts';

type Info = tf.TensorInfo;

const sizeOf = (x: Info): number => tf.util.sizeFromShape(x.shape);
const product = (sizes: readonly number[]): number => sizes.reduce((all, size) => all * size, 1);

function unsupported(kernel: string, what: string): never {
  throw new Error(`kernel ${kernel} of the native engine does not take ${what}`);
}

registerKernel<'x'>('Identity', (backend, { x }) => backend.share(x, x.shape));

registerKernel<'x', { shape: number[] }>('Reshape', (backend, { x }, { shape }) =>
  backend.share(x, tf.util.inferFromImplicitShape(shape, sizeOf(x))),
);

registerKernel<'x', { dtype: tf.DataType }>('Cast', (backend, { x }, { dtype }) => {
  if (dtype === x.dtype) return backend.share(x, x.shape);
  const out = backend.create(x.shape, dtype);
  backend.addon.cast(backend.values(x), backend.values(out));
  return out;
});

registerKernel<never, { shape: number[]; value: number; dtype: tf.DataType }>('Fill', (backend, _, attributes) =>
  filled(backend, attributes.shape, attributes.value, attributes.dtype),
);

registerKernel<'x'>('ZerosLike', (backend, { x }) => filled(backend, x.shape, 0, x.dtype));
registerKernel<'x'>('OnesLike', (backend, { x }) => filled(backend, x.shape, 1, x.dtype));

function filled(backend: NativeBackend, shape: number[], value: number, dtype: tf.DataType = 'float32'): Info {
  const out = backend.create(shape, dtype);
  backend.addon.fill(value, backend.values(out));
  return out;
}

registerKernel<'a' | 'b'>('Add', (backend, { a, b }) => {
  if (a.shape.join() !== b.shape.join()) unsupported('Add', `the shapes [${a.shape}] and [${b.shape}]`);
  const out = backend.create(a.shape);
  backend.addon.add(backend.floats(a), backend.floats(b), backend.floats(out));
  return out;
});

registerKernel<string>('AddN', (backend, tensors) => {
  const [first, ...others] = Object.values(tensors) as [Info, ...Info[]];
  const out = backend.create(first.shape);
  const sum = backend.floats(out);
  backend.addon.cast(backend.floats(first), sum);
  for (const other of others) backend.addon.add(sum, backend.floats(other), sum);
  return out;
});

registerKernel<'a' | 'b'>('Multiply', (backend, { a, b }) => {
  const [large, small] = sizeOf(a) >= sizeOf(b) ? [a, b] : [b, a];
  const shape = tf.broadcast_util.assertAndGetBroadcastShape(a.shape, b.shape);
  const out = backend.create(shape);
  if (a.shape.join() === b.shape.join()) {
    backend.addon.multiply(backend.floats(a), backend.floats(b), backend.floats(out));
  } else if (sizeOf(small) === 1) {
    backend.addon.scale(backend.floats(large), backend.floats(small), backend.floats(out));
  } else unsupported('Multiply', `the shapes [${a.shape}] and [${b.shape}]`);
  return out;
});

registerKernel<'x'>('Square', (backend, { x }) => {
  const out = backend.create(x.shape);
  backend.addon.multiply(backend.floats(x), backend.floats(x), backend.floats(out));
  return out;
});

registerKernel<'x', { axis: number | number[]; keepDims: boolean }>('Sum', (backend, { x }, { axis, keepDims }) => {
  const axes = tf.util.parseAxisParam(axis, x.shape);
  const first = axes[0] ?? 0;
  if (axes.some((value, i) => value !== first + i)) unsupported('Sum', `axes that do not stand together, [${axes}]`);
  const kept = keepDims ? x.shape.map((size, i) => (axes.includes(i) ? 1 : size)) : undefined;
  const out = backend.create(kept ?? x.shape.filter((_, i) => !axes.includes(i)));
  const outer = product(x.shape.slice(0, first));
  const summed = product(x.shape.slice(first, first + axes.length));
  const inner = product(x.shape.slice(first + axes.length));
  backend.addon.sumAxis(backend.floats(x), outer, summed, inner, backend.floats(out));
  return out;
});

type MatMulAttributes = { transposeA: boolean; transposeB: boolean };

registerKernel<'a' | 'b', MatMulAttributes>('BatchMatMul', (backend, { a, b }, { transposeA, transposeB }) => {
  if (product(a.shape.slice(0, -2)) * product(b.shape.slice(0, -2)) !== 1) unsupported('BatchMatMul', 'a batch');
  const [rows, inner] = lastTwo(a, transposeA);
  const [, columns] = lastTwo(b, transposeB);
  const out = backend.create([...a.shape.slice(0, -2), rows, columns]);
  const given = [backend.floats(a), backend.floats(b), rows, columns, inner, transposeA, transposeB] as const;
  backend.addon.matMul(...given, backend.floats(out));
  return out;
});

function lastTwo({ shape }: Info, transposed: boolean): [rows: number, columns: number] {
  const [rows, columns] = shape.slice(-2) as [number, number];
  return transposed ? [columns, rows] : [rows, columns];
}

registerKernel<string, { axis: number }>('Concat', (backend, tensors, attributes) => {
  const parts = Object.values(tensors) as [Info, ...Info[]];
  const [axis] = tf.util.parseAxisParam(attributes.axis, parts[0].shape) as [number];
  const shape = [...parts[0].shape];
  shape[axis] = parts.reduce((sum, part) => sum + part.shape[axis]!, 0);
  const out = backend.create(shape);
  const width = product(shape.slice(axis));
  let offset = 0;
  for (const part of parts) {
    const own = product(part.shape.slice(axis));
    if (own === 0) continue;
    backend.addon.copyRows(backend.floats(part), 0, own, sizeOf(part) / own, own, width, offset, backend.floats(out));
    offset += own;
  }
  return out;
});

type SplitAttributes = { numOrSizeSplits: number | number[]; axis: number };

registerKernel<'x', SplitAttributes>('SplitV', (backend, { x }, { numOrSizeSplits, axis }) => {
  const [place] = tf.util.parseAxisParam(axis, x.shape) as [number];
  let begin = 0;
  return tf.backend_util.prepareSplitSize(x as tf.Tensor, numOrSizeSplits, place).map((size) => {
    const part = cut(backend, x, place, begin, size);
    begin += size;
    return part;
  });
});

registerKernel<'x', { begin: number[]; size: number[] }>('Slice', (backend, { x }, attributes) => {
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
function cut(backend: NativeBackend, x: Info, axis: number, begin: number, size: number): Info {
  const shape = x.shape.with(axis, size);
  const out = backend.create(shape);
  const inner = product(x.shape.slice(axis + 1));
  const [outer, from, to] = [product(x.shape.slice(0, axis)), x.shape[axis]! * inner, size * inner];
  backend.addon.copyRows(backend.floats(x), begin * inner, from, outer, to, to, 0, backend.floats(out));
  return out;
}

registerKernel<'x', { axis: number }>('ArgMax', (backend, { x }, { axis }) => {
  const [place] = tf.util.parseAxisParam(axis, x.shape) as [number];
  if (place !== x.shape.length - 1) unsupported('ArgMax', `axis ${axis} of [${x.shape}]`);
  const out = backend.create(x.shape.slice(0, -1), 'int32');
  backend.addon.argMax(backend.floats(x), backend.ints(out));
  return out;
});
