/** `memory3 data report`. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import type { DataConfig } from '../config/schema.ts';
import type { ShownReport } from '../data/report.ts';
import { isSystemError, UserError } from '../errors.ts';
import { writeFileAtomic } from '../io/files.ts';
import { type ConfigArguments, configOptions } from './options.ts';

type Arguments = ConfigArguments & { html: string | undefined };

/** @param read gives the report of a data folder; throws UserError artefact_missing when nothing is built there */
export function reportCommand(
  read: (folder: string, data: DataConfig) => Promise<ShownReport>,
): CommandModule<object, Arguments> {
  return {
    command: 'report',
    describe: 'Show what the build read, what it dropped and why, with examples, and how long it took',
    builder: (yargs) =>
      configOptions(yargs)
        .option('html', { type: 'string', requiresArg: true, describe: 'Also write it as a page of HTML to this file' })
        .example('$0 data report -c configs/quickstart.yaml', 'what became of the text')
        .example('$0 data report -c configs/quickstart.yaml --html report.html', 'the same to look at') as never,
    handler: async (args) => {
      const { config } = await loadConfig(args.config, { set: args.set });
      const { runFolder } = await import('../pipeline/workspace.ts');
      const { reportText } = await import('../data/report_text.ts');
      const report = await read(runFolder(config).data, config.data);
      process.stdout.write(`${reportText(report, process.stdout.columns)}\n`);
      if (args.html === undefined) return;
      await writePage(args.html, report);
      process.stdout.write(`\nthe page is ${args.html}\n`);
    },
  };
}

async function writePage(path: string, report: ShownReport): Promise<void> {
  const { reportPage } = await import('../data/report_page.ts');
  try {
    await writeFileAtomic(path, reportPage(report));
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new UserError('usage_invalid', {
      where: `--html ${path}`,
      what: `the page cannot be written: ${cause.message}`,
      action: 'name a file in a folder that can be written to',
      cause,
    });
  }
}
