/** `npm run bench -- <what>`: measures memory3, beside its peers where it has them, in turn within one run. */

import yargs from 'yargs';
import { loadConfig } from '../src/config/load.ts';
import { physicalCores } from '../src/io/cores.ts';
import { writeFileAtomic } from '../src/io/files.ts';
import { STAGES } from '../src/io/run_folder.ts';
import { runFolder } from '../src/pipeline/workspace.ts';
import { benchmarkBank } from './bank/bank.ts';
import { benchmarkPrefetch } from './bank/prefetch.ts';
import { printPrefetchReport } from './bank/prefetch_table.ts';
import { printBankReport } from './bank/table.ts';
import { cases } from './cpu/cases.ts';
import { benchmarkCpu } from './cpu/cpu.ts';
import { printReport } from './cpu/table.ts';
import { benchmarkDashboard, printDashboardFigures } from './dashboard/dashboard.ts';
import { benchmarkBuild, printBuildFigures } from './data/build.ts';
import { benchmarkDedup, printDedupReport } from './data/dedup.ts';
import { benchmarkReading, printReadReport } from './data/read.ts';
import { printTokenizerReport } from './data/table.ts';
import { benchmarkTokenizer } from './data/tokenizer.ts';
import { benchmarkFaiss, printFaissReport } from './faiss/faiss.ts';
import { printTrackingReport } from './tracking/table.ts';
import { benchmarkTracking } from './tracking/tracking.ts';

const say = (line: string): void => console.error(line);

async function keep(path: string | undefined, report: unknown): Promise<void> {
  if (path) await writeFileAtomic(path, `${JSON.stringify(report, null, 2)}\n`);
}

