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

const single: Engine['precisions'] = ['float32'];

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
    precisions: single,
    find: findNative,
    open: async ({ threads }) => void (await openNative(threads)),
  },
  { name: 'tensorflow', precisions: single, find: findTensorflow, open: openTensorflow },
  {
    name: 'wasm',
    precisions: single,
    find: () => ({ ok: true, why: 'TensorFlow.js WebAssembly, one thread' }),
    open: openWasm,
  },
  {
    name: 'cpu',
    precisions: single,
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
  const found = ENGINES.map((engine) => ({ engine, ...engine.find() }));
  const available = found.map(({ engine: { name }, ok, why }) => ({ name, ok, why }));
  const missed = found.flatMap(({ engine: { name }, missed: is, why }) => (is ? [`${name} is ${why}`] : []));
  for (const [i, { engine, ok }] of found.entries()) {
    if (choice === 'auto' ? !ok || !hasPrecision(engine, precision) : engine.name !== choice) continue;
    if (!hasPrecision(engine, precision)) throw wrongPrecision(engine, precision);
    if (!ok) throw unavailable(choice, available[i]!.why, available);
    const used = precision === 'auto' ? engine.precisions[0] : precision;
    try {
      const opened = await engine.open({ threads, precision: used });
      available[i]!.why = opened ?? available[i]!.why;
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      available[i] = { name: engine.name, ok: false, why: `it is installed but does not start: ${why}` };
      if (choice !== 'auto') throw unavailable(choice, available[i].why, available, cause);
      missed.push(`${engine.name} does not start: ${why}`);
      continue;
    }
    const reason = [`${choice === 'auto' ? 'first available' : 'chosen'} (${available[i]!.why})`];
    if (choice === 'auto') reason.push(...missed);
    return { name: engine.name, precision: used, reason: reason.join('; '), available };
  }
  throw unavailable(choice, `no engine here computes in ${precision}: cuda is ${available[0]!.why}`, available);
}

const hasPrecision = ({ precisions }: Engine, precision: Precision): boolean =>
  precision === 'auto' || precisions.includes(precision);

function wrongPrecision({ name, precisions }: Engine, precision: Precision): UserError {
  return new UserError('config_invalid', {
    where: `precision: ${precision}`,
    what: `the engine ${name} computes in ${precisions.join(' or ')} only`,
    action: `Use precision: auto or ${precisions[0]}, or engine: cuda on a machine with a GPU.`,
  });
}

function unavailable(choice: EngineName, what: string, available: EngineInfo['available'], cause?: unknown): UserError {
  return new UserError('engine_unavailable', {
    where: `engine: ${choice}`,
    what,
    action: `Available here: ${usable(available)}. Repair it, choose one of these, or use engine: auto.`,
    cause,
  });
}

function usable(available: EngineInfo['available']): string {
  return available
    .filter(({ ok }) => ok)
    .map(({ name }) => name)
    .join(', ');
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
