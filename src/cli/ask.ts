/** `memory3 ask`. */

import type { CommandModule } from 'yargs';
import { type AnswerArguments, answerOptions, printSources, printTrace, withSession } from './answering.ts';

export const askCommand: CommandModule<object, AnswerArguments> = {
  command: 'ask <text>',
  describe: 'Answer a question and name the memories it came from',
  builder: (yargs) =>
    answerOptions(yargs, 'text', 'The question, or the beginning of a sentence that the answer ends')
      .example('$0 ask -c configs/quickstart.yaml "agaric genus"', 'answer with sources')
      .example('$0 ask -c configs/quickstart.yaml "agaric genus" --no-memory', 'from the parameters alone')
      .example(
        '$0 ask -c configs/quickstart.yaml "agaric genus" --cold',
        'with references written as they are found',
      ) as never,
  handler: (args) =>
    withSession(args, async (session, generate) => {
      const answer = await generate(session, args.text);
      process.stdout.write(`${answer.text.trim()}\n`);
      if (args.trace) printTrace(answer);
      else printSources(answer);
    }),
};
