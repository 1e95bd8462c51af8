import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { configDifferences, configHash, loadConfig, resolvedConfigYaml } from '../../src/config/load.ts';
import { runSchema } from '../../src/config/schema.ts';
import { UserError } from '../../src/errors.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'memory3-config-'));
});
afterEach(() => rm(folder, { recursive: true }));

async function write(name: string, text: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  return path;
}

/** The error of loading, with the folder's name taken out of its lines; the last line is the advice. */
async function refusal(path: string, set: string[] = []): Promise<{ code: string; lines: string[] }> {
  const error = await loadConfig(path, { set }).then(
    () => undefined,
    (caught: unknown) => caught,
  );
  if (!(error instanceof UserError)) throw new Error('a UserError was expected', { cause: error });
  return { code: error.code, lines: error.message.replaceAll(`${folder}/`, '').split('\n').slice(0, -1) };
}

describe('loading', () => {
  it('fills in every default when only the name is given', async () => {
    const path = await write('a.yaml', 'name: a\n');
    expect(await loadConfig(path)).toEqual({ config: runSchema.parse({ name: 'a' }), sources: [path] });
  });

  it('reads numbers of YAML 1.2, anchors and comments', async () => {
    const path = await write(
      'a.yaml',
      'name: a # the name\nwarmup: &stage {steps: 500, learningRate: {peak: 1e-4}}\ncontinual: *stage\n',
    );
    const { config } = await loadConfig(path);
    expect([config.warmup.learningRate.peak, config.continual.steps]).toEqual([1e-4, 500]);
  });

  it('lays a file over the chain that it extends: mappings merged, lists replaced', async () => {
    await write(
      'ground.yaml',
      'name: ground\nmodel: {numLayers: 3, hiddenSize: 64}\nevaluation: {memoryCounts: [1, 2]}\n',
    );
    await write('lib/middle.yaml', 'extends: ../ground.yaml\nmodel:\n  hiddenSize: 96\n');
    const path = await write('top.yaml', 'name: top\nextends: lib/middle.yaml\nevaluation: {memoryCounts: [7]}\n');
    const { config, sources } = await loadConfig(path);
    expect(config).toMatchObject({ name: 'top', model: { numLayers: 3, hiddenSize: 96 } });
    expect(config.evaluation.memoryCounts).toEqual([7]);
    expect(sources).toEqual(['ground.yaml', 'lib/middle.yaml', 'top.yaml'].map((name) => join(folder, name)));
  });

  it('applies overrides in order, into lists and as YAML', async () => {
    const path = await write('a.yaml', 'name: a\ndata: {sources: [{path: x}, {path: y}]}\nmodel: {numLayers: 4}\n');
    const { config } = await loadConfig(path, {
      set: [
        'model.numLayers=5',
        'model.numLayers=7',
        'data.sources.1.path=z=1',
        'evaluation.memoryCounts=[4, 2]',
        'warmup={steps: 400}',
        'model.tieEmbeddings=true',
      ],
    });
    expect(config.model).toMatchObject({ numLayers: 7, tieEmbeddings: true });
    expect(config.data.sources.map((source) => source.path)).toEqual(['x', 'z=1']);
    expect(config.evaluation.memoryCounts).toEqual([4, 2]);
    expect(config.warmup.steps).toBe(400);
  });
});

