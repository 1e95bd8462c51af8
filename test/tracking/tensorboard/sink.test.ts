import { appendFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { runSchema } from '../../../src/config/schema.ts';
import type { Sink, TrackedRow } from '../../../src/tracking/sink.ts';
import { crc32c, maskedCrc32c } from '../../../src/tracking/tensorboard/crc32c.ts';
import { makeTensorboardSink } from '../../../src/tracking/tensorboard/sink.ts';
import { histogramOf, type MetricsRow } from '../../../src/tracking/values.ts';
import { trackedRow, trackedRows } from '../runs.ts';
import { readFolder, readRecords, slowCrc32c } from './reader.ts';

const config = runSchema.parse({ name: 'x', data: { sources: [{ path: 'a' }] }, model: {} });

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'memory3-tensorboard-'));
});
afterEach(() => rm(root, { recursive: true }));

const folder = () => join(root, 'tensorboard');
const path = () => join(folder(), readdirSync(folder()).find((name) => name.includes('tfevents'))!);
const make = (): Promise<Sink> => makeTensorboardSink({ root, config }, {});
const rowSteps = () =>
  readFolder(folder())
    .slice(2)
    .map(({ step }) => step);

/** Opens the sink, writes what `rows` gives for the step that it says, closes it. */
async function deliver(lastStep: number, rows: (from: number) => TrackedRow[]): Promise<number> {
  const sink = await make();
  const from = await sink.open(lastStep);
  await sink.write(rows(from));
  await sink.finish('finished');
  await sink.close();
  return from;
}

/** Where the third record begins. */
const beginOfRows = (bytes: Buffer) =>
  readRecords(bytes)
    .slice(0, 2)
    .reduce((sum, record) => sum + record.length + 16, 0);

const upTo = (last: number) => (from: number) => trackedRows(Math.max(from, 0) + 1, last);

describe('CRC-32C', () => {
  test('has the check value of the polynomial', () => {
    expect(crc32c(Buffer.from('123456789')).toString(16)).toBe('e3069283');
    // The mask by hand: turned right by 15 bits, plus a282ead8.
    expect(maskedCrc32c(Buffer.from('123456789'))).toBe((0x2507c60d + 0xa282ead8) >>> 0);
  });

  test('is that of the reader for any bytes', () => {
    fc.assert(fc.property(fc.uint8Array(), (bytes) => crc32c(bytes) === slowCrc32c(bytes)));
  });
});

