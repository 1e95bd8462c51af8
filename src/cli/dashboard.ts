/** `memory3 dashboard`. */

import { once } from 'node:events';
import type { CommandModule } from 'yargs';
import { startDashboard } from '../dashboard/server.ts';

interface DashboardArguments {
  runsFolder: string;
  port: number;
  host: string;
}

export const dashboardCommand: CommandModule<object, DashboardArguments> = {
  command: 'dashboard [runs-folder]',
  describe: 'Show runs in a browser: curves, memories, answers, costs; live while they train',
  builder: (yargs) =>
    yargs
      .positional('runs-folder', { type: 'string', default: 'runs', describe: 'Folder that holds the run folders' })
      .option('port', { type: 'number', default: 8000, describe: 'Port to listen on; 0: any that is free' })
      .option('host', {
        type: 'string',
        default: '127.0.0.1',
        describe: 'Address to listen on; any but the default asks for the token in the printed link',
      })
      .example('$0 dashboard', 'the runs in runs/, at http://127.0.0.1:8000')
      .example('$0 dashboard /data/runs --port 8001', 'other runs, another port')
      .example('$0 dashboard --host 0.0.0.0', 'for colleagues: send them the printed link') as never,
  handler: show,
};

async function show({ runsFolder, port, host }: DashboardArguments): Promise<void> {
  const dashboard = await startDashboard({
    runsFolder,
    port,
    host,
    onDefect: (error) => process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`),
  });
  process.stdout.write(`dashboard of ${runsFolder}: ${dashboard.addresses.join('\n  or ')}\nCtrl-C ends it.\n`);
  const done = new AbortController();
  await Promise.race(['SIGINT', 'SIGTERM'].map((signal) => once(process, signal, { signal: done.signal })));
  done.abort();
  await dashboard.close();
}
