/** A process that runs cases on request, ours or the peer's. */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { KernelProfile } from '../../src/engine/native/addon.ts';
import type { Case } from './cases.ts';

export interface Run {
  /** Of each step. */
  seconds: number[];
  loss?: number;
  gradientNorm?: number;
  /** Processor seconds of the JavaScript thread, all steps together. */
  javascript?: number;
  profile?: KernelProfile[];
}

/** How a process is started. */
export interface Setting {
  name: string;
  command: string;
  args: string[];
  /** Added to the environment; undefined takes a variable out of it. */
  environment: Record<string, string | undefined>;
}

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export const ours = (threads: number): Setting => ({
  name: 'memory3',
  command: process.execPath,
  args: ['--import', 'tsx', path('ours.ts'), String(threads)],
  environment: {},
});

/** What may be better or worse for PyTorch, and differs from case to case. */
export interface TorchChoice {
  threads: number;
  /** Threads that wait sleep instead of turning in a loop. */
  passive: boolean;
  /** glibc keeps freed memory, so that large tensors are not mapped and cleared by the system anew each time. */
  keepMemory: boolean;
  /** OpenBLAS chooses its kernels by itself, whatever the environment asks for. */
  freeBlas: boolean;
}

const KEEP_MEMORY = { MALLOC_MMAP_THRESHOLD_: String(2 ** 40), MALLOC_TRIM_THRESHOLD_: String(2 ** 40) };

export function torch(python: string, choice: TorchChoice): Setting {
  const { threads, passive, keepMemory, freeBlas } = choice;
  const words = [
    `${threads} thread${threads > 1 ? 's' : ''}`,
    ...(passive ? ['OMP_WAIT_POLICY=PASSIVE'] : []),
    ...(keepMemory ? ['malloc keeps memory'] : []),
    ...(freeBlas ? [] : [`OPENBLAS_CORETYPE=${process.env.OPENBLAS_CORETYPE}`]),
  ];
  return {
    name: words.join(', '),
    command: python,
    args: [path('../peers/memory3_torch.py'), String(threads)],
    environment: {
      OMP_NUM_THREADS: String(threads),
      OPENBLAS_NUM_THREADS: String(threads),
      ...(passive && { OMP_WAIT_POLICY: 'PASSIVE' }),
      ...(keepMemory && KEEP_MEMORY),
      ...(freeBlas && { OPENBLAS_CORETYPE: undefined, OPENBLAS_L2_SIZE: undefined }),
    },
  };
}

/** Steps of a warm-up at most; it ends when so many were not faster than the best before them by a share. */
const WARM_UP = { most: 16, steady: 3, gain: 0.97 };

export class Worker {
  readonly setting: Setting;
  private readonly child: ChildProcess;
  private readonly lines: Interface;
  private ended = false;
  private readonly waiting: { resolve(line: string): void; reject(error: Error): void }[] = [];

  constructor(setting: Setting) {
    this.setting = setting;
    this.child = spawn(setting.command, setting.args, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...setting.environment },
    });
    this.lines = createInterface({ input: this.child.stdout! });
    this.lines.on('line', (line) => this.waiting.shift()?.resolve(line));
    const ended = (): void => {
      this.ended = true;
      for (const { reject } of this.waiting.splice(0)) reject(new Error(`${setting.name} ended; its message is above`));
    };
    this.child.on('exit', ended);
    this.child.on('error', ended);
  }

  async prepare(prepared: Case): Promise<void> {
    await this.ask({ prepare: prepared });
  }

  async run(steps: number): Promise<Run> {
    return (await this.ask({ steps })) as Run;
  }

  /** Runs single steps until they get no faster: allocators and caches need a while. @returns seconds of the best step */
  async warmUp(): Promise<number> {
    const seconds: number[] = [];
    for (let step = 0; step < WARM_UP.most; step++) {
      seconds.push((await this.run(1)).seconds[0]!);
      const earlier = Math.min(...seconds.slice(0, -WARM_UP.steady));
      const lately = Math.min(...seconds.slice(-WARM_UP.steady));
      if (seconds.length > WARM_UP.steady && lately > WARM_UP.gain * earlier) break;
    }
    return Math.min(...seconds);
  }

  /** The most memory that the process has had, bytes. */
  async peakBytes(): Promise<number> {
    return ((await this.ask({ memory: true })) as { peakBytes: number }).peakBytes;
  }

  close(): void {
    this.child.stdin!.end();
    this.child.kill();
  }

  private async ask(request: object): Promise<unknown> {
    if (this.ended) throw new Error(`${this.setting.name} ended; its message is above`);
    const line = new Promise<string>((resolve, reject) => this.waiting.push({ resolve, reject }));
    this.child.stdin!.write(`${JSON.stringify(request)}\n`);
    return JSON.parse(await line) as unknown;
  }
}
