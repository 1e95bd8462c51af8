/** Encoding and decoding with a Hugging Face `tokenizer.json`, ours or a foreign one. */

import { readFile } from 'node:fs/promises';
import { Tokenizer as NativeTokenizer } from 'tokenizers';
import { isSystemError, UserError } from '../errors.ts';
import { sha256 } from '../io/files.ts';
import { type PreTokenizerJson, preTokenizerSteps } from './bpe/foreign.ts';
import type { AddedToken } from './bpe_trainer.ts';
import { REBUILD } from './manifest.ts';
import { textPieces } from './text_pieces.ts';

const BOS_NAMES = [
  '<s>',
  '<bos>',
  '<|begin_of_text|>',
  '<｜begin▁of▁sentence｜>',
  '<|startoftext|>',
  '[BOS]',
  '<|endoftext|>',
];
const EOS_NAMES = ['</s>', '<eos>', '<|end_of_text|>', '<｜end▁of▁sentence｜>', '[EOS]', '<|endoftext|>'];
const PAD_NAMES = ['<pad>', '[PAD]', '<|pad|>', '<|endoftext|>'];
/**
 * Longer texts are encoded in pieces of about so many code units, if they can be cut between words: the library takes 15 to
 * 20 % less processor time for pieces of 2^14 than for whole books, and a batch spreads better.
 */
const PIECE = 2 ** 14;
/** A piece has at most so many code units, since an encoding costs about 100 bytes a token. */
const MAX_PIECE = 2 ** 20;

export class Tokenizer {
  /** Largest token id + 1: the rows that an embedding needs. */
  readonly vocabSize: number;
  /** Begin of text; every document starts with it. */
  readonly bos: number;
  /** End of text, where the vocabulary has one. */
  readonly eos: number | undefined;
  /** Fills up short rows; the end of text, else the begin, where the vocabulary has no padding token. */
  readonly pad: number;
  /** Ids of `<s>Reference:`, put in front of a reference when it becomes a memory (paper §3.2). */
  readonly referencePrefix: Int32Array;
  /** sha256 of the file. */
  readonly hash: string;
  readonly #native: NativeTokenizer;
  /** Finds special tokens spelled out in text; undefined when there are none. */
  readonly #specials: RegExp | undefined;
  /** Code units of a piece. */
  readonly #piece: number;

  private constructor(
    { native, specials, byteLevel }: ParsedTokenizer,
    bos: number,
    referencePrefix: Int32Array,
    hash: string,
  ) {
    this.#native = native;
    this.#piece = byteLevel ? PIECE : MAX_PIECE;
    this.#specials = specials.length > 0 ? new RegExp(specials.map(escapeRegExp).join('|'), 'gu') : undefined;
    this.vocabSize = Object.values(native.getVocab(true)).reduce((most, id) => Math.max(most, id + 1), 0);
    this.bos = bos;
    this.eos = findToken(native, EOS_NAMES);
    this.pad = padToken(native) ?? this.eos ?? bos;
    this.referencePrefix = referencePrefix;
    this.hash = hash;
  }

