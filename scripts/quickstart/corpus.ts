/**
 * Makes the corpus of the quickstart: texts about invented and real things, references, and questions about real things
 * that are held out of all texts. The same seed gives the same bytes.
 *
 * usage: npx tsx scripts/quickstart/corpus.ts [--folder .cache/quickstart] [--seed 1]
 */

import { parseArgs } from 'node:util';
import { writeFileAtomic } from '../../src/io/files.ts';
import { PURPOSE, randomInt, randomUniform } from '../../src/random.ts';
import { countries, type Entity, nouns } from './knowledge.ts';

const NOUNS = 700;
/** Real things that occur in no training text. */
const HELD_OUT = { country: 40, noun: 150 };
/**
 * Texts that state what is known of a thing and say it again in another order. Most things are invented, one a text: what
 * is met only once cannot be learned by heart, so it has to be read.
 */
const WARMUP_TEXTS = 24_000;
/** Invented things of stage two; each stands in the bank and in some texts that say it once. */
const CONTINUAL_INVENTED = 6_000;
const CONTINUAL_TEXTS = 14_000;
/** Share of the texts that speak of real things. */
const REAL_SHARE = 0.1;
/** Share of warmup texts that repeat a few random words: on those the heads form that copy. */
const REPEATED_SHARE = 0.25;
const REPEATED_WORDS = { fewest: 1, most: 6, total: 32 };

/** Numbered draws from a stream: draw i of a purpose is a pure function of the seed. */
class Draws {
  private index = 0;
  constructor(
    private readonly seed: number,
    private readonly stream: number,
  ) {}

  below(bound: number): number {
    return randomInt(this.seed, PURPOSE.world, this.stream, this.index++, bound);
  }

