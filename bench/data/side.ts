/** A process that trains or encodes in one way, on request; the environment that the library reads is set before it starts. */

import { createReadStream } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { Tokenizer as NativeTokenizer } from 'tokenizers';
import { SPECIALS, trainBpe } from '../../src/data/bpe_trainer.ts';
import { encodeOnOneThread } from '../../src/data/tokenizer.ts';
import { WorkerPool } from '../../src/io/worker_pool.ts';
import type { Encoded } from './encode_worker.ts';

/** What a process of this module does each time that it is asked. */
export type Way =
  | { train: { merges: number; workers: number } }
  | { ours: { workers: number; characters: number } }
  | { alone: { characters: number; ahead: number } };

/** What the process is given to begin with. */
export interface Task {
  texts: readonly string[];
  bytes: number;
  /** Written by `train`, read by the others. */
  tokenizer: string;
  way: Way;
}

export interface Answer {
  seconds: number;
  /** Processor time of all threads. */
  processorSeconds: number;
  /** Bytes of text. */
  bytes: number;
  tokens: number;
  /** The most memory that the process has had. */
  peakBytes: number;
}

/** Texts of every file up to a like part of `bytes`. */
async function* textsOf({ texts, bytes }: Task): AsyncGenerator<string> {
  const sizes = await Promise.all(texts.map(async (path) => (await stat(path)).size));
  const share = bytes / sizes.reduce((sum, size) => sum + size, 0);
  for (const [i, path] of texts.entries()) {
    let left = share * sizes[i]!;
    for await (const line of createInterface({ input: createReadStream(path) })) {
      const { text } = JSON.parse(line) as { text: string };
      const used = Buffer.byteLength(text);
      // A long book counts only as far as it fits.
      yield used > left ? text.slice(0, (text.length * left) / used) : text;
      left -= used;
      if (left <= 0) break;
    }
  }
}

function groupsOf(texts: readonly string[], characters: number): string[][] {
  const groups: string[][] = [[]];
  let size = 0;
  for (const text of texts) {
    if (size >= characters) {
      groups.push([]);
      size = 0;
    }
    groups.at(-1)!.push(text);
    size += text.length;
  }
  return groups;
}

async function training(task: Task, { merges, workers }: { merges: number; workers: number }): Promise<Work> {
  const vocabSize = merges + 256 + SPECIALS.length;
  return async () => {
    const json = await trainBpe(textsOf(task), { vocabSize, workers });
    await writeFile(task.tokenizer, JSON.stringify(json));
    return json.model.merges.length;
  };
}

async function ours(path: string, groups: string[][], workers: number): Promise<Work> {
  encodeOnOneThread();
  const pool = new WorkerPool<string[], Encoded>({
    ...{ module: 'encode_worker', caller: import.meta.url, data: path, size: workers },
  });
  await Promise.all(Array.from({ length: workers }, async () => await pool.run(['ready'])));
  return async () => {
    let tokens = 0;
    for await (const { ids } of pool.map(groups)) tokens += ids.length;
    return tokens;
  };
}

async function alone(path: string, groups: string[][], ahead: number): Promise<Work> {
  const native = NativeTokenizer.fromString(await readFile(path, 'utf8'));
  return async () => {
    let tokens = 0;
    const underWay = [];
    for (const group of [...groups, ...Array<undefined>(ahead).fill(undefined)]) {
      if (group) underWay.push(native.encodeBatch(group, { addSpecialTokens: false }));
      if (group && underWay.length <= ahead) continue;
      for (const encoding of (await underWay.shift()) ?? []) tokens += Int32Array.from(encoding.getIds()).length;
    }
    return tokens;
  };
}

/** Does the work once; gives the number of merges or tokens. */
type Work = () => Promise<number>;

async function prepare(task: Task): Promise<{ work: Work; bytes: number }> {
  const { way, tokenizer } = task;
  if ('train' in way) return { work: await training(task, way.train), bytes: task.bytes };
  const texts: string[] = [];
  for await (const text of textsOf(task)) texts.push(text);
  const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  const groups = groupsOf(texts, 'ours' in way ? way.ours.characters : way.alone.characters);
  const work = 'ours' in way ? ours(tokenizer, groups, way.ours.workers) : alone(tokenizer, groups, way.alone.ahead);
  return { work: await work, bytes };
}

async function answer({ work, bytes }: { work: Work; bytes: number }): Promise<Answer> {
  const [start, processor] = [performance.now(), process.cpuUsage()];
  const tokens = await work();
  const { user, system } = process.cpuUsage(processor);
  return {
    seconds: (performance.now() - start) / 1000,
    processorSeconds: (user + system) / 1e6,
    ...{ bytes, tokens, peakBytes: process.resourceUsage().maxRSS * 1024 },
  };
}

process.once('message', (task: Task) => {
  const prepared = prepare(task);
  prepared.then(() => process.send?.('ready')).catch(fail);
  process.on('message', () => {
    prepared
      .then(answer)
      .then((done) => process.send?.(done))
      .catch(fail);
  });
});

function fail(error: unknown): void {
  console.error(error);
  process.exit(1);
}
