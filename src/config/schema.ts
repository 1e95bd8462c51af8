/**
 * The one description of a run. Every field carries a `describe` text, from which the reference page
 * `docs/config.md` is generated. Unknown keys are refused.
 */

import { z } from 'zod';

const count = z.int().min(0);
const positive = z.int().min(1);
const share = z.number().min(0).max(1);

export const sourceSchema = z
  .strictObject({
    path: z.string().min(1).describe('File or folder. Relative paths are taken from the working directory.'),
    name: z
      .string()
      .min(1)
      .optional()
      .describe('What reports call it; its path when left out. Sources of one name are taken together.'),
    weight: z
      .number()
      .positive()
      .optional()
      .describe(
        'Its part of the training sequences: in an epoch exactly `weight` / sum of all weights. Given for all sources of a list or for none; without, as much as it has tokens.',
      ),
    format: z
      .enum(['auto', 'jsonl', 'text', 'parquet', 'arrow'])
      .default('auto')
      .describe(
        '`jsonl`: one JSON object a line; `text`: one document a file (folders are walked); `parquet`, `arrow` (stream or file): one document a row; `auto`: by extension. JSONL and text may be compressed (`.gz`, `.zst`).',
      ),
    encoding: z
      .enum(['auto', 'utf-8', 'utf-16le', 'utf-16be', 'windows-1252', 'gb18030'])
      .default('auto')
      .describe(
        'Of text files. `auto`: a byte order mark decides, else UTF-8 where the bytes are valid, else GB 18030 where that reads as Chinese, else Windows-1252 (Latin-1).',
      ),
    textField: z.string().min(1).default('text').describe('Field or column that holds the text.'),
    idField: z.string().min(1).default('id').describe('Field kept as the document id, when present.'),
    titleField: z.string().min(1).default('title').describe('Field kept as the title, when present.'),
    urlField: z.string().min(1).default('url').describe('Field kept as the address, when present.'),
  })
  .describe('A corpus to read.');

export const cleaningSchema = z.strictObject({
  unicode: z
    .enum(['none', 'nfc', 'nfkc'])
    .default('none')
    .describe('Unicode normalisation of the text; also drops control characters when not `none`.'),
  minWords: count
    .default(0)
    .describe('Fewer words are dropped; in Chinese and Japanese every character counts as a word. 0: off.'),
  minMeanWordLength: z
    .number()
    .min(0)
    .default(0)
    .describe('Least mean length of the words, in characters; not for Chinese and Japanese. 0: off.'),
  maxMeanWordLength: z
    .number()
    .min(0)
    .default(0)
    .describe('Greatest mean length of the words, in characters; not for Chinese and Japanese. 0: off.'),
  maxNonAlphabetic: share
    .default(1)
    .describe('Greatest share of characters, white space apart, that are neither letters nor marks of one. 1: off.'),
  minUniqueWords: share.default(0).describe('Least share of distinct words among the first 1,000. 0: off.'),
  minEntropy: z.number().min(0).default(0).describe('Least entropy of the words of the text, in bits a word. 0: off.'),
  maxRepeatedLines: share
    .default(1)
    .describe('Greatest share of characters in lines that repeat an earlier line of the document. 1: off.'),
});

export const deduplicationSchema = z.strictObject({
  exact: z.boolean().default(false).describe('Drop a document whose text (white space apart) was met before.'),
  near: z
    .boolean()
    .default(false)
    .describe('Drop a document that is nearly the same as an earlier one (MinHash over runs of five words).'),
  similarity: share.default(0.75).describe('Least Jaccard similarity of near duplicates.'),
  window: positive
    .default(2_000_000)
    .describe(
      'Kept documents that are compared with at least; beyond twice as many the oldest are forgotten, so that memory stays bounded (about 200 bytes each).',
    ),
});

