/**
 * Byte-level BPE (Sennrich et al. 2016, GPT-2's bytes and word pattern) written as a Hugging Face `tokenizer.json`: a new
 * vocabulary, or more merges for a given one. Words are counted by groups of text, in threads if there are any, and then
 * merges are learned from the distinct words alone.
 */

import { UserError } from '../errors.ts';
import { WorkerPool } from '../io/worker_pool.ts';
import { type ForeignBpe, type ForeignJson, foreignBpe } from './bpe/foreign.ts';
import type { MergeJob } from './bpe/merge_worker.ts';
import { type LearnedMerges, learnMerges, type StartVocabulary } from './bpe/merges.ts';
import { byteCharacters, countNativeWords, countWords, type WordCounts, WordTable } from './bpe/words.ts';
import { textPieces } from './text_pieces.ts';

export interface AddedToken {
  id: number;
  content: string;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
  special: boolean;
}

/** The part of Hugging Face's `tokenizer.json` that the trainer writes. */
export interface TokenizerJson {
  version: '1.0';
  truncation: null;
  padding: null;
  added_tokens: AddedToken[];
  normalizer: null;
  pre_tokenizer: object;
  post_processor: null;
  decoder: object;
  model: {
    type: 'BPE';
    dropout: null;
    unk_token: null;
    continuing_subword_prefix: null;
    end_of_word_suffix: null;
    fuse_unk: false;
    byte_fallback: false;
    ignore_merges: false;
    vocab: Record<string, number>;
    merges: [string, string][];
  };
}

export interface TrainingOptions {
  /** Tokens at most, special tokens and all 256 bytes included. */
  vocabSize: number;
  /** Threads that count words; with at least one, merges are learned in a thread as well. 0: all in this thread. */
  workers?: number;
  /** Called now and then. */
  progress?: (progress: BpeProgress) => void;
}

export interface BpeOptions extends TrainingOptions {
  /** Special tokens; they get the ids from 0. */
  specials?: readonly string[];
}

/** How far the training is. */
export interface BpeProgress {
  /** Code units of text whose words are counted. */
  characters: number;
  /** Tokens learned; above 0 once all text is counted. */
  tokens: number;
  /** Tokens that are to be learned. */
  wanted: number;
}

/** Begin of text, end of text, padding, and a mark for references: ids 0 to 3. */
export const SPECIALS = ['<s>', '</s>', '<pad>', '<|reference|>'] as const;

/** Code units of text that are counted together. */
const GROUP = 2 ** 21;
/** Longer texts are cut between words. */
const PIECE = 2 ** 20;
/** Milliseconds between calls of `progress` while merges are learned. */
const PROGRESS_EVERY = 200;

/**
 * Trains a byte-level BPE vocabulary with exact pair counts. The most frequent pair is merged first, among equals the one
 * with the smaller ids, so the result depends on the texts' words alone, not on their order and not on `workers`. Ends
 * early, with a smaller vocabulary, when no pair occurs twice. Above 32 MiB of distinct words, rare ones are thinned
 * (see WordTable): counts are then right on average, and the order of the texts matters.
 * @throws RangeError when `vocabSize` does not hold the special tokens and the 256 bytes
 */
export async function trainBpe(texts: AsyncIterable<string>, options: BpeOptions): Promise<TokenizerJson> {
  const specials = options.specials ?? SPECIALS;
  const tokens = [...specials, ...byteCharacters().sort()];
  if (options.vocabSize < tokens.length) {
    throw new RangeError(`a byte-level vocabulary needs at least ${tokens.length} tokens`);
  }
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const start = { ids, nextId: tokens.length, reserved: specials, merges: [], wholeWords: false };
  const learned = await learn(texts, start, undefined, options);
  const vocab = Object.fromEntries([...tokens, ...learned.tokens].map((token, id) => [token, id]));
  return tokenizerJson(specials, vocab, learned.merges);
}

