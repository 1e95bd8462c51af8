// Writes docs/config.md, the reference page of the configuration, from the schema. Run: npx tsx scripts/config_reference.ts
import { fileURLToPath, pathToFileURL } from 'node:url';
import { allowedValues, type FieldSchema, runFields } from '../src/config/describe.ts';
import type { RunConfig } from '../src/config/schema.ts';
import { writeFileAtomic } from '../src/io/files.ts';

type Section = { [Key in keyof RunConfig]: RunConfig[Key] extends string | number ? never : Key }[keyof RunConfig];

const SECTIONS: Record<Section, string> = {
  data: 'What is read and how it is turned into tokens.',
  model: 'The shape of the transformer.',
  memory: 'What an explicit memory is and who reads it.',
  retrieval: 'How the memories of a chunk of text are found.',
  optimizer: 'AdamW, for both stages.',
  warmup: 'Stage one: ordinary pretraining without memories. A stage of 0 steps is left out.',
  continual: 'Stage two: training goes on with memories.',
  generate: 'Defaults of text generation.',
  evaluation: 'Questions asked with and without memories.',
  tracking: 'What is recorded of a run, and where it is shown.',
};

const INTRODUCTION = `# Configuration reference

<!-- Generated from src/config/schema.ts by \`npx tsx scripts/config_reference.ts\`; do not edit. -->

A run is described by one YAML file. Only \`name\` must be given; everything else has a default.

- \`extends: other.yaml\` (a path relative to the file) lays a file over another: mappings are merged key by key, lists
  and single values are replaced. Chains are allowed, circles are refused.
- \`--set a.b=c\` on the command line overrides one value; what follows \`=\` is YAML, and an item of a list is named by its
  number: \`--set data.sources.0.path=texts\`. It can be given several times.
- Unknown keys are refused. All problems are reported at once, each with the file, line and column that set the value.
- The resolved configuration, defaults included, is saved as \`config.yaml\` in the run folder and can be loaded again.
- Configurations to start from are in \`configs/\`; \`configs/base.yaml\` names every default.
`;

/** The reference page as Markdown. */
export function configReference(): string {
  const fields = Object.entries(runFields.properties ?? {});
  const sections = fields.filter(([, field]) => field.type === 'object');
  return [
    INTRODUCTION,
    '## Run\n\nKeys at the top of the file.\n',
    table(fields.filter(([, field]) => field.type !== 'object').flatMap(([key, field]) => rows(key, field, runFields))),
    ...sections.flatMap(([name, section]) => [
      `## ${name}\n\n${SECTIONS[name as Section]}\n`,
      table(Object.entries(section.properties ?? {}).flatMap(([key, field]) => rows(key, field, section))),
    ]),
  ].join('\n');
}

/** A Markdown table with aligned columns, as the formatter wants it. */
function table(rows: string[][]): string {
  const all = [
    ['Key', 'Allowed', 'Default', 'Meaning'],
    ...rows.map((row) => row.map((cell) => cell.replaceAll('|', '\\|'))),
  ];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const [heading, ...body] = all.map((row) => `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`);
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`;
  return [heading, rule, ...body, ''].join('\n');
}

/** One row for a field and one for each field inside it. */
function rows(path: string, field: FieldSchema, parent: FieldSchema): string[][] {
  const key = path.split('.').at(-1) ?? path;
  const inner = field.properties ? field : field.items?.properties ? field.items : undefined;
  const prefix = field.properties ? `${path}.` : `${path}[].`;
  return [
    [`\`${path}\``, allowedCell(field), defaultCell(key, field, parent), field.description ?? ''],
    ...Object.entries(inner?.properties ?? {}).flatMap(([name, child]) => rows(`${prefix}${name}`, child, inner ?? {})),
  ];
}

function allowedCell(field: FieldSchema): string {
  if (field.enum) return field.enum.map((value) => `\`${value}\``).join(', ');
  return field.pattern ? `text that matches \`${field.pattern}\`` : allowedValues(field);
}

function defaultCell(key: string, field: FieldSchema, parent: FieldSchema): string {
  if (parent.required?.includes(key)) return 'required';
  if (field.default === undefined) return 'none';
  return field.properties ? '' : `\`${JSON.stringify(field.default).replaceAll('"', '').replaceAll(',', ', ')}\``;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await writeFileAtomic(fileURLToPath(new URL('../docs/config.md', import.meta.url)), configReference());
}
