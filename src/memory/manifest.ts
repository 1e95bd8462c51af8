/**
 * The versions of a bank. `bank.json` says what the bank is for, `manifest-<version>.json` lists the segments of a
 * version, and CURRENT, replaced atomically, names the newest whole version. Each names the next by hash.
 */

import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { sha256, sha256File, syncFolder, temporaryName, writeFileAtomic, writeJsonAtomic } from '../io/files.ts';
import {
  type CodecDescriptions,
  codecsSchema,
  describeCodecs,
  readCodecs,
  removeCodecsBeyond,
  writeCodecs,
} from './codec_files.ts';
import { readDraft } from './draft.ts';
import { removeIndexesBeyond } from './index_files.ts';
import type { BankIdentity, StoredCodecs } from './layout.ts';
import { type SegmentEntry, segmentEntrySchema, segmentFolder, segmentsOnDisk } from './segment.ts';
import { parseStored, readStored, readStoredBytes, repairAction } from './stored_json.ts';

const FORMAT_VERSION = 2;
export const BANK = 'bank.json';
export const ENCODER_STATE = 'encoder.bin';
const CURRENT = 'CURRENT';
const COMPILE = 'run `memory3 compile` to write one';

/** One version of a bank. */
export interface Manifest {
  version: number;
  segments: SegmentEntry[];
  /** What its memories are coded with, when they are. */
  codecs?: CodecDescriptions;
  /** sha256 over everything the version holds: the same memories in the same order give the same hash. */
  contentHash: string;
}

const bankSchema = z.strictObject({
  format: z.literal('memory3-bank'),
  formatVersion: z.literal(FORMAT_VERSION),
  modelKey: z.string(),
  tokenizerHash: z.string(),
  layout: z.strictObject({
    memoryLayers: z.int().min(1),
    kvHeads: z.int().min(1),
    keptTokens: z.int().min(1),
    headDim: z.int().min(1),
  }),
  storage: z.enum(['float32', 'float16', 'bfloat16']),
  encoder: z.strictObject({
    dimensions: z.int().min(1),
    description: z.record(z.string(), z.unknown()),
    stateHash: z.string(),
  }),
});

const manifestSchema = z.strictObject({
  format: z.literal('memory3-bank-manifest'),
  formatVersion: z.literal(FORMAT_VERSION),
  version: z.int().min(0),
  bankHash: z.string(),
  segments: z.array(segmentEntrySchema),
  codecs: codecsSchema.optional(),
  contentHash: z.string(),
});

const currentSchema = z.strictObject({
  formatVersion: z.literal(FORMAT_VERSION),
  version: z.int().min(0),
  contentHash: z.string(),
});

type DescribedIdentity = Omit<BankIdentity, 'encoder' | 'codecs'> & { encoder: Omit<BankIdentity['encoder'], 'state'> };

/** A bank folder seen as versions; knows nothing about the contents of segments. */
export class Versions {
  readonly folder: string;
  /** What all versions have in common. */
  readonly identity: Omit<BankIdentity, 'codecs'>;
  #bankHash: string;
  /** The codecs that were read last; most versions have the same. */
  #codecs: StoredCodecs | undefined;

  private constructor(folder: string, identity: Omit<BankIdentity, 'codecs'>, bankHash: string) {
    this.folder = folder;
    this.identity = identity;
    this.#bankHash = bankHash;
  }

  /**
   * Makes an empty bank of version 0. What a creation that was killed left behind is removed first.
   * @throws UserError input_invalid when a bank is there already
   */
  static async create(folder: string, { codecs, ...identity }: BankIdentity): Promise<Versions> {
    await mkdir(folder, { recursive: true });
    const names = await readdir(folder);
    if (names.some((name) => name === CURRENT || name.startsWith('segment-') || (versionOf(name) ?? 0) > 0)) {
      const action = 'delete the folder to start again, or add to the bank that is there';
      throw new UserError('input_invalid', { where: folder, what: 'the folder holds a memory bank already', action });
    }
    await removeTemporaries(folder);
    const description = bankDescription(identity, sha256(identity.encoder.state));
    await writeFileAtomic(join(folder, ENCODER_STATE), identity.encoder.state);
    await writeJsonAtomic(join(folder, BANK), description);
    const versions = new Versions(folder, identity, await sha256File(join(folder, BANK)));
    await versions.write(0, [], codecs);
    return versions;
  }

