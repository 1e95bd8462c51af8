/** Manuals and books among Debian's packages. */

import type { Corpus, DebianPackage } from './corpus.ts';
import { htmlPage } from './html.ts';
import { manPage } from './man.ts';
import { pageCorpus } from './page_folder.ts';
import { podPage } from './pod.ts';
import { rstPage } from './rst.ts';

const LINUX: DebianPackage = { manager: 'debian', name: 'linux-doc', dependency: 'linux-doc-' };
const LINUX_SOURCES = 'usr/share/doc/linux-doc-*/html/_sources';
const COPYRIGHT = 'usr/share/doc/*/copyright';

export const linuxDoc = pageCorpus(
  {
    name: 'linux-doc',
    describe: 'documentation of the Linux kernel',
    language: 'English',
    megabytes: 0,
    licence: 'GPL-2 (some files GFDL, CC-BY-4.0 or other free licences, stated in them)',
    packages: [LINUX],
  },
  {
    under: LINUX_SOURCES,
    pages: /^(.*)\.rst\.txt$/,
    except: /^translations\//,
    read: rstPage,
    url: (name, version) => `https://www.kernel.org/doc/html/v${version}/${name}.html`,
  },
  COPYRIGHT,
);

export const linuxDocChinese = pageCorpus(
  {
    name: 'linux-doc-zh',
    describe: 'documentation of the Linux kernel, Chinese translations',
    language: 'Chinese',
    megabytes: 0,
    licence: linuxDoc.licence,
    packages: [LINUX],
  },
  {
    under: `${LINUX_SOURCES}/translations/zh_CN`,
    pages: /^(.*)\.rst\.txt$/,
    except: /^disclaimer/,
    read: rstPage,
    url: (name, version) => `https://www.kernel.org/doc/html/v${version}/translations/zh_CN/${name}.html`,
  },
  COPYRIGHT,
);

export const pythonDoc = pageCorpus(
  {
    name: 'python-doc',
    describe: 'documentation of Python',
    language: 'English',
    megabytes: 0,
    licence: 'PSF-2.0',
    packages: [{ manager: 'debian', name: 'python3-doc', dependency: 'python3.' }],
  },
  {
    under: 'usr/share/doc/python3.*/html/_sources',
    pages: /^(.*)\.rst\.txt$/,
    read: rstPage,
    url: (name, version) => `https://docs.python.org/${version}/${name}.html`,
  },
  COPYRIGHT,
);

export const anarchism = pageCorpus(
  {
    name: 'anarchism',
    describe: 'An Anarchist FAQ: essays of politics and history',
    language: 'English',
    megabytes: 0,
    licence: 'GPL-2',
    packages: [{ manager: 'debian', name: 'anarchism' }],
  },
  {
    under: 'usr/share/doc/anarchism/html',
    pages: /^(.*)\.html$/,
    except: /^(a?r?links|biblio|book|contact|index|pdf|translations|supplementary)$/,
    read: (source) => htmlPage(source, { content: 'content', without: ['book-navigation'] }),
  },
  COPYRIGHT,
);

export const manpages = pageCorpus(
  {
    name: 'manpages',
    describe: 'manual pages of Linux system calls, the C library, devices and files',
    language: 'English',
    megabytes: 0,
    licence: 'GPL-2+, Linux-man-pages-copyleft, BSD and other free licences, stated in the file LICENCE',
    packages: [
      { manager: 'debian', name: 'manpages' },
      { manager: 'debian', name: 'manpages-dev' },
    ],
  },
  {
    under: 'usr/share/man',
    pages: /^(man\d\/.*)\.gz$/,
    read: manPage,
    url: (name) => `https://man7.org/linux/man-pages/${name}.html`,
  },
  COPYRIGHT,
);

export const manpagesChinese = pageCorpus(
  {
    name: 'manpages-zh',
    describe: 'manual pages of commands and functions in Chinese',
    language: 'Chinese',
    megabytes: 0,
    licence: 'GFDL-1.2+ and other free licences, stated in the file LICENCE',
    packages: [{ manager: 'debian', name: 'manpages-zh' }],
  },
  // The pages of zh_TW are the same in traditional script.
  { under: 'usr/share/man/zh_CN', pages: /^(man\d\/.*)\.gz$/, read: manPage },
  COPYRIGHT,
);

