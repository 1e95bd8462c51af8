/** LZ4 frames, as in compressed Arrow buffers (https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md). */

const MAGIC = 0x184d2204;

/** What has come out so far; matches reach back into it. */
class Output {
  bytes: Uint8Array;
  length = 0;

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity);
  }

  /** Makes room for `count` more bytes. */
  reserve(count: number): void {
    if (this.length + count <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.bytes.length, this.length + count));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
  }

  append(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** Repeats `count` bytes from `distance` back; they may overlap what they make. */
  repeat(distance: number, count: number): void {
    if (distance === 0 || distance > this.length) throw new RangeError('LZ4: a match before the beginning');
    this.reserve(count);
    const from = this.length - distance;
    if (distance >= count) this.bytes.copyWithin(this.length, from, from + count);
    else for (let i = 0; i < count; i += 1) this.bytes[this.length + i] = this.bytes[from + i]!;
    this.length += count;
  }
}

/** Checksums are not checked. @throws RangeError (damaged, or ends too early) */
export function decompressLz4Frame(frame: Uint8Array): Uint8Array {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (view.getUint32(0, true) !== MAGIC) throw new RangeError('LZ4: no frame');
  const flags = view.getUint8(4);
  const [blockChecksum, contentSize, dictionary] = [flags & 0x10, flags & 0x08, flags & 0x01];
  if (dictionary) throw new RangeError('LZ4: a frame with a dictionary');
  let at = 7 + (contentSize ? 8 : 0);
  const output = new Output(4 * frame.length);
  for (;;) {
    const size = view.getUint32(at, true);
    at += 4;
    if (size === 0) return output.bytes.subarray(0, output.length);
    const block = frame.subarray(at, at + (size & 0x7fff_ffff));
    if (block.length < (size & 0x7fff_ffff)) throw new RangeError('LZ4: the frame ends too early');
    if (size >>> 31) output.append(block);
    else decompressBlock(block, output);
    at += block.length + (blockChecksum ? 4 : 0);
  }
}

/** Sequences of literals and a match; the last one has literals only. */
function decompressBlock(block: Uint8Array, output: Output): void {
  let at = 0;
  const byte = () => {
    const value = block[at];
    if (value === undefined) throw new RangeError('LZ4: a block ends too early');
    at += 1;
    return value;
  };
  const lengthFrom = (nibble: number) => {
    let length = nibble;
    for (let more = nibble === 15; more; ) {
      const next = byte();
      length += next;
      more = next === 255;
    }
    return length;
  };
  while (at < block.length) {
    const token = byte();
    const literals = lengthFrom(token >> 4);
    if (at + literals > block.length) throw new RangeError('LZ4: a block ends too early');
    output.append(block.subarray(at, at + literals));
    at += literals;
    if (at === block.length) return;
    const distance = byte() | (byte() << 8);
    output.repeat(distance, lengthFrom(token & 15) + 4);
  }
}
