/** Numbers on their way to the device and back: order, lifetimes, memory. */

import { execFileSync } from 'node:child_process';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { CUDA_PATH, cudaAddon, describeCuda, rounded, TYPES } from './support.ts';

let used = 0;
beforeEach(() => {
  used = cudaAddon().usedBytes();
});
afterEach(() => {
  expect(cudaAddon().usedBytes()).toBe(used);
});

/** More than the two blocks of 32 MiB that uploads go through, and no multiple of one. */
const MANY = 2 ** 24 + 5;

const floats = (length: number, seed: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => Math.sin(seed + 1.7 * i));

const read = (handle: number, length: number): Promise<Float32Array> =>
  cudaAddon().read(handle, new Float32Array(length).fill(Number.NaN));

describeCuda('upload', () => {
  it('brings each type as it is stored', async () => {
    const addon = cudaAddon();
    const values = floats(1000, 1);
    const halves = addon.upload(values, TYPES.bfloat16)!;
    const whole = addon.upload(values, TYPES.float32)!;
    const ints = addon.upload(Int32Array.of(1, -2, 3), TYPES.int32)!;
    const bools = addon.upload(Uint8Array.of(1, 0, 1, 1, 0), TYPES.bool)!;
    expect(await read(halves, 1000)).toEqual(rounded(values));
    expect(await read(whole, 1000)).toEqual(values);
    expect(await addon.read(ints, new Int32Array(3))).toEqual(Int32Array.of(1, -2, 3));
    expect(await addon.read(bools, new Uint8Array(5))).toEqual(Uint8Array.of(1, 0, 1, 1, 0));
    for (const handle of [halves, whole, ints, bools]) addon.release(handle);
  });

  it('goes through its blocks in turn without a number lost', async () => {
    const addon = cudaAddon();
    // Each is a number of bfloat16.
    const values = new Float32Array(MANY);
    for (let i = 0; i < MANY; i++) values[i] = i % 251;
    const float = addon.upload(values, TYPES.float32)!;
    const half = addon.upload(values, TYPES.bfloat16)!;
    expect(addon.usedBytes() - used).toBe(6 * MANY);
    expect(Buffer.compare(bytes(await read(float, MANY)), bytes(values))).toBe(0);
    expect(Buffer.compare(bytes(await read(half, MANY)), bytes(values))).toBe(0);
    addon.release(float);
    addon.release(half);
  });

  it('is waited for by the first kernel that uses it, among many', async () => {
    const addon = cudaAddon();
    const arrays = Array.from({ length: 40 }, (_, i) => floats(64 * (1 + ((i * 79) % 50)), i));
    const one = addon.upload(Float32Array.of(...Array(64).fill(1)), TYPES.float32)!;
    const uploaded = arrays.map((values) => addon.upload(values, TYPES.float32)!);
    const written = arrays.map((values) => {
      const handle = addon.allocate(values.length, TYPES.float32)!;
      addon.write(values, handle);
      return handle;
    });
    // The last first, so that nothing is there by chance.
    for (let i = arrays.length - 1; i >= 0; i--) {
      const outs = [uploaded[i]!, written[i]!].map((x) => {
        const out = addon.allocate(arrays[i]!.length, TYPES.float32)!;
        addon.rmsNorm!(x, one, 0, out);
        addon.release(x);
        return out;
      }) as [number, number];
      const [actual, expected] = await Promise.all(outs.map((out) => read(out, arrays[i]!.length)));
      expect(actual).toEqual(expected);
      for (const out of outs) addon.release(out);
    }
    addon.release(one);
  });

  it('gives memory back that nobody used, without waiting for the rest', () => {
    const addon = cudaAddon();
    const values = new Float32Array(MANY);
    for (let i = 0; i < 8; i++) addon.release(addon.upload(values, TYPES.float32)!);
    expect(addon.usedBytes()).toBe(used);
  });

  it('takes no values, and refuses what does not fit', () => {
    const addon = cudaAddon();
    const empty = addon.upload(new Float32Array(), TYPES.float32)!;
    expect(empty).toBeGreaterThan(0);
    addon.release(empty);
    expect(() => addon.upload(new Int32Array(2), TYPES.float32)).toThrow('upload: an array that is not of this type');
    expect(() => addon.upload(new Float32Array(2), TYPES.int32)).toThrow('upload: an array that is not of this type');
    expect(() => addon.upload(new Float32Array(2), 9)).toThrow('upload: an array that is not of this type');
  });

  it('says null when the memory of the device is full, and goes on', () => {
    const script = `
      const addon = require(process.argv[1]);
      addon.open(0);
      const { total } = addon.memoryInfo();
      const most = addon.allocate(Math.floor(total / 5), 0);
      const none = addon.upload(new Float32Array(Math.ceil(total / 4 / 4)), 0);
      addon.release(most);
      const handle = addon.upload(Float32Array.of(4, 2), 0);
      addon.read(handle, new Float32Array(2)).then((values) => console.log(JSON.stringify([none, ...values])));`;
    const env = { ...process.env, MEMORY3_EMULATOR_BYTES: String(2 ** 24) };
    expect(execFileSync(process.execPath, ['-e', script, CUDA_PATH], { env, encoding: 'utf8' })).toBe('[null,4,2]\n');
  });
});

