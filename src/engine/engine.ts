/** Picks what computes: which tfjs backend, and says why. */

import { createRequire } from 'node:module';
import type { EngineName, Precision } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import { physicalCores } from '../io/cores.ts';
import { openCuda } from './cuda/cuda.ts';
import { findCuda } from './cuda/find.ts';
import { findAddon } from './native/addon.ts';
import { openNative } from './native/native.ts';
import * as tf from './tf.ts';
import { installWasmMatMul } from './wasm_mat_mul.ts';

export type ConcreteEngine = Exclude<EngineName, 'auto'>;
export type ConcretePrecision = Exclude<Precision, 'auto'>;

export interface EngineInfo {
  /** The engine that computes from now on. */
  name: ConcreteEngine;
  /** How it stores activations. */
  precision: ConcretePrecision;
  /** Why this one. */
  reason: string;
  /** What was found out about each engine, best first. */
  available: { name: ConcreteEngine; ok: boolean; why: string }[];
}

interface Availability {
  ok: boolean;
  why: string;
  /** Something is there that people would expect to be used, but it cannot be: `auto` says why. */
  missed?: boolean;
}

interface Settings {
  threads: number;
  precision: ConcretePrecision;
}

interface Engine {
  name: ConcreteEngine;
  /** Of activations, the usual one first. */
  precisions: readonly [ConcretePrecision, ...ConcretePrecision[]];
  /** Looks without loading anything heavy. */
  find(): Availability;
  /** Makes it the tfjs backend; may tell more about it than `find`. */
  open(settings: Settings): Promise<string | undefined>;
}

const TENSORFLOW_PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'] as const;
const require = createRequire(import.meta.url);

const FLOAT32: Engine['precisions'] = ['float32'];

/** Best first; `auto` takes the first that is there. */
const ENGINES: readonly Engine[] = [
  {
    name: 'cuda',
    precisions: ['bfloat16', 'float32'],
    find: findCuda,
    open: async ({ precision }) => await openCuda(precision),
  },
  {
    name: 'native',
    precisions: FLOAT32,
    find: findNative,
    open: async ({ threads }) => void (await openNative(threads)),
  },
  { name: 'tensorflow', precisions: FLOAT32, find: findTensorflow, open: openTensorflow },
  {
    name: 'wasm',
    precisions: FLOAT32,
    find: () => ({ ok: true, why: 'TensorFlow.js WebAssembly, one thread' }),
    open: openWasm,
  },
  {
    name: 'cpu',
    precisions: FLOAT32,
    find: () => ({ ok: true, why: 'TensorFlow.js in plain JavaScript, slow' }),
    open: openCpu,
  },
];

/**
 * Makes an engine the current tfjs backend.
 * @param choice an engine, or `auto` for the first one there in the order cuda, native, tensorflow, wasm, cpu that has the
 *   precision; one that is there but does not start is passed over then, and `reason` says so
 * @param threads threads wanted, 0 for the engine's own choice; engines with a fixed number of threads ignore it
 * @param precision of activations, `auto` for the engine's usual one
 * @throws UserError `engine_unavailable` when the chosen engine is not there or fails to start; never falls back silently;
 *   `config_invalid` when it does not have the precision
 */
export async function openEngine(
  choice: EngineName,
  threads: number,
  precision: Precision = 'auto',
): Promise<EngineInfo> {
  const found: Found[] = ENGINES.map((engine) => ({ engine, ...engine.find() }));
  for (const candidate of candidates(found, choice, precision)) {
    const { engine } = candidate;
    const settings = { threads, precision: precision === 'auto' ? engine.precisions[0] : precision };
    try {
      candidate.why = (await engine.open(settings)) ?? candidate.why;
      return { name: engine.name, precision: settings.precision, ...told(found, candidate, choice) };
    } catch (cause) {
      const what = cause instanceof Error ? cause.message : String(cause);
      Object.assign(candidate, { ok: false, missed: true, why: `it is installed but does not start: ${what}` });
      if (choice !== 'auto') throw unavailable(choice, candidate.why, found, cause);
    }
  }
  throw withoutPrecision(found, precision);
}

/** An engine and what was found out about it. */
type Found = Availability & { engine: Engine };