export const postgresqlDoc = pageCorpus(
  {
    name: 'postgresql-doc',
    describe: 'documentation of PostgreSQL',
    language: 'English',
    megabytes: 0,
    licence: 'PostgreSQL licence',
    packages: [{ manager: 'debian', name: 'postgresql-doc', dependency: 'postgresql-doc-' }],
  },
  {
    under: 'usr/share/doc/postgresql-doc-*/html',
    pages: /^(.*)\.html$/,
    except:
      /^(index|bookindex|biblio|sql-keywords-appendix|legalnotice|features-sql-standard|unsupported-features-.*)$/,
    read: (source) => htmlPage(source, { without: ['navheader', 'navfooter', 'toc'] }),
    url: (name, version) => `https://www.postgresql.org/docs/${version}/${name}.html`,
  },
  COPYRIGHT,
);

export const sqliteDoc = pageCorpus(
  {
    name: 'sqlite-doc',
    describe: 'documentation of SQLite',
    language: 'English',
    megabytes: 0,
    licence: 'public domain',
    packages: [{ manager: 'debian', name: 'sqlite3-doc' }],
  },
  {
    under: 'usr/share/doc/sqlite3',
    pages: /^(.*)\.html$/,
    except: /^(index|docs|sitemap|toc_db|keyword_index|doc_.*|.*list|hlr.*|search.*|download|th3.*matrix.*|matrix.*)$/,
    read: (source) => htmlPage(source, { titleOfHead: true, without: ['nosearch', 'menu', 'imgcontainer'] }),
    url: (name) => `https://www.sqlite.org/${name}.html`,
  },
  COPYRIGHT,
);

export const perlDoc = pageCorpus(
  {
    name: 'perl-doc',
    describe: 'documentation of Perl',
    language: 'English',
    megabytes: 0,
    licence: 'GPL-1+ or Artistic-1.0-Perl',
    packages: [{ manager: 'debian', name: 'perl-doc' }],
  },
  {
    under: 'usr/share/perl/*/pod',
    pages: /^(.*)\.pod$/,
    // Four are in East Asian languages.
    except: /^(perltoc|perlcn|perljp|perlko|perltw)$/,
    read: podPage,
    url: (name, version) => `https://perldoc.perl.org/${version}/${name}`,
  },
  COPYRIGHT,
);

const LIBREOFFICE_LICENCE = 'MPL-2.0, parts Apache-2.0';

function libreOfficeHelp(name: string, describe: string, language: Corpus['language'], locale: string): Corpus {
  return pageCorpus(
    {
      name,
      describe,
      language,
      megabytes: 0,
      licence: LIBREOFFICE_LICENCE,
      packages: [{ manager: 'debian', name: `libreoffice-help-${locale.toLowerCase()}` }],
    },
    {
      under: `usr/share/libreoffice/help/${locale}/text`,
      pages: /^(.*)\.html$/,
      read: (source) => htmlPage(source, { content: 'DisplayArea', without: ['MAC', 'noteicon'] }),
      url: (page) => `https://help.libreoffice.org/latest/${locale}/text/${page}.html`,
    },
    COPYRIGHT,
  );
}

export const libreOffice = libreOfficeHelp('libreoffice-help', 'help pages of LibreOffice', 'English', 'en-US');
export const libreOfficeChinese = libreOfficeHelp(
  'libreoffice-help-zh',
  'help pages of LibreOffice in Chinese',
  'Chinese',
  'zh-CN',
);

function debianHandbook(name: string, describe: string, language: Corpus['language'], locale: string): Corpus {
  return pageCorpus(
    {
      name,
      describe,
      language,
      megabytes: 0,
      licence: 'GPL-2+ or CC-BY-SA-3.0',
      packages: [{ manager: 'debian', name: 'debian-handbook' }],
    },
    {
      under: `usr/share/doc/debian-handbook/html/${locale}`,
      pages: /^([^/]*)\.html$/,
      except: /^(index|ix\d+)$/,
      read: (source) => htmlPage(source, { without: ['banner', 'docnav', 'toc', 'revhistory', 'indexterm'] }),
      url: (page) => `https://debian-handbook.info/browse/${locale}/stable/${page}.html`,
    },
    COPYRIGHT,
  );
}

export const handbook = debianHandbook('debian-handbook', "The Debian Administrator's Handbook", 'English', 'en-US');
export const handbookChinese = debianHandbook(
  'debian-handbook-zh',
  "The Debian Administrator's Handbook in Chinese",
  'Chinese',
  'zh-CN',
);
