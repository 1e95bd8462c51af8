/**
 * A page of a flat Parquet column, decoded by hyparquet after what it takes for true has been checked: it would repeat the
 * value of a run as often as the run says, and a damaged one may say two thousand million.
 */

import { readPage } from 'hyparquet/src/column.js';
import { decompressPage } from 'hyparquet/src/datapage.js';
import type { ColumnDecoder, DecodedArray, PageHeader } from 'hyparquet/src/types.js';

/** Groups of eight values that writers fill up to at the end of a page. */
const PADDING = 512;

/** @throws Error of any kind where the bytes are not what they should be */
export function decodePage(
  header: PageHeader,
  body: Uint8Array,
  decoder: ColumnDecoder,
  dictionary: DecodedArray | undefined,
): DecodedArray {
  const page = header.data_page_header_v2 ? uncompressedV2(header, body, decoder) : uncompressed(header, body, decoder);
  if (header.type !== 'DICTIONARY_PAGE') checkRuns(header, page, decoder);
  const size = page.length;
  const v2 = header.data_page_header_v2 && { ...header.data_page_header_v2, is_compressed: false };
  const plain: PageHeader = {
    ...header,
    compressed_page_size: size,
    uncompressed_page_size: size,
    data_page_header_v2: v2,
  };
  const reader = { view: new DataView(page.buffer, page.byteOffset, size), offset: 0 };
  return readPage(reader, plain, { ...decoder, codec: 'UNCOMPRESSED' }, dictionary, undefined, 0).data ?? [];
}

function uncompressed(header: PageHeader, body: Uint8Array, { codec, compressors }: ColumnDecoder): Uint8Array {
  return decompressPage(body, header.uncompressed_page_size, codec, compressors);
}

/** Of a page of version 2 the levels, which are in front, are never compressed. */
function uncompressedV2(header: PageHeader, body: Uint8Array, { codec, compressors }: ColumnDecoder): Uint8Array {
  const { definition_levels_byte_length, repetition_levels_byte_length, is_compressed } = header.data_page_header_v2!;
  const levels = definition_levels_byte_length + repetition_levels_byte_length;
  const size = header.uncompressed_page_size - levels;
  if (!(levels >= 0 && levels <= body.length && size >= 0)) throw new RangeError(`levels of ${levels} bytes`);
  if (is_compressed === false || size === 0) return body;
  const values = decompressPage(body.subarray(levels), size, codec, compressors);
  return Buffer.concat([body.subarray(0, levels), values]);
}

/** The runs of the definition levels (which say what is null), then those of the places in a dictionary. */
function checkRuns(header: PageHeader, page: Uint8Array, { element }: ColumnDecoder): void {
  const { num_values: count, encoding } = (header.data_page_header ?? header.data_page_header_v2)!;
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  const v2 = header.data_page_header_v2;
  let at = v2?.repetition_levels_byte_length ?? 0;
  if (element.repetition_type !== 'REQUIRED') {
    const length = v2 ? v2.definition_levels_byte_length : view.getUint32(0, true);
    at += v2 ? 0 : 4;
    if (at + length > page.length) throw new RangeError(`levels of ${length} bytes`);
    checkRunsOf(view, at, at + length, 1, count);
    at += length;
  }
  if (encoding !== 'PLAIN_DICTIONARY' && encoding !== 'RLE_DICTIONARY') return;
  // There may be fewer values than the count, which has the nulls too; a run that goes on is then cut by the page's end.
  if (at < page.length) checkRunsOf(view, at + 1, page.length, view.getUint8(at), count);
}

/** Runs of a repeated value, and of packed ones in groups of eight, each behind its length (Parquet's RLE hybrid). */
function checkRunsOf(view: DataView, start: number, end: number, width: number, count: number): void {
  if (width > 32) throw new RangeError(`values of ${width} bits`);
  let at = start;
  for (let seen = 0; seen < count && at < end; ) {
    let run = 0;
    for (let shift = 0, byte = 0x80; byte >= 0x80; shift += 7) {
      byte = view.getUint8(at);
      at += 1;
      run += (byte & 0x7f) * 2 ** shift;
    }
    const packed = run % 2 === 1;
    const values = Math.floor(run / 2) * (packed ? 8 : 1);
    if (seen + values > count + (packed ? PADDING : 0)) throw new RangeError(`a run of ${values} values of ${count}`);
    at += packed ? (values / 8) * width : Math.ceil(width / 8);
    seen += values;
  }
}
