/**
 * `check PART [options]` runs a part of the check of the CUDA engine and prints a line of JSON for each finding;
 * `check table FILE` prints such lines as one table. Used by scripts/gpu/check.sh. Ends with 1 when something failed.
 */

import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import type { Kind } from './cases.ts';
import { checkOperations, firstLine } from './check_operations.ts';
import { checkErrors, checkResume, checkShape, checkTraining } from './check_training.ts';
import { type Finding, linesOf, printLine, printTable } from './compare.ts';
import type { Size } from './operations.ts';

const USAGE = `usage: check PART [options]
       check table FILE

operations   --size small|large (large), --only TEXT of their names, --from N, --precision float32,bfloat16
training     --steps N (50), --kinds LIST of warmup,bank,online (all)
shape        --shape NAME of shapes.json (paper), --kinds LIST
resume       --shape NAME, --precision LIST
errors

examples:
  check operations --size small --only attention
  check training --steps 50 --kinds bank
  check shape --shape paper --kinds warmup,bank,online
`;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    size: { type: 'string', default: 'large' },
    only: { type: 'string', default: '' },
    from: { type: 'string', default: '0' },
    steps: { type: 'string', default: '50' },
    shape: { type: 'string', default: 'paper' },
    kinds: { type: 'string', default: 'warmup,bank,online' },
    precision: { type: 'string', default: 'float32,bfloat16' },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

const findings: Finding[] = [];
const report = (finding: Finding): void => {
  findings.push(finding);
  printLine(finding);
};

async function run(part: string): Promise<void> {
  const precisions = options.precision.split(',') as ('float32' | 'bfloat16')[];
  const kinds = options.kinds.split(',') as Kind[];
  switch (part) {
    case 'operations': {
      const only = { names: options.only, from: Number(options.from), precisions };
      const next = await checkOperations(options.size as Size, only, report);
      if (next !== undefined) goOnFrom(next);
      return;
    }
    case 'training':
      return await checkTraining(Number(options.steps), kinds, report);
    case 'shape':
      return await checkShape(options.shape, kinds, report);
    case 'resume':
      for (const precision of precisions) await checkResume(options.shape, precision, report);
      return;
    case 'errors':
      return await checkErrors(report);
    default:
      throw new Error(USAGE);
  }
}

/** The other operations in a process of their own: after an illegal access a process cannot use the GPU any more. */
function goOnFrom(next: number): void {
  const { size, only, precision } = options;
  const rest = ['operations', '--size', size, '--only', only, '--precision', precision, '--from', String(next)];
  spawnSync(process.execPath, [...process.execArgv, process.argv[1]!, ...rest], { stdio: 'inherit' });
}

/** One row a finding; of many that are right, or that fail alike, how many and the worst. */
function table(path: string): void {
  const all = linesOf<Finding>(path);
  const rows = [['part', 'what', 'value', 'limit', '', 'note']];
  for (const part of new Set(all.map((finding) => finding.part))) {
    const own = all.filter((finding) => finding.part === part);
    for (const alike of grouped(own)) {
      if (alike.length <= 8) rows.push(...alike.map(rowOf));
      else {
        const worst = alike.reduce((a, b) => ((b.value ?? 0) > (a.value ?? 0) ? b : a));
        const note = worst.ok ? `worst: ${worst.name}` : `${worst.name}: ${worst.note}`;
        rows.push(rowOf({ ...worst, name: `${alike.length} of ${own.length} ${worst.ok ? 'right' : 'alike'}`, note }));
      }
    }
  }
  printTable(rows);
  const failed = all.filter(({ ok }) => !ok).length;
  const skipped = all.filter((finding) => finding.skipped).length;
  const rest = skipped > 0 ? `, ${skipped} skipped` : '';
  console.log(`\n${all.length - failed - skipped} passed, ${failed} failed${rest}`);
  if (failed > 0 || all.length === 0) process.exitCode = 1;
}

/** Those that are right together, and those together that fail with the same words. */
function grouped(findings: readonly Finding[]): Finding[][] {
  const groups = new Map<string, Finding[]>();
  for (const finding of findings) {
    const key = finding.skipped ? 'skipped' : finding.ok ? '' : `failed ${finding.note}`;
    groups.set(key, [...(groups.get(key) ?? []), finding]);
  }
  return [...groups.values()];
}

function rowOf({ part, name, value, limit, ok, skipped, note }: Finding): string[] {
  const number = (x: number | undefined): string => (x === undefined ? '' : x.toExponential(1));
  return [part, name, number(value), number(limit), skipped ? 'skipped' : ok ? 'ok' : 'FAILED', note ?? ''];
}

const [part = '', ...rest] = positionals;
if (options.help) console.log(USAGE);
else if (part === 'table') table(rest[0] ?? '');
else {
  try {
    await run(part);
  } catch (error) {
    console.error(error);
    report({ part, name: 'the whole part', ok: false, note: firstLine(error) });
  }
  if (findings.length === 0 || findings.some(({ ok }) => !ok)) process.exitCode = 1;
}
