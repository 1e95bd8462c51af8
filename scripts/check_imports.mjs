// Fails when a room of src/ imports from a room that is not below it (the house is described in docs/architecture.md).
// Usage: node scripts/check_imports.mjs
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

/** Each room and the rooms it may import. Rooms absent from a list are forbidden to it. */
const ground = ['errors.ts', 'random.ts', 'io', 'config'];
const MAY_IMPORT = {
  'errors.ts': [],
  'random.ts': [],
  io: ['errors.ts'],
  config: ['errors.ts', 'io'],
  engine: ground,
  ops: [...ground, 'engine'],
  data: ground,
  model: [...ground, 'engine', 'ops'],
  optim: [...ground, 'engine', 'ops'],
  checkpoint: ground,
  memory: [...ground, 'engine', 'data', 'ops', 'model', 'checkpoint'],
  tracking: ground,
  train: [...ground, 'engine', 'ops', 'data', 'model', 'optim', 'checkpoint', 'tracking'],
  warmup: [...ground, 'engine', 'ops', 'data', 'model', 'optim', 'checkpoint', 'tracking', 'train'],
  continual: [...ground, 'engine', 'ops', 'data', 'model', 'optim', 'checkpoint', 'memory', 'tracking', 'train'],
  infer: [...ground, 'engine', 'ops', 'data', 'model', 'checkpoint', 'memory'],
  analysis: [...ground, 'tracking'],
  eval: [...ground, 'engine', 'ops', 'data', 'model', 'checkpoint', 'memory', 'infer'],
  dashboard: [...ground, 'data', 'memory', 'tracking', 'analysis'],
  'index.ts': ['errors.ts', 'infer', 'memory'],
  pipeline: [
    ...ground,
    ...['engine', 'ops', 'data', 'model', 'optim', 'checkpoint', 'memory', 'tracking', 'train'],
    ...['warmup', 'continual', 'infer', 'eval', 'analysis'],
  ],
  cli: [
    ...ground,
    ...['engine', 'ops', 'data', 'model', 'optim', 'checkpoint', 'memory', 'tracking', 'train'],
    ...['warmup', 'continual', 'infer', 'eval', 'analysis', 'dashboard', 'pipeline'],
  ],
};

const source = resolve(process.argv[2] ?? 'src');
const roomOf = (path) => relative(source, path).split('/')[0];
const files = readdirSync(source, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
  .map((entry) => join(entry.parentPath, entry.name));

const problems = [];
for (const file of files) {
  const room = roomOf(file);
  const allowed = MAY_IMPORT[room];
  if (!allowed) {
    problems.push(`${relative('.', file)}: ${room} is not a room of the house; add it to scripts/check_imports.mjs`);
    continue;
  }
  for (const [, specifier] of readFileSync(file, 'utf8').matchAll(/(?:from|import)\s*\(?\s*['"](\.[^'"]+)['"]/g)) {
    const target = roomOf(resolve(dirname(file), specifier));
    if (target !== room && !allowed.includes(target)) {
      problems.push(`${relative('.', file)}: ${room} must not import ${target} (${specifier})`);
    }
  }
}
if (problems.length > 0) {
  console.error(problems.join('\n'));
  process.exit(1);
}
console.log(`imports go down only: ${files.length} files checked`);
