/** `codec-keys.bin` and `codec-values.bin` in the folder of a bank: the codecs of its memories as Faiss wrote them. */

import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { sha256, writeFileAtomic } from '../io/files.ts';
import type { CodecDescription, StoredCodec, StoredCodecs } from './layout.ts';
import { readStoredBytes, repairAction } from './stored_json.ts';

const FILES = { keys: 'codec-keys.bin', values: 'codec-values.bin' } as const;
const codecSchema = z.strictObject({ factory: z.string(), codeBytes: z.int().min(1), stateHash: z.string() });

/** Which codecs a bank has, as `bank.json` and its segments say it. */
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

export async function writeCodecs(folder: string, { keys, values }: StoredCodecs): Promise<void> {
  await writeFileAtomic(join(folder, FILES.keys), keys.state);
  await writeFileAtomic(join(folder, FILES.values), values.state);
}

/** The codecs of a bank that has some. @throws UserError artefact_missing or file_corrupt, naming the file */
export async function readCodecs(
  folder: string,
  described: CodecDescriptions | undefined,
): Promise<StoredCodecs | undefined> {
  if (described === undefined) return undefined;
  const { keys, values } = described;
  return { keys: await readCodec(folder, 'keys', keys), values: await readCodec(folder, 'values', values) };
}

async function readCodec(
  folder: string,
  which: keyof typeof FILES,
  description: CodecDescription,
): Promise<StoredCodec> {
  const path = join(folder, FILES[which]);
  const action = repairAction(folder);
  const state = await readStoredBytes(path, action);
  if (sha256(state) === description.stateHash) return { ...description, state };
  const what = `the file does not match its checksum; without it the ${which} of the memories cannot be read`;
  throw new UserError('file_corrupt', { where: path, what, action });
}