describe('values', () => {
  const written = async (values: MetricsRow) => {
    await deliver(-1, () => [trackedRow(1, values)]);
    const events = readFolder(folder());
    expect(events[0]).toMatchObject({ step: 0, version: 'brain.Event:2', values: [] });
    expect(events[1]!.values[0]).toMatchObject({ tag: 'run/config', plugin: 'text' });
    expect(events[1]!.values[0]!.text).toContain('    name: x\n');
    expect(events[2]).toMatchObject({ step: 1, time: 1_700_000_001 });
    return events[2]!.values;
  };

  test('numbers, also those that are not finite, and texts', async () => {
    expect(await written({ 'train/loss': 2.5, 'train/bad': null, 'train/stage': 'warmup', flag: true })).toEqual([
      { tag: 'train/loss', number: 2.5 },
      { tag: 'train/bad', number: Number.NaN },
      { tag: 'train/stage', plugin: 'text', text: '    warmup' },
      { tag: 'flag', number: 1 },
    ]);
  });

  test('a histogram has the edges, counts and moments', async () => {
    const [value] = await written({ h: histogramOf([1, 2, 2, 5], 4) });
    const [min, max, num, sum, squares, limits, counts] = value!.histogram!;
    expect([min, max, num]).toEqual([[1], [5], [4]]);
    expect(limits).toEqual([2, 3, 4, 5]);
    expect(counts).toEqual([1, 2, 0, 1]);
    expect(sum).toEqual([1.5 + 2 * 2.5 + 4.5]);
    expect(squares).toEqual([1.5 ** 2 + 2 * 2.5 ** 2 + 4.5 ** 2]);
  });

  test('a histogram of nothing', async () => {
    const [value] = await written({ h: histogramOf([Number.NaN]) });
    expect(value!.histogram!.map((list) => list.length)).toEqual([1, 1, 1, 1, 1, 1, 1]);
  });

  test('an image is a PNG with its size', async () => {
    const image = { type: 'image' as const, width: 2, height: 1, values: [0, 1], range: [0, 1] as [number, number] };
    const [value] = await written({ a: { ...image, labels: ['head', 'layer'] } });
    const { height, width, colours, png } = value!.image!;
    expect([height, width, colours]).toEqual([128, 256, 3]);
    expect(png.toString('latin1', 1, 4)).toBe('PNG');
    expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([256, 128]);
  });

  test('texts and retrievals are indented, so that nothing in them is markup', async () => {
    const chunks = [{ text: '# a\n<b>', memories: [{ id: 'm1', score: 0.5 }, { id: 'm2' }] }];
    const [text, retrievals] = await written({
      t: { type: 'text', text: '*a*\r\n<script>' },
      r: { type: 'retrievals', chunks },
    });
    expect(text).toEqual({ tag: 't', plugin: 'text', text: '    *a*\n    <script>' });
    expect(retrievals!.text).toBe('    # a\n    <b>\n    ← m1  0.5000\n    ← m2');
  });

  test('a text that stays as it was is not written again', async () => {
    await deliver(-1, () => [1, 2, 3].map((step) => trackedRow(step, { s: step < 3 ? 'a' : 'b', 'train/loss': 1 })));
    const tags = readFolder(folder())
      .slice(2)
      .map(({ values }) => values.map(({ tag }) => tag));
    expect(tags).toEqual([['s', 'train/loss'], ['train/loss'], ['s', 'train/loss']]);
  });

  test('any numbers come back as float32, at any step', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(fc.string({ minLength: 1 }), fc.oneof(fc.double(), fc.float({ noNaN: true }))),
        fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
        async (values, step) => {
          await rm(folder(), { recursive: true, force: true });
          await deliver(-1, () => [{ step, stage: 'warmup', time: 0.5, values }]);
          const event = readFolder(folder())[2]!;
          expect(event.step).toBe(step);
          expect(event.values).toEqual(
            Object.entries(values).map(([tag, value]) => ({ tag, number: Math.fround(value) })),
          );
        },
      ),
      { numRuns: 50 },
    );
  });
});

describe('opened again', () => {
  test('at any step that the run has, the file becomes that of a run that was never stopped', async () => {
    await deliver(-1, upTo(9));
    const whole = readRecords(readFileSync(path())).slice(2);
    const name = path();
    for (let lastStep = 9; lastStep >= -1; lastStep--) {
      const from = await deliver(lastStep, upTo(9));
      expect(from).toBe(lastStep > 0 ? lastStep : -1);
      expect(readRecords(readFileSync(path())).slice(2)).toEqual(whole);
      expect(path()).toBe(name);
    }
  });

  test('cut at any byte, it goes on after the last whole step', async () => {
    await deliver(-1, upTo(4));
    const bytes = readFileSync(path());
    // The configuration in the second record is long: not every byte of it is tried.
    const rowsBegin = beginOfRows(bytes);
    for (let length = 0; length <= bytes.length; length += length < rowsBegin && length > 100 ? 97 : 1) {
      writeFileSync(path(), bytes.subarray(0, length));
      await deliver(4, upTo(4));
      expect(rowSteps(), `cut at ${length}`).toEqual([1, 2, 3, 4]);
    }
  });

  test('with any bit turned, what is before it stays and the rest is written again', async () => {
    await deliver(-1, upTo(4));
    const bytes = readFileSync(path());
    const rowsBegin = beginOfRows(bytes);
    for (let at = 0; at < bytes.length; at += at < rowsBegin && at > 100 ? 97 : 1) {
      const damaged = Buffer.from(bytes);
      damaged[at]! ^= 1 << (at % 8);
      writeFileSync(path(), damaged);
      await deliver(4, upTo(4));
      expect(rowSteps(), `bit at ${at}`).toEqual([1, 2, 3, 4]);
    }
  });

  test('a length that is beyond all memory is damage, not an allocation', async () => {
    await deliver(-1, upTo(2));
    const header = Buffer.alloc(12);
    header.writeBigUInt64LE(2n ** 62n);
    header.writeUInt32LE(maskedCrc32c(header.subarray(0, 8)), 8);
    appendFileSync(path(), Buffer.concat([header, Buffer.alloc(100)]));
    expect(await deliver(5, upTo(5))).toBe(2);
    expect(rowSteps()).toEqual([1, 2, 3, 4, 5]);
  });

  test('records of another program are begun anew', async () => {
    mkdirSync(folder());
    writeFileSync(join(folder(), 'events.out.tfevents.1.host'), 'something else altogether, and longer than a header');
    expect(await deliver(3, upTo(3))).toBe(-1);
    expect(rowSteps()).toEqual([1, 2, 3]);
  });

  test('rows larger than what is read at once', async () => {
    const long = 'x'.repeat(1_500_000);
    const rows = [1, 2, 3].map((step) => trackedRow(step, { t: { type: 'text', text: `${step}${long}` } }));
    await deliver(-1, () => rows);
    expect(await deliver(2, () => rows.slice(2))).toBe(2);
    expect(rowSteps()).toEqual([1, 2, 3]);
  });
});

