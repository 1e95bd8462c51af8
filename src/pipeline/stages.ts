/** Each stage of a run, from the artefacts it needs to those it leaves. */

import { rm } from 'node:fs/promises';
import {
  type Checkpoint,
  latestCheckpoint,
  listCheckpoints,
  loadCheckpoint,
  removeAfter,
} from '../checkpoint/checkpoint.ts';
import type { RunConfig } from '../config/schema.ts';
import { ContinualStage } from '../continual/continual.ts';
import { TrainingBank } from '../continual/training_bank.ts';
import { type BuildProgress, buildData, type DataReport } from '../data/build.ts';
import { dataPaths } from '../data/paths.ts';
import { ReferenceDataset } from '../data/references.ts';
import { decodeChunk, Tokenizer } from '../data/tokenizer.ts';
import { UserError } from '../errors.ts';
import { sha256 } from '../io/files.ts';
import { lockRunFolder, type RunFolder } from '../io/run_folder.ts';
import { Bank } from '../memory/bank.ts';
import { BankIndex, chooseIndex } from '../memory/bank_index.ts';
import { chooseCodec } from '../memory/codec.ts';
import { readCodecs } from '../memory/codec_files.ts';
import { readDraft } from '../memory/draft.ts';
import type { RetrievalEncoder } from '../memory/encoders/encoder.ts';
import { type GrowthPlan, growthPlan } from '../memory/growth.ts';
import { modelKey, type ReaderIdentity, type StoredCodecs } from '../memory/layout.ts';
import { ReferenceIndex, refuseMemoryEncoder } from '../memory/reference_index.ts';
import { compileReferences, SORTED_TOGETHER } from '../memory/write.ts';
import { Model } from '../model/model.ts';
import { initParameters, type ModelShape } from '../model/shape.ts';
import { AdamW } from '../optim/adamw.ts';
import { Progress } from '../tracking/progress.ts';
import { type Training, train } from '../train/loop.ts';
import { type Provenance, TrainingRecord } from '../train/record.ts';
import { findCheckpoint, requireFit, trainingState, weightValues } from '../train/resume.ts';
import type { StageName } from '../train/stage.ts';
import { openText, type TrainingText } from '../train/text_batches.ts';
import { WarmupStage } from '../warmup/warmup.ts';
import { bankIdentity, makeEncoder } from './bank_setup.ts';
import { makeCodecs } from './codec_setup.ts';
import { stageSummary } from './report.ts';
import { sampler } from './samples.ts';
import { vectorProgress } from './session.ts';
import { modelShape, note, runFolder, say, type Workspace, withWorkspace } from './workspace.ts';

export interface StageOptions {
  resume: string;
  acceptChanges?: boolean;
}

/** `memory3 warmup`. @returns the exit status */
export function runWarmup(config: RunConfig, options: StageOptions): Promise<number> {
  return withWorkspace(config, { ...options, command: 'warmup' }, async (workspace) => {
    await warmup(workspace, options.resume);
  });
}

/** `memory3 continual`. @returns the exit status */
export function runContinual(config: RunConfig, options: StageOptions): Promise<number> {
  return withWorkspace(config, { ...options, command: 'continual' }, async (workspace) => {
    await continual(workspace, options.resume);
  });
}

/** `memory3 compile`. @returns the exit status */
export function runCompile(
  config: RunConfig,
  options: CompileOptions & { acceptChanges?: boolean; cold?: boolean },
): Promise<number> {
  return withWorkspace(config, { ...options, command: 'compile' }, async (workspace) => {
    if (options.cold) await prepareColdStart(workspace, options.stage);
    else await compile(workspace, options);
  });
}

/** `memory3 data build`. */
export async function runDataBuild(config: RunConfig): Promise<void> {
  const folder = runFolder(config);
  const lock = await lockRunFolder(folder.root);
  try {
    await buildRunData({ config, folder });
  } finally {
    lock.release();
  }
}

/** What is counted beside the bytes of a phase. */
const DONE_UNITS: Partial<Record<BuildProgress['phase'], string>> = {
  documents: 'documents',
  'continual documents': 'documents',
  'tokenizer text': 'documents',
  references: 'documents',
  tokens: 'shards',
  'continual tokens': 'shards',
};

