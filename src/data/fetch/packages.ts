/**
 * Packages of npm and Debian, downloaded and unpacked in a cache folder: nothing is installed, no script of a package
 * runs, and no right of an administrator is needed (apt keeps its lists in the cache folder too).
 */

import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { UserError } from '../../errors.ts';
import { exists, sha256File, temporaryName } from '../../io/files.ts';
import { runCommand } from './command.ts';
import type { DebianPackage, NpmPackage, PackageRequest } from './corpus.ts';

/** An unpacked package. */
export interface FetchedPackage {
  manager: PackageRequest['manager'];
  name: string;
  version: string;
  /** Of the package as it was downloaded: `sha512-…` (npm) or `sha256-…`. */
  integrity: string;
}

export type UnpackedPackage = FetchedPackage & { folder: string };

const NPM_ACTION =
  'check the network and `npm config get registry`, then run the command again: what is complete is kept';
const DEBIAN_ACTION =
  'this corpus is made of Debian packages: use Debian or Ubuntu (a container will do) with package sources in /etc/apt and a network, then run the command again';
const UNPACK_ACTION = 'check that there is space on the disk, then run the command again';

/** Fetches packages into one cache folder; only one process at a time may use it. */
export class PackageCache {
  readonly #folder: string;
  readonly #say: (text: string) => void;
  #apt: Promise<Apt> | undefined;

  /** @param say is told what is being downloaded */
  constructor(folder: string, say: (text: string) => void) {
    this.#folder = folder;
    this.#say = say;
  }

  /**
   * The package, unpacked; what was unpacked before is used again.
   * @throws UserError download_failed (no network, no such package or program), input_invalid (another content than
   * expected)
   */
  async get(request: PackageRequest): Promise<UnpackedPackage> {
    await mkdir(this.#folder, { recursive: true });
    if (request.manager === 'npm') return await this.#npm(request);
    this.#apt ??= Apt.open(this.#folder, this.#say);
    const apt = await this.#apt;
    return request.manager === 'debian' ? await apt.package(request) : await apt.descriptions();
  }

  async #npm({ manager, name, version, integrity }: NpmPackage): Promise<UnpackedPackage> {
    const told = { manager, name, version, integrity };
    const installed = await installedFolder(name, version);
    if (installed !== undefined) return { ...told, folder: installed };
    const folder = join(this.#folder, `npm-${name.replace('/', '-')}-${version}`);
    if (await exists(folder)) return { ...told, folder };
    this.#say(`downloading ${name} ${version} from npm`);
    await unpack(folder, async (temporary) => {
      const args = ['pack', `${name}@${version}`, '--json', '--ignore-scripts', '--pack-destination', temporary];
      await runCommand('npm', args, { action: NPM_ACTION });
      const archive = join(temporary, await only(temporary, '.tgz', name));
      const found = `sha512-${createHash('sha512')
        .update(await readFile(archive))
        .digest('base64')}`;
      if (found !== integrity) {
        const what = `npm's registry gave another content than published: ${found}, not ${integrity}`;
        throw new UserError('input_invalid', { where: `${name}@${version}`, what, action: NPM_ACTION });
      }
      await runCommand('tar', ['-xzf', archive, '-C', temporary, '--strip-components=1'], { action: UNPACK_ACTION });
      await rm(archive);
    });
    return { ...told, folder };
  }
}

/** Where npm has installed exactly this version already, checked against the lock file. */
async function installedFolder(name: string, version: string): Promise<string | undefined> {
  for (const modules of createRequire(import.meta.url).resolve.paths(name) ?? []) {
    const folder = join(modules, name);
    if (!(await exists(join(folder, 'package.json')))) continue;
    const found = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as { version?: string };
    return found.version === version ? folder : undefined;
  }
  return undefined;
}

/** apt with lists and cache of its own. */
class Apt {
  readonly #folder: string;
  readonly #options: string[];
  readonly #say: (text: string) => void;

  private constructor(folder: string, state: string, say: (text: string) => void) {
    this.#folder = folder;
    this.#say = say;
    const settings = {
      'Acquire::Languages': 'en',
      'APT::Update::Error-Mode': 'any',
      'APT::Sandbox::User': 'root',
      'Dir::State::lists': join(state, 'lists'),
      'Dir::Cache': join(state, 'cache'),
    };
    // The list of languages may have entries already: it is emptied first.
    const values = ['Acquire::Languages=', ...Object.entries(settings).map(([key, value]) => `${key}=${value}`)];
    this.#options = values.flatMap((value) => ['-o', value.replace('Languages=en', 'Languages::=en')]);
  }

