/**
 * Brings one sink up to date with the files of a run, now and again. The files are the queue: whatever a sink could not take
 * waits there, so nothing is kept in memory and nothing is lost when the process dies.
 */

import { readFile } from 'node:fs/promises';
import type { RunFolder, StageName } from '../io/run_folder.ts';
import { LineTail, lastStep, RunRows } from './run_rows.ts';
import { readSummary } from './run_tracker.ts';
import type { Ending, Sink, TrackedRow } from './sink.ts';
import type { RunStatus } from './status.ts';
import type { MetricsRow } from './values.ts';

/** How a sink fares, for people. */
export type SinkState = RunStatus['sinks'][number];

/** Seconds until a sink that failed is tried again: doubled each time, from the first to the last. */
const BACKOFF = { first: 1, last: 60 };
const BEAT_SECONDS = 15;

export interface FollowerOptions {
  /** Also hands over load and log lines that were written before it began (an export); without, those from now on. */
  fromStart?: boolean;
  /** Seconds, for tests. */
  now?: () => number;
}

export class Follower {
  readonly #sink: Sink;
  readonly #folder: RunFolder;
  readonly #now: () => number;
  readonly #fromStart: boolean;
  #stages: readonly StageName[] = [];
  #rows: RunRows | undefined;
  /** Rows read from the files that the sink has not taken. */
  #pending: TrackedRow[] = [];
  #sideways: { hardware: LineTail; log: LineTail } | undefined;
  #step = -1;
  #failures = 0;
  #error: string | undefined;
  /** Not before then: after a failure, or to keep the pace of the sink. */
  #nextAt = 0;
  #running: Promise<boolean> | undefined;
  #beatAt = 0;
  #summary = '';

  constructor(sink: Sink, folder: RunFolder, { fromStart = false, now = seconds }: FollowerOptions = {}) {
    this.#sink = sink;
    this.#folder = folder;
    this.#fromStart = fromStart;
    this.#now = now;
  }

  /** Says which stages have rows; the last may grow. Their files hold only what counts. */
  begin(stages: readonly StageName[]): void {
    this.#stages = stages;
    this.#rows?.extend(stages);
  }

  /**
   * Hands over what has come; one call at a time, another meanwhile waits for the same. A sink that fails is left alone
   * for a while; it never throws for it.
   * @returns true when nothing waits any more
   */
  pump(): Promise<boolean> {
    this.#running ??= this.#pumpOnce().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #pumpOnce(): Promise<boolean> {
    if (this.#stages.length === 0) return true;
    if (this.#now() < this.#nextAt) return false;
    try {
      await this.#deliver();
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

  /** Tries at once what would be tried later. */
  hurry(): void {
    this.#nextAt = 0;
  }

  async state(): Promise<SinkState> {
    const { name, place } = this.#sink;
    const waiting = this.#pending.length + ((await this.#rows?.waiting()) ?? 0);
    return { name, place, step: this.#step, waiting, failures: this.#failures, error: this.#error };
  }

  /** Hands over the rest and says how the command ended. @returns false when the sink did not take it all */
  async finish(ending: Ending): Promise<boolean> {
    try {
      // What is being handed over may have begun before the last rows came.
      await this.#running;
      this.hurry();
      if (!(await this.pump())) return false;
      if (this.#rows !== undefined) await this.#sink.finish(ending);
      return true;
    } catch (error) {
      this.#error = error instanceof Error ? error.message : String(error);
      return false;
    } finally {
      await this.#sink.close().catch(() => undefined);
    }
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
      this.#pending = [];
    }
    await this.#deliverSideways();
    if (this.#now() < this.#beatAt) return;
    this.#beatAt = this.#now() + BEAT_SECONDS;
    await this.#sink.beat?.();
  }

  /** Opens the sink at the place of the files; the rows it holds already are read over. */
  async #open(): Promise<RunRows> {
    this.#step = await this.#sink.open(await lastStep(this.#folder, this.#stages));
    return new RunRows(this.#folder, this.#stages, this.#step);
  }

  async #deliverSideways(): Promise<void> {
    this.#sideways ??= await this.#openSideways();
    const { hardware, log } = this.#sideways;
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

  async #openSideways(): Promise<{ hardware: LineTail; log: LineTail }> {
    const at = async (path: string): Promise<LineTail> => {
      if (this.#fromStart) return new LineTail(path);
      const bytes = await readFile(path).catch(() => Buffer.alloc(0));
      return new LineTail(path, bytes.lastIndexOf(0x0a) + 1);
    };
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
