/** A process that saves checkpoints, the same steps again and again, until it is killed: `save_child.ts <folder>`. */

import { retain, saveCheckpoint } from '../../src/checkpoint/checkpoint.ts';
import { content } from './content.ts';

const [folder = ''] = process.argv.slice(2);
for (let value = 1; ; value++) {
  const step = value % 5;
  await saveCheckpoint(folder, step, content(value, 200_000));
  await retain(folder, 3, 1);
  if (value === 3) console.log('saving');
}
