/** What the schema says about a field, in words: for the messages of the loader and for the reference page. */

import { z } from 'zod';
import { runSchema } from './schema.ts';

/** The parts of a JSON schema that the run schema uses. */
export interface FieldSchema {
  type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean';
  description?: string;
  default?: unknown;
  properties?: Record<string, FieldSchema>;
  required?: string[];
  items?: FieldSchema;
  enum?: string[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  multipleOf?: number;
  minLength?: number;
  pattern?: string;
}

/** The run schema as a JSON schema of what a user may write. */
export const runFields = z.toJSONSchema(runSchema, { io: 'input' }) as FieldSchema;

/** The schema of the field at `path`, undefined when there is none. */
export function fieldAt(path: readonly PropertyKey[]): FieldSchema | undefined {
  let field: FieldSchema | undefined = runFields;
  for (const part of path) {
    field = typeof part === 'number' ? field?.items : field?.properties?.[String(part)];
  }
  return field;
}

/** Dotted paths of all fields whose last part is `key`, such as `model.numLayers` for `numLayers`. */
export function pathsEndingIn(key: string, field: FieldSchema = runFields, prefix = ''): string[] {
  return Object.entries(field.properties ?? {}).flatMap(([name, child]) => [
    ...(name === key ? [`${prefix}${name}`] : []),
    ...pathsEndingIn(key, child, `${prefix}${name}.`),
  ]);
}

/** The values a field allows, in words: `an integer ≥ 1`, `auto, jsonl or text`. */
export function allowedValues(field: FieldSchema): string {
  if (field.enum) return [field.enum.slice(0, -1).join(', '), ...field.enum.slice(-1)].filter(Boolean).join(' or ');
  switch (field.type) {
    case 'integer':
      return `an integer${range(field)}`;
    case 'number':
      return `a number${range(field)}`;
    case 'boolean':
      return 'true or false';
    case 'string':
      if (field.pattern) return `text that matches ${field.pattern}`;
      return field.minLength ? 'text, not empty' : 'text';
    case 'array':
      return field.items?.type === 'object' ? 'a list of mappings' : `a list, each ${allowedValues(field.items ?? {})}`;
    default:
      return 'a mapping';
  }
}

function range({ minimum, maximum, exclusiveMinimum, multipleOf }: FieldSchema): string {
  const top = maximum === Number.MAX_SAFE_INTEGER ? undefined : maximum;
  const multiple = multipleOf === undefined ? '' : `, a multiple of ${multipleOf}`;
  if (minimum !== undefined && top !== undefined) return ` from ${minimum} to ${top}${multiple}`;
  const bounds = [
    ...(minimum === undefined ? [] : [`≥ ${minimum}`]),
    ...(exclusiveMinimum === undefined ? [] : [`> ${exclusiveMinimum}`]),
    ...(top === undefined ? [] : [`≤ ${top}`]),
  ];
  return `${bounds.length > 0 ? ` ${bounds.join(' and ')}` : ''}${multiple}`;
}
