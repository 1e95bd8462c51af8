/** A request to stop that arrives as a signal (or from a tracking service) and is honoured between two steps, after a checkpoint. */

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const EXIT_CODE = { SIGINT: 130, SIGTERM: 143 } as const;

export class StopRequest {
  #signal: (typeof SIGNALS)[number] | undefined;
  #asked = false;
  readonly #listeners = SIGNALS.map((signal) => ({ signal, listener: () => this.#receive(signal) }));

  constructor(private readonly announce: (message: string) => void) {
    for (const { signal, listener } of this.#listeners) process.on(signal, listener);
  }

  get requested(): boolean {
    return this.#asked;
  }

  /** Exit status that a shell expects of a process ended by the signal received; 0 without a stop. */
  get exitCode(): number {
    return this.#asked ? EXIT_CODE[this.#signal ?? 'SIGTERM'] : 0;
  }

  /** Asks for the same as a signal, from another place such as a button. */
  ask(who: string): void {
    if (this.#asked) return;
    this.#asked = true;
    this.announce(
      `${who} asks to stop: stopping at the next safe point, in training after this step with a checkpoint`,
    );
  }

  release(): void {
    for (const { signal, listener } of this.#listeners) process.off(signal, listener);
  }

  #receive(signal: (typeof SIGNALS)[number]): void {
    if (this.#signal !== undefined) process.exit(EXIT_CODE[signal]);
    this.#signal = signal;
    this.#asked = true;
    this.announce(
      `${signal}: stopping at the next safe point, in training after this step with a checkpoint; send it again to stop at once`,
    );
  }
}
