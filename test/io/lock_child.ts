/** A process of its own for the lock tests: `lock_child.ts <root> <what> [start time in ms]`. */

import { setTimeout as sleep } from 'node:timers/promises';
import { UserError } from '../../src/errors.ts';
import { lockRunFolder } from '../../src/io/run_folder.ts';

const [root = '', what = '', at = '0'] = process.argv.slice(2);
await sleep(Math.max(0, Number(at) - Date.now()));
try {
  await lockRunFolder(root);
  console.log('held');
} catch (error) {
  if (!(error instanceof UserError) || error.code !== 'run_locked') throw error;
  console.log('refused');
  process.exit(0);
}
if (what === 'fail') throw new Error('a defect');
if (what === 'hold') await sleep(60_000);
