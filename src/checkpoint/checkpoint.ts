/**
 * Checkpoints of a run: folders `step-00001000/` holding `model.safetensors`, `optimizer.safetensors` and, written last,
 * `state.json` with the sha256 of both and of itself. A folder appears under its name complete or not at all.
 */

import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { modelSchema } from '../config/schema.ts';
import { isSystemError, UserError } from '../errors.ts';
import {
  diskError,
  makeFolder,
  readJson,
  replaceFolder,
  sha256,
  sha256File,
  syncFolder,
  temporaryName,
  writeJsonAtomic,
} from '../io/files.ts';
import { type NamedArray, readSafetensors, type Safetensors, weightsHash, writeSafetensors } from './safetensors.ts';

const VERSION = 1;
const MODEL_FILE = 'model.safetensors';
const OPTIMIZER_FILE = 'optimizer.safetensors';
const STATE_FILE = 'state.json';
const ANOTHER = 'resume from another checkpoint, or with --resume auto from the newest good one';

const hash = z.string().regex(/^[0-9a-f]{64}$/);
const count = z.int().min(0);

const stateSchema = z.strictObject({
  version: z.literal(VERSION),
  stage: z.enum(['warmup', 'continual']),
  step: count.describe('Optimiser steps done; also the position in the sample order.'),
  tokensSeen: count,
  modelConfig: modelSchema.extend({ vocabSize: z.int().min(1) }),
  tokenizerHash: z.string().min(1),
  datasetHash: z.string().min(1),
  weightsHash: hash.describe('`weightsHash` of the parameters saved here.'),
  parent: hash.optional().describe('`weightsHash` of the stage-one weights that stage two began with.'),
  bankVersion: z.union([z.string(), z.number()]).optional(),
  bankWriters: z.array(z.string()).optional().describe('`weightsHash` of every model that wrote memories of the bank.'),
  bankWritten: z
    .record(z.string(), count)
    .optional()
    .describe('Steps of stage two that weights had made when they wrote memories of the bank, by their `weightsHash`.'),
  metricsRows: z.record(z.string(), count).describe('Rows of each metrics file that belong to this checkpoint.'),
  bestValidation: z.strictObject({ step: count, loss: z.number() }).optional(),
  config: z.unknown().describe('The resolved run configuration.'),
});

/** Everything of a training state that is not a tensor. */
export type CheckpointState = z.infer<typeof stateSchema>;
/** What the trainer says; version, step and weights hash are filled in on saving. */
export type CheckpointInput = Omit<CheckpointState, 'version' | 'step' | 'weightsHash'>;

const fileSchema = z.strictObject({ bytes: count, sha256: hash });
const documentSchema = z.strictObject({
  checksum: hash,
  files: z.strictObject({ [MODEL_FILE]: fileSchema, [OPTIMIZER_FILE]: fileSchema }),
  state: stateSchema,
});
type StateDocument = z.infer<typeof documentSchema>;

export interface Checkpoint {
  path: string;
  parameters: Map<string, NamedArray>;
  /** Empty when the checkpoint was loaded without it. */
  optimizer: Map<string, NamedArray>;
  state: CheckpointState;
}

/** The folder name of a step, padded so that names sort as numbers do. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(8, '0')}`;
}

/**
 * Saves a checkpoint as `<folder>/step-<step>`. Interrupted at any point, the folder holds what it held before, or the
 * new checkpoint, complete. A checkpoint of the same step is replaced.
 * @throws UserError disk_full, with the older checkpoints intact
 */
