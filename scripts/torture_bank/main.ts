/** usage: main.ts KILLS SEED; see scripts/torture-bank.sh */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { torture } from './torture.ts';

const [kills = 50, seed = 1] = process.argv.slice(2).map(Number);
const folder = await mkdtemp(join(tmpdir(), 'memory3-torture-bank-'));
const counts = new Map<string, number>();
let [number, changes] = [0, 0];
try {
  await torture(folder, kills, seed, (kill) => {
    const name =
      kill.during === undefined ? 'between changes' : `in ${kill.during}${kill.committed ? ', committed' : ''}`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
    changes += kill.changes;
    process.stdout.write(`  kill ${++number} after ${kill.changes} changes, ${name}\n`);
  });
  await rm(folder, { recursive: true });
  process.stdout.write(`${kills} kills, ${changes} changes complete, nothing lost, nothing extra (seed ${seed})\n`);
  for (const [name, count] of [...counts].sort()) process.stdout.write(`  ${name}: ${count}\n`);
} catch (error) {
  process.stderr.write(`FAILED with seed ${seed}; the bank is left in ${folder}\n`);
  throw error;
}
