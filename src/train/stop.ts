/** A request to stop that arrives as a signal and is honoured between two steps, after a checkpoint. */

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const EXIT_CODE = { SIGINT: 130, SIGTERM: 143 } as const;

export class StopRequest {
  #signal: (typeof SIGNALS)[number] | undefined;
  readonly #listeners = SIGNALS.map((signal) => ({ signal, listener: () => this.#receive(signal) }));

  constructor(private readonly announce: (message: string) => void) {
    for (const { signal, listener } of this.#listeners) process.on(signal, listener);
  }

  get requested(): boolean {
    return this.#signal !== undefined;
  }

  /** Exit status that a shell expects of a process ended by the signal received. */
  get exitCode(): number {
    return this.#signal === undefined ? 0 : EXIT_CODE[this.#signal];
  }

  release(): void {
    for (const { signal, listener } of this.#listeners) process.off(signal, listener);
  }

  #receive(signal: (typeof SIGNALS)[number]): void {
    if (this.#signal !== undefined) process.exit(EXIT_CODE[signal]);
    this.#signal = signal;
    this.announce(
      `${signal}: stopping at the next safe point, in training after this step with a checkpoint; send it again to stop at once`,
    );
  }
}