describe('beside the rows', () => {
  test('final values stand once at the end, and go on with the rows', async () => {
    for (const [round, last] of [4, 4, 6].entries()) {
      const sink = await make();
      await sink.write(upTo(last)(await sink.open(last)));
      await sink.summary!({ 'evaluation/accuracy': round });
      await sink.close();
    }
    const events = readFolder(folder()).slice(2);
    expect(events.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 6]);
    expect(events.at(-1)!.values).toEqual([{ tag: 'run/summary', plugin: 'text', text: '    evaluation/accuracy: 2' }]);
  });

  test('load is a run of its own, in seconds since its first sample, also after a resume', async () => {
    for (const times of [[100.5, 110.5], [160.5]]) {
      const sink = await make();
      await sink.open(-1);
      await sink.hardware!(times.map((time) => ({ time, 'hardware/cpu_percent': time })));
      await sink.close();
    }
    const events = readFolder(join(folder(), 'hardware'));
    expect(events.map(({ step, time }) => [step, time])).toEqual([
      [0, 100.5],
      [0, 100.5],
      [10, 110.5],
      [60, 160.5],
    ]);
    expect(events[3]!.values).toEqual([{ tag: 'hardware/cpu_percent', number: 160.5 }]);
  });

  test('load of a clock that is set back stays in the file when it is opened again', async () => {
    const cpu = (time: number) => ({ time, 'hardware/cpu_percent': time });
    for (const times of [[5000, 5100, 5010, 5020, 5120], [5130]]) {
      const sink = await make();
      await sink.open(-1);
      for (const time of times) await sink.hardware!([cpu(time)]);
      await sink.close();
    }
    const events = readFolder(join(folder(), 'hardware')).slice(1);
    expect(events.map(({ step, time }) => [step, time])).toEqual([
      [0, 5000],
      [100, 5100],
      [100, 5010],
      [100, 5020],
      [120, 5120],
      [130, 5130],
    ]);
  });

  test('a write that fails leaves no half of it, and takes the rows when they come again', async () => {
    const sink = await make();
    await sink.open(-1);
    await sink.write(trackedRows(1, 2));
    const before = readFileSync(path());
    const broken = [...trackedRows(3, 4), { ...trackedRow(5), values: { h: { type: 'image' } as never } }];
    await expect(sink.write(broken)).rejects.toThrow();
    expect(readFileSync(path())).toEqual(before);
    await sink.write(trackedRows(3, 5));
    await sink.close();
    expect(rowSteps()).toEqual([1, 2, 3, 4, 5]);
  });
});
