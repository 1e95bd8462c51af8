/** Signs of events, read beside their names. */

import type { EventKind } from '../../tracking/events.ts';

export const EVENT_SIGNS: Record<EventKind, string> = {
  start: '▶',
  resume: '▶',
  validation: '∿',
  checkpoint: '⚑',
  growth: '+',
  refresh: '↻',
  rollback: '↶',
  warning: '!',
  stop: '■',
  finish: '✓',
  error: '✕',
};
