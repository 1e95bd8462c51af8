/** What rows hold besides numbers: where it lies in the files of a run, and what stands there. */

import type { StageName } from '../io/run_folder.ts';
import { type Media, rowOf } from '../tracking/values.ts';
import type { MediaAnswer } from './api.ts';
import type { Indexes } from './indexes.ts';
import { BLOCK } from './row_index.ts';
import { isKnownMedia, linesIn, numberIn, rowBehind } from './rows.ts';
import { withFile } from './run_file.ts';
import type { Run } from './runs.ts';
import { offsetsOf } from './series.ts';
import { StageRows } from './stage_rows.ts';

/** Media of one answer, in bytes of their rows. */
const MOST_BYTES = 32 * 2 ** 20;

export interface MediaQuery {
  key: string;
  /** Steps of the whole run. */
  from: number;
  to: number;
  limit: number;
}

/** The line of a row with media. */
export interface MediaPlace {
  stage: StageName;
  path: string;
  /** Added to the step. */
  offset: number;
  /** Bytes [start, end). */
  start: number;
  end: number;
}

/** Media of both stages. */
export function mediaAnswer(run: Run, indexes: Indexes, query: MediaQuery): MediaAnswer {
  const { places, total } = mediaPlaces(run, indexes, query);
  return { entries: readMedia(run.within, places, query), total };
}

/** Where they lie, evenly spread when there are more than are asked for or than can be read at once. */
export function mediaPlaces(run: Run, indexes: Indexes, query: MediaQuery): { places: MediaPlace[]; total: number } {
  return StageRows.with(run, indexes, (stages) => {
    const offsets = offsetsOf(stages);
    const places = stages.flatMap((stage, i) => {
      const offset = offsets[i]!.step;
      return placesIn(stage, offset, query).map((place) => ({
        ...place,
        ...{ stage: stage.stage, path: stage.file.path, offset },
      }));
    });
    const chosen = spread(places, query.limit);
    const bytes = chosen.reduce((sum, { start, end }) => sum + end - start, 0);
    const share = Math.min(1, MOST_BYTES / Math.max(1, bytes));
    return { places: spread(chosen, Math.max(1, Math.floor(chosen.length * share))), total: places.length };
  });
}

function placesIn(stage: StageRows, offset: number, { key, from, to }: MediaQuery): { start: number; end: number }[] {
  if (!stage.isWhole) return sampledPlaces(stage, key);
  return stage.mediaPlaces(key, stage.rowAt('step', from - offset), stage.rowAt('step', to - offset) + BLOCK);
}

/** What stands at the places; a row that has changed since is left out. */
export function readMedia(
  within: string,
  places: readonly MediaPlace[],
  { key, from, to }: Omit<MediaQuery, 'limit'>,
): MediaAnswer['entries'] {
  const entries: MediaAnswer['entries'] = [];
  for (const path of new Set(places.map((place) => place.path))) {
    withFile(path, within, (file) => {
      for (const { stage, offset, start, end } of places.filter((place) => place.path === path)) {
        const row = rowOf(file.read(start, end - start).toString('utf8'));
        const step = (numberIn(row, 'step') ?? 0) + offset;
        const value = row?.[key];
        if (step >= from && step <= to && isKnownMedia(value)) entries.push({ step, stage, value: value as Media });
      }
    });
  }
  return entries;
}

/** At most `count`, evenly spread, the first and the last among them. */
function spread<T>(items: readonly T[], count: number): T[] {
  if (items.length <= count) return [...items];
  if (count === 1) return items.slice(-1);
  return Array.from({ length: count }, (_, i) => items[Math.round((i * (items.length - 1)) / (count - 1))]!);
}

/** While there is no index: the media in rows at some places of the file. */
function sampledPlaces({ file }: StageRows, key: string): { start: number; end: number }[] {
  const found: { start: number; end: number }[] = [];
  for (let i = 0; i < 16; i++) {
    const begin = rowBehind(file, Math.floor((file.size * i) / 16))?.start;
    if (begin === undefined || begin < (found.at(-1)?.end ?? 0)) continue;
    const bytes = file.read(begin, 2 ** 17);
    for (const { start, end } of linesIn(bytes)) {
      if (!isKnownMedia(rowOf(bytes.toString('utf8', start, end))?.[key])) continue;
      found.push({ start: begin + start, end: begin + end });
      break;
    }
  }
  return found;
}
