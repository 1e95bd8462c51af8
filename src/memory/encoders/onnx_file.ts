/** What an `.onnx` file says of the files beside it: large models keep their weights there. */

import { UserError } from '../../errors.ts';

/** The messages of the format (onnx.proto) that lead to weights: number of a field → message that it holds. */
const PARTS: Record<string, Record<number, string>> = {
  model: { 7: 'graph', 25: 'function' },
  graph: { 1: 'node', 5: 'tensor' },
  function: { 7: 'node' },
  node: { 5: 'attribute' },
  attribute: { 5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph' },
  tensor: { 13: 'entry' },
};
const [VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES] = [0, 1, 2, 5];

/**
 * The files that the weights of a model lie in besides its own, as it names them: relative to its folder, sorted.
 * @param bytes the `.onnx` file
 * @param path for messages
 * @throws UserError input_invalid when this is no ONNX file
 */
export function weightFiles(bytes: Uint8Array, path: string): string[] {
  try {
    const found = new Set<string>();
    collect(bytes, 'model', found);
    return [...found].sort();
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const action = 'give a model in the ONNX format under retrieval.onnx.model';
    throw new UserError('input_invalid', { where: path, what: 'the file is not an ONNX model', action, cause });
  }
}

function collect(bytes: Uint8Array, message: string, found: Set<string>): void {
  if (message === 'entry') {
    const [key, value] = keyAndValue(bytes);
    if (key === 'location' && value !== undefined) found.add(value);
    return;
  }
  for (const { number, content } of fields(bytes)) {
    const part = PARTS[message]?.[number];
    if (part !== undefined && content !== undefined) collect(content, part, found);
  }
}

function keyAndValue(bytes: Uint8Array): (string | undefined)[] {
  const texts: (string | undefined)[] = [];
  for (const { number, content } of fields(bytes)) texts[number - 1] = new TextDecoder().decode(content);
  return texts;
}

/** The fields of a protobuf message; `content` of those that have a length. @throws RangeError when it is none */
function* fields(bytes: Uint8Array): Generator<{ number: number; content?: Uint8Array }> {
  let at = 0;
  const varint = (): number => {
    for (let [value, scale] = [0, 1]; at < bytes.length; scale *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new RangeError('a number is cut off');
  };
  while (at < bytes.length) {
    const tag = varint();
    const [number, kind] = [Math.floor(tag / 8), tag % 8];
    if (kind === VARINT) varint();
    else if (kind === EIGHT_BYTES) at += 8;
    else if (kind === FOUR_BYTES) at += 4;
    else if (kind !== LENGTH || number === 0) throw new RangeError(`field ${number} is of kind ${kind}`);
    const length = kind === LENGTH ? varint() : 0;
    if (at + length > bytes.length) throw new RangeError(`field ${number} is cut off`);
    yield kind === LENGTH ? { number, content: bytes.subarray(at, at + length) } : { number };
    at += length;
  }
}
