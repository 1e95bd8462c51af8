/** A model: a shape and the variables that hold its parameters. */

import * as tf from '../engine/tf.ts';
import { UserError } from '../errors.ts';
import {
  EMBEDDING,
  FINAL_NORM,
  LAYER_PARAMETERS,
  type LayerParameter,
  layerParameterName,
  type ModelShape,
  OUTPUT_HEAD,
  parameterShapes,
  sizeOf,
} from './shape.ts';

/** The parameters of one block. */
export type LayerWeights = Record<LayerParameter, tf.Tensor>;

/** Owns the parameters as tfjs variables (float32 master weights); `dispose` frees them. */
export class Model {
  readonly shape: ModelShape;
  /** The variables under their Hugging Face names, in the order of `parameterShapes`. */
  readonly parameters: ReadonlyMap<string, tf.Variable>;
  readonly embedding: tf.Variable;
  readonly finalNorm: tf.Variable;
  /** The output head; the embedding itself when the two are tied. */
  readonly outputHead: tf.Variable;
  readonly layers: readonly LayerWeights[];

  /**
   * @param weights one array per parameter of `parameterShapes(shape)`; the values are copied
   * @throws UserError `artefact_mismatch` when a parameter is missing, unknown or of another size
   */
  constructor(shape: ModelShape, weights: ReadonlyMap<string, Float32Array>) {
    const shapes = parameterShapes(shape);
    checkWeights(shapes, weights);
    this.shape = shape;
    this.parameters = new Map(
      [...shapes].map(([name, dimensions]) => [name, makeVariable(weights.get(name)!, dimensions)]),
    );
    this.embedding = this.parameter(EMBEDDING);
    this.finalNorm = this.parameter(FINAL_NORM);
    this.outputHead = shape.tieEmbeddings ? this.embedding : this.parameter(OUTPUT_HEAD);
    this.layers = Array.from({ length: shape.numLayers }, (_, layer) => this.layerWeights(layer));
  }

  /** The values of all parameters, read back from the engine. */
  async weights(): Promise<Map<string, Float32Array>> {
    const weights = new Map<string, Float32Array>();
    for (const [name, variable] of this.parameters) {
      weights.set(name, Float32Array.from(await variable.data<'float32'>()));
    }
    return weights;
  }

  dispose(): void {
    for (const variable of this.parameters.values()) variable.dispose();
  }

  private parameter(name: string): tf.Variable {
    return this.parameters.get(name)!;
  }

  private layerWeights(layer: number): LayerWeights {
    const parameters = Object.keys(LAYER_PARAMETERS) as LayerParameter[];
    const entries = parameters.map((parameter) => [parameter, this.parameter(layerParameterName(layer, parameter))]);
    return Object.fromEntries(entries) as LayerWeights;
  }
}

/** tfjs wants variable names to be unique in the process, and two models may live at once: so they stay unnamed. */
function makeVariable(values: Float32Array, dimensions: number[]): tf.Variable {
  const initial = tf.tensor(Float32Array.from(values), dimensions, 'float32');
  const variable = tf.variable(initial);
  initial.dispose();
  return variable;
}

function checkWeights(shapes: ReadonlyMap<string, number[]>, weights: ReadonlyMap<string, Float32Array>): void {
  const problems: string[] = [];
  for (const [name, dimensions] of shapes) {
    const values = weights.get(name);
    if (!values) problems.push(`${name} is missing`);
    else if (values.length !== sizeOf(dimensions)) {
      problems.push(
        `${name} has ${values.length} values, the model [${dimensions.join(', ')}] needs ${sizeOf(dimensions)}`,
      );
    }
  }
  for (const name of weights.keys()) if (!shapes.has(name)) problems.push(`${name} is not a parameter of this model`);
  if (problems.length === 0) return;
  const shown = problems.slice(0, 5).join('; ');
  throw new UserError('artefact_mismatch', {
    where: 'model weights',
    what: problems.length > 5 ? `${shown}; and ${problems.length - 5} more` : shown,
    action: 'Use the configuration that the weights were trained with, or other weights.',
  });
}
