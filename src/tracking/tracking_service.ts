/** The thread beside a command that beats, watches the machine and feeds the sinks. Nothing that it does can fail the command. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import type { RunConfig } from '../config/schema.ts';
import type { RunFolder, StageName } from '../io/run_folder.ts';
import { startThread } from '../io/thread.ts';
import type { SinkState } from './follower.ts';
import type { Ending } from './sink.ts';
import { BEAT, type RunStatus, readStatus, writeStatus } from './status.ts';

export interface ThreadData {
  root: string;
  config: RunConfig;
  command: string;
  patience: number;
}

export type ToThread = { kind: 'stage'; stage: StageName; step: number } | { kind: 'end'; ending: Ending };
export type FromThread =
  | { kind: 'stop'; who: string }
  | { kind: 'say'; text: string }
  | { kind: 'ended'; sinks: SinkState[] };

export interface TrackingOptions {
  /** The command that works on the run. */
  command: string;
  say: (text: string) => void;
  /** Called when somebody asks the run to stop from a tracking service. */
  onStop: (who: string) => void;
  /** Seconds that the end waits for sinks that do not answer. */
  patience?: number;
}

const PATIENCE_SECONDS = 20;
/** So much longer for a thread that does not say how it ended. */
const GRACE_SECONDS = 10;

export class TrackingService {
  readonly #worker: Worker;
  readonly #options: TrackingOptions;
  readonly #statusPath: string;
  readonly #patience: number;
  /** Settled when the thread has said what its sinks took, or is gone. */
  readonly #over: Promise<void>;
  #isDead = false;
  #isEnding = false;
  /** Beats in the place of a thread that has died. */
  #beats: NodeJS.Timeout | undefined;
  #written: Promise<void> = Promise.resolve();
  #behind: SinkState[] = [];

  constructor(folder: RunFolder, config: RunConfig, options: TrackingOptions) {
    this.#options = options;
    this.#statusPath = folder.status;
    this.#patience = options.patience ?? PATIENCE_SECONDS;
    const data: ThreadData = { root: folder.root, config, command: options.command, patience: this.#patience };
    this.#worker = startThread('tracking_thread', import.meta.url, data);
    this.#worker.on('error', (error) => {
      options.say(`tracking has ended, the run goes on: ${error.message}`);
    });
    this.#over = new Promise((settle) => {
      this.#worker.on('message', (message: FromThread) => {
        this.#receive(message);
        if (message.kind === 'ended') settle();
      });
      this.#worker.once('exit', () => {
        this.#isDead = true;
        if (!this.#isEnding) this.#beats = setInterval(() => void this.#write('running'), BEAT.every * 1000).unref();
        settle();
      });
    });
  }

  /** Rows of `stage` after `step` follow; what is in the files before them counts. */
  beginStage(stage: StageName, step: number): void {
    this.#send({ kind: 'stage', stage, step });
  }

  /** Lets the sinks take what is left, for some seconds, and says what they did not take. */
  async end(ending: Ending): Promise<void> {
    this.#isEnding = true;
    clearInterval(this.#beats);
    if (!this.#isDead) await this.#endThread(ending);
    await this.#write(ending);
  }

  async #endThread(ending: Ending): Promise<void> {
    this.#send({ kind: 'end', ending });
    await Promise.race([this.#over, sleep((this.#patience + GRACE_SECONDS) * 1000, undefined, { ref: false })]);
    await this.#worker.terminate();
    for (const { name, waiting, error } of this.#behind) {
      if (error === undefined && waiting === 0) continue;
      const reason = error ?? `not taken within ${this.#patience} s`;
      this.#options.say(
        `${name}: ${waiting} rows are still to be sent (${reason}); they are kept, and go with the next command on the run or \`memory3 track export --to ${name}\``,
      );
    }
  }

  /** Mends the status of a running command that a thread has left which died or hung; one write after the other. */
  #write(state: RunStatus['state']): Promise<void> {
    this.#written = this.#written.then(async () => {
      const status = await readStatus(this.#statusPath);
      if (status?.state !== 'running') return;
      await writeStatus(this.#statusPath, { ...status, state, beatAt: Date.now() / 1000 });
    });
    // Without it the run is shown as crashed, which harms nothing.
    this.#written = this.#written.catch(() => undefined);
    return this.#written;
  }

  #receive(message: FromThread): void {
    if (message.kind === 'stop') this.#options.onStop(message.who);
    else if (message.kind === 'say') this.#options.say(message.text);
    else this.#behind = message.sinks;
  }

  #send(message: ToThread): void {
    if (!this.#isDead) this.#worker.postMessage(message);
  }
}
