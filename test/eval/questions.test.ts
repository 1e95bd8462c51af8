import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readQuestions } from '../../src/eval/questions.ts';
import { temporaryFolder, userErrorOf } from '../data/support.ts';

const QUESTION = { prompt: 'rore has color', answer: ' sari.', reference: 'e50' };

function file(...lines: (string | object)[]): string {
  const path = join(temporaryFolder(), 'questions.jsonl');
  writeFileSync(path, lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''));
  return path;
}

describe('readQuestions', () => {
  it('reads at most as many as asked for, passing over empty lines', async () => {
    const second = { ...QUESTION, reference: 'e51', edited: ' bada.' };
    const path = file(QUESTION, '', second, 'never reached');
    expect(await readQuestions(path, 2)).toEqual([QUESTION, second]);
    expect(await readQuestions(path, 1)).toEqual([QUESTION]);
  });

  it.each([
    ['not JSON', '{"prompt": ', /the line is not JSON/],
    ['a missing field', { prompt: 'a', answer: 'b' }, /reference/],
    ['an empty field', { ...QUESTION, answer: '' }, /answer/],
    ['an unknown field', { ...QUESTION, answr: 'x' }, /answr/],
    ['another type', [1], /object/],
  ])('names the line with %s', async (_, line, message) => {
    const path = file(QUESTION, line);
    const error = await userErrorOf(readQuestions(path, 9));
    expect(error.code).toBe('input_invalid');
    expect(error.message).toContain(`${path}:2: `);
    expect(error.message).toMatch(message);
    expect(error.message).toContain('→');
  });

  it('names a file that is missing, empty or a folder', async () => {
    const path = file('', '');
    expect(await userErrorOf(readQuestions(path, 9))).toMatchObject({ code: 'input_empty' });
    const missing = await userErrorOf(readQuestions(`${path}.not`, 9));
    expect(missing).toMatchObject({ code: 'input_missing', message: expect.stringContaining(`${path}.not`) });
    const folder = temporaryFolder();
    const invalid = await userErrorOf(readQuestions(folder, 9));
    expect(invalid).toMatchObject({ code: 'input_invalid', message: expect.stringContaining(folder) });
  });
});
