/**
 * One YAML file (with `extends`) and `--set a.b=c` overrides → one typed run configuration, or every problem in it at
 * once, each with the place that set it and the values that are allowed.
 */

import { dirname, isAbsolute, join, normalize, resolve } from 'node:path';
import { stringify } from 'yaml';
import type { z } from 'zod';
import { UserError } from '../errors.ts';
import { sha256 } from '../io/files.ts';
import { crossFieldProblems } from './check.ts';
import { allowedValues, fieldAt, pathsEndingIn } from './describe.ts';
import { type RunConfig, runSchema } from './schema.ts';
import { type Located, merge, override, parseSource, placeOf, plain, readSource } from './source.ts';
import { nearest } from './suggest.ts';

export interface LoadedConfig {
  config: RunConfig;
  /** The files that were read, in the order in which they apply: what is extended before what extends it. */
  sources: string[];
}

/** What has been read so far. `complete` turns false when a part could not be read, so that something may be missing. */
interface Reading {
  root: Located | undefined;
  sources: string[];
  problems: string[];
  complete: boolean;
}

/**
 * Reads a run configuration.
 * @param path a YAML 1.2 file; its key `extends` names a file, relative to it, that it is laid over: mappings are
 *   merged, everything else is replaced
 * @param options.set overrides `a.b=c`, applied in order; the value is YAML
 * @throws UserError config_invalid with every problem, one a line: `file:line:column path: what (allowed: …)`
 * @throws UserError input_missing or input_invalid when `path` itself cannot be read
 */
export async function loadConfig(path: string, options: { set?: readonly string[] } = {}): Promise<LoadedConfig> {
  const text = await readSource(path);
  const reading: Reading = { root: undefined, sources: [], problems: [], complete: true };
  await readChain(reading, path, text, []);
  for (const assignment of options.set ?? []) applySet(reading, assignment);

  const root = reading.root ?? { place: `${path}:1:1`, value: new Map() };
  const value = plain(root);
  const parsed = runSchema.safeParse(value, { reportInput: true });
  const found = parsed.success
    ? { lines: [], faulty: [] }
    : schemaProblems(root, parsed.error.issues, reading.complete);
  const problems = [...reading.problems, ...found.lines];
  if (reading.complete) problems.push(...crossProblems(root, value, found.faulty));
  if (problems.length > 0 || !parsed.success) {
    const action = 'docs/config.md lists every key with its allowed values';
    throw new UserError('config_invalid', { what: problems.join('\n'), action });
  }
  return { config: parsed.data, sources: reading.sources };
}

/** Lays the file over what it extends. `above` are the files that led here, to find circles. */
async function readChain(reading: Reading, path: string, text: string, above: readonly string[]): Promise<void> {
  const { root, problems } = parseSource(path, text);
  reading.problems.push(...problems);
  if (!root || !(root.value instanceof Map || root.value === null)) {
    if (root) reading.problems.push(`${root.place}: ${shown(plain(root))} (allowed: a mapping of keys to values)`);
    reading.complete = false;
    return;
  }
  const entries = new Map(root.value);
  const parent = entries.get('extends')?.node;
  entries.delete('extends');
  if (parent) await readParent(reading, parent, path, [...above, path]);
  const own = { place: root.place, value: entries };
  reading.root = reading.root ? merge(reading.root, own) : own;
  reading.sources.push(path);
}

async function readParent(reading: Reading, parent: Located, path: string, chain: readonly string[]): Promise<void> {
  const refuse = (what: string) => {
    reading.problems.push(`${parent.place} extends: ${what}`);
    reading.complete = false;
  };
  if (typeof parent.value !== 'string' || parent.value === '') {
    refuse(`${shown(plain(parent))} (allowed: the path of a YAML file)`);
    return;
  }
  const target = isAbsolute(parent.value) ? normalize(parent.value) : join(dirname(path), parent.value);
  const start = chain.findIndex((file) => resolve(file) === resolve(target));
  if (start >= 0) {
    refuse(`the files extend each other in a circle: ${[...chain.slice(start), target].join(' → ')}`);
    return;
  }
  let text: string;
  try {
    text = await readSource(target);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    refuse(error.message.split('\n')[0] ?? error.message);
    return;
  }
  await readChain(reading, target, text, chain);
}

function applySet(reading: Reading, assignment: string): void {
  const equals = assignment.indexOf('=');
  const path = assignment.slice(0, Math.max(equals, 0)).trim();
  const parts = path.split('.');
  if (equals < 0 || parts.includes('')) {
    reading.problems.push(`--set ${assignment}: is not an override (allowed: key.path=value)`);
    return;
  }
  const place = `--set ${path}`;
  const { root, problems } = parseSource(place, assignment.slice(equals + 1), place);
  reading.problems.push(...problems);
  if (!root) return;
  try {
    reading.root = override(reading.root, parts, root);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    reading.problems.push(`${place}: ${error.message}`);
  }
}

type Issue = z.core.$ZodIssue;

type Path = readonly PropertyKey[];

