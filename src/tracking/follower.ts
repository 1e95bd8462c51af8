/**
 * Brings one sink up to date with the files of a run, now and again. The files are the queue: whatever a sink could not take
 * waits there, so nothing is kept in memory and nothing is lost when the process dies.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { RunFolder, StageName } from '../io/run_folder.ts';
import { LineTail, lastStep, RunRows } from './run_rows.ts';
import { readSummary } from './run_tracker.ts';
import type { Ending, Sink, SinkName, TrackedRow } from './sink.ts';
import type { RunStatus } from './status.ts';
import { rowOf } from './values.ts';

/** How a sink fares, for people. */
export type SinkState = RunStatus['sinks'][number];

/** Lines that go along with the rows, where a sink takes them: load, log. */
interface Sideline {
  tail: LineTail;
  take: (lines: string[]) => Promise<void>;
}

/** Seconds until a sink that failed is tried again: doubled each time, from the first to the last. */
const BACKOFF = { first: 1, last: 60 };
const BEAT_SECONDS = 15;
/** Seconds before each try to hand over the rest at the end. */
const LAST_TRIES = [0, 0.5, 1.5];

export interface FollowerOptions {
  /** Also hands over load and log lines that were written before it began (an export); without, those from now on. */
  fromStart?: boolean;
  /** Told how many rows the sink took. */
  onTaken?: (rows: number) => void;
  /** Seconds, for tests. */
  now?: () => number;
}

export class Follower {
  readonly #sink: Sink;
  readonly #folder: RunFolder;
  readonly #now: () => number;
  readonly #fromStart: boolean;
  readonly #onTaken: (rows: number) => void;
  #stages: readonly StageName[] = [];
  /** Last step of the last stage when it began. */
  #begun: number | undefined;
  #rows: RunRows | undefined;
  /** Rows read from the files that the sink has not taken. */
  #pending: TrackedRow[] = [];
  #sidelines: Sideline[] | undefined;
  #step = -1;
  #failures = 0;
  #error: string | undefined;
  /** Not before then: after a failure, or to keep the pace of the sink. */
  #nextAt = 0;
  #beatAt = 0;
  #summary = '';

  constructor(sink: Sink, folder: RunFolder, options: FollowerOptions = {}) {
    const { fromStart = false, onTaken = () => {}, now = seconds } = options;
    this.#sink = sink;
    this.#folder = folder;
    this.#fromStart = fromStart;
    this.#onTaken = onTaken;
    this.#now = now;
  }

  /**
   * Says which stages have rows; the last may grow. Their files hold only what counts.
   * @param step the last step of the last stage that was in its file then: a sink that has not been opened may hold later
   *   ones from a process before, which are made again. Without it, that of the file when the sink is opened
   */
  begin(stages: readonly StageName[], step?: number): void {
    this.#stages = stages;
    this.#begun = step;
    this.#rows?.extend(stages);
  }

