/** Real `memory3` commands on a tiny corpus in a temporary folder. */

import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect, vi } from 'vitest';
import { stringify } from 'yaml';

const ROOT = resolve(import.meta.dirname, '../..');
const COMMAND = join(ROOT, 'bin/memory3.js');
/** Engine of every run; another one than the best that is here can be asked for. */
const ENGINE = process.env.MEMORY3_TEST_ENGINE ?? 'auto';

// Processes start slowly on a machine that does other work too.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

export interface Outcome {
  /** Exit status; null when a signal ended the process. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** A command that runs. */
export class Running {
  stdout = '';
  stderr = '';
  readonly outcome: Promise<Outcome>;
  private readonly child: ChildProcess;

  constructor(args: readonly string[]) {
    if (!existsSync(join(ROOT, 'dist/cli/main.js'))) {
      throw new Error('dist is missing: these tests run the built command; run `npm run build` first');
    }
    this.child = spawn(process.execPath, [COMMAND, ...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.outcome = new Promise((done, fail) => {
      this.child.on('error', fail);
      this.child.on('close', (code, signal) => done({ code, signal, stdout: this.stdout, stderr: this.stderr }));
    });
  }

  /** Waits until the messages match; fails when the process ends before. */
  async until(pattern: RegExp): Promise<void> {
    let ended = false;
    void this.outcome.finally(() => {
      ended = true;
    });
    while (!pattern.test(this.stderr)) {
      if (ended) throw new Error(`the process ended before ${pattern}:\n${this.stderr}`);
      await new Promise((next) => setTimeout(next, 2));
    }
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }
}

/** Runs a command to its end. */
export async function memory3(...args: string[]): Promise<Outcome> {
  return await new Running(args).outcome;
}

/** Runs a command that must succeed. @returns what it wrote on standard output */
export async function succeed(...args: string[]): Promise<Outcome> {
  const outcome = await memory3(...args);
  const { code, signal, stderr } = outcome;
  expect({ code, signal }, `memory3 ${args.join(' ')}\n${stderr}`).toEqual({ code: 0, signal: null });
  return outcome;
}

/** Runs a command that must fail with a user error of this code and exit status. @returns the message */
export async function fail(code: string, exitCode: number, ...args: string[]): Promise<string> {
  const { code: status, stderr } = await memory3(...args);
  expect(stderr, `memory3 ${args.join(' ')}`).toContain(`error [${code}]`);
  expect(status).toBe(exitCode);
  return stderr;
}

const CONSONANTS = 'bdfgklmnprst';
const VOWELS = 'aeiou';

/** An invented word of two syllables, a different one for each number below 3600. */
function word(number: number): string {
  const syllable = (n: number): string => CONSONANTS[n % 12]! + VOWELS[Math.floor(n / 12) % 5]!;
  return syllable(number * 7 + 3) + syllable(Math.floor(number / 60) * 11 + number * 13 + 5);
}

const ENTITIES = 60;
/** Entities of which no training text speaks, only the references. */
const HELD_OUT = 10;

/** Two facts about each of sixty invented names: training texts, references and questions. */
function corpus(): { texts: object[]; references: object[]; questions: object[] } {
  const entities = Array.from({ length: ENTITIES }, (_, i) => {
    const [name, color, home] = [word(i), word(100 + i), word(200 + i)];
    return { name, color, home, text: `${name} has color ${color}.\n${name} has home ${home}.\n` };
  });
  return {
    texts: entities.slice(HELD_OUT).map(({ text }, i) => ({ id: `d${i}`, text: text.repeat(3) })),
    references: entities.map(({ name, text }, i) => ({ id: `e${i}`, text, title: name })),
    questions: entities.slice(0, HELD_OUT).map(({ name, color }, i) => ({
      prompt: `${name} has color`,
      answer: ` ${color}.`,
      reference: `e${i}`,
      edited: ' bada.',
    })),
  };
}

/** A temporary folder with a corpus and a configuration; run folders go there too. */
export class Playground {
  readonly folder = mkdtempSync(join(tmpdir(), 'memory3-e2e-'));
  readonly runs = join(this.folder, 'runs');
  readonly config: string;

  /** @param changes laid over configs/tiny.yaml */
  constructor(changes: Record<string, unknown> = {}) {
    const { texts, references, questions } = corpus();
    const { data = {}, evaluation = {}, ...rest } = changes as Record<string, object>;
    const jsonl = (name: string, records: object[]): string => {
      const path = join(this.folder, name);
      writeFileSync(path, records.map((record) => `${JSON.stringify(record)}\n`).join(''));
      return path;
    };
    this.config = this.write('tiny.yaml', {
      extends: join(ROOT, 'configs/tiny.yaml'),
      runsFolder: this.runs,
      engine: ENGINE,
      // More threads would only wait for each other: the model is tiny, and test files run side by side.
      threads: 1,
      data: {
        sources: [{ path: jsonl('texts.jsonl', texts) }],
        references: [{ path: jsonl('references.jsonl', references) }],
        ...data,
      },
      evaluation: { questions: jsonl('questions.jsonl', questions), ...evaluation },
      ...rest,
    });
  }

  /** Writes a YAML file. */
  write(name: string, content: object): string {
    const path = join(this.folder, name);
    writeFileSync(path, stringify(content));
    return path;
  }

  /** Arguments that name the configuration and give the run a name. */
  args(name: string, ...changes: string[]): string[] {
    return ['-c', this.config, ...[`name=${name}`, ...changes].flatMap((change) => ['--set', change])];
  }

  /** A path inside the run folder `name`. */
  path(name: string, ...parts: string[]): string {
    return join(this.runs, name, ...parts);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export type Stage = 'warmup' | 'continual';

/** Checkpoint folders of a stage, oldest first. */
export function checkpoints(run: string, stage: Stage): string[] {
  const folder = join(run, stage, 'checkpoints');
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.startsWith('step-'))
    .sort()
    .map((name) => join(folder, name));
}

export function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

/** Files below a folder, sorted. */
export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** The numbers that two equal runs have alike, bit by bit: final weights, moments, memories, losses. */
export function fingerprint(run: string): Record<string, unknown> {
  const final = (stage: Stage): string => checkpoints(run, stage).at(-1) ?? 'none';
  const bank = filesBelow(join(run, 'bank')).filter((path) => path.endsWith('rows.bin'));
  const files = (['warmup', 'continual'] as const).flatMap((stage) =>
    ['model.safetensors', 'optimizer.safetensors'].map((name) => [
      `${stage}/${name}`,
      sha256(join(final(stage), name)),
    ]),
  );
  return {
    ...Object.fromEntries(files),
    bank: bank.map(sha256).sort(),
    losses: (['warmup', 'continual'] as const).map((stage) =>
      rows(run, stage).map((row) => [row.step, row['train/loss'], row['validation/loss']]),
    ),
  };
}

/** Rows of a stage's metrics. */
export function rows(run: string, stage: Stage) {
  const text = readFileSync(join(run, 'metrics', `${stage}.jsonl`), 'utf8');
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { step: number } & Record<string, number>);
}

/** 1, 2, …, count. */
export function steps(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i + 1);
}

export function flipBit(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = bytes[at]! ^ 1;
  writeFileSync(path, bytes);
}

/** Cuts a file to half its length. */
export function halve(path: string): void {
  const bytes = readFileSync(path);
  writeFileSync(path, bytes.subarray(0, bytes.length / 2));
}
