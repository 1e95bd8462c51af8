/** Where the values of a run go. */

import type { Image, Retrievals } from './values.ts';

export interface Tracker {
  /** Records values of one step. What is recorded of a step, in however many calls, stands in one row. Steps rise. */
  log(values: Record<string, number | string>, step: number): void;
  /** The distribution of `values` at a step. */
  histogram(name: string, values: ArrayLike<number>, step: number): void;
  text(name: string, text: string, step: number): void;
  image(name: string, image: Omit<Image, 'type'>, step: number): void;
  retrievals(name: string, chunks: Retrievals['chunks'], step: number): void;
  /** Final values, such as the result of an evaluation; those of the same name are replaced. */
  summary(values: Record<string, number | string>): Promise<void>;
}
