/** `memory3 data fetch`, `memory3 data build` and `memory3 data inspect`. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { fetchCommand } from './data_fetch.ts';
import { type ConfigArguments, configOptions } from './options.ts';

const build: CommandModule<object, ConfigArguments> = {
  command: 'build',
  describe: 'Make tokenizer, token dataset and references; data that is complete and fits is kept',
  builder: (yargs) =>
    configOptions(yargs).example('$0 data build -c configs/quickstart.yaml', 'build the data of a run'),
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { runDataBuild } = await import('../pipeline/stages.ts');
    await runDataBuild(config);
  },
};

const inspect: CommandModule<object, ConfigArguments & { verify: boolean }> = {
  command: 'inspect',
  describe: 'Show what the data of a run consists of, what was skipped and why, and sample windows',
  builder: (yargs) =>
    configOptions(yargs)
      .option('verify', { type: 'boolean', default: false, describe: 'Also compare every file with its checksum' })
      .example('$0 data inspect -c configs/quickstart.yaml --verify', 'look at the data and check every byte') as never,
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { inspectData, verifyData } = await import('../data/inspect.ts');
    const { runFolder } = await import('../pipeline/workspace.ts');
    const { data } = runFolder(config);
    if (args.verify) await verifyData(data);
    process.stdout.write(`${await inspectData(data)}\n`);
    if (args.verify) process.stdout.write('every checksum is right\n');
  },
};

export const dataCommand: CommandModule = {
  command: 'data',
  describe: 'Fetch corpora; build or look at tokenizer, token dataset and references',
  builder: (yargs) =>
    yargs
      .command(fetchCommand)
      .command(build)
      .command(inspect)
      .demandCommand(1, 'Name one of: fetch, build, inspect.')
      .example('$0 data build -c run.yaml', 'build'),
  handler: () => {},
};
