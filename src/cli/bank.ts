/** `memory3 bank list|show|add|edit|delete|verify`. */

import type { Argv, CommandModule } from 'yargs';
import { loadConfig } from '../config/load.ts';
import { UserError } from '../errors.ts';
import type { Session } from '../infer/session.ts';
import type { Bank } from '../memory/bank.ts';
import type { MemoryRecord } from '../memory/layout.ts';
import { type ConfigArguments, configOptions } from './options.ts';

/** Opens the bank alone: no model, no engine. */
async function withBank(args: ConfigArguments, work: (bank: Bank) => Promise<void>): Promise<void> {
  const { config } = await loadConfig(args.config, { set: args.set });
  const { Bank } = await import('../memory/bank.ts');
  const { runFolder } = await import('../pipeline/workspace.ts');
  const bank = await Bank.open(runFolder(config).bank);
  try {
    await work(bank);
  } finally {
    await bank.close();
  }
}

/** Opens the run for a change: nobody else may write to it meanwhile. */
async function withEditor(args: ConfigArguments, work: (session: Session) => Promise<void>): Promise<void> {
  const { config } = await loadConfig(args.config, { set: args.set });
  const { withBankEditor } = await import('../pipeline/session.ts');
  await withBankEditor(config, work);
}

function line({ id, document, title, text }: MemoryRecord): string {
  return `${id}  ${title ? `${title} (${document})` : document}  ${text.replaceAll('\n', ' ')}\n`;
}

const list: CommandModule<object, ConfigArguments & { contains?: string; limit: number }> = {
  command: 'list',
  describe: 'List memories: id, source, text',
  builder: (yargs) =>
    configOptions(yargs)
      .option('contains', { type: 'string', describe: 'Only those whose text or title contains this' })
      .option('limit', { type: 'number', default: 50, describe: 'Lines at most' })
      .example('$0 bank list -c configs/quickstart.yaml --contains Chad', 'find a memory') as never,
  handler: (args) =>
    withBank(args, async (bank) => {
      const wanted = args.contains?.toLowerCase();
      let shown = 0;
      for await (const record of bank.list()) {
        const isWanted = wanted === undefined || `${record.title} ${record.text}`.toLowerCase().includes(wanted);
        if (isWanted && shown++ < args.limit) process.stdout.write(line(record));
      }
      const more = shown > args.limit ? `, ${args.limit} shown` : '';
      process.stdout.write(`${shown} of ${bank.size} memories${more}; bank version ${bank.version}\n`);
    }),
};

const show: CommandModule<object, ConfigArguments & { id: string }> = {
  command: 'show <id>',
  describe: 'Show one memory as JSON',
  builder: (yargs) =>
    configOptions(yargs)
      .positional('id', { type: 'string', demandOption: true, describe: 'Id of the memory' })
      .example('$0 bank show -c configs/quickstart.yaml 0123456789abcdef', 'look at one memory') as never,
  handler: (args) =>
    withBank(args, async (bank) => {
      const { tokens, kept, ...record } = await bank.get(args.id);
      const shown = { ...record, tokens: Array.from(tokens), kept: Array.from(kept), writer: bank.writer(args.id) };
      process.stdout.write(`${JSON.stringify(shown, null, 2)}\n`);
    }),
};

const add: CommandModule<object, ConfigArguments & { text?: string; file?: string; title?: string }> = {
  command: 'add',
  describe: 'Add knowledge: a text, or a file of documents, written by the newest checkpoint',
  builder: (yargs) =>
    configOptions(yargs)
      .option('text', { type: 'string', describe: 'The text itself' })
      .option('title', { type: 'string', describe: 'Title of the text' })
      .option('file', { type: 'string', describe: 'JSONL or text file, or a folder of text files' })
      .conflicts('text', 'file')
      .example('$0 bank add -c configs/quickstart.yaml --text "Freedonia: language German."', 'add a fact') as never,
  handler: (args) =>
    withEditor(args, async (session) => {
      const { addKnowledge } = await import('../infer/knowledge.ts');
      const given = args.file === undefined ? args.text && { text: args.text, title: args.title } : { path: args.file };
      if (!given) throw new UserError('usage_invalid', { what: 'nothing to add', action: 'give --text or --file' });
      for (const id of await addKnowledge(session, given)) process.stdout.write(`${id}\n`);
    }),
};

const edit: CommandModule<object, ConfigArguments & { id: string; text: string }> = {
  command: 'edit <id>',
  describe: 'Replace what a memory says; prints the id of the new memory',
  builder: (yargs) =>
    configOptions(yargs)
      .positional('id', { type: 'string', demandOption: true, describe: 'Id of the memory' })
      .option('text', { type: 'string', demandOption: true, describe: 'The new text' })
      .example('$0 bank edit -c configs/quickstart.yaml 0123456789abcdef --text "…"', 'change a fact') as never,
  handler: (args) =>
    withEditor(args, async (session) => {
      const { editKnowledge } = await import('../infer/knowledge.ts');
      for (const id of await editKnowledge(session, args.id, args.text)) process.stdout.write(`${id}\n`);
    }),
};

const remove: CommandModule<object, ConfigArguments & { ids: string[] }> = {
  command: 'delete <ids..>',
  describe: 'Delete memories',
  builder: (yargs) =>
    configOptions(yargs)
      .positional('ids', { type: 'string', array: true, demandOption: true, describe: 'Ids of the memories' })
      .example('$0 bank delete -c configs/quickstart.yaml 0123456789abcdef', 'forget a fact') as never,
  handler: (args) =>
    withEditor(args, async (session) => {
      const { deleteKnowledge } = await import('../infer/knowledge.ts');
      await deleteKnowledge(session, args.ids);
      process.stdout.write(`${args.ids.length} deleted; bank version ${session.bank.version}\n`);
    }),
};

const verify: CommandModule<object, ConfigArguments> = {
  command: 'verify',
  describe: 'Compare every file of the bank with its checksums',
  builder: (yargs) => configOptions(yargs).example('$0 bank verify -c configs/quickstart.yaml', 'check every byte'),
  handler: (args) =>
    withBank(args, async (bank) => {
      await bank.verify();
      process.stdout.write(`bank version ${bank.version}: ${bank.size} memories, every checksum is right\n`);
    }),
};

export const bankCommand: CommandModule = {
  command: 'bank',
  describe: 'Look at the memories of a run; add, edit and delete knowledge without training',
  builder: (yargs: Argv) =>
    yargs
      .command(list)
      .command(show)
      .command(add)
      .command(edit)
      .command(remove)
      .command(verify)
      .demandCommand(1, 'Name one of: list, show, add, edit, delete, verify.')
      .example('$0 bank list -c configs/quickstart.yaml', 'what is known'),
  handler: () => {},
};
