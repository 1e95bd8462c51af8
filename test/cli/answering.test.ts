import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { printSources, printTrace } from '../../src/cli/answering.ts';
import type { Answer, UsedMemory } from '../../src/infer/generate.ts';

let written = '';
beforeEach(() => {
  written = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    written += String(text);
    return true;
  });
});
afterEach(() => vi.restoreAllMocks());

function memory(id: string, share: number, title = ''): UsedMemory {
  return { id, document: `doc-${id}`, title, text: `text of ${id}`, score: 0.5, share, keptTokens: ['a', ' b'] };
}

const ANSWER: Answer = {
  text: 'answer',
  promptTokens: 3,
  generatedTokens: 1,
  trace: [
    { text: 'one\ntwo', memories: [memory('m1', 0.125), memory('m2', 0.25, 'Title')] },
    { text: 'three', memories: [memory('m1', 0.5)] },
    { text: 'four', memories: [] },
  ],
  stored: [],
};

describe('printSources', () => {
  it('names each memory once, with its largest share, the most looked at first', () => {
    printSources(ANSWER);
    expect(written).toBe(
      '\nsources:\n' +
        '  m1  doc-m1  attention 50.0 %, similarity 0.50\n    text of m1\n' +
        '  m2  Title (doc-m2)  attention 25.0 %, similarity 0.50\n    text of m2\n',
    );
  });

  it('says nothing when no memory was read', () => {
    printSources({ ...ANSWER, trace: [{ text: 'x', memories: [] }] });
    expect(written).toBe('');
  });
});

it('printTrace shows each chunk with its memories and their kept tokens', () => {
  printTrace(ANSWER);
  expect(written).toContain('\nchunk 0: "one\\ntwo"\n  m1  doc-m1  attention 12.5 %');
  expect(written).toContain('\nchunk 1: "three"\n  m1  doc-m1  attention 50.0 %');
  expect(written).toContain('\nchunk 2: "four"\n  no memories\n');
  expect(written).toContain('    kept tokens: a| b\n');
});
