/** `memory3 run`: the whole pipeline. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { type StageArguments, stageOptions } from './options.ts';

export const runCommand: CommandModule<object, StageArguments> = {
  command: 'run',
  describe: 'Run every stage: data, warmup, compile, continual, evaluation; continues where it stopped',
  builder: (yargs) =>
    stageOptions(yargs)
      .example('$0 run -c configs/quickstart.yaml', 'everything, on two cores, in minutes')
      .example('$0 run -c configs/quickstart.yaml --set warmup.steps=300', 'with one value changed'),
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { runPipeline } = await import('../pipeline/pipeline.ts');
    process.exitCode = await runPipeline(config, args);
  },
};
