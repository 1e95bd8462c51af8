/** Options that several commands share. */

import type { Argv } from 'yargs';

export interface ConfigArguments {
  config: string;
  set: string[];
}

export interface StageArguments extends ConfigArguments {
  resume: string;
  acceptChanges: boolean;
}

/** `--set`. */
export function setOption(describe: string) {
  return { type: 'string', array: true, default: [] as string[], nargs: 1, describe } as const;
}

/** `-c` and `--set`. */
export function configOptions<T>(yargs: Argv<T>): Argv<T & ConfigArguments> {
  return yargs
    .option('config', { alias: 'c', type: 'string', demandOption: true, describe: 'YAML file that describes the run' })
    .option('set', setOption('Change one value: --set warmup.steps=200 (repeatable)'))
    .group(['config', 'set'], 'Run:') as unknown as Argv<T & ConfigArguments>;
}

/** `--accept-changes`. */
export function changeOption<T>(yargs: Argv<T>): Argv<T & { acceptChanges: boolean }> {
  return yargs.option('accept-changes', {
    type: 'boolean',
    default: false,
    describe: 'Go on although the configuration differs from the one the run began with',
  }) as unknown as Argv<T & { acceptChanges: boolean }>;
}

/** `-c`, `--set`, `--resume` and `--accept-changes`, for commands that train. */
export function stageOptions<T>(yargs: Argv<T>): Argv<T & StageArguments> {
  return changeOption(configOptions(yargs)).option('resume', {
    type: 'string',
    default: 'auto',
    describe:
      '`auto`: newest valid checkpoint, or a fresh start; `never`: refuse a run that has begun; or a checkpoint folder',
  }) as unknown as Argv<T & StageArguments>;
}
