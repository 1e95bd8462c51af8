/** Manuals and books among Debian's packages. */

import type { Corpus, DebianPackage } from './corpus.ts';
import { type HtmlLayout, htmlPage } from './html.ts';
import { manPage } from './man.ts';
import { pageCorpus } from './page_folder.ts';
import { podPage } from './pod.ts';
import { rstPage } from './rst.ts';

const debian = (name: string, dependency?: string): DebianPackage => ({
  manager: 'debian',
  name,
  ...(dependency && { dependency }),
});

/** A reader of HTML pages of one layout. */
const html = (layout: HtmlLayout) => (source: string) => htmlPage(source, layout);

const LINUX = debian('linux-doc', 'linux-doc-');
const LINUX_SOURCES = 'usr/share/doc/linux-doc-*/html/_sources';
const LINUX_LICENCE = 'GPL-2 (some files GFDL, CC-BY-4.0 or another free licence)';

const linux: readonly Corpus[] = [
  pageCorpus(
    {
      name: 'linux-doc',
      describe: 'documentation of the Linux kernel',
      language: 'English',
      megabytes: 14.9,
      licence: LINUX_LICENCE,
      packages: [LINUX],
    },
    {
      under: LINUX_SOURCES,
      pages: /^(.*)\.rst\.txt$/,
      except: /^translations\//,
      read: rstPage,
      url: (name, version) => `https://www.kernel.org/doc/html/v${version}/${name}.html`,
    },
  ),
  pageCorpus(
    {
      name: 'linux-doc-zh',
      describe: 'Chinese translations of documentation of the Linux kernel',
      language: 'Chinese',
      megabytes: 1.2,
      licence: LINUX_LICENCE,
      packages: [LINUX],
    },
    {
      under: `${LINUX_SOURCES}/translations/zh_CN`,
      pages: /^(.*)\.rst\.txt$/,
      except: /^(disclaimer.*|index)$/,
      read: rstPage,
      url: (name, version) => `https://www.kernel.org/doc/html/v${version}/translations/zh_CN/${name}.html`,
    },
  ),
  pageCorpus(
    {
      name: 'manpages',
      describe: 'manual pages of system calls, the C library, devices and files',
      language: 'English',
      megabytes: 4.9,
      licence: 'GPL-2+, Linux-man-pages-copyleft, BSD and other free licences',
      packages: [debian('manpages'), debian('manpages-dev')],
    },
    {
      under: 'usr/share/man',
      pages: /^(man\d\/.*)\.gz$/,
      read: manPage,
      url: (name) => `https://man7.org/linux/man-pages/${name}.html`,
    },
  ),
  pageCorpus(
    {
      name: 'manpages-zh',
      describe: 'manual pages of commands and functions in Chinese',
      language: 'Chinese',
      megabytes: 3.1,
      licence: 'GFDL-1.2+, some pages GPL-2',
      packages: [debian('manpages-zh')],
    },
    // The pages of zh_TW are the same in traditional script.
    { under: 'usr/share/man/zh_CN', pages: /^(man\d\/.*)\.gz$/, read: manPage },
  ),
];

