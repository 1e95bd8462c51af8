/** The thread that indexes rows. */

import { serveJobs } from '../io/worker_pool.ts';
import type { IndexState } from './row_index.ts';
import { advance, type IndexJob } from './row_index_writer.ts';

serveJobs<IndexJob, IndexState>(async (job) => advance(job));
