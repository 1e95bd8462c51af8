/** What a bank holds and how many bytes it takes. */

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bank } from './bank.ts';
import { indexesOnDisk, readIndexDescription } from './index_files.ts';
import { type BankIdentity, type MemoryLayout, rowLength } from './layout.ts';
import { Versions } from './manifest.ts';
import { segmentBytes } from './segment.ts';

export interface BankStats {
  folder: string;
  /** The version described, and all versions that can be opened. */
  version: number;
  versions: number[];
  memories: number;
  /** Deleted memories whose bytes are still in segments of this version. */
  tombstones: number;
  segments: number;
  /** Bytes of the files: of this version by kind, and of the whole folder with all its versions. */
  bytes: { rows: number; vectors: number; records: number; folder: number };
  /** Numbers of a memory, 2 · memory layers · key-value heads · kept tokens · head dimension (paper §3.3), and its bytes. */
  memory: MemoryLayout & { numbers: number; bytes: number; bytesPerNumber: number };
  /** Type of the stored numbers, or the codecs that stand for them. */
  storage: string;
  /** Memories by the hash of the weights that wrote them. */
  writers: Record<string, number>;
  modelKey: string;
  tokenizerHash: string;
  /** Kind and parameters of the retrieval encoder. */
  encoder: Record<string, unknown>;
  /** `exact`, or the Faiss index beside the segments. */
  index: string;
}

/** Describes a version of a bank; reads no memory. @throws UserError when the folder cannot be read as a bank */
export async function bankStats(bank: Bank): Promise<BankStats> {
  const { folder, identity, segments } = bank;
  const versions = await Versions.open(folder);
  const current = await versions.current();
  const bytes = { rows: 0, vectors: 0, records: 0, folder: await folderBytes(folder) };
  const writers: Record<string, number> = {};
  let [tombstones, stored] = [0, 0];
  for (const { id, memories, deleted, writer } of segments) {
    const size = await segmentBytes(folder, id);
    bytes.rows += size.rows;
    bytes.vectors += size.vectors;
    bytes.records += size.records;
    tombstones += deleted.length;
    stored += memories;
    writers[writer] = (writers[writer] ?? 0) + memories - deleted.length;
  }
  const numbers = rowLength(identity.layout);
  const each = stored === 0 ? 0 : bytes.rows / stored;
  return {
    folder,
    version: bank.version,
    versions: (await versions.numbers()).filter((number) => number <= current.version),
    memories: bank.size,
    tombstones,
    segments: segments.length,
    bytes,
    memory: { ...identity.layout, numbers, bytes: each, bytesPerNumber: each / numbers },
    storage: storageOf(identity),
    writers,
    modelKey: identity.modelKey,
    tokenizerHash: identity.tokenizerHash,
    encoder: { ...identity.encoder.description, dimensions: identity.encoder.dimensions },
    index: await indexOf(folder),
  };
}

/** How the numbers of memories are stored, in words. */
function storageOf({ storage, codecs }: BankIdentity): string {
  if (codecs === undefined) return storage;
  const { keys, values } = codecs;
  return `codes: keys ${keys.factory}, ${keys.codeBytes} bytes; values ${values.factory}, ${values.codeBytes} bytes`;
}

/** The index in words. */
async function indexOf(folder: string): Promise<string> {
  const names = await indexesOnDisk(folder);
  if (names.length === 0) return 'exact';
  const described = await Promise.all(names.map((name) => readIndexDescription(folder, name)));
  return described
    .map(({ factory, parameters, reason }) => {
      const settings = Object.entries(parameters).map(([name, value]) => ` ${name}=${value}`);
      return `${factory}${settings.join('')} (${reason})`;
    })
    .join(', ');
}

/** Bytes of all files below a folder. */
export async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).size;
  }
  return bytes;
}
