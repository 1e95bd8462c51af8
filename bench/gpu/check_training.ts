/** Training on the CUDA engine: beside the native engine, at the paper's shape, over a checkpoint, and with bad input. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadCheckpoint, saveCheckpoint } from '../../src/checkpoint/checkpoint.ts';
import type { NamedArray } from '../../src/checkpoint/safetensors.ts';
import type { CudaBackend, CudaPrecision } from '../../src/engine/cuda/backend.ts';
import { openCuda } from '../../src/engine/cuda/cuda.ts';
import { openEngine } from '../../src/engine/engine.ts';
import * as tf from '../../src/engine/tf.ts';
import { UserError } from '../../src/errors.ts';
import { EMBEDDING, initParameters } from '../../src/model/shape.ts';
import { attention, embedding } from '../../src/ops/index.ts';
import { caseOf, type GpuCase, type Kind, Steps } from './cases.ts';
import { firstLine } from './check_operations.ts';
import { type Finding, sameBits } from './compare.ts';

type Report = (finding: Finding) => void;

/** Largest relative difference of a loss from that of the native engine in so many steps. */
const LOSS_TOLERANCE: Record<CudaPrecision, number> = { float32: 1e-3, bfloat16: 2e-2 };

/** A small model with every part, as the tests train it. */
function smallCase(): GpuCase {
  const given = caseOf('tiny');
  return { ...given, shape: { ...given.shape, hiddenSize: 64, mlpWidth: 96, vocabSize: 256 }, tokens: 48 };
}

const cudaBackend = (): CudaBackend => tf.backend() as CudaBackend;

/** The same steps on the native engine, on CUDA in float32 and in bfloat16; on CUDA twice. */
export async function checkTraining(steps: number, kinds: readonly Kind[], report: Report): Promise<void> {
  await openCuda('float32'); // without a GPU nothing is worth computing
  for (const kind of kinds) {
    await openEngine('native', 0);
    const expected = await train(kind, steps);
    for (const precision of ['float32', 'bfloat16'] as const) {
      const about = { part: `${steps} steps, ${precision}`, name: kind };
      try {
        await openCuda(precision);
        const actual = await train(kind, steps);
        // The first run leaves what the engine keeps for good, such as the workspace of products.
        const before = { tensors: tf.memory().numTensors, bytes: cudaBackend().kernels.usedBytes() };
        const again = await train(kind, steps);
        const after = { tensors: tf.memory().numTensors, bytes: cudaBackend().kernels.usedBytes() };
        const value = Math.max(...actual.losses.map((loss, i) => Math.abs(loss / expected.losses[i]! - 1)));
        const limit = LOSS_TOLERANCE[precision];
        report({ ...about, ok: value <= limit, value, limit, note: `last loss ${actual.losses.at(-1)!.toFixed(4)}` });
        report({ ...about, name: `${kind}: two runs give the same bits`, ok: sameBits(actual.weights, again.weights) });
        report({
          ...about,
          name: `${kind}: nothing is left`,
          ok: after.tensors === before.tensors && after.bytes === before.bytes,
          note: `${after.tensors - before.tensors} tensors, ${after.bytes - before.bytes} bytes`,
        });
      } catch (error) {
        report({ ...about, ok: false, note: firstLine(error) });
      }
    }
  }
}

async function train(kind: Kind, steps: number): Promise<{ losses: number[]; weights: Float32Array }> {
  const training = new Steps(smallCase());
  const losses: number[] = [];
  for (let seed = 0; seed < steps; seed++) losses.push((await training.step(kind, { seed, learningRate: 1e-3 })).loss);
  const weights = joined(await training.model.weights());
  training.dispose();
  return { losses, weights };
}

function joined(arrays: ReadonlyMap<string, Float32Array>): Float32Array {
  const all = new Float32Array([...arrays.values()].reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const values of arrays.values()) {
    all.set(values, at);
    at += values.length;
  }
  return all;
}

/** Forward, backward and update of a large model, with each way of reading; again over fewer activations when memory ends. */
export async function checkShape(name: string, kinds: readonly Kind[], report: Report): Promise<void> {
  const given = caseOf(name);
  await openCuda('bfloat16');
  const steps = new Steps(given);
  const uniform = Math.log(given.shape.vocabSize);
  let before = Number.POSITIVE_INFINITY;
  for (const kind of kinds) {
    const about = { part: `${given.what}, bfloat16`, name: `${kind}: two steps` };
    try {
      const run = async (recompute: boolean) => [
        await steps.step(kind, { recompute }),
        await steps.step(kind, { recompute }),
      ];
      const { result, recompute } = await withFewestRecomputed(run);
      const losses = result.map(({ loss }) => loss);
      // At the start a model knows nothing; each step on the same text makes it better.
      const starts = before === Number.POSITIVE_INFINITY ? Math.abs(losses[0]! - uniform) < 2 : true;
      const ok = starts && losses[1]! < losses[0]! && result.every(({ gradientNorm }) => gradientNorm > 0);
      before = losses[1]!;
      const { free, total } = cudaBackend().kernels.memoryInfo();
      const shown = losses.map((loss) => loss.toFixed(3)).join(' → ');
      const again = recompute ? ', blocks run again' : '';
      const note = `loss ${shown} (ln V ${uniform.toFixed(3)}), ${gib(total - free)} of ${gib(total)} GiB${again}`;
      report({ ...about, ok, note });
    } catch (error) {
      report({ ...about, ok: false, note: firstLine(error) });
    }
  }
  steps.dispose();
}

