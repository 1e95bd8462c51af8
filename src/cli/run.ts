/** `memory3 run`: the whole pipeline. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { changeOption, configOptions, type StageArguments } from './options.ts';

export const runCommand: CommandModule<object, StageArguments> = {
  command: 'run',
  describe: 'Run every stage: data, warmup, compile, continual, evaluation; continues where it stopped',
  builder: (yargs) =>
    changeOption(configOptions(yargs))
      .option('resume', {
        choices: ['auto', 'never'] as const,
        default: 'auto',
        describe:
          '`auto`: newest valid checkpoint of each stage, or a fresh start; `never`: refuse a run that has begun',
      })
      .example('$0 run -c configs/quickstart.yaml', 'everything, on two cores, in minutes')
      .example('$0 run -c configs/quickstart.yaml --set warmup.steps=300', 'with one value changed') as never,
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { runPipeline } = await import('../pipeline/pipeline.ts');
    process.exitCode = await runPipeline(config, args);
  },
};
