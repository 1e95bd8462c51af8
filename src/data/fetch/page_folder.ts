/** Corpora of packages that hold a folder of pages: one text a page. */

import type { Corpus, CorpusText } from './corpus.ts';
import { decodeText, packageFile, packageFiles, packagePath, unzip } from './package_file.ts';
import { chineseShare, type Page } from './page.ts';

export interface PageFolder {
  /** Path in each package; `*` stands for what differs by release. */
  under: string;
  /** Paths below it that are pages; the first group is what the page is called. Those in `.gz` are unpacked. */
  pages: RegExp;
  /** Names of pages that are no prose: indexes, lists of links. */
  except?: RegExp;
  /** Reads the source of a page; undefined when it has no prose. */
  read: (source: string) => Page | undefined;
  /** The address of a page by its name and the version in the path of the folder. */
  url?: (name: string, version: string) => string;
}

/** Less of its letters, and a page of a Chinese manual counts as not translated. */
const CHINESE = 0.25;

/** A corpus of the pages of its packages in the order of their paths; the first package states the licence. */
export function pageCorpus(corpus: Omit<Corpus, 'licenceFiles' | 'read'>, folder: PageFolder): Corpus {
  return {
    ...corpus,
    licenceFiles: [['usr/share/doc/*/copyright']],
    async *read(packages) {
      for (const unpacked of packages) {
        for await (const text of pageTexts(unpacked, corpus.name, folder)) {
          if (corpus.language === 'English' || chineseShare(text.text) >= CHINESE) yield text;
        }
      }
    },
  };
}

/** @throws UserError input_missing without the folder, input_invalid for a page that cannot be unpacked */
async function* pageTexts(unpacked: string, corpus: string, folder: PageFolder): AsyncGenerator<CorpusText> {
  const under = await packagePath(unpacked, folder.under);
  const version = /\d+(\.\d+)*/.exec(under)?.[0] ?? '';
  for (const path of await packageFiles(unpacked, under)) {
    const name = folder.pages.exec(path)?.[1];
    if (name === undefined || folder.except?.test(name)) continue;
    const bytes = await packageFile(unpacked, `${under}/${path}`);
    const page = folder.read(decodeText(path.endsWith('.gz') ? await unzip(bytes, path) : bytes));
    if (page) yield { id: `${corpus}-${name}`, ...page, ...(folder.url && { url: folder.url(name, version) }) };
  }
}
