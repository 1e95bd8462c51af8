/**
 * Text generation with explicit memories (paper §3.1): text is cut into chunks; each chunk of the prompt retrieves its
 * own memories, and the tokens of a finished chunk are the query for the memories of the next.
 *
 * Legend: T tokens of one forward pass, R memory slots of a chunk, H query heads, V vocabulary.
 */

import type { GenerateConfig } from '../config/schema.ts';
import * as tf from '../engine/tf.ts';
import { disposeMemories, memoryTensors, readingPositions } from '../memory/reading.ts';
import { cutChunks, type Found } from '../memory/retrieve.ts';
import { stepMemories } from '../memory/step_memories.ts';
import { KeyValueCache } from '../model/cache.ts';
import { forward, type LayerMemories, logits } from '../model/forward.ts';
import { PURPOSE, randomUniform } from '../random.ts';
import type { Session } from './session.ts';

/** A memory as one chunk read it. */
export interface UsedMemory {
  id: string;
  /** Document and title of the reference. */
  document: string;
  title: string;
  text: string;
  /** Cosine similarity to the query. */
  score: number;
  /** Mean share of attention that the chunk's tokens gave it, over memory layers and heads. */
  share: number;
  /** The tokens that any layer and head kept, in the order of the text. */
  keptTokens: string[];
}

export interface ChunkTrace {
  /** Text tokens of the chunk, prompt or generated. */
  text: string;
  memories: UsedMemory[];
}

export interface Answer {
  text: string;
  /** Prompt tokens and generated tokens. */
  promptTokens: number;
  generatedTokens: number;
  trace: ChunkTrace[];
  /** Ids of the references that a cold start wrote for this answer and stored. */
  stored: string[];
}

export interface GenerateOptions extends GenerateConfig {
  seed: number;
  /** Read memories; needs a session with a bank. */
  memory: boolean;
  /** Called with each new piece of text as soon as it is whole characters. */
  onText?: (piece: string) => void;
}

/** What generates: a session, or a model that is being trained. Without memories it has neither search nor store. */
export type Generating = Pick<Session, 'config' | 'tokenizer' | 'model'> &
  Partial<Pick<Session, 'search' | 'store' | 'storeWritten'>>;

/** Where a decoder finds memories and reads them. */
type Memories = Pick<Session, 'search' | 'store'>;

/** Continues `prompt` until an end token, one of the `stop` texts, or `maxTokens`. */
export async function generate(session: Generating, prompt: string, options: GenerateOptions): Promise<Answer> {
  const { tokenizer } = session;
  const decoder = new Decoder(session, options.memory ? memoriesOf(session) : undefined);
  try {
    const promptIds = Int32Array.of(tokenizer.bos, ...(await tokenizer.encode(prompt)));
    let scores = await decoder.readPrompt(promptIds);
    const generated: number[] = [];
    let text = '';
    while (generated.length < options.maxTokens) {
      const token = sample(scores, options, generated.length);
      if (token === tokenizer.eos || token === tokenizer.bos) break;
      generated.push(token);
      const longer = untilStop(await tokenizer.decode(generated), options.stop);
      // The last bytes of an unfinished character decode to U+FFFD; they are shown once it is whole.
      if (!longer.text.endsWith('\uFFFD')) {
        options.onText?.(longer.text.slice(text.length));
        text = longer.text;
      }
      if (longer.stopped) break;
      scores = await decoder.read(Int32Array.of(token));
    }
    const counts = { promptTokens: promptIds.length, generatedTokens: generated.length };
    const trace = await decoder.trace();
    return { text, ...counts, trace, stored: (await session.storeWritten?.()) ?? [] };
  } finally {
    decoder.dispose();
  }
}

function memoriesOf({ search, store }: Generating): Memories {
  if (search === undefined || store === undefined) throw new Error('there are no memories to read');
  return { search, store };
}

/** `text` up to and including the first stop text in it. */
function untilStop(text: string, stops: readonly string[]): { text: string; stopped: boolean } {
  const ends = stops.map((stop) => ({ at: text.indexOf(stop), stop })).filter(({ at }) => at >= 0);
  if (ends.length === 0) return { text, stopped: false };
  const first = ends.reduce((a, b) => (b.at < a.at ? b : a));
  return { text: text.slice(0, first.at + first.stop.length), stopped: true };
}

