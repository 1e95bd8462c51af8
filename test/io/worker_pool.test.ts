import { afterEach, describe, expect, it } from 'vitest';
import { WorkerPool } from '../../src/io/worker_pool.ts';

interface Job {
  value: number;
  delay: number;
}

let pool: WorkerPool<Job, number>;
const start = (size: number) => {
  pool = new WorkerPool({ module: './pool_worker', caller: import.meta.url, data: { factor: 10 }, size });
};
afterEach(async () => await pool.close());

async function collect(results: AsyncIterable<number>): Promise<{ values: number[]; error?: unknown }> {
  const values: number[] = [];
  try {
    for await (const value of results) values.push(value);
    return { values };
  } catch (error) {
    return { values, error };
  }
}

describe('WorkerPool', () => {
  it('gives results in the order of the jobs, whichever is ready first', async () => {
    start(2);
    const jobs = Array.from({ length: 6 }, (_, value) => ({ value, delay: value % 2 === 0 ? 20 : 0 }));
    expect((await collect(pool.map(jobs))).values).toEqual([0, 10, 20, 30, 40, 50]);
  });

  it('takes no more jobs than are under way while nobody takes results', async () => {
    start(2);
    let given = 0;
    function* jobs() {
      for (; given < 100; given++) yield { value: 1, delay: 0 };
    }
    const results = pool.map(jobs());
    await results.next();
    await new Promise((done) => setTimeout(done, 30));
    expect(given).toBeLessThan(5);
    await results.return(undefined);
  });

  it('gives what came before a failed job, then its error; the thread works on', async () => {
    start(1);
    const jobs = [5, 7, 9].map((value) => ({ value, delay: 0 }));
    const { values, error } = await collect(pool.map(jobs));
    expect(values).toEqual([50]);
    expect(error).toMatchObject({ code: 'input_invalid', where: 'seven' });
    expect(await pool.run({ value: 2, delay: 0 })).toBe(20);
  });

  it('tells that a thread ended', async () => {
    start(1);
    await expect(pool.run({ value: 13, delay: 0 })).rejects.toThrow('a thread ended with 3');
  });

  it('gives no job to a thread that ended, and ends', async () => {
    start(2);
    const jobs = [13, 1, 2, 3, 4, 5].map((value) => ({ value, delay: value === 1 ? 200 : 0 }));
    expect((await collect(pool.map(jobs))).error).toMatchObject({ message: 'a thread ended with 3' });
    await expect(Promise.all([pool.run(jobs[2]!), pool.run(jobs[2]!)])).rejects.toThrow('a thread ended with 3');
  });
});
