/** What `ask` and `generate` share. */

import type { Argv } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { UserError } from '../errors.ts';
import type { Answer, UsedMemory } from '../infer/generate.ts';
import type { Session } from '../infer/session.ts';
import { type ConfigArguments, configOptions } from './options.ts';

export interface AnswerArguments extends ConfigArguments {
  text: string;
  memory: boolean;
  cold: boolean;
  trace: boolean;
  record: boolean;
  checkpoint?: string;
  maxTokens?: number;
  temperature?: number;
  topP?: number;
  stop?: string[];
  seed?: number;
}

export function answerOptions<T>(yargs: Argv<T>, name: string, describe: string): Argv<T & ConfigArguments> {
  return configOptions(
    yargs
      .positional(name, { type: 'string', demandOption: true, describe })
      .option('memory', {
        type: 'boolean',
        default: true,
        describe: 'Read memories; --no-memory answers from the parameters alone',
      })
      .option('cold', {
        type: 'boolean',
        default: false,
        describe: 'Also find references that are not in the bank; they are written when first found, and stored',
      })
      .option('trace', {
        type: 'boolean',
        default: false,
        describe: 'List for each chunk the memories used: source, text, kept tokens, share of attention',
      })
      .option('record', {
        type: 'boolean',
        default: true,
        describe:
          'Keep the answer with its trace in metrics/answers.jsonl of the run, for the dashboard; --no-record does not',
      })
      .option('checkpoint', { type: 'string', describe: 'Checkpoint folder [default: the newest of the run]' })
      .option('max-tokens', { type: 'number', describe: 'Tokens generated at most [default: generate.maxTokens]' })
      .option('temperature', { type: 'number', describe: '0 is greedy [default: generate.temperature]' })
      .option('top-p', { type: 'number', describe: 'Nucleus sampling [default: generate.topP]' })
      .option('stop', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'End after this text [default: generate.stop]',
      })
      .option('seed', { type: 'number', describe: 'Seed of the sampling [default: seed]' }),
  ) as unknown as Argv<T & ConfigArguments>;
}

type Generate = (session: Session, text: string, onText?: (piece: string) => void) => Promise<Answer>;

/** Opens the run's newest model with its bank, does `work`, and closes it. */
export async function withSession(
  args: AnswerArguments,
  work: (session: Session, generate: Generate) => Promise<void>,
): Promise<void> {
  if (args.cold && !args.memory) {
    const action = 'leave one of them out';
    throw new UserError('usage_invalid', { what: '--cold writes memories, and --no-memory reads none', action });
  }
  const overrides = (['maxTokens', 'temperature', 'topP'] as const)
    .filter((key) => args[key] !== undefined)
    .map((key) => `generate.${key}=${args[key]}`);
  const { config } = await loadConfig(args.config, { set: [...args.set, ...overrides] });
  const { openSession } = await import('../pipeline/session.ts');
  const { generate } = await import('../infer/generate.ts');
  const { recordAnswer } = await import('../infer/answer_record.ts');
  const session = await openSession(config, args);
  const options = { ...config.generate, seed: args.seed ?? config.seed, memory: args.memory };
  try {
    await work(session, async (opened, text, onText) => {
      const stop = args.stop ?? options.stop;
      const answer = await generate(opened, text, { ...options, stop, ...(onText && { onText }) });
      if (args.record) await recordAnswer(opened.folder, { prompt: text, ...answer });
      return answer;
    });
  } finally {
    await session.close();
  }
}

/** Each chunk with its memories. */
export function printTrace({ trace }: Answer): void {
  for (const [number, { text, memories }] of trace.entries()) {
    process.stdout.write(`\nchunk ${number}: ${JSON.stringify(text)}\n`);
    if (memories.length === 0) process.stdout.write('  no memories\n');
    for (const memory of memories) {
      process.stdout.write(
        `  ${describe(memory)}\n    ${memory.text}\n    kept tokens: ${memory.keptTokens.join('|')}\n`,
      );
    }
  }
}

/** The memories of an answer, those that were looked at most first. */
export function printSources({ trace }: Answer): void {
  const best = new Map<string, UsedMemory>();
  for (const memory of trace.flatMap(({ memories }) => memories)) {
    if (memory.share >= (best.get(memory.id)?.share ?? 0)) best.set(memory.id, memory);
  }
  const sources = [...best.values()].sort((a, b) => b.share - a.share);
  if (sources.length > 0) process.stdout.write('\nsources:\n');
  for (const memory of sources) process.stdout.write(`  ${describe(memory)}\n    ${memory.text}\n`);
}

function describe({ id, title, document, share, score }: UsedMemory): string {
  const name = title === '' ? document : `${title} (${document})`;
  return `${id}  ${name}  attention ${(100 * share).toFixed(1)} %, similarity ${score.toFixed(2)}`;
}