  /** Reads the lists of packages anew; without a network those of before are used. */
  static async open(folder: string, say: (text: string) => void): Promise<Apt> {
    const state = join(folder, 'apt');
    const hasLists = await exists(join(state, 'complete'));
    for (const part of ['lists/partial', 'cache/archives/partial']) await mkdir(join(state, part), { recursive: true });
    const apt = new Apt(folder, state, say);
    say("reading Debian's lists of packages");
    try {
      await apt.#run('apt-get', ['-q', 'update']);
      await mkdir(join(state, 'complete'), { recursive: true });
    } catch (error) {
      if (!hasLists) throw error;
      say(`they cannot be read anew; those of before are used (${error instanceof Error ? error.message : error})`);
    }
    return apt;
  }

  async package({ manager, name: asked, dependency }: DebianPackage): Promise<UnpackedPackage> {
    const name = dependency === undefined ? asked : await this.#dependency(asked, dependency);
    const uris = await this.#run('apt-get', ['-q', '--print-uris', 'download', name]);
    // 'http://…' name_version_architecture.deb size SHA256:…
    const [, file, version, sha256] = /^'[^']+' (\S+?_(\S+?)_\S+\.deb) \d+ SHA256:([0-9a-f]{64})/m.exec(uris) ?? [];
    if (file === undefined || version === undefined || sha256 === undefined) {
      const what = `apt-get tells no file and checksum of the package: ${uris.trim() || 'nothing'}`;
      throw new UserError('download_failed', { where: name, what, action: DEBIAN_ACTION });
    }
    const told = { manager, name, version: decodeURIComponent(version), integrity: `sha256-${sha256}` };
    const folder = join(this.#folder, `debian-${name}-${version}`);
    if (await exists(folder)) return { ...told, folder };
    this.#say(`downloading ${name} ${told.version} from Debian`);
    await unpack(folder, async (temporary) => {
      // apt-get writes to the working directory and checks the checksum.
      await runCommand('sh', ['-c', 'cd "$0" && exec "$@"', temporary, 'apt-get', ...this.#options, 'download', name], {
        action: DEBIAN_ACTION,
      });
      const archive = join(temporary, await only(temporary, '.deb', name));
      await runCommand('dpkg-deb', ['-x', archive, temporary], { action: UNPACK_ACTION });
      await rm(archive);
    });
    return { ...told, folder };
  }

  /** The package that `name` depends on in this release. */
  async #dependency(name: string, beginning: string): Promise<string> {
    const told = await this.#run('apt-cache', ['depends', name]);
    const names = told.split('\n').flatMap((line) => /^\s*\|?Depends: (\S+)$/.exec(line)?.[1] ?? []);
    const found = names.find((candidate) => candidate.startsWith(beginning));
    if (found !== undefined) return found;
    const what = `in this release it depends on no package ${beginning}…, but on ${names.join(', ') || 'nothing'}`;
    throw new UserError('download_failed', { where: name, what, action: DEBIAN_ACTION });
  }

  /** The descriptions of all packages; their version is the hash of what they say. */
  async descriptions(): Promise<UnpackedPackage> {
    const format = '$(IDENTIFIER) $(RELEASE) $(COMPONENT) $(FILENAME)';
    const targets = await this.#run('apt-get', ['indextargets', '--format', format]);
    const lists = targets
      .split('\n')
      .map((line) => /^Translations (\S+) (\S+) (.*_Translation-en\S*)$/.exec(line))
      .filter((match) => match !== null)
      .sort(([, ...a], [, ...b]) => (a.join() < b.join() ? -1 : 1));
    if (lists.length === 0) {
      const what = 'no Translation-en among the lists of packages';
      throw new UserError('download_failed', { where: 'apt-get indextargets', what, action: DEBIAN_ACTION });
    }
    const folder = join(this.#folder, 'debian-descriptions');
    await rm(folder, { recursive: true, force: true });
    const hash = createHash('sha256');
    await unpack(folder, async (temporary) => {
      for (const [, release, component, list] of lists) {
        const output = join(temporary, `${release}${component === 'main' ? '' : `-${component}`}.txt`);
        await this.#run('/usr/lib/apt/apt-helper', ['cat-file', list!], output);
        hash.update(await sha256File(output));
      }
    });
    const releases = [...new Set(lists.map(([, release]) => release))].join(' ');
    const integrity = `sha256-${hash.digest('hex')}`;
    return { manager: 'debian-descriptions', name: 'Translation-en', version: releases, integrity, folder };
  }

  async #run(command: string, args: readonly string[], output?: string): Promise<string> {
    return await runCommand(command, [...this.#options, ...args], { action: DEBIAN_ACTION, ...(output && { output }) });
  }
}

/** Fills a folder under a temporary name, so that one of this name is always whole. */
async function unpack(folder: string, fill: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = temporaryName(folder);
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true });
  try {
    await fill(temporary);
    await rename(temporary, folder);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** The one file that was downloaded. */
async function only(folder: string, extension: string, name: string): Promise<string> {
  const files = (await readdir(folder)).filter((file) => file.endsWith(extension));
  if (files.length === 1) return files[0]!;
  const what = `the download left ${files.length} files *${extension}, not one`;
  throw new UserError('download_failed', { where: name, what, action: 'run the command again' });
}
