/**
 * What the tests of the CUDA kernels share. Where no GPU is, the kernels run on an emulated device (native/cuda/emulator),
 * which shows their results, index arithmetic and barriers, not their speed. They have the names and arguments of those of
 * the native engine, so each is run on both with the same numbers.
 */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect } from 'vitest';
import { normalisedError } from '../../bench/gpu/compare.ts';
import { ADDON_PATH, type NativeAddon, type TensorValues } from '../../src/engine/native/addon.ts';
import { packHalf, unpackHalf } from '../../src/ops/half.ts';
import { PURPOSE, randomNormals } from '../../src/random.ts';

export const EMULATED_PATH = fileURLToPath(new URL('../../build/native/memory3_cuda_emulated.node', import.meta.url));
/** The addon under test: the emulated one, or what MEMORY3_TEST_CUDA names, so that the same tests run on a GPU. */
export const CUDA_PATH = process.env.MEMORY3_TEST_CUDA ?? EMULATED_PATH;
const built = existsSync(CUDA_PATH) && existsSync(ADDON_PATH);
/** Where the libraries of NVIDIA that tests stand in for are. */
export const FAKE_LIBRARIES = join(dirname(EMULATED_PATH), 'fake_cuda_libs');
if (basename(CUDA_PATH) === basename(EMULATED_PATH)) {
  process.env.MEMORY3_CUDA_LIBS = join(dirname(CUDA_PATH), 'fake_cuda_libs');
}

/** A suite that needs both addons. */
export const describeCuda: typeof describe.skip = built
  ? (describe as typeof describe.skip)
  : (((name: string, ...rest: unknown[]) =>
      (describe.skip as (...args: unknown[]) => void)(
        `${name} (not built: scripts/build_native.sh)`,
        ...rest,
      )) as typeof describe.skip);

export type Storage = 'float32' | 'bfloat16';
export const STORAGES: readonly Storage[] = ['float32', 'bfloat16'];
type Argument = number | boolean | TensorValues | Float32Array[] | number[];
type Handle = number;
/** A part of a tensor: elements `offset` to `offset + count`. */
type Part = [handle: Handle, offset: number, count: number];
type RawKernels = Record<string, (...args: unknown[]) => unknown>;

interface CudaAddon {
  open(device: number): string;
  openBlas(): string;
  allocate(count: number, type: number): Handle | null;
  /** Null when the memory of the device is full. */
  upload(values: TensorValues, type: number): Handle | null;
  release(handle: Handle): void;
  read<T extends TensorValues>(from: Handle | Part, target: T): Promise<T>;
  write(values: TensorValues, to: Handle | Part): void;
  usedBytes(): number;
  takePeakBytes(): number;
  close(): void;
}

const require = createRequire(import.meta.url);
let opened: (CudaAddon & RawKernels) | undefined;

/** The addon under test, opened. */
export function cudaAddon(): CudaAddon & RawKernels {
  if (!opened) {
    opened = require(CUDA_PATH) as CudaAddon & RawKernels;
    opened.open(0);
  }
  return opened;
}

/** The addon under test with cuBLASLt loaded and its workspace taken, which stays. @returns which cuBLASLt it is */
export function openBlas(): string {
  const addon = cudaAddon();
  const [a, b, out] = [addon.allocate(1, 0), addon.allocate(1, 0), addon.allocate(1, 0)];
  addon.matMul!(a, b, 1, 1, 1, false, false, out);
  for (const handle of [a, b, out]) addon.release(handle!);
  return addon.openBlas();
}

let native: (NativeAddon & RawKernels) | undefined;
function nativeAddon(): NativeAddon & RawKernels {
  if (!native) {
    native = require(ADDON_PATH) as NativeAddon & RawKernels;
    native.setThreads(2);
  }
  return native;
}

/** Standard normal numbers times `scale`. */
export const normals = (count: number, seed: number, scale = 1): Float32Array =>
  randomNormals(seed, PURPOSE.test, 0, count).map((value) => value * scale);

/** An array for a kernel to fill; what it does not write stays NaN. */
export const output = (length: number): Float32Array => new Float32Array(length).fill(Number.NaN);

/** The numbers as bfloat16 holds them. */
export const rounded = (values: Float32Array): Float32Array => unpackHalf(packHalf(values, 'bfloat16'), 'bfloat16');

/** How the addon names the types in which numbers are stored. */
export const TYPES = { float32: 0, int32: 1, bool: 2, bfloat16: 3 } as const;

function typeOf(values: TensorValues, storage: Storage): number {
  if (values instanceof Float32Array) return TYPES[storage];
  return values instanceof Int32Array ? TYPES.int32 : TYPES.bool;
}

const isArray = (argument: unknown): argument is TensorValues => ArrayBuffer.isView(argument);

export interface KernelCall {
  /** Name of the kernel in both addons. */
  name: string;
  /** As the native addon takes them; outputs are made by `output` or are integer arrays. */
  args: Argument[];
  /** Those of the arrays that the kernel writes. */
  outputs: TensorValues[];
  /** How float arrays are stored on the device. */
  storage: Storage;
  /** Float arrays that are float32 on the device in any case. */
  float32?: Float32Array[];
  /** Outputs that hold an input first. */
  inPlace?: Float32Array[];
  /** Elements that stand before and behind each array in its buffer; a kernel must neither touch them nor count on 0. */
  offset?: number;
}

