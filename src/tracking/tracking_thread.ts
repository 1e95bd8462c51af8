/** The thread that shows a run while it goes on: heartbeat, load of the machine, sinks. It reads what the run has written. */

import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { RunFolder, STAGES, type StageName } from '../io/run_folder.ts';
import { Follower, type SinkState } from './follower.ts';
import { HardwareMonitor } from './hardware.ts';
import { MetricsFile } from './metrics_file.ts';
import type { Ending } from './sink.ts';
import { makeSinks } from './sinks.ts';
import { BEAT, type RunStatus, writeStatus } from './status.ts';
import type { FromThread, ThreadData, ToThread } from './tracking_service.ts';

/**
 * Seconds between two looks at the files: a command that has just begun is watched closely, later what a look costs is paid
 * less often.
 */
const POLL = { first: 1, later: 5, laterAfter: 20 };
/** Failures in a row after which the user is told. */
const FAILURES_TOLD = 3;

const { root, config, command, patience } = workerData as ThreadData;
const folder = new RunFolder(root);
const port = parentPort!;
const startedAt = Date.now() / 1000;

class TrackingThread {
  readonly #followers: Follower[];
  /** Sinks that could not be made. */
  readonly #unmade: SinkState[];
  readonly #ended = new AbortController();
  #ending: Ending = 'failed';

  private constructor(followers: Follower[], unmade: SinkState[]) {
    this.#followers = followers;
    this.#unmade = unmade;
  }

  static async start(): Promise<TrackingThread> {
    const onStop = (who: string): void => tell({ kind: 'stop', who });
    const { sinks, unmade } = await makeSinks(root, config, { onStop });
    for (const { name, error } of unmade) tell({ kind: 'say', text: `${name}: ${error}; the run goes on without it` });
    const followers = sinks.map((sink) => new Follower(sink, folder));
    return new TrackingThread(followers, unmade);
  }

  receive(message: ToThread): void {
    if (message.kind === 'stage') {
      for (const follower of this.#followers) follower.begin(stagesUpTo(message.stage), message.step);
      return;
    }
    this.#ending = message.ending;
    this.#ended.abort();
  }

  /** Each part in a round of its own, so that a sink that does not answer holds up nothing but itself. */
  async run(): Promise<void> {
    const beats = this.#every(BEAT.every, () => this.#beat('running'));
    const load = this.#watchLoad();
    const fed = Promise.all(this.#followers.map((follower) => this.#feed(follower)));
    await Promise.all([beats, load]);
    await Promise.race([fed, sleep(patience * 1000, undefined, { ref: false })]);
    await this.#beat(this.#ending).catch(() => undefined);
    tell({ kind: 'ended', sinks: await this.#states() });
  }

  /** Does `work` now and again until the command ends. What fails this time may work the next. */
  async #every(seconds: number | (() => number), work: () => Promise<unknown>): Promise<void> {
    const { signal } = this.#ended;
    while (!signal.aborted) {
      await work().catch(() => undefined);
      const wait = typeof seconds === 'number' ? seconds : seconds();
      await sleep(wait * 1000, undefined, { signal }).catch(() => undefined);
    }
  }

  async #feed(follower: Follower): Promise<void> {
    let isTold = false;
    await this.#every(pollSeconds, async () => {
      await follower.pump();
      const { failures, error } = follower.trouble;
      if (isTold === failures >= FAILURES_TOLD) return;
      isTold = !isTold;
      const text = isTold ? `${error}; it is tried again, the run goes on` : 'it takes rows again';
      tell({ kind: 'say', text: `${follower.name}: ${text}` });
    });
    await follower.finish(this.#ending);
  }

  async #watchLoad(): Promise<void> {
    const { hardwareEvery } = config.tracking;
    if (hardwareEvery === 0) return;
    const monitor = new HardwareMonitor(root);
    let file: MetricsFile | undefined;
    // The first sample comes after the first interval, since it measures from the one before.
    await sleep(hardwareEvery * 1000, undefined, { signal: this.#ended.signal }).catch(() => undefined);
    await this.#every(hardwareEvery, async () => {
      file ??= await MetricsFile.open(folder.hardware);
      const row = await monitor.sample();
      file.append({ time: Date.now() / 1000, ...row });
    });
    await file?.close().catch(() => undefined);
  }

  async #beat(state: RunStatus['state']): Promise<void> {
    const sinks = await this.#states();
    const about = { version: 1 as const, state, command, pid: process.pid, host: hostname() };
    await writeStatus(folder.status, { ...about, startedAt, beatAt: Date.now() / 1000, sinks });
  }

  async #states(): Promise<SinkState[]> {
    const states = this.#followers.map((follower) => follower.state());
    return [...(await Promise.all(states)), ...this.#unmade];
  }
}

function pollSeconds(): number {
  return Date.now() / 1000 - startedAt < POLL.laterAfter ? POLL.first : POLL.later;
}

function stagesUpTo(stage: StageName): readonly StageName[] {
  return STAGES.slice(0, STAGES.indexOf(stage) + 1);
}

function tell(message: FromThread): void {
  port.postMessage(message);
}

const waiting: ToThread[] = [];
let thread: TrackingThread | undefined;
port.on('message', (message: ToThread) => {
  if (thread === undefined) waiting.push(message);
  else thread.receive(message);
});
thread = await TrackingThread.start();
for (const message of waiting) thread.receive(message);
await thread.run();
port.close();
