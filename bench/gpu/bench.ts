/**
 * `bench PARTS [options]` measures the CUDA engine and prints a line of JSON for each figure, as bench/peers/gpu/measure.py
 * does; `bench table FILE` prints the figures of both sides beside what must be reached. Used by scripts/gpu/bench.sh.
 *
 * Legend: B batch, T tokens, H query heads, K key-value heads, D headDim, M memories, S kept tokens.
 */

import { parseArgs } from 'node:util';
import type { CudaBackend, CudaPrecision } from '../../src/engine/cuda/backend.ts';
import { openCuda } from '../../src/engine/cuda/cuda.ts';
import * as tf from '../../src/engine/tf.ts';
import { type AttentionMemory, attention, embedding, linear } from '../../src/ops/index.ts';
import { caseOf, type GpuCase, type Kind, range, Steps } from './cases.ts';
import { firstLine } from './check_operations.ts';
import { withFewestRecomputed } from './check_training.ts';
import { type Figure, median, printLine, quantile } from './compare.ts';
import { printFigures } from './table.ts';

const USAGE = `usage: bench PART,… [--shape NAME] [--precision bfloat16|float32] [--runs N] [--recompute]
       bench table FILE

parts: warmup, bank, online (steps), attention, gemm, profile (a warmup step by kernels)

examples:
  bench warmup,bank,online,profile --shape paper --runs 5
  bench profile --shape half
  bench table figures.jsonl
`;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    shape: { type: 'string', default: 'paper' },
    precision: { type: 'string', default: 'bfloat16' },
    runs: { type: 'string', default: '5' },
    warmups: { type: 'string', default: '2' },
    recompute: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

const runs = Number(options.runs);
const warmups = Number(options.warmups);
const backend = (): CudaBackend => tf.backend() as CudaBackend;
let device = '';
let failed = false;

function add(name: string, variant: string, figure: Partial<Figure>): void {
  printLine({ side: 'memory3', device, case: name, variant, ...figure });
}

function spread(seconds: readonly number[]): Pick<Figure, 'median' | 'quartiles' | 'runs'> {
  return {
    median: median(seconds),
    quartiles: [quantile(seconds, 0.25), quantile(seconds, 0.75)],
    runs: seconds.length,
  };
}

/** Whole steps by the clock of the host: each reads the loss and the norm of the gradient, so it has ended on the device. */
async function measureSteps(given: GpuCase, steps: Steps, kind: Kind): Promise<void> {
  const { kernels } = backend();
  const measure = async (recompute: boolean): Promise<Partial<Figure>> => {
    const first = await steps.step(kind, { recompute });
    for (let i = 0; i < warmups; i++) await steps.step(kind, { recompute });
    const seconds: number[] = [];
    kernels.takePeakBytes();
    for (let i = 0; i < runs; i++) {
      const start = performance.now();
      await steps.step(kind, { recompute });
      kernels.wait();
      seconds.push((performance.now() - start) / 1000);
    }
    const { free, total } = kernels.memoryInfo();
    const tokensPerSecond = (given.batch * given.tokens) / median(seconds);
    const recomputed = recompute ? given.shape.numLayers : 0;
    return {
      ...spread(seconds),
      tokensPerSecond,
      deviceBytes: total - free,
      peakBytes: kernels.takePeakBytes(),
      totalBytes: total,
      recomputed,
      ...first,
    };
  };
  add(kind, options.precision, options.recompute ? await measure(true) : (await withFewestRecomputed(measure)).result);
}

/** The same numbers, stored as activations are. */
function activation(shape: [number, number, number, number]): tf.Tensor4D {
  return tf.tidy(() => {
    const rows = shape[0] * shape[1] * shape[2];
    const table = tf.randomNormal([rows, shape[3]], 0, 1, 'float32', 7);
    return embedding(tf.tensor1d(range(rows), 'int32'), table).reshape(shape);
  });
}

/** Kernel time on the device of each run of `f`, of the kernels whose names begin so. */
function deviceSeconds(f: () => void, names: string, count: number): number[] {
  const { kernels } = backend();
  for (let i = 0; i < warmups + 3; i++) f();
  kernels.wait();
  kernels.profile(true);
  kernels.takeProfile();
  const seconds = Array.from({ length: count }, () => {
    f();
    const own = kernels.takeProfile().filter(({ name }) => name.startsWith(names));
    return own.reduce((sum, kernel) => sum + kernel.seconds, 0);
  });
  kernels.profile(false);
  return seconds;
}

