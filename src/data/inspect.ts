/** What a data folder holds, for `memory3 data inspect` and `memory3 data verify`. */

import { type BuildReport, readBuildReport } from './build_report.ts';
import { dataPaths } from './paths.ts';
import { ReferenceDataset } from './references.ts';
import type { Example } from './report.ts';
import { placeOf } from './sources/problem.ts';
import { SPLITS, type Split, TokenDataset } from './token_dataset.ts';
import { Tokenizer } from './tokenizer.ts';

export interface SplitSummary {
  documents: number;
  tokens: number;
  bytesPerToken: number;
  shards: { file: string; bytes: number; tokens: number }[];
  /** Decoded windows from evenly spaced places. */
  windows: { start: number; text: string }[];
}

export interface DataSummary {
  folder: string;
  tokenizer: { hash: string; vocabSize: number };
  splits: Record<Split, SplitSummary>;
  /** Text of stage two, when it has its own. */
  continual: Record<Split, SplitSummary> | undefined;
  references: {
    references: number;
    documents: number;
    tokensPerReference: number;
    samples: { title: string; text: string }[];
  };
  /** Records and documents left out, by reason. */
  leftOut: Record<string, number>;
  examples: Example[];
}

/** Windows and references shown of each split. */
const SAMPLES = 3;
const WINDOW_TOKENS = 48;

/**
 * Counts, shards, skipped records and decoded samples of a data folder. Reads the manifests and a few record batches.
 * @throws UserError artefact_missing when nothing is built there; that of a damaged file
 */
export async function summarizeData(folder: string): Promise<DataSummary> {
  const paths = dataPaths(folder);
  const tokenizer = await Tokenizer.load(paths.tokenizer);
  const options = { tokenizerHash: tokenizer.hash };
  const summarize = async (tokens: string): Promise<Record<Split, SplitSummary>> => ({
    train: await summarizeSplit(await TokenDataset.open(tokens, 'train', options), tokenizer),
    validation: await summarizeSplit(await TokenDataset.open(tokens, 'validation', options), tokenizer),
  });
  const references = await ReferenceDataset.open(paths.references, options);
  const { counters, tokens } = references.manifest;
  const report = await readBuildReport(folder);
  return {
    folder,
    tokenizer: { hash: tokenizer.hash, vocabSize: tokenizer.vocabSize },
    splits: await summarize(paths.tokens),
    continual: report.continual && (await summarize(paths.continualTokens)),
    references: {
      references: references.size,
      documents: counters.documents,
      tokensPerReference: ratio(tokens, references.size),
      samples: await Promise.all(spread(references.size).map((i) => references.get(i))),
    },
    leftOut: leftOut(report),
    examples: report.examples,
  };
}

/** How many records and documents were left out for each reason. */
function leftOut({ sources, continual = [], references }: BuildReport): Record<string, number> {
  const counts: Record<string, number> = {};
  const add = (reason: string, count: number) => {
    counts[reason] = (counts[reason] ?? 0) + count;
  };
  for (const { skipped, dropped } of [...sources, ...continual]) {
    for (const [reason, count] of Object.entries(skipped)) add(reason, count);
    for (const [reason, { documents }] of Object.entries(dropped)) add(reason, documents);
  }
  for (const [reason, count] of Object.entries(references.counters.skipped)) add(reason, count ?? 0);
  return counts;
}

async function summarizeSplit(dataset: TokenDataset, tokenizer: Tokenizer): Promise<SplitSummary> {
  const { numTokens: tokens, numDocuments: documents, shards } = dataset;
  const bytes = dataset.manifest.sources.reduce((sum, { splits }) => sum + splits[dataset.split].bytes, 0);
  const windows = spread(Math.ceil(tokens / WINDOW_TOKENS)).map(async (i) => {
    const start = i * WINDOW_TOKENS;
    const ids = await dataset.window(start, Math.min(WINDOW_TOKENS, tokens - start));
    return { start, text: await tokenizer.decode(ids) };
  });
  return {
    documents,
    tokens,
    // The begin-of-text token of each document stands for none of its bytes.
    bytesPerToken: ratio(bytes, tokens - documents),
    shards: shards.map(({ file, bytes: size, batches }) => {
      return { file, bytes: size, tokens: batches.reduce((sum, batch) => sum + batch.tokens, 0) };
    }),
    windows: await Promise.all(windows),
  };
}