/**
 * Adds merges of `texts` to a byte-level `tokenizer.json`, ours or a foreign one, until ids reach `vocabSize` (paper §4.3:
 * LLaMA's vocabulary and Chinese). Everything that the file holds keeps its id and its place; new tokens get the ids that
 * follow the largest one, added tokens included, and new merges come after all others, so a text in which no new merge
 * applies is encoded as before. Words are cut as the file says.
 * @param json text of the file
 * @param path for messages
 * @throws UserError input_invalid (no byte-level BPE), config_invalid (`vocabSize` is below what the file has)
 */
export async function extendBpe(
  json: string,
  texts: AsyncIterable<string>,
  options: TrainingOptions & { path: string },
): Promise<ForeignJson> {
  const foreign = toExtend(json, options);
  return foreign.extended(await learn(texts, foreign.start, foreign, options));
}

/** A `tokenizer.json` that merges can be added to. @throws as {@link extendBpe} */
export function toExtend(json: string, { path, vocabSize }: { path: string; vocabSize: number }): ForeignBpe {
  const foreign = foreignBpe(path, json);
  if (vocabSize < foreign.start.nextId) {
    throw new UserError('config_invalid', {
      where: 'data.tokenizer.vocabSize',
      what: `${vocabSize} is less than the ${foreign.start.nextId} tokens of ${path}, which is to be extended`,
      action: 'ask for more tokens than it has, or name it as `data.tokenizer.path` to use it as it is',
    });
  }
  return foreign;
}

async function learn(
  texts: AsyncIterable<string>,
  start: StartVocabulary,
  foreign: ForeignBpe | undefined,
  { workers = 0, vocabSize, progress }: TrainingOptions,
): Promise<LearnedMerges> {
  let characters = 0;
  const tell = (tokens: number) => progress?.({ characters, tokens, wanted: vocabSize - start.nextId });
  const groups = inGroups(texts, (length) => {
    characters += length;
    tell(0);
  });
  const table = new WordTable();
  for await (const counts of counted(groups, foreign, workers)) table.add(counts);
  const words = table.take();
  if (workers === 0) return learnMerges(words, start, vocabSize, tell);

  const pool = new WorkerPool<MergeJob, LearnedMerges>({
    module: 'bpe/merge_worker',
    caller: import.meta.url,
    size: 1,
  });
  const learned = new Int32Array(new SharedArrayBuffer(4));
  const timer = setInterval(() => tell(Atomics.load(learned, 0)), PROGRESS_EVERY);
  try {
    const transfer = [words.bytes.buffer, words.ends.buffer, words.counts.buffer];
    return await pool.run({ words, start, vocabSize, learned }, transfer);
  } finally {
    clearInterval(timer);
    await pool.close();
  }
}

async function* counted(
  groups: AsyncIterable<string[]>,
  foreign: ForeignBpe | undefined,
  workers: number,
): AsyncGenerator<WordCounts> {
  const native = foreign?.native;
  if (workers === 0) {
    for await (const group of groups) yield native ? countNativeWords(group, native) : countWords(group);
    return;
  }
  const data = native && foreign.json;
  const pool = new WorkerPool<string[], WordCounts>({
    ...{ module: 'bpe/count_worker', caller: import.meta.url, data, size: workers },
  });
  try {
    yield* pool.map(groups);
  } finally {
    await pool.close();
  }
}

async function* inGroups(texts: AsyncIterable<string>, taken: (characters: number) => void): AsyncGenerator<string[]> {
  let group: string[] = [];
  let size = 0;
  for await (const text of texts) {
    for (const piece of textPieces(text, PIECE)) {
      group.push(piece);
      size += piece.length;
      if (size < GROUP) continue;
      yield group;
      taken(size);
      group = [];
      size = 0;
    }
  }
  if (group.length > 0) yield group;
  taken(size);
}

function tokenizerJson(
  specials: readonly string[],
  vocab: Record<string, number>,
  merges: [string, string][],
): TokenizerJson {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content, id) => ({ id, content, ...flags })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges,
    },
  };
}
