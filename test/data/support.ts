import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { onTestFinished } from 'vitest';
import { dataSchema, memorySchema, type SourceConfig, sourceSchema } from '../../src/config/schema.ts';
import { trainBpe } from '../../src/data/bpe_trainer.ts';
import type { Document } from '../../src/data/documents.ts';
import { joinSplits, TokenShardWriter, type TokenSplit, writeTokenManifest } from '../../src/data/token_dataset.ts';
import { Tokenizer } from '../../src/data/tokenizer.ts';

/** Any Unicode character but halves of surrogate pairs; fast-check's own `binary` unit takes a second to set up. */
export const anyCharacter = fc
  .oneof(fc.nat(0x7f), fc.nat(0x7ff), fc.nat(0x10ffff))
  .filter((code) => code < 0xd800 || code > 0xdfff)
  .map((code) => String.fromCodePoint(code));

/** A folder that goes away with the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'memory3-data-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export async function* stream<T>(values: Iterable<T>): AsyncGenerator<T> {
  yield* values;
}

export async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const value of values) all.push(value);
  return all;
}

export function source(path: string, fields: Partial<SourceConfig> = {}): SourceConfig {
  return sourceSchema.parse({ path, ...fields });
}

export function document(id: string, text: string, title?: string): Document {
  return { id, text, source: { path: 'memory', offset: 0 }, ...(title === undefined ? {} : { title }) };
}

export const dataConfig = (fields: object) => dataSchema.parse(fields);
export const memoryConfig = (fields: object = {}) => memorySchema.parse(fields);

/** Sentences of invented facts: enough repetition for merges, enough variety for many documents. */
export function factTexts(count: number): string[] {
  const names = ['Arel', 'Boru', 'Cind', 'Dova', 'Emri', 'Falk', 'Goro'];
  const things = ['river', 'mountain', 'village', 'forest', 'harbour'];
  return Array.from({ length: count }, (_, i) => {
    const name = `${names[i % 7]}${names[(i * 3 + 1) % 7]?.toLowerCase()}`;
    return `${name} is a ${things[i % 5]} number ${i}. It lies near ${names[(i + 2) % 7]}, and people say “hé ${i * 37}”.`;
  });
}

/** A tokenizer trained on `texts`, saved in `folder`. */
export async function smallTokenizer(folder: string, vocabSize = 400, texts = factTexts(200)): Promise<Tokenizer> {
  const path = join(folder, `tokenizer-${vocabSize}.json`);
  writeFileSync(path, JSON.stringify(await trainBpe(stream(texts), { vocabSize })));
  return await Tokenizer.load(path);
}

/** Flips one bit of a file. */
export function flipBit(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

/** Expects a rejection with a UserError of this code; gives its message. */
export async function userErrorOf(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Error && 'code' in error) return { code: String(error.code), message: error.message };
    throw error;
  }
  throw new Error('nothing was thrown');
}

export interface DatasetShape {
  vocabSize?: number;
  batchTokens?: number;
  /** Documents of a shard. */
  shardDocuments?: number;
  pad?: number;
}

/** Writes documents of these token ids, by source, to the training split of a new token dataset; gives its folder. */
export async function writeTokens(sources: Record<string, number[][]>, shape: DatasetShape = {}): Promise<string> {
  const folder = temporaryFolder();
  const { vocabSize = 1000, batchTokens = 16, shardDocuments = 2, pad } = shape;
  const empty: TokenSplit = { tokens: 0, documents: 0, bytes: 0, shards: [] };
  const made = [];
  let number = 0;
  for (const [name, documents] of Object.entries(sources)) {
    const shards: TokenSplit[] = [];
    for (let first = 0; first < documents.length; first += shardDocuments) {
      const path = join(folder, 'train', `tokens-${String(number++).padStart(5, '0')}.arrow`);
      const writer = new TokenShardWriter(path, vocabSize, batchTokens);
      for (const [i, ids] of documents.slice(first, first + shardDocuments).entries()) {
        const written = document(`document ${first + i} é`, 'text', `title ${first + i}`);
        await writer.append(written, Int32Array.from(ids));
      }
      shards.push(await writer.close());
    }
    made.push({ name, files: [], splits: { train: joinSplits(shards), validation: empty } });
  }
  await writeTokenManifest(folder, {
    tokenizerHash: 'aa',
    vocabSize,
    bos: 0,
    ...(pad !== undefined && { pad }),
    sources: made,
  });
  return folder;
}
