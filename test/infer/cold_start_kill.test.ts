/** A cold start that is killed while it stores what it wrote. */

import { cp, rm } from 'node:fs/promises';
import { expect, it, vi } from 'vitest';
import { type Answer, generate } from '../../src/infer/generate.ts';
import { Session } from '../../src/infer/session.ts';
import { fact, randomRun, writeBank } from './random_run.ts';

/** Calls of the file system that change something and may still succeed; the process is "dead" at 0. */
const life = vi.hoisted(() => ({ left: Number.POSITIVE_INFINITY }));

vi.mock('node:fs/promises', async (importOriginal) => {
  const { mortalFiles } = await import('../memory/mortal_files.ts');
  return mortalFiles(await importOriginal(), life);
});

async function answer(session: Session): Promise<Answer> {
  const options = { maxTokens: 4, temperature: 0, topP: 1, stop: [], seed: 1, memory: true };
  return await generate(session, fact(3).text, options);
}

it('leaves the bank as it was or with all that was written, and gives the same answer the next time', async () => {
  const run = await randomRun({ continual: { steps: 1 } });
  await writeBank(run, 0);
  run.model.dispose();
  const { bank: folder } = run.folder;
  const empty = `${folder}-empty`;
  await cp(folder, empty, { recursive: true });
  const whole = await Session.open(run.config, run.folder);
  await whole.startCold();
  const expected = await answer(whole);
  await whole.close();

  const sizes = new Set<number>();
  let finished = false;
  for (let calls = 0; !finished; calls++) {
    await rm(folder, { recursive: true });
    await cp(empty, folder, { recursive: true });
    const killed = await Session.open(run.config, run.folder);
    await killed.startCold();
    life.left = calls;
    finished = await answer(killed).then(
      () => true,
      (error: Error) => {
        expect(error.message).toContain('killed');
        return false;
      },
    );
    life.left = Number.POSITIVE_INFINITY;
    await killed.close();

    const session = await Session.open(run.config, run.folder);
    await session.bank.verify();
    sizes.add(session.bank.size);
    await session.startCold();
    const next = await answer(session);
    expect({ ...next, stored: [] }).toEqual({ ...expected, stored: [] });
    expect(session.bank.ids().toSorted()).toEqual(expected.stored.toSorted());
    await session.close();
    expect(calls).toBeLessThan(60);
  }
  // Both outcomes were met.
  expect([...sizes].sort((a, b) => a - b)).toEqual([0, expected.stored.length]);
}, 120_000);