const suits = ({ precisions }: Engine, precision: Precision): boolean =>
  precision === 'auto' || precisions.includes(precision);

/** What to open, best first. @throws UserError when the engine that was chosen cannot be */
function candidates(found: Found[], choice: EngineName, precision: Precision): Found[] {
  if (choice === 'auto') return found.filter(({ ok, engine }) => ok && suits(engine, precision));
  const chosen = found.filter(({ engine: { name } }) => name === choice);
  for (const candidate of chosen) {
    if (!suits(candidate.engine, precision)) throw wrongPrecision(candidate.engine, precision);
    if (!candidate.ok) throw unavailable(choice, candidate.why, found);
  }
  return chosen;
}

function told(found: Found[], { why }: Found, choice: EngineName): Pick<EngineInfo, 'reason' | 'available'> {
  const missed = choice === 'auto' ? found.filter((other) => other.missed) : [];
  const reasons = [
    `${choice === 'auto' ? 'first available' : 'chosen'} (${why})`,
    ...missed.map(({ engine, why: problem }) => `${engine.name}: ${problem}`),
  ];
  return {
    reason: reasons.join('; '),
    available: found.map(({ engine: { name }, ok, why: of }) => ({ name, ok, why: of })),
  };
}

function withoutPrecision(found: Found[], precision: Precision): UserError {
  const able = found.filter(({ engine }) => suits(engine, precision));
  return new UserError('engine_unavailable', {
    where: `precision: ${precision}`,
    what: `nothing here computes so; ${able.map(({ engine: { name }, why }) => `${name}: ${why}`).join('; ')}`,
    action: 'Repair what is missing, or use precision: auto, which takes what an engine that is here computes in.',
  });
}

function wrongPrecision({ name, precisions }: Engine, precision: Precision): UserError {
  return new UserError('config_invalid', {
    where: `precision: ${precision}`,
    what: `the engine ${name} computes in ${precisions.join(' or ')} only`,
    action: `Use precision: auto or ${precisions[0]}, or engine: cuda on a machine with a GPU.`,
  });
}

function unavailable(choice: EngineName, what: string, found: Found[], cause?: unknown): UserError {
  const usable = found.filter(({ ok }) => ok).map(({ engine: { name } }) => name);
  return new UserError('engine_unavailable', {
    where: `engine: ${choice}`,
    what,
    action: `Available here: ${usable.join(', ')}. Choose one of these, use engine: auto, or repair it.`,
    cause,
  });
}

function findNative(): Availability {
  const found = findAddon();
  return 'addon' in found
    ? { ok: true, why: `C++ kernels, ${count(physicalCores(), 'physical core')}, ${found.addon.describe()}` }
    : { ok: false, why: `not available: the addon ${found.why}; training takes 10 to 15 times as long without` };
}

const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`;

function findTensorflow(): Availability {
  const name = TENSORFLOW_PACKAGES.find(isInstalled);
  return name
    ? { ok: true, why: `libtensorflow through ${name}` }
    : { ok: false, why: `not available: neither ${TENSORFLOW_PACKAGES.join(' nor ')} is installed` };
}

function isInstalled(name: string): boolean {
  try {
    require.resolve(name);
    return true;
  } catch {
    return false;
  }
}

async function openTensorflow(): Promise<undefined> {
  const name = TENSORFLOW_PACKAGES.find(isInstalled);
  if (name) await import(name);
  await setBackend('tensorflow');
}

async function openWasm(): Promise<undefined> {
  await import('@tensorflow/tfjs-backend-wasm');
  await setBackend('wasm');
  installWasmMatMul();
}

async function openCpu(): Promise<undefined> {
  await setBackend('cpu');
  // The cpu backend greets its first tensor with an advertisement for tfjs-node; production mode keeps it quiet.
  const production = tf.env().getBool('PROD');
  tf.env().set('PROD', true);
  tf.scalar(0).dispose();
  tf.env().set('PROD', production);
}

async function setBackend(name: string): Promise<void> {
  if (!(await tf.setBackend(name))) throw new Error(`tfjs could not initialise its backend '${name}'`);
  await tf.ready();
}