  /** Opens the folder of a bank. @throws UserError artefact_missing, file_corrupt or version_unsupported */
  static async open(folder: string): Promise<Versions> {
    await readStored(join(folder, CURRENT), COMPILE);
    return await Versions.openWithoutCurrent(folder);
  }

  /** Opens a folder whose CURRENT may be damaged. */
  static async openWithoutCurrent(folder: string): Promise<Versions> {
    const path = join(folder, BANK);
    const action = repairAction(folder);
    const text = await readStored(path, action);
    const stored = parseStored(text, bankSchema, FORMAT_VERSION, path, action);
    const { modelKey, tokenizerHash, layout, storage } = stored;
    const { dimensions, description, stateHash } = stored.encoder;
    const encoder = { dimensions, description, state: await readState(join(folder, ENCODER_STATE), stateHash, action) };
    const identity = { modelKey, tokenizerHash, layout, storage, encoder };
    return new Versions(folder, identity, sha256(text));
  }

  /** The version that CURRENT names. */
  async current(): Promise<Manifest> {
    const path = join(this.folder, CURRENT);
    const action = repairAction(this.folder);
    const current = parseStored(await readStored(path, COMPILE), currentSchema, FORMAT_VERSION, path, action);
    const manifest = await this.read(current.version);
    if (manifest.contentHash !== current.contentHash) {
      const what = `it names a version ${current.version} with other contents than ${manifestName(current.version)}`;
      throw new UserError('file_corrupt', { where: path, what, action });
    }
    return manifest;
  }

  /** A version up to the current one. @throws UserError artefact_missing, naming the versions that there are */
  async get(version: number): Promise<Manifest> {
    const current = await this.current();
    if (version === current.version) return current;
    const there = (await this.numbers()).filter((number) => number <= current.version);
    if (there.includes(version)) return this.read(version);
    throw new UserError('artefact_missing', {
      where: this.folder,
      what: `version ${version} of the bank is not there; there are ${there.join(', ')}`,
      action: 'resume from a checkpoint that names one of these, or delete the folder and run `memory3 compile`',
    });
  }

  /** Numbers of the manifests in the folder, ascending; those above the current one are leftovers. */
  async numbers(): Promise<number[]> {
    const numbers = (await readdir(this.folder)).map(versionOf).filter((number) => number !== undefined);
    return numbers.sort((a, b) => a - b);
  }

