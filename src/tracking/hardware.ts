/** What the process and the machine are doing: processor, memory, disk, and NVIDIA cards where `nvidia-smi` is. */

import { execFile } from 'node:child_process';
import { statfs } from 'node:fs/promises';
import { availableParallelism, cpus, freemem, totalmem } from 'node:os';
import { promisify } from 'node:util';

/** Names are `hardware/what_unit`; `hardware/gpu0_…` for each card. */
export type HardwareRow = Record<string, number>;

interface Times {
  at: number;
  /** Processor microseconds of this process. */
  process: number;
  /** Milliseconds of all processors: busy and in all. */
  busy: number;
  total: number;
}

/** Samples load; each call measures since the one before. */
export class HardwareMonitor {
  readonly #folder: string;
  #last = times();
  #hasCards = true;

  /** @param folder where the run writes: its disk is watched */
  constructor(folder: string) {
    this.#folder = folder;
  }

  async sample(): Promise<HardwareRow> {
    const [before, now] = [this.#last, times()];
    this.#last = now;
    const elapsed = Math.max(1, now.at - before.at) * 1000;
    const disk = await statfs(this.#folder).catch(() => undefined);
    return {
      // 100 is one processor kept busy.
      'hardware/process_cpu_percent': round((100 * (now.process - before.process)) / elapsed),
      'hardware/process_rss_bytes': process.memoryUsage.rss(),
      'hardware/cpu_percent': round((100 * (now.busy - before.busy)) / Math.max(1, now.total - before.total)),
      'hardware/cpus': availableParallelism(),
      'hardware/memory_percent': round(100 * (1 - freemem() / totalmem())),
      ...(disk && { 'hardware/disk_free_bytes': disk.bavail * disk.bsize }),
      ...(await this.#cards()),
    };
  }

  async #cards(): Promise<HardwareRow> {
    if (!this.#hasCards) return {};
    const query = 'utilization.gpu,memory.used,power.draw,temperature.gpu';
    try {
      const { stdout } = await promisify(execFile)(
        'nvidia-smi',
        [`--query-gpu=${query}`, '--format=csv,noheader,nounits'],
        { timeout: 5000 },
      );
      return Object.fromEntries(stdout.trim().split('\n').flatMap(cardValues));
    } catch {
      // There is none, or it does not answer: not asked again, since starting it costs time.
      this.#hasCards = false;
      return {};
    }
  }
}

/** One line of `nvidia-smi`; what a card does not tell is `[N/A]` there and left out here. */
export function cardValues(line: string, card: number): [string, number][] {
  const [load, mebibytes, watts, degrees] = line.split(',').map((field) => Number.parseFloat(field));
  const values: [string, number | undefined][] = [
    [`hardware/gpu${card}_percent`, load],
    [`hardware/gpu${card}_memory_bytes`, mebibytes === undefined ? undefined : mebibytes * 2 ** 20],
    [`hardware/gpu${card}_power_w`, watts],
    [`hardware/gpu${card}_temperature_c`, degrees],
  ];
  return values.filter((value): value is [string, number] => value[1] !== undefined && Number.isFinite(value[1]));
}

function times(): Times {
  const { user, system } = process.cpuUsage();
  let [busy, total] = [0, 0];
  for (const { times: spent } of cpus()) {
    const all = spent.user + spent.nice + spent.sys + spent.idle + spent.irq;
    total += all;
    busy += all - spent.idle;
  }
  return { at: performance.now(), process: user + system, busy, total };
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
