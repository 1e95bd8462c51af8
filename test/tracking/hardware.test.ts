import { chmodSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { cardValues, HardwareMonitor } from '../../src/tracking/hardware.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'memory3-hardware-'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

/** Puts a program of this name before all others. */
function install(name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
  vi.stubEnv('PATH', `${folder}:${process.env.PATH}`);
}

test('measures this process, the machine and the disk', async () => {
  const monitor = new HardwareMonitor(folder);
  const end = performance.now() + 200;
  while (performance.now() < end);
  const row = await monitor.sample();
  // This thread was kept busy all the time, if the machine let it.
  expect(row['hardware/process_cpu_percent']).toBeGreaterThan(10);
  expect(row['hardware/process_rss_bytes']).toBeGreaterThan(1e7);
  expect(row['hardware/cpu_percent']).toBeGreaterThan(0);
  expect(row['hardware/cpu_percent']).toBeLessThanOrEqual(100);
  expect(row['hardware/cpus']).toBe(availableParallelism());
  expect(row['hardware/memory_percent']).toBeGreaterThan(0);
  expect(row['hardware/memory_percent']).toBeLessThanOrEqual(100);
  expect(row['hardware/disk_free_bytes']).toBeGreaterThan(0);
});

test('a folder that is gone has no free space to tell', async () => {
  const row = await new HardwareMonitor(join(folder, 'gone')).sample();
  expect(row).not.toHaveProperty('hardware/disk_free_bytes');
  expect(row).toHaveProperty('hardware/cpu_percent');
});

test('reads every card, without what it does not tell', async () => {
  install('nvidia-smi', "printf '37, 1024, 71.5, 45\\n[N/A], 2048, [N/A], 50\\n'");
  expect(await new HardwareMonitor(folder).sample()).toMatchObject({
    'hardware/gpu0_percent': 37,
    'hardware/gpu0_memory_bytes': 2 ** 30,
    'hardware/gpu0_power_w': 71.5,
    'hardware/gpu0_temperature_c': 45,
    'hardware/gpu1_memory_bytes': 2 ** 31,
    'hardware/gpu1_temperature_c': 50,
  });
  expect(cardValues('[N/A], 2048, [N/A], 50', 1).map(([name]) => name)).toEqual([
    'hardware/gpu1_memory_bytes',
    'hardware/gpu1_temperature_c',
  ]);
});

test('does not ask for cards again when there are none', async () => {
  install('nvidia-smi', `echo x >> ${folder}/asked; exit 9`);
  const monitor = new HardwareMonitor(folder);
  for (let i = 0; i < 3; i++) {
    expect(Object.keys(await monitor.sample()).filter((name) => name.includes('gpu'))).toEqual([]);
  }
  const { readFileSync } = await import('node:fs');
  expect(readFileSync(join(folder, 'asked'), 'utf8')).toBe('x\n');
});

test.each(['', 'No devices were found'])('an answer of cards like %j has no values', (answer) => {
  expect(cardValues(answer, 0)).toEqual([]);
});
