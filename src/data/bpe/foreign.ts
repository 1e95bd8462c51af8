/** A byte-level `tokenizer.json` that is to be extended. */

import { Tokenizer as NativeTokenizer } from 'tokenizers';
import { UserError } from '../../errors.ts';
import type { LearnedMerges, StartVocabulary } from './merges.ts';
import { byteCharacters } from './words.ts';

/** The parts of a `tokenizer.json` that are read here. */
export interface ForeignJson {
  added_tokens?: { id: number; content: string }[];
  normalizer?: object | null;
  pre_tokenizer?: PreTokenizerJson | null;
  model: {
    type?: string;
    dropout?: number | null;
    continuing_subword_prefix?: string | null;
    end_of_word_suffix?: string | null;
    byte_fallback?: boolean;
    ignore_merges?: boolean;
    vocab: Record<string, number>;
    /** Pairs, or in older files texts with a space between left and right. */
    merges: (string | [string, string])[];
  };
}

export interface PreTokenizerJson {
  type: string;
  add_prefix_space?: boolean;
  use_regex?: boolean;
  pretokenizers?: PreTokenizerJson[];
}

export interface ForeignBpe {
  json: string;
  start: StartVocabulary;
  /** Cuts words where that is not by GPT-2's pattern. */
  native: NativeTokenizer | undefined;
  /** The whole file with what was learned. */
  extended(learned: LearnedMerges): ForeignJson;
}

/** A pre-tokenizer and those that it is a sequence of. */
export function preTokenizerSteps(step: PreTokenizerJson | null | undefined): PreTokenizerJson[] {
  return step ? [step, ...(step.pretokenizers ?? []).flatMap(preTokenizerSteps)] : [];
}

/** @throws UserError input_invalid */
export function foreignBpe(path: string, json: string): ForeignBpe {
  const invalid = (what: string, cause?: unknown) =>
    new UserError('input_invalid', {
      where: path,
      what,
      action: 'name a byte-level BPE `tokenizer.json` (GPT-2’s or Llama 3’s kind) in `data.tokenizer.extend`',
      cause,
    });
  const { parsed, native } = parse(json, invalid);
  const obstacle = obstacleOf(parsed);
  if (obstacle !== undefined) throw invalid(`cannot be extended: ${obstacle}`);
  const { model, added_tokens: added = [] } = parsed;
  const ids = new Map(Object.entries(model.vocab));
  for (const { content, id } of added) ids.set(content, id);
  let nextId = 0;
  for (const id of ids.values()) nextId = Math.max(nextId, id + 1);
  const merges = model.merges.map((merge) => (typeof merge === 'string' ? halves(merge) : merge));
  const stray = merges.find((merge) => ![...merge, merge.join('')].every((token) => ids.has(token)));
  if (stray) throw invalid(`the merge of ${stray.join(' and ')} has a token that the vocabulary lacks`);
  return {
    json,
    start: { ids, nextId, merges, reserved: added.map(({ content }) => content), wholeWords: !!model.ignore_merges },
    native: isPlainGpt2(parsed) ? undefined : native,
    extended: (learned) => extended(parsed, ids, nextId, learned),
  };
}

function parse(
  json: string,
  invalid: (what: string, cause: unknown) => UserError,
): { parsed: ForeignJson; native: NativeTokenizer } {
  try {
    return { parsed: JSON.parse(json) as ForeignJson, native: NativeTokenizer.fromString(json) };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw invalid(`not a Hugging Face tokenizer.json: ${why}`, error);
  }
}

/** Why a tokenizer cannot be extended by byte-level merges. */
function obstacleOf({ model, pre_tokenizer: preTokenizer }: ForeignJson): string | undefined {
  if (model.type !== 'BPE') return `its model is ${model.type}, not BPE`;
  if (!preTokenizerSteps(preTokenizer).some(({ type }) => type === 'ByteLevel'))
    return 'its words are not written in bytes (no `ByteLevel`)';
  if (model.continuing_subword_prefix || model.end_of_word_suffix) return 'its tokens are marked by prefix or suffix';
  const lacking = byteCharacters().findIndex((character) => !(character in model.vocab));
  if (lacking >= 0) return `its vocabulary has no token for the byte ${lacking}`;
  return undefined;
}

function isPlainGpt2({ normalizer, pre_tokenizer: step }: ForeignJson): boolean {
  return !normalizer && step?.type === 'ByteLevel' && step.add_prefix_space === false && step.use_regex !== false;
}

function halves(merge: string): [string, string] {
  const space = merge.indexOf(' ');
  return [merge.slice(0, space), merge.slice(space + 1)];
}

function extended(parsed: ForeignJson, ids: Map<string, number>, nextId: number, learned: LearnedMerges): ForeignJson {
  const { model } = parsed;
  const inTexts = typeof model.merges[0] === 'string';
  const merges = learned.merges.map((merge) => (inTexts ? merge.join(' ') : merge));
  // Added tokens as well: the library numbers those anew that the vocabulary lacks, after all its tokens.
  const vocab = Object.fromEntries(ids);
  for (const [i, token] of learned.tokens.entries()) vocab[token] = nextId + i;
  return { ...parsed, model: { ...model, vocab, merges: [...model.merges, ...merges] } };
}
