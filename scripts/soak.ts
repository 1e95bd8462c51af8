/**
 * Trains many small steps and watches what must stay flat: memory of the process, number of tensors, and for how long
 * JavaScript is kept from its events. Fails when one of them does not.
 *
 * usage: npx tsx scripts/soak.ts [--steps 5000] [--engine native] [--hidden 32] [--layers 2] [--max-block 50]
 */

import { parseArgs } from 'node:util';
import { openEngine } from '../src/engine/engine.ts';
import * as tf from '../src/engine/tf.ts';
import { encodeReferences } from '../src/model/encode.ts';
import { Model } from '../src/model/model.ts';
import { initParameters, type ModelShape } from '../src/model/shape.ts';
import { lossAndGradients, type OnlineReferences } from '../src/model/training.ts';
import { AdamW } from '../src/optim/adamw.ts';
import { clipAndUpdate, disposeGradients } from '../src/optim/update.ts';

const { values: options } = parseArgs({
  options: {
    steps: { type: 'string', default: '5000' },
    engine: { type: 'string', default: 'native' },
    hidden: { type: 'string', default: '32' },
    layers: { type: 'string', default: '2' },
    'max-block': { type: 'string', default: '50' },
  },
});
const steps = Number(options.steps);
const maxBlock = Number(options['max-block']);
const engine = (['native', 'wasm', 'cpu'] as const).find((name) => name === options.engine);
if (!engine || !(steps >= 10) || !(maxBlock > 0))
  throw new Error('--engine, --steps (10 or more) or --max-block is wrong');

const BATCH = 4;
const TOKENS = 48;
const REFERENCES = 6;
const REFERENCE_TOKENS = 20;
/**
 * By how much the memory may grow from the second fifth of the steps to the last. The least of each fifth counts: what the
 * garbage collector has not got round to comes and goes.
 */
const GROWTH = { share: 0.03, bytes: 8 * 2 ** 20 };
const FIFTHS = 5;
const rule = { prefixLength: 2, keptTokens: 6, tokenScores: 'softmax' as const };

const hiddenSize = Number(options.hidden);
const numLayers = Number(options.layers);
const shape: ModelShape = {
  ...{ numLayers, hiddenSize, numHeads: 4, kvHeads: 2, headDim: hiddenSize / 4, mlpWidth: 2 * hiddenSize },
  ...{ memoryLayers: numLayers, vocabSize: 200, ropeTheta: 10_000, normEpsilon: 1e-5, tieEmbeddings: false },
  ...{ init: 'depth', initStd: 0.05, embeddingStd: 0.5 },
};

const tokens = (count: number, step: number): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => ((i + step) * (i + 31)) % shape.vocabSize);

const referencesOf = (step: number): Pick<OnlineReferences, 'ids' | 'lengths'> => ({
  ids: tokens(REFERENCES * REFERENCE_TOKENS, step),
  lengths: new Int32Array(REFERENCES).fill(REFERENCE_TOKENS),
});

async function trainStep(model: Model, optimizer: AdamW, step: number): Promise<void> {
  const ids = tokens(BATCH * TOKENS, step);
  const slots = Int32Array.from({ length: BATCH * 6 }, (_, i) => i % REFERENCES);
  const index = tf.tensor3d(slots, [BATCH, 3, 2], 'int32');
  const onlineReferences = step % 2 ? { ...referencesOf(step), ...rule, index, start: 0, chunkLength: 16 } : undefined;
  const positions = Int32Array.from({ length: TOKENS }, (_, i) => i + REFERENCE_TOKENS);
  const batch = { ids, targets: ids, positions, ...(onlineReferences && { onlineReferences }) };
  const { gradients, count } = await lossAndGradients(model, batch);
  await clipAndUpdate(optimizer, gradients, { learningRate: 1e-3, clipNorm: 1, tokens: count });
  disposeGradients(gradients);
  index.dispose();
}

async function compile(model: Model, step: number): Promise<void> {
  const { ids, lengths } = referencesOf(step);
  const { keys, values, indices } = encodeReferences(model, ids, lengths, rule);
  await Promise.all([...keys, ...values].map((tensor) => tensor.data()));
  tf.dispose([...keys, ...values, ...indices]);
}

await openEngine(engine, 0);
const model = new Model(shape, initParameters(shape, 1));
const optimizer = new AdamW(model.parameters, {
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0.1,
  clipNorm: 1,
});

let longestBlock = 0;
let lastTurn = performance.now();
const timer = setInterval(() => {
  longestBlock = Math.max(longestBlock, performance.now() - lastTurn);
  lastTurn = performance.now();
}, 2);

const fifth = Math.ceil(steps / FIFTHS);
/** Of each fifth of the steps. */
const least = Array.from({ length: FIFTHS }, () => ({ rss: Number.POSITIVE_INFINITY, tensors: 0 }));
for (let step = 1; step <= steps; step++) {
  await trainStep(model, optimizer, step);
  if (step % 50 === 0) await compile(model, step);
  const window = least[Math.floor((step - 1) / fifth)]!;
  window.rss = Math.min(window.rss, process.memoryUsage.rss());
  window.tensors = tf.memory().numTensors;
  // The first steps compile functions and fill pools.
  if (step <= Math.min(50, fifth)) longestBlock = 0;
  if (step % fifth === 0 || step === steps) {
    const { rss, tensors } = window;
    const mib = (rss / 2 ** 20).toFixed(1);
    console.log(`step ${step}: ${mib} MiB at least, ${tensors} tensors, longest block ${longestBlock.toFixed(1)} ms`);
  }
}
clearInterval(timer);

const [early, late] = [least[1]!, least[FIFTHS - 1]!];
const failures = [
  ...(late.tensors > early.tensors ? [`tensors grew from ${early.tensors} to ${late.tensors}`] : []),
  ...(late.rss > early.rss * (1 + GROWTH.share) + GROWTH.bytes
    ? [`memory grew from ${early.rss} to ${late.rss} bytes`]
    : []),
  ...(longestBlock > maxBlock ? [`the event loop stood still for ${longestBlock.toFixed(1)} ms`] : []),
];
console.log(failures.length > 0 ? `soak: FAILED: ${failures.join('; ')}` : `soak: passed, ${steps} steps`);
process.exitCode = failures.length > 0 ? 1 : 0;
