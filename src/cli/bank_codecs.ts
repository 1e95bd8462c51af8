/** `memory3 bank codecs`. */

import type { CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import type { CodecComparison, CodecTrial } from '../pipeline/compare_codecs.ts';
import { announce } from '../tracking/progress.ts';
import { jsonOptions, print } from './bank_options.ts';
import type { ConfigArguments } from './options.ts';

type CodecArguments = ConfigArguments & { codec?: string[]; json: boolean };

export const codecsCommand: CommandModule<object, CodecArguments> = {
  command: 'codecs',
  describe: 'Measure what codecs would save and lose: bytes, reconstruction error, validation loss; writes nothing',
  builder: (yargs) =>
    jsonOptions(yargs, 'As one JSON object')
      .option('codec', {
        type: 'string',
        array: true,
        describe: 'Faiss codec strings, or auto [default: some for the head dimension of the run]',
      })
      .example('$0 bank codecs -c configs/quickstart.yaml', 'before setting memory.codec')
      .example('$0 bank codecs -c configs/quickstart.yaml --codec PQ8 SQ4', 'compare two') as never,
  handler: async (args) => {
    const { config } = await loadConfig(args.config, { set: args.set });
    const { compareCodecs } = await import('../pipeline/compare_codecs.ts');
    const comparison = await compareCodecs(config, { codecs: args.codec, say: announce });
    if (args.json) print(comparison);
    else process.stdout.write(table(comparison));
  },
};

function table({ trials, float32Bytes, bfloat16Bytes, lossWithoutMemory }: CodecComparison): string {
  const line = (cells: string[]): string =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(30) : cell.padStart(13))).join('');
  const unquantised = trials[0]?.loss;
  const row = ({ codec, bytes, loss, problem, ...trial }: CodecTrial): string =>
    problem !== undefined
      ? `${codec.padEnd(30)}  ${problem}`
      : line([
          codec,
          `${bytes}`,
          (float32Bytes / bytes).toFixed(1),
          (bfloat16Bytes / bytes).toFixed(1),
          trial.keyError.toFixed(4),
          trial.valueError.toFixed(4),
          trial.encodeMilliseconds.toFixed(3),
          trial.decodeMilliseconds.toFixed(3),
          loss?.toFixed(4) ?? '-',
          loss === undefined || unquantised === undefined ? '-' : signed(loss - unquantised),
        ]);
  const heads = [
    'stored as',
    'bytes',
    'of float32',
    'of bfloat16',
    'key error',
    'value error',
    'ms to encode',
    'ms to decode',
    'loss',
    'change',
  ];
  const without = lossWithoutMemory === undefined ? [] : [`without memory: loss ${lossWithoutMemory.toFixed(4)}`];
  return [line(heads), ...trials.map(row), ...without].map((text) => `${text}\n`).join('');
}

function signed(value: number): string {
  return `${value < 0 ? '' : '+'}${value.toFixed(4)}`;
}
