/** What a build of data tells: its report as it is stored and shown, its warnings, and why nothing could be built. */

import { z } from 'zod';
import type { DataConfig, SourceConfig } from '../config/schema.ts';
import { ignoreUserError, UserError } from '../errors.ts';
import { readJson } from '../io/files.ts';
import { planSchema } from './build_plan.ts';
import type { CleanReport } from './clean_documents.ts';
import type { DataCounters } from './documents.ts';
import { countersSchema, REBUILD } from './manifest.ts';
import { dataPaths } from './paths.ts';
import {
  type Example,
  exampleSchema,
  type ShownReport,
  type SourceReport,
  sourceReportSchema,
  stageTimeSchema,
} from './report.ts';
import { sourceWeights } from './source_groups.ts';
import { isBadInput, placeOf } from './sources/problem.ts';
import { SPLITS, type Split } from './token_dataset.ts';

const reportSchema = z.strictObject({
  tokenizer: z.strictObject({ hash: z.string(), vocabSize: z.int(), trained: z.boolean() }),
  /** What became of `data.sources`, and of the text of stage two when it has its own. */
  sources: z.array(sourceReportSchema),
  continual: z.array(sourceReportSchema).optional(),
  references: z.strictObject({ references: z.int(), tokens: z.int(), counters: countersSchema }),
  examples: z.array(exampleSchema),
  stages: z.array(stageTimeSchema),
  /** What a user should know although it is no error. */
  warnings: z.array(z.string()),
  /** Hash of tokenizer, tokens and references. */
  contentHash: z.string(),
});
export type BuildReport = z.infer<typeof reportSchema>;

/** A complete build: plan and report. */
export const buildSchema = planSchema.extend({ report: reportSchema });

/** What the folder says it was built from; undefined when there is no (readable) build. */
export async function readBuild(folder: string): Promise<z.infer<typeof buildSchema> | undefined> {
  return buildSchema.safeParse(await readJson(dataPaths(folder).build, REBUILD).catch(ignoreUserError)).data;
}

/**
 * What the build of a data folder told.
 * @throws UserError artefact_missing, file_corrupt
 */
export async function readBuildReport(folder: string): Promise<BuildReport> {
  const where = dataPaths(folder).build;
  const parsed = buildSchema.safeParse(await readJson(where, REBUILD));
  if (parsed.success) return parsed.data.report;
  const what = 'not a report of this version of the program';
  throw new UserError('file_corrupt', { where, what, action: REBUILD, cause: parsed.error });
}

/**
 * What `memory3 data report` shows of a data folder.
 * @param data gives the weights and the length of a sequence, which belong to reading
 * @throws UserError artefact_missing, file_corrupt
 */
export async function readReport(
  folder: string,
  { sources, continual, sequenceLength }: DataConfig,
): Promise<ShownReport> {
  const report = await readBuildReport(folder);
  const weighted = (reports: readonly SourceReport[], list: readonly SourceConfig[]) => {
    const weights = sourceWeights(list);
    return reports.map((source) => ({ ...source, weight: weights?.get(source.name) }));
  };
  const { references, tokens, counters } = report.references;
  return {
    ...report,
    folder,
    sequenceLength,
    sources: weighted(report.sources, sources),
    ...(report.continual && { continual: weighted(report.continual, continual.sources) }),
    references: { references, tokens, documents: counters.documents },
  };
}

/** What a user should know of a build although it is no error. */
export function buildWarnings(
  data: DataConfig,
  { tokenizer, sources, continual, references }: Omit<BuildReport, 'warnings'>,
  tokenizerText: CleanReport | undefined,
): string[] {
  const { vocabSize } = data.tokenizer;
  const { sequenceLength, validationShare } = data;
  const warnings: string[] = [];
  if (tokenizer.trained && tokenizer.vocabSize < vocabSize) {
    warnings.push(
      `the vocabulary has ${tokenizer.vocabSize} tokens, not ${vocabSize}: no further pair occurs twice in the sample`,
    );
  }
  for (const split of validationShare > 0 ? SPLITS : (['train'] as const)) {
    const tokens = tokensOf(sources, split);
    const called = split === 'train' ? 'training' : split;
    if (tokens <= sequenceLength)
      warnings.push(`${tokens} ${called} tokens do not fill one sequence of ${sequenceLength}`);
  }
  for (const { name, train } of [...sources, ...(continual ?? [])]) {
    if (train.tokens <= sequenceLength && tokensOf(sources, 'train') > sequenceLength) {
      warnings.push(`the source ${name} does not fill one sequence of ${sequenceLength} tokens and is never seen`);
    }
  }
  if (data.references.length > 0 && references.references === 0) {
    warnings.push('`data.references` holds no usable text');
  }
  const unread = unreadWords([...sources, ...(continual ?? [])], references.counters);
  if (unread !== '') warnings.push(`not everything could be read: ${unread}; \`memory3 data report\` says where`);
  const unreadText = unreadWords(tokenizerText?.sources ?? []);
  if (unreadText !== '') warnings.push(`not everything of \`data.tokenizer.sources\` could be read: ${unreadText}`);
  return warnings;
}

const tokensOf = (sources: readonly SourceReport[], split: Split) =>
  sources.reduce((sum, source) => sum + source[split].tokens, 0);

/** What is left out because the input is at fault, by reason, in words; empty when nothing is. */
export function unreadWords(
  sources: readonly Pick<SourceReport, 'skipped'>[],
  references: Pick<DataCounters, 'skipped'> = { skipped: {} },
): string {
  const counts = new Map<string, number>();
  for (const [reason, count] of sources.flatMap(({ skipped }) => Object.entries(skipped))) {
    if (isBadInput(reason)) counts.set(reason, (counts.get(reason) ?? 0) + count);
  }
  const listed = [...counts].map(([reason, count]) => `${count} × ${reason}`);
  for (const [reason, count] of Object.entries(references.skipped)) {
    if (isBadInput(reason)) listed.push(`${count} × ${reason} in the references`);
  }
  return listed.join(', ');
}

/** Every example once: a file may be read for the tokens and for the references. */
export function withoutRepetition(examples: readonly Example[]): Example[] {
  const places = new Map(examples.map((example) => [`${example.reason}\0${example.path}\0${example.offset}`, example]));
  return [...places.values()];
}

/** The error of a build of which nothing is left. @param list the key of the sources in the configuration */
export function nothingUsable(list: string, { sources, examples }: CleanReport): UserError {
  const reasons = sources.flatMap(({ skipped, dropped }) => [
    ...Object.entries(skipped),
    ...Object.entries(dropped).map(([reason, { documents }]) => [reason, documents] as const),
  ]);
  const listed = reasons.map(([reason, count]) => `${count} × ${reason}`).join(', ') || 'none';
  const example: Example | undefined = examples[0];
  const isMissing = reasons.length > 0 && reasons.every(([reason]) => reason === 'no such file');
  return new UserError(isMissing ? 'input_missing' : 'input_empty', {
    where: example ? placeOf(example.path, example.offset) : list,
    what: `no usable document in ${list} (skipped: ${listed})${example ? `: ${example.detail}` : ''}`,
    action: isMissing
      ? 'check the path; relative paths are taken from the working directory'
      : 'check `textField`, the encoding of the files, `data.minDocumentCharacters` and `data.cleaning`',
  });
}
