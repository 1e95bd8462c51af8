/** The thread of `Prefetcher`: answers its requests one after the other. */

import { parentPort, workerData } from 'node:worker_threads';
import { continualSources } from '../data/source_groups.ts';
import { decodeChunk, Tokenizer } from '../data/tokenizer.ts';
import { openEngine } from '../engine/engine.ts';
import { packError } from '../io/thread.ts';
import { Bank } from '../memory/bank.ts';
import type { RetrievalEncoder } from '../memory/encoders/encoder.ts';
import { restoreEncoder } from '../memory/encoders/registry.ts';
import { Retriever } from '../memory/retrieve.ts';
import { RowCache } from '../memory/row_cache.ts';
import { openText, TextBatches } from '../train/text_batches.ts';
import { BatchReader, CACHE_BYTES, type OpenVersion, type Reading } from './batch_reader.ts';
import type { Answer, PrefetchSetup, Request } from './prefetch.ts';

class ReadingThread {
  private readonly setup: PrefetchSetup;
  private readonly reader: BatchReader;
  /** Shared by all versions: a memory that stays is read once. */
  private readonly cache = new RowCache(CACHE_BYTES);
  private readonly decode: (ids: Int32Array) => Promise<string>;
  private encoder: RetrievalEncoder | undefined;
  private version: OpenVersion | undefined;

  private constructor(setup: PrefetchSetup, reader: BatchReader) {
    this.setup = setup;
    this.reader = reader;
    let decoder: Promise<(ids: Int32Array) => Promise<string>> | undefined;
    this.decode = async (ids) => {
      decoder ??= Tokenizer.load(setup.tokenizer).then(decodeChunk);
      return await (await decoder)(ids);
    };
  }

  static async start(setup: PrefetchSetup): Promise<ReadingThread> {
    const { config, engine, tokens, prefix } = setup;
    // One thread: the others compute the step. A product has the same bits on any number of threads.
    await openEngine(engine, 1, config.precision);
    const text = await openText(tokens, continualSources(config.data));
    return new ReadingThread(setup, new BatchReader(config, new TextBatches(config, config.continual, text), prefix));
  }

  async answer(request: Request): Promise<Answer> {
    const { number } = request;
    if ('open' in request) {
      await this.open(request.open.version);
      return { number, opened: true };
    }
    if (this.version === undefined) throw new Error('no version of the bank is open');
    const reading = await this.reader.read(request.read.place, this.version);
    return { number, reading, cache: this.cache.stats };
  }

  private async open(version: number): Promise<void> {
    const old = this.version;
    this.version = undefined;
    await old?.retriever.close();
    await old?.bank.close();
    const bank = await Bank.open(this.setup.bank, { version, cache: this.cache });
    try {
      // A bank keeps its encoder for life.
      this.encoder ??= this.encoderOf(bank);
      this.version = { bank, retriever: await Retriever.fromBank(bank, this.encoder) };
    } catch (error) {
      await bank.close();
      throw error;
    }
  }

  private encoderOf({ identity: { encoder, layout } }: Bank): RetrievalEncoder {
    const queries = (): never => {
      throw new Error('the model is not in this thread');
    };
    return restoreEncoder(encoder, { layout, queries, decode: this.decode, config: this.setup.config });
  }
}

/** Buffers that are handed over instead of copied. */
function buffers({ ids, targets, stored, online, found }: Reading): ArrayBuffer[] {
  const memories = [stored?.rows, stored?.lengths, stored?.index, online?.ids, online?.index];
  const arrays = [ids, targets, ...memories, found.scores];
  return arrays.flatMap((array) => (array === undefined ? [] : [array.buffer as ArrayBuffer]));
}

function serve(port: NonNullable<typeof parentPort>): void {
  const thread = ReadingThread.start(workerData as PrefetchSetup);
  // Told to the first who asks.
  thread.catch(() => undefined);
  let newest: number | undefined;
  let last: Promise<void> = Promise.resolve();
  const answer = async (request: Request): Promise<void> => {
    try {
      // Nobody waits for the readings of a version that was left.
      if ('read' in request && request.read.version !== newest) throw new Error('another version is open');
      const given = await (await thread).answer(request);
      port.postMessage(given, 'reading' in given ? buffers(given.reading) : []);
    } catch (error) {
      port.postMessage({ number: request.number, failed: packError(error) } satisfies Answer);
    }
  };
  port.on('message', (request: Request) => {
    if ('open' in request) newest = request.open.version;
    last = last.then(() => answer(request));
  });
}

if (parentPort !== null) serve(parentPort);