  /**
   * Reads a `tokenizer.json`. Truncation and padding that the file asks for are switched off.
   * @throws UserError artefact_missing, input_invalid (not a tokenizer, or without a token that begins a text)
   */
  static async load(path: string): Promise<Tokenizer> {
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if (!isSystemError(error)) throw error;
      const what = error.code === 'ENOENT' ? 'the tokenizer does not exist' : error.message;
      throw new UserError('artefact_missing', { where: path, what, action: REBUILD, cause: error });
    }
    const parsed = parseTokenizer(path, text);
    const { native } = parsed;
    const bos = findToken(native, BOS_NAMES);
    if (bos === undefined) {
      throw new UserError('input_invalid', {
        where: path,
        what: `the vocabulary has no token that begins a text (looked for ${BOS_NAMES.join(' ')})`,
        action: 'add one of them to `added_tokens`, or leave `data.tokenizer.path` out to have a tokenizer trained',
      });
    }
    const prefix = await native.encode('Reference:', null, { addSpecialTokens: false });
    return new Tokenizer(parsed, bos, Int32Array.of(bos, ...prefix.getIds()), sha256(text));
  }

  /**
   * Token ids of `text`, without any special token: one that is spelled out in the text is encoded as ordinary
   * characters. Long texts are encoded in pieces cut between words, which gives the same ids as the whole. Only above 2^20
   * code units can they differ at a cut: where so much text has no place to cut, or with a tokenizer that is not byte-level.
   */
  async encode(text: string): Promise<Int32Array> {
    const [ids] = await this.encodeBatch([text]);
    return ids ?? new Int32Array(0);
  }

  /** {@link encode} of every text, spread over the cores. */
  async encodeBatch(texts: readonly string[]): Promise<Int32Array[]> {
    const pieces = texts.map((text) => this.#cut(text));
    const encodings = await this.#native.encodeBatch(pieces.flat(), { addSpecialTokens: false });
    let at = 0;
    return pieces.map(({ length }) => {
      const parts = encodings.slice(at, at + length).map((encoding) => encoding.getIds());
      at += length;
      return joined(parts);
    });
  }

  /** Text of `ids`; bytes that are no UTF-8 become U+FFFD. Special tokens are spelled out unless `skipSpecial`. */
  async decode(ids: ArrayLike<number>, options: { skipSpecial?: boolean } = {}): Promise<string> {
    return await this.#native.decode(Array.from(ids), options.skipSpecial ?? false);
  }

  /** Cuts a text so that no piece is too long and none holds a special token whole. */
  #cut(text: string): string[] {
    if (text.length <= this.#piece && (!this.#specials || text.search(this.#specials) < 0)) return [text];
    const cuts: number[] = [];
    if (this.#specials) {
      this.#specials.lastIndex = 0;
      for (let match = this.#specials.exec(text); match; match = this.#specials.exec(text)) {
        const cut = match.index + String.fromCodePoint(match[0].codePointAt(0) ?? 0).length;
        cuts.push(cut);
        this.#specials.lastIndex = cut;
      }
    }
    return [...cuts, text.length].flatMap((end, i) => [
      ...textPieces(text.slice(cuts[i - 1] ?? 0, end), MAX_PIECE, this.#piece),
    ]);
  }
}

/**
 * Makes `tokenizers` encode a batch on one thread, in the whole process: for a program whose own worker threads each encode a
 * part. Otherwise one worker already takes all cores, and the workers contend for the library's one pool of threads. To be
 * called in the main thread before the workers start: what a worker puts into its environment never reaches the library.
 * A setting that the user made stays.
 * @returns takes it back
 */
export function encodeOnOneThread(): () => void {
  if (process.env.TOKENIZERS_PARALLELISM !== undefined) return () => undefined;
  process.env.TOKENIZERS_PARALLELISM = 'false';
  return () => {
    delete process.env.TOKENIZERS_PARALLELISM;
  };
}

/** Gives the text of token ids without special tokens: what encoders of text search with. */
export function decodeChunk(tokenizer: Tokenizer): (ids: Int32Array) => Promise<string> {
  return async (ids) => await tokenizer.decode(ids, { skipSpecial: true });
}

/** The token that fills up short rows, where the vocabulary has one. */
export function padToken(native: NativeTokenizer): number | undefined {
  return findToken(native, PAD_NAMES);
}

export interface ParsedTokenizer {
  native: NativeTokenizer;
  /** Texts of the special tokens. */
  specials: string[];
  /** Words are bytes and nothing is put before them: a text cut between words has the ids of the whole. */
  byteLevel: boolean;
}

/**
 * Parses a `tokenizer.json`; truncation and padding that it asks for are switched off.
 * @param path for messages
 * @throws UserError input_invalid
 */
export function parseTokenizer(path: string, text: string): ParsedTokenizer {
  const invalid = (what: string, cause?: unknown) => {
    const action = 'give the `tokenizer.json` that `tokenizers` or `transformers` saved';
    return new UserError('input_invalid', { where: path, what, action, cause });
  };
  try {
    const { added_tokens: added = [], pre_tokenizer: preTokenizer } = JSON.parse(text) as {
      added_tokens?: Pick<AddedToken, 'id' | 'content' | 'special'>[];
      pre_tokenizer?: PreTokenizerJson | null;
    };
    const native = NativeTokenizer.fromString(text);
    native.disableTruncation();
    native.disablePadding();
    // The library numbers added tokens itself where the file leaves gaps; a model's embedding would not follow.
    const moved = added.find(({ id, content }) => native.tokenToId(content) !== id);
    if (moved)
      throw invalid(
        `added token ${moved.content} has id ${moved.id}, but its place is ${native.tokenToId(moved.content)}`,
      );
    const steps = preTokenizerSteps(preTokenizer);
    return {
      native,
      specials: added.filter((token) => token.special).map((token) => token.content),
      byteLevel: steps.some(({ type }) => type === 'ByteLevel') && !steps.some((step) => step.add_prefix_space),
    };
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw invalid(
      `not a Hugging Face tokenizer.json: ${error instanceof Error ? error.message : String(error)}`,
      error,
    );
  }
}

function findToken(native: NativeTokenizer, names: readonly string[]): number | undefined {
  for (const name of names) {
    const id = native.tokenToId(name);
    if (id !== null) return id;
  }
  return undefined;
}

function joined(parts: readonly number[][]): Int32Array {
  const [first] = parts;
  if (parts.length === 1 && first) return Int32Array.from(first);
  const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    ids.set(part, at);
    at += part.length;
  }
  return ids;
}

const escapeRegExp = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
