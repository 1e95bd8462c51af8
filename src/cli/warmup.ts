/** `memory3 warmup`. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { type StageArguments, stageOptions } from './options.ts';

export const warmupCommand: CommandModule<object, StageArguments> = {
  command: 'warmup',
  describe: 'Stage one: pretrain the model without memories (paper §5)',
  builder: (yargs) =>
    stageOptions(yargs)
      .example('$0 warmup -c configs/quickstart.yaml', 'train, or go on from the newest checkpoint')
      .example(
        '$0 warmup -c configs/quickstart.yaml --resume runs/quickstart/warmup/checkpoints/step-00000200',
        'go on from this one',
      ),
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { runWarmup } = await import('../pipeline/stages.ts');
    process.exitCode = await runWarmup(config, args);
  },
};
