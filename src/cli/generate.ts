/** `memory3 generate`. */

import type { CommandModule } from 'yargs';
import { type AnswerArguments, answerOptions, printTrace, withSession } from './answering.ts';

export const generateCommand: CommandModule<object, AnswerArguments> = {
  command: 'generate <text>',
  describe: 'Continue a text; new memories are retrieved for every chunk',
  builder: (yargs) =>
    answerOptions(yargs, 'text', 'Text to continue')
      .example('$0 generate -c configs/quickstart.yaml "Once upon a time" --temperature 0.8 --top-p 0.9', 'sample')
      .example('$0 generate -c configs/quickstart.yaml "Once" --trace', 'and list the memories of each chunk') as never,
  handler: (args) =>
    withSession(args, async (session, generate) => {
      process.stdout.write(args.text);
      const answer = await generate(session, args.text, (piece) => process.stdout.write(piece));
      process.stdout.write('\n');
      if (args.trace) printTrace(answer);
    }),
};