/** A run whose data are built, by a command of its own or as part of one that is recorded. */
type BuiltRun = Pick<Workspace, 'config' | 'folder'> & Partial<Pick<Workspace, 'tracker'>>;

/** Builds tokenizer, token dataset and references, or keeps them when they are complete and fit the configuration. */
export async function buildRunData(workspace: BuiltRun): Promise<DataReport> {
  const { config, folder } = workspace;
  let progress: Progress | undefined;
  let phase: BuildProgress['phase'] | undefined;
  const onProgress = (now: BuildProgress): void => {
    if (now.phase !== phase) {
      progress?.stop();
      progress = new Progress({
        label: `data: ${now.phase}`,
        total: now.totalBytes,
        unit: now.phase === 'merges' ? 'tokens' : 'bytes',
      });
      phase = now.phase;
    }
    progress?.update(now.bytes, DONE_UNITS[now.phase] ? { [DONE_UNITS[now.phase]!]: now.done } : {});
  };
  try {
    const report = await buildData(config.data, config.memory, folder.data, config.seed, onProgress);
    progress?.stop();
    for (const warning of report.warnings) note(workspace, 'warning', `data: ${warning}`);
    const sum = (count: 'documents' | 'tokens') => report.sources.reduce((total, { train }) => total + train[count], 0);
    say(
      `data: ${report.kept ? 'kept' : 'built'} (${report.reason}); ${sum('documents')} documents, ` +
        `${sum('tokens')} tokens, vocabulary ${report.tokenizer.vocabSize}, ${report.references.references} references`,
    );
    return report;
  } finally {
    progress?.stop();
  }
}

/** What every stage reads. */
interface Inputs {
  tokenizer: Tokenizer;
  /** Text of stage one, and of the plain steps of stage two. */
  text: TrainingText;
  shape: ModelShape;
}

async function openInputs({ config, folder }: Workspace): Promise<Inputs> {
  const paths = dataPaths(folder.data);
  const tokenizer = await Tokenizer.load(paths.tokenizer);
  const text = await openText(paths.tokens, config.data.sources, { tokenizerHash: tokenizer.hash });
  return { tokenizer, text, shape: modelShape(config, tokenizer) };
}

/** Stage one. @returns true when it is complete */
export async function warmup(workspace: Workspace, resume: string): Promise<boolean> {
  const { config, folder } = workspace;
  // A codec that cannot be used is better known now than after the training.
  chooseCodec(config.memory.codec, config.model.headDim);
  const inputs = await openInputs(workspace);
  const checkpoint = await findCheckpoint(folder, 'warmup', resume, (text) => note(workspace, 'warning', text));
  const provenance = { tokenizerHash: inputs.tokenizer.hash, datasetHash: inputs.text.train.contentHash };
  if (checkpoint && (await isFinished(checkpoint, workspace, inputs.shape, provenance))) return true;
  const weights = checkpoint ? weightValues(checkpoint.parameters) : initParameters(inputs.shape, config.seed);
  const model = new Model(inputs.shape, weights);
  try {
    const stage = new WarmupStage(config, model, inputs.text);
    const sample = sampler(config, inputs.tokenizer, model);
    return await runStage(workspace, { provenance, model, stage, checkpoint, sample });
  } finally {
    model.dispose();
  }
}