/** The next token: the likeliest at temperature 0, else drawn from the nucleus of mass `topP` (Holtzman et al. 2020). */
export function sample(
  scores: Float32Array,
  { temperature, topP, seed }: Pick<GenerateOptions, 'temperature' | 'topP' | 'seed'>,
  step: number,
): number {
  const order = Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
  const best = order[0]!;
  if (temperature === 0) return best;
  const weights = order.map((token) => Math.exp((scores[token]! - scores[best]!) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let nucleus = 0;
  let size = 0;
  while (size < order.length && nucleus < topP * total) nucleus += weights[size++]!;
  let left = randomUniform(seed, PURPOSE.sampling, step, 0) * nucleus;
  for (let i = 0; i < size; i++) {
    left -= weights[i]!;
    if (left < 0) return order[i]!;
  }
  return order[size - 1]!;
}

/** A chunk that is being read. */
interface OpenChunk {
  tokens: number[];
  found: Found[];
  memories: LayerMemories | undefined;
  /** Attention mass on each slot, summed over memory layers, heads and tokens. */
  mass: Float64Array;
}

/** Reads tokens one after the other through a key-value cache and changes memories at chunk boundaries. */
class Decoder {
  private readonly session: Generating;
  private readonly source: Memories | undefined;
  private readonly cache = new KeyValueCache();
  private readonly chunks: OpenChunk[] = [];
  /** Text tokens read, prefix not counted. */
  private textLength = 0;

  /** @param source of the memories; none are read without */
  constructor(session: Generating, source: Memories | undefined) {
    this.session = session;
    this.source = source;
  }

  /** Reads the prompt, each chunk with the memories found by itself. @returns scores of the next token, `[V]` */
  async readPrompt(ids: Int32Array): Promise<Float32Array> {
    let scores: Float32Array = new Float32Array();
    for (const chunk of cutChunks(ids, this.session.config.memory.chunkLength)) {
      await this.openChunk(chunk);
      scores = await this.forward(chunk);
    }
    return scores;
  }

  /** Reads one more token. */
  async read(ids: Int32Array): Promise<Float32Array> {
    const current = this.chunks.at(-1);
    if (current === undefined || current.tokens.length === this.session.config.memory.chunkLength) {
      await this.openChunk(Int32Array.from(current?.tokens ?? ids));
    }
    return await this.forward(ids);
  }

  /** What each chunk read. */
  async trace(): Promise<ChunkTrace[]> {
    const { tokenizer } = this.session;
    return await Promise.all(
      this.chunks.map(async (chunk) => ({
        text: await tokenizer.decode(chunk.tokens, { skipSpecial: true }),
        memories: await Promise.all(chunk.found.map((found, slot) => this.used(this.source!, found, chunk, slot))),
      })),
    );
  }

  dispose(): void {
    this.cache.dispose();
    for (const chunk of this.chunks) this.closeChunk(chunk);
  }

  private async openChunk(query: Int32Array): Promise<void> {
    const previous = this.chunks.at(-1);
    if (previous) this.closeChunk(previous);
    const found = this.source ? await this.search(this.source, query) : [];
    const memories = this.source && found.length > 0 ? await this.memories(this.source, found) : undefined;
    this.chunks.push({ tokens: [], found, memories, mass: new Float64Array(found.length) });
  }

  private async search({ search }: Memories, query: Int32Array): Promise<Found[]> {
    const [found = []] = await search.search([query], this.session.config.memory.memoriesPerChunk);
    return found;
  }

  private async memories({ store }: Memories, found: readonly Found[]): Promise<LayerMemories> {
    const slots = { memoriesPerChunk: found.length, chunkLength: this.session.config.memory.chunkLength };
    const step = await stepMemories(store, [[found.map(({ id }) => id)]], slots);
    return memoryTensors(step, store.identity, slots, 1, 0);
  }

  private closeChunk(chunk: OpenChunk): void {
    if (chunk.memories) disposeMemories(chunk.memories);
    chunk.memories = undefined;
  }

  private async forward(ids: Int32Array): Promise<Float32Array> {
    const chunk = this.chunks.at(-1)!;
    const input = this.forwardInput(ids, chunk);
    const { scores, mass } = tf.tidy(() => {
      const { hidden, shares } = forward(this.session.model, input);
      const [rows, width] = hidden.shape;
      const last = logits(this.session.model, hidden.slice([rows - 1, 0], [1, width]));
      const bySlot = shares && shares.length > 0 ? tf.addN(shares.map((share) => share.sum([0, 1, 2]))) : undefined;
      return { scores: last.flatten(), mass: bySlot };
    });
    const values = await scores.data<'float32'>();
    scores.dispose();
    if (mass) {
      (await mass.data()).forEach((value, slot) => {
        chunk.mass[slot]! += value;
      });
      mass.dispose();
    }
    chunk.tokens.push(...ids);
    this.textLength += ids.length;
    return Float32Array.from(values);
  }

  /** Tokens with their positions: behind the prefix and the interval of the memories when those are read. */
  private forwardInput(ids: Int32Array, chunk: OpenChunk) {
    const { config, tokenizer } = this.session;
    const first = this.textLength;
    const cache = this.cache;
    if (this.source === undefined) {
      const positions = Int32Array.from(ids, (_, i) => first + i);
      return { ids, positions, cache };
    }
    const prefix = first === 0 ? tokenizer.referencePrefix : new Int32Array(0);
    const { length } = tokenizer.referencePrefix;
    const whole = readingPositions(length, ids.length, config.memory.referenceTokens, first);
    const positions = prefix.length > 0 ? whole : whole.subarray(length);
    // The first pass has the prefix in front, which reads no memory; later ones are all text.
    const memories = chunk.memories && { ...chunk.memories, start: prefix.length };
    return { ids: Int32Array.of(...prefix, ...ids), positions, cache, memories };
  }

  private async used({ store }: Memories, found: Found, chunk: OpenChunk, slot: number): Promise<UsedMemory> {
    const { model, tokenizer } = this.session;
    const record = await store.get(found.id);
    const readers = chunk.tokens.length * model.shape.numHeads * model.shape.memoryLayers;
    const kept = [...new Set(record.kept)].sort((a, b) => a - b);
    return {
      id: found.id,
      document: record.document,
      title: record.title ?? '',
      text: record.text,
      score: found.score,
      share: chunk.mass[slot]! / readers,
      keptTokens: await Promise.all(kept.map((position) => tokenizer.decode([record.tokens[position] ?? 0]))),
    };
  }
}
