/** What each package of Debian says of itself: apt's English descriptions. */

import type { Corpus, CorpusText } from './corpus.ts';
import { packageFile, packageFiles, unexpected } from './package_file.ts';

export const debianPackages: Corpus = {
  name: 'debian-packages',
  describe: "descriptions of the packages of this machine's Debian release",
  language: 'English',
  megabytes: 27.4,
  licence: 'as the packages that they describe',
  packages: [{ manager: 'debian-descriptions', name: 'Translation-en' }],
  licenceFiles: [[]],
  async *read([folder]) {
    const seen = new Set<string>();
    // The release itself sorts before `-security` and `-updates`, and its description is the one that is kept.
    for (const file of (await packageFiles(folder!, '.')).filter((name) => name.endsWith('.txt'))) {
      const release = file.replace(/(-security|-updates)?\.txt$/, '');
      const text = (await packageFile(folder!, file)).toString('utf8');
      for (const description of packageDescriptions(text, file, release)) {
        if (seen.has(description.id)) continue;
        seen.add(description.id);
        yield description;
      }
    }
  },
};

/** The paragraphs of a Translation file (deb822): package, short and long description. */
export function* packageDescriptions(content: string, file: string, release: string): Generator<CorpusText> {
  for (const paragraph of content.split(/\n\n+/)) {
    if (paragraph.trim() === '') continue;
    const name = /^Package: (.+)$/m.exec(paragraph)?.[1];
    const [, short, long = ''] = /^Description-en: (.*)((?:\n .*)*)/m.exec(paragraph) ?? [];
    if (name === undefined || short === undefined) {
      throw unexpected(file, `a paragraph without package or description: ${paragraph.slice(0, 60)}`);
    }
    yield {
      id: `debian-${name}`,
      title: name,
      text: [`${name}: ${short}.`, ...longText(long)].join('\n'),
      url: `https://packages.debian.org/${release}/${name}`,
    };
  }
}

/** Lines that belong together are joined; ` .` is an empty line, and lines set further in stand alone (policy 5.6.13). */
function longText(long: string): string[] {
  const lines: string[] = [];
  let joins = false;
  for (const line of long.split('\n').map((text) => text.slice(1).trimEnd())) {
    const isPlain = !/^\s/.test(line);
    if (line === '' || line === '.') joins = false;
    else if (joins && isPlain) lines.push(`${lines.pop()} ${line}`);
    else {
      lines.push(line.trim());
      joins = isPlain;
    }
  }
  return lines;
}
