import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EMULATED_PATH, FAKE_LIBRARIES } from './support.ts';

const FAKE = join(FAKE_LIBRARIES, 'libcublasLt.so.13');
const built = existsSync(EMULATED_PATH) && existsSync(FAKE);

const SCRIPT = `
  const addon = require(process.argv[1]);
  addon.open(0);
  try {
    console.log(JSON.stringify({ found: addon.openBlas() }));
    const tensor = addon.allocate(1, 0);
    addon.matMul(tensor, tensor, 1, 1, 1, false, false, addon.allocate(1, 0));
  } catch (error) {
    console.log(JSON.stringify({ why: error.message }));
  }`;

/** Which cuBLASLt a process of its own finds, and what it says in the end. */
function inProcess(environment: Record<string, string>): { found?: string; why?: string } {
  const names = ['PATH', 'HOME', 'MEMORY3_EMULATOR_ORDER'] as const;
  const kept = Object.fromEntries(names.map((name) => [name, process.env[name] ?? '']));
  const env = { ...kept, HOME: '/nonexistent', ...environment };
  const stdout = execFileSync(process.execPath, ['-e', SCRIPT, EMULATED_PATH], {
    env,
    encoding: 'utf8',
    stdio: 'pipe',
  });
  return Object.assign(
    {},
    ...stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object),
  ) as object;
}

(built ? describe : describe.skip)('cuBLASLt', () => {
  let folder: string;
  /** A library under this path in the test's folder; the fake, or some text. */
  const place = (path: string, text?: string): string => {
    const file = join(folder, path);
    mkdirSync(dirname(file), { recursive: true });
    if (text === undefined) symlinkSync(FAKE, file);
    else writeFileSync(file, text);
    return dirname(file);
  };
  beforeAll(() => {
    folder = realpathSync(mkdtempSync(join(tmpdir(), 'memory3-blas-')));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('is taken from the folders of MEMORY3_CUDA_LIBS in their order, the newest of a folder', () => {
    const first = place('first/libcublasLt.so.12');
    place('first/libcublasLt.so.11');
    const second = place('second/libcublasLt.so.13');
    const found = (list: string[]): string | undefined => inProcess({ MEMORY3_CUDA_LIBS: list.join(':') }).found;
    expect(found(['/nowhere', '', first, second])).toBe(`cuBLASLt 13.2.1 (${first}/libcublasLt.so.12)`);
    expect(found([second, first])).toBe(`cuBLASLt 13.2.1 (${second}/libcublasLt.so.13)`);
  });

  it.each(['nvidia/cu13/lib/libcublasLt.so.13', 'nvidia/cublas/lib/libcublasLt.so.12'])(
    'is found in a folder with Python wheels, %s',
    (path) => {
      place(`packages-${path.length}/${path}`);
      const packages = join(folder, `packages-${path.length}`);
      expect(inProcess({ MEMORY3_CUDA_LIBS: packages }).found).toContain(`${packages}/${path}`);
    },
  );

  it('is found on the path of the loader', () => {
    const library = place('loader/libcublasLt.so.12');
    expect(inProcess({ LD_LIBRARY_PATH: library }).found).toContain(`${library}/libcublasLt.so.12`);
  });

  it('is found in CUDA_HOME, in an environment of Python and where a user installs wheels', () => {
    const toolkit = place('toolkit/lib64/libcublasLt.so.13');
    const venv = place('venv/lib/python3.12/site-packages/nvidia/cublas/lib/libcublasLt.so.12');
    const user = place('home/.local/lib/python3.9/site-packages/nvidia/cu13/lib/libcublasLt.so.13');
    const found = (environment: Record<string, string>): string | undefined => inProcess(environment).found;
    expect(found({ CUDA_HOME: join(folder, 'toolkit') })).toContain(toolkit);
    expect(found({ VIRTUAL_ENV: join(folder, 'venv') })).toContain(venv);
    expect(found({ HOME: join(folder, 'home') })).toContain(user);
  });

  it('is said to be missing, with the places and what to set', (context) => {
    const { found, why } = inProcess({ MEMORY3_CUDA_LIBS: '/nowhere', CUDA_HOME: '/no/toolkit' });
    if (found !== undefined) context.skip('this machine has cuBLASLt');
    expect(why).toContain('libcublasLt.so.13, libcublasLt.so.12, libcublasLt.so.11');
    const places = [
      '/nowhere',
      '/nowhere/nvidia/cu13/lib',
      "the loader's path",
      '/no/toolkit/lib64',
      '/usr/local/cuda',
    ];
    for (const named of places) expect(why).toContain(named);
    expect(why).toContain('set MEMORY3_CUDA_LIBS');
  });

  it('is said to be broken when it does not load', (context) => {
    const broken = place('broken/libcublasLt.so.13', 'not a library');
    const { found, why } = inProcess({ MEMORY3_CUDA_LIBS: broken });
    if (found !== undefined) context.skip('this machine has cuBLASLt');
    expect(why).toContain(`${broken}/libcublasLt.so.13: `);
  });

  it('is refused when it is something else', () => {
    const other = join(folder, 'other');
    mkdirSync(other);
    const source = join(other, 'empty.cpp');
    writeFileSync(source, '');
    const target = join(other, 'libcublasLt.so.13');
    execFileSync(process.env.CXX ?? 'c++', ['-shared', '-fPIC', '-o', target, source]);
    expect(inProcess({ MEMORY3_CUDA_LIBS: other }).why).toBe(
      `${target} has no function cublasLtCreate: it is of a version that is not supported`,
    );
  });

  it('is quoted when it fails', () => {
    const environment = { MEMORY3_CUDA_LIBS: FAKE_LIBRARIES };
    expect(inProcess({ ...environment, FAKE_CUBLASLT_BROKEN: '1' }).why).toMatch(
      /cuBLASLt: opening .* failed: CUBLAS_STATUS_NOT_INITIALIZED \(1\)/,
    );
    expect(inProcess({ ...environment, FAKE_CUBLASLT_NO_ALGORITHM: '1' }).why).toBe(
      'cuBLASLt: looking for an algorithm for a product [1, 1] · [1, 1] of float32 into float32 failed: ' +
        'CUBLAS_STATUS_NOT_SUPPORTED (15)',
    );
    expect(inProcess(environment).why).toBeUndefined();
  });

  it('is asked once more when there was no room for its code', () => {
    const environment = { MEMORY3_CUDA_LIBS: FAKE_LIBRARIES };
    expect(inProcess({ ...environment, FAKE_CUBLASLT_NO_ROOM: '1' }).why).toBeUndefined();
    expect(inProcess({ ...environment, FAKE_CUBLASLT_NO_ROOM: '2' }).why).toMatch(
      /^the memory of the GPU is full: cuBLASLt wanted some, \d+ MiB are in use by tensors/,
    );
  });
});