/** Forward and backward of one layer, without memories, with five a chunk, and with these and their gradient. */
function measureAttention({ shape, batch, tokens, perChunk, keptTokens, chunkLength }: GpuCase): void {
  const { numHeads, kvHeads, headDim } = shape;
  const inputs = [numHeads, kvHeads, kvHeads].map((heads) => activation([batch, tokens, heads, headDim]));
  const dy = activation([batch, tokens, numHeads, headDim]);
  const chunks = tokens / chunkLength;
  const count = batch * chunks * perChunk;
  const [keys, values] = [0, 1].map(() => activation([count, kvHeads, keptTokens, headDim])) as [tf.Tensor, tf.Tensor];
  const lengths = tf.fill([count], keptTokens, 'int32');
  const index = tf.tensor3d(range(count), [batch, chunks, perChunk], 'int32');
  const memory: AttentionMemory = { keys, values, lengths, index, start: 0, chunkLength, gradient: false };
  const variants: [string, (q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, ...kv: tf.Tensor[]) => tf.Tensor, tf.Tensor[]][] =
    [
      ['plain', (q, k, v) => attention(q, k, v).out, inputs],
      ['memory', (q, k, v) => attention(q, k, v, memory).out, inputs],
      [
        'memory-gradient',
        (q, k, v, ks, vs) => attention(q, k, v, { ...memory, keys: ks!, values: vs!, gradient: true }).out,
        [...inputs, keys, values],
      ],
    ];
  for (const [variant, forward, given] of variants) {
    const both = (): void => tf.tidy(() => void tf.grads(forward as (...x: tf.Tensor[]) => tf.Tensor)(given, dy));
    const only = (): void => tf.tidy(() => void forward(...(given as [tf.Tensor, tf.Tensor, tf.Tensor])));
    const seconds = deviceSeconds(both, 'attention', Math.max(runs, 20));
    add('attention', variant, { ...spread(seconds), forward: median(deviceSeconds(only, 'attention', runs)) });
  }
  tf.dispose([...inputs, dy, keys, values, lengths, index]);
}

/** Products through the engine, beside those of the peer. */
function measureProducts(small: boolean): void {
  for (const [m, n, k] of small
    ? [[64, 64, 64]]
    : [
        [8192, 8192, 8192],
        [8192, 16384, 4096],
        [8192, 3200, 6400],
      ]) {
    const x = activation([1, 1, m!, k!]).reshape<tf.Tensor2D>([m!, k!]);
    const weight = tf.randomNormal<tf.Rank.R2>([n!, k!], 0, 1, 'float32', 8);
    const seconds = deviceSeconds(() => tf.tidy(() => void linear(x, weight)), 'linear', 20);
    add('gemm', `${m}x${n}x${k}`, { ...spread(seconds), flopsPerSecond: (2 * m! * n! * k!) / median(seconds) });
    tf.dispose([x, weight]);
  }
}

/** A warmup step by kernels. */
async function profile(steps: Steps): Promise<void> {
  const { kernels } = backend();
  await withFewestRecomputed(async (fallback) => {
    const recompute = fallback || options.recompute;
    for (let i = 0; i < 2; i++) await steps.step('warmup', { recompute });
    kernels.takeProfile();
    kernels.profile(true);
    const start = performance.now();
    await steps.step('warmup', { recompute });
    const profiled = kernels.takeProfile();
    kernels.profile(false);
    add('profile', options.precision, { step: (performance.now() - start) / 1000, kernels: profiled });
  });
}

/** Made once for all parts that train. */
let model: Steps | undefined;

async function run(part: string, given: GpuCase): Promise<void> {
  switch (part) {
    case 'warmup':
    case 'bank':
    case 'online':
      model ??= new Steps(given);
      return await measureSteps(given, model, part);
    case 'profile':
      model ??= new Steps(given);
      return await profile(model);
    case 'attention':
      return measureAttention(given);
    case 'gemm':
      return measureProducts(options.shape === 'tiny');
    default:
      throw new Error(USAGE);
  }
}

async function runAll(parts: readonly string[]): Promise<void> {
  const given = caseOf(options.shape);
  for (const part of parts) {
    try {
      device = await openCuda(options.precision as CudaPrecision);
      await run(part, given);
    } catch (error) {
      console.error(error);
      add(part, options.precision, { error: firstLine(error) });
      failed = true;
    }
  }
  model?.dispose();
}

const [parts = '', file = ''] = positionals;
if (options.help) console.log(USAGE);
else if (parts === 'table') failed = !printFigures(file, options.shape);
else await runAll(parts.split(','));
if (failed) process.exitCode = 1;
