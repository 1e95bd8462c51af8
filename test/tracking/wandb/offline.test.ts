/** The file for `wandb sync`, read back by the independent reader. */

import { createHash } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { MetricsRow } from '../../../src/tracking/values.ts';
import { OfflineSink } from '../../../src/tracking/wandb/offline.ts';
import { trackedRow, trackedRows } from '../runs.ts';
import { historyOf, items, messages, number, readFile, stepsOf, summaryOf, text, texts } from './reader.ts';
import { configOf, ID, makeRun, STARTED } from './support.ts';

let root: string;
beforeEach(() => {
  root = makeRun(mkdtempSync(join(tmpdir(), 'memory3-offline-')));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const NAME = `offline-run-20231114_221320-${ID}`;
const file = (): string => join(root, 'wandb', NAME, `run-${ID}.wandb`);
const steps = (first: number, last: number): number[] => trackedRows(first, last).map(({ step }) => step);

/** Opens the file, does `work` and closes it as a process that was killed does. */
async function opened(lastStep: number, work: (sink: OfflineSink) => Promise<void>, wandb = {}): Promise<number> {
  const sink = new OfflineSink({ root, config: configOf(wandb) });
  try {
    const step = await sink.open(lastStep);
    await work(sink);
    return step;
  } finally {
    await sink.close();
  }
}

async function write(sink: OfflineSink, first: number, last: number, part = 7): Promise<void> {
  for (let step = first; step <= last; step += part)
    await sink.write(trackedRows(step, Math.min(last, step + part - 1)));
}

describe('what is written', () => {
  it('begins with the run and its configuration, and numbers its records', async () => {
    const wandb = { project: 'p', entity: 'team', group: 'g', tags: ['a', 'b'], notes: 'Why.' };
    await opened(
      -1,
      async (sink) => {
        expect(sink.place).toBe(join(root, 'wandb', NAME));
        await write(sink, 1, 20);
        await sink.finish('finished');
      },
      wandb,
    );
    const records = readFile(file());
    expect(records.map(({ num }) => num)).toEqual(records.map((_, i) => i + 1));
    expect(records.slice(0, 2).map(({ type }) => type)).toEqual(['header', 'run']);
    const { fields } = records[1]!;
    expect([1, 2, 3, 6, 8, 9].map((field) => text(fields, field))).toEqual([ID, 'team', 'p', 'g', 'tracked', 'Why.']);
    expect(texts(fields, 10)).toEqual(['a', 'b']);
    expect(number(messages(fields, 17)[0]!, 1)).toBe(STARTED);
    const config = items(messages(fields, 4)[0]!, 1);
    expect(JSON.parse(String(config.model))).toEqual(configOf().model);
    expect(JSON.parse(String(config.name))).toBe('tracked');
  });

  it('has a row a step with its values, step, time and runtime; what is not finite is NaN', async () => {
    await opened(-1, async (sink) => {
      await sink.write([trackedRow(3, { 'train/loss': 0.25, 'train/stage': 'warmup', 'train/norm': null, ok: true })]);
    });
    expect(historyOf(readFile(file()))).toEqual([
      {
        step: 3,
        values: {
          'train/loss': '0.25',
          'train/stage': '"warmup"',
          'train/norm': 'NaN',
          ok: 'true',
          _step: '3',
          _timestamp: String(STARTED + 3),
          _runtime: '3',
        },
      },
    ]);
  });

  it('has media: histogram, text, a picture and a table as files with their hashes', async () => {
    const values: MetricsRow = {
      'histograms/../w 1': { type: 'histogram', edges: [0, 1, 2], counts: [3, 4] },
      'samples/text': { type: 'text', text: 'a "text"\n世界' },
      'memory/attention': {
        type: 'image',
        width: 2,
        height: 1,
        values: [0, 1],
        range: [0, 1],
        labels: ['head', 'layer'],
      },
      '../../memory/retrievals': {
        type: 'retrievals',
        chunks: [{ text: 'chunk', memories: [{ id: 'm', score: 0.5 }, { id: 'n' }] }],
      },
    };
    await opened(-1, (sink) => sink.write([trackedRow(5, values)]));
    const records = readFile(file());
    const row = historyOf(records)[0]!.values as Record<string, Record<string, string>>;
    expect(row['histograms/../w 1']).toEqual({ _type: '"histogram"', values: '[3,4]', bins: '[0,1,2]' });
    expect(JSON.parse(String(row['samples/text']))).toBe('a "text"\n世界');
    const listed = records
      .filter(({ type }) => type === 'files')
      .flatMap(({ fields }) => messages(fields, 1).map((one) => text(one, 1)));
    const media = ['memory/attention', '../../memory/retrievals'].map((name) => row[name]!);
    expect(media.map(({ _type }) => _type)).toEqual(['"image-file"', '"table-file"']);
    expect(listed).toEqual(media.map(({ path }) => JSON.parse(path!)));
    for (const { path, sha256, size } of media) {
      expect(path).not.toContain('..');
      const bytes = readFileSync(join(root, 'wandb', NAME, 'files', JSON.parse(path!) as string));
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(JSON.parse(sha256!));
      expect(bytes.length).toBe(Number(size));
    }
    const table = JSON.parse(
      readFileSync(join(root, 'wandb', NAME, 'files', JSON.parse(media[1]!.path!) as string), 'utf8'),
    ) as object;
    expect(table).toEqual({
      columns: ['chunk', 'rank', 'memory', 'score'],
      data: [
        ['chunk', 1, 'm', 0.5],
        ['chunk', 2, 'n', null],
      ],
    });
  });

  it('has load under the names of Weights & Biases, log lines, final values and the exit', async () => {
    await opened(-1, async (sink) => {
      await write(sink, 1, 2);
      const load = { 'hardware/process_cpu_percent': 150, 'hardware/cpus': 2, 'hardware/process_rss_bytes': 2 ** 21 };
      await sink.hardware([{ time: STARTED + 1.5, ...load, 'hardware/gpu0_percent': 7 }]);
      await sink.lines(['one', 'two']);
      await sink.summary({ 'evaluation/accuracy': 0.5 });
      await sink.finish('failed');
    });
    const records = readFile(file());
    const only = (type: string) => records.filter((record) => record.type === type).map(({ fields }) => fields);
    expect(items(only('stats')[0]!, 3)).toEqual({ cpu: '75', 'proc.memory.rssMB': '2', 'gpu.0.gpu': '7' });
    expect(number(messages(only('stats')[0]!, 2)[0]!, 2)).toBe(500_000_000);
    expect(only('output_raw').map((fields) => [number(fields, 1), text(fields, 3)])).toEqual([
      [1, 'one\n'],
      [1, 'two\n'],
    ]);
    expect(summaryOf(records)).toMatchObject({
      'train/loss': '0.5',
      _step: '2',
      'evaluation/accuracy': '0.5',
      _wandb: { runtime: '2' },
    });
    expect(records.at(-1)!.type).toBe('exit');
    expect([1, 2].map((field) => number(only('exit')[0]!, field))).toEqual([1, 2]);
  });

  it('leaves media and texts out of a row that is too long for the service', async () => {
    const long = 'x'.repeat(11 * 2 ** 20);
    const values: MetricsRow = { 'train/loss': 2, text: { type: 'text', text: long }, string: long };
    await opened(-1, (sink) => sink.write([trackedRow(1, values)]));
    expect(Object.keys(historyOf(readFile(file()))[0]!.values)).toEqual([
      'train/loss',
      '_step',
      '_timestamp',
      '_runtime',
    ]);
  });
});

describe('going on', () => {
  it('cuts rows after the last step of the run, and the end mark; the file is one of one row a step', async () => {
    await opened(-1, async (sink) => {
      await write(sink, 1, 40);
      await sink.finish('stopped');
    });
    const second = async (sink: OfflineSink): Promise<void> => {
      await write(sink, 26, 60);
      await sink.finish('finished');
    };
    expect(await opened(25, second)).toBe(25);
    expect(
      await opened(60, async (sink) => {
        await write(sink, 61, 70);
        await sink.finish('finished');
      }),
    ).toBe(60);
    expect(stepsOf(file())).toEqual(steps(1, 70));
    const records = readFile(file());
    expect(records.map(({ num }) => num)).toEqual(records.map((_, i) => i + 1));
    expect(records.filter(({ type }) => type === 'exit').length).toBe(1);
    expect(readdirSync(join(root, 'wandb'))).toEqual([NAME]);
  });

  it('keeps a row whose escapes alone make it look too long', async () => {
    const text = { type: 'text', text: '\u0001'.repeat(1_000_000) } as const;
    await opened(-1, (sink) => sink.write([trackedRow(1, { text })]));
    expect(historyOf(readFile(file()))[0]!.values).toHaveProperty('text');
  });

  it('without rows to add says the time that the run took', async () => {
    await opened(-1, (sink) => write(sink, 1, 40));
    await opened(40, (sink) => sink.finish('finished'));
    const [exit] = readFile(file()).filter(({ type }) => type === 'exit');
    expect(number(exit!.fields, 2)).toBe(40);
  });

  it('says how far it is when the run is ahead, and holds nothing of a run that begins again', async () => {
    await opened(-1, (sink) => write(sink, 1, 10));
    expect(await opened(100, async () => {})).toBe(10);
    expect(await opened(-1, (sink) => write(sink, 1, 3))).toBe(-1);
    expect(stepsOf(file())).toEqual([1, 2, 3]);
  });

  it('keeps in the summary what stood in a row before the cut, though not in a summary', async () => {
    await opened(-1, async (sink) => {
      // The summary of both rows comes after the second, which is cut off.
      await sink.write([trackedRow(1, { 'validation/loss': 4 }), trackedRow(2, { 'validation/loss': 3 })]);
    });
    await opened(1, (sink) => sink.write([trackedRow(2, { 'train/loss': 1 })]));
    expect(summaryOf(readFile(file()))).toMatchObject({ 'validation/loss': '4', 'train/loss': '1', _step: '2' });
  });

  it('takes rows again that could not be written, once', async () => {
    await opened(-1, async (sink) => {
      await write(sink, 1, 5);
      const before = statSync(file()).size;
      await sink.close();
      await expect(sink.write(trackedRows(6, 9))).rejects.toThrow();
      expect(statSync(file()).size).toBe(before);
      expect(await sink.open(5)).toBe(5);
      await sink.write(trackedRows(6, 9));
    });
    expect(stepsOf(file())).toEqual(steps(1, 9));
  });

  it('mends a file that was cut off or damaged anywhere: afterwards it is whole, and nothing is there twice', async () => {
    await opened(-1, async (sink) => {
      const long = { type: 'text', text: 'long '.repeat(20_000) } as const;
      await sink.write([...trackedRows(1, 30), trackedRow(31, { long }), ...trackedRows(32, 60)]);
      await write(sink, 61, 90);
      await sink.finish('finished');
    });
    const whole = readFileSync(file());
    const begin = 4000;
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: begin, max: whole.length - 1 }), fc.boolean(), async (at, cut) => {
        writeFileSync(file(), whole);
        if (cut) truncateSync(file(), at);
        else
          writeFileSync(
            file(),
            Buffer.concat([whole.subarray(0, at), Buffer.of(whole[at]! ^ 1), whole.subarray(at + 1)]),
          );
        const step = await opened(90, async () => {});
        await opened(90, (sink) => write(sink, Math.max(1, step + 1), 90));
        expect(stepsOf(file())).toEqual(steps(1, 90));
      }),
      { numRuns: 25 },
    );
  }, 60_000);

  it('cuts off what a power cut left: zeros, half a record', async () => {
    await opened(-1, (sink) => write(sink, 1, 10));
    appendFileSync(file(), Buffer.alloc(100_000));
    expect(await opened(10, (sink) => write(sink, 11, 12))).toBe(10);
    expect(stepsOf(file())).toEqual(steps(1, 12));
  });

  it('refuses a file of something else, and changes nothing of it', async () => {
    mkdirSync(join(root, 'wandb', NAME), { recursive: true });
    writeFileSync(file(), 'a diary');
    await expect(opened(-1, async () => {})).rejects.toThrow(/no file of Weights & Biases\n.*move it away/);
    expect(readFileSync(file(), 'utf8')).toBe('a diary');
  });

  it('refuses a damaged identity', async () => {
    writeFileSync(join(root, 'metrics/wandb.json'), '{"version":1,"id":"../../x"}');
    await expect(opened(-1, async () => {})).rejects.toThrow(/not the identity of a run\n.*delete it/);
    rmSync(join(root, 'metrics/wandb.json'));
    await opened(-1, (sink) => write(sink, 1, 1));
    expect(JSON.parse(readFileSync(join(root, 'metrics/wandb.json'), 'utf8'))).toMatchObject({ version: 1 });
  });
});

