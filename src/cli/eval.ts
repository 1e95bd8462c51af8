/** `memory3 eval`. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { type ConfigArguments, changeOption, configOptions } from './options.ts';

export const evalCommand: CommandModule<object, ConfigArguments & { acceptChanges: boolean }> = {
  command: 'eval',
  describe: 'Ask the held-out questions with and without memory; print a table and write report.json',
  builder: (yargs) =>
    changeOption(configOptions(yargs))
      .example('$0 eval -c configs/quickstart.yaml', 'evaluate the newest checkpoint with its bank')
      .example('$0 eval -c configs/quickstart.yaml --set evaluation.maxQuestions=50', 'fewer questions') as never,
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { runEvaluation } = await import('../pipeline/pipeline.ts');
    process.exitCode = await runEvaluation(config, args);
  },
};
