/**
 * Configuration values that remember where they were written: read from YAML, merged, overridden.
 * A place is `file:line:column` or `--set path`.
 */

import { readFile, stat } from 'node:fs/promises';
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { isSystemError, UserError } from '../errors.ts';

/** A value and the place that set it. */
export interface Located {
  place: string;
  value: string | number | boolean | null | Located[] | Map<string, LocatedEntry>;
}

interface LocatedEntry {
  keyPlace: string;
  node: Located;
}

/** A parsed text; `root` is undefined when the syntax is too broken to go on. */
export interface ParsedSource {
  root: Located | undefined;
  problems: string[];
}

const MAX_BYTES = 1 << 20;
const MAX_NODES = 10_000;

/**
 * The text of a configuration file.
 * @throws UserError input_missing, or input_invalid for what cannot be a configuration file
 */
export async function readSource(path: string): Promise<string> {
  const invalid = (what: string, cause?: unknown) =>
    new UserError('input_invalid', { where: path, what, action: 'give a YAML configuration file', cause });
  try {
    const info = await stat(path);
    if (!info.isFile()) throw invalid('is not a file');
    if (info.size > MAX_BYTES) throw invalid('is larger than 1 MiB and cannot be a configuration');
    return new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path));
  } catch (error) {
    if (error instanceof UserError) throw error;
    if (error instanceof TypeError) throw invalid('is not UTF-8 text', error);
    if (!isSystemError(error)) throw error;
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') {
      const action = 'check the path, or start from one of the files in configs/';
      throw new UserError('input_missing', { where: path, what: 'the configuration file does not exist', action });
    }
    throw invalid(`cannot be read (${error.code})`, error);
  }
}

/**
 * Parses YAML 1.2 into located values.
 * @param fixedPlace the place of everything in the text, instead of `name:line:column`
 */
export function parseSource(name: string, text: string, fixedPlace?: string): ParsedSource {
  const lines = new LineCounter();
  const placeAt = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return fixedPlace ?? `${name}:${Math.max(line, 1)}:${Math.max(col, 1)}`;
  };
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true });
  const problems = new Set<string>();
  for (const { code, pos, message } of [...document.errors, ...document.warnings]) {
    problems.add(`${placeAt(pos[0])}: ${syntaxProblem(code, message, keyText(text, pos[0]))}`);
  }
  const usable = document.errors.every(({ code }) => code === 'DUPLICATE_KEY');
  return usable ? locate(document, placeAt, [...problems]) : { root: undefined, problems: [...problems] };
}

function syntaxProblem(code: string, message: string, key: string): string {
  if (code === 'DUPLICATE_KEY') return `the key ${key} is there twice`;
  if (code === 'MULTIPLE_DOCS') return 'holds more than one YAML document';
  if (message.includes('call stack')) return 'not valid YAML: nested too deeply';
  return `not valid YAML: ${message.trim().split('\n')[0]}`;
}

function keyText(text: string, offset: number): string {
  return /^(?:"[^"\n]*"|'[^'\n]*'|[^\s:]+)/.exec(text.slice(offset))?.[0] ?? '';
}

function locate(document: Document.Parsed, placeAt: (offset: number) => string, problems: string[]): ParsedSource {
  const open = new Set<Node>();
  let count = 0;
  const placeOf = (node: Node | null) => placeAt(node?.range?.[0] ?? 0);

  const convert = (node: Node | null, fallback: string): Located => {
    const place = node?.range ? placeOf(node) : fallback;
    if (++count > MAX_NODES) throw new RangeError('too many values');
    if (isAlias(node)) {
      const target = node.resolve(document);
      if (!target || open.has(target)) {
        problems.push(`${place}: the alias *${node.source} ${target ? 'contains itself' : 'has no anchor'}`);
        return { place, value: null };
      }
      return { ...convert(target, place), place };
    }
    if (node) open.add(node);
    const value = convertValue(node, place);
    if (node) open.delete(node);
    return { place, value };
  };

  const convertValue = (node: Node | null, place: string): Located['value'] => {
    if (isMap<Node, Node | null>(node)) {
      return new Map(
        node.items.map(({ key, value }) => {
          const keyPlace = placeOf(key);
          return [String(isScalar(key) ? key.value : key), { keyPlace, node: convert(value, keyPlace) }];
        }),
      );
    }
    if (isSeq<Node | null>(node)) return node.items.map((item) => convert(item, place));
    return isScalar(node) ? (node.value as string | number | boolean | null) : null;
  };

  try {
    return { root: convert(document.contents, placeAt(0)), problems };
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return { root: undefined, problems: [...problems, `${placeAt(0)}: holds more than ${MAX_NODES} values`] };
  }
}

/** `over` laid on `base`: mappings are merged key by key, everything else is replaced. */
export function merge(base: Located | undefined, over: Located): Located {
  if (!(base?.value instanceof Map && over.value instanceof Map)) return over;
  const merged = new Map(base.value);
  for (const [key, entry] of over.value) {
    merged.set(key, { keyPlace: entry.keyPlace, node: merge(merged.get(key)?.node, entry.node) });
  }
  return { place: over.place, value: merged };
}

/**
 * `root` with the value at `path` overridden; a part of the path that names an item of a list is its number.
 * @throws RangeError when the list has no such item
 */
export function override(root: Located | undefined, path: readonly string[], value: Located): Located {
  const [part, ...rest] = path;
  if (part === undefined) return merge(root, value);
  if (Array.isArray(root?.value)) {
    const index = Number(part);
    const item = root.value[index];
    if (!item) throw new RangeError(`the list has no item ${part}, its length is ${root.value.length}`);
    return { place: root.place, value: root.value.with(index, override(item, rest, value)) };
  }
  const mapping = root?.value instanceof Map ? root.value : undefined;
  const node = override(mapping?.get(part)?.node, rest, value);
  const entries = new Map(mapping).set(part, { keyPlace: value.place, node });
  return { place: mapping && root ? root.place : value.place, value: entries };
}

/** The plain value, without places. */
export function plain({ value }: Located): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, { node }]) => [key, plain(node)]));
  return value;
}

/** Where the value at `path` was set; `exact` is false when only a part of the path is there. */
export function placeOf(root: Located, path: readonly PropertyKey[], of: 'key' | 'value') {
  let place = root.place;
  let node = root;
  for (const [depth, part] of path.entries()) {
    const entry = node.value instanceof Map ? node.value.get(String(part)) : undefined;
    const next = entry?.node ?? (Array.isArray(node.value) ? node.value[Number(part)] : undefined);
    if (!next) return { place, exact: false };
    place = of === 'key' && depth === path.length - 1 && entry ? entry.keyPlace : next.place;
    node = next;
  }
  return { place, exact: true };
}
