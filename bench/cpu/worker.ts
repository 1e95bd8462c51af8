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
  environment: Record<string, string>;
}

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export const ours = (threads: number): Setting => ({
  name: 'memory3',
  command: process.execPath,
  args: ['--import', 'tsx', path('ours.ts'), String(threads)],
  environment: {},
});

/** PyTorch with a number of threads, which wait in a loop (its default) or sleep. */
export const torch = (python: string, threads: number, passive: boolean): Setting => ({
  name: `${threads} thread${threads > 1 ? 's' : ''}${passive ? ', OMP_WAIT_POLICY=PASSIVE' : ''}`,
  command: python,
  args: [path('../peers/memory3_torch.py'), String(threads)],
  environment: {
    OMP_NUM_THREADS: String(threads),
    OPENBLAS_NUM_THREADS: String(threads),
    ...(passive && { OMP_WAIT_POLICY: 'PASSIVE' }),
  },
});

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
