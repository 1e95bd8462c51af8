/**
 * How long answers take that write their references, and the same answers once the bank holds them: the newest model of a
 * run and the questions of its evaluation, with an empty bank of its own. Run:
 * npx tsx scripts/cold_start_times.ts <config.yaml> [--set key=value …]
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '../src/config/load.ts';
import { openEngine } from '../src/engine/engine.ts';
import { configuredQuestions } from '../src/eval/evaluate.ts';
import { type Answer, generate } from '../src/infer/generate.ts';
import { Session } from '../src/infer/session.ts';
import { RunFolder } from '../src/io/run_folder.ts';
import { Bank } from '../src/memory/bank.ts';

async function main([path = '', ...rest]: string[]): Promise<void> {
  const { config } = await loadConfig(path, { set: rest.filter((word) => word !== '--set') });
  await openEngine(config.engine, config.threads, config.precision);
  const session = await Session.open(config, new RunFolder(join(config.runsFolder, config.name)));
  const root = await mkdtemp(join(tmpdir(), 'memory3-cold-'));
  try {
    await Bank.create(join(root, 'bank'), session.bank.identity);
    await session.openBank(join(root, 'bank'));
    const begun = performance.now();
    await session.startCold();
    console.log(`ready after ${Math.round(performance.now() - begun)} ms`);
    const questions = await configuredQuestions(config);
    const first = await timesOf(session, questions);
    const second = await timesOf(session, questions);
    const differing = first.answers.filter(({ text }, i) => text !== second.answers[i]!.text).length;
    const stored = (answers: readonly Answer[]): number => answers.reduce((sum, { stored }) => sum + stored.length, 0);
    console.log(`${questions.length} questions; ${differing} of the second answers differ`);
    console.log(`first:  median ${median(first.times)} ms, ${stored(first.answers)} references written`);
    console.log(`second: median ${median(second.times)} ms, ${stored(second.answers)} references written`);
    console.log(`segments: ${session.bank.segments.length}`);
  } finally {
    await session.close();
    await rm(root, { recursive: true, force: true });
  }
}

async function timesOf(
  session: Session,
  questions: readonly { prompt: string }[],
): Promise<{ answers: Answer[]; times: number[] }> {
  const { config } = session;
  const [answers, times]: [Answer[], number[]] = [[], []];
  for (const { prompt } of questions) {
    const begun = performance.now();
    answers.push(await generate(session, prompt, { ...config.generate, seed: config.seed, memory: true }));
    times.push(performance.now() - begun);
  }
  return { answers, times };
}

function median(values: readonly number[]): string {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!.toFixed(1);
}

await main(process.argv.slice(2));
