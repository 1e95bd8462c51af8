/** What must hold between fields of a run configuration, beyond what each field allows by itself. */

import type { RunConfig, SourceConfig } from './schema.ts';

/** A broken rule; `paths` are the fields it compares, the one to blame first. */
export interface CrossFieldProblem {
  paths: string[];
  what: string;
}

/** Every broken rule of `config`, in the order of the schema. */
export function crossFieldProblems(config: RunConfig): CrossFieldProblem[] {
  const problems: CrossFieldProblem[] = [];
  const require = (holds: boolean, paths: string[], what: string) => {
    if (!holds) problems.push({ paths, what });
  };
  checkEngine(config, require);
  checkData(config, require);
  checkModel(config, require);
  checkMemory(config, require);
  checkOptimizer(config, require);
  checkStage('warmup', config, require);
  checkStage('continual', config, require);
  checkBank(config, require);
  return problems;
}

type Require = (holds: boolean, paths: string[], what: string) => void;

function checkEngine({ engine, precision }: RunConfig, require: Require): void {
  require(precision !== 'bfloat16' || engine === 'cuda' || engine === 'auto', [
    'precision',
    'engine',
  ], `the engine ${engine} computes in float32 only; take auto or float32, or engine cuda on a machine with a GPU`);
}

function checkData({ data }: RunConfig, require: Require): void {
  require(data.validationShare < 1, ['data.validationShare'], '1 leaves nothing to train on');
  require(data.continual.alignDocuments <= data.sequenceLength, [
    'data.continual.alignDocuments',
    'data.sequenceLength',
  ], `${data.continual.alignDocuments} is more than data.sequenceLength (${data.sequenceLength}): a sequence could be all padding`);
  require(data.tokenizer.path === undefined || data.tokenizer.extend === undefined, [
    'data.tokenizer.extend',
    'data.tokenizer.path',
  ], 'a tokenizer is either taken as it is (data.tokenizer.path) or extended');
  checkWeights('data.sources', data.sources, require);
  checkWeights('data.continual.sources', data.continual.sources, require);
}

/** Weights are shares of one whole: all sources of a list have one, or none has. */
function checkWeights(path: string, sources: readonly SourceConfig[], require: Require): void {
  const weighted = sources.filter(({ weight }) => weight !== undefined).length;
  const bare = sources.findIndex(({ weight }) => weight === undefined);
  require(weighted === 0 || bare < 0, [`${path}.${bare}`], 'other sources have a weight, this one has none');
  const weights = new Map<string, number | undefined>();
  for (const [i, { path: file, name = file, weight }] of sources.entries()) {
    const first = weights.get(name) ?? weight;
    require(first === weight, [`${path}.${i}.weight`], `another source named ${name} has the weight ${first}`);
    weights.set(name, first);
  }
}

function checkModel({ model, data, continual }: RunConfig, require: Require): void {
  require(model.numHeads % model.kvHeads === 0, [
    'model.kvHeads',
    'model.numHeads',
  ], `${model.kvHeads} does not divide model.numHeads (${model.numHeads})`);
  require(model.memoryLayers <= model.numLayers, [
    'model.memoryLayers',
    'model.numLayers',
  ], `${model.memoryLayers} is more than model.numLayers (${model.numLayers})`);
  require(model.memoryLayers > 0 || continual.steps === 0 || continual.plainShare === 1, [
    'model.memoryLayers',
    'continual.steps',
    'continual.plainShare',
  ], '0, but the continual stage trains with memories; set continual.steps or continual.plainShare otherwise');
  require(model.vocabSize === undefined ||
    data.tokenizer.path !== undefined ||
    model.vocabSize >= data.tokenizer.vocabSize, [
    'model.vocabSize',
    'data.tokenizer.vocabSize',
    'data.tokenizer.path',
  ], `${model.vocabSize} is less than data.tokenizer.vocabSize (${data.tokenizer.vocabSize})`);
}

