/** What the `memory3 bank` commands share. */

import type { Argv } from 'yargs';
import type { KnowledgeBase, StoredReference } from '../infer/knowledge_base.ts';
import { type ConfigArguments, configOptions } from './options.ts';

/** Opens the knowledge of the run, does `work` and closes it. */
export async function withKnowledge(
  args: ConfigArguments,
  work: (knowledge: KnowledgeBase) => Promise<void>,
): Promise<void> {
  const { KnowledgeBase } = await import('../infer/knowledge_base.ts');
  const knowledge = await KnowledgeBase.open(args.config, { set: args.set });
  try {
    await work(knowledge);
  } finally {
    await knowledge.close();
  }
}

/** `-c`, `--set` and `--json`. */
export function jsonOptions<T>(yargs: Argv<T>, describe: string): Argv<T & ConfigArguments & { json: boolean }> {
  return configOptions(yargs).option('json', { type: 'boolean', default: false, describe }) as never;
}

export interface FilterArguments extends ConfigArguments {
  contains?: string;
  document?: string;
}

/** `--contains` and `--document`. */
export function filterOptions<T>(yargs: Argv<T>): Argv<T & FilterArguments> {
  return yargs
    .option('contains', { type: 'string', describe: 'Only those whose title or text contains this' })
    .option('document', { type: 'string', describe: 'Only those of the document with this id' }) as never;
}

export function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** A reference on one line: id, source, text. */
export function line({ id, document, title, text }: StoredReference): string {
  return `${id}  ${title ? `${title} (${document})` : document}  ${text.replaceAll(/\s+/g, ' ')}\n`;
}