export const dataSchema = z.strictObject({
  sources: z.array(sourceSchema).default([]).describe('Training text.'),
  references: z.array(sourceSchema).default([]).describe('Texts that become explicit memories (paper §3.2).'),
  continual: z
    .strictObject({
      sources: z
        .array(sourceSchema)
        .default([])
        .describe('Text of the steps with memories; `data.sources` when empty.'),
      alignDocuments: positive
        .default(1)
        .describe(
          'Documents of it begin at multiples of so many tokens, the gap is padding that is not learned; with `memory.chunkLength` here a chunk never spans two documents. 1: back to back.',
        ),
    })
    .prefault({})
    .describe('Text of its own for stage two.'),
  strict: z
    .boolean()
    .default(false)
    .describe('End at the first record that cannot be read, instead of counting and naming it.'),
  cleaning: cleaningSchema
    .prefault({})
    .describe('Rules that drop training documents of low quality (paper §4.2); references are never dropped.'),
  deduplication: deduplicationSchema.prefault({}).describe('Dropping training documents that were met before.'),
  tokenizer: z
    .strictObject({
      path: z.string().min(1).optional().describe('A ready Hugging Face `tokenizer.json`; without it one is trained.'),
      extend: z
        .string()
        .min(1)
        .optional()
        .describe(
          'A byte-level `tokenizer.json` that keeps its tokens and gets merges of the training text until it has `vocabSize` tokens (paper §4.3).',
        ),
      sources: z
        .array(sourceSchema)
        .default([])
        .describe('Text that the tokenizer is trained on; that of `data.sources` and `data.continual` when empty.'),
      vocabSize: z
        .int()
        .min(260)
        .default(8192)
        .describe('Size of the trained vocabulary, special tokens and all 256 bytes included.'),
      sampleBytes: positive.default(50_000_000).describe('Bytes of training text that the tokenizer is trained on.'),
    })
    .prefault({})
    .describe('Byte-level BPE.'),
  sequenceLength: z.int().min(8).default(2048).describe('Tokens of a training sequence.'),
  separateDocuments: z
    .boolean()
    .default(false)
    .describe('A token attends only to its own document, where a training sequence holds several.'),
  shardBytes: z
    .int()
    .min(1024)
    .default(33_554_432)
    .describe('Text of one Arrow shard, in UTF-8 bytes; of very short documents a shard has 262,144 at most.'),
  validationShare: share
    .default(0.01)
    .describe('Share of documents kept for validation, chosen by a hash of the text.'),
  minDocumentCharacters: positive.default(1).describe('Shorter documents are counted and skipped.'),
  workers: count.default(0).describe('Threads that clean and encode; 0: the physical cores. The result is the same.'),
});

export const modelSchema = z.strictObject({
  numLayers: positive.default(6).describe('Transformer blocks L.'),
  hiddenSize: positive.default(256).describe('Width d of the residual stream.'),
  numHeads: positive.default(8).describe('Query heads H.'),
  kvHeads: positive.default(4).describe('Key-value heads; divides `numHeads` (grouped-query attention).'),
  headDim: z.int().min(2).multipleOf(2).default(32).describe('Dimension of a head d_h, even.'),
  mlpWidth: positive.default(512).describe('Width W of the gated MLP.'),
  memoryLayers: count.default(3).describe('The first `memoryLayers` blocks read explicit memories (L_mem).'),
  vocabSize: positive.optional().describe('Rows of the embedding; the tokenizer’s size when left out.'),
  ropeTheta: z.number().positive().default(10_000).describe('Base of the rotary position embedding.'),
  normEpsilon: z.number().positive().default(1e-5).describe('Epsilon of RMSNorm.'),
  tieEmbeddings: z.boolean().default(false).describe('Share the embedding with the output head.'),
  init: z
    .enum(['depth', 'mimetic'])
    .default('depth')
    .describe(
      'Initial weights. `depth`: normal, outputs of a block scaled by 1/√(2L). `mimetic`: unscaled, outputs of attention start near the transposed values and the head near the embedding, so that small models learn to copy early.',
    ),
  initStd: z.number().positive().default(0.02).describe('Standard deviation of the initial weights.'),
  embeddingStd: z.number().positive().default(0.02).describe('Standard deviation of the initial embedding.'),
});

