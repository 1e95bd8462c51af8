/** `codec-<hash>.bin` in the folder of a bank: a codec of its memories as Faiss wrote it, named by its bytes. */

import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ignoreUserError, UserError } from '../errors.ts';
import { sha256, writeFileAtomic } from '../io/files.ts';
import type { CodecDescription, StoredCodec, StoredCodecs } from './layout.ts';
import { readStoredBytes, repairAction } from './stored_json.ts';

const NAME = /^codec-[0-9a-f]{16}\.bin$/;
const codecSchema = z.strictObject({ factory: z.string(), codeBytes: z.int().min(1), stateHash: z.string() });

/** Which codecs a version has, as its manifest and its segments say it. */
export const codecsSchema = z.strictObject({ keys: codecSchema, values: codecSchema });
export type CodecDescriptions = z.infer<typeof codecsSchema>;

export function describeCodecs({ keys, values }: StoredCodecs): CodecDescriptions {
  const described = ({ factory, codeBytes, stateHash }: StoredCodec): CodecDescription => ({
    factory,
    codeBytes,
    stateHash,
  });
  return { keys: described(keys), values: described(values) };
}

/** Writes the codecs that are not there yet. @throws UserError disk_full */
export async function writeCodecs(folder: string, { keys, values }: StoredCodecs): Promise<void> {
  for (const codec of [keys, values]) {
    if ((await readCodec(folder, codec).catch(ignoreUserError)) !== undefined) continue;
    await writeFileAtomic(codecPath(folder, codec), codec.state);
  }
}

/** The codecs of a version that has some. @throws UserError artefact_missing or file_corrupt, naming the file */
export async function readCodecs(
  folder: string,
  described: CodecDescriptions | undefined,
): Promise<StoredCodecs | undefined> {
  if (described === undefined) return undefined;
  const { keys, values } = described;
  return { keys: await readCodec(folder, keys), values: await readCodec(folder, values) };
}

/** Removes the codecs that `named` does not name. */
export async function removeCodecsBeyond(
  folder: string,
  named: readonly (CodecDescriptions | undefined)[],
): Promise<void> {
  const kept = new Set(named.flatMap((codecs) => (codecs ? [codecs.keys, codecs.values].map(codecName) : [])));
  for (const name of await readdir(folder)) {
    if (NAME.test(name) && !kept.has(name)) await rm(join(folder, name), { force: true });
  }
}

async function readCodec(folder: string, description: CodecDescription): Promise<StoredCodec> {
  const { factory, codeBytes, stateHash } = description;
  const path = codecPath(folder, description);
  const action = repairAction(folder);
  const state = await readStoredBytes(path, action);
  if (sha256(state) === stateHash) return { factory, codeBytes, stateHash, state };
  const what = 'the file does not match its checksum, and without it memories cannot be read';
  throw new UserError('file_corrupt', { where: path, what, action });
}

/** Path of the file of a codec. */
export function codecPath(folder: string, codec: CodecDescription): string {
  return join(folder, codecName(codec));
}

function codecName({ stateHash }: CodecDescription): string {
  return `codec-${stateHash.slice(0, 16)}.bin`;
}