const languagesAndDatabases: readonly Corpus[] = [
  pageCorpus(
    {
      name: 'python-doc',
      describe: 'documentation of Python',
      language: 'English',
      megabytes: 7.4,
      licence: 'PSF-2.0',
      packages: [debian('python3-doc', 'python3.')],
    },
    {
      under: 'usr/share/doc/python3.*/html/_sources',
      pages: /^(.*)\.rst\.txt$/,
      read: rstPage,
      url: (name, version) => `https://docs.python.org/${version}/${name}.html`,
    },
  ),
  pageCorpus(
    {
      name: 'perl-doc',
      describe: 'documentation of Perl',
      language: 'English',
      megabytes: 5.7,
      licence: 'GPL-1+ or Artistic-1.0-Perl',
      packages: [debian('perl-doc')],
    },
    {
      under: 'usr/share/perl/*/pod',
      pages: /^(.*)\.pod$/,
      // Four are in East Asian languages.
      except: /^(perltoc|perlcn|perljp|perlko|perltw)$/,
      read: podPage,
      url: (name, version) => `https://perldoc.perl.org/${version}/${name}`,
    },
  ),
  pageCorpus(
    {
      name: 'postgresql-doc',
      describe: 'documentation of PostgreSQL',
      language: 'English',
      megabytes: 5.8,
      licence: 'PostgreSQL licence',
      packages: [debian('postgresql-doc', 'postgresql-doc-')],
    },
    {
      under: 'usr/share/doc/postgresql-doc-*/html',
      pages: /^(.*)\.html$/,
      except:
        /^(index|bookindex|biblio|sql-keywords-appendix|legalnotice|features-sql-standard|unsupported-features-.*)$/,
      read: html({ without: ['navheader', 'navfooter', 'toc'] }),
      url: (name, version) => `https://www.postgresql.org/docs/${version}/${name}.html`,
    },
  ),
  pageCorpus(
    {
      name: 'sqlite-doc',
      describe: 'documentation of SQLite',
      language: 'English',
      megabytes: 3.6,
      licence: 'public domain',
      packages: [debian('sqlite3-doc')],
    },
    {
      under: 'usr/share/doc/sqlite3',
      pages: /^(.*)\.html$/,
      except:
        /^(index|docs|sitemap|toc_db|keyword_index|doc_.*|.*list|hlr.*|search.*|download|th3.*matrix.*|matrix.*|requirements|capi3ref|changes|fileformat2)$/,
      read: html({ titleOfHead: true, without: ['nosearch', 'menu', 'imgcontainer'] }),
      url: (name) => `https://www.sqlite.org/${name}.html`,
    },
  ),
  pageCorpus(
    {
      name: 'django-doc',
      describe: 'documentation of Django',
      language: 'English',
      megabytes: 3.8,
      licence: 'BSD-3-Clause',
      packages: [debian('python-django-doc')],
    },
    {
      under: 'usr/share/doc/python-django-doc/html',
      pages: /^(.*)\.html$/,
      except: /^(genindex|py-modindex|search|contents|_modules\/.*)$/,
      read: html({ content: 'yui-main', without: ['nav', 'headerlink', 'toctree-wrapper', 'contents'] }),
    },
  ),
  pageCorpus(
    {
      name: 'sqlalchemy-doc',
      describe: 'documentation of SQLAlchemy',
      language: 'English',
      megabytes: 5.5,
      licence: 'MIT',
      packages: [debian('python-sqlalchemy-doc')],
    },
    {
      under: 'usr/share/doc/python-sqlalchemy-doc/html',
      pages: /^(.*)\.html$/,
      except: /^(genindex|py-modindex|search|contents|index|_modules\/.*)$/,
      read: html({ content: 'docs-body', without: ['headerlink', 'toctree-wrapper', 'contents', 'viewcode-link'] }),
    },
  ),
  pageCorpus(
    {
      name: 'apache-doc',
      describe: 'documentation of the Apache HTTP Server',
      language: 'English',
      megabytes: 2.2,
      licence: 'Apache-2.0',
      packages: [debian('apache2-doc')],
    },
    {
      under: 'usr/share/doc/apache2-doc/manual/en',
      pages: /^(.*)\.html$/,
      except: /^(.*\/)?(index|sitemap|quickreference|directives)$/,
      read: html({
        content: 'page-content',
        without: ['toplang', 'bottomlang', 'quickview', 'top', 'comments_section', 'permalink'],
      }),
      url: (name) => `https://httpd.apache.org/docs/2.4/en/${name}.html`,
    },
  ),
  pageCorpus(
    {
      name: 'git-doc',
      describe: 'manual pages and guides of Git',
      language: 'English',
      megabytes: 2.9,
      licence: 'GPL-2',
      packages: [debian('git-doc')],
    },
    {
      under: 'usr/share/doc/git-doc',
      pages: /^(.*)\.html$/,
      except: /^(index|RelNotes\/.*)$/,
      read: html({ without: ['toc', 'footer', 'verseblock', 'literalblock'] }),
      url: (name) => `https://git-scm.com/docs/${name}`,
    },
  ),
];