export async function saveCheckpoint(
  folder: string,
  step: number,
  content: {
    parameters: ReadonlyMap<string, NamedArray>;
    optimizer: ReadonlyMap<string, NamedArray>;
    state: CheckpointInput;
  },
): Promise<{ path: string; state: CheckpointState }> {
  const { parameters, optimizer } = content;
  // Parsed before writing, so that a state that could not be loaded again is never saved; the detour over JSON drops
  // what JSON cannot hold.
  const draft = { ...content.state, version: VERSION, step, weightsHash: weightsHash(parameters) };
  const state = stateSchema.parse(JSON.parse(JSON.stringify(draft)));
  const target = join(folder, checkpointName(step));
  const temporary = temporaryName(target);
  try {
    await makeFolder(folder);
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary);
    const files = {
      [MODEL_FILE]: await writeSafetensors(join(temporary, MODEL_FILE), parameters, { format: 'pt' }),
      [OPTIMIZER_FILE]: await writeSafetensors(join(temporary, OPTIMIZER_FILE), optimizer),
    };
    await writeJsonAtomic(join(temporary, STATE_FILE), { checksum: checksumOf(files, state), files, state });
    await replaceFolder(temporary, target);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw diskError(error, target);
  }
  return { path: target, state };
}

function checksumOf(files: unknown, state: unknown): string {
  return sha256(JSON.stringify([files, state]));
}

/**
 * Loads a checkpoint; every byte is checked against its hash.
 * @param options.optimizer false leaves the optimiser's file unread (for reading a model only)
 * @throws UserError artefact_missing, version_unsupported, file_truncated, file_corrupt
 */
export async function loadCheckpoint(path: string, options: { optimizer?: boolean } = {}): Promise<Checkpoint> {
  const { files, state } = await readState(path);
  const parameters = await readTensors(join(path, MODEL_FILE), files[MODEL_FILE].sha256);
  const optimizer =
    options.optimizer === false
      ? new Map()
      : await readTensors(join(path, OPTIMIZER_FILE), files[OPTIMIZER_FILE].sha256);
  return { path, parameters, optimizer, state };
}

async function readTensors(path: string, expected: string): Promise<Map<string, NamedArray>> {
  const file = await readSafetensors(path);
  if (file.sha256 !== expected) throw hashMismatch(path);
  return new Map([...floats(file, path)]);
}

function* floats({ tensors }: Safetensors, path: string): Generator<[string, NamedArray]> {
  for (const [name, { shape, data }] of tensors) {
    if (!(data instanceof Float32Array)) {
      throw new UserError('file_corrupt', { where: path, what: `tensor ${name} is not of floats`, action: ANOTHER });
    }
    yield [name, { shape, data }];
  }
}

/**
 * Checks a checkpoint as `loadCheckpoint` does, without holding its tensors.
 * @returns its state
 */
export async function verifyCheckpoint(path: string): Promise<CheckpointState> {
  const { files, state } = await readState(path);
  for (const [name, { sha256: expected }] of Object.entries(files)) {
    if ((await sha256File(join(path, name))) !== expected) throw hashMismatch(join(path, name));
  }
  return state;
}

function hashMismatch(path: string): UserError {
  return new UserError('file_corrupt', {
    where: path,
    what: 'its bytes are not those that were saved',
    action: ANOTHER,
  });
}

/** Reads `state.json`, verified by its checksum, and the sizes of the files that it names. */
async function readState(path: string): Promise<StateDocument> {
  const where = join(path, STATE_FILE);
  const raw = await readJson(where, ANOTHER);
  const version = z.object({ state: z.object({ version: z.int() }) }).safeParse(raw).data?.state.version;
  if (version !== undefined && version !== VERSION) {
    throw new UserError('version_unsupported', {
      where,
      what: `the checkpoint has format version ${version}; this program reads version ${VERSION}`,
      action: 'use the version of memory3 that wrote it',
    });
  }
  const parsed = documentSchema.safeParse(raw);
  // The checksum is over the text as it was written, not as the schema understands it.
  const written = raw as { files?: unknown; state?: unknown };
  if (!parsed.success || parsed.data.checksum !== checksumOf(written.files, written.state)) {
    throw new UserError('file_corrupt', { where, what: 'it is not the state that was saved', action: ANOTHER });
  }
  for (const [name, { bytes }] of Object.entries(parsed.data.files)) await checkSize(join(path, name), bytes);
  return parsed.data;
}

