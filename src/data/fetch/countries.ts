/** The countries of the world as short paragraphs of facts. */

import { z } from 'zod';
import type { Corpus, CorpusText, NpmPackage } from './corpus.ts';
import { packageList } from './package_file.ts';

export const COUNTRIES_PACKAGE: NpmPackage = {
  manager: 'npm',
  name: 'world-countries',
  version: '5.1.0',
  integrity: 'sha512-CXR6EBvTbArDlDDIWU3gfKb7Qk0ck2WNZ234b/A0vuecPzIfzzxH+O6Ejnvg1sT8XuiZjVlzOH0h08ZtaO7g0w==',
};

/** What is used of an entry of world-countries. */
export const countrySchema = z.object({
  cca2: z.string(),
  cca3: z.string(),
  name: z.object({ common: z.string(), official: z.string() }),
  capital: z.array(z.string()).optional(),
  region: z.string().optional(),
  subregion: z.string().optional(),
  languages: z.record(z.string(), z.string()).optional(),
  currencies: z.union([z.record(z.string(), z.object({ name: z.string() })), z.array(z.never())]).optional(),
  /** Codes (cca3) of the neighbours. */
  borders: z.array(z.string()).optional(),
  landlocked: z.boolean().optional(),
  /** Square kilometres. */
  area: z.number().optional(),
  demonyms: z.object({ eng: z.object({ m: z.string() }).optional() }).optional(),
});
export type Country = z.infer<typeof countrySchema>;

export const countries: Corpus = {
  name: 'countries',
  describe: 'countries with capital, languages, currency, neighbours and area',
  language: 'English',
  megabytes: 0.1,
  licence: 'ODbL-1.0',
  packages: [COUNTRIES_PACKAGE],
  licenceFiles: [['LICENSE']],
  async *read([folder]) {
    yield* countryTexts(await packageList(folder!, 'countries.json', countrySchema));
  },
};

/** One text a country: a sentence for each fact that is known. */
export function* countryTexts(all: readonly Country[]): Generator<CorpusText> {
  const names = new Map(all.map(({ cca3, name }) => [cca3, name.common]));
  for (const country of all) {
    const { cca3, name, region, subregion, landlocked, area = 0 } = country;
    const lists = {
      'it lies in': [subregion, region],
      'its capital is': country.capital,
      'languages:': Object.values(country.languages ?? {}),
      'currency:': Object.values(country.currencies ?? {}).map((currency) => currency.name),
      'it borders': country.borders?.map((code) => names.get(code) ?? code),
      'somebody from there is called': [country.demonyms?.eng?.m],
    };
    const facts = Object.entries(lists).flatMap(([says, values = []]) => {
      const given = values.filter((value) => value);
      return given.length > 0 ? [`${says} ${given.join(', ')}`] : [];
    });
    if (name.official !== name.common) facts.unshift(`its official name is ${name.official}`);
    if (landlocked) facts.push('it has no coast');
    if (area > 0) facts.push(`area: ${area} square kilometres`);
    const sentences = facts.map((fact) => `${name.common}: ${fact}.`);
    if (sentences.length === 0) continue;
    yield { id: `country-${cca3}`, title: name.common, text: sentences.join(' ') };
  }
}
