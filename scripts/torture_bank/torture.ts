/** Kills writers of a bank and looks at what they leave. */

import { deepStrictEqual, ok } from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Bank } from '../../src/memory/bank.ts';
import { Versions } from '../../src/memory/manifest.ts';
import { PURPOSE, randomInt } from '../../src/random.ts';
import { type Change, IDENTITY, idsAfter, memoryOf, SEGMENT_MEMORIES } from './changes.ts';

/** A kill lies at most this long after the writer has opened the bank, or after its first change in every second run. */
const LONGEST_MS = 250;

const NEWLINE = 0x0a;

export interface Kill {
  /** The change that was going on; undefined between two changes or before the first. */
  during: Change['kind'] | undefined;
  /** Whether that change is in the bank; compacting changes nothing that can be seen. */
  committed: boolean;
  /** Changes that were complete before. */
  changes: number;
}

/**
 * Kills `kills` writers with SIGKILL, each at a random moment, and checks after each that the bank holds every change
 * that was completed and nothing of one that was not, that every checksum is right, and that the next writer leaves no
 * file that no version names.
 * @param folder an empty folder
 * @throws AssertionError when the bank holds anything else
 */
export async function torture(
  folder: string,
  kills: number,
  seed: number,
  onKill?: (kill: Kill) => void,
): Promise<void> {
  const bank = join(folder, 'bank');
  const journal = join(folder, 'journal');
  await Bank.create(bank, IDENTITY, { segmentMemories: SEGMENT_MEMORIES });
  let ids: string[] = [];
  for (let run = 0; run < kills; run++) {
    await rm(journal, { force: true });
    await appendFile(journal, '');
    const delay = randomInt(seed, PURPOSE.test, run, 1e6, LONGEST_MS);
    await killedWriter([bank, journal, String(seed), String(run)], run % 2, delay);
    const lines = (await readFile(journal, 'utf8')).split('\n').filter((line) => line.endsWith('}'));
    const notes = lines.map((line) => JSON.parse(line) as { begin?: Change; done?: number });
    const done = notes.filter((note) => note.done !== undefined).length;
    const begun = notes.flatMap(({ begin }) => begin ?? []);
    for (const change of begun.slice(0, done)) ids = idsAfter(ids, change);
    const open = begun[done];
    const possible = open === undefined ? [ids] : [ids, idsAfter(ids, open)];
    const found = await contents(bank);
    const committed = possible.findLastIndex((state) => JSON.stringify(state) === JSON.stringify(found));
    if (committed < 0) deepStrictEqual(found, ids, `after kill ${run}, in ${open?.kind ?? 'no change'}`);
    ids = found;
    onKill?.({ during: open?.kind, committed: committed === 1 && open?.kind !== 'compact', changes: done });
    await Bank.openForWriting(bank, { segmentMemories: SEGMENT_MEMORIES });
    await refuseLeftovers(bank);
    deepStrictEqual(await contents(bank), ids);
  }
}

/** A writer that is killed `delay` ms after so many changes. */
async function killedWriter(args: readonly string[], changes: number, delay: number): Promise<void> {
  const script = fileURLToPath(new URL('writer.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exit = once(child, 'exit');
  const hasCome = new Promise<void>((resolve) => {
    let lines = 0;
    child.stdout.on('data', (chunk: Buffer) => {
      lines += chunk.filter((byte) => byte === NEWLINE).length;
      if (lines > changes) resolve();
    });
  });
  await Promise.race([hasCome, exit]);
  await sleep(delay);
  child.kill('SIGKILL');
  const [code, signal] = (await exit) as [number | null, string | null];
  ok(signal === 'SIGKILL', `the writer ended by itself with status ${code}`);
}

/** Ids in the bank, once every byte of it was found to be what those ids stand for. */
async function contents(folder: string): Promise<string[]> {
  const bank = await Bank.open(folder);
  try {
    await bank.verify();
    const ids = bank.ids();
    for await (const record of bank.list()) deepStrictEqual(record, memoryOf(record.id).record);
    deepStrictEqual(await bank.readRows(ids), Float32Array.from(ids.flatMap((id) => [...memoryOf(id).row])));
    for await (const { ids: some, vectors } of bank.vectors()) {
      deepStrictEqual(vectors, Float32Array.from(some.flatMap((id) => [...memoryOf(id).vector])));
    }
    return ids;
  } finally {
    await bank.close();
  }
}

async function refuseLeftovers(folder: string): Promise<void> {
  const versions = await Versions.open(folder);
  const numbers = await versions.numbers();
  const manifests = await Promise.all(numbers.map((number) => versions.get(number)));
  const named = new Set(manifests.flatMap(({ segments }) => segments.map(({ id }) => `segment-${id}`)));
  const expected = ['CURRENT', 'bank.json', 'encoder.bin', ...numbers.map((n) => `manifest-${n}.json`), ...named];
  deepStrictEqual((await readdir(folder)).sort(), expected.sort());
}
