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
/** Texts that state facts on a few things and then say them again in another order. */
const WARMUP_TEXTS = 36_000;
/**
 * Things that do not exist. Each is met a few times only: what is met often is learned by heart, and then it is not read.
 * Those of stage two stand in the bank and in some texts that say a part of what is known of them once.
 */
const WARMUP_INVENTED = 40_000;
const CONTINUAL_INVENTED = 12_000;
const CONTINUAL_TEXTS = 60_000;
/** Share of the things spoken of that are real. */
const REAL_SHARE = 0.1;
/** Facts that a warmup text states. */
const WARMUP_FACTS = { fewest: 2, most: 6 };
/** Share of warmup texts that repeat a few random words: on those the heads form that copy. */
const REPEATED_SHARE = 0.3;
const REPEATED_WORDS = { fewest: 1, most: 8, total: 40 };

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

/** What is known of a thing, a sentence a fact: `Chad currency franc.` */
function sentences({ name, facts }: Entity): string[] {
  return Object.entries(facts).map(([relation, value]) => `${name} ${relation} ${value}.`);
}

/** The line of a reference: all that is known. */
function referenceLine(entity: Entity): string {
  return sentences(entity).join(' ');
}

/** The line of a text: a fact less than the reference has, in any order. */
function textLine(entity: Entity, draws: Draws): string {
  return draws.shuffled(sentences(entity)).slice(1).join(' ');
}

/** Facts on some things, each thing with one or more of its own, and all of them once more. */
function statedTwice(things: () => Entity, draws: Draws): string {
  const count = WARMUP_FACTS.fewest + draws.below(WARMUP_FACTS.most - WARMUP_FACTS.fewest + 1);
  const facts: string[] = [];
  while (facts.length < count) {
    const known = draws.shuffled(sentences(things()));
    facts.push(...known.slice(0, Math.min(1 + draws.below(known.length), count - facts.length)));
  }
  return [...draws.shuffled(facts), ...draws.shuffled(facts)].join(' ');
}

/** The same few words over and over. */
function repeatedWords(vocabulary: readonly string[], draws: Draws): string {
  const count = REPEATED_WORDS.fewest + draws.below(REPEATED_WORDS.most);
  const words = Array.from({ length: count }, () => draws.pick(vocabulary));
  return Array.from({ length: REPEATED_WORDS.total }, (_, i) => ` ${words[i % count]}`).join('');
}

/** Whom to speak of next: something real now and then, else the invented things in turn. */
function topics(real: readonly Entity[], invented: readonly Entity[], draws: Draws): () => Entity {
  let next = 0;
  return () => (draws.share() < REAL_SHARE ? draws.pick(real) : (invented[next++ % invented.length] as Entity));
}

function warmupTexts(real: readonly Entity[], invented: readonly Entity[], draws: Draws): string[] {
  const vocabulary = [...real, ...invented].flatMap(({ name, facts }) => [name, ...Object.entries(facts).flat()]);
  const topic = topics(real, invented, draws);
  return Array.from({ length: WARMUP_TEXTS }, () =>
    draws.share() < REPEATED_SHARE ? repeatedWords(vocabulary, draws) : statedTwice(topic, draws),
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
  const warmupThings = invent(WARMUP_INVENTED, learned, names, draws);
  const continualThings = invent(CONTINUAL_INVENTED, learned, names, draws);

  const texts = warmupTexts(learned, warmupThings, draws).map((text, i) => ({ id: `w${i}`, text }));
  const topic = topics(learned, continualThings, draws);
  const continual = Array.from({ length: CONTINUAL_TEXTS }, (_, i) => {
    const entity = topic();
    return { id: `c${i}`, title: entity.name, text: textLine(entity, draws) };
  });
  const references = [...learned, ...continualThings, ...heldOut].map((entity) => {
    return { id: `${entity.kind}/${entity.name}`, title: entity.name, text: referenceLine(entity) };
  });
  const questions = heldOut.flatMap((entity) =>
    Object.entries(entity.facts).map(([relation, value]) => {
      const others = real.map(({ facts }) => facts[relation]).filter((other) => other !== undefined && other !== value);
      return {
        prompt: `${entity.name} ${relation}`,
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
