/** `memory3 bank verify`. */

import type { CommandModule } from 'yargs';
import { UserError } from '../errors.ts';
import type { KnowledgeBase } from '../infer/knowledge_base.ts';
import { withKnowledge } from './bank_options.ts';
import { type ConfigArguments, configOptions } from './options.ts';

type VerifyArguments = ConfigArguments & { repair: boolean; dropDamaged: boolean };

export const verifyCommand: CommandModule<object, VerifyArguments> = {
  command: 'verify',
  describe: 'Compare every file of the bank with its checksums; --repair makes again what can be made again',
  builder: (yargs) =>
    configOptions(yargs)
      .option('repair', {
        type: 'boolean',
        default: false,
        describe: 'Make damaged files again from the others, the texts and the checkpoint; remove leftovers',
      })
      .option('drop-damaged', {
        type: 'boolean',
        default: false,
        describe: 'With --repair: give up memories, or newest versions, that cannot be made again, and list them',
      })
      .example('$0 bank verify -c configs/quickstart.yaml', 'check every byte')
      .example('$0 bank verify -c configs/quickstart.yaml --repair', 'and mend what is damaged') as never,
  handler: (args) =>
    withKnowledge(args, async (knowledge) => {
      if (args.dropDamaged && !args.repair) {
        const action = 'give --repair too';
        throw new UserError('usage_invalid', { what: '--drop-damaged without --repair does nothing', action });
      }
      if (args.repair) await repair(knowledge, args);
      const damages = await knowledge.verify();
      if (damages.length > 0) throw damaged(damages);
      const { version, memories } = await knowledge.stats();
      process.stdout.write(`bank version ${version}: ${memories} memories, every checksum is right\n`);
    }),
};

async function repair(knowledge: KnowledgeBase, args: VerifyArguments): Promise<void> {
  const { done, dropped, left } = await knowledge.repair(args);
  for (const line of done) process.stdout.write(`${line}\n`);
  for (const { id, text } of dropped) process.stdout.write(`dropped ${id}: ${text.replaceAll(/\s+/g, ' ')}\n`);
  if (left.length > 0) throw damaged(left);
}

/** All damages as one error, of the code of the first. */
function damaged(damages: readonly UserError[]): UserError {
  const [first] = damages as [UserError];
  for (const { message } of damages.slice(1)) process.stderr.write(`${message}\n`);
  const what = first.message.slice((first.where ?? '').length + 2).split('\n')[0]!;
  const more = damages.length > 1 ? ` (and ${damages.length - 1} more, above)` : '';
  return new UserError(first.code, { where: first.where, what: `${what}${more}`, action: first.action });
}
