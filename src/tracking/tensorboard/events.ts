/**
 * What TensorBoard reads: `Event` messages (tensorflow/core/util/event.proto, framework/summary.proto). A row is one event
 * with a value a name, so that it is in a file whole or not at all.
 */

import { heatMapPng } from '../png.ts';
import { bytesField, doubleField, doublesField, floatField, message, varintField } from '../protobuf.ts';
import type { Histogram, Image, MetricsRow, MetricValue, Retrievals } from '../values.ts';

const EVENT = { wallTime: 1, step: 2, fileVersion: 3, summary: 5 };
const VALUE = { tag: 1, number: 2, image: 4, histogram: 5, tensor: 8, metadata: 9 };
const SUMMARY_VALUE = 1;
const TENSOR = { type: 1, shape: 2, strings: 8 };
const STRING_TYPE = 7;
const RGB = 3;

/** The event that begins every file. @param time seconds since 1970, as everywhere here */
export function versionEvent(time: number): Buffer {
  return event(time, 0, bytesField(EVENT.fileVersion, 'brain.Event:2'));
}

/** An event of some values; a value that is null stands for a number that was not finite. */
export function valuesEvent(time: number, step: number, values: MetricsRow): Buffer {
  const fields = Object.entries(values).map(([name, value]) =>
    bytesField(SUMMARY_VALUE, message(bytesField(VALUE.tag, name), ...valueFields(value))),
  );
  return event(time, step, bytesField(EVENT.summary, message(...fields)));
}

/** Time and step of an event as written here; undefined for other bytes. */
export function readEventHead(bytes: Uint8Array): { time: number; step: number } | undefined {
  if (bytes.length < 11 || bytes[0] !== EVENT.wallTime * 8 + 1 || bytes[9] !== EVENT.step * 8) return undefined;
  const time = new DataView(bytes.buffer, bytes.byteOffset).getFloat64(1, true);
  let step = 0;
  for (let i = 10, unit = 1; i < bytes.length && i < 20; i++, unit *= 128) {
    step += (bytes[i]! & 127) * unit;
    if (bytes[i]! < 128) return { time, step };
  }
  return undefined;
}

function event(time: number, step: number, content: Uint8Array): Buffer {
  return message(doubleField(EVENT.wallTime, time), varintField(EVENT.step, step), content);
}

function valueFields(value: MetricValue): Buffer[] {
  if (value === null) return [floatField(VALUE.number, Number.NaN)];
  if (typeof value === 'string') return text(asPlainText(value));
  if (typeof value !== 'object') return [floatField(VALUE.number, Number(value))];
  switch (value.type) {
    case 'histogram':
      return [bytesField(VALUE.histogram, histogram(value))];
    case 'image':
      return [bytesField(VALUE.image, image(value))];
    case 'text':
      return text(asPlainText(value.text));
    case 'retrievals':
      return text(value.chunks.map(describeChunk).join('\n\n'));
  }
}

/** Sum and sum of squares are those of values in the middle of their intervals. */
function histogram({ edges, counts }: Histogram): Buffer {
  const first = Math.max(
    0,
    counts.findIndex((count) => count > 0),
  );
  const last = Math.max(
    first,
    counts.findLastIndex((count) => count > 0),
  );
  const [num, sum, squares] = counts.reduce(
    ([num, sum, squares], count, i) => {
      const middle = (edges[i]! + edges[i + 1]!) / 2;
      return [num + count, sum + count * middle, squares + count * middle * middle];
    },
    [0, 0, 0],
  );
  return message(
    doubleField(1, edges[first] ?? 0),
    doubleField(2, edges[last + 1] ?? 0),
    doubleField(3, num),
    doubleField(4, sum),
    doubleField(5, squares),
    // The right edge of each interval.
    doublesField(6, edges.slice(1)),
    doublesField(7, counts),
  );
}

function image(value: Image): Buffer {
  const { png, width, height } = heatMapPng(value);
  return message(varintField(1, height), varintField(2, width), varintField(3, RGB), bytesField(4, png));
}

/** A tensor that holds one text, for the plugin that shows texts. */
function text(markdown: string): Buffer[] {
  const shapeOfOne = message();
  const tensor = message(
    varintField(TENSOR.type, STRING_TYPE),
    bytesField(TENSOR.shape, shapeOfOne),
    bytesField(TENSOR.strings, markdown),
  );
  return [bytesField(VALUE.metadata, bytesField(1, bytesField(1, 'text'))), bytesField(VALUE.tensor, tensor)];
}

function describeChunk({ text, memories }: Retrievals['chunks'][number]): string {
  const lines = memories.map(({ id, score }) => `${id}${score === undefined ? '' : `  ${score.toFixed(4)}`}`);
  return asPlainText([text, ...lines.map((line) => `← ${line}`)].join('\n'));
}

/** TensorBoard takes texts for Markdown; indented, they are shown as they are. */
function asPlainText(text: string): string {
  return text
    .split(/\r?\n|\r/)
    .map((line) => `    ${line}`)
    .join('\n');
}
