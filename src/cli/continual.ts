/** `memory3 continual`. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { type StageArguments, stageOptions } from './options.ts';

export const continualCommand: CommandModule<object, StageArguments> = {
  command: 'continual',
  describe: 'Stage two: train on while a growing bank of memories is read (paper §5, §6)',
  builder: (yargs) =>
    stageOptions(yargs)
      .example('$0 continual -c configs/quickstart.yaml', 'train, or go on from the newest checkpoint')
      .example(
        '$0 continual -c configs/quickstart.yaml --resume runs/quickstart/continual/checkpoints/step-00000200',
        'go on from this one',
      ),
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { runContinual } = await import('../pipeline/stages.ts');
    process.exitCode = await runContinual(config, args);
  },
};
