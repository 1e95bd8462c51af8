/** What a build of data read, dropped and wrote: stored with the data, shown by `memory3 data report`. */

import { z } from 'zod';

/** A record or document that was left out, or a few of those, as an example of its reason. */
export const exampleSchema = z.strictObject({
  reason: z.string(),
  path: z.string(),
  /** Byte of the (uncompressed) file, or row of a table. */
  offset: z.int(),
  /** What exactly: the value that a rule measured, the error of a parser, the earlier document. */
  detail: z.string(),
  /** The beginning of its text, where there is one. */
  excerpt: z.string().optional(),
});
export type Example = z.infer<typeof exampleSchema>;
/** Kept of each reason, in each source. */
export const EXAMPLES_PER_REASON = 3;

const splitSchema = z.strictObject({ documents: z.int(), tokens: z.int(), bytes: z.int() });

/** What became of one source (all sources of one name). */
export const sourceReportSchema = z.strictObject({
  name: z.string(),
  weight: z.number().optional(),
  files: z.int(),
  /** Bytes of the files as they lie on the disk. */
  fileBytes: z.int(),
  /** Documents and UTF-8 bytes of text read from them, before any rule. */
  documents: z.int(),
  bytes: z.int(),
  /** Records that could not be read, by reason. */
  skipped: z.record(z.string(), z.int()),
  /** Documents that a rule or the search for duplicates dropped, by reason. */
  dropped: z.record(z.string(), z.strictObject({ documents: z.int(), bytes: z.int() })),
  /** What is trained on and what is held out. */
  train: splitSchema,
  validation: splitSchema,
});
export type SourceReport = z.infer<typeof sourceReportSchema>;

/** How long a stage of the build took; a build that went on after an interruption counts the last run only. */
export const stageTimeSchema = z.strictObject({
  stage: z.string(),
  seconds: z.number(),
  /** UTF-8 bytes of text that went through it in that time. */
  bytes: z.int(),
});
export type StageTime = z.infer<typeof stageTimeSchema>;

/** All that `memory3 data report` shows of a data folder. */
export interface ShownReport {
  folder: string;
  /** Tokens of a training sequence. */
  sequenceLength: number;
  sources: SourceReport[];
  /** Text of stage two, when it has its own. */
  continual?: SourceReport[];
  examples: Example[];
  stages: StageTime[];
  warnings: string[];
  tokenizer: { vocabSize: number; hash: string; trained: boolean };
  references: { references: number; documents: number; tokens: number };
}
