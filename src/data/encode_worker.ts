/** A thread of the build that makes tokens: one shard of documents after the other, each with writers of its own. */

import { workerData } from 'node:worker_threads';
import { serveJobs } from '../io/worker_pool.ts';
import { type EncodeJob, type EncodeResult, type EncodeSetup, encodeShard } from './encode_shard.ts';

const setup = workerData as EncodeSetup;

serveJobs<EncodeJob, EncodeResult>((job) => encodeShard(setup, job));
