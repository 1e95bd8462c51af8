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
import type { MetricsRow } from './values.ts';

/** How a sink fares, for people. */
export type SinkState = RunStatus['sinks'][number];

/** What goes along with the rows. */
interface Sideways {
  hardware: LineTail;
  log: LineTail;
}

/** Seconds until a sink that failed is tried again: doubled each time, from the first to the last. */
const BACKOFF = { first: 1, last: 60 };
const BEAT_SECONDS = 15;
/** Seconds before each try to hand over the rest at the end. */
const LAST_TRIES = [0, 0.5, 1, 2];

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
  /** Counts rows until the sink is open. */
  #unread: RunRows | undefined;
  /** Rows read from the files that the sink has not taken. */
  #pending: TrackedRow[] = [];
  #sideways: Sideways | undefined;
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
    try {
      this.#sideways ??= await this.#openSideways();
      if (this.#stages.length === 0) return true;
      if (this.#now() < this.#nextAt) return false;
      await this.#deliver(this.#sideways);
      [this.#failures, this.#error] = [0, undefined];
      this.#nextAt = this.#now() + (this.#sink.every ?? 0);
      return true;
    } catch (error) {
      this.#failures += 1;
      this.#error = error instanceof Error ? error.message : String(error);
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
    // One that was never opened may hold any of the rows; all of them wait to be looked at.
    this.#unread ??= new RunRows(this.#folder, []);
    this.#unread.extend(this.#stages);
    const rows = this.#rows ?? this.#unread;
    const waiting = this.#pending.length + (await rows.waiting());
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
      this.#error = error instanceof Error ? error.message : String(error);
      return false;
    }
  }

  async #deliver(sideways: Sideways): Promise<void> {
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
    await this.#deliverSideways(sideways);
    if (this.#now() < this.#beatAt) return;
    this.#beatAt = this.#now() + BEAT_SECONDS;
    await this.#sink.beat?.();
  }

  /** Opens the sink at the place of the files; the rows it holds already are read over. */
  async #open(): Promise<RunRows> {
    this.#step = await this.#sink.open(await this.#lastStep());
    return new RunRows(this.#folder, this.#stages, this.#step);
  }

  async #lastStep(): Promise<number> {
    if (this.#begun === undefined) return await lastStep(this.#folder, this.#stages);
    const before = await lastStep(this.#folder, this.#stages.slice(0, -1));
    return this.#begun > 0 ? Math.max(0, before) + this.#begun : before;
  }

  async #deliverSideways({ hardware, log }: Sideways): Promise<void> {
    if (this.#sink.hardware) {
      await inTurn(hardware, (lines) => this.#sink.hardware!(lines.flatMap(parseLoosely)));
    }
    if (this.#sink.lines) {
      // The time stands before the first space.
      await inTurn(log, (lines) => this.#sink.lines!(lines.map((line) => line.slice(line.indexOf(' ') + 1))));
    }
    if (!this.#sink.summary) return;
    const values = await readSummary(this.#folder);
    const text = JSON.stringify(values);
    if (text === this.#summary || text === '{}') return;
    await this.#sink.summary(values);
    this.#summary = text;
  }

  async #openSideways(): Promise<Sideways> {
    const at = async (path: string) => (this.#fromStart ? new LineTail(path) : await LineTail.atEnd(path));
    return { hardware: await at(this.#folder.hardware), log: await at(this.#folder.log) };
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

/** A row of load; a damaged line tells nothing and is left out. */
function parseLoosely(line: string): MetricsRow[] {
  try {
    const row: unknown = JSON.parse(line);
    return typeof row === 'object' && row !== null && !Array.isArray(row) ? [row as MetricsRow] : [];
  } catch {
    return [];
  }
}

function seconds(): number {
  return performance.now() / 1000;
}
