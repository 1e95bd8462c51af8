/** `memory3 bank tune`. */

import type { CommandModule } from 'yargs';
import { announce } from '../tracking/progress.ts';
import { withKnowledge } from './bank_options.ts';
import { type ConfigArguments, configOptions } from './options.ts';

type TuneArguments = ConfigArguments & { factory?: string[]; k: number; recall: number; dryRun: boolean };

export const tuneCommand: CommandModule<object, TuneArguments> = {
  command: 'tune',
  describe: 'Measure recall and time of ways to search the bank, and keep the fastest that finds enough',
  builder: (yargs) =>
    configOptions(yargs)
      .option('factory', {
        type: 'string',
        array: true,
        describe:
          'Indexes to try: strings of Faiss’s index factory [default: a graph and lists, and none for lexical vectors]',
      })
      .option('k', { type: 'number', default: 5, describe: 'Memories that a search asks for' })
      .option('recall', { type: 'number', default: 0.99, describe: 'Share of the k nearest that must be found' })
      .option('dry-run', { type: 'boolean', default: false, describe: 'Only measure' })
      .example('$0 bank tune -c configs/bank-300k.yaml', 'find how far a graph has to be searched')
      .example('$0 bank tune -c configs/bank-300k.yaml --factory HNSW32 IVF1024,Flat', 'compare two') as never,
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      const { factory: factories, k, recall, dryRun } = args;
      const { trials, chosen } = await knowledge.tune({
        ...(factories && { factories }),
        k,
        recall,
        dryRun,
        say: announce,
      });
      const row = (cells: string[]): string =>
        cells.map((cell, i) => (i < 2 ? cell.padEnd(24) : cell.padStart(12))).join('');
      process.stdout.write(`${row(['index', 'parameters', `recall@${k}`, 'ms a query', 'of exact'])}\n`);
      for (const { factory, parameters, recall, milliseconds } of trials) {
        const settings = Object.entries(parameters).map(([name, value]) => `${name}=${value}`);
        const faster = trials[0]!.milliseconds / milliseconds;
        const cells = [
          factory,
          settings.join(' '),
          recall.toFixed(4),
          milliseconds.toFixed(3),
          `${faster.toFixed(1)} x`,
        ];
        process.stdout.write(`${row(cells)}\n`);
      }
      const kept = dryRun ? 'best' : 'kept';
      const said =
        chosen === undefined ? 'at this recall none is faster than a search without one' : `${kept}: ${chosen.factory}`;
      process.stdout.write(`${said}\n`);
    }),
};
