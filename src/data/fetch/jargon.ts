/** The Jargon File, the dictionary of hackers' slang, from its dictd files. */

import type { Corpus } from './corpus.ts';
import { packageDictionary } from './dictd.ts';
import { type Page, PageBuilder } from './page.ts';

export const jargon: Corpus = {
  name: 'jargon',
  describe: "the Jargon File: hackers' slang",
  language: 'English',
  megabytes: 1.3,
  licence: 'public domain',
  packages: [{ manager: 'debian', name: 'dict-jargon' }],
  licenceFiles: [['usr/share/doc/dict-jargon/copyright']],
  async *read([folder]) {
    for await (const { offset, text } of packageDictionary(folder!, 'usr/share/dictd/jargon')) {
      const entry = jargonTerm(text);
      if (entry) yield { id: `jargon-${offset}`, ...entry };
    }
  },
};

/** The word, and what it means without pronunciation and marks of references; undefined when nothing is explained. */
export function jargonTerm(entry: string): Page | undefined {
  const [head = '', ...paragraphs] = entry.trim().split(/\n[ \t]*\n/);
  const [title = '', kind = ''] = head.split('\n').map((line) => line.trim());
  const builder = new PageBuilder();
  const part = kind.replace(/\/[^/]*\/,?/g, '').trim();
  const named = part === '' ? `${title}:` : `${title} (${part.replace(/\.$/, '')}):`;
  for (const [i, paragraph] of paragraphs.entries()) {
    // A link may be broken inside its braces.
    builder.add('paragraph', `${i === 0 ? `${named} ` : ''}${paragraph.replace(/\{\s*|\s*\}/g, '')}`);
  }
  const page = builder.page();
  return page && { title, text: page.text };
}
