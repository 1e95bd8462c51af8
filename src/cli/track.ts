/** `memory3 track export` and `status`. */

import { join } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import type { RunConfig } from '../config/schema.ts';
import { UserError } from '../errors.ts';
import { exists } from '../io/files.ts';
import { SINKS, type SinkName } from '../tracking/sink.ts';
import { setOption } from './options.ts';

interface RunArguments {
  config: string | undefined;
  set: string[];
  run: string | undefined;
}

/** A run by its configuration or by its folder. */
function runOptions<T>(yargs: Argv<T>): Argv<T & RunArguments> {
  return yargs
    .option('config', { alias: 'c', type: 'string', requiresArg: true, describe: 'YAML file that describes the run' })
    .option('set', setOption('Change one value: --set name=other (repeatable)'))
    .option('run', { type: 'string', requiresArg: true, describe: 'Folder of the run, instead of its YAML file' })
    .conflicts('config', 'run')
    .group(['config', 'set', 'run'], 'Run:') as unknown as Argv<T & RunArguments>;
}

async function namedRun({ config: path, set, run }: RunArguments): Promise<{ root: string; config: RunConfig }> {
  if (run !== undefined) {
    const saved = join(run, 'config.yaml');
    if (!(await exists(saved))) {
      const action = 'name a folder below runs/, such as runs/quickstart';
      throw new UserError('input_missing', { where: `--run ${run}`, what: 'it is not the folder of a run', action });
    }
    return { root: run, config: (await loadConfig(saved, { set })).config };
  }
  if (path === undefined) {
    throw new UserError('usage_invalid', { what: 'no run is named', action: 'give -c CONFIG or --run FOLDER' });
  }
  const { config } = await loadConfig(path, { set });
  return { root: join(config.runsFolder, config.name), config };
}

const exportCommand: CommandModule<object, RunArguments & { to: SinkName; out: string | undefined }> = {
  command: 'export',
  describe: 'Make a run of Weights & Biases, event files of TensorBoard or a table from the metrics of a run',
  builder: (yargs) =>
    runOptions(yargs)
      .option('to', { choices: SINKS, demandOption: true, describe: 'What to make' })
      .option('out', {
        type: 'string',
        requiresArg: true,
        describe: 'File (csv) or folder (tensorboard) to write; without it, the one in the run folder is replaced',
      })
      .example('$0 track export --run runs/quickstart --to csv --out run.csv', 'a table of every step')
      .example('$0 track export -c run.yaml --to tensorboard', 'event files, also of a run that had none') as never,
  handler: async (args) => {
    const { root, config } = await namedRun(args);
    const { exportRun } = await import('../tracking/export.ts');
    const { place, rows } = await exportRun(root, config, args.to, args.out);
    process.stdout.write(`${rows} rows: ${place}\n`);
  },
};

const statusCommand: CommandModule<object, RunArguments> = {
  command: 'status',
  describe: 'Show whether a run goes on and how far each of its sinks has come',
  builder: (yargs) =>
    runOptions(yargs).example('$0 track status --run runs/quickstart', 'running, finished or crashed') as never,
  handler: async (args) => {
    const { root } = await namedRun(args);
    const { RunFolder } = await import('../io/run_folder.ts');
    const { describeStatus, readStatus } = await import('../tracking/status.ts');
    const folder = new RunFolder(root);
    process.stdout.write(`run: ${folder.root}\n${describeStatus(await readStatus(folder.status))}\n`);
  },
};

export const trackCommand: CommandModule = {
  command: 'track',
  describe: 'Export what a run has recorded, or see how its recording fares',
  builder: (yargs) =>
    yargs
      .command(exportCommand)
      .command(statusCommand)
      .demandCommand(1, 'Name one of: export, status.')
      .example('$0 track status -c run.yaml', 'see how it goes'),
  handler: () => {},
};