async function checkSize(path: string, bytes: number): Promise<void> {
  let size: number;
  try {
    ({ size } = await stat(path));
  } catch (error) {
    if (!isSystemError(error) || error.code !== 'ENOENT') throw error;
    throw new UserError('artefact_missing', { where: path, what: 'the file does not exist', action: ANOTHER });
  }
  if (size < bytes) {
    throw new UserError('file_truncated', { where: path, what: `it has ${size} of ${bytes} bytes`, action: ANOTHER });
  }
  if (size > bytes) {
    throw new UserError('file_corrupt', { where: path, what: `it has ${size} bytes, not ${bytes}`, action: ANOTHER });
  }
}

/** The checkpoints of `folder`, valid or not, newest first. A folder that does not exist has none. */
export async function listCheckpoints(folder: string): Promise<{ step: number; path: string }[]> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    if (isSystemError(error) && error.code === 'ENOENT') return [];
    throw error;
  }
  return names
    .map((name) => ({ step: Number(/^step-(\d{8,})$/.exec(name)?.[1] ?? Number.NaN), path: join(folder, name) }))
    .filter(({ step }) => Number.isSafeInteger(step))
    .sort((a, b) => b.step - a.step);
}

/** The states of the checkpoints in `folder` that look whole, newest first. Their tensors are not read. */
export async function checkpointStates(folder: string): Promise<CheckpointState[]> {
  const states: CheckpointState[] = [];
  for (const { path } of await listCheckpoints(folder)) {
    try {
      states.push((await readState(path)).state);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
    }
  }
  return states;
}

export interface InvalidCheckpoint {
  path: string;
  error: UserError;
}

/**
 * The newest checkpoint of `folder` whose every byte is as it was saved.
 * @returns `newest` (absent when there is none) and the newer ones that were passed over, with the reason
 */
export async function latestCheckpoint(
  folder: string,
): Promise<{ newest?: { path: string; state: CheckpointState }; invalid: InvalidCheckpoint[] }> {
  const invalid: InvalidCheckpoint[] = [];
  for (const { path } of await listCheckpoints(folder)) {
    try {
      return { newest: { path, state: await verifyCheckpoint(path) }, invalid };
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      invalid.push({ path, error });
    }
  }
  return { invalid };
}

/**
 * Deletes old checkpoints. Kept are the newest `keep` that are whole, that of `bestStep`, and any that is newer than
 * those. One that is not whole never counts as kept.
 * @returns the paths deleted
 */
export async function retain(folder: string, keep: number, bestStep?: number): Promise<string[]> {
  const deleted: string[] = [];
  let kept = 0;
  for (const { step, path } of await listCheckpoints(folder)) {
    if (kept < keep) {
      if (await looksWhole(path)) kept++;
    } else if (step !== bestStep) {
      await deleteCheckpoint(path);
      deleted.push(path);
    }
  }
  return deleted;
}

/** True when the state is as saved and the files have their sizes; hashing them all at each save would cost too much. */
async function looksWhole(path: string): Promise<boolean> {
  try {
    await readState(path);
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

/**
 * Deletes the checkpoints after `step`: a run that resumes there writes its own, and those of the abandoned course must
 * not be taken for newer ones.
 * @returns the paths deleted
 */
export async function removeAfter(folder: string, step: number): Promise<string[]> {
  const later = (await listCheckpoints(folder)).filter((checkpoint) => checkpoint.step > step);
  for (const { path } of later) await deleteCheckpoint(path);
  return later.map(({ path }) => path);
}

/** Renamed first, so that a half-deleted checkpoint never stands under a checkpoint's name. */
async function deleteCheckpoint(path: string): Promise<void> {
  const temporary = temporaryName(path);
  await rm(temporary, { recursive: true, force: true });
  await rename(path, temporary);
  await syncFolder(dirname(path));
  await rm(temporary, { recursive: true });
}
