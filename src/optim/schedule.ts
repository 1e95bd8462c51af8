/** Learning-rate schedules. */

import type { ScheduleConfig } from '../config/schema.ts';

/**
 * The learning rate of optimiser step `step`, counted from 1 to `steps`.
 *
 * All schedules rise linearly: step 1 gets peak/warmupSteps, step `warmupSteps` the peak. Then
 * - `wsd` (warmup-stable-decay, Hu et al. 2024): plateau, then a linear fall over the last `decayShare` of all steps;
 * - `cosine`: half a cosine down to the last step;
 * - `constant`: plateau.
 * Falling schedules reach `final`·peak at the last step.
 */
export function learningRate(schedule: ScheduleConfig, step: number, steps: number): number {
  const { peak, final, warmupSteps } = schedule;
  const rise = warmupSteps > 0 ? Math.min(1, step / warmupSteps) : 1;
  return peak * Math.min(rise, final + (1 - final) * remaining(schedule, step, steps));
}

/** The share of the fall that is still ahead: 1 before it, 0 at the last step. */
function remaining({ kind, warmupSteps, decayShare }: ScheduleConfig, step: number, steps: number): number {
  if (kind === 'constant') return 1;
  const length = kind === 'wsd' ? Math.round(decayShare * steps) : Math.max(0, steps - warmupSteps);
  if (length === 0) return 1;
  const progress = Math.min(1, Math.max(0, (step - (steps - length)) / length));
  return kind === 'wsd' ? 1 - progress : (1 + Math.cos(Math.PI * progress)) / 2;
}
