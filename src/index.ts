/** What programs may import from `memory3`. */

export { ERRORS, type ErrorCode, UserError } from './errors.ts';
export type { AddOptions, Knowledge } from './infer/knowledge.ts';
export {
  type Added,
  KnowledgeBase,
  type KnowledgeOptions,
  type ListOptions,
  type SearchHit,
  type SearchOptions,
  type StoredMemory,
  type StoredReference,
} from './infer/knowledge_base.ts';
export type { BankStats } from './memory/bank_stats.ts';
export type { BankRepair, DroppedMemory } from './memory/repair.ts';
