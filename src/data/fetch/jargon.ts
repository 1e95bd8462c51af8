/** The Jargon File, the dictionary of hackers' slang, from its dictd files. */

import { dictionaryCorpus } from './dictd.ts';
import { type Page, PageBuilder } from './page.ts';

export const jargon = dictionaryCorpus(
  {
    name: 'jargon',
    describe: "the Jargon File: hackers' slang",
    language: 'English',
    megabytes: 1.3,
    licence: 'public domain',
  },
  jargonTerm,
);

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
