/** The thread that shows a run while it goes on: heartbeat, load of the machine, sinks. It reads what the run has written. */

import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { RunFolder, STAGES, type StageName } from '../io/run_folder.ts';
import { Follower } from './follower.ts';
import { HardwareMonitor } from './hardware.ts';
import { MetricsFile } from './metrics_file.ts';
import type { Ending } from './sink.ts';
import { makeSinks } from './sinks.ts';
import { BEAT, type RunStatus, writeStatus } from './status.ts';
import type { FromThread, ThreadData, ToThread } from './tracking_service.ts';

/** Seconds between two looks at the files. */
const POLL_SECONDS = 1;
/** Seconds that a command waits at its end for sinks that do not answer. */
const LAST_SECONDS = 20;

const { root, config, command } = workerData as ThreadData;
const folder = new RunFolder(root);
const port = parentPort!;
const startedAt = Date.now() / 1000;

class TrackingThread {
  readonly #followers: Follower[];
  readonly #hardware: MetricsFile;
  readonly #monitor = new HardwareMonitor(root);
  #due = { beat: 0, hardware: 0 };
  #ending: Ending | undefined;
  readonly #wake = new AbortController();

  private constructor(followers: Follower[], hardware: MetricsFile) {
    this.#followers = followers;
    this.#hardware = hardware;
  }

  static async start(): Promise<TrackingThread> {
    const onStop = (who: string): void => tell({ kind: 'stop', who });
    const sinks = await makeSinks(root, config, { onStop });
    const followers = sinks.map((sink) => new Follower(sink, folder));
    return new TrackingThread(followers, await MetricsFile.open(folder.hardware));
  }

  receive(message: ToThread): void {
    if (message.kind === 'stage') {
      for (const follower of this.#followers) follower.begin(stagesUpTo(message.stage));
      return;
    }
    this.#ending = message.ending;
    this.#wake.abort();
  }

  async run(): Promise<void> {
    while (this.#ending === undefined) {
      await this.#look();
      await sleep(POLL_SECONDS * 1000, undefined, { signal: this.#wake.signal }).catch(() => undefined);
    }
    await this.#end(this.#ending);
  }

  async #look(): Promise<void> {
    const now = Date.now() / 1000;
    if (config.tracking.hardwareEvery > 0 && now >= this.#due.hardware) {
      this.#due.hardware = now + config.tracking.hardwareEvery;
      // The first sample has nothing before it to measure since.
      const row = await this.#monitor.sample();
      if (now - startedAt > 1) this.#hardware.append({ time: now, ...row });
    }
    if (now >= this.#due.beat) {
      this.#due.beat = now + BEAT.every;
      await this.#beat('running');
    }
    // Not waited for: a sink that does not answer must not keep the heart from beating.
    for (const follower of this.#followers) void follower.pump();
  }

  async #end(ending: Ending): Promise<void> {
    const patience = sleep(LAST_SECONDS * 1000, false, { ref: false });
    const finished = Promise.all(this.#followers.map((follower) => follower.finish(ending)));
    await Promise.race([finished, patience]);
    await this.#beat(ending);
    await this.#hardware.close();
    tell({ kind: 'ended', sinks: await this.#states() });
  }

  async #beat(state: RunStatus['state']): Promise<void> {
    const beatAt = Date.now() / 1000;
    const sinks = await this.#states();
    const about = { version: 1 as const, state, command, pid: process.pid, host: hostname() };
    await writeStatus(folder.status, { ...about, startedAt, beatAt, sinks });
  }

  #states() {
    return Promise.all(this.#followers.map((follower) => follower.state()));
  }
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
