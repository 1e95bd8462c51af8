/** `memory3 bank ls|get|search|stats|export`. */

import type { CommandModule } from 'yargs';
import type { BankStats } from '../memory/bank_stats.ts';
import { type FilterArguments, filterOptions, jsonOptions, line, print, withKnowledge } from './bank_options.ts';
import { type ConfigArguments, configOptions } from './options.ts';

type Json = ConfigArguments & { json: boolean };

export const listCommand: CommandModule<object, Json & FilterArguments & { limit: number }> = {
  command: ['ls', 'list'],
  describe: 'List memories: id, source, text',
  builder: (yargs) =>
    filterOptions(jsonOptions(yargs, 'One JSON object a line, without the summary'))
      .option('limit', { type: 'number', default: 50, describe: 'Lines at most' })
      .example('$0 bank ls -c configs/quickstart.yaml --contains Chad', 'find a memory') as never,
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      let found = 0;
      for await (const reference of knowledge.list(args)) {
        if (found++ >= args.limit) continue;
        if (args.json) print(reference);
        else process.stdout.write(line(reference));
      }
      if (args.json) return;
      const { memories, version } = await knowledge.stats();
      const more = found > args.limit ? `, ${args.limit} shown` : '';
      process.stdout.write(`${found} of ${memories} memories${more}; bank version ${version}\n`);
    }),
};

export const getCommand: CommandModule<object, Json & { id: string }> = {
  command: ['get <id>', 'show <id>'],
  describe: 'Show one memory as JSON: its text, tokens, which of them were kept, and who wrote it',
  builder: (yargs) =>
    jsonOptions(yargs, 'On one line')
      .positional('id', { type: 'string', demandOption: true, describe: 'Id of the memory' })
      .example('$0 bank get -c configs/quickstart.yaml 0123456789abcdef', 'look at one memory') as never,
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      const memory = await knowledge.get(args.id);
      process.stdout.write(`${JSON.stringify(memory, null, args.json ? 0 : 2)}\n`);
    }),
};

export const searchCommand: CommandModule<object, Json & { text: string; limit: number }> = {
  command: 'search <text>',
  describe: 'What retrieval finds for a text, nearest first: similarity, id, source, text',
  builder: (yargs) =>
    jsonOptions(yargs, 'One JSON object a line')
      .positional('text', {
        type: 'string',
        demandOption: true,
        describe: 'The text, as it would be asked or continued',
      })
      .option('limit', { type: 'number', default: 10, describe: 'Memories at most' })
      .example('$0 bank search -c configs/quickstart.yaml "Chad currency"', 'which memories would be read')
      .example('$0 bank search -c configs/quickstart.yaml "Chad currency" --json --limit 1', 'for programs') as never,
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      for (const hit of await knowledge.search(args.text, args)) {
        if (args.json) print(hit);
        else process.stdout.write(`${hit.score.toFixed(3)}  ${line(hit)}`);
      }
    }),
};

export const statsCommand: CommandModule<object, Json> = {
  command: 'stats',
  describe: 'Count memories, versions and bytes',
  builder: (yargs) =>
    jsonOptions(yargs, 'As one JSON object').example('$0 bank stats -c configs/quickstart.yaml', 'how large it is'),
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      const stats = await knowledge.stats();
      if (args.json) print(stats);
      else process.stdout.write(statsTable(stats));
    }),
};

export const exportCommand: CommandModule<object, ConfigArguments & FilterArguments & { file: string }> = {
  command: 'export <file>',
  describe: 'Write the references as JSON lines: id, document, title, text, span',
  builder: (yargs) =>
    filterOptions(configOptions(yargs))
      .positional('file', { type: 'string', demandOption: true, describe: 'File to write; replaced when it is there' })
      .example('$0 bank export -c configs/quickstart.yaml known.jsonl', 'all that is known') as never,
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      process.stdout.write(`${await knowledge.export(args.file, args)} references written to ${args.file}\n`);
    }),
};

function statsTable(stats: BankStats): string {
  const { bytes, memory } = stats;
  const { memoryLayers, kvHeads, keptTokens, headDim } = memory;
  const shape = `2 · ${memoryLayers} layers · ${kvHeads} heads · ${keptTokens} tokens · ${headDim} dimensions`;
  const rows: [string, string][] = [
    ['memories', `${stats.memories} in ${stats.segments} segments; ${stats.tombstones} deleted ones not compacted yet`],
    ['version', `${stats.version}; there are ${stats.versions.join(', ')}`],
    ['bytes of rows', `${bytes.rows}`],
    ['bytes of vectors', `${bytes.vectors}`],
    ['bytes of records', `${bytes.records}`],
    ['bytes in all', `${bytes.folder}, with all versions`],
    ['bytes a memory', `${memory.bytes} = ${shape} · ${memory.bytesPerNumber} bytes`],
    ['stored as', stats.storage],
    ...Object.entries(stats.writers).map(([hash, count]): [string, string] => ['written by', `${hash} (${count})`]),
    ['model', stats.modelKey],
    ['tokenizer', stats.tokenizerHash],
    [
      'encoder',
      Object.entries(stats.encoder)
        .map(([name, value]) => `${name}=${String(value)}`)
        .join(' '),
    ],
    ['index', stats.index],
  ];
  return rows.map(([name, value]) => `${name.padEnd(18)}${value}\n`).join('');
}
