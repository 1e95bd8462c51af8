/**
 * `draft.json` in the folder of a bank: segments that are finished for a version that is not, so that writing many memories
 * goes on where it was stopped. Nothing reads them before a manifest names them.
 */

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { writeJsonAtomic } from '../io/files.ts';
import { type CodecDescriptions, codecsSchema } from './codec_files.ts';
import { type SegmentEntry, segmentEntrySchema } from './segment.ts';
import { parseStored, readStored } from './stored_json.ts';

const FORMAT_VERSION = 1;
const DRAFT = 'draft.json';

export interface Draft {
  /** Says what is being written, by which weights and in which order. */
  key: string;
  segments: SegmentEntry[];
  /** What the memories are coded with, when they are. */
  codecs?: CodecDescriptions;
}

const draftSchema = z.strictObject({
  formatVersion: z.literal(FORMAT_VERSION),
  key: z.string(),
  segments: z.array(segmentEntrySchema),
  codecs: codecsSchema.optional(),
});

/** The draft in a bank's folder; undefined when there is none that can be read, for then the work just begins anew. */
export async function readDraft(folder: string): Promise<Draft | undefined> {
  const path = join(folder, DRAFT);
  try {
    const { key, segments, codecs } = parseStored(await readStored(path, ''), draftSchema, FORMAT_VERSION, path, '');
    return { key, segments, codecs };
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

/** Replaces the draft. Its segments must be in place. */
export async function writeDraft(folder: string, { key, segments, codecs }: Draft): Promise<void> {
  await writeJsonAtomic(join(folder, DRAFT), { formatVersion: FORMAT_VERSION, key, segments, codecs });
}

/** Removes the draft; its segments belong to nobody then. */
export async function removeDraft(folder: string): Promise<void> {
  await rm(join(folder, DRAFT), { force: true });
}
