/**
 * The flatbuffers in which Arrow describes its messages, as far as they must be looked at before the library decodes them:
 * it takes every length in them for true, and would fill the memory with what a damaged one promises.
 */

/** Of a description, 2^26 rows and 2^28 values of a list of lists are more than anyone writes in a batch. */
const MAX_ROWS = 2 ** 26;
const MAX_VALUES = 2 ** 28;
const MAX_DEPTH = 64;

/** Numbers of the fields, by the tables of Arrow's `Message.fbs`, `Schema.fbs` and `File.fbs`. */
const MESSAGE = { headerType: 1, header: 2, metadata: 4 };
const SCHEMA = { fields: 1, metadata: 2 };
const FIELD = { children: 5, metadata: 6 };
const BATCH = { length: 0, nodes: 1, buffers: 2, variadic: 4 };
const DICTIONARY = { data: 1 };
const FOOTER = { schema: 1 };
const HEADER = { schema: 1, dictionary: 2, batch: 3 };

/** A table of a flatbuffer; reading outside of it is a RangeError. */
class FlatTable {
  readonly #view: DataView;
  readonly position: number;

  constructor(view: DataView, position: number) {
    this.#view = view;
    this.position = position;
  }

  static root(bytes: Uint8Array): FlatTable {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return new FlatTable(view, view.getUint32(0, true));
  }

  /** Where the value of a field is; undefined for a field that is left out. */
  field(number: number): number | undefined {
    const entries = this.position - this.#view.getInt32(this.position, true);
    const entry = 4 + 2 * number;
    if (entry + 2 > this.#view.getUint16(entries, true)) return undefined;
    const offset = this.#view.getUint16(entries + entry, true);
    return offset === 0 ? undefined : this.position + offset;
  }

  byte(number: number): number {
    const at = this.field(number);
    return at === undefined ? 0 : this.#view.getUint8(at);
  }

  long(number: number): bigint {
    const at = this.field(number);
    return at === undefined ? 0n : this.#view.getBigInt64(at, true);
  }

  table(number: number): FlatTable | undefined {
    const at = this.field(number);
    return at === undefined ? undefined : new FlatTable(this.#view, at + this.#view.getUint32(at, true));
  }

  /** Begin and number of the elements, which lie inside of the bytes. */
  vector(number: number, elementBytes: number): { start: number; length: number } {
    const at = this.field(number);
    if (at === undefined) return { start: 0, length: 0 };
    const start = at + this.#view.getUint32(at, true) + 4;
    const length = this.#view.getUint32(start - 4, true);
    if (start + length * elementBytes > this.#view.byteLength) throw new RangeError(`a list of ${length} elements`);
    return { start, length };
  }

  tables(number: number): FlatTable[] {
    const { start, length } = this.vector(number, 4);
    return Array.from({ length }, (_, i) => {
      const at = start + 4 * i;
      return new FlatTable(this.#view, at + this.#view.getUint32(at, true));
    });
  }

  longAt(position: number): bigint {
    return this.#view.getBigInt64(position, true);
  }
}

/** @throws RangeError for a description that promises more than there can be */
export function checkMessage(bytes: Uint8Array): void {
  const message = FlatTable.root(bytes);
  message.vector(MESSAGE.metadata, 4);
  const header = message.table(MESSAGE.header);
  if (!header) return;
  const type = message.byte(MESSAGE.headerType);
  if (type === HEADER.schema) checkSchema(header);
  const batch = type === HEADER.dictionary ? header.table(DICTIONARY.data) : header;
  if (batch && (type === HEADER.dictionary || type === HEADER.batch)) checkBatch(batch);
}

function checkSchema(schema: FlatTable): void {
  schema.vector(SCHEMA.metadata, 4);
  for (const field of schema.tables(SCHEMA.fields)) checkField(field, 0);
}

function checkField(field: FlatTable, depth: number): void {
  if (depth > MAX_DEPTH) throw new RangeError('columns too deep in columns');
  field.vector(FIELD.metadata, 4);
  for (const child of field.tables(FIELD.children)) checkField(child, depth + 1);
}

function checkBatch(batch: FlatTable): void {
  batch.vector(BATCH.buffers, 16);
  batch.vector(BATCH.variadic, 8);
  const rows = batch.long(BATCH.length);
  if (rows < 0 || rows > MAX_ROWS) throw new RangeError(`a batch of ${rows} rows`);
  const { start, length } = batch.vector(BATCH.nodes, 16);
  for (let at = start; at < start + 16 * length; at += 16) {
    const [values, nulls] = [batch.longAt(at), batch.longAt(at + 8)];
    if (values < 0 || values > MAX_VALUES || nulls < 0 || nulls > values) {
      throw new RangeError(`a column of ${values} values, ${nulls} of them null`);
    }
  }
}

/**
 * The description of a message that has the schema of a file's directory: a message in front of it that points into it.
 * @throws RangeError
 */
export function schemaOfDirectory(directory: Uint8Array): Uint8Array {
  const schema = FlatTable.root(directory).table(FOOTER.schema);
  if (!schema) throw new RangeError('a directory without schema');
  // Root at 0, the list of the table's fields at 4 (version, header type, header), the table at 16.
  const front = 32;
  const bytes = new Uint8Array(Math.ceil((front + directory.length) / 8) * 8);
  bytes.set(directory, front);
  const view = new DataView(bytes.buffer);
  const [fields, table] = [4, 16];
  view.setUint32(0, table, true);
  for (const [i, value] of [10, 12, 4, 6, 8].entries()) view.setUint16(fields + 2 * i, value, true);
  view.setInt32(table, table - fields, true);
  view.setUint16(table + 4, METADATA_V5, true);
  view.setUint8(table + 6, HEADER.schema);
  view.setUint32(table + 8, front + schema.position - (table + 8), true);
  return bytes;
}

const METADATA_V5 = 4;