  /**
   * Hands over what has come. A sink that fails is left alone for a while; it never throws for it.
   * @returns true when nothing waits any more
   */
  async pump(): Promise<boolean> {
    // What cannot be read holds up no rows; its error is told behind them.
    this.#sidelines ??= await this.#openSidelines().catch(() => undefined);
    try {
      if (this.#stages.length === 0) return true;
      if (this.#now() < this.#nextAt) return false;
      await this.#deliver();
      [this.#failures, this.#error] = [0, undefined];
      this.#nextAt = this.#now() + (this.#sink.every ?? 0);
      return true;
    } catch (error) {
      this.#failed(error);
      this.#nextAt = this.#now() + Math.min(BACKOFF.last, BACKOFF.first * 2 ** (this.#failures - 1));
      return false;
    }
  }

  get name(): SinkName {
    return this.#sink.name;
  }

  /** Failures since the sink last took something, and the last one. */
  get trouble(): { failures: number; error: string | undefined } {
    return { failures: this.#failures, error: this.#error };
  }

  /** Tries at once what would be tried later. */
  hurry(): void {
    this.#nextAt = 0;
  }

  async state(): Promise<SinkState> {
    const { name, place } = this.#sink;
    // There is a row a step. One that was never opened may hold any of them; all wait to be looked at.
    const last = await lastStep(this.#folder, this.#stages).catch(() => this.#step);
    const waiting = Math.max(0, last - Math.max(0, this.#step));
    return { name, place, step: this.#step, waiting, failures: this.#failures, error: this.#error };
  }

  /** Hands over the rest, at once, and says how the command ended. @returns false when the sink did not take it all */
  async finish(ending: Ending): Promise<boolean> {
    // One that has failed for long would only be waited for.
    const tries = this.#failures < LAST_TRIES.length ? LAST_TRIES : [0];
    try {
      for (const wait of tries) {
        if (wait > 0) await sleep(wait * 1000);
        if (await this.#finishOnce(ending)) return true;
      }
      return false;
    } finally {
      await this.#sink.close().catch(() => undefined);
    }
  }

  async #finishOnce(ending: Ending): Promise<boolean> {
    this.hurry();
    if (!(await this.pump())) return false;
    try {
      if (this.#rows !== undefined) await this.#sink.finish(ending);
      return true;
    } catch (error) {
      this.#failed(error);
      return false;
    }
  }

  #failed(error: unknown): void {
    this.#failures += 1;
    this.#error = error instanceof Error ? error.message : String(error);
  }

  async #deliver(): Promise<void> {
    this.#rows ??= await this.#open();
    for (;;) {
      if (this.#pending.length === 0) {
        const rows = await this.#rows.next();
        if (rows.length === 0) break;
        this.#pending = rows;
      }
      await this.#sink.write(this.#pending);
      this.#step = this.#pending.at(-1)!.step;
      this.#onTaken(this.#pending.length);
      this.#pending = [];
    }
    this.#sidelines ??= await this.#openSidelines();
    for (const { tail, take } of this.#sidelines) await inTurn(tail, take);
    await this.#deliverSummary();
    if (this.#now() < this.#beatAt) return;
    this.#beatAt = this.#now() + BEAT_SECONDS;
    await this.#sink.beat?.();
  }

  /** Opens the sink at the place of the files; the rows it holds already are read over, if they are those of the files. */
  async #open(): Promise<RunRows> {
    const sink = this.#sink;
    this.#step = await sink.open(await this.#lastStep());
    if (this.#step > 0 && sink.lastTime !== undefined) {
      const rows = new RunRows(this.#folder, this.#stages, this.#step - 1);
      const [held, ...rest] = await rows.next();
      if (held?.step === this.#step && held.time === sink.lastTime) {
        this.#pending = rest;
        // The next stage may have begun meanwhile.
        rows.extend(this.#stages);
        return rows;
      }
      this.#step = await sink.open(-1);
    }
    return new RunRows(this.#folder, this.#stages, this.#step);
  }

  async #lastStep(): Promise<number> {
    if (this.#begun === undefined) return await lastStep(this.#folder, this.#stages);
    const before = await lastStep(this.#folder, this.#stages.slice(0, -1));
    return this.#begun > 0 ? Math.max(0, before) + this.#begun : before;
  }

  async #deliverSummary(): Promise<void> {
    if (!this.#sink.summary) return;
    const values = await readSummary(this.#folder);
    const text = JSON.stringify(values);
    if (text === this.#summary || text === '{}') return;
    await this.#sink.summary(values);
    this.#summary = text;
  }

  async #openSidelines(): Promise<Sideline[]> {
    const sink = this.#sink;
    const at = (path: string) => (this.#fromStart ? new LineTail(path) : LineTail.atEnd(path));
    const sidelines: Sideline[] = [];
    if (sink.hardware) {
      // A damaged line tells nothing and is left out.
      const take = (lines: string[]) => sink.hardware!(lines.map(rowOf).filter((row) => row !== undefined));
      sidelines.push({ tail: await at(this.#folder.hardware), take });
    }
    if (sink.lines) {
      // The time stands before the first space.
      const take = (lines: string[]) => sink.lines!(lines.map((line) => line.slice(line.indexOf(' ') + 1)));
      sidelines.push({ tail: await at(this.#folder.log), take });
    }
    return sidelines;
  }
}

/** Takes the lines that have come, a part at a time; a part that is not taken comes again. */
async function inTurn(tail: LineTail, take: (lines: string[]) => Promise<void>): Promise<void> {
  for (;;) {
    const place = tail.mark();
    const lines = await tail.next();
    if (lines.length === 0) return;
    try {
      await take(lines);
    } catch (error) {
      tail.back(place);
      throw error;
    }
  }
}

function seconds(): number {
  return performance.now() / 1000;
}
