/**
 * What all fused operations share: an operation is a tfjs kernel with a name of its own. An engine that registers a
 * kernel of that name gets to run it; on any other backend the portable composition in plain tfjs ops becomes the
 * kernel. An engine that says it has them all must: a missing one is an error there, never a silent slow path. Gradients are
 * registered once, under the name alone, and call a kernel `<Name>Grad` in their turn.
 */

import { isComplete } from '../engine/complete.ts';
import * as tf from '../engine/tf.ts';

export type KernelInputs = Record<string, tf.Tensor>;
export type KernelAttributes = Record<string, number | boolean | string | number[]>;

export interface KernelGradient<I extends KernelInputs, A extends KernelAttributes> {
  /** Inputs that `backward` needs. */
  inputs: readonly (keyof I & string)[];
  /** Numbers of the outputs that `backward` needs. */
  outputs?: readonly number[];
  /** Numbers of the outputs whose gradients `backward` reads; by default all. */
  differentiable?: readonly number[];
  /**
   * @param dy gradients of all outputs, zeros where a differentiable output was not used
   * @param saved the inputs named above, by name
   * @param outputs the outputs named above, in order
   * @returns one thunk per differentiable input; integer inputs are left out
   */
  backward(
    dy: tf.Tensor[],
    saved: Partial<I>,
    outputs: tf.Tensor[],
    attributes: A,
  ): Partial<Record<keyof I & string, () => tf.Tensor>>;
}

export interface KernelDefinition<I extends KernelInputs, A extends KernelAttributes> {
  /** Kernel name, such as `RmsNorm`. */
  name: string;
  /** The portable composition. It runs with the tape off, inside `tf.tidy`. */
  forward(inputs: I, attributes: A): tf.Tensor[];
  gradient?: KernelGradient<I, A>;
}

const differentiableOutputs = new Map<string, readonly number[]>();

/** Whether the gradient of a kernel reads that of its output `output`, so that zeros must stand in for one that is not there. */
export function readsGradientOf(kernelName: string, output: number): boolean {
  return differentiableOutputs.get(kernelName)?.includes(output) ?? true;
}

/**
 * Makes a fused operation.
 * @returns a function that runs the kernel on the current backend; its results belong to the caller (or to the
 *   enclosing `tf.tidy`)
 */
export function defineKernel<I extends KernelInputs, A extends KernelAttributes = Record<string, never>>(
  definition: KernelDefinition<I, A>,
): (inputs: I, attributes: A) => tf.Tensor[] {
  const { name, gradient } = definition;
  if (tf.getGradient(name)) throw new Error(`a kernel named ${name} is already defined`);
  if (gradient) registerGradient(name, gradient);
  return (inputs, attributes) => {
    registerComposition(definition, tf.getBackend());
    return tf.engine().runKernel(name, inputs, attributes) as unknown as tf.Tensor[];
  };
}

function registerComposition<I extends KernelInputs, A extends KernelAttributes>(
  { name, forward }: KernelDefinition<I, A>,
  backendName: string,
): void {
  if (tf.getKernel(name, backendName)) return;
  if (isComplete(backendName)) throw new Error(`the ${backendName} engine has no kernel ${name}`);
  tf.registerKernel({
    kernelName: name,
    backendName,
    kernelFunc: ({ inputs, attrs }) => tf.tidy(() => forward(inputs as unknown as I, attrs as unknown as A)),
  });
}

function registerGradient<I extends KernelInputs, A extends KernelAttributes>(
  name: string,
  gradient: KernelGradient<I, A>,
): void {
  const { inputs, outputs = [], backward } = gradient;
  if (gradient.differentiable) differentiableOutputs.set(name, gradient.differentiable);
  const outputsToSave: boolean[] = [];
  for (const number of outputs) outputsToSave[number] = true;
  tf.registerGradient({
    kernelName: name,
    inputsToSave: [...inputs],
    outputsToSave,
    gradFunc: (dy, saved, attributes) => {
      const savedInputs = Object.fromEntries(inputs.map((input, i) => [input, saved[i]])) as Partial<I>;
      const thunks = backward(
        Array.isArray(dy) ? dy : [dy],
        savedInputs,
        saved.slice(inputs.length),
        attributes as unknown as A,
      );
      return thunks as ReturnType<tf.GradFunc>;
    },
  });
}

/** Runs `f` so that no gradient passes through its result, whatever its inputs depend on. */
export function withoutGradient<T extends tf.Tensor>(f: () => T): T {
  // A tape node without inputs connects to nothing, and the tape is off inside it.
  return tf.customGrad(() => ({ value: f(), gradFunc: () => [] }))() as T;
}

/**
 * Constant tensors that many calls share (masks, tables), the least recently used dropped beyond `capacity`. The cache
 * owns them; callers use them at once and never dispose them.
 */
export class ConstantCache {
  private readonly entries = new Map<string, tf.Tensor>();
  private readonly capacity: number;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** The tensor under `key`, made by `make` when it is not there for the current backend. */
  get<T extends tf.Tensor>(key: string, make: () => T): T {
    const fullKey = `${tf.getBackend()}:${key}`;
    const found = this.entries.get(fullKey) ?? tf.keep(make());
    this.entries.delete(fullKey);
    this.entries.set(fullKey, found);
    for (const [oldest, tensor] of this.entries) {
      if (this.entries.size <= this.capacity) break;
      this.entries.delete(oldest);
      tensor.dispose();
    }
    return found as T;
  }
}
