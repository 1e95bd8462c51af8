/** The file system of a process that can be killed at any change: for `vi.mock('node:fs/promises')`. */

type Files = typeof import('node:fs/promises');

/**
 * @param life calls that change something and may still succeed; the process is "dead" at 0
 * @returns `real`, whose changes fail from then on
 */
export function mortalFiles(real: Files, life: { left: number }): Record<string, unknown> {
  const mortal = <A extends unknown[], R>(call: (...args: A) => Promise<R>, changes: (...args: A) => boolean) => {
    return async (...args: A): Promise<R> => {
      if (changes(...args) && life.left-- <= 0) throw new Error('killed');
      return call(...args);
    };
  };
  return {
    ...real,
    open: mortal(real.open, (_, flags) => flags !== 'r'),
    rename: mortal(real.rename, () => true),
    rm: mortal(real.rm, () => true),
    mkdir: mortal(real.mkdir as (path: string) => Promise<undefined>, () => true),
  };
}
