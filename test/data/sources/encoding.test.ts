import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeText } from '../../../src/data/sources/encoding.ts';
import { anyCharacter, temporaryFolder } from '../support.ts';
import { file, read, textsOf } from './support.ts';

/** 你好，世界。 in GB 18030. */
const CHINESE = Buffer.from('c4e3bac3a3accac0bde7a1a3', 'hex');

function utf16be(text: string): Buffer {
  return Buffer.from(`\ufeff${text}`, 'utf16le').swap16();
}

describe('decodeText', () => {
  it('tells encodings apart', () => {
    expect(decodeText(Buffer.from('héllo 你好'))).toBe('héllo 你好');
    expect(decodeText(Buffer.from('\ufeffhéllo'))).toBe('héllo');
    expect(decodeText(Buffer.from('\ufeffhéllo', 'utf16le'))).toBe('héllo');
    expect(decodeText(utf16be('héllo'))).toBe('héllo');
    expect(decodeText(CHINESE)).toBe('你好，世界。');
    expect(decodeText(Buffer.from('Grüße, übermäßig schön', 'latin1'))).toBe('Grüße, übermäßig schön');
    expect(decodeText(Buffer.from([0x93, 0x80, 0x31, 0x94]))).toBe('“€1”');
    expect(decodeText(Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00]))).toBeUndefined();
    expect(decodeText(Buffer.alloc(0))).toBe('');
  });

  it('takes the encoding that it is told', () => {
    expect(decodeText(CHINESE, 'windows-1252')).toBe('ÄãºÃ£¬ÊÀ½ç¡£');
    expect(decodeText(CHINESE, 'gb18030')).toBe('你好，世界。');
    expect(decodeText(CHINESE, 'utf-8')).toBeUndefined();
    expect(decodeText(Buffer.from([0xc4]), 'gb18030')).toBeUndefined();
    expect(decodeText(Buffer.from('hé', 'utf16le'), 'utf-16le')).toBe('hé');
    expect(decodeText(utf16be('hé'), 'utf-16be')).toBe('hé');
    expect(decodeText(Buffer.from([0x00, 0xd8]), 'utf-16le')).toBeUndefined();
  });

  it('reads any text in UTF-8', () => {
    fc.assert(
      fc.property(fc.string({ unit: anyCharacter }), (text) => {
        expect(decodeText(Buffer.from(text))).toBe(text.replace(/^\ufeff/, ''));
      }),
    );
  });
});

it('text files are read in the encoding of their source', async () => {
  const path = file(temporaryFolder(), 'a.txt', CHINESE);
  expect(textsOf((await read(path)).documents)).toEqual(['你好，世界。']);
  expect(textsOf((await read(path, { encoding: 'windows-1252' })).documents)).toEqual(['ÄãºÃ£¬ÊÀ½ç¡£']);
  expect((await read(path, { encoding: 'utf-8' })).counters.skipped).toEqual({ 'invalid UTF-8': 1 });
  expect((await read(path, { encoding: 'utf-16le' })).counters.skipped).toEqual({});
  const binary = file(temporaryFolder(), 'b.txt', Buffer.from([0xff, 0x00, 0x01]));
  expect((await read(binary)).counters.skipped).toEqual({ 'unknown encoding': 1 });
});
