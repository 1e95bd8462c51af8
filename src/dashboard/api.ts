/**
 * What the dashboard's server answers, for the server and the page. All of it is read from run folders; nothing is ever
 * written there. Addresses are relative to `/api`; a run is named by its folder in the runs folder.
 *
 * GET  runs                                   RunSummary[]
 * GET  runs/:run                              RunDetail
 * GET  runs/:run/series?keys=a,b&x=step&from=&to=&points=2000     SeriesAnswer
 * GET  runs/:run/media?key=memory/attention&from=&to=&limit=200   MediaAnswer
 * GET  runs/:run/hardware?keys=&from=&to=&points=                 SeriesAnswer, x in seconds since 1970
 * GET  runs/:run/events?limit=                RunEvent[], newest last
 * GET  runs/:run/log?lines=                   { lines: string[] }
 * GET  runs/:run/config?against=other         ConfigAnswer
 * GET  runs/:run/live                         server-sent events, see `LiveEvent`; `Last-Event-ID` is a row number
 * GET  runs/:run/export.csv?keys=a,b          every row of the keys, streamed
 * GET  runs/:run/bank                         BankAnswer
 * GET  runs/:run/memories?text=&limit=        FoundMemory[]; without text the first ones
 * GET  runs/:run/memories/:id                 MemoryDetail
 * GET  runs/:run/answers?limit=               AnswerSummary[], newest first
 * GET  runs/:run/answers/:number              AnswerDetail
 * GET  runs/:run/cost                         CostAnswer
 * GET  live                                   server-sent events for the list: `runs` when one of them changed
 *
 * An answer that is refused is `{ error: { code, message } }` with status 400, 403, 404, 409 (a file of the run is damaged) or
 * 413. A run of which a part is damaged still has a RunSummary, with `problem`.
 */

import type { StageName } from '../io/run_folder.ts';
import type { RunEvent } from '../tracking/events.ts';
import type { RunState, RunStatus } from '../tracking/status.ts';
import type { Media } from '../tracking/values.ts';

export interface RunSummary {
  /** Name of the folder. */
  run: string;
  state: RunState;
  /** The stage that was trained last; absent before the first row. */
  stage?: StageName;
  /** Steps of the whole run, done and planned. */
  step: number;
  steps: number;
  tokens: number;
  /** Seconds, of a run that goes on. */
  timeLeft?: number;
  loss?: number;
  /** Loss of the last validation, with memories in stage two. */
  validationLoss?: number;
  tokensPerSecond?: number;
  /** About 60 losses over the whole run. */
  sparkline: number[];
  tags: string[];
  notes: string;
  /** Seconds since 1970. */
  startedAt?: number;
  changedAt?: number;
  /** What cannot be read of it. */
  problem?: string;
}

export interface RunDetail extends RunSummary {
  /** Names of numbers that rows hold, sorted; those of validations are in few rows. */
  keys: string[];
  /** Names and kinds of media that rows hold. */
  media: { key: string; type: Media['type'] }[];
  hardwareKeys: string[];
  /** Where stage two begins, on each axis; absent before it. */
  switch?: Record<Axis, number>;
  status?: RunStatus;
  /** Final values. */
  summary: Record<string, unknown>;
  /** Share of the rows that can be drawn exactly already; below 1 curves are drawn from a sample. */
  indexed: number;
  hasBank: boolean;
  hasAnswers: boolean;
}

/** `step` of the whole run, `tokens` seen, `time` in seconds since the first row. */
export type Axis = 'step' | 'tokens' | 'time';

export interface Series {
  key: string;
  /** The axis, ascending, a value a point. */
  x: number[];
  /** Least, greatest and mean value of the rows that a point stands for; null where there is none. One row: all alike. */
  min: (number | null)[];
  max: (number | null)[];
  mean: (number | null)[];
}

export interface SeriesAnswer {
  axis: Axis;
  /** The range of the axis in the whole run. */
  extent: [number, number];
  /** Rows that a point stands for. */
  rowsPerPoint: number;
  /** From a sample of the rows, while they are being indexed. */
  isSampled: boolean;
  series: Series[];
}

export interface MediaAnswer {
  /** Evenly spread over the range when there are more than `limit`. */
  entries: { step: number; stage: StageName; value: Media }[];
  /** How many there are in the range. */
  total: number;
}

export interface ConfigAnswer {
  /** Value of each path, such as `warmup.steps`: 600. */
  values: Record<string, unknown>;
  /** Paths in which the other run differs, with its value there. */
  differences?: Record<string, unknown>;
}

export type LiveEvent =
  | { event: 'rows'; data: { rows: number; summary: RunSummary } }
  | { event: 'happened'; data: RunEvent }
  | { event: 'log'; data: { lines: string[] } };

export interface BankAnswer {
  memories: number;
  version: number;
  segments: { name: string; memories: number; writer: string }[];
  layout: { memoryLayers: number; kvHeads: number; keptTokens: number; headDim: number };
  encoder: Record<string, unknown>;
  bytes: number;
}

export interface FoundMemory {
  id: string;
  document: string;
  title: string;
  text: string;
  /** How well it fits the words searched for; absent without any. */
  score?: number;
}

export interface MemoryDetail extends FoundMemory {
  /** Characters [start, end) of the document. */
  span: [number, number];
  /** Hash of the weights that wrote it. */
  writer: string;
  /** The text, a token a piece. */
  pieces: string[];
  /** Kept positions in `pieces`, [memoryLayers][kvHeads][≤ keptTokens]. */
  kept: number[][][];
  /** Address of its document, when the corpus gave one and the run still has its references (not more than 100,000). */
  url?: string;
  /** Retrievals in the rows that record them. */
  retrieved: { count: number; recordedChunks: number; chunks: { step: number; text: string; score?: number }[] };
}

export interface AnswerSummary {
  number: number;
  /** Seconds since 1970. */
  time: number;
  prompt: string;
  text: string;
  /** Different memories read. */
  memories: number;
}

export interface AnswerDetail extends AnswerSummary {
  /** Each chunk of prompt and answer, with the memories it read: `score` similarity, `share` of attention. */
  trace: {
    text: string;
    memories: {
      id: string;
      document: string;
      title: string;
      text: string;
      score: number;
      share: number;
      keptTokens: string[];
    }[];
  }[];
}

export interface CostAnswer {
  /** TFLOP. */
  formats: { name: 'parameters' | 'memory' | 'text'; write: number; read: number }[];
  /** Uses between which explicit memory is the cheapest; `to` null: for ever. */
  cheapest: { from: number; to: number | null };
  /** Total cost over numbers of uses, for drawing. */
  uses: number[];
  totals: { parameters: number[]; memory: number[]; text: number[] };
}
