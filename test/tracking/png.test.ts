import { inflateSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { colourOf, NO_VALUE } from '../../src/tracking/colours.ts';
import { encodePng, heatMapPng } from '../../src/tracking/png.ts';

/** Reads what the encoder writes, from the standard: its CRC is computed bit by bit. */
function decode(png: Buffer): { width: number; height: number; rgb: Uint8Array } {
  expect(png.toString('latin1', 0, 8)).toBe('\x89PNG\r\n\x1a\n');
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const type = png.toString('latin1', at + 4, at + 8);
    expect(png.readUInt32BE(at + 8 + length)).toBe(slowCrc(png.subarray(at + 4, at + 8 + length)));
    chunks.set(type, png.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  expect([...chunks.keys()]).toEqual(['IHDR', 'IDAT', 'IEND']);
  const header = chunks.get('IHDR')!;
  expect([...header.subarray(8)]).toEqual([8, 2, 0, 0, 0]);
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  const rows = inflateSync(chunks.get('IDAT')!);
  expect(rows.length).toBe(height * (width * 3 + 1));
  const rgb = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const start = y * (width * 3 + 1);
    expect(rows[start]).toBe(0);
    rgb.set(rows.subarray(start + 1, start + 1 + width * 3), y * width * 3);
  }
  return { width, height, rgb };
}

function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

test('any picture comes back', () => {
  const picture = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 })).chain(([width, height]) =>
    fc.record({
      width: fc.constant(width),
      height: fc.constant(height),
      rgb: fc.uint8Array({ minLength: width * height * 3, maxLength: width * height * 3 }),
    }),
  );
  fc.assert(
    fc.property(picture, ({ width, height, rgb }) => {
      expect(decode(encodePng(width, height, rgb))).toEqual({ width, height, rgb });
    }),
  );
});

test.each([
  [0, 1, 0],
  [2, 2, 11],
])('%d × %d of %d bytes is refused', (width, height, bytes) => {
  expect(() => encodePng(width, height, new Uint8Array(bytes))).toThrow(RangeError);
});

test('a heat map has a square a value', () => {
  const image = { type: 'image' as const, width: 2, height: 1, values: [0, 5], range: [0, 5] as [number, number] };
  const drawn = heatMapPng({ ...image, labels: ['head', 'layer'] }, 2);
  const { width, height, rgb } = decode(drawn.png);
  expect([width, height]).toEqual([4, 2]);
  expect([drawn.width, drawn.height]).toEqual([4, 2]);
  const [low, high] = [colourOf(0, [0, 5]), colourOf(5, [0, 5])];
  expect([...rgb]).toEqual([low, low, high, high, low, low, high, high].flat());
  const fitted = heatMapPng({ ...image, labels: ['head', 'layer'] });
  expect([fitted.width, fitted.height]).toEqual([256, 128]);
});

test('a value that is missing or not finite is grey', () => {
  const image = {
    type: 'image' as const,
    width: 2,
    height: 1,
    values: [Number.NaN],
    range: [0, 1] as [number, number],
  };
  const { rgb } = decode(heatMapPng({ ...image, labels: ['x', 'y'] }, 1).png);
  expect([...rgb]).toEqual([...NO_VALUE, ...NO_VALUE]);
});

test('lightness of the colours rises in even steps (CIE L*)', () => {
  const lightness = Array.from({ length: 33 }, (_, i) => {
    const [r, g, b] = colourOf(i, [0, 32]).map((byte) =>
      byte <= 10 ? byte / 255 / 12.92 : ((byte / 255 + 0.055) / 1.055) ** 2.4,
    );
    const luminance = 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
    return 116 * (luminance > 0.008856 ? Math.cbrt(luminance) : 7.787 * luminance + 16 / 116) - 16;
  });
  const steps = lightness.slice(1).map((value, i) => value - lightness[i]!);
  expect(lightness[0]).toBeLessThan(12);
  expect(lightness.at(-1)).toBeGreaterThan(90);
  expect(Math.min(...steps)).toBeGreaterThan(1.5);
  expect(Math.max(...steps)).toBeLessThan(4);
});

test('values outside of the range and a range of no width', () => {
  expect(colourOf(-3, [0, 1])).toEqual(colourOf(0, [0, 1]));
  expect(colourOf(7, [0, 1])).toEqual(colourOf(1, [0, 1]));
  expect(colourOf(7, [7, 7])).toEqual(colourOf(0.5, [0, 1]));
});
