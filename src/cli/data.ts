/** `memory3 data fetch`, `build`, `report`, `inspect` and `verify`. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { fetchCommand } from './data_fetch.ts';
import { reportCommand } from './data_report.ts';
import { type ConfigArguments, configOptions } from './options.ts';

const build: CommandModule<object, ConfigArguments & { strict: boolean }> = {
  command: 'build',
  describe:
    'Make tokenizer, token dataset and references; data that is complete and fits is kept, a killed build goes on',
  builder: (yargs) =>
    configOptions(yargs)
      .option('strict', {
        type: 'boolean',
        default: false,
        describe: 'End at the first record that cannot be read, as `data.strict` does, instead of counting it',
      })
      .example('$0 data build -c configs/quickstart.yaml', 'build the data of a run')
      .example('$0 data build -c run.yaml --strict', 'trust nothing') as never,
  handler: async (args) => {
    const set = args.strict ? [...args.set, 'data.strict=true'] : args.set;
    const { config } = await loadConfig(args.config, { set });
    const { runDataBuild } = await import('../pipeline/stages.ts');
    await runDataBuild(config);
  },
};

const report = reportCommand(async (folder, data) => {
  const { readReport } = await import('../data/build_report.ts');
  return await readReport(folder, data);
});

const inspect: CommandModule<object, ConfigArguments> = {
  command: 'inspect',
  describe: 'Show what the data of a run consists of: counts, shards, sample windows',
  builder: (yargs) => configOptions(yargs).example('$0 data inspect -c configs/quickstart.yaml', 'look at the data'),
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { inspectData } = await import('../data/inspect.ts');
    const { runFolder } = await import('../pipeline/workspace.ts');
    process.stdout.write(`${await inspectData(runFolder(config).data)}\n`);
  },
};

const verify: CommandModule<object, ConfigArguments> = {
  command: 'verify',
  describe: 'Compare every file of the data of a run with its checksum',
  builder: (yargs) => configOptions(yargs).example('$0 data verify -c configs/quickstart.yaml', 'check every byte'),
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { verifyData } = await import('../data/inspect.ts');
    const { runFolder } = await import('../pipeline/workspace.ts');
    const { files, bytes } = await verifyData(runFolder(config).data);
    process.stdout.write(`${files} files, ${(bytes / 1e6).toFixed(1)} MB: every checksum is right\n`);
  },
};

export const dataCommand: CommandModule = {
  command: 'data',
  describe: 'Fetch corpora; build, look at or check tokenizer, token dataset and references',
  builder: (yargs) =>
    yargs
      .command(fetchCommand)
      .command(build)
      .command(report)
      .command(inspect)
      .command(verify)
      .demandCommand(1, 'Name one of: fetch, build, report, inspect, verify.')
      .example('$0 data build -c run.yaml', 'make what training reads'),
  handler: () => {},
};