function checkMemory({ memory, retrieval, model, data, continual }: RunConfig, require: Require): void {
  require(memory.keptTokens <= memory.referenceTokens, [
    'memory.keptTokens',
    'memory.referenceTokens',
  ], `${memory.keptTokens} is more than memory.referenceTokens (${memory.referenceTokens})`);
  require(memory.contextTokens === 0 || continual.memories === 'bank' || continual.steps === 0, [
    'memory.contextTokens',
    'continual.memories',
  ], 'references encoded in the step stand alone; set continual.memories: bank, or memory.contextTokens: 0');
  const isRewritten = continual.memories === 'bank' && (continual.refreshEvery > 0 || continual.driftSample > 0);
  require(memory.contextTokens === 0 || !isRewritten || continual.steps === 0, [
    'memory.contextTokens',
    'continual.refreshEvery',
    'continual.driftSample',
  ], 'what stood in front of a reference is not in the bank, so that memories cannot be written again from it');
  require(memory.chunkLength <= data.sequenceLength, [
    'memory.chunkLength',
    'data.sequenceLength',
  ], `${memory.chunkLength} is more than data.sequenceLength (${data.sequenceLength})`);
  require(retrieval.query !== 'previous' || memory.chunkLength !== data.sequenceLength || continual.steps === 0, [
    'retrieval.query',
    'memory.chunkLength',
    'data.sequenceLength',
    'continual.steps',
  ], `previous needs at least two chunks in a sequence; memory.chunkLength (${memory.chunkLength}) must be less than ` +
    `data.sequenceLength (${data.sequenceLength})`);
  require(!retrieval.encoder.startsWith('keys') || model.memoryLayers > 0, [
    'retrieval.encoder',
    'model.memoryLayers',
  ], `${retrieval.encoder} needs model.memoryLayers ≥ 1`);
  require(retrieval.encoder !== 'onnx' || retrieval.onnx !== undefined, [
    'retrieval.encoder',
    'retrieval.onnx',
  ], 'onnx needs retrieval.onnx.model and retrieval.onnx.tokenizer');
  require(retrieval.encoder === 'onnx' || retrieval.onnx === undefined, [
    'retrieval.onnx',
    'retrieval.encoder',
  ], `it is set, but retrieval.encoder is ${retrieval.encoder}; set that to onnx, or leave this out`);
}

function checkOptimizer({ optimizer }: RunConfig, require: Require): void {
  require(optimizer.beta1 < 1, ['optimizer.beta1'], '1 would never let a gradient in; use less');
  require(optimizer.beta2 < 1, ['optimizer.beta2'], '1 would never let a gradient in; use less');
}

function checkStage(name: 'warmup' | 'continual', config: RunConfig, require: Require): void {
  const stage = config[name];
  const { kind, warmupSteps, decayShare, final } = stage.learningRate;
  require(final <= 1, [`${name}.learningRate.final`], `${final} is a share of the peak and cannot be more than 1`);
  // A stage of no steps is left out, so its other settings have nothing to contradict.
  if (stage.steps === 0) return;
  require(warmupSteps <= stage.steps, [
    `${name}.learningRate.warmupSteps`,
    `${name}.steps`,
  ], `${warmupSteps} is more than ${name}.steps (${stage.steps})`);
  const decaySteps = Math.round(decayShare * stage.steps);
  require(kind !== 'wsd' || warmupSteps > stage.steps || warmupSteps + decaySteps <= stage.steps, [
    `${name}.learningRate.decayShare`,
    `${name}.learningRate.warmupSteps`,
    `${name}.steps`,
  ], `the rise (${warmupSteps} steps) and the decay (${decaySteps} steps) overlap in ${name}.steps (${stage.steps})`);
  require(stage.validateEvery === 0 || config.data.validationShare > 0, [
    `${name}.validateEvery`,
    'data.validationShare',
  ], `${stage.validateEvery}, but data.validationShare is 0; set ${name}.validateEvery: 0 or keep some documents`);
}

function checkBank({ continual }: RunConfig, require: Require): void {
  const { initialShare, every, share } = continual.growth;
  require(every === 0 || share > 0 || initialShare === 1, [
    'continual.growth.share',
    'continual.growth.initialShare',
    'continual.growth.every',
  ], '0 would never grow the bank; set continual.growth.every: 0 for the whole bank from the start');
  require(continual.refreshBelow === 1 || continual.driftSample > 0, [
    'continual.driftSample',
    'continual.refreshBelow',
  ], `0, but continual.refreshBelow (${continual.refreshBelow}) needs memories to compare`);
}