/** Stage two. @returns true when it is complete */
export async function continual(workspace: Workspace, resume: string): Promise<boolean> {
  const { config, folder } = workspace;
  const inputs = await openInputs(workspace);
  const checkpoint = await findCheckpoint(folder, 'continual', resume, (text) => note(workspace, 'warning', text));
  const hasOwnText = config.data.continual.sources.length > 0;
  const text = hasOwnText
    ? await openText(dataPaths(folder.data).continualTokens, config.data.continual.sources, {
        tokenizerHash: inputs.tokenizer.hash,
      })
    : inputs.text;
  const references = await openReferences(workspace, inputs.tokenizer);
  const read = [text.train, inputs.text.train, references].map(({ contentHash }) => contentHash);
  const provenance = { tokenizerHash: inputs.tokenizer.hash, datasetHash: sha256(...read) };
  // Opening the bank for training would drop what was added to it since.
  if (checkpoint && (await isFinished(checkpoint, workspace, inputs.shape, provenance))) return true;
  if (checkpoint) {
    // Before the bank goes back to the checkpoint's version, no later checkpoint may name a later one.
    requireFit(checkpoint, inputs.shape, provenance);
    await removeAfter(folder.checkpoints('continual'), checkpoint.state.step);
  }
  const parent = checkpoint ?? (await finishedCheckpoint(workspace, 'warmup'));
  if (checkpoint === undefined && !(await compile(workspace, { stage: 'warmup' }))) return false;
  const model = new Model(inputs.shape, weightValues(parent.parameters));
  const prefix = inputs.tokenizer.referencePrefix;
  const version = checkpoint ? Number(checkpoint.state.bankVersion) : FIRST_VERSION;
  let bank: TrainingBank | undefined;
  let stage: ContinualStage | undefined;
  try {
    const decode = decodeChunk(inputs.tokenizer);
    const written = checkpoint ? checkpoint.state.bankWritten : { [parent.state.weightsHash]: 0 };
    bank = await TrainingBank.open({
      config,
      folder: folder.bank,
      model,
      references,
      prefix,
      decode,
      version,
      written,
    });
    stage = new ContinualStage({
      config,
      model,
      text,
      plainText: inputs.text,
      bank,
      tokenizer: dataPaths(folder.data).tokenizer,
      decode,
      prefix,
      parent: checkpoint?.state.parent ?? parent.state.weightsHash,
      checkpoints: folder.checkpoints('continual'),
    });
    const sample = sampler(config, inputs.tokenizer, model, bank);
    return await runStage(workspace, { provenance, model, stage, checkpoint, sample });
  } finally {
    await stage?.close();
    await bank?.close();
    model.dispose();
  }
}

/** True when nothing is left to train. @throws UserError artefact_mismatch when the checkpoint does not fit the run */
async function isFinished(
  checkpoint: Checkpoint,
  { config, tracker }: Workspace,
  shape: ModelShape,
  provenance: Provenance,
): Promise<boolean> {
  const { stage, step } = checkpoint.state;
  if (step < config[stage].steps) return false;
  requireFit(checkpoint, shape, provenance);
  say(`${stage}: complete at step ${step} (${checkpoint.path})`);
  // A command that was killed behind its last checkpoint has not said it.
  await tracker.summary(await stageSummary(tracker.folder, stage, trainingState(checkpoint)));
  await tracker.finishedStage(stage);
  return true;
}

/** A stage that is ready to train. */
interface ReadyStage extends Pick<Training, 'stage' | 'model' | 'sample'> {
  provenance: Provenance;
  checkpoint: Checkpoint | undefined;
}

/** Runs the shared loop from a checkpoint or from the start. */
async function runStage({ config, stop, tracker }: Workspace, ready: ReadyStage): Promise<boolean> {
  const { provenance, model, stage, checkpoint, sample } = ready;
  const state = trainingState(checkpoint);
  if (checkpoint) {
    requireFit(checkpoint, model.shape, provenance);
    say(`${stage.name}: going on from step ${state.step} of ${stage.settings.steps} (${checkpoint.path})`);
    tracker.event('resume', `${stage.name} from step ${state.step} (${checkpoint.path})`);
  }
  const record = await TrainingRecord.open(tracker, stage.name, config, provenance, checkpoint);
  const optimizer = new AdamW(model.parameters, config.optimizer);
  const { clipNorm } = config.optimizer;
  try {
    if (checkpoint) optimizer.load(checkpoint.optimizer);
    const { tracking } = config;
    const isComplete = await train({ stage, model, optimizer, clipNorm, record, tracking, state, stop, say, sample });
    if (isComplete) await tracker.summary(await stageSummary(tracker.folder, stage.name, state));
    return isComplete;
  } finally {
    optimizer.dispose();
    await record.close();
  }
}

/**
 * The last checkpoint of a stage that has made all its steps.
 * @throws UserError artefact_missing when the stage is not finished
 */
