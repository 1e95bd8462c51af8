import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { configReference } from '../../scripts/config_reference.ts';
import { type FieldSchema, runFields } from '../../src/config/describe.ts';
import { loadConfig } from '../../src/config/load.ts';
import { runSchema } from '../../src/config/schema.ts';

const root = join(import.meta.dirname, '../..');
const shipped = readdirSync(join(root, 'configs'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.yaml'))
  .map((name) => join(root, 'configs', name));

/** Dotted paths of all fields that are not mappings. */
function leaves(field: FieldSchema, prefix = ''): string[] {
  return Object.entries(field.properties ?? {}).flatMap(([name, child]) =>
    child.properties ? leaves(child, `${prefix}${name}.`) : [`${prefix}${name}`],
  );
}

describe('shipped configurations', () => {
  it.each(shipped)('%s is valid', async (path) => {
    const { config } = await loadConfig(path);
    expect(config.name).not.toBe('');
  });

  it('are known by different names, so that their run folders differ', async () => {
    const names = await Promise.all(shipped.map(async (path) => (await loadConfig(path)).config.name));
    expect(new Set(names).size).toBe(shipped.length);
  });

  it('base.yaml holds every default', async () => {
    const path = join(root, 'configs/base.yaml');
    expect((await loadConfig(path)).config).toEqual(runSchema.parse({ name: 'base' }));
    const text = readFileSync(path, 'utf8');
    for (const leaf of leaves(runFields)) expect(text).toMatch(new RegExp(`^\\s*(# )?${leaf.split('.').at(-1)}:`, 'm'));
  });

  it.each([
    ['2.4b', 2.4],
    ['0.92b', 0.92],
  ])('paper/%s.yaml has %d B parameters without embeddings', async (name, billions) => {
    const { model } = (await loadConfig(join(root, `configs/paper/${name}.yaml`))).config;
    const { hiddenSize: d, headDim, numHeads, kvHeads, mlpWidth } = model;
    const perLayer = 2 * d * numHeads * headDim + 2 * d * kvHeads * headDim + 3 * d * mlpWidth;
    expect(Math.round((model.numLayers * perLayer) / 1e7) / 100).toBeCloseTo(billions, 1);
    expect(model.numHeads * model.headDim).toBe(d);
  });

  it('paper/2.4b.yaml makes memories of the published size', async () => {
    const { model, memory } = (await loadConfig(join(root, 'configs/paper/2.4b.yaml'))).config;
    expect(model.memoryLayers * 2 * model.kvHeads * memory.keptTokens * model.headDim).toBe(225_280);
  });
});

describe('reference page', () => {
  it('docs/config.md is what the schema says (npx tsx scripts/config_reference.ts)', () => {
    expect(readFileSync(join(root, 'docs/config.md'), 'utf8')).toBe(configReference());
  });

  it('describes every field', () => {
    const rows = configReference()
      .split('\n')
      .map((line) => line.split(/(?<!\\)\|/).map((cell) => cell.trim()));
    for (const leaf of leaves(runFields)) {
      const [section, ...rest] = leaf.split('.');
      const row = rows.find((cells) => cells[1] === `\`${rest.length > 0 ? rest.join('.') : section}\``);
      expect(row, leaf).toHaveLength(6);
      expect(row?.slice(2, 5), leaf).not.toContain('');
    }
  });
});