describe('problems', () => {
  it('are all reported at once, each at the place that set the value', async () => {
    await write('base.yaml', 'name: base\nmodel:\n  numHeads: 8\n  numLayers: "3"\n');
    const path = await write(
      'a.yaml',
      `extends: base.yaml
name: a b
model:
  numLayer: 4
  headDim: 33
engine: wams
data:
  sources:
    - format: json
    - 3
memory:
  keptTokens: 500
seed: -1
generate:
`,
    );
    const { code, lines } = await refusal(path, ['model.mlpWidth=0', 'memory.chunkLengt=3', 'threads=1.5']);
    expect(code).toBe('config_invalid');
    expect(lines.sort()).toEqual(
      [
        'a.yaml:2:7 name: is the text "a b" (allowed: letters, digits, dot, dash and underscore)',
        'a.yaml:13:7 seed: is -1 (allowed: an integer ≥ 0)',
        'a.yaml:6:9 engine: is the text "wams" (allowed: auto, cuda, native, tensorflow, wasm or cpu; did you mean "wasm"?)',
        '--set threads: is 1.5 (allowed: an integer ≥ 0)',
        'a.yaml:9:7 data.sources.0.path: is missing (allowed: text, not empty)',
        'a.yaml:9:15 data.sources.0.format: is the text "json" (allowed: auto, jsonl, text, parquet or arrow; did you mean "jsonl"?)',
        'a.yaml:10:7 data.sources.1: is 3 (allowed: a mapping)',
        'base.yaml:4:14 model.numLayers: is the text "3" (allowed: an integer ≥ 1)',
        'a.yaml:5:12 model.headDim: is 33 (allowed: an integer ≥ 2, a multiple of 2)',
        '--set model.mlpWidth: is 0 (allowed: an integer ≥ 1)',
        'a.yaml:4:3 model.numLayer: unknown key (did you mean "numLayers"?)',
        '--set memory.chunkLengt: unknown key (did you mean "chunkLength"?)',
        'a.yaml:14:10 generate: is empty (allowed: a mapping)',
        'a.yaml:12:15 memory.keptTokens: 500 is more than memory.referenceTokens (128)',
      ].sort(),
    );
  });

  it.each([
    ['model: {foo: 1}', /a\.yaml:2:9 model\.foo: unknown key \(allowed: numLayers, hiddenSize, /],
    ['numLayers: 3', /a\.yaml:2:1 numLayers: unknown key \(did you mean "model\.numLayers"\?\)/],
    ['steps: 3', /did you mean "warmup\.steps" or "continual\.steps"\?/],
    ['model.numLayers: 3', /a\.yaml:2:1 model\.numLayers: unknown key \(in a file, write the parts/],
    ['__proto__: {seed: 4}', /a\.yaml:2:1 __proto__: unknown key/],
    ['seed: 1e300', /a\.yaml:2:7 seed: is 1e\+300, beyond the exact integers \(2\^53\)/],
    ['threads: .nan', /a\.yaml:2:10 threads: is NaN \(allowed: an integer ≥ 0\)/],
    ['optimizer: [1]', /a\.yaml:2:12 optimizer: is a list \(allowed: a mapping\)/],
    ['generate: {topP: 0}', /generate\.topP: is 0 \(allowed: a number > 0 and ≤ 1\)/],
    ['model: {tieEmbeddings: yes}', /is the text "yes" \(allowed: true or false\)/],
    ['seed: 1\nseed: 2', /a\.yaml:3:1: the key seed is there twice/],
    ['seed: [1', /a\.yaml:3:1: not valid YAML/],
    ['seed: &a [*a]', /a\.yaml:2:11: the alias \*a contains itself/],
    ['seed: *nothing', /a\.yaml:2:7: the alias \*nothing has no anchor/],
    ['seed: !!int32 3', /a\.yaml:2:7: not valid YAML: Unresolved tag/],
    ['---\nname: b', /a\.yaml:2:1: holds more than one YAML document/],
    ['extends: 3', /a\.yaml:2:10 extends: is 3 \(allowed: the path of a YAML file\)/],
    ['extends: none.yaml', /a\.yaml:2:10 extends: none\.yaml: the configuration file does not exist/],
  ])('%s', async (text, expected) => {
    const { code, lines } = await refusal(await write('a.yaml', `name: a\n${text}\n`));
    expect(code).toBe('config_invalid');
    expect(lines.join('\n')).toMatch(expected);
  });

  it('of overrides name the override', async () => {
    const path = await write('a.yaml', 'name: a\nseed: 3\ndata: {sources: [{path: x}]}\n');
    const set = ['seed.x=1', 'threads=[', 'nothing', 'a..b=1', 'data.sources.1.path=y', 'extends=b.yaml'];
    expect((await refusal(path, set)).lines).toEqual([
      '--set threads: not valid YAML: Flow sequence must end with a ]',
      '--set nothing: is not an override (allowed: key.path=value)',
      '--set a..b=1: is not an override (allowed: key.path=value)',
      '--set data.sources.1.path: the list has no item 1, its length is 1',
      '--set seed.x seed: is a mapping (allowed: an integer ≥ 0)',
      expect.stringMatching(/^--set extends: unknown key/),
    ]);
  });

  it('of circles show the circle', async () => {
    await write('b.yaml', 'extends: ./a.yaml\n');
    const { lines } = await refusal(await write('a.yaml', 'name: a\nextends: b.yaml\n'));
    expect(lines).toEqual(['b.yaml:1:10 extends: the files extend each other in a circle: a.yaml → b.yaml → a.yaml']);
  });

  it('do not claim that something is missing when the file that may set it could not be read', async () => {
    await write('b.yaml', 'name: [\n');
    const { lines } = await refusal(await write('a.yaml', 'extends: b.yaml\nseed: -1\n'));
    expect(lines).toEqual([
      expect.stringMatching(/^b\.yaml:2:1: not valid YAML/),
      'a.yaml:2:7 seed: is -1 (allowed: an integer ≥ 0)',
    ]);
  });

  it('between fields are not judged on a value that is missing, wrong or mistyped', async () => {
    await write('b.yaml', 'name: [\n');
    const incomplete = await refusal(await write('a.yaml', 'extends: b.yaml\nmodel: {numHeads: 9}\n'));
    expect(incomplete.lines.filter((line) => line.includes('numHeads'))).toEqual([]);
    const wrong = await refusal(await write('c.yaml', 'name: c\nmodel: {numHeads: 9, kvHeads: three}\n'));
    expect(wrong.lines).toEqual([expect.stringMatching(/^c\.yaml:2:31 model\.kvHeads: is the text "three"/)]);
    const mistyped = await refusal(await write('d.yaml', 'name: d\nmodel: {numHeads: 9, kvHead: 3}\n'));
    expect(mistyped.lines).toEqual(['d.yaml:2:22 model.kvHead: unknown key (did you mean "kvHeads"?)']);
  });

  it('between fields blame the field that was set when the other is a default', async () => {
    const { lines } = await refusal(await write('a.yaml', 'name: a\nmodel: {numHeads: 9}\n'));
    expect(lines).toEqual(['a.yaml:2:19 model.numHeads: model.kvHeads = 4 does not divide model.numHeads (9)']);
  });

  it('of a file that is no configuration', async () => {
    expect(await refusal(join(folder, 'none.yaml'))).toMatchObject({ code: 'input_missing' });
    expect(await refusal(folder)).toMatchObject({ code: 'input_invalid' });
    expect(await refusal(await write('binary', new Uint8Array([0x6e, 0xff, 0xfe])))).toMatchObject({
      code: 'input_invalid',
      lines: ['binary: is not UTF-8 text'],
    });
    expect(await refusal(await write('big', 'a'.repeat(2 ** 20 + 1)))).toMatchObject({ code: 'input_invalid' });
    expect((await refusal(await write('list.yaml', '- 1\n'))).lines).toEqual([
      'list.yaml:1:1: is a list (allowed: a mapping of keys to values)',
    ]);
    expect((await refusal(await write('empty.yaml', ''))).lines[0]).toMatch(/^empty\.yaml:1:1 name: is missing/);
  });

  it('are found in any text without any other error', async () => {
    const path = join(folder, 'any.yaml');
    const words = fc.constantFrom(
      'name',
      'model',
      'seed',
      'extends',
      ':',
      ' ',
      '\n',
      '- ',
      '{',
      '}',
      '[',
      '*a',
      '&a ',
      '"',
      '3',
    );
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.array(words).map((list) => list.join('')),
        ),
        async (text) => {
          await writeFile(path, text);
          await loadConfig(path).catch((error: unknown) => expect(error).toBeInstanceOf(UserError));
        },
      ),
      { numRuns: 300 },
    );
  });

  it('stop at aliases that unfold without end', async () => {
    const rows = Array.from({ length: 9 }, (_, i) => `k${i + 1}: &k${i + 1} [${Array(10).fill(`*k${i}`).join(', ')}]`);
    const path = await write('bomb.yaml', ['k0: &k0 lol', ...rows].join('\n'));
    expect((await refusal(path)).lines).toEqual(['bomb.yaml:1:1: holds more than 10000 values']);
  });
});

