/** Picks what computes: which tfjs backend, and says why. */

import { createRequire } from 'node:module';
import type { EngineName } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import { physicalCores } from '../io/cores.ts';
import { findAddon } from './native/addon.ts';
import { openNative } from './native/native.ts';
import * as tf from './tf.ts';
import { installWasmMatMul } from './wasm_mat_mul.ts';

export type ConcreteEngine = Exclude<EngineName, 'auto'>;

export interface EngineInfo {
  /** The engine that computes from now on. */
  name: ConcreteEngine;
  /** Why this one. */
  reason: string;
  /** What was found out about each engine, best first. */
  available: { name: ConcreteEngine; ok: boolean; why: string }[];
}

interface Availability {
  ok: boolean;
  why: string;
}

interface Engine {
  name: ConcreteEngine;
  /** Looks without loading anything heavy. */
  find(): Availability;
  /** Makes it the tfjs backend. */
  open(threads: number): Promise<void>;
}

const TENSORFLOW_PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'] as const;
const require = createRequire(import.meta.url);

/** Best first; `auto` takes the first that is there. */
const ENGINES: readonly Engine[] = [
  { name: 'cuda', find: () => ({ ok: false, why: 'not available: this build has no CUDA addon' }), open: neverOpened },
  { name: 'native', find: findNative, open: openNative },
  { name: 'tensorflow', find: findTensorflow, open: openTensorflow },
  { name: 'wasm', find: () => ({ ok: true, why: 'TensorFlow.js WebAssembly, one thread' }), open: openWasm },
  { name: 'cpu', find: () => ({ ok: true, why: 'TensorFlow.js in plain JavaScript, slow' }), open: openCpu },
];

/**
 * Makes an engine the current tfjs backend.
 * @param choice an engine, or `auto` for the first one there in the order cuda, native, tensorflow, wasm, cpu
 * @param threads threads wanted, 0 for the engine's own choice; engines with a fixed number of threads ignore it
 * @throws UserError `engine_unavailable` when the chosen engine is not there or fails to start; never falls back silently
 */
export async function openEngine(choice: EngineName, threads: number): Promise<EngineInfo> {
  const available = ENGINES.map(({ name, find }) => ({ name, ...find() }));
  const index = available.findIndex(({ name, ok }) => (choice === 'auto' ? ok : name === choice));
  const engine = ENGINES[index];
  const found = available[index];
  if (!engine || !found?.ok) {
    throw new UserError('engine_unavailable', {
      where: `engine: ${choice}`,
      what: found?.why ?? 'no engine of this name',
      action: `Available here: ${usable(available)}. Or use engine: auto.`,
    });
  }
  try {
    await engine.open(threads);
  } catch (cause) {
    throw new UserError('engine_unavailable', {
      where: `engine: ${engine.name}`,
      what: `it is installed but does not start: ${cause instanceof Error ? cause.message : String(cause)}`,
      action: `Choose another engine (${usable(available)}) or repair this one.`,
      cause,
    });
  }
  const reason = choice === 'auto' ? `first available (${found.why})` : `chosen (${found.why})`;
  return { name: engine.name, reason, available };
}

function usable(available: EngineInfo['available']): string {
  return available
    .filter(({ ok }) => ok)
    .map(({ name }) => name)
    .join(', ');
}

function neverOpened(): Promise<void> {
  return Promise.reject(new Error('not available'));
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

async function openTensorflow(): Promise<void> {
  const name = TENSORFLOW_PACKAGES.find(isInstalled);
  if (name) await import(name);
  await setBackend('tensorflow');
}

async function openWasm(): Promise<void> {
  await import('@tensorflow/tfjs-backend-wasm');
  await setBackend('wasm');
  installWasmMatMul();
}

async function openCpu(): Promise<void> {
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
