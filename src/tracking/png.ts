/** Pictures in PNG (W3C, third edition): true colour with 8 bits, one filter, one chunk of data. */

import { crc32, deflateSync } from 'node:zlib';
import { colourOf } from './colours.ts';
import type { Image } from './values.ts';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const TRUE_COLOUR = 2;
/** A heat map is drawn about this wide or high, in pixels. */
const PICTURE_PIXELS = 256;

/** @param rgb row after row from the top, `[height · width · 3]` */
export function encodePng(width: number, height: number, rgb: Uint8Array): Buffer {
  if (!(width > 0 && height > 0) || rgb.length !== width * height * 3) {
    throw new RangeError(`${rgb.length} bytes are no picture of ${width} × ${height} in RGB`);
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, TRUE_COLOUR, 0, 0, 0], 8);
  // Each row begins with the number of its filter, here 0: none.
  const rows = Buffer.alloc(height * (1 + width * 3));
  for (let y = 0; y < height; y++) {
    rows.set(rgb.subarray(y * width * 3, (y + 1) * width * 3), y * (1 + width * 3) + 1);
  }
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(rows)),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/**
 * An image as a picture, a square a value.
 * @param scale pixels of a square's side; without it, as many as make a picture of about 256 pixels
 */
export function heatMapPng(image: Image, scale = fittingScale(image)): { png: Buffer; width: number; height: number } {
  const { width, height, values, range } = image;
  const rgb = new Uint8Array(width * height * scale * scale * 3);
  const line = width * scale * 3;
  for (let y = 0; y < height; y++) {
    const start = y * scale * line;
    for (let x = 0; x < width * scale; x++) {
      rgb.set(colourOf(values[y * width + Math.floor(x / scale)] ?? null, range), start + x * 3);
    }
    for (let copy = 1; copy < scale; copy++) rgb.copyWithin(start + copy * line, start, start + line);
  }
  return { png: encodePng(width * scale, height * scale, rgb), width: width * scale, height: height * scale };
}

function fittingScale({ width, height }: Image): number {
  return Math.max(1, Math.floor(PICTURE_PIXELS / Math.max(width, height)));
}

function chunk(type: string, data: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const crc = Buffer.alloc(4);
  crc.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, crc]);
}