describe('resolved configuration', () => {
  const names = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,12}$/);
  const configs = fc
    .record({
      name: fc.oneof(names, fc.constantFrom('1e3', 'null', 'true', '0x10', '12')),
      runsFolder: fc.string({ minLength: 1, unit: 'binary' }),
      seed: fc.maxSafeNat(),
      engine: fc.constantFrom('auto' as const, 'cpu' as const),
      peak: fc.double({ min: 1e-300, max: 1e300, noNaN: true }),
      counts: fc.array(fc.integer({ min: 1, max: 1e9 })),
    })
    .map(({ name, runsFolder, seed, engine, peak, counts }) =>
      runSchema.parse({
        ...{ name, runsFolder, seed, engine },
        warmup: { learningRate: { peak } },
        evaluation: { memoryCounts: counts },
      }),
    );

  it('is read back as it was', async () => {
    const path = join(folder, 'config.yaml');
    await fc.assert(
      fc.asyncProperty(configs, async (config) => {
        await writeFile(path, resolvedConfigYaml(config));
        const again = (await loadConfig(path)).config;
        expect(again).toEqual(config);
        expect(configHash(again)).toBe(configHash(config));
        expect(configDifferences(again, config)).toEqual([]);
      }),
    );
  });

  it('has a hash that depends on every value and on no order', () => {
    const config = runSchema.parse({ name: 'a', seed: 1 });
    const { name, ...rest } = config;
    expect(configHash({ ...rest, name })).toBe(configHash(config));
    expect(configHash({ ...config, seed: 2 })).not.toBe(configHash(config));
    expect(configHash(config)).toMatch(/^[0-9a-f]{64}$/);
  });

  it('differs from another at the named paths', () => {
    const a = runSchema.parse({ name: 'a', data: { sources: [{ path: 'x' }] } });
    const b = runSchema.parse({
      name: 'a',
      seed: 9,
      data: { sources: [{ path: 'y' }, { path: 'z' }], tokenizer: { path: 't.json' } },
      continual: { growth: { share: 0.5 } },
    });
    expect(configDifferences(a, b)).toEqual([
      'continual.growth.share',
      'data.sources.0.path',
      'data.sources.1',
      'data.tokenizer.path',
      'seed',
    ]);
    expect(configDifferences({ x: undefined }, {})).toEqual([]);
    expect(configDifferences({ x: [] }, { x: {} })).toEqual(['x']);
  });
});