export const memorySchema = z.strictObject({
  referenceTokens: z
    .int()
    .min(2)
    .default(128)
    .describe('Longest reference l_ref in tokens; also the shared position interval of all memories.'),
  contextTokens: count
    .default(0)
    .describe(
      'Tokens of the document in front of a reference that are read with it when it is written, so that a piece of a long document has seen what comes before it (paper, Remark 3); 0: each reference alone.',
    ),
  keptTokens: positive.default(8).describe('Tokens kept per layer and key-value head, l_mem.'),
  chunkLength: positive.default(64).describe('Text tokens that read the same memories, l_chunk.'),
  memoriesPerChunk: positive.default(5).describe('References a chunk reads: its own and those of the chunks before.'),
  storage: z
    .enum(['float32', 'float16', 'bfloat16'])
    .default('bfloat16')
    .describe('How the numbers of a memory are stored in the bank (the paper: bfloat16); with a `codec` not used.'),
  codec: z
    .string()
    .min(1)
    .optional()
    .describe(
      'Stores keys and values as short codes, with a loss: a Faiss codec string, such as `PQ8` or the paper’s `OPQ20x80-Residual2x14-PQ8x10`, or `auto`, which chooses one for `headDim`. Needs Faiss. The codes are read as float32.',
    ),
  tokenScores: z
    .enum(['softmax', 'exp'])
    .default('softmax')
    .describe('How tokens are scored when a memory is written: softmax rows, or the plain exp sum (paper §3.3).'),
});

export const retrievalSchema = z.strictObject({
  encoder: z
    .enum(['lexical', 'use-lite', 'onnx', 'keys', 'keys-multi'])
    .default('lexical')
    .describe(
      'What is indexed: `lexical` hashed tf-idf of tokens; `use-lite` meaning, English only, with the optional npm packages of the Universal Sentence Encoder lite; `onnx` an encoder of your own, such as BGE-M3, see `onnx`; `keys` the memories’ own keys, searched with attention queries; `keys-multi` the same, and the 64 best are scored again by each of their keys.',
    ),
  dimensions: positive.default(512).describe('Length of the lexical vectors.'),
  onnx: z
    .strictObject({
      model: z.string().min(1).describe('The model as an `.onnx` file.'),
      tokenizer: z.string().min(1).describe('Its Hugging Face `tokenizer.json`.'),
      pooling: z
        .enum(['cls', 'mean', 'none'])
        .default('cls')
        .describe(
          'How the vectors of tokens become one: that of the first token (`cls`, as BGE-M3 wants it) or their mean; `none`: the model gives one vector a text itself.',
        ),
      maxTokens: z.int().min(8).default(512).describe('Tokens of a text that are read, special tokens included.'),
      queryPrefix: z.string().default('').describe('Put in front of a chunk that is searched for.'),
      documentPrefix: z.string().default('').describe('Put in front of a reference.'),
    })
    .optional()
    .describe('The encoder of `encoder: onnx`, with the optional npm package `onnxruntime-node`.'),
  index: z
    .string()
    .min(1)
    .default('auto')
    .describe(
      'How vectors are searched: `exact` compares with all of them, for `lexical` ones by their words; `auto` takes a Faiss index for a large bank of other vectors; or a string of Faiss’s index factory, such as `HNSW32` or `IVF1024,Flat`.',
    ),
  search: z
    .record(z.string(), z.number())
    .default({})
    .describe(
      'Search parameters of the Faiss index when it is made, such as `{ efSearch: 256 }` or `{ nprobe: 64 }`; `memory3 bank tune` finds them.',
    ),
  query: z
    .enum(['previous', 'own'])
    .default('previous')
    .describe(
      'Which chunk is the query during training: the one before (as in decoding) or the chunk itself (the paper’s wording).',
    ),
  candidates: positive.default(8).describe('Nearest references examined per chunk before the overlap filter.'),
  overlapThreshold: share
    .default(0.9)
    .describe('A reference that overlaps a training sequence by more is not given to it (paper §3.5).'),
  evaluationOverlapThreshold: share.default(0.667).describe('The same in evaluation (paper §7).'),
});

export const optimizerSchema = z.strictObject({
  beta1: share.default(0.9).describe('AdamW first moment decay.'),
  beta2: share.default(0.95).describe('AdamW second moment decay.'),
  epsilon: z.number().positive().default(1e-8).describe('AdamW epsilon.'),
  weightDecay: z.number().min(0).default(0.1).describe('Decoupled weight decay; norms are not decayed.'),
  clipNorm: z.number().positive().default(1).describe('Global gradient norm above which gradients are scaled down.'),
});

const schedule = z
  .strictObject({
    kind: z
      .enum(['wsd', 'cosine', 'constant'])
      .default('wsd')
      .describe('`wsd`: linear rise, plateau, linear decay over the last share of the steps.'),
    peak: z.number().positive().default(1e-3).describe('Highest learning rate.'),
    final: z.number().min(0).default(0).describe('Learning rate at the last step, as a share of `peak`.'),
    warmupSteps: count.default(100).describe('Steps of linear rise.'),
    decayShare: share.default(0.1).describe('Share of all steps in the final decay (`wsd`).'),
  })
  .prefault({});

