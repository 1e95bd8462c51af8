/** Where the numbers of a run go. */
export interface Tracker {
  /** Records the metrics of one step. Steps rise. */
  log(metrics: Record<string, number>, step: number): void;
}
