/** Classical Chinese poetry and prose, mostly of Tang and Song, in the script that the collection has. */

import { sha256 } from '../../io/files.ts';
import type { Corpus, CorpusText } from './corpus.ts';
import { packageFile, packageFiles, parseJson, unexpected } from './package_file.ts';

/** What is no text: mistakes that were set aside, ranks of search engines, patterns of tones, lives of authors. */
const OTHER = /(^|\/)(error|rank|strains)\/|(^|\/)authors?\.[^/]*$/;

export const chinesePoetry: Corpus = {
  name: 'chinese-poetry',
  describe: 'classical Chinese poems and prose, mostly in traditional script',
  language: 'Chinese',
  megabytes: 90.1,
  licence: 'public domain; collection MIT',
  packages: [
    {
      manager: 'npm',
      name: 'chinese-poetry',
      version: '2.0.1',
      integrity: 'sha512-KtYARvV7CWNtax0na9+Jn6PlhGgSoid7PWyDzXI4KsCEm2odZcqEQyval5koaLygZnM/EQ3lfJ//25K8p3uHNg==',
    },
  ],
  licenceFiles: [['LICENSE']],
  async *read([folder]) {
    const files = (await packageFiles(folder!, 'dist')).filter((file) => file.endsWith('.json') && !OTHER.test(file));
    const seen = new Set<string>();
    for (const file of files) {
      for (const poem of poems(await packageFile(folder!, `dist/${file}`), file)) {
        // Collections overlap: a poem is kept where it is met first.
        const hash = sha256(Buffer.from(poem.text.replace(/\s+/g, ''))).slice(0, 24);
        if (seen.has(hash)) continue;
        seen.add(hash);
        yield poem;
      }
    }
  },
};

/** The poems of a file in their order, each with title and author in its first line: 《title》author. */
export function* poems(json: Uint8Array, file: string): Generator<CorpusText> {
  const value = parseJson(json, file);
  if (typeof value !== 'object' || value === null) throw unexpected(file, 'the file holds no list of poems');
  let number = 0;
  for (const { title, author, lines } of pieces(value, {})) {
    const heading = title === '' ? author : `《${title}》${author}`;
    yield {
      id: `poetry-${file.replace(/\.json$/, '')}-${number++}`,
      title: author === '' ? title : `${title} ${author}`.trim(),
      text: [heading, ...lines].filter((line) => line !== '').join('\n'),
    };
  }
}

interface Piece {
  title: string;
  author: string;
  lines: string[];
}

/** Collections differ in their names of fields, and some have books of chapters of texts. */
function* pieces(value: unknown, above: Partial<Piece>): Generator<Piece> {
  if (Array.isArray(value)) {
    for (const entry of value) yield* pieces(entry, above);
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  const entry = value as Record<string, unknown>;
  const named = ['title', 'rhythmic', 'chapter'].map((field) => entry[field]).find(isWord);
  const title = named?.replace(/\s+/g, ' ').trim() ?? above.title ?? '';
  const author = isWord(entry.author) ? entry.author.trim() : (above.author ?? '');
  const body = entry.paragraphs ?? entry.para ?? entry.content ?? [];
  const lines = [body].flat().filter((line) => typeof line === 'string');
  const cleaned = lines.map((line) => line.replace(/\s+/g, ' ').trim()).filter((line) => line !== '');
  if (cleaned.length > 0) yield { title, author, lines: cleaned };
  yield* pieces(
    [body].flat().filter((part) => typeof part === 'object'),
    { title, author },
  );
}

function isWord(value: unknown): value is string {
  return typeof value === 'string' && value.trim() !== '';
}