const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);

/** Keeps all activations; when the device's memory is full, runs blocks again in the backward pass. */
export async function withFewestRecomputed<T>(
  run: (recompute: boolean) => Promise<T>,
): Promise<{ result: T; recompute: boolean }> {
  const before = tf.memory().numTensors;
  try {
    return { result: await run(false), recompute: false };
  } catch (error) {
    if (!(error instanceof UserError) || error.code !== 'device_memory') throw error;
    console.error(`all activations do not fit: ${firstLine(error)}`);
  }
  const left = tf.memory().numTensors - before;
  if (left > 0) console.error(`${left} tensors are left of the step that failed`);
  return { result: await run(true), recompute: true };
}

/** Two steps in one go, and one step, a checkpoint on disk and another step in a new model: the same bits. */
export async function checkResume(name: string, precision: CudaPrecision, report: Report): Promise<void> {
  const given = caseOf(name);
  const small = {
    ...given,
    shape: { ...given.shape, numLayers: 2, memoryLayers: 1, vocabSize: Math.min(8192, given.shape.vocabSize) },
  };
  const about = { part: `${given.what}, 2 blocks, ${precision}`, name: 'resumed from a checkpoint, the same bits' };
  const folder = await mkdtemp(join(process.env.MEMORY3_CHECK_FOLDER ?? tmpdir(), 'memory3-check-'));
  try {
    await openCuda(precision);
    const whole = new Steps(small);
    await whole.step('bank', { seed: 0 });
    const { path } = await saveCheckpoint(folder, 1, {
      parameters: await parametersOf(whole),
      optimizer: await whole.optimizer.state(),
      state: stateOf(small),
    });
    await whole.step('bank', { seed: 1 });
    const expected = await stateArrays(whole);
    whole.dispose();
    const saved = await loadCheckpoint(path);
    const resumed = new Steps(small, new Map([...saved.parameters].map(([key, { data }]) => [key, data])));
    resumed.optimizer.load(saved.optimizer);
    await resumed.step('bank', { seed: 1 });
    const actual = await stateArrays(resumed);
    resumed.dispose();
    const different = [...expected].filter(([key, values]) => !sameBits(values, actual.get(key)!)).map(([key]) => key);
    report({ ...about, ok: different.length === 0, note: different.slice(0, 3).join(', ') });
  } catch (error) {
    report({ ...about, ok: false, note: firstLine(error) });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function parametersOf({ model }: Steps): Promise<Map<string, NamedArray>> {
  const weights = await model.weights();
  return new Map([...weights].map(([name, data]) => [name, { shape: model.parameters.get(name)!.shape, data }]));
}

async function stateArrays(steps: Steps): Promise<Map<string, Float32Array>> {
  const moments = [...(await steps.optimizer.state())].map(([name, { data }]) => [name, data] as const);
  return new Map([...(await steps.model.weights()), ...moments]);
}

function stateOf({ shape }: GpuCase): Parameters<typeof saveCheckpoint>[2]['state'] {
  const hashes = { tokenizerHash: 'none', datasetHash: 'none' };
  return { stage: 'continual', tokensSeen: 0, modelConfig: shape, ...hashes, metricsRows: {}, config: {} };
}

/** What is wrong is refused or becomes an error, and the engine goes on. */
export async function checkErrors(report: Report): Promise<void> {
  await openCuda('bfloat16');
  const part = 'bad input';
  const expectError = async (name: string, wanted: RegExp, run: () => Promise<void>): Promise<void> => {
    let note = 'no error';
    try {
      await run();
    } catch (error) {
      note = firstLine(error);
    }
    report({ part, name, ok: wanted.test(note), note });
  };
  await expectError('a token that is not in the vocabulary', /token|id|range|row/i, async () => {
    const weight = tf.zeros([8, 16]);
    const ids = tf.tensor1d([1, 8], 'int32');
    const out = tf.tidy(() => embedding(ids, weight));
    try {
      await out.data();
    } finally {
      tf.dispose([weight, ids, out]);
    }
  });
  await expectError('a head dimension that is not supported', /head|dim/i, async () => {
    tf.tidy(() => attention(tf.zeros([1, 4, 2, 12]), tf.zeros([1, 4, 2, 12]), tf.zeros([1, 4, 2, 12])).out.dataSync());
  });
  await expectError('a tensor larger than the device', /memory of the GPU is full|needs \d+/, async () => {
    tf.tidy(() => tf.fill([2 ** 20, 2 ** 20], 0).dataSync());
  });
  await refusesNaN(report);
}

/** A step whose loss is not a number leaves parameters and optimiser as they were. */
async function refusesNaN(report: Report): Promise<void> {
  const about = { part: 'bad input', name: 'a loss that is not a number changes nothing' };
  try {
    const given = caseOf('tiny');
    const weights = initParameters(given.shape, 1);
    weights.get(EMBEDDING)![13 * given.shape.hiddenSize] = Number.NaN; // the row of the first token
    const steps = new Steps(given, weights);
    const before = joined(await steps.model.weights());
    const { loss, gradientNorm } = await steps.step('warmup');
    const same = sameBits(joined(await steps.model.weights()), before) && steps.optimizer.stepCount === 0;
    steps.dispose();
    report({ ...about, ok: same && Number.isNaN(loss) && Number.isNaN(gradientNorm), note: `loss ${loss}` });
  } catch (error) {
    report({ ...about, ok: false, note: firstLine(error) });
  }
}
