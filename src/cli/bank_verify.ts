/** `memory3 bank verify`. */

import type { CommandModule } from 'yargs';
import { withKnowledge } from './bank_options.ts';
import { type ConfigArguments, configOptions } from './options.ts';

export const verifyCommand: CommandModule<object, ConfigArguments> = {
  command: 'verify',
  describe: 'Compare every file of the bank with its checksums',
  builder: (yargs) => configOptions(yargs).example('$0 bank verify -c configs/quickstart.yaml', 'check every byte'),
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      const { version, memories } = await knowledge.verify();
      process.stdout.write(`bank version ${version}: ${memories} memories, every checksum is right\n`);
    }),
};
