/** What is shown while something runs: a bar on a terminal, a line now and then elsewhere (logs, CI). */

import cliProgress from 'cli-progress';

export interface ProgressOptions {
  /** What is going on, such as `warmup`. */
  label: string;
  /** Units of work in all. */
  total: number;
  /** The unit's plural: `steps`, `references`. */
  unit: string;
  /** Units already done when this process began (a resumed run); rate and time left count only the rest. */
  done?: number;
  stream?: NodeJS.WritableStream & { isTTY?: boolean };
  /** Seconds between two lines where the stream is no terminal. */
  lineEvery?: number;
}

/** Seconds over which the rate is averaged. */
const RATE_MEMORY = 30;

/** The bar on the terminal, if one is shown: there is one terminal, so there is one bar. */
let shown: Progress | undefined;

let listener: ((text: string) => void) | undefined;

/** Has `heard` told every announced line; undefined ends that. */
export function listenToAnnouncements(heard: ((text: string) => void) | undefined): void {
  listener = heard;
}

/** Prints a line that stays, above the progress that is shown. */
export function announce(text: string): void {
  listener?.(text);
  if (shown) shown.note(text);
  else process.stderr.write(`${text}\n`);
}

/** One line of progress. Call `stop` at the end, also after an error: a bar keeps the process alive. */
export class Progress {
  private readonly options: Required<ProgressOptions>;
  private readonly rate: RateMeter;
  private readonly bar: cliProgress.SingleBar | undefined;
  private done: number;
  private metrics: Record<string, number> = {};
  private lineAt: number;
  private pending = true;

  constructor(options: ProgressOptions) {
    this.options = { done: 0, stream: process.stderr, lineEvery: 10, ...options };
    this.done = this.options.done;
    this.lineAt = seconds();
    this.rate = new RateMeter(this.done, this.lineAt);
    shown = this;
    if (!this.options.stream.isTTY) return;
    this.bar = new cliProgress.SingleBar(
      {
        format: '{label} {bar} {percentage}% {text}',
        stream: this.options.stream,
        barsize: 20,
        // The library would otherwise answer SIGINT itself, before the trainer can save a checkpoint.
        gracefulExit: false,
        // After a note the same bar has to be drawn once more.
        forceRedraw: true,
      },
      cliProgress.Presets.shades_classic,
    );
    this.bar.start(this.options.total, this.done, { label: this.options.label, text: this.text() });
  }

  /** Says how many units are done and what was measured last; what is not given again stays. */
  update(done: number, metrics: Record<string, number> = {}): void {
    const now = seconds();
    this.done = done;
    this.metrics = { ...this.metrics, ...metrics };
    this.rate.update(done, now);
    this.pending = true;
    this.bar?.update(done, { text: this.text() });
    if (this.bar === undefined && now - this.lineAt >= this.options.lineEvery) this.line(now);
  }

  /** Prints a line that stays, such as the result of a validation. */
  note(text: string): void {
    const { stream } = this.options;
    if (this.bar === undefined) {
      stream.write(`${text}\n`);
      return;
    }
    // The bar goes on one line further down: the library returns at its end to the place saved last.
    stream.write(`\r\x1b[K${text}\n\x1b7`);
  }

  /** Shows the last state and ends. */
  stop(): void {
    if (shown === this) shown = undefined;
    this.bar?.update(this.done, { text: this.text() });
    this.bar?.stop();
    if (this.bar === undefined && this.pending) this.line(seconds());
  }

  private line(now: number): void {
    this.lineAt = now;
    this.pending = false;
    this.options.stream.write(`${this.options.label}: ${this.text()}\n`);
  }

  private text(): string {
    const { total, unit } = this.options;
    const parts = [`${this.done}/${total} ${unit}`];
    const rate = this.rate.perSecond;
    if (rate > 0) {
      parts.push(rate >= 1 ? `${formatNumber(rate)} ${unit}/s` : `${formatNumber(1 / rate)} s each`);
      if (this.done < total) parts.push(`${formatDuration((total - this.done) / rate)} left`);
    }
    for (const [name, value] of Object.entries(this.metrics)) parts.push(`${name} ${formatNumber(value)}`);
    return parts.join(' · ');
  }
}

/** Units per second, older seconds counting exponentially less. */
export class RateMeter {
  private units = 0;
  private time = 0;
  private last: { done: number; at: number };

  constructor(done: number, at: number) {
    this.last = { done, at };
  }

  update(done: number, at: number): void {
    const elapsed = at - this.last.at;
    if (elapsed <= 0) return;
    const fade = Math.exp(-elapsed / RATE_MEMORY);
    this.units = this.units * fade + (done - this.last.done);
    this.time = this.time * fade + elapsed;
    this.last = { done, at };
  }

  /** 0 before the first update. */
  get perSecond(): number {
    return this.time > 0 ? this.units / this.time : 0;
  }
}

/** Four significant digits, without the noise of trailing zeros; from ten thousand on in k, M, G, T. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e5) return String(value);
  const size = Math.abs(value);
  const [unit, suffix] = UNITS.find(([least]) => size >= least && size >= 1e4) ?? [1, ''];
  const text = (value / unit).toPrecision(4);
  return (text.includes('e') ? (value / unit).toExponential(3) : text) + suffix;
}

const UNITS = [
  [1e12, 'T'],
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'k'],
] as const;

/** `48s`, `5m 10s`, `3h 20m`, `2d 4h`. */
export function formatDuration(duration: number): string {
  const total = Math.round(duration);
  const units = [
    { name: 'd', size: 86_400 },
    { name: 'h', size: 3_600 },
    { name: 'm', size: 60 },
    { name: 's', size: 1 },
  ];
  const first = units.findIndex(({ size }) => total >= size);
  if (first < 0) return '0s';
  return units
    .slice(first, first + 2)
    .map(
      ({ name, size }, i) =>
        `${i === 0 ? Math.floor(total / size) : Math.floor((total % units[first]!.size) / size)}${name}`,
    )
    .join(' ');
}

function seconds(): number {
  return performance.now() / 1000;
}