const OUTSIDE = 7;

/** What is written into the buffer of an array: fill that must stay, the values, fill. */
function between(values: TensorValues, offset: number, given: boolean): TensorValues {
  const all = new (values.constructor as typeof Float32Array)(values.length + 2 * offset).fill(OUTSIDE);
  if (given) all.set(values, offset);
  return all;
}

/** What a kernel writes on the device, as float32 or integers. */
export async function runOnCuda({
  name,
  args,
  outputs,
  storage,
  float32 = [],
  inPlace = [],
  offset = 0,
}: KernelCall): Promise<TensorValues[]> {
  const addon = cudaAddon();
  const used = addon.usedBytes();
  const handles = new Map<TensorValues, Handle>();
  const allocate = (values: TensorValues): Handle => {
    const stored = float32.includes(values as Float32Array) ? 'float32' : storage;
    const handle = values.length === 0 ? 0 : addon.allocate(values.length + 2 * offset, typeOf(values, stored));
    if (handle === null) throw new Error('the memory of the device is full');
    const given = !outputs.includes(values) || inPlace.includes(values as Float32Array);
    if (handle !== 0 && (given || offset > 0)) addon.write(between(values, offset, given), handle);
    return handle;
  };
  const place = (values: TensorValues): Handle | Part => {
    const handle = handles.get(values) ?? allocate(values);
    handles.set(values, handle);
    return offset > 0 ? [handle, handle === 0 ? 0 : offset, values.length] : handle;
  };
  const readBack = async (values: TensorValues): Promise<TensorValues> => {
    if (values.length === 0) return values;
    const all = await addon.read(handles.get(values)!, between(values, offset, false));
    const last = all.length - offset;
    if (offset > 0) expect([...all.slice(0, offset), ...all.slice(last)]).toEqual(Array(2 * offset).fill(OUTSIDE));
    return offset > 0 ? all.slice(offset, last) : all;
  };
  const placed = args.map((argument) => {
    if (isArray(argument)) return place(argument);
    return Array.isArray(argument) && isArray(argument[0]) ? (argument as Float32Array[]).map(place) : argument;
  });
  try {
    addon[name]!(...placed);
    return await Promise.all(outputs.map(readBack));
  } finally {
    for (const handle of new Set(handles.values())) if (handle !== 0) addon.release(handle);
    expect(addon.usedBytes()).toBe(used);
  }
}

/** What the native engine's kernel writes for the same call; with bfloat16 storage, for the rounded inputs. */
export function runOnNative({ name, args, outputs, storage, float32 = [], inPlace = [] }: KernelCall): TensorValues[] {
  const addon = nativeAddon();
  const copies = new Map<TensorValues, TensorValues>();
  const copy = (values: TensorValues): TensorValues => {
    const halved = storage === 'bfloat16' && values instanceof Float32Array && !float32.includes(values);
    const given = !outputs.includes(values) || inPlace.includes(values as Float32Array);
    const made = copies.get(values) ?? (halved && given ? rounded(values) : values.slice());
    copies.set(values, made);
    return made;
  };
  const given = args.map((argument) => {
    if (isArray(argument)) return copy(argument);
    return Array.isArray(argument) && isArray(argument[0]) ? (argument as Float32Array[]).map(copy) : argument;
  });
  addon[name]!(...given);
  addon.wait();
  return outputs.map((values) => copies.get(values)!);
}

/** Largest normalised error that a kernel may make, by how numbers are stored. */
export const TOLERANCE: Record<Storage, number> = { float32: 1e-5, bfloat16: 1e-2 };

/** Expects the same bits; vitest's own comparison is slow for long arrays. */
function expectSame(actual: TensorValues, expected: TensorValues, what: string): void {
  const bytesOf = (values: TensorValues): Buffer => Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  if (!bytesOf(actual).equals(bytesOf(expected))) expect(actual, what).toEqual(expected);
}

/**
 * Runs a kernel on both engines and twice on the device: results agree within the tolerance, integers exactly, and both
 * runs give the same bits. Returns what the device wrote.
 */
export async function expectAsNative(call: KernelCall, tolerance = TOLERANCE[call.storage]): Promise<TensorValues[]> {
  const expected = runOnNative(call);
  const actual = await runOnCuda(call);
  const again = await runOnCuda(call);
  for (const [i, values] of actual.entries()) {
    expectSame(again[i]!, values, `output ${i} of ${call.name}, run twice`);
    if (values instanceof Float32Array) {
      expect(normalisedError(values, expected[i] as Float32Array), `output ${i} of ${call.name}`).toBeLessThan(
        tolerance,
      );
    } else expectSame(values, expected[i]!, `output ${i} of ${call.name}`);
  }
  return actual;
}

/** The same, and once more with each array in the midst of a buffer, at an address that no vector begins at. */
export async function expectAsNativeAnywhere(call: KernelCall, tolerance?: number): Promise<TensorValues[]> {
  await expectAsNative({ ...call, offset: 3 }, tolerance);
  return expectAsNative(call, tolerance);
}