describe('a copy', () => {
  it('is a file of another id that appears when it is whole; the run keeps its own', async () => {
    await opened(-1, (sink) => write(sink, 1, 5));
    const copy = new OfflineSink({ root, config: configOf() }, { anew: true });
    expect(await copy.open(5)).toBe(-1);
    await copy.write(trackedRows(1, 5));
    expect(existsSync(copy.place)).toBe(false);
    await copy.finish('finished');
    await copy.close();
    const [name] = readdirSync(copy.place).filter((entry) => entry.endsWith('.wandb'));
    expect(name).not.toBe(`run-${ID}.wandb`);
    expect(stepsOf(join(copy.place, name!))).toEqual(steps(1, 5));
    // It counts time from the same begin, not from the first row, which may have been made again.
    const [run, its] = [`run-${ID}.wandb`, name!].map((file) =>
      readdirSync(root, { recursive: true }).find((path) => String(path).endsWith(file)),
    );
    expect(historyOf(readFile(join(root, String(its))))).toEqual(historyOf(readFile(join(root, String(run)))));
    expect(await opened(5, async () => {})).toBe(5);
  });

  it('that is given up leaves nothing', async () => {
    const copy = new OfflineSink({ root, config: configOf() }, { anew: true });
    await copy.open(5);
    await copy.write(trackedRows(1, 5));
    await copy.close();
    expect(readdirSync(join(root, 'wandb'))).toEqual([]);
  });
});
