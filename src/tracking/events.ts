/** What happens in a run, with its time: an ordered list that is only ever added to. */

import { z } from 'zod';

export const EVENT_KINDS = [
  'start',
  'resume',
  'validation',
  'checkpoint',
  'growth',
  'refresh',
  'rollback',
  'warning',
  'stop',
  'finish',
  'error',
] as const;
export type EventKind = (typeof EVENT_KINDS)[number];

export const eventSchema = z.looseObject({
  /** Seconds since 1970. */
  time: z.number(),
  kind: z.enum(EVENT_KINDS),
  /** Stage and its step, where it is about one. */
  stage: z.enum(['warmup', 'continual']).optional(),
  step: z.int().optional(),
  text: z.string(),
});
/** One row of `metrics/events.jsonl`. */
export type RunEvent = z.infer<typeof eventSchema>;
