import { setTimeout } from 'node:timers/promises';
import { workerData } from 'node:worker_threads';
import { UserError } from '../../src/errors.ts';
import { serveJobs } from '../../src/io/worker_pool.ts';

serveJobs<{ value: number; delay: number }, number>(async ({ value, delay }) => {
  await setTimeout(delay);
  if (value === 7) throw new UserError('input_invalid', { where: 'seven', what: 'unlucky' });
  if (value === 13) process.exit(3);
  return value * (workerData as { factor: number }).factor;
});
