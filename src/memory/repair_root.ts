/** Making `bank.json` and `encoder.bin` again: what they held is in the segments, and known by the manifests' hash. */

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { sha256, writeFileAtomic } from '../io/files.ts';
import { BANK, bankDescription, ENCODER_STATE, Versions } from './manifest.ts';

export interface RootSources {
  /** The fitted numbers of a retrieval encoder, fitted again; undefined when they cannot be. */
  encoderState(description: Record<string, unknown>): Promise<Uint8Array | undefined>;
}

/** What every segment says of its bank. */
const ownerSchema = z.object({
  modelKey: z.string(),
  tokenizerHash: z.string(),
  layout: z.object({ memoryLayers: z.int(), kvHeads: z.int(), keptTokens: z.int(), headDim: z.int() }),
  storage: z.enum(['float32', 'float16', 'bfloat16']),
  encoder: z.record(z.string(), z.unknown()),
  dimensions: z.int(),
});

/**
 * Opens the versions of a bank; writes `bank.json` and `encoder.bin` anew when they are damaged.
 * @returns undefined when that cannot be done; `report.left` says why
 */
export async function repairRoot(
  folder: string,
  sources: RootSources,
  report: { done: string[]; left: UserError[] },
): Promise<Versions | undefined> {
  const expected = await bankHashes(folder);
  try {
    const versions = await Versions.openWithoutCurrent(folder);
    if (expected.size === 0 || expected.has(sha256(await readFile(join(folder, BANK))))) return versions;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
  }
  const state = await readFile(join(folder, ENCODER_STATE)).catch(() => undefined);
  for (const owner of await owners(folder)) {
    const { encoder: description, dimensions, ...identity } = owner;
    for (const make of [() => state, () => new Uint8Array(0), () => sources.encoderState(description)]) {
      const made = await make();
      if (made === undefined) continue;
      const bank = bankDescription({ ...identity, encoder: { dimensions, description } }, sha256(made));
      const text = `${JSON.stringify(bank, null, 2)}\n`;
      if (!expected.has(sha256(text))) continue;
      await writeFileAtomic(join(folder, ENCODER_STATE), made);
      await writeFileAtomic(join(folder, BANK), text);
      report.done.push(made === state ? `made ${BANK} again` : `made ${BANK} and ${ENCODER_STATE} again`);
      return await Versions.openWithoutCurrent(folder);
    }
  }
  const what = `${BANK} or ${ENCODER_STATE} is damaged, and nothing is left that it could be made from`;
  const action = 'restore the folder from a copy, or delete it and run `memory3 compile`';
  report.left.push(new UserError('file_corrupt', { where: folder, what, action }));
  return undefined;
}

/** The hashes of `bank.json` that the manifests name: one, unless some are damaged. */
async function bankHashes(folder: string): Promise<Set<string>> {
  const names = (await readdir(folder)).filter((name) => /^manifest-\d+\.json$/.test(name));
  const schema = z.object({ bankHash: z.string() });
  const said = await Promise.all(names.map((name) => parsed(join(folder, name), schema)));
  return new Set(said.flatMap((manifest) => manifest?.bankHash ?? []));
}

/** What the segments say of their bank, without repetitions. */
async function owners(folder: string): Promise<z.infer<typeof ownerSchema>[]> {
  const names = (await readdir(folder)).filter((name) => name.startsWith('segment-'));
  const said = await Promise.all(names.map((name) => parsed(join(folder, name, 'segment.json'), ownerSchema)));
  return [
    ...new Map(said.filter((owner) => owner !== undefined).map((owner) => [JSON.stringify(owner), owner])).values(),
  ];
}

async function parsed<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return undefined;
  }
}
