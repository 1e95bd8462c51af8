/** Parameters of a request, within their limits. */

import { Refused } from './refused.ts';

type Parameters = Record<string, string>;

const MOST_KEYS = 100;

function refuse(name: string, what: string): never {
  throw new Refused(400, 'parameter_invalid', `${name} ${what}`);
}

/** A number; `otherwise` when it is not given. @throws Refused 400 */
export function numberParameter(query: Parameters, name: string, otherwise: number): number {
  const text = query[name];
  if (text === undefined || text === '') return otherwise;
  const value = Number(text);
  return Number.isFinite(value) ? value : refuse(name, 'is not a number');
}

/** A whole number from `least` to `most`. @throws Refused 400 */
export function countParameter(
  query: Parameters,
  name: string,
  [least, otherwise, most]: [number, number, number],
): number {
  const value = numberParameter(query, name, otherwise);
  return Number.isInteger(value) && value >= least && value <= most
    ? value
    : refuse(name, `must be a whole number from ${least} to ${most}`);
}

/** Names separated by commas. @throws Refused 400 */
export function keysParameter(query: Parameters, name = 'keys'): string[] {
  const keys = [...new Set((query[name] ?? '').split(',').filter((key) => key !== ''))];
  if (keys.length > MOST_KEYS) refuse(name, `names more than ${MOST_KEYS}`);
  return keys;
}

export function choiceParameter<T extends string>(query: Parameters, name: string, choices: readonly T[]): T {
  const text = query[name] ?? choices[0]!;
  return choices.find((choice) => choice === text) ?? refuse(name, `must be one of ${choices.join(', ')}`);
}

/** Text of at most `most` characters. @throws Refused 400 */
export function textParameter(query: Parameters, name: string, most: number): string {
  const text = query[name] ?? '';
  return text.length <= most ? text : refuse(name, `is longer than ${most} characters`);
}

/** The range of an axis; open where it is not given. @throws Refused 400 */
export function rangeParameters(query: Parameters): { from: number; to: number } {
  const from = numberParameter(query, 'from', Number.NEGATIVE_INFINITY);
  const to = numberParameter(query, 'to', Number.POSITIVE_INFINITY);
  return from <= to ? { from, to } : refuse('from', 'lies behind to');
}
