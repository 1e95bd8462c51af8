/** The fused operations of the model. */

export { type AdamwOptions, adamw, type ParameterState, type ParameterUpdate } from './adamw.ts';
export { appendTokens } from './append_tokens.ts';
export { type AttentionContext, type AttentionMemory, type AttentionResult, attention } from './attention.ts';
export { type CrossEntropyResult, crossEntropy } from './cross_entropy.ts';
export { embedding } from './embedding.ts';
export { gatherTokens } from './gather_tokens.ts';
export { globalNorm } from './global_norm.ts';
export { type HalfType, packHalf, unpackHalf } from './half.ts';
export { linear, linears } from './linear.ts';
export { rmsNorm } from './rms_norm.ts';
export { rope } from './rope.ts';
export { selectTokens } from './select_tokens.ts';
export { swiglu } from './swiglu.ts';
export { type TokenScoreRule, tokenScores } from './token_scores.ts';
export { type StorageType, unpackMemories } from './unpack_memories.ts';
export { view } from './view.ts';
