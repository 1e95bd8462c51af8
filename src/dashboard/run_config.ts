/** The configuration of a run as the dashboard shows it. */

import { parse } from 'yaml';
import { z } from 'zod';
import { type RunConfig, runSchema } from '../config/schema.ts';
import type { ConfigAnswer } from './api.ts';
import { damaged } from './refused.ts';
import { readSmall } from './run_file.ts';
import type { Run } from './runs.ts';

/** Values under such names are not shown, whoever wrote them into a configuration. */
const SECRET = /(api[-_]?key|secret|password|passwd|credential|access[-_]?token|auth[-_]?token|private[-_]?key)/i;
/** Credentials in an address: `https://user:secret@host`. */
const CREDENTIALS = /\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@]+@/gi;

/** What `config.yaml` holds. @throws Refused when it cannot be parsed or there is none */
export function readConfig(run: Run): Record<string, unknown> {
  const text = readSmall(run.folder.config, run.within);
  if (text === undefined) throw damaged('config.yaml is missing');
  let value: unknown;
  try {
    // Few aliases: a small file must not unfold into a huge value.
    value = parse(text, { maxAliasCount: 10, logLevel: 'error' });
  } catch {
    throw damaged('config.yaml is not valid YAML');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw damaged('config.yaml is no mapping');
  return value as Record<string, unknown>;
}

/** What the configuration tells the list of runs. */
export interface RunFacts {
  /** Planned steps of the whole run; undefined when it does not say. */
  steps: number | undefined;
  tags: string[];
  notes: string;
}

const factsSchema = z.object({
  warmup: z.object({ steps: z.number() }),
  continual: z.object({ steps: z.number() }),
  tracking: z
    .object({ wandb: z.object({ tags: z.array(z.string()).catch([]), notes: z.string().catch('') }) })
    .catch({ wandb: { tags: [], notes: '' } }),
});

/**
 * Reads only the sections that it needs, since parsing all of a configuration takes 10 ms and a list has many.
 * @throws Refused as `readConfig`
 */
export function readFacts(run: Run): RunFacts {
  const text = readSmall(run.folder.config, run.within) ?? '';
  const sections = ['warmup', 'continual', 'tracking'].map((name) => sectionOf(text, name));
  const isUsual = sections.every((section) => section !== undefined);
  const parsed = factsSchema.safeParse(isUsual ? parsedOrNone(sections.join('')) : readConfig(run));
  if (!parsed.success) {
    // The whole says more exactly what is wrong, if it cannot be parsed.
    if (isUsual) readConfig(run);
    return { steps: undefined, tags: [], notes: '' };
  }
  const { warmup, continual, tracking } = parsed.data;
  return { steps: warmup.steps + continual.steps, ...tracking.wandb };
}

/** A top-level mapping as it is written: from its name to the next line that is not indented. */
function sectionOf(text: string, name: string): string | undefined {
  return new RegExp(`^${name}:[ ]*\\n(?:[ ].*\\n|\\n)*`, 'm').exec(text)?.[0];
}

function parsedOrNone(text: string): unknown {
  try {
    return parse(text, { maxAliasCount: 0, logLevel: 'error' });
  } catch {
    return undefined;
  }
}

/** The configuration checked, keys that came later with their defaults. @throws Refused when it is not valid */
export function readRunConfig(run: Run): RunConfig {
  const parsed = runSchema.safeParse(readConfig(run));
  if (!parsed.success) throw damaged('config.yaml is not the configuration of a run');
  return parsed.data;
}

/** The configuration by paths, and where another run differs. */
export function configAnswer(run: Run, against: Run | undefined): ConfigAnswer {
  const values = flatten(readConfig(run));
  if (against === undefined) return { values };
  const others = flatten(readConfig(against));
  const paths = [...new Set([...Object.keys(values), ...Object.keys(others)])].sort();
  const differing = paths.filter((path) => JSON.stringify(values[path]) !== JSON.stringify(others[path]));
  return { values, differences: Object.fromEntries(differing.map((path) => [path, others[path] ?? null])) };
}

/** Each value under its path; a list is one value, unless it holds mappings. */
function flatten(value: Record<string, unknown>): Record<string, unknown> {
  const flat = new Map<string, unknown>();
  const visit = (part: unknown, path: string): void => {
    if (SECRET.test(path)) return;
    const isList = Array.isArray(part);
    if (typeof part !== 'object' || part === null || (isList && !part.some((item) => typeof item === 'object'))) {
      flat.set(path, withoutCredentials(part));
      return;
    }
    const entries = Object.entries(part);
    if (entries.length === 0) flat.set(path, part);
    for (const [name, inner] of entries)
      visit(inner, isList ? `${path}[${name}]` : path === '' ? name : `${path}.${name}`);
  };
  visit(value, '');
  return Object.fromEntries(flat);
}

function withoutCredentials(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutCredentials);
  return typeof value === 'string' ? value.replaceAll(CREDENTIALS, '$1') : value;
}