  /** What a version was made for, its codecs read. @throws UserError artefact_missing or file_corrupt */
  async identityOf({ codecs }: Pick<Manifest, 'codecs'>): Promise<BankIdentity> {
    const isSame = (['keys', 'values'] as const).every((of) => this.#codecs?.[of].stateHash === codecs?.[of].stateHash);
    if (!isSame) this.#codecs = await readCodecs(this.folder, codecs);
    return codecs === undefined ? this.identity : { ...this.identity, codecs: this.#codecs };
  }

  /** Writes a version and makes it current. Its segments must be in place. */
  async write(version: number, segments: readonly SegmentEntry[], stored?: StoredCodecs): Promise<Manifest> {
    const codecs = stored && describeCodecs(stored);
    if (stored !== undefined) await writeCodecs(this.folder, stored);
    const contentHash = this.#contentHash({ version, segments, codecs });
    await writeJsonAtomic(join(this.folder, manifestName(version)), {
      format: 'memory3-bank-manifest',
      formatVersion: FORMAT_VERSION,
      version,
      bankHash: this.#bankHash,
      segments,
      codecs,
      contentHash,
    });
    const manifest = { version, segments: [...segments], codecs, contentHash };
    await this.makeCurrent(manifest);
    return manifest;
  }

  async makeCurrent(manifest: Manifest): Promise<void> {
    const { version, contentHash } = manifest;
    await writeJsonAtomic(join(this.folder, CURRENT), { formatVersion: FORMAT_VERSION, version, contentHash });
  }

  /**
   * Removes all versions but `keep`, then segments that neither a remaining version nor a draft names, then temporary files. A kill in
   * between leaves segments without a version, which the next call removes.
   * @throws UserError file_corrupt when a kept version cannot be read; nothing is removed then
   */
  async removeAllBut(keep: readonly number[]): Promise<void> {
    const numbers = await this.numbers();
    const kept = await Promise.all(
      numbers.filter((number) => keep.includes(number)).map((number) => this.read(number)),
    );
    const dropped = numbers.filter((number) => !keep.includes(number));
    for (const number of dropped) await rm(join(this.folder, manifestName(number)), { force: true });
    if (dropped.length > 0) await syncFolder(this.folder);
    const draft = await readDraft(this.folder);
    const entries = [...kept.flatMap(({ segments }) => segments), ...(draft?.segments ?? [])];
    const named = new Set(entries.map(({ id }) => id));
    for (const id of await segmentsOnDisk(this.folder)) {
      if (!named.has(id)) await removeWhole(segmentFolder(this.folder, id));
    }
    await removeIndexesBeyond(this.folder, named);
    await removeCodecsBeyond(
      this.folder,
      [...kept, draft].map((holder) => holder?.codecs),
    );
    await removeTemporaries(this.folder);
  }

  /** A version, whether or not CURRENT has come to it. @throws UserError artefact_missing or file_corrupt */
  async read(version: number): Promise<Manifest> {
    const path = join(this.folder, manifestName(version));
    const action = repairAction(this.folder);
    const stored = parseStored(await readStored(path, action), manifestSchema, FORMAT_VERSION, path, action);
    const { segments, codecs, contentHash } = stored;
    if (stored.bankHash !== this.#bankHash) {
      throw new UserError('file_corrupt', { where: path, what: `the file belongs to another ${BANK}`, action });
    }
    if (stored.version !== version || this.#contentHash(stored) !== contentHash) {
      throw new UserError('file_corrupt', { where: path, what: 'the file does not match its own hash', action });
    }
    return { version, segments, codecs, contentHash };
  }

  #contentHash({
    version,
    segments,
    codecs,
  }: Omit<Manifest, 'contentHash' | 'segments'> & { segments: readonly SegmentEntry[] }): string {
    const entries = segments.map(({ id, memories, writer, deleted }) => [id, memories, writer, deleted]);
    return sha256(JSON.stringify([this.#bankHash, version, entries, ...(codecs ? [codecs] : [])]));
  }
}

/** What `bank.json` holds. */
export function bankDescription(
  { modelKey, tokenizerHash, layout, storage, encoder }: DescribedIdentity,
  stateHash: string,
): z.infer<typeof bankSchema> {
  const { dimensions, description } = encoder;
  return {
    format: 'memory3-bank',
    formatVersion: FORMAT_VERSION,
    modelKey,
    tokenizerHash,
    layout,
    storage,
    encoder: { dimensions, description, stateHash },
  };
}

async function readState(path: string, expectedHash: string, action: string): Promise<Uint8Array> {
  const state = await readStoredBytes(path, action);
  if (sha256(state) !== expectedHash) {
    throw new UserError('file_corrupt', { where: path, what: 'the file does not match its checksum', action });
  }
  return state;
}

export function manifestName(version: number): string {
  return `manifest-${version}.json`;
}

function versionOf(name: string): number | undefined {
  const match = /^manifest-(\d+)\.json$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

/** Removes a folder so that its name never stands for half of its contents. */
async function removeWhole(folder: string): Promise<void> {
  const temporary = temporaryName(folder);
  await rename(folder, temporary);
  await rm(temporary, { recursive: true, force: true });
}

/** Removes what a process that was killed while writing left behind. */
async function removeTemporaries(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name.startsWith('.') && name.endsWith('.tmp')) await rm(join(folder, name), { recursive: true, force: true });
  }
}
