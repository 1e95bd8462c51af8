/**
 * Changes a bank until it is killed. The journal gets a line before each change and one after it; standard output one when
 * the bank is open and one after each change.
 * usage: writer.ts FOLDER JOURNAL SEED RUN
 */

import { appendFileSync } from 'node:fs';
import { Bank } from '../../src/memory/bank.ts';
import { apply, idsAfter, nextChange, SEGMENT_MEMORIES } from './changes.ts';

const [folder, journal, seed, run] = process.argv.slice(2);
if (folder === undefined || journal === undefined) throw new Error('usage: writer.ts FOLDER JOURNAL SEED RUN');
// What is written to a file outlives the process that is killed; a pipe's buffer would not.
const note = (line: object): void => appendFileSync(journal, `${JSON.stringify(line)}\n`);

const writer = await Bank.openForWriting(folder, { segmentMemories: SEGMENT_MEMORIES });
const bank = await Bank.open(folder);
let ids = bank.ids();
await bank.close();
process.stdout.write('ready\n');
for (let step = 0; ; step++) {
  const change = nextChange(Number(seed), Number(run), step, ids);
  note({ begin: change });
  await apply(writer, change);
  note({ done: writer.version });
  process.stdout.write('done\n');
  ids = idsAfter(ids, change);
}
