/** `npm run bench -- cpu`: measures an engine beside its peers, in turn within one run. */

import yargs from 'yargs';
import { writeFileAtomic } from '../src/io/files.ts';
import { cases } from './cpu/cases.ts';
import { benchmarkCpu } from './cpu/cpu.ts';
import { printReport } from './cpu/table.ts';

const parser = yargs(process.argv.slice(2))
  .scriptName('npm run bench --')
  .usage('$0 <what> [options]\n\nMeasures memory3 and PyTorch in turn on this machine.')
  .command('cpu', 'the native engine beside PyTorch on the CPU')
  .option('rounds', { type: 'number', default: 7, describe: 'rounds: in each, both sides run once after the other' })
  .option('only', { type: 'string', describe: `cases, separated by commas (of ${Object.keys(cases()).join(', ')})` })
  .option('threads', { type: 'number', default: 0, describe: 'threads of the native engine, 0 for the physical cores' })
  .option('peer', { type: 'boolean', default: true, describe: 'measure PyTorch as well (--no-peer: only ours)' })
  .option('json', { type: 'string', describe: 'write all figures to this file' })
  .example('$0 cpu', 'everything, about 25 minutes')
  .example('$0 cpu --only shape1,shape2 --rounds 5', 'two shapes')
  .example('$0 cpu --json figures.json', 'keep the figures')
  .demandCommand(1, 1, 'What is to be measured? There is: cpu')
  .strict()
  .version(false)
  .help();

const options = await parser.parseAsync();
const report = await benchmarkCpu({
  rounds: options.rounds,
  threads: options.threads,
  withPeer: options.peer,
  ...(options.only && { only: options.only.split(',') }),
  say: (line) => console.error(line),
});
printReport(report);
if (options.json) await writeFileAtomic(options.json, `${JSON.stringify(report, null, 2)}\n`);
