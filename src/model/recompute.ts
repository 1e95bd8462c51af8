/** Trading time for memory: a part of the network that keeps its inputs only and runs again in the backward pass. */

import * as tf from '../engine/tf.ts';
import { sizeOf } from './shape.ts';
import { gradientsOf } from './tape.ts';

/** Tensors by name, some of them perhaps absent. */
type NamedTensors = Record<string, tf.Tensor | undefined>;

/**
 * Runs `f(inputs)` so that only the inputs stay alive until the backward pass, which runs `f` a second time (Chen et
 * al. 2016, "Training deep nets with sublinear memory cost"). `f` must be deterministic and reach every tensor that
 * needs a gradient, or does not outlive the forward pass, through its argument. What has no gradient it had better keep
 * (`tf.keep`) in its first run than give: outputs travel side by side, in the precision of the most precise.
 * @param rows the first dimension that all outputs have once they are matrices `[rows, width]`
 * @returns the outputs of `f`, differentiable with respect to all inputs
 */
export function recomputed<I extends NamedTensors, O extends NamedTensors>(
  f: (inputs: I) => O,
  inputs: I,
  rows: number,
): O {
  const given = present(inputs);
  let layout: { name: string; shape: number[] }[] = [];

  // A custom gradient has one output, so the outputs of `f` travel side by side in one matrix.
  const pack = (tensors: tf.Tensor[]): tf.Tensor => {
    const outputs = present(f(Object.fromEntries(given.map(([name], i) => [name, tensors[i]])) as I));
    layout = outputs.map(([name, { shape }]) => ({ name, shape }));
    const matrices = outputs.map(([, output]) => output.reshape([rows, -1]));
    return matrices.length === 1 ? matrices[0]! : tf.concat(matrices, 1);
  };

  const run = tf.customGrad((...tensorsAndSave) => {
    const save = tensorsAndSave.pop() as tf.GradSaveFunc;
    const tensors = tensorsAndSave as tf.Tensor[];
    save(tensors);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]) => gradientsOf(() => pack(saved), saved, dy);
    return { value: pack(tensors), gradFunc };
  });
  const packed = run(...given.map(([, tensor]) => tensor));
  const widths = layout.map(({ shape }) => sizeOf(shape) / rows);
  const parts = layout.length === 1 ? [packed] : tf.split(packed, widths, 1);
  return Object.fromEntries(layout.map(({ name, shape }, i) => [name, parts[i]!.reshape(shape)])) as O;
}

/** What `f` kept with `tf.keep` besides its outputs, handed to the caller or its `tf.tidy`. */
export function released<T extends tf.Tensor>(kept: T): T {
  const tensor = kept.clone();
  kept.dispose();
  return tensor;
}

function present(tensors: NamedTensors): [name: string, tensor: tf.Tensor][] {
  return Object.entries(tensors).filter((entry): entry is [string, tf.Tensor] => entry[1] !== undefined);
}
