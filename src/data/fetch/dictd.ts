/** Dictionaries in the format of dictd: all entries in one file, an index of their places. */

import type { Corpus } from './corpus.ts';
import { decodeText, packageFile, unexpected, unzip } from './package_file.ts';

export interface DictionaryEntry {
  /** Byte of the dictionary that it begins at. */
  offset: number;
  text: string;
}

/**
 * The corpus of the Debian package `dict-<name>`: one text an entry.
 * @param read gives what an entry explains; undefined for one that explains nothing
 */
export function dictionaryCorpus(
  corpus: Omit<Corpus, 'packages' | 'licenceFiles' | 'read'>,
  read: (entry: string) => { title: string; text: string } | undefined,
): Corpus {
  const { name } = corpus;
  return {
    ...corpus,
    packages: [{ manager: 'debian', name: `dict-${name}` }],
    licenceFiles: [[`usr/share/doc/dict-${name}/copyright`]],
    async *read([folder]) {
      for await (const { offset, text } of packageDictionary(folder!, `usr/share/dictd/${name}`)) {
        const entry = read(text);
        if (entry) yield { id: `${name}-${offset}`, ...entry };
      }
    },
  };
}

/** The entries of a package's dictionary `<path>.dict.dz` and `<path>.index`. */
async function* packageDictionary(folder: string, path: string): AsyncGenerator<DictionaryEntry> {
  // dictzip is gzip with an index of its own in the header.
  const dictionary = await unzip(await packageFile(folder, `${path}.dict.dz`), `${path}.dict.dz`);
  const index = (await packageFile(folder, `${path}.index`)).toString('utf8');
  yield* dictionaryEntries(dictionary, index, `${path}.index`);
}

/**
 * The entries in the order of the text, each once, however many words lead to it.
 * @throws UserError input_invalid when the index names a place outside the dictionary
 */
export function* dictionaryEntries(
  dictionary: Uint8Array,
  index: string,
  indexFile: string,
): Generator<DictionaryEntry> {
  const lengths = new Map<number, number>();
  for (const line of index.split('\n')) {
    const [word = '', offset = '', length = ''] = line.split('\t');
    if (word === '' || word.startsWith('00-')) continue;
    lengths.set(base64Number(offset), base64Number(length));
  }
  for (const [offset, length] of [...lengths].sort(([a], [b]) => a - b)) {
    if (!(offset + length <= dictionary.length)) throw unexpected(indexFile, `it names byte ${offset + length}`);
    yield { offset, text: decodeText(dictionary.subarray(offset, offset + length)) };
  }
}

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** NaN when a character is no digit. */
function base64Number(digits: string): number {
  let value = 0;
  for (const digit of digits) {
    const number = DIGITS.indexOf(digit);
    value = number < 0 ? Number.NaN : value * 64 + number;
  }
  return value;
}