const stageFields = {
  steps: count.default(1000).describe('Optimiser steps of the stage.'),
  batchSize: positive.default(8).describe('Sequences of one micro-batch.'),
  accumulate: positive.default(1).describe('Micro-batches of one optimiser step.'),
  learningRate: schedule.describe('Learning-rate schedule.'),
  validateEvery: count.default(100).describe('Steps between validations; 0: at the last step only.'),
  validationBatches: positive.default(4).describe('Batches of one validation.'),
  checkpointEvery: count.default(200).describe('Steps between checkpoints; 0 only at the end.'),
  keepCheckpoints: positive
    .default(2)
    .describe('Newest checkpoints kept, besides the one with the best validation loss.'),
  recompute: z
    .boolean()
    .default(false)
    .describe('Recompute each block in the backward pass instead of keeping its activations.'),
};

export const warmupSchema = z.strictObject(stageFields);

export const continualSchema = z.strictObject({
  ...stageFields,
  memories: z
    .enum(['bank', 'online'])
    .default('bank')
    .describe(
      '`bank`: precompiled memories, no gradient; `online`: encoded in the step, gradients flow through keys and values (the paper’s).',
    ),
  plainShare: share.default(0).describe('Share of steps trained without memories.'),
  growth: z
    .strictObject({
      initialShare: share.default(0.25).describe('Share of the references in the bank when the stage starts.'),
      every: count.default(100).describe('Steps between growths; 0: the whole bank from the start.'),
      share: share.default(0.25).describe('Share of all references added at each growth.'),
    })
    .prefault({})
    .describe('How the bank grows.'),
  refreshEvery: count.default(0).describe('Steps between rewritings of the bank with the current weights; 0 never.'),
  refreshShare: z
    .number()
    .gt(0)
    .max(1)
    .default(1)
    .describe('Share of the memories rewritten each time, those that were written longest ago.'),
  refreshBelow: share
    .default(1)
    .describe(
      'A rewriting that is due is left out while a sample of the memories is like what the current weights write: mean cosine of keys and of values at least this. 1: none is left out.',
    ),
  prefetch: count
    .default(2)
    .describe(
      'Micro-batches whose memories are searched and read ahead in a thread of their own while the model computes; 0: in the step. The result has the same bits. `keys` and `keys-multi` search with the model of the step and always read in it.',
    ),
  driftSample: count
    .default(32)
    .describe(
      'Memories of the bank that each validation compares with what the current weights write (`bankDrift…` in the validation metrics); 0: none.',
    ),
});

export const generateSchema = z.strictObject({
  maxTokens: positive.default(128).describe('Tokens generated at most.'),
  temperature: z.number().min(0).default(0).describe('0: greedy.'),
  topP: z.number().gt(0).max(1).default(1).describe('Nucleus sampling.'),
  stop: z.array(z.string().min(1)).default([]).describe('Generation ends after any of these texts.'),
});

export const evaluationSchema = z.strictObject({
  questions: z.string().min(1).optional().describe('JSONL file of held-out questions: `{prompt, answer, reference}`.'),
  maxQuestions: positive.default(200).describe('Questions asked at most.'),
  memoryCounts: z
    .array(positive)
    .default([1, 2, 3, 5])
    .describe('Numbers of memories among which the right one stands.'),
  ragSeparator: z
    .string()
    .default('\n')
    .describe('What stands between a reference and a question when the reference is given as text.'),
});

