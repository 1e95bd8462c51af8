/** The Free On-line Dictionary of Computing, from its dictd files. */

import { dictionaryCorpus } from './dictd.ts';
import { PageBuilder } from './page.ts';

export const foldoc = dictionaryCorpus(
  {
    name: 'foldoc',
    describe: 'the Free On-line Dictionary of Computing',
    language: 'English',
    megabytes: 4.8,
    licence: "GFDL-1.1+ (www.foldoc.org, editor Denis Howe); Debian's additions under a free licence of their own",
  },
  computingTerm,
);

/** Words and what they mean, without marks of references and dates of changes; undefined when nothing is explained. */
export function computingTerm(entry: string): { title: string; text: string } | undefined {
  const [head = '', ...paragraphs] = entry.trim().split(/\n[ \t]*\n/);
  const words = head.split('\n').map((word) => word.trim());
  const builder = new PageBuilder();
  const marked = paragraphs.map((paragraph, i) => (i === 0 ? `${words.join(', ')}: ${paragraph.trim()}` : paragraph));
  for (const paragraph of marked) {
    const text = withoutReferences(paragraph).replace(/<([a-z][a-z /-]*(?:,\s*[a-z /-]+)*)>/g, '($1)');
    // The date of the last change, and sources that are named alone.
    if (!/^\s*(\([12]\d{3}-\d\d-\d\d\)|\[[^\]]*\]|\(?https?:\S+)\s*$/.test(text)) builder.add('paragraph', text);
  }
  const page = builder.page();
  return page && { title: words[0]!, text: page.text };
}

/** `{left (left parenthesis)}` is a reference that is shown as `left`, `{(http://…)}` as its address. */
function withoutReferences(text: string): string {
  return text.replace(/\{([^{}]*)\}/g, (_, inside: string) => {
    const [, shown = '', target = ''] = /^([^(]*)\(([\s\S]*)\)\s*$/.exec(inside) ?? [];
    if (target === '') return inside;
    return shown.trim() === '' ? target : shown.trimEnd();
  });
}
