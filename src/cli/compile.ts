/** `memory3 compile`. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { UserError } from '../errors.ts';
import { type ConfigArguments, changeOption, configOptions } from './options.ts';

interface Arguments extends ConfigArguments {
  acceptChanges: boolean;
  stage?: 'warmup' | 'continual';
  share?: number;
  cold: boolean;
}

export const compileCommand: CommandModule<object, Arguments> = {
  command: 'compile',
  describe: 'Write the references as explicit memories into the bank of the run (paper §3.2)',
  builder: (yargs) =>
    changeOption(configOptions(yargs))
      .option('stage', {
        choices: ['warmup', 'continual'] as const,
        describe: 'Whose finished checkpoint writes [default: the newest]',
      })
      .option('share', {
        type: 'number',
        describe:
          'Share of the references to write [default: warmup: what the growth plan begins with; continual: all]',
      })
      .option('cold', {
        type: 'boolean',
        default: false,
        describe: 'Write none: `ask --cold` and `generate --cold` write each reference when it is first found',
      })
      .example('$0 compile -c configs/quickstart.yaml', 'with the newest finished checkpoint')
      .example(
        '$0 compile -c configs/quickstart.yaml --stage warmup --share 1',
        'all references with stage one',
      ) as never,
  handler: async (args) => {
    const { share } = args;
    if (share !== undefined && !(share > 0 && share <= 1)) {
      throw new UserError('usage_invalid', { what: `--share ${share}`, action: 'give a number above 0, at most 1' });
    }
    if (args.cold && share !== undefined) {
      throw new UserError('usage_invalid', {
        what: '--cold writes none, --share a share',
        action: 'leave one of them out',
      });
    }
    const { config } = await loadConfig(args.config, { set: args.set });
    const { runCompile } = await import('../pipeline/stages.ts');
    process.exitCode = await runCompile(config, args);
  },
};