export async function finishedCheckpoint(
  { config, folder, tracker }: Workspace,
  stage: StageName,
): Promise<Checkpoint> {
  const { newest } = await latestCheckpoint(folder.checkpoints(stage));
  if (newest === undefined || newest.state.step < config[stage].steps) {
    throw new UserError('artefact_missing', {
      where: folder.checkpoints(stage),
      what: `the ${stage} stage is at step ${newest?.state.step ?? 0} of ${config[stage].steps}`,
      action: `run \`memory3 ${stage} -c …\` first`,
    });
  }
  await tracker.finishedStage(stage);
  return await loadCheckpoint(newest.path, { optimizer: false });
}

export interface CompileOptions {
  /** Whose weights write: by default those of the newest finished stage. */
  stage?: StageName;
  /** Share of the references; by default what the growth plan starts with (warmup), or all (continual). */
  share?: number;
}

/** The version that the stage-one checkpoint compiles: the bank that stage two begins with. */
const FIRST_VERSION = 1;

/**
 * Writes references as memories (paper §3.2, warm start). A bank that holds them already is kept.
 * With stage-one weights the bank is made anew; with stage-two weights all its memories are rewritten in one version. What a
 * call that was stopped or killed has written is used again.
 * @returns true when it is complete, false when it was stopped
 */
export async function compile(workspace: Workspace, options: CompileOptions = {}): Promise<boolean> {
  const { config, folder } = workspace;
  const stage = options.stage ?? (await newestFinished(workspace));
  const checkpoint = await finishedCheckpoint(workspace, stage);
  const { tokenizer, shape } = await openInputs(workspace);
  requireFit(checkpoint, shape, { tokenizerHash: tokenizer.hash });
  const references = await openReferences(workspace, tokenizer);
  const plan = growthPlan(config.continual.growth, references.size, config.seed);
  const first = stage === 'warmup' ? plan.countAt(0) : references.size;
  const count = options.share === undefined ? first : Math.ceil(options.share * references.size);
  const writer = checkpoint.state.weightsHash;
  const codec = chooseCodec(config.memory.codec, config.model.headDim);
  const exactly = options.share !== undefined;
  const held = await compiledMemories(folder.bank, stage, writer, count, { exactly, codec });
  if (held !== undefined) {
    const more = held < count ? `, ${held} memories; --share 1 writes all ${references.size} references` : '';
    say(`compile: kept, the bank holds what the ${stage} checkpoint wrote${more}`);
    return true;
  }
  if (stage === 'warmup') await refuseToLoseBank(folder);
  const model = new Model(shape, weightValues(checkpoint.parameters));
  try {
    const version = await writeBank(workspace, { stage, model, tokenizer, references, plan, count, writer });
    await buildIndex(workspace);
    say(
      `compile: ${count} of ${references.size} references written by the ${stage} checkpoint, bank version ${version}`,
    );
    return true;
  } catch (error) {
    if (error !== STOPPED) throw error;
    note(workspace, 'warning', 'compile: stopped; the same command goes on after the last whole segment');
    return false;
  } finally {
    model.dispose();
  }
}

/** What is written, in which order and by which weights. */
interface Writing {
  stage: StageName;
  model: Model;
  tokenizer: Tokenizer;
  references: ReferenceDataset;
  plan: GrowthPlan;
  /** References of the plan that become memories. */
  count: number;
  /** Hash of the weights. */
  writer: string;
}

/** Writes the references into a version of the bank. @returns its number @throws STOPPED */
async function writeBank(workspace: Workspace, writing: Writing): Promise<number> {
  const { config, folder, stop } = workspace;
  const { stage, model, tokenizer, references, plan, count, writer } = writing;
  const { memory, retrieval, seed } = config;
  const key = sha256(JSON.stringify([references.contentHash, memory, retrieval, seed, count, writer]));
  const prefix = tokenizer.referencePrefix;
  const beforeEach = (): void => {
    if (stop.requested) throw STOPPED;
  };
  const codecs =
    (await draftedCodecs(folder.bank, key)) ??
    (await makeCodecs(config, model, references, { prefix, plan, beforeEach }));
  const { encoder, bankWriter } = await openBank(workspace, stage, key, model, tokenizer, references);
  async function* texts(first: number) {
    for await (const reference of references.inOrder(plan.referencesAt(first, count), memory.contextTokens)) {
      beforeEach();
      yield reference;
    }
  }
  const progress = new Progress({ label: 'compile', total: count, unit: 'references' });
  const written = (first: number) =>
    compileReferences(model, texts(first), {
      prefix,
      memory,
      encoder,
      onProgress: (done) => progress.update(first + done),
    });
  try {
    await bankWriter.compile(key, written, writer, SORTED_TOGETHER, { codecs });
    return bankWriter.version;
  } finally {
    progress.stop();
  }
}