await yargs(process.argv.slice(2))
  .scriptName('npm run bench --')
  .usage('$0 <what> [options]\n\nMeasures memory3 on this machine.')
  .option('threads', { type: 'number', default: 0, describe: 'threads of the engine, 0 for the physical cores' })
  .option('json', { type: 'string', describe: 'write all figures to this file' })
  .command(
    'cpu',
    'the native engine beside PyTorch on the CPU, in turn',
    (command) =>
      command
        .option('rounds', { type: 'number', default: 7, describe: 'rounds: in each, both sides run once in turn' })
        .option('only', {
          type: 'string',
          describe: `cases, separated by commas (of ${Object.keys(cases()).join(', ')})`,
        })
        .option('peer', { type: 'boolean', default: true, describe: 'measure PyTorch as well (--no-peer: only ours)' })
        .example('$0 cpu', 'everything, about 25 minutes')
        .example('$0 cpu --only shape1,shape2 --rounds 5', 'two shapes')
        .example('$0 cpu --json figures.json', 'keep the figures'),
    async ({ rounds, threads, peer, only, json }) => {
      const report = await benchmarkCpu({
        rounds,
        threads,
        withPeer: peer,
        ...(only && { only: only.split(',') }),
        say,
      });
      printReport(report);
      await keep(json, report);
    },
  )
  .command(
    'bank',
    'a memory bank: size, opening, search, fetching, adding, editing',
    (command) =>
      command
        .option('config', { type: 'string', alias: 'c', describe: 'the bank of this run; without it one is made' })
        .option('memories', { type: 'number', default: 20_000, describe: 'memories of the made bank' })
        .option('add', { type: 'number', default: 20_000, describe: 'memories added to a copy of a run’s bank' })
        .option('retrievals', {
          type: 'number',
          default: 1000,
          describe: 'retrievals of five memories that are fetched',
        })
        .example('$0 bank', 'a bank of 20,000 made-up memories, about a minute')
        .example('$0 bank -c configs/bank-300k.yaml', 'the bank of a run'),
    async ({ config, memories, add, retrievals, threads, json }) => {
      const folder = config && runFolder((await loadConfig(config, {})).config).bank;
      const report = await benchmarkBank({
        ...(folder && { folder }),
        ...{ memories, add, retrievals, threads, say, dimensions: 256, storage: 'bfloat16' as const },
        layout: { memoryLayers: 3, kvHeads: 4, keptTokens: 8, headDim: 32 },
      });
      printBankReport(report);
      await keep(json, report);
    },
  )
  .command(
    'faiss',
    'the Faiss binding beside the Python package of Faiss, in turn',
    (command) =>
      command
        .option('vectors', { type: 'number', default: 50_000, describe: 'vectors in the indexes' })
        .option('queries', { type: 'number', default: 256, describe: 'queries of a round' })
        .option('rounds', { type: 'number', default: 15, describe: 'rounds: in each, both sides run once in turn' })
        .example('$0 faiss --threads 1', 'on one thread'),
    async ({ vectors, queries, rounds, threads, json }) => {
      const report = await benchmarkFaiss({ vectors, queries, rounds, threads: threads || physicalCores(), say });
      printFaissReport(report);
      await keep(json, report);
    },
  )
  .command(
    'prefetch',
    'how long training steps wait for memories, read ahead and in the step, in turn; needs the quickstart corpus',
    (command) =>
      command
        .option('steps', { type: 'number', default: 20, describe: 'steps of a turn that are measured' })
        .option('rounds', { type: 'number', default: 3, describe: 'rounds: in each, both settings run once in turn' })
        .option('only', { type: 'string', describe: 'cases that begin so, separated by semicolons' })
        .example('$0 prefetch', 'the quickstart and a model of 25 million parameters, about ten minutes')
        .example('$0 prefetch --only quickstart', 'the quickstart alone'),
    async ({ steps, rounds, threads, only, json }) => {
      const report = await benchmarkPrefetch({ steps, rounds, threads, ...(only && { only: only.split(';') }), say });
      printPrefetchReport(report);
      await keep(json, report);
    },
  )
  .command(
    'tracking',
    'training steps with every sink on and with none, in turn; needs the quickstart corpus',
    (command) =>
      command
        .option('steps', { type: 'number', default: 120, describe: 'steps of a block that are measured' })
        .option('rounds', { type: 'number', default: 10, describe: 'rounds: in each, a block of either kind runs' })
        .option('only', { choices: STAGES, describe: 'one stage' })
        .example('$0 tracking', 'both stages, about ten minutes'),
    async ({ steps, rounds, threads, only, json }) => {
      const report = await benchmarkTracking({ steps, rounds, threads, ...(only && { only }), say });
      printTrackingReport(report);
      await keep(json, report);
    },
  )
  .command(
    'tokenizer <text..>',
    'training a tokenizer, and encoding with threads of ours beside `tokenizers` alone, in turn',
    (command) =>
      command
        .positional('text', { type: 'string', array: true, demandOption: true, describe: 'JSONL files with `text`' })
        .option('merges', { type: 'number', default: 32_768, describe: 'merges that are learned' })
        .option('train', { type: 'number', default: 40, describe: 'MB of text to train on, a like part of every file' })
        .option('encode', { type: 'number', default: 20, describe: 'MB of text to encode, a like part of every file' })
        .option('rounds', { type: 'number', default: 3, describe: 'rounds: in each, all ways run once in turn' })
        .example('$0 tokenizer .cache/corpora/{gcide,gutenberg,sotu,debian-packages}/*.jsonl', 'English'),
    async ({ text, merges, train, encode, rounds, json }) => {
      const report = await benchmarkTokenizer({ texts: text, merges, train, encode, rounds, say });
      printTokenizerReport(report);
      await keep(json, report);
    },
  )
  .command(
    'clean <text..>',
    'cleaning and the search for duplicates: MB/s of one core, memory of a kept document',
    (command) =>
      command
        .positional('text', { type: 'string', array: true, demandOption: true, describe: 'JSONL files with `text`' })
        .option('rounds', { type: 'number', default: 3, describe: 'times each step goes through the text' })
        .option('documents', { type: 'number', default: 2_000_000, describe: 'invented documents that are kept' })
        .option('window', { type: 'number', default: 2_000_000, describe: '`data.deduplication.window`' })
        .example('$0 clean .cache/corpora/{gutenberg,debian-packages}/*.jsonl', 'English'),
    async ({ text, rounds, documents, window, json }) => {
      const report = await benchmarkDedup({ paths: text, rounds, documents, window, say });
      printDedupReport(report);
      await keep(json, report);
    },
  )
  .command(
    'build',
    'a whole build of data in a process of its own: MB/s of each stage, the most memory it has',
    (command) =>
      command
        .option('config', { type: 'string', alias: 'c', demandOption: true, describe: 'the run whose data are built' })
        .option('copies', { type: 'number', default: 1, describe: 'how many times as large its corpora are to be' })
        .option('folder', { type: 'string', default: 'runs/.bench', describe: 'for corpora and data, removed then' })
        .example('$0 build -c configs/data/debian.yaml --copies 3', 'three times the Debian tier'),
    async ({ config, copies, folder, json }) => {
      const loaded = (await loadConfig(config, {})).config;
      const figures = await benchmarkBuild({ config: loaded, copies, folder, say });
      printBuildFigures(figures);
      await keep(json, figures);
    },
  )
  .command(
    'read',
    'reading shuffled training sequences back from shards in the page cache',
    (command) =>
      command
        .option('tokens', { type: 'number', default: 100_000_000, describe: 'tokens of the dataset' })
        .option('length', { type: 'number', default: 2048, describe: 'tokens of a sequence' })
        .option('batch', { type: 'number', default: 16, describe: 'sequences read together' })
        .option('rounds', { type: 'number', default: 3, describe: 'epochs after the first' })
        .example('taskset -c 0 $0 read', 'on one core'),
    async ({ tokens, length, batch, rounds, json }) => {
      const report = await benchmarkReading({ tokens, sequenceLength: length, batchSize: batch, rounds });
      printReadReport(report);
      await keep(json, report);
    },
  )
  .command(
    'dashboard',
    'the dashboard over a folder of ten million rows: first view, zoom, memory of its server; needs `npm run build`',
    (command) =>
      command
        .option('rows', { type: 'number', default: 10_000_000, describe: 'rows of all runs' })
        .option('longRows', { type: 'number', default: 8_000_000, describe: 'rows of the longest run' })
        .option('runs', { type: 'number', default: 50, describe: 'runs' })
        .option('zooms', {
          type: 'number',
          default: 40,
          describe: 'zooms of each state, from half of the run to 1/2000',
        })
        .option('folder', {
          type: 'string',
          default: '',
          describe: 'for the runs, removed then; default: temporary files',
        })
        .example('$0 dashboard', 'about five minutes and 5 GB of disk')
        .example('$0 dashboard --rows 200000 --longRows 150000 --runs 5', 'a small one'),
    async ({ rows, longRows, runs, zooms, folder, json }) => {
      const figures = await benchmarkDashboard({ rows, longRows, runs, zooms, folder, say });
      printDashboardFigures(figures);
      await keep(json, figures);
    },
  )
  .demandCommand(
    1,
    1,
    'What is to be measured? There are: cpu, bank, faiss, prefetch, tracking, tokenizer, clean, build, read, dashboard',
  )
  .strict()
  .version(false)
  .help()
  .parseAsync();
