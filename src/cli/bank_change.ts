/** `memory3 bank add|edit|delete|compact`. */

import type { CommandModule } from 'yargs';
import { UserError } from '../errors.ts';
import type { Added } from '../infer/knowledge_base.ts';
import { withKnowledge } from './bank_options.ts';
import { type ConfigArguments, configOptions } from './options.ts';

interface AddArguments extends ConfigArguments {
  text?: string;
  title?: string;
  document?: string;
  file?: string;
}

export const addCommand: CommandModule<object, AddArguments> = {
  command: 'add',
  describe: 'Add knowledge: a text, or a file of documents, written by the newest checkpoint; prints the new ids',
  builder: (yargs) =>
    configOptions(yargs)
      .option('text', { type: 'string', describe: 'The text itself; a long one becomes several memories' })
      .option('title', { type: 'string', describe: 'Title of the text' })
      .option('document', { type: 'string', describe: 'Id of the document [default: a hash of the text]' })
      .option('file', { type: 'string', describe: 'JSONL or text file, or a folder of them' })
      .conflicts('file', ['text', 'title', 'document'])
      .example('$0 bank add -c configs/quickstart.yaml --text "Freedonia currency mark."', 'add a fact')
      .example('$0 bank add -c configs/quickstart.yaml --file facts.jsonl', 'add every document of a file') as never,
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      const { text, title, document, file } = args;
      const given = file === undefined ? text !== undefined && { text, title, document } : { path: file };
      if (!given) throw new UserError('usage_invalid', { what: 'nothing to add', action: 'give --text or --file' });
      const { Progress } = await import('../tracking/progress.ts');
      let progress: InstanceType<typeof Progress> | undefined;
      const added = await knowledge
        .add(given, {
          onProgress: ({ bytes, totalBytes, memories }) => {
            progress ??= new Progress({ label: 'add', total: totalBytes, unit: 'bytes' });
            progress.update(bytes, { memories });
          },
        })
        .finally(() => progress?.stop());
      for (const id of added.ids) process.stdout.write(`${id}\n`);
      tellSkipped(added);
    }),
};

export const editCommand: CommandModule<object, ConfigArguments & { id: string; text: string }> = {
  command: 'edit <id>',
  describe: 'Replace what a memory says; prints the id of the new memory',
  builder: (yargs) =>
    configOptions(yargs)
      .positional('id', { type: 'string', demandOption: true, describe: 'Id of the memory' })
      .option('text', { type: 'string', demandOption: true, describe: 'The new text' })
      .example('$0 bank edit -c configs/quickstart.yaml 0123456789abcdef --text "…"', 'change a fact') as never,
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      for (const id of await knowledge.edit(args.id, args.text)) process.stdout.write(`${id}\n`);
    }),
};

export const deleteCommand: CommandModule<object, ConfigArguments & { ids: string[] }> = {
  command: 'delete <ids..>',
  describe: 'Delete memories: found no more from now on; `compact` then removes their bytes',
  builder: (yargs) =>
    configOptions(yargs)
      .positional('ids', { type: 'string', array: true, demandOption: true, describe: 'Ids of the memories' })
      .example('$0 bank delete -c configs/quickstart.yaml 0123456789abcdef', 'forget a fact') as never,
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      await knowledge.delete(args.ids);
      const { version } = await knowledge.stats();
      process.stdout.write(`${new Set(args.ids).size} deleted; bank version ${version}\n`);
    }),
};

export const compactCommand: CommandModule<object, ConfigArguments> = {
  command: 'compact',
  describe: 'Remove the bytes of what was deleted or replaced and all older versions; join small segments',
  builder: (yargs) =>
    configOptions(yargs).example('$0 bank compact -c configs/quickstart.yaml', 'deleted text is in no file then'),
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      const { before, after } = await knowledge.compact();
      const { version, memories } = await knowledge.stats();
      process.stdout.write(`${memories} memories; ${before} bytes became ${after}; bank version ${version}\n`);
    }),
};

function tellSkipped({ documents }: Added): void {
  for (const [reason, count] of Object.entries(documents.skipped)) {
    process.stderr.write(`${count} documents skipped: ${reason}\n`);
  }
  for (const { path, offset, detail } of documents.examples) process.stderr.write(`  ${path}:${offset}: ${detail}\n`);
}