/** Makes the Faiss index that the size of the bank asks for. */
async function buildIndex(workspace: Workspace): Promise<void> {
  const { config, folder } = workspace;
  const bank = await Bank.open(folder.bank);
  try {
    const spec = chooseIndex(config.retrieval, bank.size, bank.identity.encoder);
    if (spec === undefined) return;
    const progress = new Progress({ label: `index ${spec.factory}`, total: bank.size, unit: 'vectors' });
    const index = await BankIndex.build(bank, spec, (done) => progress.update(done));
    progress.stop();
    if (index === undefined) {
      const what = `${bank.size} memories are too few to train ${spec.factory} on: searches compare with all of them`;
      note(workspace, 'warning', `compile: ${what}`);
      return;
    }
    await index.save();
    await index.close();
    say(`compile: index ${spec.factory} (${spec.reason})`);
  } finally {
    await bank.close();
  }
}

/** Thrown where references are read once a stop is asked for. */
const STOPPED = new Error('stopped');

/** A bank made anew has none of the versions that the checkpoints of stage two go on from. */
async function refuseToLoseBank(folder: RunFolder): Promise<void> {
  const checkpoints = folder.checkpoints('continual');
  if ((await listCheckpoints(checkpoints)).length === 0) return;
  throw new UserError('input_invalid', {
    where: folder.bank,
    what: 'the continual stage has begun with this bank, and stage-one memories would take its place',
    action: `finish the stage with \`memory3 continual -c …\`, or delete ${checkpoints} to begin it anew`,
  });
}

/** Lets sinks take what they lack of a run whose training is finished, for a command that does not train. */
export async function showFinished(workspace: Workspace): Promise<void> {
  const { config, folder, tracker } = workspace;
  const stage = await newestFinished(workspace);
  const { newest } = await latestCheckpoint(folder.checkpoints(stage));
  if (newest !== undefined && newest.state.step >= config[stage].steps) await tracker.finishedStage(stage);
}

async function newestFinished(workspace: Workspace): Promise<StageName> {
  const { newest } = await latestCheckpoint(workspace.folder.checkpoints('continual'));
  return newest !== undefined && newest.state.step >= workspace.config.continual.steps ? 'continual' : 'warmup';
}

/**
 * Memories of a bank that holds `count` of these weights, or for stage two any of these weights: edits stay.
 * @returns undefined when it is to be written
 */
