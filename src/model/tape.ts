/**
 * The backward pass of a training step. tfjs keeps all activations and all gradients until its own backward pass is over;
 * here each goes as soon as nothing needs it, which halves the memory of a step. And JavaScript comes up for air: on a deep
 * model the pass takes longer to put together than a timer or a dashboard should wait.
 */

import { setImmediate } from 'node:timers/promises';
import * as tf from '../engine/tf.ts';
import { readsGradientOf } from '../ops/kernel.ts';

type TapeNode = NonNullable<ReturnType<typeof tf.engine>['state']['activeTape']>[number];

/** Time in milliseconds after which the backward pass lets go of the event loop; a long forward pass counts too. */
const PAUSE_AFTER = 10;

/**
 * Runs `f` forward, after a turn of the event loop, and backward. Other code may use the engine while the backward pass
 * pauses.
 * @param f gives a scalar; what else it makes is freed, but for what it keeps
 * @param variables the tensors to differentiate by; they and all other inputs of `f` must live until the promise is kept
 * @returns the scalar and one gradient per variable, all owned by the caller
 * @throws Error when `f` does not depend on a variable
 */
export async function valueAndGradients(
  f: () => tf.Scalar,
  variables: readonly tf.Tensor[],
): Promise<{ value: tf.Scalar; gradients: tf.Tensor[] }> {
  // The forward pass is one piece, since tfjs has one tape and one scope; what the caller has done before is another.
  await setImmediate();
  let lastPause = performance.now();
  const { value, tape } = record(f);
  const pass = new BackwardPass(tape, value, tf.ones([]), variables);
  try {
    while (pass.step()) {
      if (performance.now() - lastPause < PAUSE_AFTER) continue;
      await setImmediate();
      lastPause = performance.now();
    }
    const missing = variables.find(({ id }) => !pass.gradients.has(id));
    if (missing) throw new Error(`no gradient reaches a variable of shape [${missing.shape}]`);
  } catch (error) {
    pass.dispose();
    value.dispose();
    throw error;
  }
  return { value, gradients: variables.map(({ id }) => pass.gradients.get(id)!) };
}

/**
 * A backward pass inside a backward pass: runs `f` again, now for its gradients.
 * @param dy gradient of what `f` gives; stays the caller's
 * @returns one gradient per input, zeros where `f` does not depend on it; owned by the caller or its `tf.tidy`
 */
export function gradientsOf(f: () => tf.Tensor, inputs: readonly tf.Tensor[], dy: tf.Tensor): tf.Tensor[] {
  const { value, tape } = record(f);
  const variables = inputs.filter(({ dtype }) => dtype === 'float32');
  const pass = new BackwardPass(tape, value, dy.clone(), variables);
  value.dispose();
  try {
    while (pass.step());
  } catch (error) {
    pass.dispose();
    throw error;
  }
  return inputs.map((input) => pass.gradients.get(input.id) ?? tf.zerosLike(input));
}

/** Runs `f` with a tape of its own; the tape's owner frees what its nodes have saved. */
function record<T extends tf.Tensor>(f: () => T): { value: T; tape: TapeNode[] } {
  const { state } = tf.engine();
  if (state.gradientDepth > 0) throw new Error('a forward pass cannot stand inside another');
  const tape: TapeNode[] = [];
  // In a backward pass of tfjs itself its own tape is still there.
  const outer = state.activeTape;
  state.activeTape = tape;
  state.gradientDepth++;
  try {
    return { value: tf.tidy(f), tape };
  } catch (error) {
    for (const { saved } of tape) tf.dispose(saved ?? []);
    throw error;
  } finally {
    state.gradientDepth--;
    state.activeTape = outer;
  }
}

/** Walks a tape from its end, one node a step. */
class BackwardPass {
  /** Gradients that are complete, or waiting for the nodes before; by number of the tensor. */
  readonly gradients: Map<number, tf.Tensor>;
  private readonly tape: TapeNode[];
  private readonly dependent: ReadonlySet<number>;

  /** @param dy gradient of `value`; the pass owns it */
  constructor(tape: TapeNode[], value: tf.Tensor, dy: tf.Tensor, variables: readonly tf.Tensor[]) {
    this.tape = tape;
    this.gradients = new Map([[value.id, dy]]);
    this.dependent = dependsOn(tape, variables);
  }

  /**
   * One node: gradients of its outputs become gradients of its inputs; what only this node needed is freed.
   * @returns false when there was none left
   */
  step(): boolean {
    const node = this.tape.at(-1);
    if (!node) return false;
    const reached = node.outputs.filter(({ id }) => this.gradients.has(id));
    const wanted = Object.entries(node.inputs).filter(([, { id }]) => this.dependent.has(id));
    if (reached.length > 0 && wanted.length > 0) {
      const names = wanted.map(([name]) => name);
      for (const [i, gradient] of inputGradients(node, names, this.gradients).entries()) {
        this.accumulate(wanted[i]![1].id, gradient);
      }
    }
    this.tape.pop();
    tf.dispose(node.saved ?? []);
    for (const { id } of reached) {
      this.gradients.get(id)!.dispose();
      this.gradients.delete(id);
    }
    return true;
  }

  dispose(): void {
    for (const { saved } of this.tape) tf.dispose(saved ?? []);
    tf.dispose([...this.gradients.values()]);
  }

  private accumulate(id: number, gradient: tf.Tensor): void {
    const before = this.gradients.get(id);
    this.gradients.set(id, before ? tf.add(before, gradient) : gradient);
    if (before) tf.dispose([before, gradient]);
  }
}

/** Numbers of the tensors that depend on a variable. */
function dependsOn(tape: readonly TapeNode[], variables: readonly tf.Tensor[]): Set<number> {
  const dependent = new Set(variables.map(({ id }) => id));
  for (const { inputs, outputs } of tape) {
    if (!Object.values(inputs).some(({ id }) => dependent.has(id))) continue;
    for (const { id } of outputs) dependent.add(id);
  }
  return dependent;
}

function inputGradients(
  { kernelName, outputs, gradient }: TapeNode,
  names: readonly string[],
  gradients: ReadonlyMap<number, tf.Tensor>,
): tf.Tensor[] {
  if (!gradient) throw new Error(`kernel ${kernelName} has no gradient`);
  return tf.tidy(() => {
    // Not tf.zeros, which makes them in JavaScript. An output may be large that only the gradient kernel wants to keep.
    const zeros = ({ shape, dtype }: tf.Tensor, i: number): tf.Tensor =>
      tf.fill(readsGradientOf(kernelName, i) ? shape : [], 0, dtype as 'float32');
    const upstream = outputs.map((output, i) => gradients.get(output.id) ?? zeros(output, i));
    const thunks = gradient(upstream);
    // A gradient that is passed on as it came belongs to the node above.
    return names.map((name) => {
      const found = thunks[name]!();
      return upstream.includes(found) ? found.clone() : found;
    });
  });
}