/** The problems that the schema finds, as lines, and the paths of the fields that have one. */
function schemaProblems(root: Located, issues: readonly Issue[], complete: boolean) {
  const lines: string[] = [];
  const faulty: Path[] = [];
  for (const issue of issues) {
    if (issue.code === 'unrecognized_keys') {
      for (const key of issue.keys) {
        const { hint, meant } = unknownKey(issue.path, key);
        const path = [...issue.path, key];
        faulty.push(path, ...(meant === undefined ? [] : [[...issue.path, meant]]));
        lines.push(line(placeOf(root, path, 'key').place, dotted(path), `unknown key (${hint})`));
      }
      continue;
    }
    const path = dotted(issue.path);
    if (faulty.some((other) => dotted(other) === path)) continue;
    faulty.push(issue.path);
    const missing = issue.input === undefined;
    // What a file that could not be read would have set is not missing.
    if (missing && !complete) continue;
    const what = `${missing ? 'is missing' : shown(issue.input)} (${allowedHint(issue)})`;
    lines.push(line(placeOf(root, issue.path, 'value').place, path, what));
  }
  return { lines, faulty };
}

function unknownKey(path: Path, key: string): { hint: string; meant?: string } {
  const known = Object.keys(fieldAt(path)?.properties ?? {});
  const near = nearest(key, known);
  if (near !== undefined) return { hint: `did you mean "${near}"?`, meant: near };
  const nested = key.split('.');
  if (nested.length > 1 && fieldAt([...path, ...nested])) {
    return { hint: `in a file, write the parts of ${key} as mappings inside each other` };
  }
  const elsewhere = pathsEndingIn(key);
  if (elsewhere.length > 0) return { hint: `did you mean ${elsewhere.map((found) => `"${found}"`).join(' or ')}?` };
  return { hint: `allowed: ${known.join(', ')}` };
}

function allowedHint(issue: Issue): string {
  const field = fieldAt(issue.path);
  const allowed = issue.code === 'invalid_format' || !field ? issue.message : allowedValues(field);
  const near = typeof issue.input === 'string' ? nearest(issue.input, field?.enum ?? []) : undefined;
  return `allowed: ${allowed}${near === undefined ? '' : `; did you mean "${near}"?`}`;
}

/** Broken rules between fields that are each right by themselves; defaults stand in for the faulty ones. */
function crossProblems(root: Located, value: unknown, faulty: readonly Path[]): string[] {
  const rest = faulty.reduce<unknown>(without, value);
  // No rule reads the name, so that a missing one hides none of them.
  const parsed = runSchema.safeParse({ ...(rest as object), name: 'unnamed' });
  if (!parsed.success) return [];
  const touches = (a: string, b: string) => `${a}.`.startsWith(`${b}.`) || `${b}.`.startsWith(`${a}.`);
  return crossFieldProblems(parsed.data)
    .filter(({ paths }) => !paths.some((path) => faulty.some((other) => touches(path, dotted(other)))))
    .map(({ paths, what }) => {
      const path = paths.find((candidate) => placeOf(root, candidate.split('.'), 'value').exact) ?? paths[0] ?? '';
      const named = path === paths[0] ? what : `${paths[0]} = ${what}`;
      return line(placeOf(root, path.split('.'), 'value').place, path, named);
    });
}

/** A copy of `value` that lacks what is at `path`, or the whole list that it is in. */
function without(value: unknown, [part, ...rest]: Path): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const entries = Object.entries(value).flatMap(([key, child]): [string, unknown][] => {
    if (key !== part) return [[key, child]];
    return rest.length === 0 ? [] : [[key, without(child, rest)]];
  });
  return Object.fromEntries(entries);
}

function dotted(path: Path): string {
  return path.map(String).join('.');
}

function line(place: string, path: string, what: string): string {
  return place === `--set ${path}` ? `${place}: ${what}` : `${place} ${path}: ${what}`;
}

/** What a value is, as the predicate of a sentence. */
function shown(value: unknown): string {
  if (value === null) return 'is empty';
  if (Array.isArray(value)) return 'is a list';
  if (typeof value === 'object') return 'is a mapping';
  if (typeof value === 'string') return `is the text ${JSON.stringify(value)}`;
  const inexact = typeof value === 'number' && Math.abs(value) > Number.MAX_SAFE_INTEGER && Number.isFinite(value);
  return `is ${String(value)}${inexact ? ', beyond the exact integers (2^53)' : ''}`;
}

/** The whole configuration as YAML, defaults filled in, to be saved with the run; `loadConfig` reads it back. */
export function resolvedConfigYaml(config: RunConfig): string {
  return `# The resolved configuration of this run: every key, defaults included.\n${stringify(config, { lineWidth: 0 })}`;
}

/** Hexadecimal sha256 of a configuration's values, whatever the order of its keys. */
export function configHash(config: RunConfig): string {
  return sha256(JSON.stringify(config, (_, value: unknown) => (isMapping(value) ? sortKeys(value) : value)));
}

/**
 * Dotted paths whose values differ between two configurations, such as a run's saved one and the present one; sorted.
 * A missing key and one that is undefined are the same.
 */
export function configDifferences(a: unknown, b: unknown): string[] {
  return differences(a, b, []).sort();
}

function differences(a: unknown, b: unknown, path: readonly string[]): string[] {
  const comparable = (isMapping(a) && isMapping(b)) || (Array.isArray(a) && Array.isArray(b));
  if (!comparable) return Object.is(a, b) ? [] : [path.join('.')];
  const [left, right] = [a, b] as [Record<string, unknown>, Record<string, unknown>];
  const keys = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...keys].flatMap((key) => differences(left[key], right[key], [...path, key]));
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function sortKeys(value: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
