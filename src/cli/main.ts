/** The `memory3` command: parses, runs one command, and turns errors into a message and an exit status. */

import yargs from 'yargs';
import { isSystemError, UserError } from '../errors.ts';
import { askCommand } from './ask.ts';
import { bankCommand } from './bank.ts';
import { compileCommand } from './compile.ts';
import { continualCommand } from './continual.ts';
import { costCommand } from './cost.ts';
import { dashboardCommand } from './dashboard.ts';
import { dataCommand } from './data.ts';
import { doctorCommand } from './doctor.ts';
import { evalCommand } from './eval.ts';
import { generateCommand } from './generate.ts';
import { runCommand } from './run.ts';
import { trackCommand } from './track.ts';
import { warmupCommand } from './warmup.ts';

/** Runs `memory3` with the given arguments; sets `process.exitCode` instead of ending the process. */
export async function main(args: string[]): Promise<void> {
  endWithReader();
  try {
    await yargs(args)
      .scriptName('memory3')
      .usage('$0 <command>\n\nPretrain a language model in two stages with explicit memory (Memory³).')
      .command(runCommand)
      .command(dataCommand)
      .command(warmupCommand)
      .command(compileCommand)
      .command(continualCommand)
      .command(evalCommand)
      .command(generateCommand)
      .command(askCommand)
      .command(bankCommand)
      .command(costCommand)
      .command(trackCommand)
      .command(dashboardCommand)
      .command(doctorCommand)
      .demandCommand(1, 'Name a command; `memory3 --help` lists them.')
      .recommendCommands()
      .strict()
      .strictCommands()
      .check(refuseUnusable)
      .wrap(110)
      .example('$0 run -c configs/quickstart.yaml', 'the whole pipeline: data, warmup, compile, continual, evaluation')
      .example('$0 ask -c configs/quickstart.yaml "agaric genus" --trace', 'answer, and show the memories used')
      .fail((message, error) => {
        throw error ?? new UserError('usage_invalid', { what: message, action: 'see `memory3 --help`' });
      })
      .parseAsync();
  } catch (error) {
    process.exitCode = report(error);
  }
}

/** Who reads no further, as `| head`, wants no more; work that only loses its terminal goes on. */
function endWithReader(): void {
  const isClosed = (error: unknown) => isSystemError(error) && error.code === 'EPIPE';
  process.stdout.on('error', (error) => {
    if (!isClosed(error)) throw error;
    process.exit();
  });
  process.stderr.on('error', (error) => {
    if (!isClosed(error)) throw error;
  });
}

/** Options that may be given more than once, and positionals of which there may be several. */
const REPEATABLE = ['_', 'set', 'stop', 'ids', 'names', 'factory', 'codec'];

/** What yargs lets through: an option given twice becomes a list, and a number that is none becomes NaN. */
function refuseUnusable(args: Record<string, unknown>): true {
  const refuse = (name: string, what: string): never => {
    throw new UserError('usage_invalid', { what: `--${name} ${what}`, action: 'see `memory3 --help`' });
  };
  for (const [name, value] of Object.entries(args)) {
    if (Array.isArray(value) && !REPEATABLE.includes(name)) refuse(name, 'is given more than once');
    if (Number.isNaN(value)) refuse(name, 'is not a number');
  }
  return true;
}

/** Prints what a user needs of an error and returns the exit status. */
function report(error: unknown): number {
  if (error instanceof UserError) {
    process.stderr.write(`error [${error.code}] ${error.message}\n`);
    return error.exitCode;
  }
  process.stderr.write(
    `memory3 met a defect of its own; please report it with this text:\n${error instanceof Error ? error.stack : String(error)}\n`,
  );
  return 1;
}
