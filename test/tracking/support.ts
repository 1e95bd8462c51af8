import type { Tracker } from '../../src/tracking/tracker.ts';
import type { MetricsRow } from '../../src/tracking/values.ts';

/** A tracker that keeps what it is given, by name. */
export class RecordingTracker implements Tracker {
  readonly values: MetricsRow = {};

  log(values: Record<string, number | string>): void {
    Object.assign(this.values, values);
  }
  histogram(name: string): void {
    this.values[name] = name;
  }
  text(name: string, text: string): void {
    this.values[name] = { type: 'text', text };
  }
  image(name: string, image: Parameters<Tracker['image']>[1]): void {
    this.values[name] = { type: 'image', ...image };
  }
  retrievals(name: string, chunks: Parameters<Tracker['retrievals']>[1]): void {
    this.values[name] = { type: 'retrievals', chunks };
  }
  async summary(): Promise<void> {}
}