describeCuda('reads and writes', () => {
  it('see a tensor as it is at their place in the order of calls', async () => {
    const addon = cudaAddon();
    const handle = addon.allocate(3, TYPES.float32)!;
    const source = Float32Array.of(1, 2, 3);
    addon.write(source, handle);
    source.fill(9);
    const first = read(handle, 3);
    addon.write(Float32Array.of(7, 7, 7), handle);
    const second = read(handle, 3);
    addon.release(handle);
    expect(await first).toEqual(Float32Array.of(1, 2, 3));
    expect(await second).toEqual(Float32Array.of(7, 7, 7));
  });

  it('take little pinned memory, however much is under way', async () => {
    const addon = cudaAddon();
    const count = 2 ** 26;
    const handle = addon.allocate(count, TYPES.float32)!;
    addon.write(Float32Array.of(3), [handle, count - 1, 1]);
    const target = new Float32Array(count);
    // Five times 256 MiB, more than may be pinned at once.
    await Promise.all(Array.from({ length: 5 }, () => addon.read(handle, target)));
    expect(target.at(-1)).toBe(3);
    addon.release(handle);
  });

  it('count the most memory that was in use at once', () => {
    const addon = cudaAddon();
    addon.takePeakBytes();
    const handles = [1000, 2000].map((count) => addon.allocate(count, TYPES.float32)!);
    addon.release(handles[0]!);
    expect(addon.takePeakBytes() - used).toBe(12_000);
    expect(addon.takePeakBytes() - used).toBe(8000);
    addon.release(handles[1]!);
    expect(addon.takePeakBytes() - used).toBe(8000);
    expect(addon.takePeakBytes()).toBe(used);
  });
});

function bytes({ buffer, byteOffset, byteLength }: Float32Array): Buffer {
  return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);
}

/** Runs `body` with the opened `addon` in a thread of its own; gives its message or its error, and how the thread ended. */
async function inThread(body: string): Promise<{ message: unknown; code: number }> {
  const source = `
    const { parentPort } = require('node:worker_threads');
    const addon = require(${JSON.stringify(CUDA_PATH)});
    addon.open(0);
    (async () => { ${body} })().catch((error) => parentPort.postMessage('error: ' + error.message));`;
  const worker = new Worker(source, { eval: true });
  let message: unknown;
  worker.on('message', (given) => {
    message = given;
  });
  worker.on('error', (error) => {
    message = error;
  });
  const code = await new Promise<number>((resolve) => worker.on('exit', resolve));
  return { message, code };
}

describeCuda('the end', () => {
  const load = `const values = new Float32Array(${MANY}).fill(5);
    const handles = Array.from({ length: 4 }, () => addon.upload(values, 0));`;

  it('of a device comes with uploads and reads under way', async () => {
    const { message, code } = await inThread(`${load}
      const reading = addon.read(handles[0], new Float32Array(${MANY}));
      addon.close();
      const [first] = await reading;
      let refused;
      try { addon.usedBytes(); } catch (error) { refused = error.message; }
      addon.open(0);
      const again = addon.upload(Float32Array.of(8), 0);
      const [other] = await addon.read(again, new Float32Array(1));
      parentPort.postMessage({ first, refused, other, used: addon.usedBytes() });`);
    expect(message).toEqual({ first: 5, refused: 'the CUDA engine is not open', other: 8, used: 16 });
    expect(code).toBe(0);
  });

  it('of a thread does too', async () => {
    expect(await inThread(`${load} parentPort.postMessage('left');`)).toEqual({ message: 'left', code: 0 });
    const ended = await inThread(`${load} void addon.read(handles[0], new Float32Array(${MANY})); process.exit(3);`);
    expect(ended).toEqual({ message: undefined, code: 3 });
  });
});
