/** `memory3 cost`. */

import type { CommandModule } from 'yargs';
import { type CostReport, costReport, costSvg, costText } from '../analysis/cost_report.ts';
import { PUBLISHED_SHAPE } from '../analysis/costs.ts';
import { PUBLISHED_TRAINING } from '../analysis/device_memory.ts';
import { wantsAscii } from '../analysis/text_chart.ts';
import { loadConfig } from '../config/load.ts';
import { isSystemError, UserError } from '../errors.ts';
import { writeFileAtomic } from '../io/files.ts';
import { setOption } from './options.ts';

interface Arguments {
  config?: string;
  set: string[];
  uses?: number;
  svg?: string;
  json: boolean;
}

export const costCommand: CommandModule<object, Arguments> = {
  command: 'cost',
  describe:
    'What knowledge costs as parameters, as explicit memory and as text, and from how many uses on each is cheapest; and the memory of a GPU that training takes',
  builder: (yargs) =>
    yargs
      .option('config', {
        alias: 'c',
        type: 'string',
        describe: "YAML file that describes the run [default: the paper's model]",
      })
      .option('set', setOption('Change one value of it: --set memory.keptTokens=16 (repeatable)'))
      .option('uses', { type: 'number', describe: 'Also compare the formats for a reference used so often' })
      .option('svg', { type: 'string', requiresArg: true, describe: 'Also draw the chart to this SVG file' })
      .option('json', { type: 'boolean', default: false, describe: 'Print all figures as JSON' })
      .group(['config', 'set'], 'Run:')
      .example('$0 cost', "the paper's model: its appendix A and Figure 4")
      .example('$0 cost -c configs/quickstart.yaml --uses 1000 --svg cost.svg', 'a run, and its picture') as never,
  handler: async (args) => {
    const report = await reportOf(args);
    if (args.svg !== undefined) await writePicture(args.svg, costSvg(report));
    const { columns = 80 } = process.stdout;
    const text = args.json
      ? JSON.stringify(report, null, 2)
      : costText(report, { width: columns, ascii: wantsAscii(process.env) });
    process.stdout.write(`${text}\n`);
  },
};

async function reportOf({ config: path, set, uses }: Arguments): Promise<CostReport> {
  if (uses !== undefined && !(uses > 0 && Number.isFinite(uses))) {
    throw new UserError('usage_invalid', { what: `--uses ${uses} is no number of uses`, action: 'give one above 0' });
  }
  if (path !== undefined) {
    const { runCosts } = await import('../pipeline/costs.ts');
    return await runCosts((await loadConfig(path, { set })).config, uses);
  }
  if (set.length > 0) {
    const action = 'name a configuration with -c';
    throw new UserError('usage_invalid', { what: '--set changes a configuration, and none is given', action });
  }
  return costReport("the paper's model", PUBLISHED_SHAPE, PUBLISHED_TRAINING, uses);
}

async function writePicture(path: string, svg: string): Promise<void> {
  try {
    await writeFileAtomic(path, svg);
  } catch (cause) {
    if (!isSystemError(cause)) throw cause;
    throw new UserError('usage_invalid', {
      where: `--svg ${path}`,
      what: `the picture cannot be written: ${cause.message}`,
      action: 'name a file in a folder that can be written to',
      cause,
    });
  }
  process.stderr.write(`the picture is ${path}\n`);
}