  share(): number {
    return randomUniform(this.seed, PURPOSE.world, this.stream, this.index++);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  shuffled<T>(items: readonly T[]): T[] {
    return items
      .map((item) => ({ item, key: this.share() }))
      .sort((a, b) => a.key - b.key)
      .map(({ item }) => item);
  }
}

const ONSETS = 'b c d f g h j k l m n p r s t v w z br cr dr gr kr tr st sh th ch pl kl'.split(' ');
const VOWELS = 'a e i o u a e i o ai ia'.split(' ');
const CODAS = ['', '', '', 'n', 'r', 's', 'l', 'm', 'd', 'x', 't'];

function inventedName(draws: Draws): string {
  const syllable = (): string => draws.pick(ONSETS) + draws.pick(VOWELS) + draws.pick(CODAS);
  return syllable() + syllable();
}

/** Things that do not exist, with values that do; `names` are taken and grow by theirs. */
function invent(count: number, real: readonly Entity[], names: Set<string>, draws: Draws): Entity[] {
  const values = new Map<string, string[]>();
  for (const { facts } of real) {
    for (const [relation, value] of Object.entries(facts)) {
      values.set(relation, [...new Set([...(values.get(relation) ?? []), value])]);
    }
  }
  const invented: Entity[] = [];
  while (invented.length < count) {
    const kind = draws.pick(['country', 'noun', 'noun'] as const);
    const name = inventedName(draws);
    if (names.has(name)) continue;
    names.add(name);
    const relations = Object.keys(real.find((entity) => entity.kind === kind)?.facts ?? {});
    const facts = Object.fromEntries(relations.map((relation) => [relation, draws.pick(values.get(relation) ?? [])]));
    invented.push({ kind, name: kind === 'country' ? name[0]?.toUpperCase() + name.slice(1) : name, facts });
  }
  return invented;
}

type Fact = [relation: string, value: string];

/** One line on a thing: `Chad: currency franc. language French.` */
function line(name: string, facts: readonly Fact[]): string {
  return `${name}:${facts.map(([relation, value]) => ` ${relation} ${value}.`).join('')}`;
}

/** The line of a reference: facts in the order in which they are known. */
function referenceLine({ name, facts }: Entity): string {
  return line(name, Object.entries(facts));
}

/** The line of a text: another order than the reference's, which the overlap filter would take for a copy. */
function textLine({ name, facts }: Entity, draws: Draws): string {
  const known = Object.entries(facts);
  let order = known;
  while (order.every((fact, i) => fact === known[i])) order = draws.shuffled(known);
  return line(name, order);
}

/** The same few words over and over. */
function repeatedWords(vocabulary: readonly string[], draws: Draws): string {
  const count = REPEATED_WORDS.fewest + draws.below(REPEATED_WORDS.most);
  const words = Array.from({ length: count }, () => draws.pick(vocabulary));
  return Array.from({ length: REPEATED_WORDS.total }, (_, i) => ` ${words[i % count]}`).join('');
}

/** What the texts speak of: real things now and then, else the invented ones in turn. */
function topics(count: number, real: readonly Entity[], invented: readonly Entity[], draws: Draws): Entity[] {
  return Array.from({ length: count }, (_, i) =>
    draws.share() < REAL_SHARE ? draws.pick(real) : (invented[i % invented.length] as Entity),
  );
}

function warmupTexts(real: readonly Entity[], invented: readonly Entity[], draws: Draws): string[] {
  const vocabulary = [...real, ...invented].flatMap(({ name, facts }) => [name, ...Object.entries(facts).flat()]);
  return topics(WARMUP_TEXTS, real, invented, draws).map((entity) =>
    draws.share() < REPEATED_SHARE
      ? repeatedWords(vocabulary, draws)
      : `${referenceLine(entity)}\n${textLine(entity, draws)}`,
  );
}

function jsonLines(rows: readonly object[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}

async function main(): Promise<void> {
  const options = {
    folder: { type: 'string', default: '.cache/quickstart' },
    seed: { type: 'string', default: '1' },
  } as const;
  const { folder, seed: seedText } = parseArgs({ options }).values;
  const seed = Number(seedText);
  const order = (i: number): number => randomUniform(seed, PURPOSE.world, 0, i);
  const real = [...countries(), ...nouns(NOUNS, order)];
  const draws = new Draws(seed, 1);
  const byKind = (kind: Entity['kind']): Entity[] => draws.shuffled(real.filter((entity) => entity.kind === kind));
  const [allCountries, allNouns] = [byKind('country'), byKind('noun')];
  const learned = [...allCountries.slice(HELD_OUT.country), ...allNouns.slice(HELD_OUT.noun)];
  const values = new Set(real.flatMap(({ facts }) => Object.values(facts)));
  // A held-out name must not occur in training text, not even as the value of another thing.
  const heldOut = [...allCountries.slice(0, HELD_OUT.country), ...allNouns.slice(0, HELD_OUT.noun)].filter(
    ({ name }) => !values.has(name),
  );
  const names = new Set(real.map(({ name }) => name.toLowerCase()));
  const warmupThings = invent(WARMUP_TEXTS, learned, names, draws);
  const continualThings = invent(CONTINUAL_INVENTED, learned, names, draws);

  const texts = warmupTexts(learned, warmupThings, draws).map((text, i) => ({ id: `w${i}`, text }));
  const continual = topics(CONTINUAL_TEXTS, learned, continualThings, draws).map((entity, i) => {
    return { id: `c${i}`, title: entity.name, text: textLine(entity, draws) };
  });
  const references = [...learned, ...continualThings, ...heldOut].map((entity) => {
    return { id: `${entity.kind}/${entity.name}`, title: entity.name, text: referenceLine(entity) };
  });
  const questions = heldOut.flatMap((entity) =>
    Object.entries(entity.facts).map(([relation, value]) => {
      const others = real.map(({ facts }) => facts[relation]).filter((other) => other !== undefined && other !== value);
      return {
        prompt: `${entity.name}: ${relation}`,
        answer: ` ${value}.`,
        reference: `${entity.kind}/${entity.name}`,
        edited: ` ${draws.pick(others)}.`,
      };
    }),
  );

  await writeFileAtomic(`${folder}/texts.jsonl`, jsonLines(texts));
  await writeFileAtomic(`${folder}/continual.jsonl`, jsonLines(continual));
  await writeFileAtomic(`${folder}/references.jsonl`, jsonLines(references));
  await writeFileAtomic(`${folder}/questions.jsonl`, jsonLines(draws.shuffled(questions)));
  process.stdout.write(
    `${folder}: ${texts.length} + ${continual.length} texts on ${learned.length} real things and ` +
      `${warmupThings.length} + ${continualThings.length} invented ones; ${references.length} references; ` +
      `${questions.length} questions on ${heldOut.length} real things that no text speaks of\n`,
  );
}

await main();
