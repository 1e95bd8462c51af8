/** AdamW with float32 state that lives on the engine. */

import type { OptimizerConfig } from '../config/schema.ts';
import * as tf from '../engine/tf.ts';
import { UserError } from '../errors.ts';
import { adamw, type ParameterState, type ParameterUpdate } from '../ops/index.ts';

/** An array as checkpoints store it. */
export interface StateArray {
  shape: number[];
  data: Float32Array;
}

const STEP = 'step';
const FIRST_MOMENT = 'm.';
const SECOND_MOMENT = 'v.';

/**
 * Adam with decoupled weight decay (Loshchilov & Hutter 2019). Weights of two or more dimensions decay, norms do not.
 * It updates the variables in place and owns its moments, not the variables: `dispose` frees the moments.
 */
export class AdamW {
  /** First moments under the names of the parameters. */
  readonly m = new Map<string, tf.Tensor>();
  /** Second moments. */
  readonly v = new Map<string, tf.Tensor>();
  /** Updates made. */
  stepCount = 0;
  private readonly parameters: ReadonlyMap<string, tf.Variable>;
  private readonly config: OptimizerConfig;

  constructor(parameters: ReadonlyMap<string, tf.Variable>, config: OptimizerConfig) {
    this.parameters = parameters;
    this.config = config;
    // Not tf.zeros, which makes them in JavaScript.
    for (const [name, parameter] of parameters) {
      this.m.set(name, tf.keep(tf.fill(parameter.shape, 0)));
      this.v.set(name, tf.keep(tf.fill(parameter.shape, 0)));
    }
  }

  /**
   * One update of every parameter.
   * @param gradients one per parameter; still owned by the caller
   * @param gradientScale every gradient is multiplied by this first (averaging and clipping)
   */
  step(gradients: ReadonlyMap<string, tf.Tensor>, learningRate: number, gradientScale = 1): void {
    this.stepCount++;
    const { beta1, beta2, epsilon, weightDecay } = this.config;
    const names = [...this.parameters.keys()];
    const decays = (name: string): boolean => this.parameters.get(name)!.rank >= 2;
    for (const [group, decay] of [
      [names.filter(decays), weightDecay],
      [names.filter((name) => !decays(name)), 0],
    ] as const) {
      if (group.length === 0) continue;
      const updates = group.map((name) => this.updateOf(name, gradients.get(name)));
      const options = { lr: learningRate, beta1, beta2, epsilon, weightDecay: decay, step: this.stepCount };
      const updated = adamw(updates, { ...options, gradScale: gradientScale, inPlace: true });
      for (const [i, name] of group.entries()) this.replace(name, updated[i]!);
    }
  }

  private updateOf(name: string, gradient: tf.Tensor | undefined): ParameterUpdate {
    if (!gradient) throw new Error(`no gradient for ${name}`);
    return { parameter: this.parameters.get(name)!, gradient, m: this.m.get(name)!, v: this.v.get(name)! };
  }

  /** Takes over a new state, given to this object. */
  private replace(name: string, { parameter, m, v }: ParameterState): void {
    this.parameters.get(name)!.assign(parameter);
    tf.dispose([parameter, this.m.get(name)!, this.v.get(name)!]);
    this.m.set(name, tf.keep(m));
    this.v.set(name, tf.keep(v));
  }

  /** A copy of the whole state: `m.<parameter>`, `v.<parameter>` and `step` (`[1]`). */
  async state(): Promise<Map<string, StateArray>> {
    const state = new Map<string, StateArray>([[STEP, { shape: [1], data: Float32Array.of(this.stepCount) }]]);
    for (const [prefix, moments] of this.momentMaps()) {
      for (const [name, moment] of moments) {
        state.set(prefix + name, { shape: moment.shape, data: Float32Array.from(await moment.data<'float32'>()) });
      }
    }
    return state;
  }

  /**
   * Continues from a state that `state()` gave.
   * @throws UserError `artefact_mismatch` when an array is missing, unknown or of another shape; nothing is changed then
   */
  load(state: ReadonlyMap<string, { shape: readonly number[]; data: ArrayLike<number> }>): void {
    this.checkState(state);
    this.stepCount = state.get(STEP)!.data[0]!;
    for (const [prefix, moments] of this.momentMaps()) {
      for (const [name, old] of moments) {
        const loaded = tf.keep(tf.tensor(Float32Array.from(state.get(prefix + name)!.data), old.shape, 'float32'));
        old.dispose();
        moments.set(name, loaded);
      }
    }
  }

  dispose(): void {
    for (const [, moments] of this.momentMaps()) {
      tf.dispose([...moments.values()]);
      moments.clear();
    }
  }

  private momentMaps(): [prefix: string, moments: Map<string, tf.Tensor>][] {
    return [
      [FIRST_MOMENT, this.m],
      [SECOND_MOMENT, this.v],
    ];
  }

  private checkState(state: ReadonlyMap<string, { shape: readonly number[]; data: ArrayLike<number> }>): void {
    const expected = new Map<string, readonly number[]>([[STEP, [1]]]);
    for (const [prefix, moments] of this.momentMaps()) {
      for (const [name, moment] of moments) expected.set(prefix + name, moment.shape);
    }
    const problems: string[] = [];
    for (const [name, shape] of expected) {
      const array = state.get(name);
      if (!array) problems.push(`${name} is missing`);
      else if (array.shape.join() !== shape.join() || array.data.length !== shape.reduce((a, b) => a * b, 1)) {
        problems.push(`${name} has shape [${array.shape.join(', ')}], expected [${shape.join(', ')}]`);
      }
    }
    for (const name of state.keys()) if (!expected.has(name)) problems.push(`${name} belongs to no parameter`);
    if (problems.length === 0) return;
    throw new UserError('artefact_mismatch', {
      where: 'optimizer state',
      what: `${problems.slice(0, 5).join('; ')}${problems.length > 5 ? `; and ${problems.length - 5} more` : ''}`,
      action: 'Resume from a checkpoint of this model, or start the stage anew.',
    });
  }
}