/** Up to SAMPLES numbers spread over [0, count). */
function spread(count: number): number[] {
  return Array.from({ length: Math.min(SAMPLES, count) }, (_, i) => Math.floor((i * count) / Math.min(SAMPLES, count)));
}

const ratio = (a: number, b: number) => (b === 0 ? 0 : a / b);

/** {@link summarizeData} as text for a terminal. */
export async function inspectData(folder: string): Promise<string> {
  const summary = await summarizeData(folder);
  const { tokenizer, references } = summary;
  const lines = [
    `data folder ${folder}`,
    `tokenizer   ${tokenizer.vocabSize} tokens, sha256 ${tokenizer.hash.slice(0, 12)}…`,
  ];
  for (const split of SPLITS) lines.push('', ...splitLines(split, summary.splits[split]));
  if (summary.continual) {
    for (const split of SPLITS) lines.push('', ...splitLines(`stage two, ${split}`, summary.continual[split]));
  }
  const perReference = references.tokensPerReference.toFixed(1);
  lines.push(
    '',
    `references  ${references.references} from ${references.documents} documents, ${perReference} tokens each`,
  );
  for (const { title, text } of references.samples) lines.push(`  ${title ? `[${title}] ` : ''}${oneLine(text)}`);
  lines.push('', ...leftOutLines(summary));
  return lines.join('\n');
}

function splitLines(split: string, { documents, tokens, bytesPerToken, shards, windows }: SplitSummary): string[] {
  return [
    `${split.padEnd(11)} ${documents} documents, ${tokens} tokens, ${bytesPerToken.toFixed(2)} bytes a token`,
    ...shards.map((shard) => `  ${shard.file}  ${shard.tokens} tokens, ${shard.bytes} bytes`),
    ...windows.map(({ start, text }) => `  at token ${start}: ${oneLine(text)}`),
  ];
}

function leftOutLines({ leftOut: counts, examples }: DataSummary): string[] {
  const reasons = Object.entries(counts);
  if (reasons.length === 0) return ['nothing left out'];
  return [
    'left out',
    ...reasons.flatMap(([reason, count]) => [
      `  ${count} × ${reason}`,
      ...examples.filter((e) => e.reason === reason).map((e) => `      ${placeOf(e.path, e.offset)}: ${e.detail}`),
    ]),
  ];
}

/** Line ends made visible, so that a sample stays on its line; cut after 200 characters. */
function oneLine(text: string): string {
  const flat = text.replaceAll('\r', '').replaceAll('\n', '⏎');
  return flat.length > 200 ? `${flat.slice(0, 200)}…` : flat;
}

/**
 * Reads every byte of a data folder and compares it with the checksums.
 * @throws UserError for the first damaged or missing file, or a tokenizer that is not the one the data was made with
 */
export async function verifyData(folder: string): Promise<{ files: number; bytes: number }> {
  const paths = dataPaths(folder);
  const tokenizerHash = (await Tokenizer.load(paths.tokenizer)).hash;
  const { continual } = await readBuildReport(folder);
  const folders = [paths.tokens, ...(continual ? [paths.continualTokens] : [])];
  const sizes: number[] = [];
  for (const tokens of folders) {
    for (const split of SPLITS) {
      const dataset = await TokenDataset.open(tokens, split, { tokenizerHash });
      await dataset.verify();
      sizes.push(...dataset.shards.map(({ bytes }) => bytes));
    }
  }
  const references = await ReferenceDataset.open(paths.references, { tokenizerHash });
  await references.verify();
  sizes.push(references.manifest.file.bytes);
  return { files: sizes.length, bytes: sizes.reduce((sum, bytes) => sum + bytes, 0) };
}