const essays: readonly Corpus[] = [
  pageCorpus(
    {
      name: 'anarchism',
      describe: 'An Anarchist FAQ: essays of politics and history',
      language: 'English',
      megabytes: 11.2,
      licence: 'GPL-2',
      packages: [debian('anarchism')],
    },
    {
      under: 'usr/share/doc/anarchism/html',
      pages: /^(.*)\.html$/,
      except: /^(a?r?links|biblio|book|contact|index|pdf|translations|supplementary)$/,
      read: html({ content: 'content', without: ['book-navigation'] }),
    },
  ),
];

/** What there is of a manual in one language. */
interface Edition {
  name: string;
  language: Corpus['language'];
  /** As the package names it. */
  locale: string;
  megabytes: number;
}

const inChinese = ({ language }: Edition) => (language === 'Chinese' ? ' in Chinese' : '');

function libreOffice(edition: Edition): Corpus {
  const { name, language, megabytes, locale } = edition;
  return pageCorpus(
    {
      name,
      language,
      megabytes,
      describe: `help pages of LibreOffice${inChinese(edition)}`,
      licence: 'MPL-2.0, parts Apache-2.0',
      packages: [debian(`libreoffice-help-${locale.toLowerCase()}`)],
    },
    {
      under: `usr/share/libreoffice/help/${locale}/text`,
      pages: /^(.*)\.html$/,
      read: html({ content: 'DisplayArea', without: ['MAC', 'noteicon'] }),
      url: (page) => `https://help.libreoffice.org/latest/${locale}/text/${page}.html`,
    },
  );
}

function debianHandbook(edition: Edition): Corpus {
  const { name, language, megabytes, locale } = edition;
  return pageCorpus(
    {
      name,
      language,
      megabytes,
      describe: `The Debian Administrator's Handbook${inChinese(edition)}`,
      licence: 'GPL-2+ or CC-BY-SA-3.0',
      packages: [debian('debian-handbook')],
    },
    {
      under: `usr/share/doc/debian-handbook/html/${locale}`,
      pages: /^([^/]*)\.html$/,
      except: /^(index|ix\d+)$/,
      read: html({ without: ['banner', 'docnav', 'toc', 'revhistory'] }),
      url: (page) => `https://debian-handbook.info/browse/${locale}/stable/${page}.html`,
    },
  );
}

function debianReference(edition: Edition): Corpus {
  const { name, language, megabytes, locale } = edition;
  return pageCorpus(
    {
      name,
      language,
      megabytes,
      describe: `the guide to Debian by Osamu Aoki${inChinese(edition)}`,
      licence: 'GPL-2+',
      packages: [debian(`debian-reference-${locale}`)],
    },
    {
      under: 'usr/share/debian-reference',
      pages: /^(.*)\.[^.]*\.html$/,
      except: /^index$/,
      read: html({ without: ['navheader', 'navfooter', 'toc'] }),
      url: (page) => `https://www.debian.org/doc/manuals/debian-reference/${page}.${locale}.html`,
    },
  );
}

export const manuals: readonly Corpus[] = [
  ...essays,
  ...linux,
  ...languagesAndDatabases,
  libreOffice({ name: 'libreoffice-help', language: 'English', locale: 'en-US', megabytes: 4.2 }),
  libreOffice({ name: 'libreoffice-help-zh', language: 'Chinese', locale: 'zh-CN', megabytes: 2.7 }),
  debianHandbook({ name: 'debian-handbook', language: 'English', locale: 'en-US', megabytes: 1 }),
  debianHandbook({ name: 'debian-handbook-zh', language: 'Chinese', locale: 'zh-CN', megabytes: 0.6 }),
  debianReference({ name: 'debian-reference', language: 'English', locale: 'en', megabytes: 0.5 }),
  debianReference({ name: 'debian-reference-zh', language: 'Chinese', locale: 'zh-cn', megabytes: 0.5 }),
];