export const trackingSchema = z.strictObject({
  sinks: z
    .array(z.enum(['wandb', 'tensorboard', 'csv']))
    .default([])
    .describe(
      'Where the run is shown besides its own files: `wandb` Weights & Biases, `tensorboard` event files, `csv` a table. Whichever fails, training goes on; `memory3 track export` makes each from the files of the run.',
    ),
  hardwareEvery: z
    .number()
    .min(0)
    .default(10)
    .describe('Seconds between samples of processor, memory, disk and graphics cards; 0: none.'),
  histogramsEvery: count
    .default(0)
    .describe(
      'Steps between histograms of each parameter and its gradient; 0: none. One costs about as much as reading all weights.',
    ),
  attentionEvery: count
    .default(20)
    .describe(
      'Steps between pictures of the attention on memories, by layer and head, in stage two; 0: none. A plain step has none.',
    ),
  retrievalsEvery: count
    .default(20)
    .describe(
      'Steps between records of which memories some chunks read, in stage two; 0: none. A plain step has none.',
    ),
  retrievedChunks: positive.default(16).describe('Chunks in such a record.'),
  samples: z
    .strictObject({
      every: count.default(0).describe('Steps between samples; 0: none.'),
      prompts: z.array(z.string().min(1)).default([]).describe('Texts to go on from.'),
      maxTokens: positive.default(32).describe('Tokens generated at most, each the likeliest.'),
    })
    .prefault({})
    .describe('Texts generated during training, in stage two with memories.'),
  wandb: z
    .strictObject({
      mode: z
        .enum(['offline', 'online'])
        .default('offline')
        .describe(
          '`offline`: a `.wandb` file that the official `wandb sync` uploads; `online`: sent while the run goes on, with the key in `WANDB_API_KEY` or `~/.netrc`.',
        ),
      project: z
        .string()
        .regex(/^[A-Za-z0-9._-]{1,128}$/, 'letters, digits, dot, dash and underscore, 128 at most')
        .default('memory3')
        .describe('Project; `WANDB_PROJECT` goes before it.'),
      entity: z
        .string()
        .min(1)
        .optional()
        .describe('User or team; `WANDB_ENTITY` goes before it, without both the default of the key.'),
      group: z.string().min(1).optional().describe('Group of runs that belong together.'),
      tags: z.array(z.string().min(1).max(64)).default([]).describe('Tags, also shown in the dashboard.'),
      notes: z.string().default('').describe('A sentence on what the run is for.'),
    })
    .prefault({})
    .describe(
      'Weights & Biases. Keys are never taken from here and never written; `WANDB_BASE_URL` names another server.',
    ),
});

export const runSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'letters, digits, dot, dash and underscore')
    .describe('Name of the run; its folder is `<runsFolder>/<name>`.'),
  runsFolder: z.string().min(1).default('runs').describe('Where run folders are made.'),
  seed: count.default(1234).describe('Seed of every random choice.'),
  engine: z
    .enum(['auto', 'cuda', 'native', 'tensorflow', 'wasm', 'cpu'])
    .default('auto')
    .describe('What computes; `auto` takes the first that is there.'),
  precision: z
    .enum(['auto', 'float32', 'bfloat16'])
    .default('auto')
    .describe(
      'How activations are stored and multiplied; weights, optimiser state, sums and losses are float32 in any case. `auto`: `bfloat16` on `cuda`, `float32` elsewhere; no other engine has `bfloat16`.',
    ),
  threads: count.default(0).describe('Threads of the engine; 0: the physical cores.'),
  data: dataSchema.prefault({}),
  model: modelSchema.prefault({}),
  memory: memorySchema.prefault({}),
  retrieval: retrievalSchema.prefault({}),
  optimizer: optimizerSchema.prefault({}),
  warmup: warmupSchema.prefault({}),
  continual: continualSchema.prefault({}),
  generate: generateSchema.prefault({}),
  evaluation: evaluationSchema.prefault({}),
  tracking: trackingSchema.prefault({}),
});

export type RunConfig = z.infer<typeof runSchema>;
export type SourceConfig = RunConfig['data']['sources'][number];
export type DataConfig = RunConfig['data'];
export type CleaningConfig = RunConfig['data']['cleaning'];
export type DeduplicationConfig = RunConfig['data']['deduplication'];
export type ModelConfig = RunConfig['model'];
export type MemoryConfig = RunConfig['memory'];
export type RetrievalConfig = RunConfig['retrieval'];
export type OptimizerConfig = RunConfig['optimizer'];
export type ScheduleConfig = RunConfig['warmup']['learningRate'];
export type WarmupConfig = RunConfig['warmup'];
export type ContinualConfig = RunConfig['continual'];
export type GenerateConfig = RunConfig['generate'];
export type EvaluationConfig = RunConfig['evaluation'];
export type TrackingConfig = RunConfig['tracking'];
export type EngineName = RunConfig['engine'];
export type Precision = RunConfig['precision'];
