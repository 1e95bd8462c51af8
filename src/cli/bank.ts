/** `memory3 bank …`: the memories of a run. Each command is one line in the list below. */

import type { Argv, CommandModule } from 'yargs';
import { addCommand, compactCommand, deleteCommand, editCommand } from './bank_change.ts';
import { codecsCommand } from './bank_codecs.ts';
import { exportCommand, getCommand, listCommand, searchCommand, statsCommand } from './bank_look.ts';
import { tuneCommand } from './bank_tune.ts';
import { verifyCommand } from './bank_verify.ts';

const COMMANDS = [
  listCommand,
  getCommand,
  searchCommand,
  addCommand,
  editCommand,
  deleteCommand,
  statsCommand,
  exportCommand,
  compactCommand,
  verifyCommand,
  tuneCommand,
  codecsCommand,
] as CommandModule[];

export const bankCommand: CommandModule = {
  command: 'bank',
  describe: 'Look at the memories of a run; add, edit and delete knowledge without training',
  builder: (yargs: Argv) =>
    yargs
      .command(COMMANDS)
      .demandCommand(1, `Name one of: ${COMMANDS.map(nameOf).join(', ')}.`)
      .example('$0 bank ls -c configs/quickstart.yaml', 'what is known')
      .example('$0 bank search -c configs/quickstart.yaml "Chad currency"', 'what would be read'),
  handler: () => {},
};

function nameOf({ command }: CommandModule): string {
  return [command].flat()[0]!.split(' ')[0]!;
}
