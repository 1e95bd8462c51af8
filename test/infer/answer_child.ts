/** Records answers, as one of several processes that ask at once. Arguments: run folder, name, number of answers. */

import { recordAnswer } from '../../src/infer/answer_record.ts';
import { RunFolder } from '../../src/io/run_folder.ts';

const [root, name, count] = process.argv.slice(2) as [string, string, string];
const folder = new RunFolder(root);
for (let i = 0; i < Number(count); i++) {
  await recordAnswer(folder, { prompt: `${name} ${i}`, text: name.repeat(2000), trace: [] });
}
