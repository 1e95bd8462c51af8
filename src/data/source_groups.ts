/** Sources by the names that a mixture and its reports know them under. */

import type { DataConfig, SourceConfig } from '../config/schema.ts';

export interface SourceGroup {
  name: string;
  weight: number | undefined;
  sources: SourceConfig[];
}

/** The sources of each name together, names in the order in which they first appear; a source without a name has its path's. */
export function sourceGroups(sources: readonly SourceConfig[]): SourceGroup[] {
  const groups = new Map<string, SourceGroup>();
  for (const source of sources) {
    const name = source.name ?? source.path;
    const group = groups.get(name);
    if (group) group.sources.push(source);
    else groups.set(name, { name, weight: source.weight, sources: [source] });
  }
  return [...groups.values()];
}

/** The weights by name; undefined when the sources have none. */
export function sourceWeights(sources: readonly SourceConfig[]): ReadonlyMap<string, number> | undefined {
  const weights = new Map(
    sourceGroups(sources).flatMap(({ name, weight }) => (weight === undefined ? [] : [[name, weight] as const])),
  );
  return weights.size > 0 ? weights : undefined;
}

/** What stage two is trained on: text of its own, or that of stage one. */
export function continualSources({ sources, continual }: DataConfig): SourceConfig[] {
  return continual.sources.length > 0 ? continual.sources : sources;
}