async function compiledMemories(
  folder: string,
  stage: StageName,
  writer: string,
  count: number,
  { exactly, codec }: { exactly: boolean; codec: string | undefined },
): Promise<number | undefined> {
  try {
    const bank = await Bank.open(folder, stage === 'warmup' ? { version: FIRST_VERSION } : {});
    const sameWriter = bank.writers.length === 1 && bank.writers[0] === writer;
    // What was added or deleted since stage two was compiled stays, unless a share is asked for.
    const mayDiffer = stage === 'continual' && !exactly && bank.version > FIRST_VERSION;
    const complete = mayDiffer || bank.size === count;
    // What stage two has written stays, with what was edited since; stage one makes the bank anew.
    const sameCodec = stage === 'continual' || bank.identity.codecs?.keys.factory === codec;
    await bank.close();
    return sameWriter && complete && sameCodec ? bank.size : undefined;
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

/**
 * Makes ready for a cold start (paper §3.2): a bank without memories, and vectors of all references. A bank that this model
 * reads keeps its memories.
 * @throws UserError config_invalid for a retrieval encoder of memories; nothing is changed then
 */
async function prepareColdStart(workspace: Workspace, chosen?: StageName): Promise<void> {
  const { config, folder } = workspace;
  const stage = chosen ?? (await newestFinished(workspace));
  const checkpoint = await finishedCheckpoint(workspace, stage);
  const { tokenizer, shape } = await openInputs(workspace);
  requireFit(checkpoint, shape, { tokenizerHash: tokenizer.hash });
  const references = await openReferences(workspace, tokenizer);
  const writer = checkpoint.state.weightsHash;
  const reader = { modelKey: modelKey(shape, config.memory), tokenizerHash: tokenizer.hash, writers: [writer] };
  const isKept = await isReadable(folder.bank, reader);
  if (stage === 'warmup' && !isKept) await refuseToLoseBank(folder);
  const model = new Model(shape, weightValues(checkpoint.parameters));
  const progress = vectorProgress();
  try {
    const which = isKept ? 'continual' : stage;
    const { encoder, bankWriter } = await openBank(
      workspace,
      which,
      '',
      model,
      tokenizer,
      references,
      refuseMemoryEncoder,
    );
    if (!isKept) {
      const plan = growthPlan(config.continual.growth, references.size, config.seed);
      const codecs = await makeCodecs(config, model, references, { prefix: tokenizer.referencePrefix, plan });
      await bankWriter.compile('', () => [], writer, 1, { codecs });
    }
    const onProgress = (done: number): void => progress.update(done, references.size);
    const { references: beside } = dataPaths(folder.data);
    await ReferenceIndex.open(beside, references, encoder, { store: (write) => write(), onProgress });
    progress.stop();
    say(
      `compile: ready for \`ask --cold\`; the bank holds ${bankWriter.size} memories, version ${bankWriter.version}, ` +
        `and ${references.size} references can be found`,
    );
  } finally {
    progress.stop();
    model.dispose();
  }
}

async function isReadable(folder: string, identity: ReaderIdentity): Promise<boolean> {
  try {
    await (await Bank.open(folder, { identity })).close();
    return true;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

/**
 * A new bank for stage one, unless a call of the same key was stopped; the bank of the run for stage two, or a new one when
 * there is none.
 * @param check looks at the encoder before anything is changed
 */
async function openBank(
  { config, folder }: Workspace,
  stage: StageName,
  key: string,
  model: Model,
  tokenizer: Tokenizer,
  references: ReferenceDataset,
  check: (encoder: RetrievalEncoder) => void = () => {},
) {
  const mayGoOn = stage === 'continual' || (await readDraft(folder.bank))?.key === key;
  if (mayGoOn && (await hasBank(folder.bank))) {
    const bankWriter = await Bank.openForWriting(folder.bank);
    const encoder = await makeEncoder(config, model, tokenizer, references, bankWriter.identity);
    check(encoder);
    return { encoder, bankWriter };
  }
  const encoder = await makeEncoder(config, model, tokenizer, references);
  check(encoder);
  await rm(folder.bank, { recursive: true, force: true });
  return { encoder, bankWriter: await Bank.create(folder.bank, bankIdentity(config, model.shape, tokenizer, encoder)) };
}

/** The codecs that a call of the same key, which was stopped or killed, has trained. */
async function draftedCodecs(folder: string, key: string): Promise<StoredCodecs | undefined> {
  const draft = await readDraft(folder);
  if (draft?.key !== key) return undefined;
  try {
    return await readCodecs(folder, draft.codecs);
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

async function hasBank(folder: string): Promise<boolean> {
  try {
    await (await Bank.open(folder)).close();
    return true;
  } catch (error) {
    if (error instanceof UserError && error.code === 'artefact_missing') return false;
    throw error;
  }
}

async function openReferences({ folder }: Workspace, tokenizer: Tokenizer): Promise<ReferenceDataset> {
  const references = await ReferenceDataset.open(dataPaths(folder.data).references, { tokenizerHash: tokenizer.hash });
  if (references.size === 0) {
    throw new UserError('input_empty', {
      where: 'data.references',
      what: 'there are no references to write as memories',
      action: 'name at least one corpus under `data.references`',
    });
  }
  return references;
}
