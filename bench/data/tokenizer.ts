/** Training a tokenizer, and encoding with worker threads of ours beside `tokenizers` alone, in turn. */

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Answer, Task, Way } from './side.ts';

export interface Options {
  texts: readonly string[];
  merges: number;
  /** MB of text. */
  train: number;
  encode: number;
  rounds: number;
  say(line: string): void;
}

export interface Figure {
  name: string;
  answers: Answer[];
}

export interface Report {
  date: string;
  machine: string;
  node: string;
  load: number;
  training: Figure[];
  encoding: Figure[];
}

/** Code units that one of our workers gets at a time: some 50 ms of work, so that all end at about the same time. */
const GROUP = 2 ** 17;
const THREADS = 2;
const ENCODING: { name: string; way: Way }[] = [
  { name: 'ours, 1 worker', way: { ours: { workers: 1, characters: GROUP } } },
  { name: 'ours, 2 workers', way: { ours: { workers: THREADS, characters: GROUP } } },
  ...[2 ** 19, 2 ** 22].flatMap((characters) =>
    [0, 1].map((ahead) => ({
      name: `tokenizers, ${THREADS} threads, batches of ${characters} characters${ahead ? ', one ahead' : ''}`,
      way: { alone: { characters, ahead } },
    })),
  ),
];

export async function benchmarkTokenizer({ texts, merges, train, encode, rounds, say }: Options): Promise<Report> {
  const folder = await mkdtemp(join(tmpdir(), 'memory3-bench-'));
  const tokenizer = join(folder, 'tokenizer.json');
  const report: Report = {
    ...{ date: new Date().toISOString(), machine: cpus()[0]?.model ?? 'unknown', node: process.version },
    ...{ load: loadavg()[0] ?? 0, training: [], encoding: [] },
  };
  try {
    for (const workers of [0, THREADS]) {
      const name = workers === 0 ? 'training, 1 thread' : `training, counting in ${workers} threads`;
      say(name);
      const side = await Side.start({ texts, bytes: train * 1e6, tokenizer, way: { train: { merges, workers } } });
      report.training.push({ name, answers: [await side.run()] });
      side.close();
    }
    report.encoding = await encodeInTurn({ texts, bytes: encode * 1e6, tokenizer }, rounds, say);
    return report;
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function encodeInTurn(task: Omit<Task, 'way'>, rounds: number, say: Options['say']): Promise<Figure[]> {
  const sides: Side[] = [];
  try {
    for (const { way } of ENCODING) sides.push(await Side.start({ ...task, way }));
    const figures = ENCODING.map(({ name }): Figure => ({ name, answers: [] }));
    for (let round = 0; round < rounds; round++) {
      for (const [i, side] of sides.entries()) {
        const answer = await side.run();
        const { seconds, bytes, tokens } = answer;
        say(`round ${round + 1}, ${figures[i]!.name}: ${(bytes / seconds / 1e6).toFixed(2)} MB/s, ${tokens} tokens`);
        figures[i]!.answers.push(answer);
      }
    }
    return figures;
  } finally {
    for (const side of sides) side.close();
  }
}

/** A process of bench/data/side.ts. */
class Side {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(task: Task): Promise<Side> {
    const env = { ...process.env, RAYON_NUM_THREADS: String(THREADS) };
    const path = fileURLToPath(new URL('side.ts', import.meta.url));
    const side = new Side(fork(path, { execArgv: ['--import', 'tsx'], env }));
    await side.#ask(task);
    return side;
  }

  async run(): Promise<Answer> {
    return (await this.#ask('run')) as Answer;
  }

  close(): void {
    this.#child.kill();
  }

  async #ask(message: Task | 'run'): Promise<unknown> {
    this.#child.send(message);
    const failed = once(this.#child, 'exit').then(([code]) => {
      throw new Error(`a side of the benchmark ended with ${code}; its message is above`);
    });
    failed.catch(() => undefined);
    const [answer] = (await Promise.race([once(this.#child, 'message'), failed])) as unknown[];
    return answer;
  }
}
